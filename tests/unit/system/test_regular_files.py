"""One door for all files: what is no regular file is refused unread, and no module opens a file by another way."""

from __future__ import annotations

import ast
import os
import socket
from pathlib import Path

import pytest

from sweep.system import regular_files

ROOT = Path(__file__).resolve().parents[3] / "sweep"
DOOR = ROOT / "system" / "regular_files.py"
METHODS = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}  # of a path
LOADERS = {  # functions that open what they are given the name of
    *("np.load", "np.fromfile", "np.memmap", "np.loadtxt", "np.genfromtxt", "onnx.load", "Image.open"),
    *(
        "zipfile.ZipFile",
        "zipfile.is_zipfile",
        "shutil.copyfile",
        "shutil.copy",
        "shutil.copytree",
        "os.open",
        "io.open",
        "gzip.open",
    ),
}
ALREADY_OPEN = {"regular_files", "packed", "self._packed"}  # the door, and zip archives, whose members are read
KERNEL, CHECKED = "a file of the kernel", "refused by models.onnx_file before"
NEW = "in a folder that this process has just made for itself"
STANDALONE = "leaves with the engine, where there is no sweep to import"
EXCEPTIONS = {  # (module, function called, its first argument): why it may open by itself
    ("system/device_lock.py", "os.open", "path"): "refuses links and what is no plain file, and has modes of its own",
    ("system/device_lock.py", "read_text", "Path('/proc/locks')"): KERNEL,
    ("system/devices.py", "read_text", "Path(_SIBLINGS.format(core))"): KERNEL,
    ("system/environment.py", "read_text", "Path('/proc/cpuinfo')"): KERNEL,
    ("system/mps/control.py", "read_text", "entry / 'comm'"): KERNEL,
    ("system/mps/control.py", "read_bytes", "entry / 'environ'"): KERNEL,
    ("system/mps/control.py", "read_bytes", "Path('/proc') / str(pid) / name"): KERNEL,
    ("models/normal_form.py", "onnx.load", "path"): CHECKED,
    ("models/normal_form.py", "shutil.copyfile", "path.parent / item.location"): CHECKED,
    ("models/cost_model.py", "onnx.load", "path"): CHECKED,
    ("models/importers/opset_upgrade.py", "onnx.load", "path"): CHECKED,
    ("models/importers/ir_version.py", "onnx.load", "path"): CHECKED,
    ("precision/onnx_graph.py", "onnx.load", "path"): CHECKED,
    ("backends/onnxruntime/backend.py", "onnx.load", "source"): CHECKED,
    ("runner/worker/refused_inputs.py", "onnx.load", "path"): CHECKED,
    ("backends/onnxruntime/graph_inspection.py", "onnx.load", "path"): "onnxruntime has just written it",
    ("cli/take/bundle.py", "write_bytes", "folder / 'record.json'"): NEW,
    ("cli/take/bundle.py", "write_text", "folder / 'README.md'"): NEW,
    ("cli/take/bundle.py", "write_text", "folder / 'SHA256SUMS'"): NEW,
    ("cli/take/bundle.py", "write_text", "folder / 'manifest.json'"): NEW,
    ("cli/take/bundle.py", "write_text", "path"): NEW,
    ("cli/take/bundle.py", "write_bytes", "folder / target"): NEW,
    ("cli/take/bundle.py", "np.load", "folder / 'outputs.npz'"): NEW,
    ("cli/take/bundle.py", "open", "path"): NEW,
    ("cli/take/bundle.py", "open", "target"): NEW,
    ("cli/take/bundle.py", "read_bytes", "files / source"): "a loader of this package",
    ("cli/take/loaders/infer.py", "np.load", "file"): STANDALONE,
    ("cli/take/loaders/infer.py", "read_text", "FOLDER / 'manifest.json'"): STANDALONE,
    ("cli/take/loaders/infer.py", "np.load", "stored"): STANDALONE,
    ("cli/take/loaders/infer.py", "open", "FOLDER / name"): STANDALONE,
    ("cli/take/loaders/onnxruntime_engine.py", "read_text", "Path('/proc/cpuinfo')"): STANDALONE,
    ("cli/take/loaders/tensorrt_engine.py", "read_text", "Path('/proc/driver/nvidia/version')"): STANDALONE,
    (
        "cli/take/loaders/tensorrt_engine.py",
        "read_text",
        "Path(__file__).resolve().parent / 'manifest.json'",
    ): STANDALONE,
    ("cli/take/loaders/tensorrt_engine.py", "read_bytes", "folder / manifest['engine']['file']"): STANDALONE,
    ("report/mlflow/engine_model.py", "read_text", "folder / 'manifest.json'"): STANDALONE,
    ("report/mlflow/registry.py", "read_text", "winner.folder / _MANIFEST"): NEW,
    ("report/mlflow/registry.py", "np.load", "file"): NEW,
    ("runner/worker/layer_profile.py", "onnx.load", "path"): CHECKED,
    ("backends/onnxruntime/layer_profile.py", "read_bytes", "Path(session.end_profiling())"): (
        "onnxruntime has just written it"
    ),
    ("system/host_memory.py", "write_text", "_CLEAR"): KERNEL,
    ("system/host_memory.py", "read_text", "_STATUS"): KERNEL,
}


def doors(tree: ast.Module) -> list[tuple[str, str]]:
    """Find every call that opens a file by its name: the function and its first argument, or the path it is called on.

    A loader that is given a file which the door opened (``with regular_files... as NAME``) opens nothing.
    """
    opened = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name) and "regular_files." in ast.unparse(item.context_expr)
    }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, first = ast.unparse(node.func), ast.unparse(node.args[0]) if node.args else ""
        if name == "open" or (name in LOADERS and first not in opened):
            found.append((name, first))
        elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS and name not in LOADERS:
            on = ast.unparse(node.func.value)
            if on not in ALREADY_OPEN:
                found.append((node.func.attr, on))
    return found


def test_every_file_that_sweep_opens_goes_through_the_one_door() -> None:
    """An exception that is no longer needed fails as well."""
    found = {
        (path.relative_to(ROOT).as_posix(), *door)
        for path in sorted(ROOT.rglob("*.py"))
        if path != DOOR
        for door in doors(ast.parse(path.read_text()))
    }
    assert found - EXCEPTIONS.keys() == set(), "opens a file by itself: use sweep.system.regular_files"
    assert EXCEPTIONS.keys() - found == set()


@pytest.mark.parametrize(
    "line",
    [
        "open(p)",
        "p.open()",
        "Path(p).read_text()",
        "(a / b).write_bytes(b'')",
        "np.load(p)",
        "onnx.load(p, load_external_data=False)",
        "os.open(p, 0)",
        "shutil.copyfile(p, q)",
        "with zipfile.ZipFile(p) as file: np.load(file)",
    ],
)
def test_the_list_sees_each_way_to_open_a_file(line: str) -> None:
    assert doors(ast.parse(line))
    assert not doors(ast.parse("with regular_files.open_input(p, follow=True) as f, np.load(f) as g: pass"))


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Path]:
    """Give what is no regular file, by its kind."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(tmp_path / "socket"))
    (tmp_path / "endless").symlink_to("/dev/zero")
    return {name: tmp_path / name for name in ("pipe", "folder", "socket", "endless")} | {"device": Path("/dev/zero")}


@pytest.mark.fault
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "endless", "device"])
def test_what_is_no_regular_file_is_refused_unread(kind: str, odd: dict[str, Path]) -> None:
    for use in (
        lambda path: regular_files.read_bytes(path, follow=True),
        lambda path: regular_files.read_text(path, follow=True),
        lambda path: regular_files.open_input(path, follow=False),
        regular_files.open_output,
        regular_files.open_update,
        regular_files.open_lock,
    ):
        with pytest.raises(
            OSError, match=r"is a (pipe|socket|device|link)|[Nn]o such device|[Ii]s a directory"
        ) as caught:
            use(odd[kind])
        assert str(odd[kind]) in str(caught.value)


@pytest.mark.fault
def test_a_link_is_followed_only_for_reading_where_its_user_named_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(mine)
    assert regular_files.read_text(link, follow=True) == "precious"
    for use in (
        lambda: regular_files.read_bytes(link, follow=False),
        lambda: regular_files.open_output(link),
        lambda: regular_files.open_output(link, append=True),
        lambda: regular_files.open_update(link),
        lambda: regular_files.open_lock(link),
    ):
        with pytest.raises(OSError, match="is a link, which is not followed here"):
            use()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="is a link"):
        regular_files.open_output(tmp_path / "dangling")
    assert mine.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_bound_is_kept_and_content_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with regular_files.open_output(path) as file:
        file.write(b"one\r\ntwo\r")
    assert regular_files.read_text(path, follow=False, most=9) == "one\ntwo\n"
    with pytest.raises(OSError, match="is longer than 8 bytes"):
        regular_files.read_bytes(path, follow=False, most=8)
    with regular_files.open_output(path, append=True) as file:
        file.write(b"!")
        file.seek(0)
        assert file.read() == b"one\r\ntwo\r!"
    assert int(regular_files.read_text(Path("/proc/self/stat"), follow=True).split()[0]) == os.getpid()
    with path.open("wb") as sparse:
        sparse.truncate(regular_files.MOST_BYTES + 1)
    with pytest.raises(OSError, match="is longer than 4294967296 bytes"):
        regular_files.read_bytes(path, follow=False)
    with regular_files.open_input(path, follow=False) as file, pytest.raises(ValueError, match="4294967297 bytes long"):
        regular_files.check_size(file)
