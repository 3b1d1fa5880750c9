"""A build in a process of its own, where this one has an MPS share and the engine is to be built with the whole GPU.

An engine is shared by all that hold it, whatever their share, so it must not depend on who came first. The process
takes one job on stdin, answers on what was stdout, and ends: ``python -m sweep.backends.tensorrt.isolated_build``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from sweep.errors import BuildError, UnsupportedError
from sweep.system import serialization
from sweep.system.mps import without

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sweep.spec import JsonDict, Variant

    Shapes = Mapping[int, Mapping[str, tuple[int, ...]]]


def build(onnx: Path, variant: Variant, shapes: Shapes, target: Path) -> JsonDict:
    """As ``Backend.build``, with the shapes at each batch that it asks for.

    Raises:
        UnsupportedError: as it is raised there.
        BuildError: likewise, or the process died.
    """
    job = {
        "onnx": str(onnx),
        "variant": serialization.to_plain(variant),
        "shapes": [[batch, {name: list(shape) for name, shape in at.items()}] for batch, at in shapes.items()],
        "target": str(target),
    }
    done = subprocess.run(
        [sys.executable, "-m", "sweep.backends.isolated_build_worker"],
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
