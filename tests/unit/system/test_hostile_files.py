"""Files from anywhere: cache entries of others, records and samples that are bombs, names that would act."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import pickle
import stat
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import records
from cache_entries import content, fill, put
from rich.progress import Progress
from rich.table import Table

from sweep.backends.simulated import _slowness
from sweep.backends.tensorrt import runtime_cache
from sweep.cli import cache as cli_cache
from sweep.cli.console import Terminal
from sweep.config.variants import engine as engine_variants
from sweep.errors import ConfigError, RecordError, SessionError, SweepError, TrackingError, printable
from sweep.loadgen import arrival_trace
from sweep.models import file_digest, signature
from sweep.models.datasets import calibration, images, labelled_files
from sweep.report import html
from sweep.report.mlflow import artifacts, publisher
from sweep.report.mlflow.artifacts import Artifacts
from sweep.report.mlflow.publisher import _files_inside
from sweep.runner.worker_process import Worker
from sweep.spec import CalibrationData, LabelledData, ModelRef
from sweep.spec.settings import Settings
from sweep.storage import record_file, record_index, samples_file
from sweep.storage.cache import MANIFEST, Cache, inventory, location
from sweep.storage.cache import store as cache_store
from sweep.storage.record import Record
from sweep.storage.store import Store
from sweep.storage.sweep_folder import FOLDERS, folder_lock
from sweep.system import file_trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

pytestmark = pytest.mark.fault

OTHER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
EVIL = '\x1b]0;owned\x07\x1b[2J\x9b31m<img src=x onerror="alert(1)"></script><b>'


def a_record(key="abc", **changes):
    made = Record(key=key, sweep="s", status="ok", started_at="2026-01-01T00:00:00.000+00:00", variant={"label": "x"})
    return dataclasses.replace(made, **changes)


def rebuilt(root: Path) -> str | None:
    """Takes entry ``a``; why it was built again, or None."""
    calls: list[str] = []
    with Cache(root) as cache:
        entry = cache.get("engines", "a", fill("a", calls))
        assert (entry.path / "file").read_bytes() == content("a")
    assert bool(calls) == (entry.note is not None)
    return entry.note


def doors(place: Path) -> dict[str, Callable[[], object]]:
    """Read what stands at `place` through every door of a user's files and of a results folder, by its name."""
    network = signature(ModelRef(name="digits"))
    data = {"path": str(place), "digest": "0"}
    return {
        "trace": lambda: arrival_trace.read(str(place)),
        "plugin": lambda: engine_variants._plugin(str(place)),
        "calibration": lambda: calibration.parse(str(place)),
        "tokens": lambda: calibration.parse(f"tokens:{place}"),
        "arrays": lambda: calibration.check(CalibrationData(kind="npz", **data), network, 1),
        "labels": lambda: labelled_files.content(LabelledData(kind="npz", output="y", **data)),
        "picture": lambda: images.look_at(place),
        "model": lambda: file_digest(place),
        "machine": lambda: _slowness(str(place)),
        "record": lambda: record_file.read(place),
        "samples": lambda: samples_file.load(place),
        "cache file": lambda: cache_store._sha256(place),
    }


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "endless", "device"])
def test_no_door_waits_for_a_pipe_or_reads_an_endless_file(tmp_path, kind: str) -> None:
    place = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "endless":
        place.symlink_to("/dev/zero")
    for name, read in doors(place).items():
        with pytest.raises((SweepError, OSError, ValueError)) as caught:
            read()
        assert "\n" not in str(caught.value), name


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_a_pipe_in_a_results_folder_is_as_good_as_nothing_there(tmp_path, kind: str) -> None:
    """The index, the limit of the cache, a manifest, the attachments of a sweep: all can be made again."""

    def put_odd(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")

    put_odd(tmp_path / "index.json")
    assert record_index._load(tmp_path / "index.json") == ([], {})
    put_odd(tmp_path / "cache" / ".limit")
    assert inventory.read_limit(tmp_path / "cache") is None
    inventory.write_limit(tmp_path / "cache", 5)
    assert inventory.read_limit(tmp_path / "cache") == 5
    for name in publisher.FILES:
        put_odd(tmp_path / name)
    assert publisher.Publisher("http://x", "e", "s")._attachments(tmp_path) == {}
    put(tmp_path, "a")
    put_odd(tmp_path / "engines" / "a" / MANIFEST)
    assert inventory._about(tmp_path / "engines" / "a" / MANIFEST) == {}
    assert rebuilt(tmp_path)


def test_what_links_point_to_is_neither_overwritten_nor_published(tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("TOPSECRET")
    results, elsewhere = tmp_path / "results", tmp_path / "elsewhere"
    root = results / "s"
    (root / "logs").mkdir(parents=True)
    elsewhere.mkdir()
    settings = Settings(name="s", results=results)
    for name in publisher.FILES:
        (root / name).symlink_to(secret)
    assert publisher.Publisher("http://x", "e", "s")._attachments(root) == {}
    attached: list[tuple[object, ...]] = []
    upload = Artifacts(SimpleNamespace(), "sqlite:///x")  # type: ignore[arg-type]
    upload.attach = lambda *words: attached.append(words)  # type: ignore[method-assign]
    upload.attach_file("run", root / publisher.FILES[0], "engine")
    assert attached == []
    (results / "cache").mkdir()
    (results / "cache" / ".limit").symlink_to(secret)
    inventory.write_limit(results / "cache", 7)
    (root / "logs" / "k.log").symlink_to(secret)
    Worker(root / "logs" / "k.log").close()
    assert not (root / "logs" / "k.log").is_symlink()
    (root / ".lock").symlink_to(secret)
    with pytest.raises(ConfigError, match=r"cannot be written \(is a link"), folder_lock(settings, print):
        pass
    (root / ".lock").unlink()
    for link in (*(root / name for name in FOLDERS), results / "cache" / "engines"):
        kept = link.rename(tmp_path / "kept") if link.exists() else None
        link.symlink_to(elsewhere)
        with (
            pytest.raises(ConfigError, match=rf"{link} is a link to {elsewhere}, and a sweep writes"),
            folder_lock(settings, print),
        ):
            pass
        link.unlink()
        if kept:
            kept.rename(link)
    with folder_lock(settings, print):
        pass
    for name in ("config.json", "report.html"):
        (root / name).unlink()
        (root / name).mkdir()
        with (
            pytest.raises(ConfigError, match=rf"{name} is a folder, and a sweep writes .* there: remove"),
            folder_lock(settings, print),
        ):
            pass
        (root / name).rmdir()
    assert secret.read_text() == "TOPSECRET"
    assert not list(elsewhere.iterdir())


def test_a_cache_may_be_a_link_to_a_cache_of_ones_own_or_to_an_empty_folder(tmp_path) -> None:
    """Anything else that a link of an unpacked archive leads to would be taken for entries, and evicted."""
    results, disk, home = tmp_path / "results", tmp_path / "disk", tmp_path / "home"
    for folder in (results, disk, home / "models" / "precious"):
        folder.mkdir(parents=True)
    settings, cache = Settings(name="s", results=results), results / "cache"
    cache.symlink_to(disk)
    calls: list[str] = []
    for _ in range(2):  # empty, then marked
        with folder_lock(settings, print), Cache(cache) as linked:
            linked.get("engines", "a", fill("a", calls))
    assert calls == ["a"]
    assert (disk / location.MARKER).is_file()
    assert (disk / "engines" / "a" / "file").read_bytes() == content("a")
    disk.chmod(0o777)
    refusals = [(disk, "which can be written by other users"), (home, "which holds other files and no .sweep-cache")]
    refusals += [(tmp_path / "gone", r"which cannot be looked at \(No such file"), (cache, "which cannot be looked at")]
    refusals += [(tmp_path / "file", "which is no folder")]
    (tmp_path / "file").touch()
    for target, reason in refusals:
        cache.unlink()
        cache.symlink_to(target)
        for use in (lambda: Cache(cache), lambda: folder_lock(settings, print).__enter__()):
            with pytest.raises(ConfigError, match=f"cache is a link to {target}, {reason}.*: give it an empty folder"):
                use()
    run = cli_cache.run(
        argparse.Namespace(
            words=["prune", str(results)], all=True, to_gib=None, older_than_days=None, kind=[], results=None
        )
    )
    assert run == 0
    assert (home / "models" / "precious").is_dir()
    cache.unlink()
    with folder_lock(settings, print):  # a folder of its own is marked too: it may be moved, and linked to
        assert (cache / location.MARKER).is_file()
        (settings.root / "parts").mkdir()
    assert not (settings.root / "parts").exists()  # empty: it was left behind by every sweep


@pytest.mark.parametrize("text", ["nan", "-1", "0", "inf", "1e300", "x", "", "1 2", "9" * 80])
def test_a_simulated_machine_has_a_factor_above_zero(tmp_path, text: str) -> None:
    (tmp_path / "machine").write_text(text)
    with pytest.raises(SessionError, match=r"machine: (no factor can be read|.* is no factor above 0)") as caught:
        _slowness(str(tmp_path / "machine"))
    assert "\n" not in str(caught.value)
    (tmp_path / "machine").write_text(" 1.5\n")
    assert _slowness(str(tmp_path / "machine")) == 1.5


@pytest.mark.parametrize("about", [5, [], {"knobs": 5}, {"knobs": [1]}, {"model": [1], "batch": {}, "library": 2.5}])
def test_an_odd_description_in_the_cache_is_listed(tmp_path, about: object) -> None:
    put(tmp_path, "a")
    manifest = tmp_path / "engines" / "a" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"about": about}))
    assert [item.key for item in inventory.items(tmp_path) if item.description.isprintable()] == ["a"]


def test_a_dangling_link_as_cache_entry_is_built_again(tmp_path) -> None:
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "a").symlink_to(tmp_path / "nowhere")
    assert "is a link and is not trusted: built again" in (rebuilt(tmp_path) or "")
    assert rebuilt(tmp_path) is None


@pytest.mark.parametrize(
    ("location", "taken"),
    [
        ("mlflow-artifacts:/1/2", True),
        ("s3://bucket/x", True),
        ("file:///home/me/.config", False),
        ("FILE:///home/me", False),
        ("file://localhost/home/me", False),
        ("/home/me", False),
        ("relative", False),
        ("file:///srv/artifacts/1", True),
        ("file:///srv/artifacts/../me", False),
        ("file:///srv/artifacts/%2e%2e/me", False),
    ],
)
def test_a_server_has_artifacts_written_to_no_folder_that_its_user_did_not_name(
    location: str, *, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_ARTIFACTS", "/srv/artifacts")
    assert artifacts.is_allowed(location) == taken
    if not taken:
        client = SimpleNamespace(get_run=lambda _: SimpleNamespace(info=SimpleNamespace(artifact_uri=location)))
        with pytest.raises(TrackingError, match=r"the server has artifacts written to .*SWEEP_ARTIFACTS=FOLDER"):
            Artifacts(client, "http://127.0.0.1:1").attach("run", "record.json", b"x")  # type: ignore[arg-type]


def test_our_own_entry_is_taken(tmp_path) -> None:
    put(tmp_path, "a")
    assert rebuilt(tmp_path) is None


@pytest.mark.parametrize("name", [".", "file", MANIFEST])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_an_entry_that_others_may_write_is_built_again(tmp_path, name: str, mode: int) -> None:
    put(tmp_path, "a")
    path = tmp_path / "engines" / "a" / name
    path.chmod(stat.S_IMODE(path.stat().st_mode) | mode)
    assert "can be written by other users and is not trusted: built again" in (rebuilt(tmp_path) or "")
    assert rebuilt(tmp_path) is None


@needs_root
@pytest.mark.parametrize("name", [".", "file", MANIFEST])
def test_an_entry_of_another_user_is_built_again(tmp_path, name: str) -> None:
    put(tmp_path, "a")
    os.chown(tmp_path / "engines" / "a" / name, OTHER, OTHER)
    assert f"belongs to user {OTHER} and is not trusted: built again" in (rebuilt(tmp_path) or "")
    assert rebuilt(tmp_path) is None


def test_a_link_in_an_entry_is_not_followed(tmp_path) -> None:
    put(tmp_path, "a")
    file = tmp_path / "engines" / "a" / "file"
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert "is a link and is not trusted" in (rebuilt(tmp_path) or "")
    assert elsewhere.read_bytes() == content("a")


def test_an_entry_under_another_ones_name_is_built_again(tmp_path) -> None:
    put(tmp_path, "a", "b")
    engines = tmp_path / "engines"
    (engines / "a").rename(engines / "aside")
    (engines / "b").rename(engines / "a")
    assert "was made as b: built again" in (rebuilt(tmp_path) or "")


@pytest.mark.parametrize("mask", [0, 0o002, 0o077])
def test_what_is_made_is_not_for_others_to_write_whatever_the_umask(tmp_path, mask: int) -> None:
    code = "import os, pathlib, sys\nfrom sweep.system import file_trust\nfrom sweep.storage.cache import Cache\n"
    code += "from sweep.system.atomic_files import write_atomic"
    code += f"\nos.umask({mask}); file_trust.restrict(); root = pathlib.Path(sys.argv[1])"
    code += "\nwrite_atomic(root / 'r' / 'x.json', b'x'); (root / 'f').write_text('x'); (root / 'd').mkdir()"
    code += "\nCache(root / 'c').get('engines', 'a', lambda at: (at / 'file').write_text('x') and {})"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    made = list(tmp_path.rglob("*"))
    assert len(made) > 6
    assert [path for path in made if path.stat().st_mode & file_trust.OTHERS] == []


def test_compiled_kernels_that_others_may_write_are_passed_over(tmp_path) -> None:
    file = tmp_path / "k.bin"
    assert runtime_cache.write(file, b"kernels")
    assert runtime_cache.read(file) == b"kernels"
    file.chmod(0o602)
    assert runtime_cache.read(file) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": ' + "9" * 10_000 + "}",
        '{"schema": 0}',
        '{"schema": -1}',
        '{"schema": true, "key": "abc"}',
        "[" * 200_000,
        '{"a":' * 200_000,
        '{"schema": 1, "wall_s": NaN}',
        '{"schema": 1, "wall_s": Infinity}',
        "\x00" * 100,
        "\ufeff{}",
    ],
    ids=range(10),
)
def test_a_record_that_is_a_bomb_is_one_line(tmp_path, text: str) -> None:
    store = Store(tmp_path)
    store.write(a_record())
    store.record_path("abc").write_text(text)
    with pytest.raises(RecordError) as caught:
        store.read("abc")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert list(store.readable()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "../../elsewhere"},
        {"key": 5},
        {"status": "fine"},
        {"status": ["ok"]},
        {"variant": []},
        {"variant": {"label": 5}},
        {"points": {}},
        {"points": [5]},
        {"error": "bad"},
        {"error": {}},
        {"engine": "x"},
        {"telemetry": [1]},
    ],
)
def test_a_record_of_another_shape_is_one_line(tmp_path, changes) -> None:
    store = Store(tmp_path)
    store.write(a_record())
    raw = json.loads(store.record_path("abc").read_text()) | changes
    store.record_path("abc").write_text(json.dumps(raw))
    with pytest.raises(RecordError, match="is damaged"):
        store.read("abc")


def test_a_record_of_a_gigabyte_is_not_read(tmp_path) -> None:
    store = Store(tmp_path)
    store.write(a_record())
    os.truncate(store.record_path("abc"), 1 << 30)
    with pytest.raises(RecordError, match="bytes long"):
        store.read("abc")


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


def header(shape: str, descr: str = "'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("pickled",))


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "member",
    [
        header("(1000000000000,)"),
        header("(4611686018427387904, 4)"),
        header("(2,)") + b"[" + b"]",
        header("(200000,)") + b"[" * 200_000,
        header("(2,)", "'|O'") + b"xx",
        header("()"),
        pickled(),
        b"",
    ],
    ids=range(8),
)
def test_samples_that_are_a_bomb_are_one_line(tmp_path, monkeypatch, member: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    path = npz(tmp_path / "a.npz", points=member)
    if member.endswith(b"[]"):
        assert samples_file.load(path) == []
        return
    for read in (samples_file.load, lambda at: samples_file.was_measured_for(at, "p99<=1")):
        with pytest.raises(RecordError, match="force=true") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "pickled").exists()


def test_samples_that_unpack_to_gigabytes_are_not_unpacked(tmp_path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for number in range(5):
            with file.open(f"{number}.npy", "w", force_zip64=True) as member:
                member.write(b"")
    raw = bytearray(path.read_bytes())
    at = -1
    while (at := raw.find(b"PK\x01\x02", at + 1)) >= 0:  # each entry of the directory now claims 3 GiB
        raw[at + 24 : at + 28] = (3 << 30).to_bytes(4, "little")
    path.write_bytes(bytes(raw))
    with pytest.raises(RecordError, match="unpacks to"):
        samples_file.load(path)


def test_a_pickle_and_a_bare_array_are_no_samples(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.npz"
    for content_ in (pickle.dumps(Bomb()), pickled(), header("(0,)")):
        path.write_bytes(content_)
        with pytest.raises(RecordError, match="force=true"):
            samples_file.load(path)
    assert not (tmp_path / "pickled").exists()


def test_a_records_artifacts_are_those_of_its_own_folder(tmp_path) -> None:
    root = tmp_path / "s"
    (root / "artifacts").mkdir(parents=True)
    (root / "link").symlink_to("/etc")
    names = ["artifacts/x.json", "../up", "/etc/passwd", "artifacts/../../up", "link/passwd", 5]
    assert _files_inside(root, names) == [root / "artifacts/x.json", root / "5"]


def shown(print_it) -> str:
    file = io.StringIO()
    print_it(Terminal(file=file, force_terminal=True, color_system=None, width=500))
    return file.getvalue()


def in_a_table(console: Console) -> None:
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.print(table)


def in_progress(console: Console) -> None:
    with Progress(console=console) as progress:
        progress.add_task(EVIL.replace("[", ""), total=1)


@pytest.mark.parametrize("print_it", [lambda console: console.print(EVIL, markup=False), in_a_table, in_progress])
def test_control_codes_in_names_reach_no_terminal(print_it) -> None:
    text = shown(print_it)
    assert "\x1b]0;" not in text
    assert "\x1b[2J" not in text
    assert "\x9b" not in text
    assert "\x07" not in text
    assert "owned" in text


def test_errors_are_printable() -> None:
    assert str(SweepError("a\x1b[2Jb\u202ec")) == "a\\x1b[2Jb\\u202ec"
    assert printable("a\ud800\udcff") == "a\\ud800\\udcff"  # which no terminal and no file in UTF-8 takes
    assert printable("grün\tund\n日本") == "grün\tund\n日本"


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_name_is_text_in_the_report(tmp_path) -> None:
    point = records.point(1.0, {"p50": 1.0, "p99": 1.0}, reason=EVIL)
    error = {"stage": EVIL, "kind": EVIL, "message": EVIL}
    made = [
        a_record(variant={"label": EVIL, "model": EVIL}, points=[point], facts={EVIL: EVIL}),
        a_record("b", variant={"label": EVIL}, status="failed", error=error),
    ]
    page = html.write(tmp_path / "r.html", EVIL, made, None).read_text()
    tags = Tags()
    tags.feed(page)
    acting = [item for item in tags.found if item[0] in {"img", "b"} or any(name.startswith("on") for name in item[1])]
    assert not acting
    assert page.count("<script") == page.count("</script>")
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)["variants"][0]["label"].startswith(EVIL)
    assert not {"<", ">", "&"} & set(data)
