"""Compare variants: find the axes that distinguish them, and a unique label for each."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.spec.axes import Axis, LabelMaker, all_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sweep.spec.variant import Variant


@dataclass(frozen=True)
class Comparison:
    """Hold the variants with the axes and labels that distinguish them.

    Attributes:
        variants: by key.
        axes: those that differ, without those that follow from the name of a recipe, network or load.
        labels: by key; each is unique.
    """

    variants: Mapping[str, Variant]
    axes: tuple[Axis, ...]
    labels: Mapping[str, str]

    def cell(self, key: str, axis: Axis) -> str:
        """Return the value of `axis` in the variant `key`, in full if two different values have the same short text."""
        if axis.path not in self._texts:
            self._texts[axis.path] = text_of(axis, self.variants.values())
        return str(self._texts[axis.path](axis.read(self.variants[key])))  # a damaged record has names that are numbers

    @functools.cached_property
    def _texts(self) -> dict[tuple[str, ...], Callable[[Any], str]]:
        """Return the function of each axis that makes its text, so that all variants are compared once an axis."""
        return {}


def compare(variants: Mapping[str, Variant], stored: Mapping[str, str] | None = None) -> Comparison:
    """Compare `variants`.

    Args:
        variants: by key.
        stored: labels of their records by key, to which distinguishing axes are added; None makes them from the axes.
    """
    listed = list(variants.values())
    owners = _Owners(listed)
    varying = [axis for axis in all_axes() if _varies(axis, owners.of(axis))]
    axes = _distinguishing(varying, listed, owners)
    base = stored or dict(zip(variants, map(LabelMaker().label, listed), strict=True))
    texts = [(axis, text_of(axis, owners.of(axis))) for axis in axes if axis.info.word is None]
    labels = {
        key: " ".join([base[key], *(f"{axis.column}={text(axis.read(variant))}" for axis, text in texts)])
        for key, variant in variants.items()
    }
    return Comparison(variants, tuple(axes), _unique(labels, variants, varying))


class _Owners:
    """Select variants that have every value of an axis: one for each object that holds the axis.

    Variants of a plan share the objects that do not differ (`sweep.config.variants.from_configs`), so that 100,000
    variants have a thousand values of `batch` to look at.
    """

    def __init__(self, variants: Sequence[Variant]) -> None:
        self._variants = variants
        self._selected: dict[str, list[Variant]] = {}

    def of(self, axis: Axis) -> list[Variant]:
        """Return one variant for each distinct object at the first name of the axis's path, in their order."""
        stage = axis.path[0]
        if stage not in self._selected:
            first: dict[int, Variant] = {}
            for variant, owner in zip(self._variants, map(operator.attrgetter(stage), self._variants), strict=True):
                first.setdefault(id(owner), variant)
            self._selected[stage] = list(first.values())
        return self._selected[stage]


def text_of(axis: Axis, variants: Iterable[Variant]) -> Callable[[Any], str]:
    """Return `axis.cell`, or `axis.text` if two different values have the same short text."""
    values = {axis.text(value): axis.cell(value) for value in (axis.read(variant) for variant in variants)}
    return axis.cell if len(set(values.values())) == len(values) else axis.text


def _varies(axis: Axis, variants: Iterable[Variant]) -> bool:
    values = map(axis.read, variants)
    first = next(values, None)
    return any(value is not first and value != first for value in values)


def _distinguishing(varying: Sequence[Axis], variants: Sequence[Variant], owners: _Owners) -> list[Axis]:
    """Return the axes with a key on the command line that do not follow from the head of their group.

    A digest or revision is among them only if nothing else distinguishes two variants.
    """
    rows = _Rows(variants)
    heads: dict[str, Axis] = {axis.group: axis for axis in varying if axis.is_head}
    keyed = [axis for axis in varying if axis.info.key is not None and not _is_typed_alike(axis, owners.of(axis))]
    axes = [axis for axis in keyed if axis.is_head or not _follows_from(axis, heads.get(axis.group), rows)]
    count = rows.count(axes)
    for axis in varying:
        if axis not in axes and (more := rows.count([*axes, axis])) > count:
            axes.append(axis)
            count = more
    return axes


def _is_typed_alike(axis: Axis, variants: Sequence[Variant]) -> bool:
    """Tell whether one setting of the command line gives all values, as where model.samples calibrates some recipes."""
    if axis.info.overrides is None:
        return False
    values = {axis.text(value): value for value in (axis.read(variant) for variant in variants)}
    return len({axis.text(axis.overrides(value)) for value in values.values()}) == 1


def _follows_from(axis: Axis, head: Axis | None, rows: _Rows) -> bool:
    """Tell whether each value of `head` goes with one value of `axis` only."""
    return head is not None and rows.count([head, axis]) == rows.count([head])


class _Rows:
    """Count the distinct rows that variants have in a table of some axes; each column is read once."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self._variants = variants
        self._columns: dict[tuple[str, ...], list[Any]] = {}

    def count(self, axes: Sequence[Axis]) -> int:
        """Return the number of distinct rows of `axes`."""
        if not axes:
            return min(len(self._variants), 1)
        try:
            return len(set(zip(*map(self._column, axes), strict=True)))
        except TypeError:  # a damaged record holds a list or table where a value belongs
            return len(set(zip(*([axis.text(value) for value in self._column(axis)] for axis in axes), strict=True)))

    def _column(self, axis: Axis) -> list[Any]:
        if axis.path not in self._columns:
            self._columns[axis.path] = [axis.read(variant) for variant in self._variants]
        return self._columns[axis.path]


def _unique(labels: Mapping[str, str], variants: Mapping[str, Variant], varying: Sequence[Axis]) -> dict[str, str]:
    """Return the labels, with equal ones made unique: by every axis that differs between them, or by their keys."""
    groups: dict[str, list[str]] = {}
    for key, text in labels.items():
        groups.setdefault(text, []).append(key)
    unique = dict(labels)
    for text, keys in groups.items():
        if len(keys) > 1:
            alike = [variants[key] for key in keys]
            axes = [axis for axis in varying if _varies(axis, alike)]
            unique |= {key: f"{text} {_words(axes, variants[key], alike)}".rstrip() for key in keys}
    counts = Counter(unique.values())
    return {key: f"{text} #{key}" if counts[text] > 1 else text for key, text in unique.items()}


def _words(axes: Sequence[Axis], variant: Variant, alike: Sequence[Variant]) -> str:
    return " ".join(f"{axis.column}={text_of(axis, alike)(axis.read(variant))}" for axis in axes)
