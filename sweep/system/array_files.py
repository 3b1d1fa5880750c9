"""Read the arrays of .npz and .npy files, each checked by its header before memory is taken for it.

Nothing is unpickled. A file that is cut off, damaged, packed in a way that Python lacks, or whose header states more
than its bytes hold, is refused as ``OSError`` or ``ValueError`` with one line.
"""

from __future__ import annotations

import contextlib
import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DAMAGES = (  # numpy parses a header as Python, and each way to pack has errors of its own
    *(ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError, OverflowError, SyntaxError),
    *(MemoryError, RecursionError, RuntimeError, NotImplementedError, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
_ENDING = ".npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Describe an array without its values.

    Attributes:
        shape: sizes.
        dtype: element type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Return the size of the values, bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class ArrayReader:
    """Read the arrays of one open file by name; the only array of an .npy is called "".

    Raises in every method:
        ValueError: the file is damaged, or the array holds no plain values.
    """

    def __init__(self, file: IO[bytes], packed: zipfile.ZipFile | None) -> None:
        self._file = file
        self._packed = packed
        members = [] if packed is None else packed.namelist()
        self.names: tuple[str, ...] = ("",) if packed is None else tuple(name.removesuffix(_ENDING) for name in members)
        if any(not name.endswith(_ENDING) for name in members):
            raise ValueError(f"{next(name for name in members if not name.endswith(_ENDING))!r:.100} in it is no array")

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """Read one array; raises KeyError if there is none of that name."""
        if name not in self.names:
            raise KeyError(name)
        self.header(name)
        with _refusing(name), self._member(name) as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    def header(self, name: str) -> Header:
        """Read the header of one array, and compare what it states with the bytes that follow."""
        with _refusing(name), self._member(name) as member:
            header = _read_header(member)
            size = self._size(name) - member.tell()
        what = name or "it"
        if header.dtype.hasobject:
            raise ValueError(
                f"{what} holds Python objects, not numbers; save one array of numbers per input, as of "
                "numpy.stack(samples)"
            )
        if not header.dtype.itemsize or any(length < 0 for length in header.shape):
            raise ValueError(f"{what} is {header.dtype} of shape {header.shape!s:.100}, which holds no values")
        if size < header.nbytes:
            raise ValueError(
                f"{what} was cut off: {size} bytes of values where {header.nbytes!s:.40} are declared; save it again"
            )
        return header

    def read_all(self) -> dict[str, np.ndarray[Any, Any]]:
        """Read every array by its name."""
        return {name: self[name] for name in self.names}

    @contextlib.contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        if self._packed is None:
            self._file.seek(0)
            yield self._file
            return
        with self._packed.open(name + _ENDING) as member:
            yield member

    def _size(self, name: str) -> int:
        if self._packed is not None:
            return self._packed.getinfo(name + _ENDING).file_size
        return os.fstat(self._file.fileno()).st_size


@contextlib.contextmanager
def open_arrays(path: Path, *, follow: bool, most: int = regular_files.MOST_BYTES) -> Iterator[ArrayReader]:
    """Open an .npz or .npy, to read its arrays by name.

    Args:
        path: file to open.
        follow: follow a link at `path` (see ``regular_files.open_input``).
        most: most bytes that it may have, packed and unpacked.

    Raises:
        OSError: as ``regular_files.open_input``.
        ValueError: the file is too large, or neither an .npz nor an .npy.
    """
    with regular_files.open_input(path, follow=follow) as file, contextlib.ExitStack() as stack:
        with _refusing(""):
            regular_files.check_size(file, most)
            packed = stack.enter_context(zipfile.ZipFile(file)) if zipfile.is_zipfile(file) else None
            reader = ArrayReader(file, packed)
        if packed is None:
            file.seek(0)
            if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                raise ValueError("it is no .npz or .npy, or was cut off: copy or save it again")
        yield reader


def read_arrays(path: Path, *, follow: bool) -> dict[str, np.ndarray[Any, Any]]:
    """Read every array of a file by its name; the only array of an .npy is called "".

    Raises:
        OSError, ValueError: as ``open_arrays`` and ``ArrayReader``.
    """
    with open_arrays(path, follow=follow) as file:
        return file.read_all()


@contextlib.contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Report what numpy and the archive raise for a damaged file as a ValueError of one line."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # of the system; without a number it is bz2's word for damaged data
            raise
        raise ValueError(_line(name, error)) from error
    except _DAMAGES as error:
        raise ValueError(_line(name, error)) from error


def _line(name: str, error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{f'{name}: ' if name else ''}{text:.300}"


def _read_header(file: IO[bytes]) -> Header:
    """Read the header of an array, as numpy.save writes it."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return Header(shape=tuple(shape), dtype=dtype)
