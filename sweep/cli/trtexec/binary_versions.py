"""How each version of the binaries spells graph, transfers and waiting: the defaults were turned round in 11.0.

Sources: samples/common/sampleOptions.{h,cpp} of NVIDIA/TensorRT at v10.0.0 to v11.1, and NVIDIA's pages on
``tensorrt_rtx``; docs/reference/trtexec.md names each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Flags = tuple[str, ...]
Version = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One set of defaults.

    Attributes:
        binary: the executable's name.
        versions: in words, for the heading.
        least: first version that speaks it.
        graph: flags with and without a CUDA graph.
        transfers: flags with and without copies.
        spin: flags for spinning and for blocking.
        build: flags that every build from ONNX needs.
        rtx: the library compiles when a context is made, and has no flag for some of the builder's knobs.
    """

    binary: str
    versions: str
    least: Version
    graph: tuple[Flags, Flags]
    transfers: tuple[Flags, Flags]
    spin: tuple[Flags, Flags]
    build: Flags = ()
    rtx: bool = False


_TRANSFERS_ON_BY_DEFAULT: tuple[Flags, Flags] = ((), ("--noDataTransfers",))
_TRANSFERS_OFF_BY_DEFAULT: tuple[Flags, Flags] = (("--includeDataTransfers",), ())
_BLOCKS_BY_DEFAULT: tuple[Flags, Flags] = (("--useSpinWait",), ())
_SPINS_BY_DEFAULT: tuple[Flags, Flags] = ((), ("--noSpinWait",))

DIALECTS = {
    "tensorrt": (
        Dialect(
            binary="trtexec",
            versions="TensorRT 10.x",
            least=(10,),
            graph=(("--useCudaGraph",), ()),
            transfers=_TRANSFERS_ON_BY_DEFAULT,
            spin=_BLOCKS_BY_DEFAULT,
            build=("--stronglyTyped",),
        ),
        Dialect(
            binary="trtexec",
            versions="TensorRT 11.x",
            least=(11,),
            graph=((), ("--noCudaGraph",)),
            transfers=_TRANSFERS_OFF_BY_DEFAULT,
            spin=_SPINS_BY_DEFAULT,
        ),
    ),
    "tensorrt_rtx": (
        Dialect(
            binary="tensorrt_rtx",
            versions="TensorRT-RTX 1.0 and 1.1",
            least=(1,),
            graph=(("--useCudaGraph",), ()),
            transfers=_TRANSFERS_ON_BY_DEFAULT,
            spin=_BLOCKS_BY_DEFAULT,
            rtx=True,
        ),
        Dialect(
            binary="tensorrt_rtx",
            versions="TensorRT-RTX 1.2 to 1.4",
            least=(1, 2),
            graph=(("--rtxCudaGraphStrategy=wholeGraph",), ()),
            transfers=_TRANSFERS_ON_BY_DEFAULT,
            spin=_BLOCKS_BY_DEFAULT,
            rtx=True,
        ),
        Dialect(
            binary="tensorrt_rtx",
            versions="TensorRT-RTX 1.5 and later",
            least=(1, 5),
            graph=(("--rtxCudaGraphStrategy=wholeGraph",), ("--rtxCudaGraphStrategy=disable",)),
            transfers=_TRANSFERS_OFF_BY_DEFAULT,
            spin=_SPINS_BY_DEFAULT,
            rtx=True,
        ),
    ),
}


def library_version(said: str | None) -> Version | None:
    """(10, 13, 0, 35) of ``tensorrt 10.13.0.35``; None where no version is named."""
    found = re.search(r"(\d+(?:\.\d+)+)", said or "")
    return tuple(int(part) for part in found[1].split(".")) if found else None


def of_version(backend: str, version: Version | None) -> tuple[Dialect, ...]:
    """The dialects of ``backend`` that apply: one for a known version, all for an unknown one, none for an old one."""
    known = DIALECTS[backend]
    if version is None:
        return known
    return tuple(dialect for dialect in known if version >= dialect.least)[-1:]
