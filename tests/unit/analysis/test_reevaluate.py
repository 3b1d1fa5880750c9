"""Records on disk are judged again: older ones by the limits of their time, newer ones by what rounding explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import factories
import pytest

from sweep import spec
from sweep.analysis import accuracy_gates, reevaluate
from sweep.spec import Gates, Limits
from sweep.storage import Record, Store

if TYPE_CHECKING:
    from pathlib import Path

BY_ROUNDING = {"floor_db": 110.0, "tf32_db": 50.0, "expected_db": 45.0, "note": None}


def judged(folder: Path, accuracy: dict, gates: Gates, earlier: Gates | None = None) -> Record:
    """The record of an fp16 variant as `gates` have it, after a pass that was judged by `earlier`."""
    variant, store = factories.variant(precision="fp16"), Store(folder / "s")
    fault = accuracy_gates.fault("fp16", accuracy, earlier or Gates())
    record = Record(
        key=spec.variant_key(variant),
        sweep="s",
        status="invalid" if fault else "ok",
        started_at="2026-01-01T00:00:00+00:00",
        variant=spec.flat(variant),
        accuracy=accuracy,
        error=reevaluate.mismatch_error(fault.message, fault.gate) if fault else None,
    )
    store.write(record)
    return reevaluate.regated(store, record, gates)


@pytest.mark.parametrize(
    ("sqnr_db", "expected", "status"),
    [(25.0, None, "ok"), (15.0, None, "invalid"), (25.0, BY_ROUNDING, "invalid"), (34.0, BY_ROUNDING, "ok")],
)
def test_a_record_keeps_the_verdict_of_what_it_knows(
    tmp_path: Path, sqnr_db: float, expected: dict | None, status: str
) -> None:
    accuracy = {"sqnr_db": sqnr_db, "max_abs": 1.0} | ({"expected": expected} if expected else {})
    assert judged(tmp_path, accuracy, Gates()).status == status


def test_a_gate_takes_back_what_rounding_did_not_explain(tmp_path: Path) -> None:
    accuracy = {"sqnr_db": 25.0, "max_abs": 1.0, "expected": BY_ROUNDING}
    assert judged(tmp_path, accuracy, Gates(min_sqnr_db=20.0)).status == "ok"
    strict = judged(tmp_path, accuracy, Gates(), earlier=Gates(min_sqnr_db=20.0))
    assert (strict.status, strict.error["gate"]) == ("invalid", "min_sqnr_db")


def test_a_gate_on_what_was_never_compared_is_judged_again_too(tmp_path: Path) -> None:
    accuracy = {"sqnr_db": None, "unknown": "no output is of floats"}
    strict = judged(tmp_path, accuracy, Gates(min_sqnr_db=20.0))
    assert strict.error["message"].endswith("cannot be judged: no output is of floats (accuracy.min_sqnr_db)")
    assert judged(tmp_path, accuracy, Gates(), earlier=Gates(min_sqnr_db=20.0)).status == "ok"


@pytest.mark.parametrize(
    ("engine", "size", "place"),
    [
        ({"device_memory_bytes": 80 << 20}, 80.0, "on the device"),
        (
            {"device_memory_bytes": 1 << 20, "memory": {"peak_bytes": 60 << 20, "buffers_bytes": 5 << 20}},
            65.0,
            "device",
        ),
        ({"device_memory_bytes": None, "host_memory_bytes": 90 << 20}, 90.0, "in the worker on the host"),
    ],
)
def test_a_limit_of_memory_is_judged_on_the_device_or_on_the_host_and_taken_back(
    tmp_path: Path, engine: dict, size: float, place: str
) -> None:
    store, variant = Store(tmp_path / "s"), factories.variant(precision="fp16")
    record = Record(
        key=spec.variant_key(variant),
        sweep="s",
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        variant=spec.flat(variant),
        accuracy={"sqnr_db": 60.0, "max_abs": 1.0},
        engine=engine,
    )
    over = reevaluate.regated(store, record, Gates(), Limits(memory_mib=50))
    assert (over.status, over.error["gate"]) == ("invalid", "memory_mib")
    assert over.error["message"].startswith(f"memory: {size:.1f} MiB ")
    assert over.error["message"].endswith(f"{place}, above limits.memory_mib=50")
    assert reevaluate.regated(store, over, Gates(), Limits(memory_mib=50)) is over
    assert reevaluate.regated(store, over, Gates(), Limits(memory_mib=200)).status == "ok"
    both = reevaluate.regated(store, over, Gates(min_sqnr_db=70.0), Limits())
    assert both.error["gate"] == "min_sqnr_db", "what it fails now, and no longer the memory"


def test_a_limit_of_memory_that_was_never_measured_is_not_kept(tmp_path: Path) -> None:
    variant = factories.variant()
    record = Record(
        key=spec.variant_key(variant),
        sweep="s",
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        variant=spec.flat(variant),
        engine={"device_memory_bytes": None},
    )
    strict = reevaluate.regated(Store(tmp_path / "s"), record, Gates(), Limits(memory_mib=50))
    assert strict.error["message"].endswith("cannot be judged: no memory was measured")
