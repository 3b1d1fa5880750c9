"""SMs asked for, given and reached: green contexts, the kernel that counts, and what makes a variant invalid."""

import sys

import factories
import numpy as np
import pytest
from fake_gpu import FakeEngine, FakeRuntime, installed, library_of

from sweep import spec
from sweep.backends import registry
from sweep.backends.base import unsupported_reason
from sweep.backends.tensorrt import backend, green_context, isolated_build, runtime_cache, sm_probe
from sweep.backends.tensorrt.session import TensorRTSession
from sweep.errors import BuildError, SessionError, UnsupportedError
from sweep.spec import SessionAxes, Variant, side_by_side

FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture
def runtime(monkeypatch):
    return installed(monkeypatch, FakeRuntime())


def session(runtime, entry=None, **asked) -> TensorRTSession:
    return TensorRTSession(library_of(FakeEngine(runtime)), b"plan", SessionAxes(**asked), FEEDS, entry)


def variant(mps_build=None, name="tensorrt_rtx", **held) -> Variant:
    return factories.variant("mlp", "fp16", name, mps_build=mps_build, **held)


@pytest.mark.parametrize("graph", [False, True])
def test_a_plain_session_counts_the_whole_gpu(runtime, graph) -> None:
    made = session(runtime, streams=2, cuda_graph=graph)
    found = made.realised
    assert (found["sm_count"], found["sm_reached"], found["sm_total"]) == (132, 132, 132)
    assert found["under_mps"] is False
    made.close()
    assert runtime.held == {}
    assert runtime.driver.current == "primary"


@pytest.mark.parametrize("graph", [False, True])
def test_a_green_context_holds_every_stream_and_is_left(runtime, graph) -> None:
    made = session(runtime, streams=3, cuda_graph=graph, sm_count=16)
    assert (made.realised["sm_count"], made.realised["sm_reached"], made.realised["sm_total"]) == (16, 16, 132)
    assert runtime.driver.current is runtime.driver.contexts[0]
    made.streams[2].enqueue()
    made.streams[2].wait()
    assert np.array_equal(made.outputs_of(2)["y"], FEEDS["x"] * 2)
    made.close()
    made.close()
    assert runtime.held == {}
    assert runtime.driver.current == "primary"


def test_a_process_makes_one_green_context_a_count(runtime) -> None:
    """Destroying one breaks the next on a real GPU."""
    for count in (16, 32, 16, None, 16):
        made = session(runtime, sm_count=count)
        assert made.realised["sm_reached"] == count or count is None
        made.close()
    assert [context.sms for context in runtime.driver.contexts] == [16, 32]


def beside(sharing: str) -> list[Variant]:
    """Return two networks side by side, each with the other beside it."""
    one, other = variant(), factories.variant("tiny_cnn", "fp16", "tensorrt_rtx")
    first = side_by_side.beside(one, [other], sharing)
    return [spec.member(first, number) for number in range(2)]


def test_green_contexts_side_by_side_have_no_sm_in_common_and_come_back(runtime) -> None:
    """Sessions of one process: a context of its own each, whatever loads first, and again after both were closed."""
    for sharing, firsts in (("green:64/32", [0, 64]), ("green:32/64", [64, 0]), ("green:64/64", [0, 64])):
        runtime.driver.contexts.clear()
        green_context.get_partition.cache_clear()
        for _ in range(2):
            made = [session(runtime, **asked_of(each)) for each in beside(sharing)]
            assert runtime.driver.current == "primary", "streams are launched from there"
            counts = [int(count) for count in sharing.partition(":")[2].split("/")]
            assert [one.realised["sm_reached"] for one in made] == counts
            assert [one._green._green.first for one in made] == firsts
            for one in made:
                one.close()
        assert len(runtime.driver.contexts) == 2
    for sharing in ("green:96/64", "green:60/32"):
        with pytest.raises(UnsupportedError, match=r"this GPU of 132 SMs gives shares in steps of 8, 128 together$"):
            session(runtime, **asked_of(beside(sharing)[0]))
    assert runtime.driver.current == "primary"


def asked_of(variant: Variant) -> dict:
    """Return the session axes of a variant that are set."""
    axes = variant.session
    return {"sm_count": axes.sm_count, "sharing": axes.sharing, "beside": axes.beside}


def test_all_sms_are_a_count_too(runtime) -> None:
    made = session(runtime, sm_count=132)
    assert made.realised["sm_reached"] == 132
    made.close()


@pytest.mark.parametrize(
    ("asked", "nearest"), [(1, "8"), (12, "8 or 16"), (130, "128 or 132"), (131, "128 or 132"), (200, "132")]
)
def test_a_count_that_cannot_be_had_names_the_nearest(runtime, asked, nearest) -> None:
    words = f"sm_count={asked}: this GPU of 132 SMs cannot give that many; the nearest: {nearest}$"
    with pytest.raises(UnsupportedError, match=words):
        session(runtime, sm_count=asked)
    assert runtime.driver.contexts == []
    assert runtime.driver.current == "primary"


@pytest.mark.parametrize("call", ["cuDeviceGetDevResource", "cuGreenCtxCreate", "cuCtxFromGreenCtx"])
def test_a_gpu_without_green_contexts_says_so(runtime, call) -> None:
    runtime.driver.fails[call] = 801
    with pytest.raises(UnsupportedError, match=f"sm_count=16: no green context could be made: {call}: CUDA_ERROR_NOT"):
        session(runtime, sm_count=16)
    assert runtime.driver.current == "primary"


def test_a_session_that_fails_leaves_its_green_context(runtime) -> None:
    engine = FakeEngine(runtime)
    engine.enqueues = False
    with pytest.raises(SessionError):
        TensorRTSession(library_of(engine), b"plan", SessionAxes(sm_count=16), FEEDS, None)
    assert runtime.driver.current == "primary"
    assert runtime.held == {}


def test_compiled_kernels_are_kept_for_each_count(runtime, tmp_path) -> None:
    entry = tmp_path / "engines" / "abc"
    assert runtime_cache.path(entry, 16) != runtime_cache.path(entry, 132)


REALISED = {"sm_count": 132, "sm_reached": 132, "sm_total": 132, "under_mps": False, "build_sm_count": None}
SHARED = {**REALISED, "under_mps": True}


@pytest.mark.parametrize(
    ("asked", "realised", "wrong"),
    [
        (variant(), REALISED, None),
        (variant(), {**REALISED, "sm_reached": 66}, "132 SMs were given, but a kernel found 66"),
        (variant(), {**REALISED, "sm_reached": 0}, "132 SMs were given, but a kernel found 0"),
        (variant(), {**SHARED, "sm_count": 66, "sm_reached": 66}, "no MPS was asked for, but the process ran under"),
        (variant(), SHARED, "no MPS was asked for, but the process ran under an MPS daemon, with 132 SMs"),
        (variant(mps=100), SHARED, None),
        (variant(mps=100), REALISED, "asked for mps=100, but the process ran without MPS, with 132 SMs"),
        (variant(mps=50), {**SHARED, "sm_count": 66, "sm_reached": 66}, None),
        (variant(mps=50), SHARED, "asked for mps=50, but 132 of 132 SMs were given"),
        (variant(mps=50), {**SHARED, "sm_count": 64, "sm_reached": 64}, "asked for mps=50, but 64 of 132 SMs"),
        (variant(mps=50), {**SHARED, "sm_count": 68, "sm_reached": 68}, "asked for mps=50, but 68 of 132 SMs"),
        (variant(mps=50), {**SHARED, "sm_count": 66}, "66 SMs were given, but a kernel found 132"),
        (variant(mps=50), {**SHARED, "sm_count": 66, "sm_reached": 66, "sm_total": None}, "asked for mps=50, but 66"),
        (variant(mps=25), {**SHARED, "sm_count": 32, "sm_reached": 32}, None),
        (variant(mps=25), {**SHARED, "sm_count": 66, "sm_reached": 66}, "asked for mps=25, but 66 of 132 SMs"),
        (variant(mps=1), {**SHARED, "sm_count": 2, "sm_reached": 2}, None),
        (variant(sm_count=16), {**REALISED, "sm_count": 16, "sm_reached": 16}, None),
        (variant(sm_count=16), REALISED, "asked for sm_count=16, but 132 SMs were given"),
        (variant(sm_count=16), {**REALISED, "sm_count": 16}, "16 SMs were given, but a kernel found 132"),
        (
            variant(mps=50, mps_build=50),
            {**SHARED, "sm_count": 66, "sm_reached": 66, "build_sm_count": 66},
            None,
        ),
        (
            variant(mps=50, mps_build=50),
            {**SHARED, "sm_count": 66, "sm_reached": 66, "build_sm_count": 132},
            "asked for mps_build=50, but the engine was built with 132 of 132 SMs",
        ),
    ],
)
def test_the_wrong_sms_are_a_mismatch(asked, realised, wrong) -> None:
    found = sm_probe.mismatch(asked, realised)
    assert (found is None) if wrong is None else found.startswith(wrong), found


def test_the_backend_finds_the_wrong_share_of_a_session(runtime) -> None:
    runtime.driver.reached = 100
    made = session(runtime)
    realised = {**made.realised, "precision": {"fp16": 3}, "build_sm_count": None}
    found = registry.get("tensorrt_rtx").mismatch(variant(), realised)
    assert found == "132 SMs were given, but a kernel found 100"
    made.close()


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_what_divides_the_gpu_is_honoured_by_tensorrt_alone(name, monkeypatch) -> None:
    made = registry.get(name)
    monkeypatch.setattr(type(made), "missing", lambda _self: None)
    monkeypatch.setattr(backend.mps, "available", lambda: None)
    for asked in ({"mps": 50}, {"mps": 50, "mps_build": 50}, {"sm_count": 16}):
        assert unsupported_reason(made, variant(name=name, **asked)) is None
    both = unsupported_reason(made, variant(name=name, mps=50, sm_count=16))
    assert both == "sm_count=16 and mps=50 both divide the GPU; set one"
    monkeypatch.setattr(backend.mps, "available", lambda: "MPS does not run under WSL")
    assert unsupported_reason(made, variant(name=name, mps=50)) == "MPS does not run under WSL"
    assert unsupported_reason(made, variant(name=name)) is None
    for asked in ({"mps_build": 50}, {"sm_count": 16}):
        (axis,) = asked
        assert axis in unsupported_reason(registry.get("onnxruntime"), variant(name="onnxruntime", **asked))


def test_shares_and_counts_are_in_their_keys_and_labels() -> None:
    plain_, shared, counted = variant(), variant(mps=50, mps_build=50), variant(sm_count=16)
    assert spec.engine_key(counted) == spec.engine_key(plain_) == spec.engine_key(variant(mps=50))
    assert spec.engine_key(shared) != spec.engine_key(plain_)
    assert len({spec.variant_key(one) for one in (plain_, shared, counted, variant(mps=50))}) == 4
    assert shared.label == "mlp fp16 b1 s1 mps50 mps-build50"
    assert counted.label == "mlp fp16 b1 s1 sm16"
    assert spec.variant_key(shared) == "8c26a6f448d69177"
    assert spec.variant_key(counted) == "15bac4585b8daec5"
    assert spec.engine_key(shared) == "77b666e3b1162031"


ANSWERING = """
import json, os, sys
from pathlib import Path
from sweep.backends import registry
from sweep.backends import isolated_build_worker
class Backend:
    def build(self, onnx, variant, shapes, target):
        print("a library's own words")
        Path(target, "engine.plan").write_bytes(b"plan")
        return {"share": os.environ.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"),
                "pipes": os.environ["CUDA_MPS_PIPE_DIRECTORY"], "shape": list(shapes(1)["x"]), **FAILS}
registry.get = lambda name: Backend()
isolated_build_worker.main()
"""


def building_apart(monkeypatch, script: str) -> None:
    """Have ``isolated_build`` start ``script`` in place of its worker, in a real process."""
    monkeypatch.setattr(isolated_build, "module_command", lambda _module: [sys.executable, "-c", script])


def test_an_engine_without_a_share_is_built_outside_the_share_of_its_worker(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "50")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/short/pipe")
    building_apart(monkeypatch, ANSWERING.replace("**FAILS", ""))
    made = registry.get("tensorrt_rtx")
    found = made.build(tmp_path / "m.onnx", variant(mps=50), lambda batch: {"x": (batch, 3)}, tmp_path)
    assert found == {"share": None, "pipes": "/dev/null", "shape": [1, 3]}
    assert (tmp_path / "engine.plan").read_bytes() == b"plan"


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        ("**(_ for _ in ()).throw(errors.BuildError('no\\nkernel'))", BuildError, "^no kernel$"),
        ("**(_ for _ in ()).throw(errors.UnsupportedError('no knob'))", UnsupportedError, "^no knob$"),
        ("**os.abort()", BuildError, "the process that builds outside the MPS share ended with code -6"),
    ],
)
def test_a_build_outside_that_fails_is_told_in_its_own_words(monkeypatch, tmp_path, failure, kind, words) -> None:
    monkeypatch.setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "50")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    building_apart(monkeypatch, "from sweep import errors\n" + ANSWERING.replace("**FAILS", failure))
    with pytest.raises(kind, match=words):
        isolated_build.build(tmp_path / "m.onnx", variant(mps=50), [(1, None, {"x": (1, 3)})], tmp_path)


def test_a_share_to_build_under_that_the_worker_lacks_is_refused(monkeypatch, tmp_path) -> None:
    for name in ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUDA_MPS_PIPE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BuildError, match="mps_build=50: this process has no MPS share to build under"):
        registry.get("tensorrt_rtx").build(tmp_path, variant(mps=50, mps_build=50), lambda _batch: {}, tmp_path)


def test_timings_under_a_share_are_kept_apart(tmp_path) -> None:
    class Used:
        label = "tensorrt 11.4"

    made = registry.get("tensorrt")
    names = {made._timing_cache(Used(), tmp_path / "engines" / "x", share).name for share in (None, 50, 25)}
    assert len(names) == 3
