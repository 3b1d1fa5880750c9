"""Variants that share an engine without having been asked to are marked wherever they are shown."""

from __future__ import annotations

import dataclasses
import io

import factories
import pytest
from records import peak
from rich.console import Console

from sweep import spec
from sweep.report import answer, html, same_engines, speedups, table
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
    assert [row.startswith("** ") for row in text.splitlines() if line in row] == [True]
    assert line in html.render("t", records, answer(records, None))
    assert "same engine" not in printed(levels("a", "b"))
    assert "same engine" not in html.render("t", levels("a", "b"), answer([], None))


def test_the_mark_stands_at_the_precision_where_that_is_a_column_after_the_notes() -> None:
    text = printed([record("k0", "a", precision="fp16"), record("k1", "a", precision="bf16")])
    assert "bf16*,**" in text
    assert "** same engine as" in text


def test_mlflow_gets_the_digest() -> None:
    (first,) = levels("abc")
    assert record_mapping.tags(first)["sweep.plan_digest"] == "abc"
    assert "sweep.plan_digest" not in record_mapping.tags(levels(None)[0])


def of_precision(name: str, ips: float | None, **axes: object) -> Record:
    made = record(f"{name} {axes}", None, precision=name, **axes)
    return dataclasses.replace(made, peak=None if ips is None else peak(ips))


def test_a_peak_is_held_against_fp32_of_the_same_everything_else() -> None:
    records = [
        *(of_precision("fp32", 100.0), of_precision("int8", 250.0), of_precision("qat", None)),
        *(
            of_precision("fp32", 300.0, batch=8),
            of_precision("int8", 150.0, batch=8),
            of_precision("int8", 1.0, streams=2),
        ),
    ]
    assert list(speedups(records).values()) == [1.0, 2.5, 1.0, 0.5]
    for text in (printed(records), html.render("t", records)):
        assert ["2.50x" in text, "0.50x" in text, "1.00x" in text, text.count("x</td>") in {0, 4}] == [True] * 4


@pytest.mark.parametrize("names", [("fp16", "int8"), ("fp32",), ()])
def test_without_fp32_beside_another_precision_there_is_no_such_column(names: tuple[str, ...]) -> None:
    records = [of_precision(name, 100.0) for name in names]
    assert speedups(records) == {}
    if records:
        assert "peak over" not in printed(records) + html.render("t", records)


def test_rows_of_several_machines_are_told_below_the_table() -> None:
    """A record that a changed machine keeps stands beside those that it measured."""
    records = [dataclasses.replace(made, facts={"driver": "570", "host": "a"}) for made in levels("a", "b", "c")]
    assert "one machine" not in printed(records)
    records[0] = dataclasses.replace(records[0], facts={"driver": "580", "host": "b"})
    line = "not all variants were measured on one machine: driver 570 (2), 580 (1)\n"
    assert line in printed(records)
    assert line.strip() in html.render("t", records)


@pytest.mark.parametrize("name", [True, 3, 1.5])
def test_a_name_that_is_no_text_is_printed_as_text(name: object) -> None:
    """A damaged record can hold one, and must not stop the table and the page of the others."""
    odd = record("k0", "a", batch=1)
    odd = dataclasses.replace(odd, variant={**odd.variant, "graph": name})
    assert str(name) in printed([odd, record("k1", "a", batch=1)])
