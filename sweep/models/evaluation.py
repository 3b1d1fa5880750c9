"""Choose what a variant is timed, compared and scored on: a user's own inputs, or those that its network brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sweep.models import datasets
from sweep.models.datasets import input_samples
from sweep.models.resolution import feeds as model_feeds
from sweep.models.resolution import has_data, held_out, signature

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from sweep.models.datasets import InputSamples
    from sweep.spec import SampleData, Variant

    Feeds = dict[str, np.ndarray]

_MOST_TURNS = 64  # batches that are fed in turn: a session holds each of them in memory
_MOST_TURN_BYTES = 256 << 20


def of(variant: Variant) -> EvaluationSet | None:
    """Return the labelled evaluation set of ``variant``, or None if it has no labels."""
    model, own = variant.reference, variant.load.labels
    if model is None:  # a plan that came without its network
        return None
    return held_out(model) if own is None else datasets.Samples(own, signature(model))


def feeds(variant: Variant, batch: int) -> Feeds:
    """Return the inputs that are timed and compared on: the user's own, else of the evaluation set, else random.

    Random inputs lie elsewhere than what a user calibrates with, so that errors on them would say little. The seed
    chooses the samples; of the user's own it is the batch to begin with.

    Raises:
        LabelError: the user's labelled samples cannot be had, or do not fit.
        ModelError: the same of the user's own inputs.
    """
    model, labels, seed = variant.onnx.model, variant.load.labels, variant.load.seed
    if variant.load.samples is not None:
        return _own_batch(_own(variant), variant.load.samples, batch, seed)
    if labels is None:
        return model_feeds(model, batch, seed)
    return datasets.Samples(labels, signature(model)).draw(batch, seed)


def turns(variant: Variant) -> list[tuple[Feeds, int]]:
    """Return the inputs that requests take in turn, each batch with the number of its samples that are in none before.

    One batch, but for the user's own inputs: all of those, up to 64 batches and 256 MiB.

    Raises:
        LabelError: as ``feeds``.
        ModelError: as ``feeds``.
    """
    batch, data = variant.engine.batch, variant.load.samples
    if data is None:
        return [(feeds(variant, batch), batch)]
    own = _own(variant)
    count, size = own.count - data.calibrating, own.size(batch)
    first = _own_batch(own, data, batch, variant.load.seed)
    most = max(_MOST_TURN_BYTES // max(sum(value.nbytes for value in first.values()), 1), 1)
    number_of_turns = min(-(-count // size), _MOST_TURNS, most)
    others = [_own_batch(own, data, batch, variant.load.seed + number) for number in range(1, number_of_turns)]
    return [(fed, min(size, count - size * number)) for number, fed in enumerate([first, *others])]


def samples_of_an_inference(variant: Variant) -> int:
    """Return the samples of one inference: the batch, or one where the user's own go into a network without a batch."""
    batch = variant.engine.batch
    return batch if variant.load.samples is None else _own(variant).size(batch)


def _own(variant: Variant) -> InputSamples:
    assert variant.load.samples is not None  # noqa: S101 - tells mypy
    return input_samples.load(variant.load.samples, signature(variant.onnx.model))


def _own_batch(own: InputSamples, data: SampleData, batch: int, number: int) -> Feeds:
    """Return batch ``number`` of the samples that calibration does not see; the first follows the last."""
    return own.feeds(batch, number * own.size(batch), data.calibrating)


def describe(variant: Variant) -> str:
    """Return what the timed inputs are, in the words of the record."""
    data, labels, model = variant.load.samples, variant.load.labels, variant.onnx.model
    if data is not None:
        return f"samples of {Path(data.source).name} ({data.count})"
    if labels is not None:
        return f"samples of {labels.name or Path(labels.source).name}"
    brings_data = variant.reference is not None and has_data(model)
    return f"held-out samples of {model.name}" if brings_data else f"random, seed {variant.load.seed}"


def notes(variant: Variant) -> list[str]:
    """Return what the table has to say of the user's own inputs: that they are few."""
    data = variant.load.samples
    if data is None:
        return []
    name, size = Path(data.source).name, _own(variant).size(variant.engine.batch)
    judged = data.count - data.calibrating
    lines = [f"{judged} samples of {name} fill a batch of {size}, some of them twice"] if judged < size else []
    calibration = variant.onnx.calibration
    if calibration is not None and calibration.kind == "samples" and not data.calibrating:
        lines.append(f"the {data.count} samples of {name} calibrate and are compared on, too few to be set apart")
    return lines


def look(variant: Variant) -> None:
    """Check that the user's own data can be had and is that of the plan, before anything is built.

    Raises:
        LabelError: a function gives no labelled samples.
        ModelError: the inputs have changed, or cannot be read any more.
    """
    if variant.load.samples is not None:
        _own(variant)
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

    def batches(self, batch: int) -> Iterator[tuple[Feeds, np.ndarray]]:
        """Yield inputs of ``size(batch)`` samples, and labels; the last ones may be padding that has no label."""
        ...
