"""A build in a process of its own, where this one has an MPS share and the engine is to be built with the whole GPU.

An engine is shared by all that hold it, whatever their share, so it must not depend on who came first. The process
takes one job on stdin, answers on what was stdout, and ends: ``python -m sweep.backends.tensorrt.apart``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sweep import plain
from sweep.axes import Variant
from sweep.backends import registry
from sweep.errors import BuildError, SweepError, UnsupportedError
from sweep.mps import without

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sweep.axes import JsonDict

    Shapes = Mapping[int, Mapping[str, tuple[int, ...]]]

_PR_SET_PDEATHSIG = 1


def build(onnx: Path, variant: Variant, shapes: Shapes, target: Path) -> JsonDict:
    """As ``Backend.build``, with the shapes at each batch that it asks for.

    Raises:
        UnsupportedError: as it is raised there.
        BuildError: likewise, or the process died.
    """
    job = {
        "onnx": str(onnx),
        "variant": plain.to_plain(variant),
        "shapes": [[batch, {name: list(shape) for name, shape in at.items()}] for batch, at in shapes.items()],
        "target": str(target),
    }
    done = subprocess.run(
        [sys.executable, "-m", "sweep.backends.tensorrt.apart"],
        input=json.dumps(job).encode(),
        stdout=subprocess.PIPE,
        env=without(os.environ),
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"the process that builds outside the MPS share ended with code {done.returncode}")
    answer: JsonDict = json.loads(done.stdout)
    if "error" in answer:
        raise (UnsupportedError if answer["kind"] == "UnsupportedError" else BuildError)(answer["error"])
    return answer


def _serve(job: JsonDict) -> JsonDict:
    variant = plain.from_plain(Variant, job["variant"])
    shapes = {batch: {name: tuple(shape) for name, shape in at.items()} for batch, at in job["shapes"]}
    backend = registry.get(variant.backend)
    try:
        return backend.build(Path(job["onnx"]), variant, shapes.__getitem__, Path(job["target"]))
    except (SweepError, MemoryError) as error:
        return {"kind": type(error).__name__, "error": " ".join(str(error).split())}


def main() -> None:
    """Do the job on stdin."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)  # what the library prints goes with the worker's own
        json.dump(_serve(json.load(sys.stdin)), out)


if __name__ == "__main__":
    main()
