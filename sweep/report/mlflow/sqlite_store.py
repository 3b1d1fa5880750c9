"""Create MLflow's sqlite store whole, and replace one that was left half made.

MLflow creates its tables in some sixty steps. A process that is killed meanwhile, or a disk that fills, leaves a file
that no later start can complete ("table spans already exists"), and two processes that begin together break each other.
Therefore a store is made in a folder of its own beside its place and then given its name, which other processes see at
once or not at all; and one publisher at a time writes to a store (``locked``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import TrackingBusyError
from sweep.system import atomic_files, file_locks, lock_owner, regular_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADER = b"SQLite format 3\0"
_JOURNALS = ("-journal", "-wal", "-shm")  # files that sqlite keeps beside a database
_POLL_S = 0.1
_BUSY_S = 3.0  # longest wait for a writer when a store is examined
_REVISION = "alembic_version"  # table in which MLflow's migrations count
_SCRATCH = "_alembic_tmp_"  # prefix of the tables that a migration copies to
_MADE = (
    "SELECT count(*) FROM experiments WHERE experiment_id != 0",
    "SELECT count(*) FROM workspaces WHERE name != 'default'",
)
_FILLED = ("experiments", "workspaces", _REVISION)  # tables that MLflow fills itself; `_MADE` counts a user's rows


def fault(path: Path) -> str | None:
    """Return why the file at `path` cannot be a store, without an import of mlflow; None if it can, or is missing."""
    try:
        with regular_files.open_input(path, follow=False) as file:
            header = file.read(len(HEADER))
    except FileNotFoundError:
        return None if not path.is_symlink() else "is a link, which is not followed here"
    except OSError as error:
        return error.strerror or str(error)
    if header not in (HEADER, b""):
        return "file is not a database: move it away, or name another store (tracking.uri, --uri)"
    return None


@contextlib.contextmanager
def locked(path: Path, wait_s: float) -> Iterator[bool]:
    """Hold the lock of the store at `path`, so that one publisher of this machine at a time writes to it.

    Yields whether it is held. Where the file system has no locks, or no file can be made beside the store, the block
    runs without: a new store is given its name by a link, which fails if another process was quicker.

    Args:
        path: file of the store.
        wait_s: longest wait for the lock, s.

    Raises:
        TrackingBusyError: another process holds the lock for longer.
    """
    lock = path.with_name(f".{path.name}.lock")
    deadline = time.monotonic() + wait_s
    handle = None
    try:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            while (handle := file_locks.lock_file(lock, wait=False)) is None:
                if time.monotonic() >= deadline:
                    owner = lock_owner.read(lock) or "another process"
                    raise TrackingBusyError(f"{owner} has been publishing to it for {wait_s:g} s")
                time.sleep(_POLL_S)
            lock_owner.write(handle)
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def create_if_missing(path: Path, make: Callable[[Path], None], *, is_locked: bool) -> None:
    """Create the store at `path` if there is none, or an empty file.

    Args:
        path: file of the store.
        is_locked: the caller holds its lock, so that what else is half made there is a dead process's.
        make: creates a store at the path that it gets.

    Raises:
        OSError: the store could not be created; nothing is left of it. Errors of `make` pass through.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_size > 0:
            return
    if is_locked:
        atomic_files.remove_leftover_folders(path)
    with _made_aside(path, make) as new:
        _put(new, path)


def replace_half_made(path: Path, make: Callable[[Path], None]) -> str | None:
    """Replace the store at `path`, which MLflow cannot open, if it was left half made; the caller holds its lock.

    A new store is made first and compared with: a store is half made if tables are missing that a new one has, and all
    that it has are MLflow's. One that holds rows of a user is moved aside, never removed.

    Args:
        path: file of the store.
        make: creates a store at the path that it gets.

    Returns:
        A line for the user; None if the store is not half made and was left alone.

    Raises:
        OSError: no new store could be created; the old one is left alone. Errors of `make` pass through.
    """
    with _made_aside(path, make) as new:
        expected, present = _examine(new), _examine(path)
        if present is None or expected is None or not present.is_half_made(expected):
            return None
        aside = path.with_name(f"{path.name}.half-made-{time.strftime('%Y%m%d-%H%M%S')}")
        while os.path.lexists(aside):
            aside = aside.with_name(f"{aside.name}x")
        path.rename(aside)
        for suffix in _JOURNALS:  # one beside the new store would be played back into it
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
        _put(new, path)
    if present.has_rows:
        return (
            f"MLflow's store {path} was half made and cannot be opened: a new one replaces it, the old one is {aside}"
        )
    for suffix in ("", *_JOURNALS):
        Path(f"{aside}{suffix}").unlink(missing_ok=True)
    return f"MLflow's store {path} was half made and held nothing: a new one replaces it"


@dataclass(frozen=True, slots=True)
class _Contents:
    """Describe a database.

    Attributes:
        tables: names of its tables.
        revision: MLflow's revision of its schema; None without one.
        has_rows: it holds something that MLflow does not put into every new store, or that cannot be counted.
    """

    tables: frozenset[str]
    revision: str | None
    has_rows: bool

    def is_half_made(self, whole: _Contents) -> bool:
        """Return whether a store with these contents is one like `whole` that was not finished."""
        if any(name not in whole.tables and not name.startswith(_SCRATCH) for name in self.tables):
            return False  # another program's tables, or a newer MLflow's
        if whole.tables <= self.tables and self.revision != whole.revision:
            return not self.has_rows  # an older or newer MLflow's store: its user upgrades it
        return not whole.tables <= self.tables


def _examine(path: Path) -> _Contents | None:
    """Return the contents of a database; None if it cannot be read, or a process writes to it."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")  # plays back the journal of a process that was killed
            names = frozenset(
                name
                for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                if not name.startswith("sqlite_")
            )
            revision = None
            if _REVISION in names:
                row = database.execute(f"SELECT version_num FROM {_REVISION}").fetchone()  # noqa: S608 - a constant
                revision = row and str(row[0])
            return _Contents(names, revision, _has_rows(database, names))
    except sqlite3.Error:
        return None


def _has_rows(database: sqlite3.Connection, names: frozenset[str]) -> bool:
    others = (f'SELECT count(*) FROM "{name}"' for name in sorted(names - set(_FILLED)))  # noqa: S608 - names of its own tables
    own = (query for query in _MADE if query.split()[3] in names)
    try:
        return any(database.execute(query).fetchone()[0] for query in (*own, *others))
    except sqlite3.Error:
        return "runs" in names or f"{_SCRATCH}runs" in names


@contextlib.contextmanager
def _made_aside(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a whole new store in a folder of its own beside `path`; the folder is removed afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = atomic_files.temporary_folder(path)
    try:
        new = folder / path.name
        # Opened here first: MLflow tries ten times, within 100 s, what the system refuses at once.
        with contextlib.closing(sqlite3.connect(new)) as database:
            database.execute("PRAGMA user_version")
        make(new)
        yield new
    except sqlite3.Error as error:
        raise OSError(None, f"no store can be created in {path.parent} ({error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(new: Path, path: Path) -> None:
    """Give the whole store at `new` the name `path`; an empty file there is replaced, another store never."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_size == 0 and stat.S_ISREG(path.lstat().st_mode):
            path.unlink()
    if os.path.lexists(path):
        return
    for suffix in _JOURNALS:  # of a store that was removed: sqlite would play it back into the new one
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    try:
        path.hardlink_to(new)
    except FileExistsError:
        return  # a process of another machine was quicker: its store is as whole
    except OSError:  # a file system without links
        new.rename(path)
