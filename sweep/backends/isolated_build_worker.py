"""Build an engine in a process of its own, on behalf of `tensorrt.isolated_build`."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.backends import registry
from sweep.errors import SweepError
from sweep.spec import Variant
from sweep.system import serialization

if TYPE_CHECKING:
    from sweep.spec import JsonDict

_PR_SET_PDEATHSIG = 1


def _serve(job: JsonDict) -> JsonDict:
    variant = serialization.from_plain(Variant, job["variant"])
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
