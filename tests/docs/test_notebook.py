"""The notebook of the docs runs, and shows what it says that it shows."""

from pathlib import Path

import notebooks
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "howto" / "results.ipynb"


def test_every_cell_runs_and_shows_what_the_file_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pd.option_context(
        "display.width", 80, "display.max_columns", 20
    ):  # the notebook sets them; put back afterwards
        assert notebooks.run(NOTEBOOK) == [notebooks.shown(cell) for cell in notebooks.cells(NOTEBOOK)]
