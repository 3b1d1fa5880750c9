"""``sweep layers``: its sources, files and exit codes."""

import json

import pytest
from measured_runs import record
from profiled_layers import FP16, INT8, profile, write

from sweep.cli import commands
from sweep.report.layers import page, profile_path
from sweep.storage import Store


@pytest.fixture
def night(tmp_path, monkeypatch):
    """The folder of a sweep of batch 1, 4 and 8, of which 1 and 8 have a profile."""
    monkeypatch.setattr(page, "_plotly", lambda: "/* plotly */")
    store = Store(tmp_path / "results" / "s")
    for batch, layers in ((1, INT8), (4, None), (8, FP16)):
        item = record(batch, [1000.0 * batch])
        store.write(item)
        if layers is not None:
            write(profile_path(store.root, item.key), profile(f"net b{batch}", *layers, batch=batch))
    return store.root


def test_one_profile_is_printed_and_written(night, tmp_path, capsys) -> None:
    files = {kind: tmp_path / kind for kind in ("html", "json", "csv", "trace")}
    words = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    assert commands.main(["layers", str(night), *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("net b8 on NVIDIA H200 (tensorrt_rtx)\nAn inference takes 160 us, its 2 layers 150 us;")
    assert "block1/{conv, relu}" in out
    assert json.loads(files["json"].read_text())["totals"]["timed_us"] == 160.0
    assert len(files["csv"].read_text().splitlines()) == 3
    assert "traceEvents" in json.loads(files["trace"].read_text())
    assert "<title>sweep layers: net b8" in files["html"].read_text()
    assert not list(tmp_path.glob(".*"))  # no half-written file is left


def test_two_variants_of_a_sweep_and_two_sweeps_are_compared(night, tmp_path, capsys) -> None:
    results = ["--results", str(night.parent), "--html", str(tmp_path / "why.html")]
    for words in (["s", "--variant", "b8", "--variant", "b1"], ["s", "s", "--variant", "b8", "--variant", "b1"]):
        assert commands.main(["layers", *words, *results]) == 0
        out = capsys.readouterr().out
        assert out.startswith("B (b1) is 11.2 times slower than A (b8) (225 us against 20.0 us a sample)")
        assert "B (b1) is 11.2 times slower" in (tmp_path / "why.html").read_text()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["s", "--variant", "b4"], "to measure one: sweep model=tiny_cnn precision=fp32 batch=4 "),
        (["s", "s", "s"], "it takes one RECORD or two, and --variant at most twice"),
        (["s", "s", "--by", "node"], "--by node shows one profile"),
        (["t"], "t: no record, no layer profile and no sweep; the sweeps below"),
        (["s", "--top", "0"], "0 is not an integer of 1 or more"),
        (["s", "--html", "."], "is no regular file, and is not replaced"),
    ],
)
def test_what_cannot_be_shown_is_one_line_and_exit_code_2(night, words, line, capsys) -> None:
    assert commands.main(["layers", *words, "--results", str(night.parent)]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert ("layers=true" in error) is ("b4" in words)
