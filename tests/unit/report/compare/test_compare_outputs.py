"""The comparison for people and for CI: terminals of every width, JUnit, Markdown, JSON and the page."""

import dataclasses
import html
import io
import json
import re
import xml.etree.ElementTree as ET

import pytest
from measured_runs import record, results, run
from records import point

from sweep.cli.console import Terminal
from sweep.report.compare import (
    Failure,
    Outcome,
    RunComparison,
    as_json,
    as_junit,
    as_markdown,
    as_page,
    compare,
    failures,
    parse_gates,
    print_comparison,
)

HOSTILE = "a|b <b>`x`*\n\x07\x1b[31m"
RICH = {
    "engine": {"device_memory_bytes": 100 << 20},
    "accuracy": {"sqnr_db": 40.0, "max_abs": 1.0},
    "telemetry": {"energy_j_per_sample": 0.01, "sm_clock_mhz": None, "memory_clock_mhz": None, "throttled": False},
}


@pytest.fixture(scope="module")
def comparison():
    """Four variants: one slower, one that the new measurement could not run, two equal."""
    old, new = run("driver-a", seed=1), run("driver-b", 0.1, seed=2)
    rungs = [point(100.0, {"p99": 2.0, "p50": 1.0}), point(800.0, {"p99": 6.0, "p50": 2.0})]
    made = [results("driver-a", record(64, points=rungs, **RICH), *old.records[:3])]
    bad = {"status": "crashed", "error": {"stage": "load", "message": HOSTILE}, "points": rungs}
    made.append(results("driver-b", record(64, facts={"driver": "580.2"}, **bad, **RICH), *new.records[:3]))
    return compare(*made)


@pytest.fixture(scope="module")
def failed(comparison):
    return failures(comparison, parse_gates("slower=3%,accuracy"))


def printed(comparison, failed, width):
    out = io.StringIO()
    print_comparison(Terminal(file=out, width=width), comparison, failed)
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_width_breaks_a_word_or_loses_a_verdict(comparison, failed, width) -> None:
    def words(text):
        return {word.strip(".,:;") for word in text.split()} - {"->", "(95%)", ""}

    text, whole = printed(comparison, failed, width), printed(comparison, failed, 1000)
    assert max(map(len, text.splitlines())) <= width
    assert {"slower", "apart", "driver", "580.2", "FAILED", "b64", "0.904"} <= words(whole)
    columns = {"peak", "samples/s", "SQNR", "dB", "memory", "MiB", "mJ", "per", "sample", "40.0", "100.0", "10"}
    figures = {"996", "900", "1,000", "2,008", "1,994", "4,004", "4,036", "variant", "NEW", "/", "OLD"}
    missing = {word for word in words(whole) - words(text) if not word.startswith("─")}
    assert missing <= (set() if width >= 120 else columns | figures)
    assert "…" not in text
    for row in comparison.rows:
        assert row.label in text
        assert str(row.outcome) in text


def test_the_facts_stand_first_and_what_fails_last(comparison, failed) -> None:
    lines = printed(comparison, failed, 200).splitlines()
    assert lines[0] == "OLD driver-a   NEW driver-b"
    assert lines[1] == "  driver 570.1 -> 570.1, 580.2"
    assert lines[-1].startswith("FAILED lost: tiny_cnn fp32 b64 s1: NEW ended crashed: a|b")
    assert any(line.startswith("FAILED slower: tiny_cnn fp32 b1 s1: ") for line in lines)


# What the schemas of Ant's reports and of Jenkins both allow: attributes that must be there, and children in order.
COUNTS = {"tests": r"\d+", "failures": r"\d+", "errors": r"\d+", "skipped": r"\d+", "time": r"\d+(\.\d+)?"}
SUITE = {"name": ".+", "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "hostname": ".+", "package": ".*", "id": r"\d+"}
JUNIT = {
    "testsuites": ({}, r"(testsuite )*"),
    "testsuite": (SUITE | COUNTS, r"properties (testcase )*system-out system-err "),
    "properties": ({}, r"(property )*"),
    "property": ({"name": ".+", "value": ".*"}, ""),
    "testcase": ({"name": ".*", "classname": ".+", "time": r"\d+"}, r"(skipped |failure )?"),
    "failure": ({"message": ".*", "type": ".+"}, ""),
    "skipped": ({"message": ".*"}, ""),
    "system-out": ({}, ""),
    "system-err": ({}, ""),
}


def assert_is_junit(element):
    attributes, children = JUNIT[element.tag]
    assert element.keys() == list(attributes) or set(element.keys()) == set(attributes), element.tag
    for name, pattern in attributes.items():
        assert re.fullmatch(pattern, element.get(name)), (element.tag, name, element.get(name))
    assert re.fullmatch(children, "".join(f"{child.tag} " for child in element)), element.tag
    for child in element:
        assert_is_junit(child)


def test_junit_is_what_ci_systems_read(comparison, failed) -> None:
    """Counts, one case a row, at most one failure or skip in each, and nothing that one of the schemas lacks."""
    for gates in (failed, []):
        assert_is_junit(ET.fromstring(as_junit(comparison, gates)))  # noqa: S314 - our own
    suite = ET.fromstring(as_junit(comparison, failed)).find("testsuite")  # noqa: S314 - our own
    assert suite is not None
    counts = {name: int(suite.get(name, "-1")) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": 4, "failures": 2, "errors": 0, "skipped": 0}
    failure = suite.findall("testcase")[0].find("failure")
    assert failure is not None
    assert failure.get("type") == "slower"
    assert "\x07" not in as_junit(comparison, failed).decode()
    assert suite.get("hostname") == "a"
    passed = ET.fromstring(as_junit(comparison, [])).find("testsuite")  # noqa: S314 - our own
    assert passed is not None
    assert (passed.get("failures"), passed.get("skipped")) == ("0", "1")
    assert passed.get("timestamp") == "2026-01-01T00:00:00"
    assert "tiny_cnn fp32 b2 s1: " in passed.findtext("system-out", "")


def test_junit_of_records_without_host_or_time_is_valid_too() -> None:
    old, new = (record(1, facts={"host": None}, started_at="yesterday") for _ in range(2))
    root = ET.fromstring(as_junit(compare(results("a", old), results("b", new)), []))  # noqa: S314 - our own
    assert_is_junit(root)
    assert (root[0].get("hostname"), root[0].get("timestamp")) == ("localhost", "1970-01-01T00:00:00")


def test_a_long_markdown_summary_is_cut_below_what_a_comment_takes() -> None:
    whole = compare(results("a", record(1)), results("b", record(1)))
    (row,) = whole.rows
    slower = [dataclasses.replace(row, label=f"{n}" + "|" * 150, outcome=Outcome.SLOWER) for n in range(390)]
    long = dataclasses.replace(whole, rows=(*slower, *[row] * 10))
    failed = [Failure(row=row, kind="slower", message="3% slower" * 10) for row in slower]
    text = as_markdown(long, failed)
    assert 40_000 < len(text) <= 65_000
    assert re.search(r"Tables and lists are cut at \d+: --html and --json have all of it\.\n$", text)
    assert text.count("</details>") == 1
    page = as_page(long, failed).decode()
    assert "<summary>and 380 more</summary>" in page
    assert page.count("<li>") == page.count("</li>") > 390
    assert "cut at" not in as_markdown(compare(run("a", seed=1), run("b", seed=2)), [])


def test_markdown_neither_mentions_people_nor_draws_formulas() -> None:
    (row,) = compare(results("a", record(1)), results("b", record(1))).rows
    odd = dataclasses.replace(row, label="net@team $x$ &lt;b&gt; #12")
    text = as_markdown(RunComparison(old="a", new="b", facts=(), rows=(odd,), evidence=""), [])
    assert "| net&#64;team \\$x\\$ &amp;lt;b&amp;gt; \\#12 |" in text


def test_markdown_has_the_verdict_first_and_no_markup_of_a_label(comparison, failed) -> None:
    text = as_markdown(comparison, failed)
    assert text.startswith("### sweep compare: failed\n\n**Of 4 variants: 1 slower, 2 not told apart, 1 cannot be")
    assert "- ❌ **slower** tiny\\_cnn fp32 b1 s1: " in text
    assert "Differs: driver 570.1 -\\> 570.1, 580.2" in text
    assert "<details><summary>all 4 variants</summary>" in text
    assert "<b>" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in tables}) == 1
    marks = [
        line.split("|")[1].strip()
        for line in text.partition("<details>")[2].splitlines()
        if line.startswith("| ") and " tiny" in line
    ]
    assert marks == ["🔴 -", "?", "=", "="]
    assert "| memory MiB |" in text
    assert as_markdown(comparison, []).startswith("### sweep compare: passed")


def test_a_cpu_has_the_file_of_its_engine_and_no_memory() -> None:
    both = [results(name, record(1, engine={"bytes": size << 20})) for name, size in (("a", 10), ("b", 12))]
    comparison = compare(*both)
    texts = [as_markdown(comparison, []), printed(comparison, [], 200), as_page(comparison, []).decode()]
    for text, head in zip(texts, ("| engine file MiB |", "engine", "<th>engine file MiB</th>"), strict=True):
        assert head in text
        assert "memory" not in re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
        assert re.search("10.0 -(\\\\>|>|&gt;) 12.0", text)
    (row,) = json.loads(as_json(comparison, []))["rows"]
    assert (row["memory_mib"], row["engine_file_mib"]) == ({"old": None, "new": None}, {"old": 10.0, "new": 12.0})


def test_json_has_every_row_and_figure(comparison, failed) -> None:
    content = json.loads(as_json(comparison, failed))
    assert content["counts"] == {"slower": 1, "cannot be compared": 1, "not told apart": 2}
    assert [failure["gate"] for failure in content["failures"]] == ["slower", "lost"]
    slower, lost = content["rows"][:2]
    assert slower["ratio_interval"][0] < slower["ratio"] < slower["ratio_interval"][1] < 1
    assert slower["peak_ips"]["old"] > slower["peak_ips"]["new"]
    assert lost["ratio"] is None
    assert lost["memory_mib"] == {"old": 100.0, "new": 100.0}
    assert content["facts"] == [{"name": "driver", "old": "570.1", "new": "570.1, 580.2"}]


def test_the_page_draws_ratios_and_curves_and_escapes_what_it_shows(comparison, failed) -> None:
    page = as_page(comparison, failed).decode()
    assert 'id="chart0"' in page
    assert 'id="chart1"' in page
    assert "p99 latency at throughput: tiny_cnn fp32 b64 s1" in page
    assert "a|b <b>" not in page
    assert html.escape("a|b <b>`x`*") in page
    head, _, _ = page.partition("<script")
    assert 'src="http' not in page
    assert "<h1>driver-a (OLD) against driver-b (NEW)</h1>" in head
    assert page.count("<tr") == 5
    assert '<noscript><p class="note">The charts need JavaScript; the tables below have their figures.</p>' in page
    assert "<h3>p99 latency at throughput: tiny_cnn fp32 b64 s1</h3>" in page  # it wraps on a phone, a chart's does not
