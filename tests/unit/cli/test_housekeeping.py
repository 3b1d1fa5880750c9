"""List, show, rename and delete sweeps: what each command does to files, cache and MLflow, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING

import measured_runs
import mlflow_store
import pytest
import taken_engine
from cache_entries import SIZE, put, there
from other_host import run_on

from sweep.cli import commands, list_sweeps
from sweep.report import load
from sweep.report.mlflow import Publisher, default_uri, register
from sweep.spec import Settings
from sweep.storage import Record, Store, exclusive, find_sweeps, folder_lock, sweep_files
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from pathlib import Path


def sweep_of(results: Path, name: str, *batches: int, engines: str = "") -> Store:
    """Write a sweep whose records name the engines that `engines` has a letter of, in their order."""
    store = Store(results / name)
    for batch, engine in zip(batches, [*engines] or [None] * len(batches), strict=True):
        record = dataclasses.replace(measured_runs.record(batch), sweep=name)
        if engine is not None:
            record = dataclasses.replace(record, engine={"key": engine, "onnx_key": f"onnx{engine}"})
        store.write(record)
    return store


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run a command on the results folder `tmp_path`; return its exit code and what it printed."""

    def command(name: str, *words: str) -> tuple[int, str, str]:
        place = [str(tmp_path)] if name == "list" else ["--results", str(tmp_path)]
        code = commands.main([name, *words, *place])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def uri(results: Path) -> str:
    return default_uri(results)


def publish(results: Path, *stores: Store) -> None:
    for store in stores:
        Publisher(uri(results), "drivers", store.root.name).publish(list(store.readable()), store)


def run_names(results: Path) -> dict[str, str]:
    """Return the name of each run by its id."""
    client = mlflow_store.client(uri(results))
    experiment = client.get_experiment_by_name("drivers")
    return {run.info.run_id: run.info.run_name for run in client.search_runs([experiment.experiment_id])}


def test_sweeps_are_listed_with_what_they_hold(tmp_path: Path, run) -> None:
    assert run("list") == (0, f"no sweep below {tmp_path}\n", "")
    (tmp_path / "records").mkdir()
    assert run("list")[1].endswith(f"which is the folder of one: sweep show {tmp_path.name} shows it\n")
    (tmp_path / "records").rmdir()
    store = sweep_of(tmp_path, "a", 1, 2)
    store.write(dataclasses.replace(measured_runs.record(4), status="failed", error={"stage": "build", "message": "x"}))
    (store.root / "records" / "damaged.json").write_text("{")
    sweep_of(tmp_path, "nested/b", 1)
    (tmp_path / ".gone.host-1-abcdefgh" / "records").mkdir(parents=True)
    (tmp_path / "cache" / "records").mkdir(parents=True)
    assert list(find_sweeps(tmp_path)) == ["a", "nested/b"]
    assert len(load(tmp_path)) == 4
    code, out, _ = run("list")
    assert code == 0
    assert "2 ok, 1 failed, 1 damaged" in out
    assert "2 sweeps, " in out
    rows = json.loads(run("list", "--json")[1])
    assert rows[0] | {"bytes": 0} == {
        "name": "a",
        "folder": str(store.root),
        "last_measured": "2026-01-01T00:00:00.000+00:00",
        "variants": {"ok": 2, "damaged": 1, "failed": 1},
        "models": ["tiny_cnn"],
        "bytes": 0,
        "published": [],
    }
    assert rows[0]["bytes"] == sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    assert list_sweeps.describe("a", store.root, None)["published"] is None


def test_a_sweep_is_shown_with_its_command_facts_and_sizes(tmp_path: Path, run) -> None:
    store = sweep_of(tmp_path, "a", *range(1, 16))
    (store.root / "config.json").write_text(json.dumps({"command": ["model=tiny_cnn", "batch=1,2"], "overrides": []}))
    code, out, _ = run("show", "a")
    assert code == 0
    assert "12 of 15 variants are shown; --all shows them all\n" in out
    assert "command  sweep model=tiny_cnn batch=1,2\n" in out
    assert "facts    gpu = NVIDIA H200\n" in out
    assert "  records, 15 files\n" in out
    assert f"folder   {store.root}\n" in out
    assert "are shown" not in run("show", str(store.root), "--all")[1]
    shown = json.loads(run("show", "a", "--json")[1])
    assert len(shown["recommended"]) == 1
    assert shown["facts"]["driver"] == ["570.1"]
    assert [part["name"] for part in shown["parts"]] == ["records", "config.json"]


@pytest.mark.parametrize("command", ["show", "rename", "delete"])
def test_what_is_no_sweep_is_one_line(tmp_path: Path, run, command: str) -> None:
    sweep_of(tmp_path, "alone", 1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / ".lock").touch()  # of another program
    (tmp_path / "link").symlink_to("alone")
    words = {"show": [], "rename": ["new"], "delete": ["--yes"]}[command]
    for name, line in {
        "alne": "did you mean alone?",
        "notes": "is no folder of a sweep: it has neither records nor the lock of one",
        "link": "is a link to alone, which is not followed",
        "..": "no sweep below",
        "": "no sweep below",
    }.items():
        code, out, error = run(command, name, *words)
        assert (code, out, error.count("\n")) == (2, "", 1), name
        assert line in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "link", "notes"]


def test_delete_says_what_goes_and_removes_just_that(tmp_path: Path, run) -> None:
    gone, other = sweep_of(tmp_path, "gone", 1, 2, engines="ab"), sweep_of(tmp_path, "other", 2, engines="b")
    put(tmp_path / "cache", "a", "b", "c")
    put(tmp_path / "cache", "onnxa", kind="onnx")
    put(tmp_path / "cache", "a", kind="models")
    (gone.root / "plans").mkdir()
    (gone.root / "plans" / "x.plan").hardlink_to(tmp_path / "cache" / "engines" / "a" / "file")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    code, out, _ = run("delete", "gone", "--dry-run", "--json")
    assert code == 0
    said = json.loads(out)
    assert {(item["kind"], item["key"]) for item in said["cache"]} == {("engines", "a"), ("onnx", "onnxa")}
    engine = tmp_path / "cache" / "engines" / "a"
    records = [path.stat().st_size for path in gone.root.glob("records/*.json")]
    manifests = [
        path.stat().st_size for path in (tmp_path / "cache").glob("*/*a/entry.json") if "models" not in str(path)
    ]
    locks = [(tmp_path / "cache" / place).stat().st_size for place in ("engines/a.lock", "onnx/onnxa.lock")]
    freed = sum(records) + 2 * SIZE + sum(manifests) + sum(locks)
    assert said["freed_bytes"] == freed, "the plan has two names, and is freed once"
    assert {part["name"] for part in said["sweeps"]["gone"]["parts"]} == {"records", "plans", ".lock"}
    code, out, _ = run("delete", "gone", "--dry-run")
    assert f"would free {said['freed_bytes']:,} bytes on disk\n" in out
    assert {path for path in before if not path.exists()} == set()
    assert engine.exists()
    code, _, error = run("delete", "gone")
    assert (code, error) == (
        2,
        "sweep delete: nothing is deleted: --yes deletes without a question, --dry-run prints what would go\n",
    )
    code, out, _ = run("delete", "gone", "--yes")
    assert code == 0
    assert "deleted  gone: " in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "other"]
    assert there(tmp_path / "cache") == {"b", "c"}
    assert there(tmp_path / "cache", "onnx") == set()
    assert there(tmp_path / "cache", "models") == {"a"}
    assert other.record_keys() != []


def test_an_entry_in_use_a_cache_behind_a_link_and_keep_cache_leave_the_cache(tmp_path: Path, run) -> None:
    sweep_of(tmp_path, "s", 1, engines="a")
    put(tmp_path / "cache", "a")
    assert json.loads(run("delete", "s", "--keep-cache", "--dry-run", "--json")[1])["cache"] == []
    (tmp_path / "cache").rename(tmp_path / "disk")
    (tmp_path / "cache").symlink_to("disk")
    assert "the cache stays: it is a link to disk" in run("delete", "s", "--dry-run")[1]
    (tmp_path / "cache").unlink()
    (tmp_path / "disk").rename(tmp_path / "cache")
    with Cache(tmp_path / "cache") as cache:
        assert cache.find("engines", "a") is not None
        code, _, error = run("delete", "s", "--yes")
    assert code == 1
    assert "sweep delete: engines a stays: in use by process " in error
    assert there(tmp_path / "cache") == {"a"}
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("command", [("rename", "s", "t"), ("delete", "s", "--yes"), ("delete", "s", "--dry-run")])
def test_a_sweep_in_use_of_another_host_or_with_links_is_left_alone(tmp_path: Path, run, command) -> None:
    store = sweep_of(tmp_path, "s", 1)
    settings = Settings(name="s", results=tmp_path)

    def refused() -> str:
        code, out, error = run(*command)
        assert (code, out, error.count("\n")) == (2, "", 1)
        assert store.record_keys() != []
        return error

    def die() -> None:
        with folder_lock(settings, lambda _: None):
            os._exit(0)

    with folder_lock(settings, lambda _: None):
        assert f"is in use by process {os.getpid()} on " in refused()
    assert run_on("other-host", die) == 0
    assert f" on other-host since " in (error := refused())  # noqa: F541 - reads as the others do
    assert f"remove {store.root / '.lock'}" in error
    (store.root / ".lock").unlink()
    (store.root / "samples").symlink_to("/")
    assert "samples is a link to /, which is not followed" in refused()
    (store.root / "samples").unlink()
    with exclusive(store.root):
        pass


def test_a_delete_that_was_killed_leaves_no_sweep_and_the_next_clears_up(tmp_path: Path, run, monkeypatch) -> None:
    sweep_of(tmp_path, "s", 1)
    sweep_of(tmp_path, "t", 1)
    process = os.fork()
    if process == 0:
        monkeypatch.setattr(sweep_files.shutil, "rmtree", lambda *_: os._exit(0))
        sweep_files.remove(tmp_path / "s")
    os.waitpid(process, 0)
    assert list(find_sweeps(tmp_path)) == ["t"]
    assert len(list(tmp_path.iterdir())) == 2
    assert run("delete", "t", "--yes")[0] == 0
    assert list(tmp_path.glob(".*")) == []


def test_a_rename_reaches_folder_records_and_request_and_continues_where_it_was_killed(tmp_path: Path, run) -> None:
    store = sweep_of(tmp_path, "old", 1, 2)
    sweep_of(tmp_path, "taken", 1)
    request = {"name": "old", "command": ["batch=1", "name=old"], "overrides": ["batch=1"], "first": {"name": None}}
    (store.root / "config.json").write_text(json.dumps(request))
    (store.root / "index.json").write_text("{}")
    (store.root / "records" / "damaged.json").write_text("{")
    for new, line in {"taken": "is there already", "a/b": "letters, digits", "cache": "none of cache"}.items():
        code, _, error = run("rename", "old", new)
        assert (code, error.count("\n")) == (2, 1)
        assert line in error
    before = list(store.readable())
    half = sweep_files.renamed_records(store.root, "new")
    sweep_files.write_name(store.root, "new", dict(list(half.items())[:1]))  # killed here
    assert run("rename", "old", "new") == (0, "renamed  old to new: 2 records\n", "")
    after = Store(tmp_path / "new")
    assert [dataclasses.replace(record, sweep="old") for record in after.readable()] == before
    assert {record.sweep for record in after.readable()} == {"new"}
    assert json.loads((after.root / "config.json").read_text()) == {
        "name": "new",
        "command": ["batch=1", "name=new"],
        "overrides": ["batch=1", "name=new"],
        "first": {"name": "new"},
    }
    assert sorted(path.name for path in after.root.iterdir()) == [".lock", "config.json", "records"]
    assert not store.root.exists()


def test_runs_in_mlflow_are_listed_renamed_in_place_and_deleted(tmp_path: Path, run, empty_db: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_db)
    old, other = sweep_of(tmp_path, "old", 1, 2), sweep_of(tmp_path, "other", 1)
    publish(tmp_path, old, other)
    winner = taken_engine.winner(tmp_path / "taken", next(iter(old.readable())))
    register(uri(tmp_path), "drivers", "old", "digits", winner)
    runs = run_names(tmp_path)
    assert {row["name"]: row["published"] for row in json.loads(run("list", "--json")[1])} == {
        "old": ["drivers"],
        "other": ["drivers"],
    }
    code, out, _ = run("rename", "old", "new")
    assert code == 0
    assert "experiment drivers: 2 runs have the new name" in out
    renamed = run_names(tmp_path)
    assert renamed.keys() == runs.keys()
    assert sorted(set(renamed.values()) - set(runs.values())) == ["new"]
    records: list[Record] = list(load("mlflow:drivers/new", results=tmp_path).records)
    assert sorted(record.key for record in records) == Store(tmp_path / "new").record_keys()
    assert {record.sweep for record in records} == {"new"}
    client = mlflow_store.client(uri(tmp_path))
    views = [tag for tag in client.get_experiment_by_name("drivers").tags if "sharedViewState" in tag]
    assert sorted(tag.rpartition(".")[2].partition("-")[0] for tag in views) == ["new", "other"]

    said = json.loads(run("delete", "new", "--dry-run", "--json")[1])
    assert said["sweeps"]["new"]["mlflow_runs"] == 3
    assert said["sweeps"]["new"]["mlflow_versions_that_stay"] == ["digits version 1"]
    assert client.get_model_version("digits", "1").tags["sweep.name"] == "new"
    assert run_names(tmp_path) == renamed
    code, out, _ = run("delete", "new", "--yes")
    assert code == 0
    assert "     stays  digits version 1 in MLflow's registry: it has its own copy of the engine\n" in out
    assert str(client.get_model_version_by_alias("digits", "champion").version) == "1"
    assert "the runs are marked as deleted; `mlflow gc` gives their space back" in out
    assert len(run_names(tmp_path)) == 2
    assert list(find_sweeps(tmp_path)) == ["other"]


def test_runs_of_a_shared_store_that_hold_other_records_stay(tmp_path: Path, run, empty_db: bytes) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mlflow.db").write_bytes(empty_db)
    mine, theirs = sweep_of(tmp_path, "s", 1), sweep_of(tmp_path / "theirs", "s", 1, 2)
    publish(tmp_path / "elsewhere", theirs)
    store = uri(tmp_path / "elsewhere")
    assert mine.record_keys()[0] in theirs.record_keys()
    (key,) = mine.record_keys()
    mine.write(dataclasses.replace(mine.read(key), wall_s=2.0))  # measured again, and not published
    code, out, _ = run("delete", "s", "--yes", "--uri", store)
    assert code == 0
    assert "3  runs of that name stay in MLflow: they hold other records than this folder" in out
    assert len(run_names(tmp_path / "elsewhere")) == 3


@pytest.mark.parametrize("command", [("rename", "s", "t"), ("delete", "s", "--yes")])
def test_a_store_that_cannot_be_reached_stops_the_command_unless_it_is_left_out(tmp_path: Path, run, command) -> None:
    sweep_of(tmp_path, "s", 1)
    dead = ("--uri", "http://127.0.0.1:1")
    code, _, error = run(*command, *dead)
    assert code == 1
    assert "MLflow at http://127.0.0.1:1: Connection refused); --keep-mlflow leaves it out\n" in error
    assert error.count("\n") == 1
    assert list(find_sweeps(tmp_path)) == ["s"]
    assert run("list", "--uri", dead[1])[2].startswith("sweep list: what is published is not known: MLflow at ")
    assert run(*command, *dead, "--keep-mlflow")[0] == 0
    assert "s" not in find_sweeps(tmp_path)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("n\n", 2), ("\n", 2), ("", 2)])
def test_a_terminal_is_asked(tmp_path: Path, run, monkeypatch, answer: str, code: int) -> None:
    sweep_of(tmp_path, "s", 1)

    class Keyboard:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr("sys.stdin", Keyboard())
    ended, out, _ = run("delete", "s")
    assert ended == code
    assert "Delete this sweep? [y/N] " in out
    assert (tmp_path / "s").exists() == (code == 2)
