"""Kill sweeps at random moments, start them again, and look at what is left.

``python kill_campaign.py --kills 500 --seed 15 --table FILE`` is the campaign of `make torture`; the tests run a short
one. A series is one sweep in a folder of its own: it is disturbed a few times at random moments, then runs to its
end, and everything that it leaves is compared with what the same command leaves undisturbed. Series of the kind
``publish`` send the same records to an MLflow server, or to one over PostgreSQL, that is killed meanwhile.

Exit codes: 0 nothing was lost, run twice or left over; 1 something was, one line each.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import fcntl
import json
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

HERE = Path(__file__).parent
SUPPORT = HERE.parent / "support"
sys.path[:0] = [str(HERE), str(SUPPORT)]

from forked_command import PRELOADED  # noqa: E402 - the folder of the module is on the path from here on
from mlflow_ui import SERVER_DB, mlflow_server  # noqa: E402
from postgres import Postgres, missing_postgres  # noqa: E402
from python_path import python_path  # noqa: E402

from sweep.errors import SweepError  # noqa: E402
from sweep.storage import Store, samples_file  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sweep.storage import Record

TINY = ("load=closed", "load.min_s=0.05", "load.warmup_s=0.02", "load.min_requests=64", "load.max_s=0.3")
CURVE = ("load=quick", "load.min_s=0.1", "load.warmup_s=0.02", "load.max_s=0.5", "load.fractions=[0.4,0.8]")
SIMULATED = ("-m", "backend=simulated")
CONFIGS = {
    "simulated": (*SIMULATED, *TINY, "batch=1,2,4", "streams=1,2", "tracking=none"),
    "passes": (*SIMULATED, *TINY, "batch=1,2", "repeats=2", "sentinel_every=2", "tracking=none"),
    "clients": (*SIMULATED, *TINY, "batch=1,2", "clients=2", "tracking=none"),
    "search": (*SIMULATED, *CURVE, "batch=1,2", "slo.p99_ms=1", "slo.search_s=2", "tracking=none"),
    "tracked": (*SIMULATED, *TINY, "batch=1,2,4"),
    "digits": ("-m", "model=digits", *TINY, "precision=fp32,int8", "batch=1,8", "tracking=none"),
}
EXACT = frozenset({"simulated", "passes", "clients", "search", "tracked"})  # their figures repeat to the last digit
DISK = "simulated"  # what runs on the small disk
DISK_SIZE = "24m"
NAME = "s"
KILLED = -signal.SIGKILL
PUBLISHING = ("mlflow", "mlflow.store.tracking.sqlalchemy_store")  # imports of a command that publishes
COUNTS = (3, 6)  # disturbances of one sweep, fewest and most
# What each disturbance may end the command with, besides what the undisturbed command ends with: a variant whose
# worker died is `crashed`, so 1; an interrupt before the handlers are there is the signal's own end.
ENDS = {
    "kill parent": {KILLED},
    "kill child": {1},
    "kill children": {1},
    "kill group": {KILLED},
    "term child": {1},
    "stop, kill parent": {KILLED},
    "stop children, kill parent": {KILLED},
    "stop, cont": set(),
    "stop children, cont": set(),
    "term": {130, -signal.SIGTERM},
    "int": {130, -signal.SIGINT},
    "int twice": {130, -signal.SIGINT},
    "disk full": {1},
    "kill publisher": {KILLED},
    "kill server": {1},
    "crash PostgreSQL": {1},
}
PUBLISH_KINDS = ("kill publisher", "kill server", "crash PostgreSQL")
KINDS = tuple(kind for kind in ENDS if kind not in {"disk full", *PUBLISH_KINDS})
ORT_FILE = ".ses"  # onnxruntime's own, in the folder for temporary files, at each start
EVERY = 8  # series of which one has a small disk, and one a server
PUBLISHES = 4  # disturbances of a series that publishes
AT_ONCE_S = 10.0  # in which all that belonged to a killed command is gone
LONGEST_S = 240.0
BEGUN = "begun"  # in the folder of a forked command: from here on it is the product that a signal meets
SCRAP_ENDS = (
    ".lock",
    ".mlflow.db.lock",
    ".limit",
    ".in-use",
    ".prune.lock",
    ".sweep-cache",
)  # hidden files that stay, by design


@dataclasses.dataclass(frozen=True)
class Hit:
    """Hold one disturbance and what came of it.

    Attributes:
        kind: the disturbance.
        stage: stage of the sweep when it came.
        outcome: exit code of the command.
    """

    kind: str
    stage: str
    outcome: int


@dataclasses.dataclass
class Series:
    """Hold one series.

    Attributes:
        number: its number; with the campaign's seed it decides all of its random draws.
        config: its command, by name in ``CONFIGS``, or the MLflow store of a ``publish`` series.
        hits: the disturbances.
        faults: what was wrong, one line each.
    """

    number: int
    config: str
    hits: list[Hit] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Reference:
    """Hold what an undisturbed command left.

    Attributes:
        code: its exit code.
        seconds: its duration, s; that of a later command where one ended before it could be disturbed.
        records: its records by key.
    """

    code: int
    seconds: float
    records: dict[str, Record]


def _become_command(words: Sequence[str], environment: dict[str, str], folder: Path, log: Path) -> None:
    """Be ``python -m sweep WORDS`` in a session of its own, from a process that has its imports."""
    import forked_worker
    import stages

    os.setsid()
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY), (2, log, os.O_WRONLY)):
        file = os.open(path, flags | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    forked_worker.install()
    sys.argv = ["sweep", *words]
    stages.install()
    (folder / BEGUN).touch()
    runpy.run_module("sweep", run_name="__main__", alter_sys=True)


class Command:
    """Run one command of sweep, as a fork or as a fresh process.

    Args:
        words: its words.
        folder: folder that it runs in, by which all of its processes are recognised.
        fresh: start a fresh interpreter.
        fork: the process to fork from.
    """

    def __init__(self, words: Sequence[str], folder: Path, fork: Any, *, fresh: bool) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._stage = folder / "stage"
        self._stage.write_text("start".ljust(24))
        (folder / BEGUN).unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        environment |= {"SWEEP_TEST_STAGE": str(self._stage), "SWEEP_LOCK_DIR": str(folder / "locks")}
        environment |= {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": python_path(), "COLUMNS": "200"}
        (folder / "tmp").mkdir(exist_ok=True)
        self._fresh: subprocess.Popen[bytes] | None = None
        if fresh:
            environment["PYTHONPATH"] = f"{HERE / 'staged'}:{environment['PYTHONPATH']}"
            with self.log.open("ab") as log:
                self._fresh = subprocess.Popen(
                    [sys.executable, "-m", "sweep", *words],
                    env=environment,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.pid = self._fresh.pid
        else:
            self._fork = fork.Process(target=_become_command, args=(tuple(words), environment, folder, self.log))
            self._fork.start()
            self.pid = self._fork.pid

    def code(self) -> int | None:
        """Return the exit code, negative for a signal; None while the command runs."""
        return self._fresh.poll() if self._fresh is not None else self._fork.exitcode

    def wait(self, seconds: float) -> int | None:
        """Return the exit code once the command has ended; None if it has not within `seconds`."""
        end = time.monotonic() + seconds
        while (code := self.code()) is None and time.monotonic() < end:
            time.sleep(0.01)
        return code

    @property
    def has_begun(self) -> bool:
        """Return whether it is sweep already; a fork is Python's own for its first milliseconds."""
        return self._fresh is not None or (self.folder / BEGUN).exists()

    def stage(self) -> str:
        """Return the stage that the sweep is in."""
        return self._stage.read_text().strip()

    def processes(self) -> list[int]:
        """Return every process in the command's folder that is alive."""
        return living(self.folder)

    def signal(self, number: int, pids: Sequence[int]) -> None:
        """Send a signal to processes, of which some may have ended."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def living(folder: Path) -> list[int]:
    """Return the processes that run in `folder`; a zombie runs nowhere."""
    pids = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - numbers
        if name.isdigit():
            with contextlib.suppress(OSError):
                if Path(os.readlink(f"/proc/{name}/cwd")).is_relative_to(folder):  # noqa: PTH115 - may be gone
                    pids.append(int(name))
    return pids


def fill(ballast: Path) -> None:
    """Write `ballast` until its disk is full."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


def disturb(kind: str, command: Command, draw: random.Random, results: Path) -> None:
    """Disturb a running command in one way."""
    parent = [command.pid]
    children = [pid for pid in command.processes() if pid != command.pid]
    one_child = [draw.choice(children)] if children else []
    pause_s = draw.uniform(0.05, 0.6)
    kill, stop, go_on, term, interrupt = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM, signal.SIGINT
    steps: dict[str, list[tuple[int, list[int]]]] = {  # each signal, and who gets it; a pause after it
        "kill parent": [(kill, parent)],
        "kill child": [(kill, one_child)],
        "term child": [(term, one_child)],
        "kill children": [(kill, children)],
        "kill group": [(kill, parent + children)],
        "stop, kill parent": [(stop, parent), (kill, parent)],
        "stop children, kill parent": [(stop, children), (kill, parent)],
        "stop, cont": [(stop, parent), (go_on, parent)],
        "stop children, cont": [(stop, children), (go_on, children)],
        "term": [(term, parent)],
        "int": [(interrupt, parent)],
        "int twice": [(interrupt, parent), (interrupt, parent)],
    }
    if kind == "disk full":
        fill(results / "ballast")
        return
    for number, (sent, pids) in enumerate(steps[kind]):
        time.sleep(pause_s if number else 0.0)
        command.signal(sent, pids)


class Inspection:
    """Compare what is on disk, and what still runs, with what should be.

    Args:
        series: gets the faults.
        folder: folder of the series.
        results: its results folder.
        reference: what an undisturbed command leaves.
    """

    def __init__(self, series: Series, folder: Path, results: Path, reference: Reference) -> None:
        self.series, self._folder, self._results, self._reference = series, folder, results, reference
        self._store = Store(results / NAME)
        self._measured: dict[str, str] = {}  # start of the measurement by key

    def fault(self, text: str) -> None:
        """Note a fault, with the last disturbance."""
        last = self.series.hits[-1] if self.series.hits else None
        self.series.faults.append(f"series {self.series.number} {self.series.config}: {text} (after {last})")

    def records(self) -> dict[str, Record]:
        """Return the records by key; an unreadable one is a fault."""
        records = {}
        for key in self._store.record_keys():
            try:
                records[key] = self._store.read(key)
            except SweepError as error:
                self.fault(f"record {key} cannot be read: {error}")
        return records

    def after_each(self) -> None:
        """Check what holds after every end of a command: whole records, none measured twice, no process left."""
        end = time.monotonic() + AT_ONCE_S
        while (left := living(self._folder)) and time.monotonic() < end:
            time.sleep(0.05)
        if left:
            names = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[-60:] for pid in left]
            self.fault(f"processes live on: {names}")
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        records = self.records()
        for key, started_at in self._measured.items():
            if key not in records:
                self.fault(f"record {key} is lost")
            elif records[key].started_at != started_at:
                self.fault(f"record {key} was measured twice: {started_at}, {records[key].started_at}")
        for key in self._measured.keys() & records.keys():
            if records[key].status != "ok":  # the search of its capacity crashed, so it is measured again
                del self._measured[key]
        finished = {key: record for key, record in records.items() if record.status == "ok"}
        self._measured |= {key: record.started_at for key, record in finished.items()}
        if not records.keys() <= self._reference.records.keys():
            self.fault(f"records of no variant: {records.keys() - self._reference.records.keys()}")

    def at_the_end(self, code: int) -> None:
        """Check what holds after the last start, which nothing disturbed."""
        records, wanted = self.records(), self._reference.records
        if code != self._reference.code:
            self.fault(f"the last start ended with {code}, not {self._reference.code}")
        if records.keys() != wanted.keys():
            self.fault(f"keys differ: {sorted(records.keys() ^ wanted.keys())}")
        for key, record in records.items():
            self._check_record(key, record)
        for path in scraps(self._results, self._folder):
            self.fault(f"left over: {path}")
        for path in self._folder.rglob("*"):
            if path.is_file() and ("lock" in path.name or path.parent.name in {"locks", ".in-use"}) and is_locked(path):
                self.fault(f"still locked: {path}")
        extra = {path.stem for path in (self._store.root / "samples").glob("*.npz")} - records.keys()
        if extra:
            self.fault(f"samples without a record: {extra}")
        log = (self._folder / "log").read_text(errors="replace")
        if "Traceback" in log:
            self.fault(f"traceback: {log[log.index('Traceback') :][:900]!r}")

    def _check_record(self, key: str, record: Record) -> None:
        """Check that a record says what an undisturbed run says, and that its samples can be read."""
        wanted = self._reference.records
        if key in wanted and record.status != wanted[key].status:
            self.fault(f"{key} is {record.status}, not {wanted[key].status}: {record.error}")
        if key in wanted and self.series.config in EXACT and figures(record) != figures(wanted[key]):
            self.fault(f"{key} has other figures than an undisturbed run: {differing(record, wanted[key])}")
        if record.status == "ok":
            try:
                samples_file.load(self._store.samples_path(key))
            except SweepError as error:
                self.fault(f"samples of {key} cannot be read: {error}")


def figures(record: Record) -> Any:
    """Return what an undisturbed run would repeat to the last digit."""
    return record.status, record.peak, record.points, record.slo  # its drift is that of the starts, and their ends


def differing(record: Record, other: Record) -> str:
    """Return the first fields in which two records of one variant differ."""
    names = ("status", "peak", "points", "slo")
    return "; ".join(
        f"{name}: {str(getattr(record, name))[:200]} | {str(getattr(other, name))[:200]}"
        for name in names
        if getattr(record, name) != getattr(other, name)
    )


def is_locked(path: Path) -> bool:
    """Return whether some process holds the lock on `path`."""
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def scraps(results: Path, folder: Path) -> list[str]:
    """Return what a sweep should not have left: temporary files, parts of passes, files in its temporary folder."""
    left = [path for path in results.rglob(".*") if path.name not in SCRAP_ENDS and ".in-use" not in path.parts]
    left += [path for path in results.rglob("parts") if path.is_dir()]
    left += [path for path in (folder / "tmp").rglob("*") if path.name != ORT_FILE]
    left += [path for path in results.rglob("*.new*") if path.is_file()]
    return list(map(str, left))


class Campaign:
    """Run series until enough disturbances have hit a running command.

    Args:
        root: folder for everything.
        disk: a small disk; None where there is none.
        options: seed, share of fresh processes, names of the configurations, whether servers are killed.
    """

    def __init__(self, root: Path, disk: Path | None, options: argparse.Namespace) -> None:
        self.root, self.disk, self.seed = root, disk, options.seed
        self._configs = options.configs.split(",")
        self._fresh_share, self._servers = options.fresh, options.servers
        self._postgres = options.servers and without_postgres() is None
        self._fork = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload([*PRELOADED, "preloaded", "forked_worker", *PUBLISHING, __name__])
        self._references: dict[str, Reference] = {}
        self._lock = threading.Lock()
        self._disk_lock = threading.Lock()
        self.store_file = root / "empty.db"
        self.public = Path(tempfile.gettempdir())  # where PostgreSQL's user can enter
        self._publish_s = 0.0

    def start_forking(self) -> None:
        """Start the process that commands are forked from; it finds the modules by its environment alone."""
        before = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), str(SUPPORT), python_path())))
        multiprocessing.forkserver.ensure_running()
        os.environ["PYTHONPATH"] = before
        first = self._fork.Process(target=os.getpid)  # once it has run, all imports are over
        first.start()
        first.join()

    def command(self, words: Sequence[str], folder: Path, *, fresh: bool = False) -> Command:
        """Start a command in `folder`."""
        return Command(words, folder, self._fork, fresh=fresh)

    def words(self, config: str, results: Path) -> tuple[str, ...]:
        """Return the words of a sweep."""
        return (*CONFIGS[config], f"results={results}", f"name={NAME}")

    def reference(self, config: str) -> Reference:
        """Return what the command of `config` leaves where nothing disturbs it."""
        with self._lock:
            if config not in self._references:
                folder = self._folder(f"clean-{config}")
                results = self._results(folder, config)
                began = time.monotonic()
                code = self.command(self.words(config, results), folder).wait(LONGEST_S)
                if code is None:
                    raise SystemExit(f"the undisturbed sweep {config} hangs")
                records = {key: Store(results / NAME).read(key) for key in Store(results / NAME).record_keys()}
                self._references[config] = Reference(code, time.monotonic() - began, records)
            return self._references[config]

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir()
        return folder

    def _results(self, folder: Path, config: str) -> Path:
        """Return a results folder, with MLflow's tables where the series publishes as it measures."""
        results = folder / "results"
        results.mkdir()
        if config == "tracked":
            shutil.copy(self.store_file, results / "mlflow.db")
        return results

    def series(self, number: int) -> Series:
        """Run the series of that number: most disturb a sweep, some a sweep on a small disk, some its publishing."""
        if self._servers and number % EVERY == EVERY - 1:
            over_postgres = number % (2 * EVERY) > EVERY and self._postgres
            return self.publish_series(number, over_postgres=over_postgres)
        return self.sweep_series(number, full_disk=self.disk is not None and number % EVERY == EVERY // 2)

    def sweep_series(self, number: int, *, full_disk: bool) -> Series:
        """Disturb one sweep a few times, let it end, and inspect what is left."""
        draw = random.Random(f"{self.seed} {number}")  # noqa: S311 - moments, no secret
        config = DISK if full_disk else draw.choice(self._configs)
        reference, series = self.reference(config), Series(number, f"{config}, small disk" if full_disk else config)
        folder = self._folder(f"{number}")
        results = self.disk / f"{number}" if full_disk and self.disk else self._results(folder, config)
        results.mkdir(exist_ok=True)
        series.config = config
        inspection = Inspection(series, folder, results, reference)
        fresh = draw.random() < self._fresh_share
        for _ in range(1 if full_disk else draw.randint(*COUNTS)):
            self._disturbed(series, inspection, (folder, results), draw, fresh=fresh, full_disk=full_disk)
        last = self.command(self.words(config, results), folder).wait(LONGEST_S)
        if last is None:
            inspection.fault("the last start hangs")
        inspection.after_each()
        inspection.at_the_end(KILLED if last is None else last)
        self._publish(inspection, folder, results, reference)
        if full_disk or not series.faults:
            shutil.rmtree(results)
        if not series.faults:
            shutil.rmtree(folder)
        return series

    def _disturbed(
        self,
        series: Series,
        inspection: Inspection,
        folders: tuple[Path, Path],
        draw: random.Random,
        *,
        fresh: bool,
        full_disk: bool,
    ) -> None:
        """Start the sweep once and disturb it at a random moment."""
        folder, results = folders
        kind = "disk full" if full_disk else draw.choice(KINDS)
        reference = self.reference(series.config)
        missing = 1 - len(list((results / NAME / "records").glob("*.json"))) / len(reference.records)
        delay_s = draw.uniform(0.1, 1.1) * (reference.seconds * (0.2 + 0.8 * missing) + (2.0 if fresh else 0.0))
        command = self.command(self.words(series.config, results), folder, fresh=fresh)
        if command.wait(delay_s) is not None:
            reference.seconds *= 0.8
        else:
            stage = command.stage()
            disturb(kind, command, draw, results)
            code = command.wait(LONGEST_S)
            if code is None:
                inspection.fault(f"hangs after {kind} in {stage}")
                command.signal(signal.SIGKILL, command.processes())
                code = command.wait(AT_ONCE_S) or KILLED
            series.hits.append(Hit(kind, stage, code))
            if code not in ENDS[kind] | {reference.code} and command.has_begun:
                inspection.fault(f"ended with {code}")
        (results / "ballast").unlink(missing_ok=True)
        inspection.after_each()

    def _publish(self, inspection: Inspection, folder: Path, results: Path, reference: Reference) -> None:
        """Publish to sqlite in the results folder; each record and the sweep itself are one run, finished."""
        if not (results / "mlflow.db").exists():
            shutil.copy(self.store_file, results / "mlflow.db")
        began = time.monotonic()
        code = self.command(("publish", str(results)), folder).wait(LONGEST_S)
        self._publish_s = time.monotonic() - began
        if code != 0:
            inspection.fault(f"publish ended with {code}")
        with contextlib.closing(sqlite3.connect(results / "mlflow.db")) as database:
            for problem in run_problems(database.execute, reference.records.keys(), "sweep"):
                inspection.fault(problem)

    def publish_series(self, number: int, *, over_postgres: bool) -> Series:
        """Disturb the publishing of the same records to one server again and again, let it end, compare what is there.

        Args:
            number: number of the series.
            over_postgres: the server stores its runs in a PostgreSQL that crashes, too.
        """
        draw = random.Random(f"{self.seed} {number}")  # noqa: S311 - moments, no secret
        reference = self.reference(DISK)
        series = Series(number, "publish, PostgreSQL" if over_postgres else "publish, sqlite")
        folder = self._folder(f"{number}")
        results = folder / "results"
        shutil.copytree(self.root / f"clean-{DISK}" / "results" / NAME, results / NAME)
        inspection = Inspection(series, folder, results, reference)
        with contextlib.ExitStack() as stack:
            server_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlflow-", dir=self.public)))
            postgres, store = None, None
            if over_postgres:
                server_folder.chmod(0o755)
                (server_folder / "pg").mkdir()
                postgres = Postgres(server_folder / "pg")
                postgres.start()
                stack.callback(postgres.stop, "immediate")
                store = postgres.uri
            else:
                shutil.copy(self.store_file, server_folder / SERVER_DB)
            server = stack.enter_context(Server(server_folder, store))
            clean = self._published()
            for experiment in (f"e{count}" for count in range(PUBLISHES)):
                words = ("publish", str(results), "--experiment", experiment, "--uri")
                for _ in range(draw.randint(1, 2)):
                    self._publish_disturbed(inspection, (folder, words), server, postgres, draw)
                for _ in range(2):
                    code = self.command((*words, server.url), folder).wait(LONGEST_S)
                    if code != 0:
                        inspection.fault(f"publish ended with {code}")
                inspection.after_each()
                for problem in (
                    *run_problems(server.query, reference.records.keys(), experiment),
                    *other_values(server.query, clean, experiment),
                ):
                    inspection.fault(problem)
        if not series.faults:
            shutil.rmtree(folder)
        return series

    def _publish_disturbed(
        self,
        inspection: Inspection,
        what: tuple[Path, tuple[str, ...]],
        server: Server,
        postgres: Postgres | None,
        draw: random.Random,
    ) -> None:
        """Publish once, and disturb it at a random moment."""
        kind = draw.choice(PUBLISH_KINDS if postgres else PUBLISH_KINDS[:2])
        folder, words = what
        delay_s = draw.uniform(0.02, 1.0) * self._publish_s
        command = self.command((*words, server.url), folder)
        if command.wait(delay_s) is None:
            stage = command.stage()
            if kind == "kill publisher":
                command.signal(signal.SIGKILL, [command.pid])
            elif kind == "kill server":
                server.kill()
            elif postgres is not None:
                postgres.stop("immediate")
            code = command.wait(LONGEST_S)
            if code is None:
                inspection.fault(f"publish hangs after {kind}")
                command.signal(signal.SIGKILL, command.processes())
                code = KILLED
            inspection.series.hits.append(Hit(kind, stage, code))
            if code not in ENDS[kind] | {0}:
                inspection.fault(f"publish ended with {code}")
            if kind == "kill server":
                server.start()
            elif kind != "kill publisher" and postgres is not None:
                postgres.start()
        inspection.after_each()

    def _published(self) -> list[tuple[Any, ...]]:
        """Return the values of the undisturbed records in a store of their own."""
        with self._lock:
            folder = self.root / f"clean-{DISK}"
            if not (folder / "results" / "mlflow.db").exists():
                shutil.copy(self.store_file, folder / "results" / "mlflow.db")
                code = self.command(("publish", str(folder / "results")), folder).wait(LONGEST_S)
                if code != 0:
                    raise SystemExit(f"the undisturbed publish ends with {code}")
            with contextlib.closing(sqlite3.connect(folder / "results" / "mlflow.db")) as database:
                return sorted(database.execute(VALUES.format("sweep")))


class Server:
    """Run one MLflow server that can be killed and started again.

    Args:
        folder: folder of its files.
        store: URI of its database; None for sqlite in the folder.

    Attributes:
        url: where it answers now.
    """

    def __init__(self, folder: Path, store: str | None) -> None:
        self._folder, self._store = folder, store
        self._running = contextlib.ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.url = self._running.enter_context(mlflow_server(self._folder, self._store, LONGEST_S))

    def kill(self) -> None:
        """Send SIGKILL to the server and its workers."""
        self._running.close()

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement, from the database itself."""
        if self._store is None:
            with contextlib.closing(sqlite3.connect(self._folder / SERVER_DB)) as database:
                return list(database.execute(statement))
        import psycopg2

        with contextlib.closing(psycopg2.connect(self._store.replace("+psycopg2", ""))) as database:
            cursor = database.cursor()
            cursor.execute(statement)
            return list(cursor.fetchall())


VALUES = """
SELECT tags.value, metrics.key, metrics.step, metrics.value FROM metrics
JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = 'sweep.key'
JOIN runs ON runs.run_uuid = metrics.run_uuid
JOIN experiments ON experiments.experiment_id = runs.experiment_id AND experiments.name = '{}'
"""
RUNS = """
SELECT runs.run_uuid, runs.status, tags.value FROM runs
JOIN experiments ON experiments.experiment_id = runs.experiment_id AND experiments.name = '{}'
LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'sweep.key' WHERE runs.lifecycle_stage = 'active'
"""


def other_values(query: Callable[[str], Any], clean: list[tuple[Any, ...]], experiment: str) -> Iterator[str]:
    """Yield what differs between the metrics of a store and those of an undisturbed one."""
    values = sorted(query(VALUES.format(experiment)))
    if values != clean:
        some = sorted({*values} ^ {*clean})[:4]
        yield f"{len(values)} values in MLflow, {len(clean)} in an undisturbed store; differing: {some}"


def run_problems(execute: Callable[[str], Any], keys: Any, experiment: str) -> Iterator[str]:
    """Yield what is wrong with the runs of an experiment in which each of `keys`, and the sweep, should be one."""
    rows = list(execute(RUNS.format(experiment)))
    count = collections.Counter(key for _, _, key in rows)
    if count != collections.Counter([*keys, None]):
        yield f"runs in MLflow: {dict(count)}, for {len(keys)} records"
    unfinished = [key for _, status, key in rows if status != "FINISHED"]
    if unfinished:
        yield f"runs that are not finished: {unfinished}"


COLUMNS = ("start", "plan", "worker", "records", "report", "publish")


def column(stage: str) -> str:
    """Return the column of the table for a stage: those of the worker are one, and those around a record."""
    if stage.startswith("worker"):
        return "worker"
    return {"after publish": "publish"}.get(stage, stage if stage in COLUMNS else "records")


def table(all_series: Sequence[Series]) -> str:
    """Return the table of the disturbances: a row a kind, a column a stage, exit codes of the command in each cell."""
    hits = [hit for series in all_series for hit in series.hits]
    lines = [f"| disturbance | number | {' | '.join(COLUMNS)} |", f"|---|---|{'---|' * len(COLUMNS)}"]
    for kind in (kind for kind in ENDS if any(hit.kind == kind for hit in hits)):
        of_kind = [hit for hit in hits if hit.kind == kind]
        cells = []
        for name in COLUMNS:
            codes = collections.Counter(hit.outcome for hit in of_kind if column(hit.stage) == name)
            cells.append(", ".join(f"{count} x {code}" for code, count in sorted(codes.items())))
        lines.append(f"| {kind} | {len(of_kind)} | {' | '.join(cells)} |")
    return "\n".join(lines)


MOUNT = 'mount -t tmpfs -o size="$0" tmpfs "$1" && mount -t tmpfs tmpfs /dev/shm && shift && exec "$@"'
WAYS = (["unshare", "-m", "sh", "-c", MOUNT], ["unshare", "-rm", "sh", "-c", MOUNT])  # as root; as any other user
OWN_DISK = "SWEEP_TEST_DISK"


def without_postgres() -> str | None:
    """Return why no PostgreSQL can be started here; None if it can."""
    if os.geteuid() == 0 and int(Path("/proc/self/uid_map").read_text().split()[2]) <= 1:
        return "it refuses to be root's, and in this namespace there is no other user"
    return missing_postgres()


def enter_namespace(disk: Path) -> None:
    """Start this program again where `disk` is a small disk and shared memory is its own, if that is possible here."""
    for way in WAYS:
        command = [*way, DISK_SIZE, str(disk)]
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                os.environ[OWN_DISK] = str(disk)
                os.execvp(command[0], [*command, sys.executable, *sys.argv])  # noqa: S606 - this very program
    sys.stderr.write("no small disk and no shared memory of its own here: both are left out\n")


def main() -> int:
    """Run the campaign; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--fresh", type=float, default=0.0, metavar="SHARE", help="of the series in fresh processes")
    parser.add_argument("--configs", default=",".join(CONFIGS))
    parser.add_argument("--servers", action="store_true", help="kill MLflow servers and PostgreSQL, too")
    parser.add_argument("--root", type=Path, help="folder for everything [a temporary one]")
    parser.add_argument("--store", type=Path, help="sqlite file of an MLflow store without runs [made]")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if OWN_DISK not in os.environ:
        with tempfile.TemporaryDirectory(prefix="disk-") as folder:
            enter_namespace(Path(folder))
    if options.servers and (reason := without_postgres()):
        sys.stderr.write(f"PostgreSQL is left out: {reason}\n")
    disk = Path(os.environ[OWN_DISK]) if OWN_DISK in os.environ else None
    with contextlib.ExitStack() as stack:
        root = options.root or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kills-")))
        campaign = Campaign(root, disk, options)
        if options.store:
            shutil.copy(options.store, campaign.store_file)
        else:
            from mlflow_store import client

            client(f"sqlite:///{campaign.store_file}").search_experiments()
        campaign.start_forking()
        all_series = run(campaign, options.kills, options.jobs)
    faults = [fault for series in all_series for fault in series.faults]
    hits = sum(len(series.hits) for series in all_series)
    shared = list(map(str, Path("/dev/shm").iterdir())) if disk else []  # noqa: S108 - it is this program's own
    faults += [f"shared memory left: {shared}"] if shared else []
    text = f"{hits} disturbances in {len(all_series)} sweeps, {len(faults)} faults, seed {options.seed}"
    sys.stdout.write("\n".join([table(all_series), text, *faults]) + "\n")
    if options.table:
        options.table.write_text(json.dumps([dataclasses.asdict(series) for series in all_series], indent=1))
    return 1 if faults else 0


def run(campaign: Campaign, kills: int, jobs: int) -> list[Series]:
    """Run series side by side until `kills` disturbances have hit."""
    done: list[Series] = []
    numbers = iter(range(10**6))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if sum(len(series.hits) for series in done) >= kills:
                    return
                number = next(numbers)
            try:
                series = campaign.series(number)
            except Exception as error:  # noqa: BLE001 - told with the faults; the other series go on
                series = Series(number, "the campaign itself", faults=[f"series {number}: {error!r}"])
            with lock:
                done.append(series)
                sys.stderr.write(
                    f"{sum(len(item.hits) for item in done)} {series.config} "
                    f"{[(hit.kind, hit.stage, hit.outcome) for hit in series.hits]} {series.faults}\n"
                )
                sys.stderr.flush()

    with ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(work) for _ in range(jobs)]:
            future.result()
    return done


if __name__ == "__main__":
    sys.exit(main())
