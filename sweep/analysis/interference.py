"""Compare networks side by side with each of them alone: slowdowns, and the way to share that serves all. Pure.

A record measures one network, alone or beside others (``variant.beside``). Records of the same network with the same
settings and load belong together, whatever was beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sweep import spec
from sweep.spec import Slo, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sweep.spec import PercentileName, Variant
    from sweep.storage import Peak, Point, Record

    Interval = tuple[float, float] | None

_SAME_RATE = 0.001  # relative difference of two offered rates that are one


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowdown:
    """Give how much slower one network is beside others than alone.

    Attributes:
        key: key of its record beside the others.
        network: short name of the network.
        beside: short names of the others.
        sharing: how the device was shared, its own share first.
        rate: factor on its throughput, alone over beside, at the closed loop or the highest rate of both; None where it
            is not known.
        rate_interval: 95% interval of it.
        p99: factor on its 99th percentile, beside over alone, there; None where it is not known.
        p99_interval: 95% interval of it.
        at: where both were compared: ``closed loop`` or an offered rate.
    """

    key: str
    network: str
    beside: tuple[str, ...]
    sharing: str
    rate: float | None
    rate_interval: Interval
    p99: float | None
    p99_interval: Interval
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Give what one network serves within its SLO while others run beside it.

    Attributes:
        network: short name.
        share: its share; "" without shares.
        slo: its objective; None without one.
        ips: highest throughput measured that keeps it, samples/s; 0 where none does.
    """

    network: str
    share: str
    slo: Slo | None
    ips: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Give what all networks serve for one way to share the device.

    Attributes:
        sharing: kind and shares, in the order of `services`.
        services: of each network.
    """

    sharing: str
    services: tuple[Service, ...]

    @property
    def goodput_ips(self) -> float:
        """Return the samples/s of all networks together that keep the SLO of each."""
        return sum(service.ips for service in self.services)

    @property
    def keeps_all(self) -> bool:
        """Return whether every network keeps its SLO."""
        return all(service.ips > 0 for service in self.services)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interference:
    """Hold what records tell of networks side by side.

    Attributes:
        slowdowns: one of each record beside others, in their order.
        splits: each way to share among the same networks, in the order of the records; each inner tuple has the ways
            that compete.
    """

    slowdowns: tuple[Slowdown, ...]
    splits: tuple[tuple[Split, ...], ...]

    def best(self, splits: Sequence[Split]) -> Split | None:
        """Return the way to share that keeps every SLO at the highest goodput; None where none keeps all."""
        return max((split for split in splits if split.keeps_all), key=lambda split: split.goodput_ips, default=None)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Hold a record, its variant, and the keys of all networks that ran, the measured one first."""

    record: Record
    variant: Variant
    members: tuple[str, ...]


def find(records: Sequence[Record], slo: Slo | None = None) -> Interference:
    """Find slowdowns and compare ways to share.

    Args:
        records: of one sweep or several; those without networks beside them serve as the baseline.
        slo: objective of a network that has none of its own; None for none.
    """
    beside = [record for record in records if record.variant.get("beside")]
    if not beside:
        return Interference(slowdowns=(), splits=())
    measured = list(_with_members(beside))
    wanted = {each.members[0] for each in measured}
    baseline = {record.key: record for record in records if record.key in wanted and record.status == Status.OK}
    names = _names(measured)
    slowdowns = [_slowdown(each, baseline.get(each.members[0]), names) for each in measured]
    return Interference(slowdowns=tuple(slowdowns), splits=tuple(_splits(measured, names, slo)))


def slowdown_of(record: Record, alone: Record | None) -> Slowdown | None:
    """Return the slowdown of one record beside others from that of the same network alone; None for any other one."""
    each = next(_with_members([record]), None) if record.variant.get("beside") else None
    return None if each is None else _slowdown(each, alone, _names([each]))


def key_alone(record: Record) -> str | None:
    """Return the key of the same network alone; None for a record without networks beside it."""
    if not record.variant.get("beside"):
        return None
    each = next(_with_members([record]), None)
    return None if each is None else each.members[0]


def _with_members(records: Sequence[Record]) -> Iterator[_Measured]:
    for record in records:
        try:
            variant = spec.from_record(dict(record.variant))
            members = tuple(spec.variant_key(each) for each in spec.members_of(variant))
        except (AttributeError, TypeError, ValueError):  # a damaged record
            continue
        if variant.session.shared is not None:
            yield _Measured(record, variant, members)


def _names(measured: Sequence[_Measured]) -> dict[str, str]:
    """Return a short name of each network, by its key: as short as tells them apart."""
    labels: dict[str, Variant] = {}
    for each in measured:
        labels |= zip(each.members, spec.members_of(each.variant), strict=True)
    models = [variant.onnx.model.name for variant in labels.values()]
    if len(set(models)) == len(models):
        return {key: variant.onnx.model.name for key, variant in labels.items()}
    return dict(spec.compare(labels).labels)


def _slowdown(each: _Measured, alone: Record | None, names: Mapping[str, str]) -> Slowdown:
    rate = p99 = None
    rate_interval: Interval = None
    p99_interval: Interval = None
    at = "closed loop"
    pair = None if alone is None or each.record.status != Status.OK else _comparable(alone, each.record)
    if pair is not None:
        first, second, at = pair
        rate = _ratio(_rate(first), _rate(second))
        rate_interval = _ratio_interval(rate, _rate_interval(first), _rate_interval(second))
        p99 = _ratio(_p99(second), _p99(first))
        p99_interval = _ratio_interval(p99, _p99_interval(second), _p99_interval(first))
    return Slowdown(
        key=each.record.key,
        network=names[each.members[0]],
        beside=tuple(names[key] for key in each.members[1:]),
        sharing=str(each.variant.session.sharing),
        rate=rate,
        rate_interval=rate_interval,
        p99=p99,
        p99_interval=p99_interval,
        at=at,
    )


def _comparable(alone: Record, beside: Record) -> tuple[Peak | Point, Peak | Point, str] | None:
    """Return where both were measured under the same load: the closed loop, or the highest rate of both."""
    if alone.peak and beside.peak and alone.peak.get("ips") and beside.peak.get("ips"):
        return alone.peak, beside.peak, "closed loop"
    for first in sorted(alone.points, key=lambda point: -point["offered_ips"]):
        for second in beside.points:
            if math.isclose(first["offered_ips"], second["offered_ips"], rel_tol=_SAME_RATE):
                return first, second, f"{first['offered_ips']:,.0f} samples/s"
    return None


def _rate(part: Peak | Point) -> float | None:
    value = part.get("ips", part.get("achieved_ips"))
    return cast("float | None", value)


def _rate_interval(part: Peak | Point) -> Any:
    return part.get("interval") if "ips" in part else None


def _p99(part: Peak | Point) -> float | None:
    latency = part.get("latency_ms")
    return latency["p99"] if latency else None


def _p99_interval(part: Peak | Point) -> Any:
    if "ips" in part:
        return part.get("p99_interval")
    intervals = part.get("interval")
    return intervals["p99"] if isinstance(intervals, dict) else None


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over and under else None


def _ratio_interval(ratio: float | None, one: Any, other: Any) -> Interval:
    """Return the 95% interval of a ratio of two independent figures from theirs, whose errors add up in logarithms."""
    if ratio is None or not one or not other or min(*one, *other) <= 0:
        return None
    half = math.hypot(math.log(one[1] / one[0]) / 2, math.log(other[1] / other[0]) / 2)
    return ratio * math.exp(-half), ratio * math.exp(half)


def _splits(measured: Sequence[_Measured], names: Mapping[str, str], slo: Slo | None) -> Iterator[tuple[Split, ...]]:
    """Yield the ways to share of each set of networks, where at least one network has an SLO."""
    slos = _slos(measured)
    sets: dict[frozenset[str], dict[Any, dict[str, tuple[Service, int]]]] = {}
    order: dict[frozenset[str], tuple[str, ...]] = {}
    for each in measured:
        shared = each.variant.session.shared
        if shared is None:
            continue
        among = frozenset(each.members)
        order.setdefault(among, each.members)
        shares = shared.shares or (0,) * len(each.members)
        way = (shared.kind, frozenset(zip(each.members, shares, strict=False)))
        own_slo = slos.get(each.members[0], slo)
        service = Service(
            network=names[each.members[0]],
            share=str(shares[0]) if shared.shares else "",
            slo=own_slo,
            ips=_served(each.record, own_slo),
        )
        sets.setdefault(among, {}).setdefault(way, {})[each.members[0]] = (service, shares[0])
    for among, ways in sets.items():
        splits = []
        for (kind, _), services in ways.items():
            if len(services) < len(among):
                continue
            ordered = [services[key][0] for key in order[among]]
            text = "/".join(service.share for service in ordered)
            splits.append(Split(sharing=f"{kind}:{text}" if ordered[0].share else kind, services=tuple(ordered)))
        if splits and any(service.slo is not None for service in splits[0].services):
            yield tuple(splits)


def _slos(measured: Sequence[_Measured]) -> dict[str, Slo]:
    """Return the SLO of each network that has one of its own: it stands where the network is beside another."""
    slos: dict[str, Slo] = {}
    for each in measured:
        for key, neighbour in zip(each.members[1:], each.variant.session.beside or (), strict=False):
            if neighbour.slo is not None:
                name, _, limit = neighbour.slo.partition(":")
                slos[key] = Slo(cast("PercentileName", name.removesuffix("_ms")), float(limit))
    return slos


def _served(record: Record, slo: Slo | None) -> float:
    """Return the highest throughput that keeps `slo`, samples/s; 0 where none does."""
    if record.status != Status.OK:
        return 0.0
    parts: list[Peak | Point] = [*([record.peak] if record.peak else []), *record.points]
    best = 0.0
    for part in parts:
        latency = part.get("latency_ms")
        tail = dict(latency).get(slo.percentile) if slo is not None and latency else None
        keeps = slo is None or (isinstance(tail, float | int) and tail <= slo.limit_ms)
        if keeps and part["verdict"] not in {"invalid", "overloaded"}:
            best = max(best, _rate(part) or 0.0)
    return best
