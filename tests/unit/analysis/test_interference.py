"""Slowdowns of networks side by side, and the way to share that serves all, from records alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import factories
import pytest
from records import peak
from records import point as record_point

from sweep import spec
from sweep.analysis import interference
from sweep.report import side_by_side as shown
from sweep.spec import LoadAxes, Slo, side_by_side
from sweep.storage import Record

if TYPE_CHECKING:
    from sweep.spec import Variant

MLP = factories.variant("mlp", load=LoadAxes(kind="closed"))
CNN = factories.variant("tiny_cnn", load=LoadAxes(kind="poisson", rates_ips=(100.0, 200.0)))
VIT = factories.variant("vit_b16", load=LoadAxes(kind="closed"))


def record(variant: Variant, ips: float, p99: float = 1.0, **changes: Any) -> Record:
    """Return the record of a closed loop, whose figures are known to 2%."""
    loop = peak(ips, [ips * 0.98, ips * 1.02], latency_ms={"p50": p99 / 2, "p99": p99}, p99_interval=[p99, p99 * 1.04])
    fields = {"peak": loop, "points": []} | changes
    return Record(
        key=spec.variant_key(variant),
        sweep="s",
        status=fields.pop("status", "ok"),
        started_at="2026-01-01T00:00:00+00:00",
        variant=spec.flat(variant),
        facts={},
        **fields,
    )


def rates(variant: Variant, tails: dict[float, float]) -> Record:
    """Return the record of an open loop with these p99, ms, by offered rate."""
    points = [
        record_point(rate, {"p50": tail / 2, "p99": tail}, achieved_ips=rate, interval={"p50": None, "p99": None})
        for rate, tail in tails.items()
    ]
    return record(variant, 0.0, peak=None, points=points)


def pair(sharing: str, ips: float, tails: dict[float, float], **slos: str) -> list[Record]:
    """Return both records of one way to share."""
    reverse = spec.parse_sharing(sharing)
    assert reverse
    return [
        record(side_by_side.beside(MLP, [CNN], sharing, [slos.get("cnn")]), ips, 1000 / ips),
        rates(side_by_side.beside(CNN, [MLP], reverse.with_first(1).text, [slos.get("mlp")]), tails),
    ]


ALONE = [record(MLP, 1000.0, 1.0), rates(CNN, {100.0: 2.0, 200.0: 4.0})]


def test_factors_have_the_interval_of_both_and_stand_where_both_were_measured() -> None:
    first, second = interference.find([*ALONE, *pair("processes", 500.0, {100.0: 6.0, 200.0: 10.0})]).slowdowns
    assert (first.network, first.beside, first.at) == ("mlp", ("tiny_cnn",), "closed loop")
    assert (first.rate, first.p99) == (2.0, 2.0)
    assert first.rate_interval == pytest.approx((2 / 1.0288, 2 * 1.0288), rel=1e-3), "2% and 2%, in logarithms"
    assert first.p99_interval == pytest.approx((2 / 1.0281, 2 * 1.0281), rel=1e-3)
    assert (second.at, second.rate, second.p99, second.p99_interval) == ("200 samples/s", 1.0, 2.5, None)


def test_what_was_not_measured_alone_or_failed_has_no_factor() -> None:
    beside = pair("processes", 500.0, {100.0: 6.0})
    for records in (beside, [record(MLP, 1000.0, status="failed"), beside[0]]):
        assert {(each.rate, each.p99) for each in interference.find(records).slowdowns} == {(None, None)}
    assert interference.find(ALONE).slowdowns == ()
    assert [shown.cell_text(each) for each in interference.find(beside).slowdowns] == ["not known"] * 2


def test_the_way_to_share_that_keeps_every_slo_at_the_most_goodput() -> None:
    slos = {"mlp": "p99_ms:2.5", "cnn": "p99_ms:5"}
    ways = {"processes": (300.0, {100.0: 3.0, 200.0: 4.0}), "mps:75/25": (900.0, {100.0: 6.0, 200.0: 9.0})}
    ways |= {"mps:50/50": (500.0, {100.0: 3.0, 200.0: 8.0}), "mps:40/60": (490.0, {100.0: 3.0, 200.0: 8.0})}
    result = interference.find([*ALONE, *(each for way, args in ways.items() for each in pair(way, *args, **slos))])
    (splits,) = result.splits
    assert {split.sharing: (split.goodput_ips, split.keeps_all) for split in splits} == {
        "processes": (200.0, False),  # mlp's p99 is 3.3 ms
        "mps:75/25": (900.0, False),
        "mps:50/50": (600.0, True),
        "mps:40/60": (590.0, True),
    }
    best = result.best(splits)
    assert best
    assert best.sharing == "mps:50/50"
    assert shown.split_lines(result)[-1].endswith("at the most goodput; within 5% of it: mps:40/60")
    (failing,) = interference.find([*ALONE, *pair("streams", 300.0, {100.0: 9.0})], Slo("p99", 1.0)).splits
    assert result.best(failing) is None


def test_three_networks_are_a_row_each_and_their_shares_stand_in_the_order_of_the_rows() -> None:
    members = [MLP, CNN, VIT]
    sharing = spec.parse_sharing("mps:50/30/20")
    assert sharing
    records = [
        record(side_by_side.beside(own, [*members[:n], *members[n + 1 :]], sharing.with_first(n).text), 100.0)
        for n, own in enumerate(members)
    ]
    (matrix,) = shown.matrices(interference.find([*ALONE, *records]).slowdowns)
    assert matrix.sharing == "mps:50/30/20"
    assert matrix.rows == ("mlp", "tiny_cnn", "vit_b16")
    assert set(matrix.cells) == {
        ("mlp", "tiny_cnn + vit_b16"),
        ("tiny_cnn", "mlp + vit_b16"),
        ("vit_b16", "mlp + tiny_cnn"),
    }
    assert matrix.cells["mlp", "tiny_cnn + vit_b16"].rate == 10.0
    assert matrix.fairness is None, "the others were not measured alone"
