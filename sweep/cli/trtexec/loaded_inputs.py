"""Write the user's own inputs of a record as the raw files that NVIDIA's binary feeds (`--loadInputs`)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sweep.cli.trtexec import artifact_paths
from sweep.models import evaluation
from sweep.spec import from_record
from sweep.system import regular_files

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.storage import Record

_ENDS_A_NAME = ":,"  # in the flag's grammar, NAME:FILE[,NAME:FILE]


def flags(record: Record, folder: Path) -> tuple[str, ...]:
    """Write the first batch of ``model.samples`` to `folder`, and return the flag that feeds it; () without samples.

    Args:
        record: of the variant.
        folder: for a file per input; made if it is not there.

    Raises:
        ModelError: the samples have changed since, or cannot be read.
    """
    variant = from_record(record.variant)
    if variant.load.samples is None or variant.engine.plan is not None:  # which may have other types
        return ()
    onnx = dataclasses.replace(variant.onnx, model=artifact_paths.model(record))
    feeds = evaluation.feeds(dataclasses.replace(variant, onnx=onnx), variant.engine.batch)
    if any(mark in text for text in (*feeds, str(folder)) for mark in _ENDS_A_NAME):
        return ()
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for number, (name, value) in enumerate(feeds.items()):
        file = folder / f"{number}.bin"
        with regular_files.open_output(file) as opened:
            value.tofile(opened)
        pairs.append(f"{name}:{file}")
    return (f"--loadInputs={','.join(pairs)}",)
