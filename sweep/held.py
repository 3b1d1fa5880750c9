"""What a variant is timed and scored on: a user's own samples, or those that its network brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep import labels, models

if TYPE_CHECKING:
    import numpy as np

    from sweep.axes import Variant
    from sweep.scoring import Held


def of(variant: Variant) -> Held | None:
    """What it is scored on; None where nothing is labelled."""
    model, own = variant.onnx.model, variant.load.labels
    return models.held_out(model) if own is None else labels.Samples(own, models.signature(model))


def feeds(variant: Variant, batch: int) -> dict[str, np.ndarray]:
    """The inputs that are timed, and that outputs are compared on: some of these samples, else drawn at random.

    Random inputs lie elsewhere than what a user calibrates with, so that errors on them would say little.

    Raises:
        LabelError: the user's samples cannot be had, or do not fit.
    """
    model, own, seed = variant.onnx.model, variant.load.labels, variant.load.seed
    if own is None:
        return models.feeds(model, batch, seed)
    return labels.Samples(own, models.signature(model)).drawn(batch, seed)


def look(variant: Variant) -> None:
    """See that a user's function gives labelled samples, before anything is built.

    Raises:
        LabelError: it does not.
    """
    found = of(variant)
    if isinstance(found, labels.Samples):
        found.look()
