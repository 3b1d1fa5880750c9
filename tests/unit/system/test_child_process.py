"""Real children: what they answer, what is left of them, and what becomes of them with their parent."""

import ast
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import stepped_clocks

from sweep.system import child_process
from sweep.system.child_process import ChildProcess, RefusedError, module_command, module_environment

SERVING = """
import sys
from sweep.system.child_process import RefusedError, serve

def answer(message):
    print("a library's own words", flush=True)
    if "refuse" in message:
        raise RefusedError(message["refuse"])
    if "exit" in message:
        sys.exit(message["exit"])
    return {"echo": message["word"]}

serve(answer)
"""
PR_SET_CHILD_SUBREAPER = 36
WAITING = "import time; print('ready', flush=True); time.sleep(600)"
PARENT = """
import sys, time
from sweep.system.child_process import ChildProcess, module_environment
child = ChildProcess([sys.executable, "-c", sys.argv[1]], "it", environment=module_environment(), own_session=True)
assert child.read_line() == b"ready"
print(child.pid, flush=True)
time.sleep(600)
"""
ORPHAN = """
import time
from sweep.system.child_process import die_with_parent
die_with_parent()
print("ready", flush=True)
time.sleep(600)
"""
STOPPED = "import os, signal; print('ready', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"


@pytest.fixture
def start():
    children = []

    def begin(code, **options) -> ChildProcess:
        command = [sys.executable, "-c", code]
        children.append(ChildProcess(command, "the child", environment=module_environment(), **options))
        return children[-1]

    yield begin
    for child in children:
        child.kill()


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_answers_each_request_and_keeps_what_is_printed(start) -> None:
    child = start(SERVING)
    assert [child.request({"word": word}) for word in ("a", "ä")] == [{"echo": "a"}, {"echo": "ä"}]
    assert child.output_tail().splitlines() == ["a library's own words"] * 2
    child.close()
    assert child.wait() == 0
    assert len(child.output_tail().splitlines()) == 2, "also after its end"
    child.close()


def test_it_refuses_in_its_own_words_and_lives(start) -> None:
    child = start(SERVING)
    with pytest.raises(RefusedError, match=r"^not that$"):
        child.request({"refuse": "not that"})
    with pytest.raises(RefusedError, match=r"^KeyError: 'word'$"):
        child.request({})
    assert child.request({"word": "b"}) == {"echo": "b"}


def test_its_end_is_told_with_its_last_words(start) -> None:
    child = start(SERVING)
    with pytest.raises(RefusedError, match=r"^the child ended with status 1: out of luck$"):
        child.request({"exit": "out of luck"})
    with pytest.raises(RefusedError, match="ended with status 1"):
        child.request({"word": "a"})


def test_a_command_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        ChildProcess(["/nowhere/python"], "the child")


def test_silence_ends_at_the_deadline_and_death_at_once(start) -> None:
    child = start(WAITING)
    assert child.read_line() == b"ready"
    with pytest.raises(TimeoutError):
        child.read_line(time.monotonic() + 0.1)
    child.send_sigkill()
    assert child.read_line() is None
    assert child.wait() == -signal.SIGKILL
    child.kill()
    with pytest.raises(OSError):  # noqa: PT011 - which one, the kernel decides
        child.send(b"x\n" * 100_000)


class SteppingTime:
    """The module `time` whose monotonic clock steps once, between the first and the second reading."""

    def __init__(self, clocks, by_s) -> None:
        self._clocks, self._steps = clocks, [0.0, by_s]

    def monotonic(self) -> float:
        if self._steps:
            self._clocks.step(self._steps.pop(0), stepped_clocks.CLOCK_MONOTONIC)
        return self._clocks.now_ns() / 1e9


@pytest.mark.parametrize("by_s", [60.0, -60.0])
def test_a_clock_that_steps_moves_no_deadline(start, monkeypatch, by_s) -> None:
    child = start(WAITING)
    assert child.read_line() == b"ready"
    clocks = stepped_clocks.install(monkeypatch)
    stepping = SteppingTime(clocks, by_s)
    monkeypatch.setattr(child_process, "time", stepping)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        child.read_line(stepping.monotonic() + 0.3)
    assert 0.2 < time.monotonic() - began < 10


STARTS = """
import subprocess, sys, time
children = [subprocess.Popen(["sleep", "600"], start_new_session=new) for new in (False, True)]
print(*[child.pid for child in children], flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("own_session", [True, False])
def test_what_it_started_ends_with_it(start, own_session) -> None:
    child = start(STARTS, own_session=own_session)
    pids = [int(word) for word in child.read_line().split()]
    child.kill()
    wait_until(lambda: not any(map(psutil.pid_exists, pids)))


@pytest.mark.parametrize("stopped", [False, True])
def test_it_dies_with_its_parent_however_that_ends(stopped) -> None:
    """Also one that was stopped before its program could ask for it: it never gets to look at its parent."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, STOPPED if stopped else ORPHAN],
        stdout=subprocess.PIPE,
        env=module_environment(),
        text=True,
    )
    pid = int(parent.stdout.readline())
    if stopped:
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


LATE = "import time\nprint('ready', flush=True)\ntime.sleep(1)\n" + ORPHAN


def test_every_process_of_the_package_is_bound_to_its_parent() -> None:
    """Those of MPS are not: the daemon serves other processes too."""
    package = Path(child_process.__file__).parents[1]
    calls = []
    for path in package.rglob("*.py"):
        if path.parent.name != "mps" and "subprocess." in (text := path.read_text()):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in {"subprocess.run", "subprocess.Popen"}:
                    bound = any(
                        word.arg == "preexec_fn" and "DIE_WITH_PARENT" in ast.unparse(word) for word in node.keywords
                    )
                    calls.append((path.name, node.lineno, bound))
    assert len(calls) > 4
    assert [call for call in calls if not call[2]] == []


def test_an_orphan_of_a_subreaper_leaves_too(monkeypatch) -> None:
    """Below systemd or a container's init no orphan is a child of process 1; here the parent dies before it can ask."""
    library = ctypes.CDLL(None)
    library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        unbound = "from sweep.system import child_process; child_process.DIE_WITH_PARENT = None\n"
        command = [sys.executable, "-c", unbound + PARENT, LATE]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, env=module_environment(), text=True)
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.communicate()
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1, "it left, rather than was killed"
    finally:
        library.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("parent", "told", "leaves"),
    [(1, None, True), (1, "1", False), (1, "7", True), (40, "7", True), (40, "40", False), (40, None, False)],
)
def test_a_child_knows_whether_it_was_adopted(monkeypatch, parent, told, leaves) -> None:
    """In a container `sweep` itself may be process 1; elsewhere process 1 adopts the child of a dead parent."""
    monkeypatch.setattr(child_process, "DIE_WITH_PARENT", lambda: None)
    monkeypatch.setattr(os, "getppid", lambda: parent)
    monkeypatch.delenv("SWEEP_PARENT_PID", raising=False)
    if told is not None:
        monkeypatch.setenv("SWEEP_PARENT_PID", told)
    if leaves:
        with pytest.raises(SystemExit, match="the parent process is gone"):
            child_process.die_with_parent()
    else:
        child_process.die_with_parent()


def test_its_stderr_may_go_elsewhere(start, tmp_path) -> None:
    path = tmp_path / "log"
    path.write_text("of an earlier one\n")
    child = start("import sys; print('mine', file=sys.stderr)", stderr=path.open("a+b"))
    assert child.read_line() is None
    child.log(b"a stray line")
    assert child.output_tail() == "mine\na stray line\n"
    assert path.read_text() == "of an earlier one\nmine\na stray line\n"


def test_it_stays_on_its_cores(start) -> None:
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    child = start("import os; print(*os.sched_getaffinity(0), flush=True)", cores=[core])
    assert child.read_line() == str(core).encode()
    assert os.sched_getaffinity(0) == before


def test_a_module_is_found_from_anywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = subprocess.run(
        module_command("sweep.system.child_process"), env=module_environment(), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
