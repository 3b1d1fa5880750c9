"""Describe how each version of the binaries spells graph, transfers and waiting; 11.0 inverted the defaults.

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
    """Describe the flags of a range of versions.

    Attributes:
        binary: the executable's name.
        versions: the range, for the heading.
        least: first version of the range.
        graph: flags with and without a CUDA graph.
        transfers: flags with and without copies.
        spin: flags for spinning and for blocking.
        build: flags that every build from ONNX needs.
        rtx: whether it is TensorRT-RTX, which compiles when a context is made and lacks some builder flags.
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


def library_version(text: str | None) -> Version | None:
    """Return the version in `text`, e.g. (10, 13, 0, 35) of ``tensorrt 10.13.0.35``, or None if it holds none."""
    match = re.search(r"(\d+(?:\.\d+)+)", text or "")
    return tuple(int(part) for part in match[1].split(".")) if match else None


def of_version(backend: str, version: Version | None) -> tuple[Dialect, ...]:
    """Return the dialects of `backend` that apply to `version`: all if it is None, none if it is too old, else one."""
    dialects = DIALECTS[backend]
    if version is None:
        return dialects
    return tuple(dialect for dialect in dialects if version >= dialect.least)[-1:]
