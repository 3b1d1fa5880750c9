"""``sweep trtexec --parity`` in a process of its own, with a stand-in that replays the real binary's output.

The real binaries cannot be had here: these tests hold the process, the parser and the arithmetic, not NVIDIA's tool.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from forked_command import run_forked

from sweep.storage import record_file
from sweep.storage.store import Store

DATA = Path(__file__).parents[3] / "data"
KEPT = Path(__file__).parents[3] / "data" / "records"


@pytest.fixture
def place(tmp_path):
    """A results folder with one real record and a file where its engine would be."""
    return Place(tmp_path)


class Place:
    """Records, a cache and a PATH of their own, and the command run among them."""

    def __init__(self, root):
        self.root, self.results, self.bin = root, root / "results", root / "bin"
        self.bin.mkdir()
        self.env = {}
        records = map(record_file.read, KEPT.glob("*.json"))
        found = next(record for record in records if record.variant["label"] == "unet fp32 b8 s1 graph")
        self.found = found
        self.store = Store(self.results / found.sweep)
        self.keep(found)
        self.plan = self.results / "cache" / "engines" / found.engine["key"] / "engine.plan"
        self.plan.parent.mkdir(parents=True)
        self.plan.write_bytes(b"an engine")

    def keep(self, found):
        self.store.write(found)
        self.path = self.store.record_path(found.key)

    def of_tensorrt(self, version):
        import dataclasses

        changed = dataclasses.replace(
            self.found,
            variant={**self.found.variant, "backend": "tensorrt"},
            facts={**self.found.facts, "tensorrt": f"tensorrt {version}"},
        )
        self.keep(changed)

    def binary(self, name, text="", script="", code=0):
        """An executable that writes down what it got, prints ``text``, and does ``script``."""
        (self.root / "said").write_text(text)
        target = self.bin / name
        target.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$NVIDIA_TF32_OVERRIDE" "$@" > {self.root}/got\n'
            f"cat {self.root}/said\n{script}\nexit {code}\n"
        )
        target.chmod(0o755)
        return target

    def run(self, *words):
        environment = {**os.environ, "PATH": f"{self.bin}:/usr/bin:/bin", **self.env}
        return run_forked(("trtexec", str(self.path), *words), environment, self.root, 120)

    @property
    def kept(self):
        return self.store.root / "parity" / f"{self.found.key}.json"

    @property
    def log(self):
        return self.kept.with_suffix(".log")


def only_line(done, code):
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("sweep trtexec: ")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_difference_is_recorded_beside_the_record(place) -> None:
    """The listing of tensorrt_rtx in NVIDIA's docs against a published record: 1133.1 qps and 0.881485 ms are its."""
    before = place.path.read_bytes()
    place.binary("tensorrt_rtx", (DATA / "tensorrt_rtx-docs.txt").read_text())
    done = place.run("--parity")
    assert (done.returncode, done.stderr) == (0, "")
    kept = json.loads(place.kept.read_text())
    assert kept["binary"] == str(place.bin / "tensorrt_rtx")
    assert kept["version"] is None
    assert (place.root / "got").read_text().splitlines() == ["0", *kept["command"][1:]]
    assert kept["command"][1] == f"--loadEngine={place.plan}"
    assert kept["env"] == {"NVIDIA_TF32_OVERRIDE": "0"}
    assert kept["throughput_qps"] == 1133.1
    assert kept["enqueue_ms"]["median"] == 0.005249
    ours = 3560.3793606226172 / 8
    assert kept["ours"]["throughput_qps"] == pytest.approx(ours)
    assert kept["ours"]["interval_qps"] == pytest.approx([3541.8229526066743 / 8, 3578.935768638562 / 8])
    assert kept["ours"]["latency_ms"] == pytest.approx(0.036192385904 + 2.164916129493 + 0.044498051279)
    assert kept["difference_pct"]["throughput_qps"] == pytest.approx((1133.1 / ours - 1) * 100)
    assert kept["difference_pct"]["gpu_compute_ms"] == pytest.approx((0.881485 / 2.1649161294934256 - 1) * 100)
    assert kept["difference_pct"]["enqueue_ms"] is None
    assert kept["not_compared"] == {"enqueue_ms": "sweep does not time the enqueue alone"}
    assert "the binary did not say its version" in kept["caveats"]
    assert place.log.read_text() == (DATA / "tensorrt_rtx-docs.txt").read_text()
    assert place.path.read_bytes() == before
    assert "+154.60%" in done.stdout
    assert "-59.28%" in done.stdout
    assert str(place.kept) in done.stdout


def test_trtexec_of_the_same_major_with_another_minor_is_a_caveat(place) -> None:
    place.of_tensorrt("10.16.0.72")
    place.binary("trtexec", (DATA / "trtexec-10.13.txt").read_text())
    done = place.run("--parity")
    assert (done.returncode, done.stderr) == (0, "")
    kept = json.loads(place.kept.read_text())
    assert kept["version"] == "10.13.0"
    assert "the binary is of 10.13.0, the record of 10.16.0.72" in kept["caveats"]
    assert any("bound by Enqueue Time" in line for line in kept["warnings"])
    assert "--useCudaGraph" in kept["command"]


def test_another_major_means_other_things_and_is_refused(place) -> None:
    place.of_tensorrt("11.1.0.106")
    place.binary("trtexec", (DATA / "trtexec-10.13.txt").read_text())
    line = only_line(place.run("--parity"), 1)
    assert "it is 10.13.0 and the flags were for TensorRT 11.x" in line
    assert not place.kept.exists()
    assert place.log.exists()


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("[I] CUDA Graph: Disabled\n", "it says CUDA Graph: Disabled, and the record ran with cuda_graph=true"),
        ("[I] Data transfers: Disabled\n", "it says Data transfers: Disabled, and the record ran with transfers=true"),
        (
            "[W] The specified --useCudaGraph flag has been ignored. The inference will be launched without\n",
            "it ran without the CUDA graph",
        ),
    ],
)
def test_a_run_of_something_else_is_refused(place, said, word) -> None:
    place.of_tensorrt("10.13.0.35")
    place.binary("trtexec", said + (DATA / "trtexec-10.13.txt").read_text())
    assert word in only_line(place.run("--parity"), 1)
    assert not place.kept.exists()


@pytest.mark.parametrize("name", ["trtexec-10.0-failed.txt", "trtexec-10.3-unknown-option.txt"])
def test_a_binary_that_fails_is_quoted(place, name) -> None:
    place.of_tensorrt("10.13.0.35")
    place.binary("trtexec", (DATA / name).read_text(), code=1)
    line = only_line(place.run("--parity"), 1)
    assert "ended with code 1" in line
    assert ("Inference set up failed" in line) or ("Unknown option: --workspace 2048" in line)
    assert str(place.log) in line
    assert not place.kept.exists()


@pytest.mark.parametrize(
    ("text", "script", "word"),
    [
        ("\x00 not a summary\n", "", "no performance summary in its output"),
        ("", "kill -SEGV $$", "was killed by SIGSEGV"),
        ("", "exit 3", "ended with code 3"),
    ],
)
def test_garbage_a_crash_and_silence(place, text, script, word) -> None:
    place.binary("tensorrt_rtx", text, script)
    assert word in only_line(place.run("--parity"), 1)
    assert not place.kept.exists()


def test_it_is_killed_at_the_limit_with_its_children(place) -> None:
    place.binary("tensorrt_rtx", "started\n", f"sleep 300 & echo $! > {place.root}/child; wait")
    start = time.monotonic()
    line = only_line(place.run("--parity", "--timeout-s=1.5"), 1)
    assert "ran past --timeout-s 1.5 and was killed" in line
    assert time.monotonic() - start < 60
    assert place.log.read_text() == "started\n"
    child = int((place.root / "child").read_text())
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def alive(pid):
    """Runs, or waits in vain to be reaped by an init that does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_file_that_cannot_be_executed(place) -> None:
    binary = place.binary("tensorrt_rtx")
    binary.write_bytes(b"\x7fELF no program")
    assert "cannot be started" in only_line(place.run("--parity"), 1)


def test_without_the_binary_it_says_what_to_do(place) -> None:
    line = only_line(place.run("--parity"), 2)
    assert "tensorrt_rtx is not on PATH; it comes with the TensorRT-RTX SDK's tar package" in line
    assert "--binary /path/to/tensorrt_rtx" in line
    assert "no executable" in only_line(place.run("--parity", "--binary=/nowhere/x"), 2)


def test_binary_names_another_place(place) -> None:
    made = place.binary("tensorrt_rtx", (DATA / "tensorrt_rtx-docs.txt").read_text())
    elsewhere = place.root / "opt" / "another name"
    elsewhere.parent.mkdir()
    shutil.move(made, elsewhere)
    assert place.run("--parity", f"--binary={elsewhere}").returncode == 0
    assert json.loads(place.kept.read_text())["binary"] == str(elsewhere)


def test_without_its_engine_it_builds_from_the_onnx_and_without_both_it_says_how_to_have_them(place) -> None:
    place.binary("tensorrt_rtx", (DATA / "tensorrt_rtx-docs.txt").read_text())
    place.plan.unlink()
    line = only_line(place.run("--parity"), 2)
    assert "neither is there; --cache DIR names another cache, or make them: " in line
    assert f"{sys.executable} -m sweep backend=tensorrt_rtx" in line
    printed = place.run().stdout
    wanted = Path(next(line.split("=", 1)[1] for line in printed.split() if line.startswith("--onnx=")))
    wanted.parent.mkdir(parents=True)
    wanted.write_bytes(b"a graph")
    assert place.run("--parity").returncode == 0
    assert json.loads(place.kept.read_text())["command"][1] == f"--onnx={wanted}"


def test_without_a_closed_loop_there_is_nothing_to_compare(place) -> None:
    import dataclasses

    place.keep(dataclasses.replace(place.found, peak=None, status="failed"))
    place.binary("tensorrt_rtx")
    assert "has no closed-loop peak to compare" in only_line(place.run("--parity"), 2)
    assert not (place.root / "got").exists()


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["--parity=yes"], "--parity: ignored explicit argument 'yes'"),
        (["--timeout-s=soon"], "--timeout-s: soon is not a number of seconds above 0"),
        (["--timeout-s=0"], "--timeout-s: 0 is not a number of seconds above 0"),
        (["--timeout-s=inf"], "--timeout-s: inf is not a number of seconds above 0"),
        (["--parities"], "unrecognized arguments: --parities"),
        (["--binary="], "--binary: the value is empty"),
        (["--cache="], "--cache: the value is empty"),
        (["another.json"], "unrecognized arguments: another.json"),
    ],
)
def test_bad_input_is_one_line(place, words, word) -> None:
    assert word in only_line(place.run(*words), 2)


def test_a_record_that_is_not_there_or_of_another_backend(place) -> None:
    import dataclasses

    place.keep(dataclasses.replace(place.found, variant={**place.found.variant, "backend": "simulated"}))
    assert "of backend simulated, which has no trtexec" in only_line(place.run(), 2)
    place.path.write_text("{")
    assert "damaged" in only_line(place.run(), 2)
    place.path.unlink()
    assert "cannot be read" in only_line(place.run(), 2)


def test_printing_writes_nothing(place) -> None:
    before = sorted(place.results.rglob("*"))
    done = place.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        f"# the engine that was timed\nNVIDIA_TF32_OVERRIDE=0 tensorrt_rtx \\\n    --loadEngine={place.plan}"
        in done.stdout
    )
    assert sorted(place.results.rglob("*")) == before
