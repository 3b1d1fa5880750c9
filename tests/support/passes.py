"""Run one pass of a variant in this process, and make its graphs, as a worker does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sweep.analysis import accuracy
from sweep.runner import messages
from sweep.runner.worker import artifacts, measure, reference
from sweep.runner.worker.events import Events

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from sweep.spec import JsonDict, Variant
    from sweep.storage.cache import Cache


def request(variant: Variant, folder: Path, **changes: Any) -> messages.Request:
    """What a worker is asked for by default: the first pass, with its cache and its samples in the folder."""
    places = {"cache": folder / "cache", "samples": folder / "s.npz"}
    return messages.Request(variant=variant, **{**places, **changes})


class Stages(Events):
    """Keeps the stages that were told."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def stage(self, name: str, detail: str = "", done: float = 0.0) -> None:
        super().stage(name, detail, done)
        self.names.append(name)


def measured(variant: Variant, folder: Path, events: Events | None = None, **changes: Any) -> JsonDict:
    """The result of one pass, as plain values."""
    return msgspec.structs.asdict(measure.measure(request(variant, folder, **changes), events or Events()))


def typed_file(variant: Variant, cache: Cache) -> Path:
    """The graph in the variant's precision."""
    return artifacts.make_onnx(variant, cache).typed


def against_fp32(model: Path, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> JsonDict:
    """The accuracy of outputs, against a run of the fp32 graph."""
    return accuracy.against(reference.run(model, feeds), outputs)
