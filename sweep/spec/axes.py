"""List every axis of a variant, by walking the fields of its classes; the order is that of the fields."""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.spec.axis import METADATA, AxisInfo, plain_text
from sweep.spec.variant import Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_RECORD_NAMES = {  # attribute of a variant -> name in the record's `variant`, where they differ
    ("onnx", "model"): ("model_ref",),
    ("onnx", "precision"): ("precision_recipe",),
    ("onnx",): (),
    ("engine",): (),
    ("session",): (),
    ("load", "seed"): ("seed",),
    ("load", "repeats"): ("repeats",),
}
_HEADS = frozenset({"backend.name", "model.name", "precision.name", "load.kind", "profile"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Describe one axis: its place in a variant and its declaration.

    Attributes:
        path: names of the attributes from the variant to the axis.
        info: metadata of its field.
        hint: type of its values.
        in_key: whether it is part of the variant's key.
        read: variant -> value; None also if the object that holds it is None.
    """

    path: tuple[str, ...]
    info: AxisInfo
    hint: Any
    in_key: bool
    read: Callable[[Variant], Any]

    @property
    def name(self) -> str:
        """Return the field's name."""
        return self.path[-1]

    @property
    def param(self) -> str:
        """Return the dotted name in the record's `variant`, which is also MLflow's param."""
        for size in range(len(self.path), 0, -1):
            if self.path[:size] in _RECORD_NAMES:
                return ".".join((*_RECORD_NAMES[self.path[:size]], *self.path[size:]))
        return ".".join(self.path)

    @property
    def column(self) -> str:
        """Return the head of the column in tables."""
        return self.info.column or self.name

    @property
    def group(self) -> str:
        """Return the first part of the command-line key, or of the path where there is no key."""
        return (self.info.key or ".".join(self.path[1:])).partition(".")[0]

    @property
    def is_head(self) -> bool:
        """Tell whether the axis names a choice that decides others of its group, as precision=int8 does."""
        return self.info.key in _HEADS

    def text(self, value: Any) -> str:
        """Return `value` in full on one line; different values have different texts."""
        plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        if isinstance(plain, tuple) and any(dataclasses.is_dataclass(item) for item in plain):
            plain = {str(number): dataclasses.asdict(item) for number, item in enumerate(plain)}
        return plain_text(plain)

    def cell(self, value: Any) -> str:
        """Return `value` as a table shows it, or in full if it is damaged."""
        if self.info.cell is None:
            return self.text(value)
        try:
            return self.info.cell(value)
        except (AttributeError, KeyError, TypeError):
            return self.text(value)

    def overrides(self, value: Any) -> Mapping[str, Any]:
        """Return the command-line keys that set `value`, with their values; {} for an axis without a key."""
        if self.info.overrides is not None:
            return self.info.overrides(value)
        if self.info.key is None:
            return {}
        argument = self.info.cli_default if value is None else value
        return {self.info.key: list(argument) if isinstance(argument, tuple) else argument}

    def word(self, value: Any) -> str:
        """Return the word that stands for `value` in the label; "" for none."""
        return "" if value is None or self.info.word is None else self.info.word(value)


def reader(path: tuple[str, ...]) -> Callable[[Any], Any]:
    """Return a function that reads the attribute at `path`, or None if an object on the way is None."""
    if len(path) < 3:  # noqa: PLR2004 - the stages of a variant are never None
        return operator.attrgetter(".".join(path))
    outer, inner = operator.attrgetter(".".join(path[:2])), operator.attrgetter(".".join(path[2:]))

    def read(variant: Any) -> Any:
        owner = outer(variant)
        try:
            return None if owner is None else inner(owner)
        except AttributeError:  # a damaged record holds another value here, and the report shows it
            return owner

    return read


def _walk(kind: type, path: tuple[str, ...]) -> Iterator[Axis]:
    hints = _type_hints(kind)
    for item in dataclasses.fields(kind):
        place = (*path, item.name)
        if METADATA in item.metadata:
            info, in_key = item.metadata[METADATA], item.metadata["key"]
            yield Axis(path=place, info=info, hint=hints[item.name], in_key=in_key, read=reader(place))
        else:
            yield from _walk(dataclass_of(hints[item.name]), place)


@functools.cache  # a report restores every variant of its records
def _type_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@functools.cache  # as above
def dataclass_of(hint: Any) -> Any:
    """Return the dataclass that `hint` names, alone or in an optional; None if it names none."""
    options = typing.get_args(hint) if typing.get_origin(hint) in {types.UnionType, typing.Union} else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)


@functools.cache
def all_axes() -> tuple[Axis, ...]:
    """Return every axis."""
    return tuple(_walk(Variant, ()))


@functools.cache
def by_place() -> tuple[Axis, ...]:
    """Return every axis in the order of labels and of the "With ..." line."""
    return tuple(sorted(all_axes(), key=lambda axis: axis.info.place))


@functools.cache
def keyed() -> dict[str, Axis]:
    """Return every axis with a key on the command line, by that key."""
    return {axis.info.key: axis for axis in all_axes() if axis.info.key is not None}


def label(variant: Variant) -> str:
    """Return the short name of a variant, with only the axes that are set: ``tiny_cnn fp16 b8 s2``."""
    return LabelMaker().label(variant)


class LabelMaker:
    """Make the labels of many variants, the words of each part once for the variants that share it as one object."""

    def __init__(self) -> None:
        self._words: dict[int, tuple[Any, _Words]] = {}  # by identity; with the object, so that no other one gets it

    def label(self, variant: Variant) -> str:
        """Return the short name of `variant`."""
        words: _Words = []
        for stage, axes in _worded().items():
            words += self._of(getattr(variant, stage), variant, axes)
        words.sort()
        return " ".join([word for _, word in words])

    def _of(self, part: Any, variant: Variant, axes: _Worded) -> _Words:
        """Return the words of `part` of the variant, each with its place in the label."""
        entry = self._words.get(id(part))
        if entry is None:
            words = [(place, axis.word(axis.read(variant))) for place, axis in axes]
            entry = self._words[id(part)] = (part, [word for word in words if word[1]])
        return entry[1]


_Words = list[tuple[int, str]]
_Worded = list[tuple[int, Axis]]


@functools.cache
def _worded() -> dict[str, _Worded]:
    """Return the axes that have a word, with their places in the label, by the part of the variant that holds them."""
    stages: dict[str, _Worded] = {}
    for place, axis in enumerate(by_place()):
        if axis.info.word:
            stages.setdefault(axis.path[0], []).append((place, axis))
    return stages


def from_record(flat: dict[str, Any]) -> Variant:
    """Return the variant that a record describes; the inverse of `sweep.spec.flat`.

    A field that is missing, because an earlier release wrote the record, has its default. A damaged value stays as it
    is, so that a report shows it.

    Args:
        flat: the record's `variant`.
    """
    load = flat.get("load")
    graph = flat.get("graph")
    plain: dict[str, Any] = {
        "backend": flat.get("backend", ""),
        "onnx": {
            **{name: flat[name] for name in ("prune", "calibration") if name in flat},
            "model": {"name": flat.get("model", ""), **_table(flat.get("model_ref"))},
            "precision": {"name": flat.get("precision", ""), "dtype": "", **_table(flat.get("precision_recipe"))},
            "graph": None if graph is None else {"name": graph, "digest": flat.get("graph_digest")},
        },
        "engine": flat,
        "session": flat,
        "pipeline": flat.get("pipeline"),
        "load": {**_table(load), **{name: flat[name] for name in ("seed", "repeats") if name in flat}},
    }
    return typing.cast("Variant", _restore(Variant, plain))


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _restore(hint: Any, plain: Any) -> Any:
    """Return `plain` as the dataclasses and tuples of `hint`, or unchanged if it does not fit them."""
    kind = dataclass_of(hint)
    if kind is not None and isinstance(plain, dict):
        hints = _type_hints(kind)
        names = [item.name for item in dataclasses.fields(kind) if item.name in plain]
        try:
            return kind(**{name: _restore(hints[name], plain[name]) for name in names})
        except TypeError:  # a field without a default is missing
            return plain
    if isinstance(plain, list | tuple):  # a record that was just made holds tuples
        options = typing.get_args(hint) if typing.get_origin(hint) in {types.UnionType, typing.Union} else (hint,)
        inner = next((typing.get_args(option)[0] for option in options if typing.get_origin(option) is tuple), None)
        return tuple(_restore(inner, item) for item in plain)
    return plain
