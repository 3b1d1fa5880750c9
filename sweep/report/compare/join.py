"""Join the records of two measurements by what they measured: the axes, not the key that a version gave them."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep import spec
from sweep.backends import registry
from sweep.errors import SweepError
from sweep.spec import LoadAxes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.spec import Variant
    from sweep.storage import Record

# How long and how often a load is measured: the figures describe the same, with more or less certainty.
_EFFORT = frozenset(
    {
        *("warmup_s", "min_s", "min_requests", "max_s", "max_wait_s", "budget_s", "points", "fractions"),
        *("repeats", "builds", "seed"),
    }
)
_MOST_DIFFERENCES = 3
_MOST_CHARACTERS, _SHOWN = 40, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Hold one variant of the comparison.

    Attributes:
        old: its earlier record; None where the earlier measurement lacks it.
        new: its later record; None where the later measurement lacks it.
        obstacle: why the two are not comparable, as ``other GPU: NVIDIA H200 -> NVIDIA A100``; None where they are.
    """

    old: Record | None
    new: Record | None
    obstacle: str | None = None


def join(old: Sequence[Record], new: Sequence[Record]) -> list[Pair]:
    """Return the pairs in the order of `new`, then the variants that only `old` has.

    Of several records of one variant on a side, the latest counts. Pairs are sought by all axes; then without those
    that say how long a load is measured; then without the load; then by the variant's name. A record is joined by a
    weaker rule only where that leaves no choice.
    """
    olds, news = _Side(old), _Side(new)
    partners: dict[int, int] = {}
    rules: list[Callable[[Record, Variant | None], object]] = [_whole, _without_effort, _without_load, _name]
    for rule in rules:
        old_groups = olds.unique(rule, set(partners.values()))
        new_groups = news.unique(rule, set(partners))
        partners |= {number: old_groups[value] for value, number in new_groups.items() if value in old_groups}
    pairs = []
    for number, record in enumerate(news.records):
        if number not in partners:
            pairs.append(Pair(old=None, new=record))
            continue
        other = partners[number]
        obstacle = _obstacle(olds.records[other], record, olds.variants[other], news.variants[number])
        pairs.append(Pair(old=olds.records[other], new=record, obstacle=obstacle))
    joined = set(partners.values())
    return pairs + [Pair(old=record, new=None) for number, record in enumerate(olds.records) if number not in joined]


class _Side:
    """Hold the records of one measurement with their variants."""

    def __init__(self, records: Sequence[Record]) -> None:
        latest: dict[object, Record] = {}
        for record in records:
            identity = _whole(record, _variant(record))
            if identity not in latest or latest[identity].started_at < record.started_at:
                latest[identity] = record
        self.records = list(latest.values())
        self.variants = [_variant(record) for record in self.records]

    def unique(self, rule: Callable[[Record, Variant | None], object], joined: set[int]) -> dict[object, int]:
        """Return the number of each record that is not joined yet, by its value under `rule`, where no other has it."""
        groups: dict[object, list[int]] = {}
        for number, (record, variant) in enumerate(zip(self.records, self.variants, strict=True)):
            if number not in joined:
                groups.setdefault(rule(record, variant), []).append(number)
        return {value: numbers[0] for value, numbers in groups.items() if len(numbers) == 1}


def without_effort(variant: Variant) -> Variant:
    """Return a variant with the defaults of the axes that say how long its load is measured."""
    if not isinstance(variant.load, LoadAxes):
        return variant
    defaults: dict[str, Any] = {
        item.name: item.default for item in dataclasses.fields(LoadAxes) if item.name in _EFFORT
    }
    return dataclasses.replace(variant, load=dataclasses.replace(variant.load, **defaults))


def _variant(record: Record) -> Variant | None:
    """Return the variant that a record describes; None where a version or damage left it unreadable."""
    try:
        variant = spec.from_record(record.variant)
        spec.variant_key(variant)
    except (AttributeError, KeyError, TypeError, ValueError, SweepError):
        return None
    return variant


def _whole(record: Record, variant: Variant | None) -> object:
    return record.key if variant is None else spec.variant_key(variant)


def _without_effort(record: Record, variant: Variant | None) -> object:
    return record.key if variant is None else spec.variant_key(without_effort(variant))


def _without_load(record: Record, variant: Variant | None) -> object:
    if variant is None:
        return record.key
    return spec.digest(variant.backend, variant.onnx, variant.engine, variant.session)


def _name(record: Record, _: Variant | None) -> object:
    return (record.variant.get("backend"), record.variant.get("label", record.key))


def _obstacle(old: Record, new: Record, old_variant: Variant | None, new_variant: Variant | None) -> str | None:
    """Return why two records are not comparable; None where they are."""
    kind, fact = ("GPU", "gpu") if _runs_on_gpu(new) else ("CPU", "cpu")
    devices = [dict(record.facts).get(fact) for record in (old, new)]
    if None not in devices and devices[0] != devices[1]:
        return f"other {kind}: {devices[0]} -> {devices[1]}"
    if old_variant is None or new_variant is None:
        return None
    if _without_effort(old, old_variant) == _without_effort(new, new_variant):
        return None
    texts = []
    for axis in spec.all_axes():
        before, after = axis.read(old_variant), axis.read(new_variant)
        if axis.in_key and before != after and not (axis.path[0] == "load" and axis.name in _EFFORT):
            texts.append(
                (
                    axis.path[0],
                    f"{axis.info.key or axis.param} {_short(axis.cell(before))} -> {_short(axis.cell(after))}",
                )
            )
    if not texts:
        return None
    kinds = {"onnx": "network or precision", "engine": "engine", "session": "session", "load": "load"}
    what = " and ".join(dict.fromkeys(kinds.get(stage, stage) for stage, _ in texts))
    shown = ", ".join(text for _, text in texts[:_MOST_DIFFERENCES])
    more = f" and {len(texts) - _MOST_DIFFERENCES} more" if len(texts) > _MOST_DIFFERENCES else ""
    return f"other {what}: {shown}{more}"


def _short(text: str) -> str:
    """Return the beginning of a long text, such as a digest."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_SHOWN]}..."


def _runs_on_gpu(record: Record) -> bool:
    return _is_gpu_backend(str(record.variant.get("backend")))


@functools.cache
def _is_gpu_backend(name: str) -> bool:
    return name in registry.names() and registry.get(name).on_gpu
