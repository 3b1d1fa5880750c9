"""Delete sweeps: their folders, the cache entries that only they use, and their runs in MLflow.

Of the cache go the engines, with what was compiled for them, and the typed ONNX that no record of another sweep below
the results folder names. Models and references stay for later sweeps; `sweep cache prune` removes those. MLflow marks
runs as deleted; `mlflow gc` gives their space back. Versions of registered models (`sweep publish --register`)
stay: each has an engine of its own, which may be in service. --dry-run prints all of it and removes nothing.

Exit codes: 0 deleted; 1 something could not be removed, or MLflow cannot be reached; 2 the command is wrong, a sweep is
in use, or the question was not answered with yes.

Examples:
  sweep delete quickstart --dry-run
  sweep delete monday tuesday --yes
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError, TrackingError, error_line, printable_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sweep.report.mlflow import sweep_runs
    from sweep.storage import sweep_files
    from sweep.storage.cache import Item


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    from sweep.cli import arguments, sweep_places

    sweep_places.add_name(parser, "names", nargs="+", metavar="NAME", help="names of sweeps, or their folders")
    parser.add_argument("--dry-run", action="store_true", help="print what would go, and how many bytes")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--keep-cache", action="store_true", help="leave the cache as it is")
    parser.add_argument("--json", action="store_true", help="print JSON for scripts; needs --dry-run or --yes")
    arguments.add_results_option(parser)
    sweep_places.add_mlflow(parser)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Hold what is to go.

    Attributes:
        roots: folder of each sweep, by its name.
        parts: files and folders of each sweep.
        entries: cache entries.
        runs: runs in MLflow of each sweep; None where MLflow is left as it is.
        freed_bytes: space that the disk gets back.
    """

    roots: Mapping[str, Path]
    parts: Mapping[str, Sequence[sweep_files.Part]]
    entries: Sequence[Item]
    runs: Mapping[str, sweep_runs.SweepRuns] | None
    freed_bytes: int


def run(options: argparse.Namespace) -> int:
    """Delete the sweeps, or print what would go; return the exit code."""
    from sweep.cli import sweep_places
    from sweep.storage import exclusive
    from sweep.system import atomic_files

    if options.json and not (options.dry_run or options.yes):
        raise ConfigError("--json asks no question: add --dry-run or --yes")
    roots = dict(sweep_places.named(options.results, name) for name in options.names)
    with contextlib.ExitStack() as locks:
        for root in roots.values():
            locks.enter_context(exclusive(root))
        try:
            plan = _plan(options, roots)
            if not options.json:
                _print_plan(plan, options)
            if options.dry_run:
                _print_json(options, plan, {})
                return 0
            _ask(options, len(roots))
            runs = {} if plan.runs is None else _remove_runs(options, plan)
        except TrackingError as error:
            sys.stderr.write(f"sweep delete: nothing is deleted ({error_line(error)}); --keep-mlflow leaves it out\n")
            return 1
        failures = _remove_entries(options, plan) + _remove_folders(plan)
    for folder in {root.parent for root in roots.values()}:
        atomic_files.remove_dead_folders(folder)
    _print_json(options, plan, {"failed": failures})
    if not options.json:
        _print(f"deleted  {', '.join(roots)}: {sweep_places.size(plan.freed_bytes)} are free")
        if sum(item.removed for item in runs.values()):
            _print("mlflow   the runs are marked as deleted; `mlflow gc` gives their space back")
    for line in failures:
        sys.stderr.write(f"sweep delete: {printable_line(line)}\n")
    return 1 if failures else 0


def _plan(options: argparse.Namespace, roots: Mapping[str, Path]) -> _Plan:
    from sweep.storage import find_sweeps, sweep_files

    others = [root for name, root in find_sweeps(options.results).items() if name not in roots]
    cache = options.results / "cache"
    entries = [] if options.keep_cache else sweep_files.entries_of_these_alone(cache, roots.values(), others)
    paths = (*roots.values(), *(item.path for item in entries), *sweep_files.entry_locks(cache, entries))
    files = [file for path in paths for file in sweep_files.files_of(path)]
    return _Plan(
        roots=roots,
        parts={name: sweep_files.parts(root) for name, root in roots.items()},
        entries=entries,
        runs=None if options.keep_mlflow else _runs(options, roots, dry_run=True),
        freed_bytes=sweep_files.freed_bytes(files),
    )


def _runs(options: argparse.Namespace, roots: Mapping[str, Path], *, dry_run: bool) -> dict[str, sweep_runs.SweepRuns]:
    """Remove the runs of the sweeps from MLflow, or tell which those are."""
    from sweep.cli import sweep_places
    from sweep.report.mlflow import sweep_runs
    from sweep.system import regular_files

    uri = sweep_places.store_uri(options.uri, options.results)
    if uri is None:
        return {}
    runs = {}
    for name, root in roots.items():
        files = []
        for path in sorted((root / "records").glob("*.json")):
            with contextlib.suppress(OSError):
                files.append(regular_files.read_bytes(path, follow=False))
        runs[name] = sweep_runs.remove(uri, name, files, results=options.results, dry_run=dry_run)
    return runs


def _remove_runs(options: argparse.Namespace, plan: _Plan) -> dict[str, sweep_runs.SweepRuns]:
    if not any(item.removed for item in (plan.runs or {}).values()):
        return {}
    return _runs(options, plan.roots, dry_run=False)


def _remove_entries(options: argparse.Namespace, plan: _Plan) -> list[str]:
    """Remove the cache entries that no process uses; return a line on each that stays."""
    from sweep.errors import CacheError
    from sweep.storage.cache import eviction

    if not plan.entries:
        return []
    try:
        pruned = eviction.entries(options.results / "cache", {item.owner for item in plan.entries})
    except (CacheError, OSError) as error:
        return [f"the cache is left as it is: {error}"]
    return [f"{item.kind} {item.key} stays: in use by {user}" for item, user in pruned.in_use] + [
        f"{item.kind} {item.key} stays: {reason}" for item, reason in pruned.failed
    ]


def _remove_folders(plan: _Plan) -> list[str]:
    from sweep.storage import sweep_files

    failures = []
    for name, root in plan.roots.items():
        try:
            sweep_files.remove(root)
        except OSError as error:
            failures.append(f"{name}: {error}")
    return failures


def _ask(options: argparse.Namespace, count: int) -> None:
    """Ask whether to go on, unless --yes says so.

    Raises:
        ConfigError: nobody can answer, or the answer is not yes.
    """
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nothing is deleted: --yes deletes without a question, --dry-run prints what would go")
    sys.stdout.write(f"Delete {'this sweep' if count == 1 else f'these {count} sweeps'}? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise ConfigError("nothing is deleted")


def _print_plan(plan: _Plan, options: argparse.Namespace) -> None:
    from sweep.cli.sweep_places import part_line, size

    for name, parts in plan.parts.items():
        _print(f"{name}: {plan.roots[name]}")
        for part in parts:
            _print(f"  {part_line(part)}")
        runs = (plan.runs or {}).get(name)
        if runs is not None and runs.experiments:
            _print(f"  {runs.removed:>10}  runs in MLflow, experiment {', '.join(runs.experiments)}")
        if runs is not None and runs.kept:
            _print(f"  {runs.kept:>10}  runs of that name stay in MLflow: they hold other records than this folder")
        for version in () if runs is None else runs.versions:
            _print(f"  {'stays':>10}  {version} in MLflow's registry: it has its own copy of the engine")
    if plan.entries:
        _print("in the cache, used by no other sweep:")
    for item in plan.entries:
        _print(f"  {size(item.bytes):>10}  {item.kind} {item.key} {item.description}".rstrip())
    cache = options.results / "cache"
    if cache.is_symlink() and not options.keep_cache:
        _print(f"the cache stays: it is a link to {cache.readlink()}, which may serve other results folders")
    _print(f"{'would free' if options.dry_run else 'frees'} {plan.freed_bytes:,} bytes on disk")


def _print_json(options: argparse.Namespace, plan: _Plan, more: Mapping[str, Any]) -> None:
    if not options.json:
        return
    content = {
        "dry_run": options.dry_run,
        "freed_bytes": plan.freed_bytes,
        "sweeps": {
            name: {
                "folder": str(root),
                "parts": [{"name": part.name, "files": part.files, "bytes": part.bytes} for part in plan.parts[name]],
                "mlflow_runs": None if plan.runs is None else plan.runs[name].removed if name in plan.runs else 0,
                "mlflow_versions_that_stay": [*plan.runs[name].versions] if plan.runs and name in plan.runs else [],
            }
            for name, root in plan.roots.items()
        },
        "cache": [{"kind": item.kind, "key": item.key, "bytes": item.bytes} for item in plan.entries],
        **more,
    }
    sys.stdout.write(json.dumps(content, indent=1) + "\n")


def _print(line: str) -> None:
    sys.stdout.write(printable_line(line) + "\n")
