"""Variants that share an engine without having been asked to are marked wherever they are shown."""

from __future__ import annotations

import io

import factories
import pytest
from records import peak
from rich.console import Console

from sweep import spec
from sweep.report import answer, html, same_engines, table
from sweep.report.mlflow import record_mapping
from sweep.storage.record import Record


def record(key: str, digest: str | None, engine: str | None = None, **axes: object) -> Record:
    variant = factories.variant(backend="tensorrt_rtx", **axes)
    return Record(
        key=key,
        sweep="s",
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        variant=spec.flat(variant),
        engine={"key": engine or spec.engine_key(variant), "plan_digest": digest},
        realised={"notes": ["a note"]},
        peak=peak(100.0),
    )


def levels(*digests: str | None) -> list[Record]:
    return [record(f"k{n}", digest, builder_optimization_level=n) for n, digest in enumerate(digests)]


def test_the_first_variant_of_a_plan_is_named() -> None:
    records = levels("a", "b", "a", "a")
    named = same_engines(records)
    assert set(named) == {"k2", "k3"}
    assert named["k2"] == named["k3"]
    assert "0" in named["k2"]


@pytest.mark.parametrize(
    "records",
    [
        levels("a", "b"),
        levels(None, None),
        [record("k0", "a", streams=1), record("k1", "a", streams=2)],
        [record("k0", "a", batch=1), record("k1", "a", batch=8)],
    ],
    ids=["other plans", "no digests", "one engine by design", "the batch is given when it runs"],
)
def test_what_is_no_accident_is_not_marked(records: list[Record]) -> None:
    assert same_engines(records) == {}


def printed(records: list[Record]) -> str:
    out = io.StringIO()
    table.print_outcome(Console(file=out, width=200), records, answer(records, None), None)
    return out.getvalue()


def test_the_tables_say_so_in_a_footnote() -> None:
    records = levels("a", "a")
    line = f"same engine as {same_engines(records)['k1']}: what was set differently changed nothing"
    text = printed(records)
    assert [row.startswith("* ") for row in text.splitlines() if line in row] == [True]
    assert line in html._table(records, answer(records, None))
    assert "same engine" not in printed(levels("a", "b"))
    assert "same engine" not in html._table(levels("a", "b"), answer([], None))


def test_the_mark_stands_at_the_precision_where_that_is_a_column_after_the_notes() -> None:
    text = printed([record("k0", "a", precision="fp16"), record("k1", "a", precision="bf16")])
    assert "bf16*,**" in text
    assert "** same engine as" in text


def test_mlflow_gets_the_digest() -> None:
    (first,) = levels("abc")
    assert record_mapping.tags(first)["sweep.plan_digest"] == "abc"
    assert "sweep.plan_digest" not in record_mapping.tags(levels(None)[0])
