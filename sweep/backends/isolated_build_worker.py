"""Build an engine in a process of its own, on behalf of `tensorrt.isolated_build`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.backends import registry
from sweep.errors import SweepError
from sweep.spec import Variant, shape_text
from sweep.system import answer_stream, die_with_parent, serialization

if TYPE_CHECKING:
    from sweep.spec import JsonDict, Shape


def _build(job: JsonDict) -> JsonDict:
    variant = serialization.from_plain(Variant, job["variant"])
    listed = {(batch, sizes): {name: tuple(shape) for name, shape in at.items()} for batch, sizes, at in job["shapes"]}

    def shapes(batch: int, shape: Shape | None = None, /) -> dict[str, tuple[int, ...]]:
        return listed[batch, shape_text(shape)]

    backend = registry.get(variant.backend)
    try:
        return backend.build(Path(job["onnx"]), variant, shapes, Path(job["target"]))
    except (SweepError, MemoryError) as error:
        return {"kind": type(error).__name__, "error": " ".join(str(error).split())}


def main() -> None:
    """Do the job on stdin, one line."""
    die_with_parent()
    with answer_stream() as stream:  # what the library prints goes with the worker's own
        stream.write(json.dumps(_build(json.loads(sys.stdin.readline()))) + "\n")


if __name__ == "__main__":
    main()
