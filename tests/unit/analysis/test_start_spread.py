"""What starts differ by: the sentinel's runs, and earlier records of the same variants."""

import dataclasses

import numpy as np
import pytest

from sweep.analysis import drift, start_spread
from sweep.storage.record import Record
from sweep.storage.store import Store


def record(ips, passes_ips=None, *, key="k", gpu=None, status="ok"):
    peak = {"ips": ips, "interval": None, "passes_ips": passes_ips, "verdict": "ok"}
    return Record(
        key=key,
        sweep="s",
        status=status,
        started_at="2026-01-01T00:00:00.000+00:00",
        variant={"label": key},
        facts={"gpu": gpu},
        peak=peak,
    )


def test_groups_are_pooled_around_their_own_means_and_few_starts_say_nothing() -> None:
    found = start_spread.pooled([[100, 101, 102], [1.0, 1.01], [7]], "x")
    logs = [np.log([100, 101, 102]), np.log([1, 1.01])]
    squares = sum(((values - values.mean()) ** 2).sum() for values in logs)
    assert (found.cv, found.freedom) == (pytest.approx((squares / 3) ** 0.5), 3)
    assert start_spread.pooled([[1, 2], [3, 4]], "x") is None


def test_earlier_records_of_the_same_variant_on_the_same_machine_count(tmp_path) -> None:
    for number, ips in enumerate([100, 102, 101]):
        Store(tmp_path / f"night{number}").write(record(ips))
    Store(tmp_path / "elsewhere").write(record(500, gpu="other"))
    Store(tmp_path / "failed").write(record(900, status="failed"))
    Store(tmp_path / "damaged").record_path("k").parent.mkdir(parents=True)
    Store(tmp_path / "damaged").record_path("k").write_text("{")
    here = Store(tmp_path / "today")
    found = start_spread.measured(here, [record(99), record(5, key="new")])
    assert found.of("k").freedom == 3
    assert found.of("k").cv == pytest.approx(np.log([99, 100, 101, 102]).std(ddof=1))
    assert found.of("new") == dataclasses.replace(found.of("k"), source="the records of these engines")
    assert start_spread.measured(Store(tmp_path / "none"), []).of("k") is None


def test_the_sentinel_speaks_for_variants_without_a_history(tmp_path, monkeypatch) -> None:
    levels = {
        n: drift.Level(key="s", start=0, ips=ips, interval=None) for n, ips in enumerate([10.0, 10.1, 10.2, 10.1])
    }
    monkeypatch.setattr(drift, "levels", lambda _: levels)
    found = start_spread.measured(Store(tmp_path / "a"), [record(9)])
    assert (found.of("k").source, found.of("k").freedom) == ("the sentinel", 3)


def test_the_spread_of_passes_is_divided_between_starts_and_engines() -> None:
    rng = np.random.default_rng(4)
    engines = 0.05 * rng.standard_normal(400)
    passes = np.exp(np.concatenate([engines + 0.01 * rng.standard_normal(400) for _ in range(2)]))
    found = start_spread.levels_of(passes.tolist(), 400)
    assert found == {"start_cv": pytest.approx(0.01, rel=0.1), "build_cv": pytest.approx(0.05, rel=0.1)}
    steady = start_spread.levels_of([100, 100, 101, 101], 2)
    assert steady == {"start_cv": pytest.approx(np.log([100, 101]).std(ddof=1)), "build_cv": 0.0}
    assert start_spread.levels_of([100, 101], 2) == {
        "start_cv": None,
        "build_cv": pytest.approx(np.log([100, 101]).std(ddof=1)),
    }
    assert start_spread.levels_of([100, 101, 102], None)["build_cv"] is None
    assert start_spread.levels_of([100.0], None) is None
    assert start_spread.levels_of([100.0, None], None) is None
