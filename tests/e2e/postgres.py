"""A PostgreSQL server of a test's own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
from pathlib import Path


def find_binaries() -> Path | None:
    """Return the folder of PostgreSQL's own programs; None where it is not installed."""
    places = [Path(program).resolve().parent for name in ("postgres", "pg_ctl") if (program := shutil.which(name))]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for place in places:
        if (place / "initdb").exists() and (place / "pg_ctl").exists():
            return place
    return None


def missing_postgres() -> str | None:
    """Return what this machine lacks for an MLflow over PostgreSQL, and how to get it; None if it lacks nothing."""
    if find_binaries() is None:
        return "PostgreSQL is not installed: apt-get install postgresql"
    if importlib.util.find_spec("psycopg2") is None:
        return "MLflow's driver is not installed: pip install psycopg2-binary"
    return None


class Postgres:
    """Run a PostgreSQL of the test's own, as a plain user, for it refuses to be root's.

    Args:
        folder: folder for its data, which every user can enter.

    Attributes:
        uri: URI of its database, for MLflow.
    """

    def __init__(self, folder: Path) -> None:
        binaries = find_binaries()
        assert binaries is not None, missing_postgres()
        self._bin, self._data = binaries, folder / "data"
        self._user = 65534 if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user, self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._run("initdb", "-D", str(self._data), "-U", "sweep", "--auth=trust", "--no-sync")
        self.uri = f"postgresql+psycopg2://sweep@127.0.0.1:{self._port}/postgres"

    def _run(self, name: str, *words: str) -> None:
        subprocess.run(
            [str(self._bin / name), *words],
            check=True,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            stdout=subprocess.DEVNULL,
            cwd=self._data.parent,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self._port} -k {self._data.parent} -c listen_addresses=127.0.0.1"
        log = str(self._data.parent / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-o", options, "-l", log, "start")

    def stop(self, mode: str) -> None:
        """Stop it; `immediate` for `mode` is a crash."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", mode, "stop")
