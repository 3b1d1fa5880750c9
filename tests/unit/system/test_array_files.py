"""Arrays from anywhere: a file that is cut off, damaged or lies about its sizes is one line, and takes no memory."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sweep.system import array_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.fault

VALUES = np.arange(64, dtype=np.float32).reshape(16, 4)


def header(shape: object, descr: str = "<f4") -> bytes:
    """The start of an .npy of any shape, of which no values follow."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


def npz(member: bytes, name: str = "x.npy", method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        packed.writestr(name, member)
    return buffer.getvalue()


def damaged(content: bytes, mark: bytes, at: int, by: bytes) -> bytes:
    start = content.find(mark) + at
    return content[:start] + by + content[start + len(by) :]


WHOLE = npz(npy(VALUES))
DEFLATED = npz(npy(np.tile(VALUES, (50, 1))), method=zipfile.ZIP_DEFLATED)
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is no .npz or .npy, or was cut off"),
    "half": (WHOLE[: len(WHOLE) // 2], "it is no .npz or .npy, or was cut off"),
    "html": (b"<html>" * 40, "it is no .npz or .npy, or was cut off"),
    "pickle": (pickle.dumps([1, 2]), "it is no .npz or .npy, or was cut off"),
    "half an array": (npy(VALUES)[:150], "it was cut off: 22 bytes of values where 256 are declared"),
    "10^18 elements": (header((10**9, 10**9)), "it was cut off: 0 bytes of values where 4000000000000000000"),
    "10^18 in an .npz": (npz(header((10**18,))), "x was cut off: 0 bytes of values"),
    "10^18 of no size": (npz(header((10**18,), "|V0")), "x is .* which holds no values"),
    "negative": (header((-5, 4)), "it is float32 of shape .* which holds no values"),
    "400 digits": (header((10**400, 4)), "it was cut off"),
    "no numbers": (header("(1.5, 4)"), "shape is not valid"),
    "a call as shape": (header("(print(1),)"), "malformed node|Cannot parse header"),
    "deep header": (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000, r"\w"),
    "objects": (npz(npy(np.array([None, 1], object))), "x holds Python objects, not numbers"),
    "objects in an .npy": (npy(np.array([{}], object)), "it holds Python objects, not numbers"),
    "no array": (npz(b"hello", "x"), "'x' in it is no array"),
    "no array in it": (npz(b"hello"), "x: "),
    "checksum": (damaged(WHOLE, b"NUMPY", 140, b"\xff"), "x: Bad CRC-32"),
    "deflate": (damaged(DEFLATED, b"x.npy", 8, b"\xff" * 9), "x: "),
    "lzma": (damaged(npz(npy(VALUES), method=zipfile.ZIP_LZMA), b"x.npy", 12, b"\xff" * 9), "x: "),
    "bz2": (damaged(npz(npy(VALUES), method=zipfile.ZIP_BZIP2), b"BZh9", 3, b"\x00"), "x: "),
    "encrypted": (
        damaged(damaged(WHOLE, b"PK\x03\x04", 6, b"\x01"), b"PK\x01\x02", 8, b"\x01"),
        "x: .*password required",
    ),
    "unknown packing": (
        damaged(damaged(WHOLE, b"PK\x03\x04", 8, b"\x61"), b"PK\x01\x02", 10, b"\x61"),
        "x: .*not supported",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_one_line(kind: str, tmp_path: Path) -> None:
    content, line = FILES[kind]
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=line) as caught:
        array_files.read_arrays(path, follow=False)
    assert str(caught.value).isprintable()
    assert 0 < len(str(caught.value)) < 400


def test_a_bomb_is_refused_by_what_it_unpacks_to(tmp_path: Path) -> None:
    """5 GiB of zeros in 5 MB would take a minute to pack: the directory of the archive says 5 GiB here."""
    content = DEFLATED
    at = content.find(b"PK\x01\x02")
    (tmp_path / "x.npz").write_bytes(content[: at + 24] + struct.pack("<I", 0xFFFFFFF0) + content[at + 28 :])
    with (
        pytest.raises(ValueError, match="it unpacks to 4294967280 bytes, of at most 1048576"),
        array_files.open_arrays(tmp_path / "x.npz", follow=False, most=1 << 20),
    ):
        pass
    assert array_files.read_arrays(tmp_path / "x.npz", follow=False)["x"].shape == (
        800,
        4,
    )  # no more is unpacked than is there


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_sound_files_are_read_by_name(save: Callable[..., None], tmp_path: Path) -> None:
    arrays = {"a": VALUES, "b/c": np.asfortranarray(VALUES), "empty": VALUES[:0], "one": np.array(3)}
    save(tmp_path / "x.npz", **arrays)
    read = array_files.read_arrays(tmp_path / "x.npz", follow=False)
    assert {name: values.tolist() for name, values in read.items()} == {
        name: values.tolist() for name, values in arrays.items()
    }
    np.save(tmp_path / "x.npy", VALUES)
    with array_files.open_arrays(tmp_path / "x.npy", follow=False) as file:
        assert file.names == ("",)
        assert "x" not in file
        assert (file.header("").shape, file.header("").nbytes) == ((16, 4), 256)
        assert (file[""] == VALUES).all()
        with pytest.raises(KeyError):
            file["x"]
