"""Order variants into work: keys, duplicates, what cannot run here and why, passes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep import spec
from sweep.backends import registry, unsupported_reason
from sweep.spec import LoadAxes
from sweep.system import generator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sweep.spec import Variant

_ORDER = 7002  # path of the random orders of the rounds below the seed, above the number of any point
SENTINEL_LOAD = LoadAxes(kind="closed", warmup_s=0.3, min_s=0.5, min_requests=200, max_s=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Describe one variant that is to be measured.

    Attributes:
        variant: what.
        key: key of its record.
        label: short name that no other variant of the plan has.
        engine_key: key of the engine it shares with its group.
        unsupported: why it cannot run here; None if it can.
    """

    variant: Variant
    key: str
    label: str
    engine_key: str
    unsupported: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Describe the whole sweep, before anything runs.

    Attributes:
        works: distinct variants, those that share an engine side by side, in the order of the request.
        duplicates: label of each variant that was requested more than once, once per extra time.
    """

    works: tuple[Work, ...]
    duplicates: tuple[str, ...]

    @property
    def labels(self) -> dict[str, str]:
        """Return the label of each variant by its key."""
        return {work.key: work.label for work in self.works}

    @property
    def runnable(self) -> tuple[Work, ...]:
        """Return the work that can run here."""
        return tuple(work for work in self.works if work.unsupported is None)

    @property
    def engines(self) -> dict[str, list[Work]]:
        """Return the runnable work by the engine that it shares."""
        groups: dict[str, list[Work]] = {}
        for work in self.runnable:
            groups.setdefault(work.engine_key, []).append(work)
        return groups

    @property
    def sentinel(self) -> Work | None:
        """Return the first variant that can run, under a short closed loop; None where there is nothing to compare."""
        return sentinel_of(self.runnable[0]) if len(self.runnable) > 1 else None


def make(variants: Iterable[Variant], *, only_build: bool = False) -> Plan:
    """Drop duplicates, group by engine, and find what cannot run here.

    Args:
        variants: in the order of the request.
        only_build: the engines are built and nothing is measured, which may need less than a measurement does.
    """
    distinct: dict[str, Variant] = {}
    engine_keys: dict[str, str] = {}
    duplicates = []
    keys = spec.KeyMaker()
    for variant in variants:
        key, engine_key = keys.keys(variant)
        if key in distinct:
            duplicates.append(key)
            continue
        distinct[key], engine_keys[key] = variant, engine_key
    labels = spec.compare(distinct).labels
    rank = {engine: number for number, engine in enumerate(dict.fromkeys(engine_keys.values()))}
    backends = {name: registry.get(name) for name in {variant.backend for variant in distinct.values()}}
    # The sort is stable: within a group the order of the request stays.
    works = [
        Work(
            variant=distinct[key],
            key=key,
            label=labels[key],
            engine_key=engine_key,
            unsupported=unsupported_reason(backends[distinct[key].backend], distinct[key], only_build=only_build),
        )
        for key, engine_key in sorted(engine_keys.items(), key=lambda item: rank[item[1]])
    ]
    return Plan(works=tuple(works), duplicates=tuple(labels[key] for key in duplicates))


def sentinel_of(work: Work) -> Work:
    """Return the work of the same variant under a short closed loop."""
    load = dataclasses.replace(SENTINEL_LOAD, depth=work.variant.load.depth, seed=work.variant.load.seed)
    variant = dataclasses.replace(work.variant, load=load)
    return dataclasses.replace(work, variant=variant, key=spec.variant_key(variant))


def passes(todo: Sequence[Work], seed: int) -> list[tuple[Work, int]]:
    """Return every pass of every variant, a round after the other, each in the order of ``round_order``."""
    most = max((work.variant.load.passes for work in todo), default=1)
    return [(work, repeat) for repeat in range(most) for work in round_order(todo, seed, repeat)]


def round_order(todo: Sequence[Work], seed: int, repeat: int) -> list[Work]:
    """Return the variants that have a pass `repeat`, in a random order that `seed` decides.

    Groups stay together within a round, so that an engine is built once, and loaded once where processes are shared.
    A plan of single passes keeps its own order: nothing is compared between rounds.
    """
    works = [work for work in todo if work.variant.load.passes > repeat]
    if all(work.variant.load.passes == 1 for work in todo):
        return works
    rng = generator(seed, _ORDER, repeat)
    groups: dict[str, list[Work]] = {}
    for work in works:
        groups.setdefault(work.engine_key, []).append(work)
    shuffled = list(groups.values())
    return [
        group[number]
        for chosen in rng.permutation(len(shuffled))
        for group in (shuffled[chosen],)
        for number in rng.permutation(len(group))
    ]


def sentinel_runs(passes: int, every: int) -> int:
    """Return how often the sentinel runs: before the first pass, after each `every` of them, and after the last."""
    return math.ceil(passes / every) + 1 if passes and every else 0
