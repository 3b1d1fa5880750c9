"""``make publish``: every record on disk -> MLflow. Run twice, it changes nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sweep.errors import TrackingError
from sweep.report.mlflow.publisher import Publisher
from sweep.report.mlflow.store_uri import reachable, resolve_uri, without_password
from sweep.storage.store import Store
from sweep.system import file_trust


def main(argv: list[str] | None = None) -> int:
    """Publish the sweeps asked for.

    Returns:
        0, or 1 after one line on stderr when the store is dead or a sweep is not there.
    """
    file_trust.restrict()
    args = _arguments(argv)
    uri = resolve_uri(args.uri, args.results)
    folders = sweep_folders(args.results)
    missing = sorted(set(args.sweeps) - set(folders))
    if missing or not folders:
        wanted, there = ", ".join(missing) or "any sweep", ", ".join(folders) or "none"
        return _refuse(f"no records of {wanted} below {args.results}; there are: {there}")
    dead = reachable(uri)
    if dead is not None:
        return _refuse(f"MLflow at {without_password(uri)} cannot be written: {dead}")
    try:
        for name in args.sweeps or folders:
            _publish(Store(folders[name]), Publisher(uri, args.experiment, name))
    except TrackingError as error:
        return _refuse(str(error))
    return 0


def sweep_folders(results: Path) -> dict[str, Path]:
    """The folders below ``results`` that hold records, by their path from there: the sweep's name."""
    found = sorted(path.parent for path in results.rglob("records") if path.is_dir())
    return {path.relative_to(results).as_posix(): path for path in found if path != results}


def _publish(store: Store, publisher: Publisher) -> None:
    records = list(store.readable())
    done = publisher.publish(records, store)
    damaged = len(store.record_keys()) - len(records)
    unread = f", {damaged} cannot be read" if damaged else ""
    print(f"{store.root.name}: {done.sent} sent, {done.unchanged} unchanged{unread} ({done.seconds:.1f} s)")  # noqa: T201 - a command's answer
    if done.url:
        print(f"  {done.url}")  # noqa: T201 - same


def _refuse(line: str) -> int:
    print(line, file=sys.stderr)  # noqa: T201 - a command's answer
    return 1


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sweep.report.mlflow", description=__doc__)
    parser.add_argument("results", type=Path, help="the results folder")
    parser.add_argument("sweeps", nargs="*", metavar="sweep", help="only these; default: all")
    parser.add_argument("--uri", help="default: MLFLOW_TRACKING_URI, else sqlite in the results folder")
    parser.add_argument("--experiment", default="sweep", help="default: sweep")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
