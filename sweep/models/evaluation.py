"""What a variant is timed and scored on: a user's own samples, or those that its network brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sweep.models import datasets
from sweep.models.resolve import feeds as model_feeds
from sweep.models.resolve import held_out, signature

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from sweep.spec import Variant


def of(variant: Variant) -> Held | None:
    """What it is scored on; None where nothing is labelled."""
    model, own = variant.onnx.model, variant.load.labels
    return held_out(model) if own is None else datasets.Samples(own, signature(model))


def feeds(variant: Variant, batch: int) -> dict[str, np.ndarray]:
    """The inputs that are timed, and that outputs are compared on: some of these samples, else drawn at random.

    Random inputs lie elsewhere than what a user calibrates with, so that errors on them would say little.

    Raises:
        LabelError: the user's samples cannot be had, or do not fit.
    """
    model, own, seed = variant.onnx.model, variant.load.labels, variant.load.seed
    if own is None:
        return model_feeds(model, batch, seed)
    return datasets.Samples(own, signature(model)).drawn(batch, seed)


def look(variant: Variant) -> None:
    """See that a user's function gives labelled samples, before anything is built.

    Raises:
        LabelError: it does not.
    """
    found = of(variant)
    if isinstance(found, datasets.Samples):
        found.look()


class Held(Protocol):
    """Samples whose class is known: what comes with a network (``models.Labelled``), or a user's own (``labels``)."""

    @property
    def what(self) -> str:
        """Says in the record what they are."""
        ...

    @property
    def output(self) -> str:
        """Name of the output [batch,classes] whose largest entry is the answer."""
        ...

    @property
    def identity(self) -> str | None:
        """What tells these samples from any other; None as long as it is not known."""
        ...

    def size(self, batch: int) -> int:
        """Samples that an inference takes, where ``batch`` was asked for."""
        ...

    def batches(self, batch: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Inputs of ``size(batch)`` samples, and labels; the last ones may be padding that has no label."""
        ...
