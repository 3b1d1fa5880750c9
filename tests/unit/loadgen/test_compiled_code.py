"""Machine code on disk: what is read is whole, and the user's own."""

import os

import pytest

from sweep.loadgen import compiled_code, compiled_loop

NAME, CODE = "cfunc.loop", b"\x7fELF\nmachine\n\ncode"


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "loops" / "closed_loop-digest"
    path.parent.mkdir(mode=0o700)
    compiled_code._write(path, NAME, CODE)
    return path


def test_what_was_written_is_read(stored) -> None:
    assert compiled_code._read(stored) == (NAME, CODE)
    assert stored.parent.stat().st_mode & 0o077 == 0
    assert stored.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "fault", ["no file", "cut off", "changed", "empty", "a link", "others write it", "others' folder"]
)
def test_code_that_may_not_be_the_users_own_is_not_read(stored, fault) -> None:
    content = stored.read_bytes()
    match fault:
        case "no file":
            stored.unlink()
        case "cut off":
            stored.write_bytes(content[:-1])
        case "changed":
            stored.write_bytes(content[:-1] + b"!")
        case "empty":
            stored.write_bytes(b"")
        case "a link":
            stored.rename(stored.with_name("elsewhere"))
            stored.symlink_to("elsewhere")
        case "others write it":
            stored.chmod(0o666)
        case "others' folder":
            stored.parent.chmod(0o777)
    assert compiled_code._read(stored) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path) -> None:
    (tmp_path / "loops").write_text("a file")
    compiled_code._write(tmp_path / "loops" / "closed_loop-digest", NAME, CODE)
    assert compiled_code._read(tmp_path / "loops" / "closed_loop-digest") is None


def test_the_folder_is_in_the_users_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiled_code.folder() == tmp_path / "sweep" / "loops"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiled_code.folder() == tmp_path / ".cache" / "sweep" / "loops"
    assert compiled_code.folder().stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("no folder can be below it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(compiled_code.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    assert compiled_code.folder() == tmp_path / "tmp" / f"cache-{os.geteuid()}" / "sweep" / "loops"


def test_what_is_loaded_a_second_time_was_not_compiled() -> None:
    compiled_loop.load()
    code = compiled_code._load.__wrapped__(compiled_code.folder())
    assert code.compiled_s is None
    assert set(code.loops) == set(compiled_code.LOOPS)
    assert os.access(compiled_code.folder(), os.W_OK)
