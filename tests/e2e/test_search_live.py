"""A search as a command: the known best of a simulated grid, stopped and gone on with, and what is refused."""

from __future__ import annotations

import json

from sweep.storage import Store, find_sweeps

GRID = (
    "-m",
    "backend=simulated",
    "load=closed",
    "load.warmup_s=0.02",
    "load.min_s=0.1",
    "load.min_requests=9",
    "batch=1,8",
    "streams=1,2",
    "name=s",
)


def _keys(root):
    return set(Store(root).record_keys()), set(Store(root / "probes").record_keys())


def test_a_search_finds_the_best_goes_on_and_leaves_the_rest_to_the_grid(cli) -> None:
    first = cli.run(*GRID, "search=halving", "search.budget_s=60")

    root = cli.results / "s"
    answer = json.loads((root / "search.json").read_text())["answers"]["all"]
    best = Store(root).read(answer["best"])
    assert first.returncode == 0, first.stderr
    assert (best.variant["batch"], best.variant["streams"]) == (8, 2)
    assert answer["confidence"] > 0.9
    assert answer["spent_s"] <= 60
    assert "of 60 s spent; probe" in first.stdout
    assert "within 2% of the grid's best at" in first.stdout
    records, probes = _keys(root)
    assert 1 <= len(records) < 4
    assert probes
    assert not records & probes
    assert list(find_sweeps(cli.results)) == ["s"]
    states = answer["states"]
    assert set(states) >= records
    assert {key for key, state in states.items() if state == "measured"} == records

    for folder in (root / "records", root / "probes" / "records"):  # as if it had been killed before its last records
        max(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns).unlink()
    again = cli.run(*GRID, "search=halving", "search.budget_s=60")

    assert again.returncode == 0, again.stderr
    assert _keys(root) == (records, probes)
    assert json.loads((root / "search.json").read_text())["answers"]["all"]["best"] == answer["best"]


def test_a_search_of_repeats_is_refused_in_one_line(cli) -> None:
    refused = cli.run(*GRID, "search=halving", "repeats=3")

    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "a search decides after one" in refused.stderr
    assert not list((cli.results / "s").glob("records/*"))
