"""The programs beside an engine that was taken: on a pretended GPU, and what ``--check`` counts as the same."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from fake_gpu import NO_MEMORY, FakeEngine, FakeRuntime, library_of

from sweep.backends.tensorrt import io_layout
from sweep.cli.take import bundle, loaders
from sweep.cli.take.loaders import infer

MANIFEST = {
    "format": bundle.FORMAT,
    "batch": 2,
    "engine": {
        "library": "tensorrt_rtx",
        "file": "engine/engine.plan",
        "load": {"plugins": [], "version_compatible": False, "weight_streaming_budget_mib": 1},
    },
    "environment": {},
    "bound_to": {"tensorrt": "tensorrt_rtx 0.0", "gpu": "Pretended", "compute_capability": "9.0"},
    "least_sqnr_db": 40.0,
}


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def gpu_engine(runtime: FakeRuntime) -> FakeEngine:
    return FakeEngine(runtime)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime, gpu_engine: FakeEngine):
    """Return infer.py's command line in a folder with a plan of TensorRT-RTX, which computes y = 2 x."""
    trt = library_of(gpu_engine).trt
    trt.Logger = type("Logger", (), {"ERROR": 0, "__init__": lambda self, _: None})
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=runtime))
    monkeypatch.delitem(sys.modules, "engine", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "engine.plan").write_bytes(b"plan")
    manifest = MANIFEST | {"files": {"engine/engine.plan": bundle._sha256(tmp_path / "engine" / "engine.plan")}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    source = Path(loaders.__file__).parent
    for name, target in (("infer", "infer"), ("tensorrt_engine", "engine")):
        (tmp_path / f"{target}.py").write_bytes((source / f"{name}.py").read_bytes())
    loaded = importlib.util.spec_from_file_location("taken_infer", tmp_path / "infer.py")
    assert loaded is not None
    assert loaded.loader is not None
    module = ModuleType("taken_infer")
    module.__file__ = str(tmp_path / "infer.py")
    loaded.loader.exec_module(module)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["infer.py", *words])
        sys.modules.pop("engine", None)
        return module.main()

    yield run
    sys.modules.pop("engine", None)


def test_the_loader_of_tensorrt_runs_stores_and_checks(
    program, tmp_path: Path, capsys: pytest.CaptureFixture[str], gpu_engine: FakeEngine
) -> None:
    assert program("--check") == 2
    assert "cannot check: no outputs are stored" in capsys.readouterr().err
    outputs, inputs = tmp_path / "outputs.npz", tmp_path / "inputs.npz"
    assert program("--save", str(outputs), "--save-inputs", str(inputs)) == 0
    assert capsys.readouterr() == ("output y: float32 [2, 3]\n", "")
    np.testing.assert_array_equal(np.load(outputs)["y"], 2 * np.load(inputs)["x"])
    assert gpu_engine.weight_streaming_budget_v2 == 1 << 20
    assert program("--check") == 0
    assert "check  y: ok, equal\n" in capsys.readouterr().out


def test_an_engine_of_a_range_runs_at_each_of_its_batches_and_no_other(
    program, capsys: pytest.CaptureFixture[str], gpu_engine: FakeEngine, tmp_path: Path
) -> None:
    gpu_engine.batches = (1, 4)
    np.savez(tmp_path / "inputs.npz", x=np.ones((2, 3), np.float32))
    for batch in (1, 4):
        assert program("--batch", str(batch)) == 0
        assert capsys.readouterr().out == f"output y: float32 [{batch}, 3]\n"
    assert program("--batch", "5") == 2
    assert capsys.readouterr().err == "infer.py: cannot run: --batch 5: this engine takes 1 to 4\n"


def test_an_engine_of_several_profiles_runs_at_each_of_their_shapes_and_no_other(
    program, capsys: pytest.CaptureFixture[str], gpu_engine: FakeEngine, tmp_path: Path
) -> None:
    gpu_engine.profiles = (((2, 3), (2, 3)), ((2, 5), (2, 6)))
    assert program() == 0, "its own values have the shape of the last profile"
    assert capsys.readouterr().out == "output y: float32 [2, 6]\n"
    for size in (3, 5, 6):
        np.savez(tmp_path / "inputs.npz", x=np.ones((2, size), np.float32))
        assert program() == 0
        assert capsys.readouterr().out == f"output y: float32 [2, {size}]\n"
    np.savez(tmp_path / "inputs.npz", x=np.ones((2, 4), np.float32))
    assert program() == 2
    assert "the engine does not take x of shape [2, 4]" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["LINEAR", "HWC", "HWC8", "CHW2", "CHW4", "CHW16", "CHW32"])
def test_a_tensor_lies_in_memory_as_the_backend_has_it(program, tmp_path: Path, name: str) -> None:
    """The loader cannot import the backend's layouts; it has to agree with them."""
    assert program() == 0
    engine = sys.modules["engine"]
    value = np.arange(2 * 3 * 2 * 5, dtype=np.float32).reshape(2, 3, 2, 5)
    how = engine.layout(SimpleNamespace(get_tensor_format=lambda _: SimpleNamespace(name=name)), "x")
    packed = engine.packed(value, how)
    ours = io_layout.parse(name)
    assert (how is None) == (ours is None)
    np.testing.assert_array_equal(packed, value if ours is None else ours.pack(value))
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(engine.unpacked(packed, how, value.shape), value)


def test_each_fault_is_one_line_with_the_facts_that_differ(
    program, capsys: pytest.CaptureFixture[str], gpu_engine: FakeEngine, runtime: FakeRuntime, tmp_path: Path
) -> None:
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["bound_to"]["gpu"] = "Another"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    runtime.fails["cudaMalloc"] = NO_MEMORY
    assert program() == 2
    error = capsys.readouterr().err
    differing = "gpu is Pretended here, and Another where it was measured"
    assert error == f"infer.py: note: {differing}\ninfer.py: cannot run: cudaMalloc: out of memory ({differing})\n"
    runtime.fails.clear()
    gpu_engine.enqueues = False
    assert program() == 2
    assert "tensorrt_rtx did not run the inference" in capsys.readouterr().err
    (tmp_path / "engine" / "engine.plan").write_bytes(b"another plan")
    assert program() == 2
    assert "engine/engine.plan has changed since it was taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expected", "value", "good", "text"),
    [
        (np.float32([1, 2]), np.float32([1, 2]), True, "equal"),
        (np.float32([1, np.nan]), np.float32([1, np.nan]), True, "equal"),
        (np.float32([1, 2]), np.float32([1, 2.001]), True, "67.0 dB"),
        (np.float32([1, 2]), np.float32([1, 2.1]), False, "27.0 dB, of at least 40.0 dB; largest difference 0.1"),
        (np.float32([1, 2]), np.float32([1, np.nan]), False, "not finite have changed"),
        (np.float32([0, 0]), np.float32([0, 1]), False, "-inf dB"),
        (np.int64([1] * 200), np.int64([1] * 199 + [2]), True, "99.50% of the values are equal"),
        (np.int64([1, 2]), np.int64([1, 1]), False, "50.00%"),
        (np.float32([1, 2]), np.float32([[1, 2]]), False, "shape [2] is stored, [1, 2] came"),
        (np.float32([1, 2]), None, False, "None came"),
    ],
)
def test_what_counts_as_the_same_output(expected, value, good, text) -> None:
    same, told = infer.compared(expected, value, 40.0)
    assert same == good
    assert text in told


def test_the_loaders_are_free_and_need_nothing_else() -> None:
    for path in Path(loaders.__file__).parent.glob("*_engine.py"):
        assert "public domain (CC0" in path.read_text()
        assert "sweep" not in path.read_text()
    assert "public domain (CC0" in Path(infer.__file__).read_text()
