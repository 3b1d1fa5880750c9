"""The GPU's state over a pass, from recorded answers of NVML; real processes, real files, real workers."""

import dataclasses
import io
import os
import subprocess
import sys
import threading
import time

import factories
import numpy as np
import pytest
from fake_nvml import FakeNvml, NVMLError
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sweep.analysis import gpu_telemetry, record_summary
from sweep.backends.onnxruntime.backend import OnnxRuntime
from sweep.config import variants
from sweep.config.schema import Config
from sweep.errors import ConfigError
from sweep.report import html, table
from sweep.report.ranking import answer
from sweep.runner import plan
from sweep.runner.executor import Run
from sweep.runner.progress import Display
from sweep.spec import LoadAxes
from sweep.spec.settings import Settings
from sweep.storage import samples_file
from sweep.storage.store import Store
from sweep.system import environment, gpu_readings, nvml, telemetry

SW_POWER_CAP, HW_SLOWDOWN, IDLE, THERMAL = 0x4, 0x8, 0x1, 0x40
S = 1_000_000_000
INTERFACE = ("power_w", "energy_j_per_sample", "sm_clock_mhz", "temperature_c", "throttled", "foreign_processes")
OWN = os.getpid()


def recorded(states, monkeypatch, **fixed):
    """Series of one reading a second from t = 0, one for each of ``states``; and the pretended library."""
    library = FakeNvml(pids=(OWN,), **fixed)
    reader = telemetry.Reader(library, 0)
    for second, state in enumerate(states):
        library.state |= state
        monkeypatch.setattr(telemetry.time, "perf_counter_ns", lambda now=second * S: now)
        if not reader.read():
            break
    monkeypatch.undo()
    return reader.series(), library


def test_a_window_has_the_readings_inside_it(monkeypatch) -> None:
    states = [{"sm": 1000 + 10 * n, "mw": 100_000 + 1000 * n, "celsius": 40 + n, "mj": 5000 * n} for n in range(10)]
    series, _ = recorded(states, monkeypatch)
    found = gpu_telemetry.window(series, 2 * S, 6 * S, samples=200)
    assert found["readings"] == 5
    assert found["sm_clock_mhz"] == {"mean": 1040, "min": 1020, "max": 1060}
    assert found["power_w"] == {"mean": 104, "min": 102, "max": 106}
    assert found["temperature_c"] == {"mean": 44, "min": 42, "max": 46}
    assert found["energy_j"] == pytest.approx(20.0)
    assert found["energy_j_per_sample"] == pytest.approx(0.1)
    assert found["throttled"] is False
    assert gpu_telemetry.disturbance(found) is None
    assert set(INTERFACE) <= set(found)


def test_energy_is_interpolated_at_the_ends_of_a_window(monkeypatch) -> None:
    series, _ = recorded([{"mj": value} for value in (0, 1000, 1000, 4000)], monkeypatch)
    found = gpu_telemetry.window(series, S // 2, 5 * S // 2, samples=10)
    assert found["energy_j"] == pytest.approx(0.5 + 0 + 1.5)
    assert gpu_telemetry.window(series, S, 9 * S, samples=10)["energy_j"] is None  # the readings end before the window


def test_a_window_between_two_readings_has_the_state_before_it(monkeypatch) -> None:
    series, _ = recorded([{"sm": 1000}, {"sm": 1500}, {"sm": 2000}], monkeypatch)
    found = gpu_telemetry.window(series, S + 100, S + 200, samples=1)
    assert found["sm_clock_mhz"] == {"mean": 1500, "min": 1500, "max": 1500}


def test_nothing_is_said_of_a_time_that_nobody_watched(monkeypatch) -> None:
    series, _ = recorded([{}, {}], monkeypatch)
    assert gpu_telemetry.window(series, 50 * S, 60 * S, samples=1) is None
    assert gpu_telemetry.merged([None, None]) is None


@pytest.mark.parametrize(
    ("bits", "name"),
    [
        (SW_POWER_CAP, "sw_power_cap"),
        (0x20, "sw_thermal_slowdown"),
        (THERMAL, "hw_thermal_slowdown"),
        (0x80, "hw_power_brake_slowdown"),
    ],
)
def test_a_throttled_stretch_is_seen_where_it_was_and_nowhere_else(monkeypatch, bits, name) -> None:
    series, _ = recorded([{"reasons": bits | IDLE if 4 <= n <= 6 else IDLE} for n in range(12)], monkeypatch)
    assert gpu_telemetry.window(series, 0, 3 * S, samples=1)["throttled"] is False
    found = gpu_telemetry.window(series, 3 * S, 8 * S, samples=1)
    assert found["throttled"] is True
    assert found["throttle_reasons"] == {name: 0.5}
    assert gpu_telemetry.disturbance(found) == f"the GPU was throttled: {name} in 50% of 6 readings"
    assert gpu_telemetry.window(series, 7 * S, 11 * S, samples=1)["throttled"] is False


@pytest.mark.parametrize("bits", [0, IDLE, 0x2, 0x10, 0x100, 0x113])
def test_idle_and_clocks_that_somebody_set_are_no_throttling(monkeypatch, bits) -> None:
    series, _ = recorded([{"reasons": bits}] * 3, monkeypatch)
    assert gpu_telemetry.window(series, 0, 2 * S, samples=1)["throttled"] is False


def test_an_energy_counter_that_starts_anew_gives_no_figure(monkeypatch) -> None:
    series, _ = recorded([{"mj": value} for value in (7_000_000, 7_400_000, 100_000, 500_000, 900_000)], monkeypatch)
    found = gpu_telemetry.window(series, 0, 3 * S, samples=10)
    assert found["energy_j"] is None
    assert found["energy_j_per_sample"] is None
    assert found["power_w"]["mean"] == 400
    assert gpu_telemetry.window(series, 2 * S, 4 * S, samples=8)["energy_j_per_sample"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("key", "call", "fields"),
    [
        ("mj", "energy", {"energy_j": None, "energy_j_per_sample": None}),
        ("mw", "power", {"power_w": None}),
        ("celsius", "temperature", {"temperature_c": None}),
        ("reasons", "reasons", {"throttled": None, "throttle_reasons": {}}),
        ("pids", "processes", {"foreign_processes": None, "foreign": []}),
    ],
)
def test_what_a_device_does_not_have_is_null_and_not_asked_for_again(monkeypatch, key, call, fields) -> None:
    series, library = recorded([{key: NVMLError(3)}] * 4, monkeypatch)
    found = gpu_telemetry.window(series, 0, 3 * S, samples=1)
    assert {name: found[name] for name in fields} == fields
    assert found["sm_clock_mhz"]["mean"] == 1980
    assert found["lost"] is None
    assert library.calls.count(call) == (2 if call == "reasons" else 1)  # the reasons by both their names
    assert gpu_telemetry.disturbance(found) is None


def test_a_library_without_a_function_is_like_a_device_without_it(monkeypatch) -> None:
    monkeypatch.delattr(FakeNvml, "nvmlDeviceGetTotalEnergyConsumption")
    reader = telemetry.Reader(FakeNvml(), 0)
    assert reader.read()
    assert reader.read()
    assert np.isnan(reader.series().columns["energy_j"]).all()


def test_a_gpu_lost_in_mid_run_ends_the_readings_and_is_told(monkeypatch) -> None:
    states = [{"mj": 1000 * n} for n in range(5)] + [{"mw": NVMLError(15)}] * 3
    series, library = recorded(states, monkeypatch)
    assert len(series.t_ns) == 5
    before = gpu_telemetry.window(series, S, 3 * S, samples=2)
    across = gpu_telemetry.window(series, 3 * S, 7 * S, samples=2)
    after = gpu_telemetry.window(series, 6 * S, 7 * S, samples=2)
    assert before["energy_j_per_sample"] == pytest.approx(1.0)
    assert across["energy_j"] is None
    assert across["readings"] == 2
    assert {part["lost"] for part in (before, across, after)} == {"GPU is lost"}
    assert after["power_w"] is None
    assert after["throttled"] is None
    assert library.calls.count("power") == 6


@pytest.fixture
def child():
    """A process that we started."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate(b"\n")


def test_our_own_processes_are_not_foreign_and_others_are(monkeypatch, child) -> None:
    stranger = os.getppid()
    series, _ = recorded(
        [{"pids": (OWN, child.pid)}] * 2 + [{"pids": (child.pid,), "mps": (stranger,)}] * 2, monkeypatch
    )
    assert gpu_telemetry.window(series, 0, S, samples=1)["foreign_processes"] == 0
    found = gpu_telemetry.window(series, 0, 3 * S, samples=1)
    assert found["foreign_processes"] == 1
    assert found["foreign"][0].startswith(f"{stranger} ")
    assert gpu_telemetry.disturbance(found).startswith(f"the GPU was shared with {stranger} ")


def test_the_server_of_mps_is_not_foreign(monkeypatch) -> None:
    monkeypatch.setattr(telemetry.psutil.Process, "name", lambda _: "nvidia-cuda-mps-server"[:15])
    reader = telemetry.Reader(FakeNvml(pids=(OWN, os.getppid())), 0)
    reader.read()
    assert reader.series().columns["foreign"] == [0]


def test_where_nvml_does_not_list_us_nothing_is_said_of_others(monkeypatch) -> None:
    """In a container NVML may give the pids of the host, or none."""
    for pids in ((), (2**22 + 5,)):
        series, _ = recorded([{"pids": pids}] * 3, monkeypatch)
        found = gpu_telemetry.window(series, 0, 2 * S, samples=1)
        assert found["foreign_processes"] is None
        assert gpu_telemetry.disturbance(found) is None


spreads = st.builds(
    lambda a, b, c: dict(zip(("min", "mean", "max"), sorted((a, b, c)), strict=True)), *[st.floats(1, 1e4)] * 3
)
states = st.fixed_dictionaries(
    {
        "readings": st.integers(1, 1000),
        **{name: st.none() | spreads for name in gpu_readings.SPREAD},
        "energy_j": st.none() | st.floats(0, 1e6),
        "samples": st.integers(1, 10**6),
        "throttle_reasons": st.dictionaries(
            st.sampled_from(list(gpu_telemetry.THROTTLES)), st.floats(0.01, 1), max_size=2
        ),
        "foreign": st.lists(st.sampled_from(["1 a", "2 b"]), unique=True).map(sorted),
        "measured_again": st.none() | st.just("why"),
        "lost": st.none() | st.just("gone"),
    }
).map(
    lambda part: (
        part
        | {
            "throttled": bool(part["throttle_reasons"]),
            "foreign_processes": len(part["foreign"]),
            "energy_j_per_sample": None if part["energy_j"] is None else part["energy_j"] / part["samples"],
        }
    )
)


@given(states)
def test_merging_one_window_changes_nothing(part) -> None:
    found = gpu_telemetry.merged([part, None])
    assert found.keys() == part.keys()
    for name, value in part.items():
        assert found[name] == (pytest.approx(value) if isinstance(value, (float, dict)) else value)


@given(st.lists(states, min_size=2, max_size=5))
def test_merged_windows_are_what_one_window_over_both_would_be(parts) -> None:
    found = gpu_telemetry.merged(parts)
    assert found["readings"] == sum(part["readings"] for part in parts)
    assert found["throttled"] == any(part["throttled"] for part in parts)
    assert found["foreign_processes"] == max(part["foreign_processes"] for part in parts)
    counted = [part for part in parts if part["energy_j"] is not None]
    if counted:
        per = [part["energy_j_per_sample"] for part in counted]
        assert min(per) * 0.999 <= found["energy_j_per_sample"] <= max(per) * 1.001
    for name in gpu_readings.SPREAD:
        known = [part[name] for part in parts if part[name] is not None]
        assert (found[name] is None) == (not known)
        if known:
            assert found[name]["min"] == min(spread["min"] for spread in known)
            assert found[name]["max"] == max(spread["max"] for spread in known)
            assert found[name]["min"] * 0.999 <= found[name]["mean"] <= found[name]["max"] * 1.001


def test_a_watch_reads_at_its_rate_on_the_clock_of_other_processes() -> None:
    gpu = telemetry.Gpu(FakeNvml(), 0, hz=50)
    with gpu.watch() as watch:
        code = "import time; print(time.perf_counter_ns()); time.sleep(0.5); print(time.perf_counter_ns())"
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    start, end = map(int, told.stdout.split())
    series = watch.series()
    assert series.t_ns[0] < start < end < series.t_ns[-1]
    assert np.all(np.diff(series.t_ns) > 0)
    inside = np.count_nonzero((series.t_ns > start) & (series.t_ns < end))
    assert 5 <= inside <= 26  # at most its rate; a crowded machine may give it fewer
    assert not any(thread.name == "telemetry" for thread in threading.enumerate())


def test_without_a_gpu_or_when_told_not_to_there_is_no_telemetry(monkeypatch) -> None:
    assert telemetry.find(0.0) is None
    library = FakeNvml()
    monkeypatch.setattr(nvml, "library", lambda: None)
    assert telemetry.find(10.0) is None
    monkeypatch.setattr(nvml, "library", lambda: library)
    monkeypatch.setattr(nvml, "visible", lambda _, uuid=None: (_ for _ in ()).throw(NVMLError(3)))
    assert telemetry.find(10.0) is None
    assert library.opened == 0


@pytest.mark.parametrize("hz", [-1.0, 101.0, float("nan"), float("inf")])
def test_a_rate_that_makes_no_sense_is_refused(hz) -> None:
    with pytest.raises(ConfigError, match="telemetry_hz"):
        variants.settings(Config(telemetry_hz=hz), [])


def a_variant(repeats=1):
    load = LoadAxes(fractions=(0.3,), warmup_s=0.02, min_s=0.3, min_requests=20, max_s=1.0, repeats=repeats)
    return factories.variant(batch=2, load=load, intra_op_threads=1)


class Notes(Display):
    """A display that keeps its notes and can act on them."""

    def __init__(self, act=lambda: None) -> None:
        super().__init__(Console(file=io.StringIO()), 1)
        self.notes: list[str] = []
        self._act = act

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._act()


def measured(tmp_path, monkeypatch, library, asked=None, act=lambda: None, hz=20.0):
    """One variant through a real worker, watched by a pretended GPU; its record, the notes and the settings."""
    environment.machine()  # the real one, kept for this process
    monkeypatch.setattr(OnnxRuntime, "on_gpu", True)
    if library is not None:
        library.opened = 0
    monkeypatch.setattr(nvml, "library", lambda: library and library.library())
    settings = Settings(name="s", results=tmp_path, telemetry_hz=hz)
    made = plan.make([asked or a_variant()])
    display = Notes(act)
    Run(made, settings, display, lambda _: None).execute(made.works)
    (work,) = made.works
    return Store(settings.root).read(work.key), display.notes, settings


def energy_mj():
    """A GPU that takes 300 W."""
    return round(time.perf_counter_ns() / 1e9 * 300_000)


def test_a_pass_has_its_gpus_state_in_every_point_and_beside_the_samples(tmp_path, monkeypatch) -> None:
    library = FakeNvml(pids=(OWN,), mj=energy_mj)
    record, notes, settings = measured(tmp_path, monkeypatch, library)
    assert record.status == "ok"
    assert notes == []
    for part in (record.peak, *record.points, {"telemetry": record.telemetry}):
        found = part["telemetry"]
        assert found["readings"] >= 2
        assert found["power_w"]["mean"] == 400
        assert found["foreign_processes"] == 0
        assert found["energy_j"] > 0
    window_s = 0.3
    assert record.points[0]["telemetry"]["energy_j"] == pytest.approx(300 * window_s, rel=0.3)
    peak = record.peak["telemetry"]
    assert peak["energy_j_per_sample"] == pytest.approx(300 / record.peak["ips"], rel=0.1)
    assert record.telemetry["energy_j_per_sample"] == peak["energy_j_per_sample"]
    with np.load(Store(settings.root).telemetry_path(record.key)) as stored:
        assert set(stored) == {"0/t_ns", *(f"0/{name}" for name in gpu_readings.COLUMNS)}
        assert len(stored["0/t_ns"]) >= record.telemetry["readings"]
    assert library.opened == 0
    points = samples_file.load(Store(settings.root).samples_path(record.key))
    bare = dataclasses.replace(record, peak=None, points=[], telemetry=None)
    assert record_summary.summarise(bare, points, None) == record  # all of it again from the samples on disk


def test_a_throttled_pass_is_measured_once_more_and_the_second_is_kept(tmp_path, monkeypatch) -> None:
    library = FakeNvml(reasons=SW_POWER_CAP)
    record, notes, settings = measured(tmp_path, monkeypatch, library, act=lambda: library.state.update(reasons=0))
    assert len(notes) == 1
    assert "is measured again: the GPU was throttled: sw_power_cap in 100%" in notes[0]
    assert record.telemetry["throttled"] is False
    assert "sw_power_cap" in record.telemetry["measured_again"]
    assert "sw_power_cap" in record.points[0]["telemetry"]["measured_again"]
    assert "GPU" not in (record.points[0]["reason"] or "")
    with np.load(Store(settings.root).telemetry_path(record.key)) as stored:
        assert not stored["0/reasons"].any()


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_gpu_that_stays_throttled_is_marked_after_one_more_pass(tmp_path, monkeypatch, repeats) -> None:
    library = FakeNvml(reasons=HW_SLOWDOWN)
    record, notes, _ = measured(tmp_path, monkeypatch, library, a_variant(repeats))
    assert len(notes) == 1
    assert record.status == "ok"
    assert record.telemetry["throttled"] is True
    for part in (record.peak, *record.points):
        assert part["verdict"] != "ok"
        assert part["verdict"] != "unstable" or part["reason"]


def test_a_shared_gpu_is_measured_once_more_and_marked(tmp_path, monkeypatch) -> None:
    library = FakeNvml(pids=(OWN, os.getppid()))
    record, notes, _ = measured(tmp_path, monkeypatch, library)
    assert "the GPU was shared with" in notes[0]
    assert record.telemetry["foreign_processes"] == 1
    assert record.points[0]["verdict"] != "ok"


def test_a_gpu_lost_in_mid_run_does_not_stop_the_sweep(tmp_path, monkeypatch) -> None:
    library = FakeNvml(mj=energy_mj)
    monkeypatch.setattr(library, "calls", Fading(library))
    record, _, _ = measured(tmp_path, monkeypatch, library)
    assert record.status == "ok"
    assert record.telemetry["lost"] == "GPU is lost"


class Fading(list):
    """Loses the GPU after a few readings."""

    def __init__(self, library) -> None:
        super().__init__()
        self._library = library

    def append(self, name) -> None:
        super().append(name)
        if len(self) > 40:
            self._library.state["sm"] = NVMLError(15)


def test_an_unwatched_variant_has_no_telemetry_and_an_old_series_goes(tmp_path, monkeypatch) -> None:
    stale = Store(Settings(name="s", results=tmp_path).root).telemetry_path(plan.make([a_variant()]).works[0].key)
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier measurement")
    record, _, _ = measured(tmp_path, monkeypatch, None)
    assert record.telemetry is None
    assert record.peak["telemetry"] is None
    assert record.points[0]["telemetry"] is None
    assert not stale.exists()


def test_energy_is_shown_only_where_there_is_some(tmp_path, monkeypatch) -> None:
    record, _, _ = measured(tmp_path, monkeypatch, FakeNvml(mj=energy_mj))
    dark = dataclasses.replace(record, key="other", telemetry=None)
    for records, shown in (([record, dark], True), ([dark], False)):
        out = io.StringIO()
        table.print_outcome(Console(file=out, width=140), records, answer(records, None), None)
        page = html.write(tmp_path / "page.html", "t", records, None).read_text()
        assert ("mJ per" in out.getvalue()) is shown
        assert (">mJ per sample</th>" in page) is shown
        if shown:
            text = f"{record.telemetry['energy_j_per_sample'] * 1e3:.3g}"
            assert text in out.getvalue()
            assert f">{text}</td>" in page
