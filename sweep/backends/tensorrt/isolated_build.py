"""Build in a process of its own, where this one has an MPS share and the engine is to be built with the whole GPU.

An engine is shared by all that hold it, whatever their share, so it must not depend on who came first. The process
(``sweep.backends.isolated_build_worker``) reads one job, answers, and ends.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from sweep.errors import BuildError, UnsupportedError
from sweep.spec import shape_text
from sweep.system import ChildProcess, environment_without_mps, module_command, module_environment, serialization

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sweep.spec import JsonDict, Shape, Variant

    Shapes = Sequence[tuple[int, Shape | None, Mapping[str, tuple[int, ...]]]]

_NAME = "the process that builds outside the MPS share"


def build(onnx: Path, variant: Variant, shapes: Shapes, target: Path) -> JsonDict:
    """Build an engine as ``Backend.build`` does, with the shapes at each batch and sizes that it asks for.

    Raises:
        UnsupportedError: as it is raised there.
        BuildError: likewise, or the process died.
    """
    job = {
        "onnx": str(onnx),
        "variant": serialization.to_plain(variant),
        "shapes": [
            [batch, shape_text(sizes), {name: list(shape) for name, shape in at.items()}] for batch, sizes, at in shapes
        ],
        "target": str(target),
    }
    answer = _answer(job)
    if "error" in answer:
        raise (UnsupportedError if answer["kind"] == "UnsupportedError" else BuildError)(answer["error"])
    return answer


def _answer(job: JsonDict) -> JsonDict:
    child = ChildProcess(
        module_command("sweep.backends.isolated_build_worker"),
        _NAME,
        environment=environment_without_mps(module_environment()),
        stderr=os.fdopen(os.dup(2), "wb"),  # what the library prints goes with this process's own
    )
    try:
        child.send(json.dumps(job).encode() + b"\n")
        line = child.read_line()
    except BrokenPipeError:
        line = None
    finally:
        child.close()
    if line is None:
        raise BuildError(f"{_NAME} ended with code {child.wait()}")
    answer: JsonDict = json.loads(line)
    return answer
