"""Real children that fail, die, hang and talk out of turn; the parent's word on each."""

import os
import signal
import time

import passes
import psutil
import pytest

from sweep.runner import messages
from sweep.runner.worker_process import Worker
from sweep.spec import LoadAxes, ModelRef, OnnxAxes, Precision, Script, SessionAxes, Variant
from sweep.storage import samples, samples_file

LONG_S = 60.0


@pytest.fixture
def start(tmp_path):
    """Starts workers, and sees to it that none stays."""
    workers = []

    def begin(**environment):
        workers.append(Worker(tmp_path / "logs" / "worker.log", environment))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.kill()


@pytest.fixture
def job(tmp_path):
    """A job of the simulated backend, which needs no model run and little time."""

    def make(*, min_requests=100, script=None, **changes):
        variant = Variant(
            backend="simulated",
            onnx=OnnxAxes(model=ModelRef(name="mlp", revision=1), precision=Precision(name="fp32", dtype="fp32")),
            session=SessionAxes(script=script or Script()),
            load=LoadAxes(kind="closed", min_requests=min_requests, min_s=0.01, warmup_s=0.01),
        )
        return passes.request(variant, tmp_path, **{"samples": tmp_path / "samples.npz", **changes})

    return make


def ignore(_event) -> None:
    pass


def gone(pid):
    """Whether no process of the group is left, but for the dead that wait for their parent."""
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        alive = [item for item in psutil.process_iter(["status"]) if item.info["status"] != psutil.STATUS_ZOMBIE]
        if not any(group_of(item.pid) == pid for item in alive):
            return True
        time.sleep(0.05)
    return False


def group_of(pid):
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def customised(folder, code):
    """Environment of a child that runs ``code`` before anything of its own, as a site's set-up may."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    paths = filter(None, [str(folder), os.environ.get("PYTHONPATH")])
    root = os.path.dirname(os.path.dirname(os.path.abspath(samples.__file__)))  # noqa: PTH100, PTH120
    return {"PYTHONPATH": os.pathsep.join([*paths, root])}


def test_a_job_is_done_and_its_stages_are_told_in_order(start, job, tmp_path) -> None:
    worker, events = start(), []
    outcome = worker.run(job(), events.append, LONG_S)
    assert (outcome.status, outcome.error) == ("ok", None)
    assert outcome.result
    assert outcome.result.realised["contexts"] == 1
    stages = dict.fromkeys(event.stage for event in events if isinstance(event, messages.Stage))
    assert list(stages) == ["model", "onnx", "build", "load", "measure", "accuracy"]
    assert samples_file.load(tmp_path / "samples.npz")
    worker.close()
    assert gone(worker.pid)


@pytest.mark.parametrize(
    ("stage", "kind"), [("build", "BuildError"), ("load", "SessionError"), ("measure", "LoadError")]
)
def test_a_job_that_raises_has_failed_and_the_worker_lives(start, job, stage, kind) -> None:
    worker = start()
    outcome = worker.run(job(script=Script(raise_at=stage)), ignore, LONG_S)
    assert outcome.status == "failed"
    assert outcome.error
    assert (outcome.error["stage"], outcome.error["kind"]) == (stage, kind)
    assert outcome.error["message"] == f"scripted error in {stage}"
    assert f"{kind}: scripted error in {stage}" in outcome.error["stderr_tail"]
    assert worker.run(job(), ignore, LONG_S).status == "ok"


def test_an_error_that_nobody_foresaw_has_the_stage_it_came_in(start, job, tmp_path) -> None:
    (tmp_path / "taken").write_text("")
    outcome = start().run(job(samples=tmp_path / "taken" / "x.npz"), ignore, LONG_S)
    assert outcome.status == "failed"
    assert outcome.error
    assert outcome.error["stage"] == "measure"
    assert "\n" not in outcome.error["message"]


def test_a_killed_child_is_crashed_with_signal_stage_and_tail(start, job, tmp_path) -> None:
    worker = start(**customised(tmp_path / "site", "import sys; sys.stderr.write('last words\\n')"))

    def kill(event) -> None:
        if isinstance(event, messages.Stage) and event.stage == "model":
            os.kill(worker.pid, signal.SIGKILL)

    outcome = worker.run(job(min_requests=10**7), kill, LONG_S)
    assert outcome.status == "crashed"
    assert outcome.error
    assert outcome.error["kind"] == "SIGKILL"
    assert outcome.error["stage"] in {"model", "onnx", "build", "load", "measure"}
    assert "dmesg" in outcome.error["message"]
    assert outcome.error["stderr_tail"] == ["last words"]
    again = worker.run(job(), ignore, LONG_S)
    assert again.status == "crashed"


def test_a_child_that_leaves_by_itself_is_crashed_with_its_code(start, job, tmp_path) -> None:
    outcome = start(**customised(tmp_path / "site", "import os; os._exit(7)")).run(job(), ignore, LONG_S)
    assert outcome.status == "crashed"
    assert outcome.error
    assert (outcome.error["stage"], outcome.error["message"]) == ("start", "the worker exited with code 7")


def test_a_suspended_child_is_a_timeout_and_its_group_is_gone(start, job) -> None:
    worker = start()
    assert worker.run(job(), ignore, LONG_S).status == "ok"
    os.kill(worker.pid, signal.SIGSTOP)
    began = time.monotonic()
    outcome = worker.run(job(), ignore, 0.5)
    assert outcome.status == "timeout"
    assert outcome.error
    assert outcome.error["kind"] == "Timeout"
    assert "for 0.5 s (timeout_s)" in outcome.error["message"]
    assert 0.5 < time.monotonic() - began < 10
    assert gone(worker.pid)


GRANDCHILD = """
import signal, subprocess
ignore = lambda: signal.signal(signal.SIGTERM, signal.{action})
subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL, preexec_fn=ignore)
"""


@pytest.mark.parametrize("action", ["SIG_DFL", "SIG_IGN"])
@pytest.mark.parametrize("how", ["kill", "died"])
def test_what_the_child_started_ends_with_it(start, job, tmp_path, action, how) -> None:
    worker = start(**customised(tmp_path / "site", GRANDCHILD.format(action=action)))
    assert worker.run(job(), ignore, LONG_S).status == "ok"
    (grandchild,) = psutil.Process(worker.pid).children()
    try:
        if how == "died":
            os.kill(worker.pid, signal.SIGKILL)
            assert worker.run(job(), ignore, LONG_S).status == "crashed"
        worker.kill()
        assert gone(worker.pid)
    finally:
        if grandchild.is_running():
            grandchild.kill()


TALKS = """
import os, sys

def talk(event, args):
    if event == "open" and str(args[0]).endswith("entry.json"):
        os.write(1, b"{noise}")

sys.addaudithook(talk)
"""


@pytest.mark.parametrize("noise", ["banner\\n", "no end of line", '{\\"event\\": \\"result\\"}\\n'])
def test_a_library_that_prints_does_not_garble_the_events(start, job, tmp_path, noise) -> None:
    worker = start(**customised(tmp_path / "site", TALKS.replace("{noise}", noise)))
    outcome = worker.run(job(), ignore, LONG_S)
    assert outcome.status == "ok"
    assert outcome.result
    assert outcome.result.realised["contexts"] == 1
    assert noise.split("\\")[0][:6] in (tmp_path / "logs" / "worker.log").read_text()


def test_a_banner_before_the_worker_is_ready_does_not_end_the_sweep(start, job, tmp_path) -> None:
    worker = start(**customised(tmp_path / "site", "import os; os.write(1, b'cluster news of today\\n')"))
    assert worker.run(job(), ignore, LONG_S).status == "ok"


def test_a_malformed_event_ends_the_variant_in_one_line(start, job, tmp_path) -> None:
    code = """import os; os.write(1, b'{"event": "stage", "done": "half"}' + bytes([10]))"""
    worker = start(**customised(tmp_path / "site", code))
    outcome = worker.run(job(), ignore, LONG_S)
    assert outcome.status == "failed"
    assert outcome.error
    assert (outcome.error["stage"], outcome.error["kind"]) == ("start", "MessageError")
    assert outcome.error["message"].startswith("a message between processes is malformed (")
    assert gone(worker.pid)


def test_closing_and_killing_twice_is_harmless(start, job) -> None:
    worker = start()
    assert worker.run(job(), ignore, LONG_S).status == "ok"
    worker.close()
    worker.close()
    worker.kill()
    assert gone(worker.pid)


def test_the_tail_is_of_this_worker_alone(start, job, tmp_path) -> None:
    start().run(job(script=Script(raise_at="build")), ignore, LONG_S)
    outcome = start().run(job(script=Script(raise_at="load")), ignore, LONG_S)
    assert outcome.error
    assert outcome.error["stderr_tail"] == ["SessionError: scripted error in load"]
    assert (tmp_path / "logs" / "worker.log").read_text().count("scripted error") == 2
