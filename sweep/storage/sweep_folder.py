"""Find the folders of sweeps, and lock one: for a sweep that measures, or to remove or rename it."""

from __future__ import annotations

import contextlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.storage.cache import location
from sweep.storage.store import Store
from sweep.system import atomic_files, file_locks, lock_owner, regular_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sweep.spec import Settings


PROBES = "probes"  # folder of the probes of a search, which has the folders of a sweep
LOCK, OWNER = ".lock", ".lock.owner"
FOLDERS = (
    *("records", "samples", "telemetry", "sentinel", "logs", "parts", "artifacts", "parity", "plans", "layers"),
    *("profiles", PROBES),
)
MLFLOW_STORE = "mlflow.db"
_OWN_FILES = frozenset({"config.json", "index.json", "search.json", LOCK, OWNER})
_NO_SWEEPS = frozenset({"cache", "mlartifacts", "recipes"})  # folders below the results that hold none
CACHE_FOLDERS = ("models", "onnx", "engines", "references", "costs", "runtime", ".in-use")


def is_sweep(folder: Path) -> bool:
    """Tell whether a folder is that of a sweep: it has records, or the lock of a sweep that had none yet.

    Other programs name files ``.lock`` too, so that the request or the plans of a sweep have to stand beside it.
    """
    return (folder / "records").is_dir() or (
        (folder / LOCK).is_file() and ((folder / "config.json").is_file() or (folder / "plans").is_dir())
    )


def is_own_file(path: Path) -> bool:
    """Tell whether `path` names a file that a sweep or a cache reads again, present or not; its page is none."""
    folders = path.absolute().parents
    if any((folder / location.MARKER).is_file() for folder in folders):
        return True
    if path.name == MLFLOW_STORE or (path.name in _OWN_FILES and is_sweep(folders[0])):
        return True
    return any(
        folder.name in FOLDERS and is_sweep(folder.parent) and folder != folder.parent for folder in (path, *folders)
    )


def find_sweeps(results: Path) -> dict[str, Path]:
    """Return the folders of the sweeps below `results`, by their path from there, which is the sweep's name.

    Links are not followed. Hidden folders are what a process that was killed has left of a sweep.
    """
    sweeps = {}
    for at, names, _ in os.walk(results):
        folder = results / os.path.relpath(at, results)
        if folder != results and is_sweep(folder):
            sweeps[folder.relative_to(results).as_posix()] = folder
            names[:] = [name for name in names if name not in FOLDERS]
        skipped = _NO_SWEEPS if folder == results else ()
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in skipped)
    return dict(sorted(sweeps.items()))


def folders_with_records(folder: Path) -> list[Path]:
    """Return the folders below `folder`, itself included, that hold records; hidden ones are being deleted.

    Probes of a search are no measurements.
    """
    folders = (path for path in sorted(folder.rglob("records")) if path.is_dir())
    return [
        path.parent
        for path in folders
        if not any(part[0] == "." or part == PROBES for part in path.relative_to(folder).parts)
    ]


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Lock the folder of a sweep to remove or rename it; no process measures into it, of this host or another.

    Args:
        root: folder of the sweep.

    Raises:
        ConfigError: a process uses it, a process of another host never ended its sweep in it, or a folder in it is a
            link.
    """
    for path in (root, *(root / name for name in FOLDERS)):
        if path.is_symlink():
            raise ConfigError(f"{path} is a link to {path.readlink()}, which is not followed: remove the link yourself")
    try:
        handle = file_locks.open_lock_file(root / LOCK)
    except OSError as error:
        raise ConfigError(f"{root} cannot be written ({error.strerror or error})") from error
    owner_file = None
    try:
        before = lock_owner.read(root / LOCK)
        try:
            if not file_locks.lock_descriptor(handle, wait=False):
                raise ConfigError(f"{root} is in use by {before or 'another process'}: wait for it, or stop it")
        except OSError:
            owner_file = _create_owner_file(root)
        if before is not None and before.is_of_other_host:
            raise ConfigError(
                f"{before} never ended its sweep in {root}, and no lock here tells whether it still runs: if it does "
                f"not, remove {root / LOCK}"
            )
        owner = lock_owner.read(root / OWNER) if owner_file is None else None
        if owner is not None and not owner.is_dead:
            raise _in_use(root, owner, root / OWNER)
        yield
    finally:
        if owner_file is not None:
            owner_file.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def folder_lock(settings: Settings, notify: Callable[[str], None]) -> Iterator[None]:
    """Lock the folder of a sweep for this process, since two sweeps in one folder would disturb each other.

    The kernel releases the lock when its holder dies. Where the file system has no locks, a file that is created by
    one process alone stands in for it (``OWNER``); its holder is judged dead on its own host alone. Where the locks of
    one host do not reach another, the file names the holder until it ends its sweep, and who gets the lock
    nevertheless is told.

    Args:
        settings: name the folder.
        notify: called with a line for the user.

    Raises:
        ConfigError: the folder cannot be written, a folder in it is a link, the cache is a link to what is no cache, or
            another process holds the lock.
    """
    root = settings.root
    try:
        _refuse_links(settings)
        _refuse_folders(root)
        root.mkdir(parents=True, exist_ok=True)
        handle = file_locks.open_lock_file(root / LOCK)
    except (OSError, ValueError) as error:  # a ValueError for a path with a zero byte, as a YAML may have
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"results={str(settings.results)[:300]}: cannot be written ({reason})") from error
    owner_file = None
    try:
        before = lock_owner.read(root / LOCK)
        try:
            if not file_locks.lock_descriptor(handle, wait=False):
                raise _in_use(root, before)
        except OSError as error:
            owner_file = _create_owner_file(root)
            notify(
                f"{root} lies on a file system without locks ({error.strerror}): {owner_file.name} stands in for one, "
                "and the cache keeps what it would evict"
            )
        if owner_file is None and before is not None and before.is_of_other_host:
            notify(
                f"{before} never ended its sweep in {root}: if it still runs, both measure, and of two records of one "
                "variant the later one stands"
            )
        lock_owner.write(handle)
        try:
            Store(settings.root).remove_temporary_files()
            location.mark(settings.cache)
            yield
        finally:
            with contextlib.suppress(OSError):  # passes of a variant that was left unfinished
                (root / "parts").rmdir()
            lock_owner.clear(handle)
    finally:
        if owner_file is not None:
            owner_file.unlink(missing_ok=True)
        os.close(handle)


def _create_owner_file(root: Path) -> Path:
    """Create the file that stands in for a lock, or refuse the folder if another process has.

    Raises:
        ConfigError: a process that may be alive has created it.
    """
    path = root / OWNER
    for _ in range(2):
        try:
            descriptor = regular_files.open_new(path)
        except FileExistsError:
            owner = lock_owner.read(path)
            if owner is None or not owner.is_dead:
                raise _in_use(root, owner, path) from None
            _remove_owner_file(path, owner)
            continue
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
        try:
            lock_owner.write(descriptor)
        finally:
            os.close(descriptor)
        return path
    raise _in_use(root, lock_owner.read(path), path)


def _remove_owner_file(path: Path, owner: lock_owner.Owner) -> None:
    """Remove the file of a dead process; that of a process which was quicker to replace it stays."""
    aside = atomic_files.temporary_path(path)  # renamed first: of two processes that see the dead one, one gets it
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if lock_owner.read(aside) == owner:
            aside.unlink()
        else:
            aside.rename(path)


def _in_use(root: Path, owner: lock_owner.Owner | None, file: Path | None = None) -> ConfigError:
    remedy = "" if file is None else f", or remove {file} if that sweep is gone"
    user = "another process" if owner is None else str(owner)
    return ConfigError(f"{root} is in use by {user}: wait for it, or give this sweep a name={remedy}")


def _refuse_links(settings: Settings) -> None:
    """Refuse folders below ``results`` that are links: the sweep would write, and the cache remove, where they lead."""
    cache = settings.cache
    location.check(cache)
    inner = [folder / name for folder, names in ((settings.root, FOLDERS), (cache, CACHE_FOLDERS)) for name in names]
    for path in (settings.root, settings.results / "recipes", *inner):
        if path.is_symlink():
            raise ConfigError(
                f"{path} is a link to {path.readlink()}, and a sweep writes to no folder that its command line does "
                f"not name: remove the link, or set results= to a folder on the other disk"
            )


def _refuse_folders(root: Path) -> None:
    """Refuse a folder in place of a file that every sweep writes, before anything is measured."""
    for path in (root / "config.json", root / "report.html"):
        if path.is_dir():
            raise ConfigError(f"{path} is a folder, and a sweep writes a file of that name there: remove the folder")
