"""Take a variant of a real sweep, move it, run its loader as a user would, and cause each refusal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import read_only
from conftest import CLOSED, Cli
from forked_command import call_forked, run_forked

from sweep.cli import commands
from sweep.report import mlflow

WORDS = ("model=tiny_cnn", "precision=fp16", "batch=2", "streams=2", "backend=onnxruntime", *CLOSED, "name=s")
PRUNE_LOCK = ".prune.lock"  # of the cache; names the process that had it last


def infer(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", str(folder / "infer.py"), *words], capture_output=True, text=True, check=False
    )


@pytest.mark.e2e
def test_a_winner_is_taken_whole_runs_elsewhere_and_tells_what_was_changed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(*WORDS, "accuracy.min_sqnr_db=null").returncode == 0
    archive = tmp_path / "archive"
    cli.results.rename(archive)  # a sweep that was moved, taken from another folder by its path alone
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert commands.main(["take", str(archive / "s"), "--to", "won"]) == 0
    out = capsys.readouterr().out
    taken = out.splitlines()[0]
    assert re.fullmatch(r"taken    tiny_cnn fp16 b2 s2: recommended.*: the only peak that counts, \S+ samples/s", taken)
    assert "infer.py ran here, its outputs are stored: " in out
    (folder,) = Path("won").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    (record,) = (json.loads(path.read_text()) for path in (archive / "s" / "records").iterdir())
    assert manifest["engine"]["digest"] == record["engine"]["plan_digest"]
    assert json.loads((folder / "record.json").read_text()) == record
    readme = (folder / "README.md").read_text()
    assert f"| peak | {record['peak']['ips']:,.0f} samples/s |" in readme
    assert f"| SQNR | {record['accuracy']['sqnr_db']:.1f} dB |" in readme
    assert "- 2 streams, one inference at a time in each\n" in readme
    assert "sweep model=tiny_cnn precision=fp16 batch=2 streams=2 load=closed" in readme
    assert 'dtype: "fp16"' in (folder / "precision" / "fp16.yaml").read_text()
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=False).returncode == 0
    assert oct(Path("won").stat().st_mode & 0o777) == oct((tmp_path / "elsewhere").stat().st_mode & 0o777)

    is_taken_from_a_folder_that_may_only_be_read(archive)
    served = shutil.move(folder, tmp_path / "served")
    stored = dict(np.load(served / "outputs.npz"))
    np.savez(served / "outputs.npz", **{name: value + 1 for name, value in stored.items()})
    manifest["bound_to"]["onnxruntime"] = "0.1"
    (served / "manifest.json").write_text(json.dumps(manifest))
    checked = infer(served, "--check")
    assert checked.returncode == 1
    assert "DIFFERS, " in checked.stdout
    assert "infer.py: note: onnxruntime is " in checked.stderr
    assert checked.stderr.count("\n") == 1
    is_registered_as_it_was_taken(archive, record, monkeypatch, capsys)
    refuses_and_builds_again(cli, archive, record, capsys)
    is_renamed_and_deleted(archive, capsys)


def is_taken_from_a_folder_that_may_only_be_read(archive: Path) -> None:
    before = sorted(archive.rglob("*"))
    read_only.take_writing_away(archive)
    try:
        code, out, err = call_forked(read_only.run_bound, ["take", str(archive), "--to", "copied"], str(Path.cwd()))
    finally:
        read_only.give_writing_back(archive)
    assert (code, err) == (0, "")
    assert "infer.py ran here, its outputs are stored: " in out
    (copy,) = Path("copied").iterdir()
    assert (copy / "engine").stat().st_mode & 0o200
    assert sorted(archive.rglob("*")) == before
    shutil.rmtree("copied")


def is_registered_as_it_was_taken(
    archive: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Publish with --register; MLflow's part, which test_registry.py tests, is replaced."""
    registered = []

    def register(_: str, experiment: str, sweep: str, name: str, winner: mlflow.Winner) -> mlflow.Version:
        assert sorted(path.name for path in winner.folder.iterdir())[:3] == ["README.md", "SHA256SUMS", "engine"]
        registered.append((experiment, sweep, name, winner.record.key, winner.takes_batches))
        return mlflow.Version(name=name, number="3", is_new=True)

    monkeypatch.setattr("sweep.report.mlflow.register", register)
    monkeypatch.setattr("sweep.cli.publish._publish", lambda *_: None)
    words = ["publish", str(archive), "--register", "tiny"]
    assert commands.main(words) == 0
    assert registered == [("sweep", "s", "tiny", record["key"], False)]
    assert capsys.readouterr().out.startswith("registered: tiny version 3, ")
    assert commands.main([*words, "--variant", "fp61"]) == 2
    assert commands.main(["publish", str(archive), "--register", "a/b"]) == 2
    assert commands.main(["publish", str(archive), "--variant", "fp16"]) == 2
    refusals = capsys.readouterr().err.splitlines()
    assert len(refusals) == 3
    assert refusals[2].endswith("say what to register: add --register NAME")


def refuses_and_builds_again(
    cli: Cli, archive: Path, record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        assert commands.main(["take", str(archive), *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "it is there and no empty folder" in refused("--to", str(archive))
    assert "has that label or key; the variants are: tiny_cnn fp16 b2 s2" in refused("--to", "x", "--variant", "fp61")
    (engine,) = (archive / "cache" / "engines").glob("*/optimised.onnx")
    content = engine.read_bytes()
    shutil.rmtree(engine.parent)
    command = refused("--to", "x").partition("--build builds it again, as does ")[2]
    assert command.endswith(f" build_only=true results={archive} name=s\n")
    assert [path.name for path in Path().iterdir()] == ["won"]
    built = run_forked(
        ("take", str(archive), "--build", "--cache", "elsewhere", "--to", "again"), cli.environment(), Path.cwd()
    )
    assert built.returncode == 0, built.stderr
    assert next(Path("again").glob("*/engine/optimised.onnx")).read_bytes() == content == engine.read_bytes()
    record["status"], record["error"] = "invalid", {"stage": "accuracy", "message": "too far from fp32"}
    (archive / "s" / "records" / f"{record['key']}.json").write_text(json.dumps(record))
    assert "is invalid at accuracy: too far from fp32; it is not taken" in refused("--to", "x", "--variant", "fp16")


def is_renamed_and_deleted(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--results", str(archive)]
    assert commands.main(["rename", "s", "shipped", *where]) == 0
    assert "<title>sweep: shipped</title>" in (archive / "shipped" / "report.html").read_text()
    capsys.readouterr()
    assert commands.main(["delete", "shipped", *where, "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {item["kind"] for item in said["cache"]} == {"engines", "onnx"}
    (archive / "cache" / PRUNE_LOCK).write_text("process 1\n")  # who takes it writes its own number, of another length
    before = disk_bytes(archive)
    assert commands.main(["delete", "shipped", *where, "--yes"]) == 0
    assert before - disk_bytes(archive) == said["freed_bytes"] > 0
    assert [path.name for path in archive.iterdir()] == ["cache"]


def disk_bytes(folder: Path) -> int:
    """Return the size of all files below a folder, each once whatever names it has; the lock that stays is left out."""
    status = [path.lstat() for path in folder.rglob("*") if path.is_file() and path.name != PRUNE_LOCK]
    return sum({item.st_ino: item.st_size for item in status}.values())
