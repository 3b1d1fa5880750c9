"""Find the sweeps that a command of house keeping names, and word sizes and states alike in all of them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError, SweepError

if TYPE_CHECKING:
    import argparse

    from sweep.storage import sweep_files

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


def add_name(parser: argparse.ArgumentParser, *words: str, **options: Any) -> None:
    """Add a positional argument that names a sweep, which a shell completes."""
    action = parser.add_argument(*words, **options)
    action.completer = _complete  # type: ignore[attr-defined]  # argcomplete's hook


def _complete(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Return the names of sweeps that begin with `prefix`."""
    from sweep.storage import find_sweeps

    return [name for name in find_sweeps(parsed_args.results) if name.startswith(prefix)]


def add_mlflow(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what becomes of the runs in MLflow."""
    parser.add_argument("--uri", help="MLflow's store [MLFLOW_TRACKING_URI, else sqlite in the results folder]")
    parser.add_argument("--keep-mlflow", action="store_true", help="leave MLflow's runs as they are")


def named(results: Path, name: str) -> tuple[str, Path]:
    """Return name and folder of a sweep below the results folder.

    Args:
        results: the results folder.
        name: its name, or the path of its folder.

    Raises:
        ConfigError: there is no such sweep; a link or a folder that is none has that name.
    """
    from sweep.storage import find_sweeps, is_sweep

    sweeps = find_sweeps(results)
    path = Path(name)
    if name not in sweeps and path.is_dir() and path.resolve().is_relative_to(results.resolve()):
        name = path.resolve().relative_to(results.resolve()).as_posix()
    if name in sweeps:
        return name, sweeps[name]
    folder = results / name
    is_below = name and folder.parent.resolve().is_relative_to(results.resolve()) and folder.name != ".."
    if is_below and folder.is_symlink():
        raise ConfigError(f"{folder} is a link to {folder.readlink()}, which is not followed: name that folder")
    if is_below and folder.is_dir() and not is_sweep(folder):
        raise ConfigError(f"{folder} is no folder of a sweep: it has neither records nor the lock of one")
    near = difflib.get_close_matches(name, sweeps, n=1)
    listed = ", ".join(list(sweeps)[:8]) or "none"
    raise ConfigError(
        f"{name}: no sweep below {results}; {f'did you mean {near[0]}?' if near else f'there are: {listed}'}"
    )


def size(count: int) -> str:
    """Return a number of bytes for a person."""
    for unit, name in ((_GIB, "GiB"), (_MIB, "MiB"), (_KIB, "KiB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count} B"


def part_line(part: sweep_files.Part) -> str:
    """Return the line on a file or folder in that of a sweep."""
    files = "" if part.files == 1 else f", {part.files} files"
    return f"{size(part.bytes):>10}  {part.name}{files}"


def store_uri(explicit: str | None, results: Path) -> str | None:
    """Return the URI of MLflow's store; None where the results folder can hold none."""
    from sweep.report.mlflow import resolve_uri

    try:
        return resolve_uri(explicit, results)
    except SweepError:  # a folder whose path has a question mark
        return None
