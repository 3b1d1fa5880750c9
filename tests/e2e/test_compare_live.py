"""Measure, change the machine, measure again, compare: the exit codes that CI sees, and every file that it reads."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from conftest import CLOSED, Cli

from sweep.cli import commands

SIMULATED = ("backend=simulated", "batch=1,8", *CLOSED)


@pytest.mark.e2e
def test_a_slowdown_fails_the_job_and_the_same_machine_does_not(cli: Cli, tmp_path: Path, capsys) -> None:
    factor = tmp_path / "factor"
    for name, slowness in {"before": "1.0", "after": "1.1"}.items():
        factor.write_text(slowness)
        done = cli.run(*SIMULATED, f"backend.script.machine={factor}", f"name={name}")
        assert done.returncode == 0, done.stderr
    base, files = tmp_path / "base.json", {kind: tmp_path / kind for kind in ("junit", "markdown", "json", "html")}
    where = ["--results", str(cli.results)]
    assert commands.main(["compare", "before", "before", *where, "--fail-on", "slower", "--save", str(base)]) == 0
    assert "Of 2 variants: 2 not told apart." in capsys.readouterr().out
    outputs = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    words = ["compare", "--baseline", str(base), "after", *where, *outputs]
    assert commands.main(words) == 0  # nothing was to fail
    assert commands.main([*words, "--fail-on", "slower=3%,slo,accuracy,memory"]) == 1
    out = capsys.readouterr().out
    assert "One start on each side: what starts differ by is not known, 2.5% is assumed" in out
    assert out.count("FAILED slower: ") == 2
    assert " 9.1% slower (95%: " in out
    suite = ET.parse(files["junit"]).find("testsuite")  # noqa: S314 - our own
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert files["markdown"].read_text().startswith("### sweep compare: failed")
    assert {row["verdict"] for row in json.loads(files["json"].read_text())["rows"]} == {"slower"}
    assert b"Plotly.newPlot" in files["html"].read_bytes()
    before = base.read_bytes()
    short = ["compare", "--baseline", str(base), "after", *where, "--save", str(base)]
    assert commands.main([*short, "--fail-on", "slower=3%"]) == 1
    assert "base.json stays as it was, since a gate fails" in capsys.readouterr().out.replace("\n", " ")
    assert base.read_bytes() == before  # the next job would be green
    assert commands.main([*short, "--fail-on", "slower=20%"]) == 0
    assert base.read_bytes() != before
    capsys.readouterr()
    for wrong, line in (
        (["compare", "before", *where], "1 arguments where OLD and NEW, or --baseline FILE and NEW, are compared"),
        (["compare", "before", "afte", *where], "did you mean after?"),
        (["compare", "before", "after", *where, "--fail-on", "slow"], "--fail-on slow: no such gate"),
        (
            ["compare", "before", "after", *where, "--json", "a", "--markdown", "./a"],
            "--markdown and --json both name a",
        ),
        (["compare", "before", "after", *where, "--json", str(tmp_path)], "is no regular file, and is not replaced"),
        (["compare", str(base), "after", *where, "--json", str(base)], "base.json is one of what is compared"),
        (["compare", "before", "mlflow:night", *where], "there is no MLflow store at"),
    ):
        assert commands.main(wrong) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1
