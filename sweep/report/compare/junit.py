"""Write a comparison as JUnit XML, which every CI system shows as tests: one a variant."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from sweep.report.compare.figures import PEAK
from sweep.report.compare.rows import Outcome
from sweep.report.compare.terminal import ratio_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.report.compare.gates import Failure
    from sweep.report.compare.rows import RunComparison

_SKIPPED = (Outcome.INCOMPARABLE, Outcome.ADDED, Outcome.REMOVED)
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold


def as_junit(comparison: RunComparison, failed: Sequence[Failure]) -> bytes:
    """Return the XML document: a test case a variant, failed where it fails a gate, skipped where nothing compares it.

    Args:
        comparison: the comparison.
        failed: rows that fail a gate.
    """
    by_row: dict[int, list[Failure]] = {}
    for failure in failed:
        by_row.setdefault(id(failure.row), []).append(failure)
    skipped = [row for row in comparison.rows if row.outcome in _SKIPPED and id(row) not in by_row]
    counts = {
        "tests": str(len(comparison.rows)),
        "failures": str(len(by_row)),
        "errors": "0",
        "skipped": str(len(skipped)),
        "time": "0",
    }
    root = ET.Element("testsuites", {"name": "sweep compare", **counts})
    name = _legal(f"{comparison.old} against {comparison.new}")
    suite = ET.SubElement(root, "testsuite", {"name": name, "timestamp": _started(comparison), **counts})
    properties = ET.SubElement(suite, "properties")
    for fact in comparison.facts:
        ET.SubElement(properties, "property", {"name": fact.name, "value": _legal(f"{fact.old} -> {fact.new}")})
    for row in comparison.rows:
        case = ET.SubElement(suite, "testcase", {"name": _legal(row.label), "classname": "sweep.compare", "time": "0"})
        has_peak = any(value is not None for value in PEAK.pair(row))
        throughput = f"{PEAK.text(row)} samples/s, NEW / OLD {ratio_text(row)}, " if has_peak else ""
        figures = "\n".join([f"{throughput}{row.outcome}", *(f"{change}: {change.verdict}" for change in row.rates)])
        failures = by_row.get(id(row), [])
        if failures:
            message = "; ".join(f"{failure.kind}: {failure.message}" for failure in failures)
            ET.SubElement(case, "failure", {"message": _legal(message), "type": failures[0].kind}).text = figures
        elif row.outcome in _SKIPPED:
            ET.SubElement(case, "skipped", {"message": _legal(row.reason or str(row.outcome))})
        ET.SubElement(case, "system-out").text = _legal(figures)
    summary = "\n".join([comparison.summary, comparison.evidence, *comparison.notes])
    ET.SubElement(suite, "system-out").text = _legal(summary)
    ET.SubElement(suite, "system-err").text = ""
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _started(comparison: RunComparison) -> str:
    """Return when the newest record was measured, to the second and without a zone, as the schema asks for it."""
    return max((row.new.started_at for row in comparison.rows if row.new is not None), default="")[:19]


def _legal(text: str) -> str:
    """Return text without the characters that XML cannot hold."""
    return _ILLEGAL.sub("?", text)
