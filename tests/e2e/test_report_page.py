"""The page in a real browser: sorted, filtered, drawn, without a network or an error; readable without JavaScript."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from browser import chromium_driver, require
from records import latency_ms, peak, point

from sweep.report import html
from sweep.storage.record import Record

if TYPE_CHECKING:
    from pathlib import Path

POINT = point(100.0, latency_ms(p50=1.0, p95=2.0, p99=3.0), interval={"p50": None, "p99": [2.5, 4.0]})
ACCURACY = {"sqnr_db": 40.0, "max_abs": 0.1}


def record(precision: str, batch: int, ips: float) -> Record:
    variant = {"label": f"<m> {precision} b{batch}", "model": "m", "precision": precision, "batch": batch}
    slower = {**POINT, "achieved_ips": ips, "offered_ips": ips}
    base = Record(key=f"{precision}{batch}", sweep="s", status="ok", started_at="2026-01-01T00:00:00", variant=variant)
    return dataclasses.replace(base, peak=peak(ips), points=[POINT, slower], accuracy=ACCURACY)


@pytest.mark.e2e
@pytest.mark.chromium
def test_the_page_sorts_filters_and_draws_what_the_table_shows(tmp_path: Path) -> None:
    require("chromium")
    records = [
        record(name, batch, 100.0 * batch + n) for n, name in enumerate(("fp16", "int8")) for batch in (1, 8, 32)
    ]
    page = html.write(tmp_path / "report.html", "t", records)
    with chromium_driver() as driver:
        driver.get(page.as_uri())

        def rows() -> list[str]:
            texts = "return [...document.querySelectorAll('#variants tbody tr')].filter(r => !r.hidden)"
            return driver.execute_script(f"{texts}.map(r => r.cells[1].textContent + r.cells[2].textContent)")

        def drawn(chart: str) -> list[str]:
            driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()))")
            return driver.execute_script(f"return document.getElementById('{chart}').data.map(d => d.name)")

        assert len(drawn("curves")) == 6
        assert drawn("curves")[0] == "fp16 b1", "what all lines have in common stands above them"
        title = "return document.getElementById('curves').layout.title.text"
        assert driver.execute_script(title) == "&lt;m&gt;", "a name is text"
        assert "precision int8" in drawn("front")
        script = "return document.getElementById('heat').data[0].z"
        assert driver.execute_script(script) == [[100, 800, 3200], [101, 801, 3201]]
        head = "[...document.querySelectorAll('#variants th button')].find(b => b.textContent === 'peak samples/s')"
        driver.execute_script(f"{head}.click()")
        assert rows() == ["int832", "fp1632", "int88", "fp168", "int81", "fp161"]
        driver.execute_script(f"{head}.click()")
        assert rows()[0] == "fp161"
        driver.find_element("id", "words").send_keys("int8 b8")
        assert rows() == ["int88"]
        assert drawn("curves") == ["&lt;m&gt; int8 b8"]
        assert driver.find_element("id", "count").text == "1 of 6 variants"
        change = (
            "const s = document.getElementById('percentile'); s.value = 'p95'; s.dispatchEvent(new Event('change'))"
        )
        driver.execute_script(change)
        assert driver.execute_script("return document.getElementById('curves').data[0].y") == [2, 2]
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        driver.get(page.as_uri())
        assert len(driver.find_elements("css selector", "#variants tbody tr")) == 6
        assert "need JavaScript" in driver.find_element("tag name", "noscript").text
        assert driver.find_element("link text", "variants.csv").get_attribute("download") == "t-variants.csv"
