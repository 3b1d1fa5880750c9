"""Measure what a device reaches, by a sweep of one network: a copy of a large tensor, and large products.

It runs as any network does, built by the library that a sweep would take, with a profile of its layers. The rate of the
fastest product of each type and that of the copy are the peaks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.analysis.layers import Peaks
    from sweep.backends import Backend
    from sweep.storage import LayerProfile, Record


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Hold the sizes of the network.

    Attributes:
        copied_rows: rows of the tensor that is copied.
        rows: rows of it that are multiplied.
        side: its columns, and both sides of the weights.
    """

    copied_rows: int
    rows: int
    side: int


GPU = Sizes(copied_rows=8192, rows=4096, side=4096)
"""A product takes 0.14 ms at 1,000 TFLOP/s, and a copy moves 256 MiB, more than any L2 of today holds."""
CPU = Sizes(copied_rows=8192, rows=512, side=1024)
_PRODUCTS = 3  # of which the middle one reads and writes in its own type
PRECISIONS = {"gpu": ("fp32", "tf32", "fp16", "bf16", "int8", "fp8"), "cpu": ("fp32", "int8")}
"""Precisions to measure; onnxruntime computes no other on a CPU, where the rest is emulated."""
_LOAD = ("load=closed", "load.warmup_s=0.2", "load.min_s=0.3", "load.min_requests=3", "load.max_s=5")


def measure(backend: str, say: Callable[[str], None], sizes: Sizes | None = None) -> Peaks:
    """Measure the peaks of the device that a sweep would use.

    Args:
        backend: name of a backend, or ``auto``.
        say: called with a line on each precision that has no figure.
        sizes: of the network; those of the kind of device where None.

    Raises:
        ConfigError: the backend computes nothing, or no layer was timed; the message has the first reason.
    """
    from sweep.analysis.layers import measured_peaks
    from sweep.backends import registry
    from sweep.config import variants
    from sweep.system import environment

    name, _ = variants.resolve_backend(backend, None)
    chosen = registry.get(name)
    if not chosen.runs_models:
        raise ConfigError(f"--backend {name}: it computes nothing whose peak could be measured; name another")
    sizes = sizes or (GPU if chosen.on_gpu else CPU)
    with tempfile.TemporaryDirectory(prefix="sweep-peaks-") as folder:
        records, profiles = _profiles(Path(folder), chosen, sizes)
    reasons = {_precision(record): _why(record) for record in records if record.status != "ok"}
    for precision, reason in reasons.items():
        say(f"{precision}: {reason}")
    peaks = measured_peaks(profiles)
    if peaks is None:
        raise ConfigError(f"no layer was timed on {name}: {next(iter(reasons.values()), 'it has no layer profile')}")
    version = environment.library_version(name)
    library = f"{name} {version}" if version else name
    return dataclasses.replace(peaks, source=f"measured by a large product and a copy on {library}")


def _profiles(folder: Path, backend: Backend, sizes: Sizes) -> tuple[list[Record], list[LayerProfile]]:
    """Run the sweep; return its records, and the profiles of the layers."""
    from sweep.report.layers import profile_path, read_profile
    from sweep.storage import Store

    network = folder / "peaks.onnx"
    write_network(network, sizes)
    _sweep(folder, backend.name, network, PRECISIONS["gpu" if backend.on_gpu else "cpu"])
    store = Store(folder / network.stem)
    records = list(store.readable())
    paths = [profile_path(store.root, record.key) for record in records]
    return records, [read_profile(path) for path in paths if path.is_file()]


def _sweep(folder: Path, backend: str, path: Path, precisions: Sequence[str]) -> None:
    """Measure a network in some precisions, into `folder`; what the sweep prints is of no interest here."""
    from sweep.cli import run
    from sweep.system import signals

    words = [
        f"model.path={path}",
        f"precision={','.join(precisions)}",
        f"backend={backend}",
        "layers=true",
        "tracking=none",
        f"name={path.stem}",
        f"results={folder}",
        "precision.calibration_batches=1",  # accuracy is of no interest, and a batch is large
        *_LOAD,
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        if run.run(words) == signals.EXIT_CODE:
            raise KeyboardInterrupt


def _precision(record: Record) -> str:
    return str(record.variant["precision"])


def _why(record: Record) -> str:
    return str(record.error["message"]) if record.error else record.status


def write_network(path: Path, sizes: Sizes) -> None:
    """Write a network that copies a tensor, and multiplies rows of the copy by the same weights again and again.

    The copy is an output, so that no library can leave it out or compute it within a product. The middle products read
    and write in their own type, whatever that of inputs and outputs is.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from sweep.system import generator, save_onnx

    weights = generator(0).normal(0, sizes.side**-0.5, (sizes.side, sizes.side)).astype(np.float32)
    names = ["rows", *(f"product{number}" for number in range(_PRODUCTS))]
    nodes = [
        helper.make_node("Neg", ["x"], ["copy"], name="copy"),
        helper.make_node("Slice", ["copy", "first", "last", "axis"], ["rows"], name="rows"),
        *(
            helper.make_node("MatMul", [before, "weights"], [after], name=after)
            for before, after in itertools.pairwise(names)
        ),
    ]
    copied: list[str | int | None] = ["batch", sizes.copied_rows, sizes.side]
    multiplied: list[str | int | None] = ["batch", sizes.rows, sizes.side]
    graph = helper.make_graph(
        nodes,
        "peaks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, copied)],
        [
            helper.make_tensor_value_info("copy", TensorProto.FLOAT, copied),
            helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, multiplied),
        ],
        [
            numpy_helper.from_array(weights, "weights"),
            *(
                numpy_helper.from_array(np.array([value]), name)
                for name, value in (("first", 0), ("last", sizes.rows), ("axis", 1))
            ),
        ],
    )
    save_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
