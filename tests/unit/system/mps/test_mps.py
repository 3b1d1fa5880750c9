"""The MPS daemon's life, with a real process in its place: start, reuse, stop, and whatever dies on the way."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fake_mps
import pytest
from fake_nvml import FakeNvml, NVMLError

from sweep.errors import MpsError
from sweep.system import mps, nvml
from sweep.system.mps import control, daemon

PIPES, SHARE = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
SWEEP = """
import sys
from sweep.system.mps import Mps
made = Mps(None)
print(made.environment(50)["CUDA_MPS_PIPE_DIRECTORY"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def fresh():
    """What was found out of another test's machine is forgotten."""
    mps.available.cache_clear()
    yield
    mps.available.cache_clear()


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A short folder for temporary files, with the stand-in on PATH; all that runs below it is ended afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="m", dir="/tmp"))  # a socket's path must be short
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("PATH", fake_mps.on_path(fake_mps.install(tmp_path / "bin")))
    for name in (PIPES, SHARE, "FAKE_MPS"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    monkeypatch.delenv("FAKE_MPS", raising=False)
    for left in folder.rglob("pipe"):
        for pid in control.processes(left):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def made(place):
    held = mps.Mps(None)
    yield held
    held.close()


def pids_of(environment: dict[str, str]) -> list[int]:
    return control.processes(Path(environment[PIPES]))


def eventually(condition, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def sweeping() -> tuple[subprocess.Popen, Path]:
    """Another process that holds a daemon, and the daemon's pipes."""
    child = subprocess.Popen([sys.executable, "-c", SWEEP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return child, Path(child.stdout.readline().strip())


def watcher_of(pipes: Path) -> int:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"sweep.system.mps" in words and str(pipes.parent).encode() in words:
            return int(entry.parent.name)
    raise AssertionError("no watcher")


def test_without_a_share_no_daemon_runs_and_none_is_found(made, place, monkeypatch) -> None:
    monkeypatch.setenv(PIPES, "/somewhere")
    assert made.environment(None) == {PIPES: "/dev/null"}
    assert list(place.iterdir()) == []


def test_a_daemon_starts_when_needed_serves_all_shares_and_stops(made, place) -> None:
    first = made.environment(50)
    assert first[SHARE] == "50"
    assert len(pids_of(first)) == 2
    second = made.environment(25)
    assert second == {**first, SHARE: "25"}
    assert len(pids_of(first)) == 2
    made.close()
    assert pids_of(first) == []
    assert not Path(first[PIPES]).parent.exists()
    made.close()


def test_its_folders_are_short_and_closed_to_others(made, place) -> None:
    found = made.environment(50)
    pipes, logs = Path(found[PIPES]), Path(found["CUDA_MPS_LOG_DIRECTORY"])
    for folder in (pipes, logs, pipes.parent, pipes.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(os.fsencode(pipes / "control_privileged")) < 108
    state = json.loads((pipes.parent / "state.json").read_text())
    assert state["pid"] in pids_of(found)
    assert state["started"] == control.started(state["pid"])
    assert state["uid"] == os.getuid()
    assert stat.S_IMODE((pipes.parent / "state.json").stat().st_mode) == 0o600


def test_a_long_temporary_folder_is_passed_over(place, monkeypatch) -> None:
    deep = place / ("d" * 70)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    assert daemon.root_folder() == Path(f"/tmp/sweep-mps-{os.getuid()}")  # noqa: S108 - what is asserted


@pytest.mark.parametrize("spoil", ["open", "link"])
def test_a_root_that_others_may_enter_is_refused(place, spoil) -> None:
    root = daemon.root_folder()
    if spoil == "open":
        root.chmod(0o755)
    else:
        root.rmdir()
        (place / "theirs").mkdir(mode=0o700)
        root.symlink_to(place / "theirs")
    with pytest.raises(MpsError, match="is not this user's alone; remove it"):
        mps.Mps(None).environment(50)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_died_is_replaced(made, number) -> None:
    first = made.environment(50)
    dead = json.loads((Path(first[PIPES]).parent / "state.json").read_text())["pid"]
    os.kill(dead, number)
    assert eventually(lambda: control.started(dead) is None)
    second = made.environment(50)
    assert second[PIPES] != first[PIPES]
    assert len(pids_of(second)) == 2
    assert pids_of(first) == []  # its server outlives a SIGKILL; we do not leave it
    assert not Path(first[PIPES]).parent.exists()


def test_one_that_ignores_quit_and_sigterm_is_killed(made, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_MPS", "deaf")
    monkeypatch.setattr(daemon, "_QUIT_S", 0.3)
    monkeypatch.setattr(daemon, "_TERM_S", 0.3)
    found = made.environment(50)
    made.close()
    assert pids_of(found) == []


def test_one_that_does_not_start_is_said_in_a_line(made, place, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_MPS", "broken")
    with pytest.raises(MpsError, match=r"could not be started \(.*-d: code 1\): An instance of this daemon") as raised:
        made.environment(50)
    assert "\n" not in str(raised.value)
    assert [path.name for path in (place / f"sweep-mps-{os.getuid()}").iterdir()] == [".lock"]


def test_shares_and_gpus_of_the_caller_do_not_bound_the_daemon(made, monkeypatch) -> None:
    monkeypatch.setenv(SHARE, "10")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    for gpu, expected in ((None, None), ("GPU-12", "GPU-12")):
        held = mps.Mps(None, gpu)
        pid = pids_of(held.environment(50))[0]
        words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        variables = dict(word.partition("=")[::2] for word in words)
        held.close()
        assert SHARE not in variables
        assert variables.get("CUDA_VISIBLE_DEVICES") == expected


def test_the_users_own_is_used_and_never_ended(place, tmp_path) -> None:
    theirs = place / "pipe"  # what the fixture looks for when it ends what is left
    theirs.mkdir()
    subprocess.run(["nvidia-cuda-mps-control", "-d"], env={**os.environ, PIPES: str(theirs)}, check=True)
    made = mps.Mps(str(theirs))
    assert made.environment(50) == {PIPES: str(theirs), SHARE: "50"}
    assert made.environment(None) == {PIPES: "/dev/null"}
    made.close()
    assert len(control.processes(theirs)) == 2
    own = mps.Mps(None)
    own.environment(50)  # a daemon of ours beside it, whose start looks for leftovers
    own.close()
    assert len(control.processes(theirs)) == 2


def test_the_users_own_that_does_not_answer_is_said_in_a_line(place) -> None:
    (place / "empty").mkdir()
    with pytest.raises(MpsError, match=r"no MPS daemon answers at .*/empty: Cannot find MPS control daemon") as raised:
        mps.Mps(str(place / "empty")).environment(50)
    assert "\n" not in str(raised.value)


def test_a_killed_sweep_leaves_nothing(place) -> None:
    child, pipes = sweeping()
    assert len(control.processes(pipes)) == 2
    child.kill()
    child.wait()
    assert eventually(lambda: not control.processes(pipes) and not pipes.parent.exists())


def test_what_a_killed_sweep_and_its_killed_watcher_left_goes_at_the_next_start(place) -> None:
    child, pipes = sweeping()
    os.kill(watcher_of(pipes), signal.SIGKILL)
    child.kill()
    child.wait()
    time.sleep(0.3)
    assert len(control.processes(pipes)) == 2
    held = mps.Mps(None)
    found = held.environment(50)
    assert control.processes(pipes) == []
    assert not pipes.parent.exists()
    assert len(pids_of(found)) == 2
    held.close()


def test_a_living_sweeps_daemon_is_left_alone(place) -> None:
    child, pipes = sweeping()
    held = mps.Mps(None)
    assert Path(held.environment(50)[PIPES]) != pipes
    held.close()
    assert len(control.processes(pipes)) == 2
    child.communicate("")
    assert child.returncode == 0
    assert eventually(lambda: not pipes.parent.exists())


def test_a_state_that_names_a_strangers_process_ends_nobody(place) -> None:
    """A pid that was given out anew, or was written by hand, is no reason to kill."""
    stranger = subprocess.Popen(["sleep", "60"])
    left = daemon.root_folder() / "left"
    left.mkdir(mode=0o700)
    (left / "state.json").write_text(json.dumps({"pid": stranger.pid, "started": control.started(stranger.pid)}))
    held = mps.Mps(None)
    held.environment(50)
    held.close()
    assert not left.exists()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@pytest.mark.parametrize("share", [0, 101, -5])
def test_a_share_that_is_none_is_refused(made, share) -> None:
    with pytest.raises(MpsError, match=f"mps={share}: a percentage from 1 to 100"):
        made.environment(share)


@pytest.mark.parametrize(
    ("variables", "share"),
    [
        ({}, None),
        ({SHARE: "50"}, 50),
        ({SHARE: "50", PIPES: "/tmp/pipes"}, 50),  # noqa: S108 - a name
        ({SHARE: "50", PIPES: "/dev/null"}, None),
        ({SHARE: ""}, None),
    ],
)
def test_the_share_of_a_process_is_in_its_variables(variables, share) -> None:
    assert mps.share_of(variables) == share
    assert mps.share_of(mps.without(variables)) is None


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (FakeNvml(), None),
        (FakeNvml(mig=NVMLError(3)), None),
        (FakeNvml(mig=(0,)), "MPS shares are not given on a GPU in MIG mode, whose instances divide it already"),
        (FakeNvml(capability=(6, 1)), "MPS gives shares from compute capability 7.0 on; this GPU has 6.1"),
        (None, "MPS needs an NVIDIA GPU and none is seen here"),
    ],
)
def test_why_mps_cannot_be_used(place, monkeypatch, found, reason) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvml, "library", lambda: found)
    assert mps.available() == reason


def test_mps_needs_its_program(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mps.available().startswith("MPS needs nvidia-cuda-mps-control, which is not on PATH; it comes with")
    with pytest.raises(MpsError, match="which is not on PATH"):
        mps.Mps(None).environment(50)
