"""The page of one or several sweeps: tables without JavaScript, data of the charts, files, no markup from records."""

import base64
import csv
import dataclasses
import io
import json
import re
import warnings

import factories
import pandas as pd
import pytest
from records import latency_ms, peak, point

from sweep import spec
from sweep.cli.commands import main
from sweep.report import Answer, answer, html, slides, speedups
from sweep.report.columns import common_slo
from sweep.report.results import Results
from sweep.spec.slo import Slo
from sweep.storage.record import Record
from sweep.storage.store import Store


def record(key="k", p99s=(2.0, 8.0), **changes):
    points = [point(100.0 * n, latency_ms(p50=1.0, p99=p99)) for n, p99 in enumerate(p99s, 1)]
    base = Record(
        key=key,
        sweep="s",
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        variant={"label": f"m fp32 b{key}", "model": "m", "precision": "fp32", "batch": key},
        points=points,
        peak=peak(250.0),
    )
    return dataclasses.replace(base, **changes)


def held(limit_ms, capacity=100.0):
    keys = {"percentile": 99.0, "limit_ms": limit_ms, "capacity_ips": capacity, "confidence": 0.99, "next_ips": None}
    return {**keys, "monotonic": True, "confirmed": True}


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))


def files_of(page):
    links = re.findall(r'download="([^"]+)" href="data:text/csv;charset=utf-8;base64,([^"]+)"', page)
    return {name: list(csv.DictReader(io.StringIO(base64.b64decode(text).decode()))) for name, text in links}


def test_the_charts_get_every_point_that_the_generator_did_not_delay() -> None:
    late = point(300.0, latency_ms(p50=1.0, p99=3.0), verdict="invalid")
    bars = point(400.0, latency_ms(p50=1.0, p99=3.0), interval={"p50": None, "p99": [2.5, 4.0]}, clients=None)
    (variant,) = data_of(html.render("t", [record(points=[late, bars])]))["variants"]
    (drawn,) = variant["points"]
    assert (drawn["x"], drawn["p99"], drawn["p50"], drawn["bars"]) == (400.0, 3.0, 1.0, {"p99": [2.5, 4.0]})
    assert data_of(html.render("t", [record()]))["percentiles"] == ["p50", "p99"]


def test_each_variant_is_a_row_with_what_the_terminal_has_and_what_it_is_sorted_by() -> None:
    slow = record("8", slo=held(5.0, 90.0), peak=peak(1250.0, verdict="unstable"))
    page = html.render("t", [record("1", slo=held(5.0)), slow], answer([], None))
    heads = re.findall('data-kind="number">(.*?)</th>', page)
    assert {"p99 ms light", "samples/s at p99 &lt;= 5 ms"} < set(heads)
    assert '<td data-value="1250.0">~1,250</td>' in page
    assert data_of(page)["slos"] == [{"percentile": "p99", "limit_ms": 5.0}]
    named = {figure["name"]: number for number, figure in enumerate(data_of(page)["figures"])}
    assert [item["figures"][named["capacity_samples_per_s"]] for item in data_of(page)["variants"]] == [100.0, 90.0]


def test_a_footnote_and_an_error_that_many_share_stand_once() -> None:
    error = {"stage": "build", "kind": "X", "message": "no kernel"}
    records = [record(str(n), realised={"notes": ["emulated"]}, status="failed", error=error) for n in range(3)]
    page = html.render("t", records)
    assert page.count('<li id="note1">emulated</li>') == page.count("emulated") == 1
    assert page.count("<li>m fp32 b0, m fp32 b1, m fp32 b2: failed at build: no kernel</li>") == 1


def test_a_long_answer_is_folded_and_words_are_no_figures() -> None:
    lines = [f"line {number}." for number in range(12)]
    page = html.render("t", [record()], Answer(best=None, tied=(), text="\n".join(lines)))
    shown, folded = (
        page.partition('<section class="answer">')[2].partition("</section>")[0].split("<summary>8 more lines")
    )
    assert [line for line in lines if f"<p>{line}</p>" in shown] == lines[:4]
    assert [line for line in lines if f"<p>{line}</p>" in folded] == lines[4:]
    short = html.render("t", [record()], Answer(best=None, tied=(), text="\n".join(lines[:10])))
    assert "more lines" not in short
    assert '<td class="axis">ok</td>' in short


def test_a_percentile_of_several_slos_is_told_by_the_row() -> None:
    records = [record("1", slo=held(5.0)), record("2", slo=held(7.0))]
    assert common_slo(records) is None
    assert common_slo(records[:1]) == Slo("p99", 5.0)
    page = html.render("t", records)
    assert ">samples/s at its SLO</th>" in page
    assert ">100 (p99 &lt;= 7 ms)</td>" in page


def test_the_files_have_the_columns_of_the_frames_and_no_formula() -> None:
    variant = {**spec.flat(factories.variant(batch=1)), "label": "=cmd()", "model": "@x"}
    several = [
        record("s/1", variant=variant, facts={"gpu": "H200"}, engine={"key": "e", "device_memory_bytes": 7}),
        record("s/2", variant={**variant, "label": "s: b8", "batch": 8}, peak=peak(500.0, [490.0, 510.0])),
    ]
    files = files_of(html.render("a/b", several))
    assert list(files) == ["a-b-variants.csv", "a-b-points.csv"]
    rows = files["a-b-variants.csv"]
    own = [dataclasses.replace(item, key=item.key[2:]) for item in several]
    frame = Results(name="s", records=tuple(own), stores=(None, None)).frame()
    assert list(rows[0]) == list(frame.columns)
    assert [(row["key"], row["variant"], row["model"]) for row in rows] == [
        ("1", "'=cmd()", "'@x"),
        ("2", "b8", "'@x"),
    ]
    for name in ("peak_ips", "batch", "p99_light_ms", "device_memory_bytes", "of_best_low", "of_best_high"):
        shown = [float(row[name]) if row[name] else None for row in rows]
        assert shown == [None if pd.isna(value) else pytest.approx(float(value)) for value in frame[name]], name
    assert rows[1]["of_best_low"] == "1.0"
    points = files["a-b-points.csv"]
    assert [point["rung"] for point in points] == ["-1", "0", "1"] * 2
    assert (points[2]["offered_ips"], points[2]["p99_ms"], points[2]["p99_low_ms"]) == ("200.0", "8.0", "")


def test_facts_that_differ_are_marked_with_their_sweeps() -> None:
    old = record("1", sweep="old", facts={"gpu": "H200", "driver": "570", "host": None})
    page = html.render("t", [old, record("2", sweep="new", facts={"gpu": "H200", "driver": "580"})])
    facts = " ".join(page.partition("<h2>Facts</h2>")[2].partition("</table>")[0].split())
    assert '<tr><th scope="row">gpu</th><td>H200</td></tr>' in facts
    assert "<td>570 (old); 580 (new) <strong>(differs)</strong></td>" in facts
    assert "host" not in facts
    assert data_of(page)["axes"][0] == "sweep"


def test_settings_that_follow_from_the_sweep_stand_once_and_not_in_each_row() -> None:
    def of(sweep, precision, batch, warmup_s):
        variant = {"label": f"m {precision} b{batch}", "model": "m", "precision": precision, "batch": batch}
        variant |= {"load": {"kind": "closed", "warmup_s": warmup_s}}
        return record(key=f"{sweep}/{precision}{batch}", sweep=sweep, variant=variant)

    pairs = [(precision, batch) for precision in ("fp16", "int8") for batch in (1, 8)]
    records = [of(*item) for sweep, s in (("a", 0.1), ("b", 0.3)) for item in [(sweep, *pair, s) for pair in pairs]]
    page = html.context("a + b", records)
    assert [head["title"] for head in page["table"]["heads"]][:4] == ["sweep", "precision", "batch", "status"]
    assert page["data"]["axes"] == ["sweep", "precision", "batch"]
    assert ("warmup_s", ["0.1 (a)", "0.3 (b)"], True) in page["facts"]
    one = [dataclasses.replace(of("a", "fp16", 1, warmup_s), key=f"a/{warmup_s}") for warmup_s in (0.1, 0.3)]
    alone = [head["title"] for head in html.context("a", one)["table"]["heads"]]
    assert "warmup_s" in alone, "of one sweep, an axis that varies has a column"


def test_a_ratio_to_fp32_is_never_that_of_another_sweep() -> None:
    fp32 = record("1", sweep="old", peak=peak(100.0))
    fp32.variant["precision_recipe"] = {"dtype": "fp32"}
    int8 = record("2", peak=peak(300.0), variant={**fp32.variant, "precision": "int8"})
    int8.variant["precision_recipe"] = {"dtype": "int8"}
    assert speedups([fp32, int8]) == {}
    assert speedups([fp32, dataclasses.replace(int8, sweep="old")])["2"] == 3.0


def test_the_page_names_no_address_and_forbids_itself_the_network() -> None:
    page = html.render("t", [record()], commands=html.Commands(sweeps={"s": "sweep a=<b>"}, variants={"k": "sweep k"}))
    own = page.partition('id="data"')[0]
    assert "http" not in own.replace("http-equiv", "")
    assert "default-src 'none'" in own
    assert "<code>sweep a=&lt;b&gt;</code>" in own
    assert "<code>sweep k</code>" in own


def test_pictures_for_slides(tmp_path) -> None:
    records = [record(str(n), slo=held(5.0)) for n in range(2)]
    settings = " ".join(f"load.setting_{n}=1000" for n in range(20))  # that all have: no legend has room for them
    for n, each in enumerate(records):
        each.variant["label"] = f"$x_{n}$ fp32 {settings}"
    slides.write_png(tmp_path / "a.png", "$t$", [record("1", ())])
    with warnings.catch_warnings(action="error"):  # matplotlib warns where nothing is left for the curves
        slides.write_pdf(tmp_path / "a.pdf", "t", records, answer(records, None), "p99")
    head = (tmp_path / "a.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == (1920, 1080)
    pages = (tmp_path / "a.pdf").read_bytes().count(b"/Type /Page ")
    assert pages == 4, "curves at p99 and at p50, peaks, latency at the peak"


def test_the_command_writes_the_settings_of_the_best_variant(tmp_path) -> None:
    store = Store(tmp_path / "night")
    for batch, ips in ((1, 100.0), (8, 900.0)):
        variant = factories.variant(batch=batch)
        store.write(record(key=spec.variant_key(variant), sweep="night", variant=spec.flat(variant), peak=peak(ips)))
    assert main(["report", str(store.root)]) == 0
    (settings,) = re.findall(r"<code>(With [^<]*)</code>", (store.root / "report.html").read_text())
    assert "batch=8" in settings
