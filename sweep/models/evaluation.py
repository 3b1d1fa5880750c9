"""Choose what a variant is timed and scored on: a user's own samples, or those that its network brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sweep.models import datasets
from sweep.models.resolution import feeds as model_feeds
from sweep.models.resolution import held_out, signature

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from sweep.spec import Variant


def of(variant: Variant) -> EvaluationSet | None:
    """Return the labelled evaluation set of ``variant``, or None if it has no labels."""
    model, own = variant.reference, variant.load.labels
    if model is None:  # a plan that came without its network
        return None
    return held_out(model) if own is None else datasets.Samples(own, signature(model))


def feeds(variant: Variant, batch: int) -> dict[str, np.ndarray]:
    """Return the inputs that are timed and compared on: samples of the evaluation set, else random ones.

    Random inputs lie elsewhere than what a user calibrates with, so that errors on them would say little.

    Raises:
        LabelError: the user's samples cannot be had, or do not fit.
    """
    model, own, seed = variant.onnx.model, variant.load.labels, variant.load.seed
    if own is None:
        return model_feeds(model, batch, seed)
    return datasets.Samples(own, signature(model)).draw(batch, seed)


def look(variant: Variant) -> None:
    """Check that a user's function gives labelled samples, before anything is built.

    Raises:
        LabelError: it does not.
    """
    samples = of(variant)
    if isinstance(samples, datasets.Samples):
        samples.look()


class EvaluationSet(Protocol):
    """Give samples whose class is known: those of a network (``models.Labelled``), or a user's own (``labels``)."""

    @property
    def what(self) -> str:
        """Return what the samples are, in the words of the record."""
        ...

    @property
    def output(self) -> str:
        """Return the name of the output [batch,classes] whose largest entry is the answer."""
        ...

    @property
    def identity(self) -> str | None:
        """Return what tells these samples from any other; None as long as it is not known."""
        ...

    def size(self, batch: int) -> int:
        """Return the samples that one inference takes at a requested ``batch``."""
        ...

    def batches(self, batch: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Yield inputs of ``size(batch)`` samples, and labels; the last ones may be padding that has no label."""
        ...
