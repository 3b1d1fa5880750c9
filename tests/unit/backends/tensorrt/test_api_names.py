"""Every name that the backend uses is there in the libraries that are here: RTX, TensorRT 11 (lean), CUDA."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import require
from fake_gpu import FakeDriver, FakeRuntime

from sweep.backends import registry
from sweep.backends.tensorrt import cuda, library

RUNTIME = {
    "Runtime": ["deserialize_cuda_engine", "engine_host_code_allowed", "gpu_allocator"],
    "IGpuAllocator": ["allocate_async", "reallocate", "deallocate_async"],
    "ICudaEngine": [
        *("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "create_execution_context"),
        *("create_engine_inspector", "device_memory_size_v2", "get_tensor_profile_shape", "num_aux_streams"),
        *("refittable", "hardware_compatibility_level", "streamable_weights_size", "weight_streaming_budget_v2"),
        *("get_tensor_shape", "get_tensor_location", "get_tensor_format", "num_optimization_profiles"),
        "get_device_memory_size_for_profile_v2",
    ],
    "TensorLocation": ["DEVICE", "HOST"],
    "TensorFormat": ["LINEAR", "CHW2", "CHW4", "CHW16", "CHW32", "HWC", "HWC8", "HWC16"],
    "ExecutionContextAllocationStrategy": ["STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"],
    "IExecutionContext": [
        *("engine", "set_input_shape", "get_tensor_shape", "set_tensor_address", "execute_async_v3"),
        *("persistent_cache_limit", "update_device_memory_size_for_shapes", "set_device_memory"),
        "set_optimization_profile_async",
    ],
    "TensorIOMode": ["INPUT"],
    "LayerInformationFormat": ["JSON"],
    "ILogger": ["log"],
}
BUILDER = {
    "Builder": ["create_network", "create_builder_config", "create_optimization_profile", "build_serialized_network"],
    "INetworkDefinition": ["num_inputs", "num_layers", "get_input", "num_outputs", "get_output"],
    "ITensor": ["shape", "allowed_formats"],
    "TacticSource": ["JIT_CONVOLUTIONS"],
    "PreviewFeature": ["ALIASED_PLUGIN_IO_10_03"],
    "IBuilderConfig": [
        *("add_optimization_profile", "set_flag", "clear_flag", "set_memory_pool_limit", "profiling_verbosity"),
        *("builder_optimization_level", "max_aux_streams", "tiling_optimization_level"),
        *("hardware_compatibility_level", "max_num_tactics", "l2_limit_for_tiling"),
        *("set_tactic_sources", "get_tactic_sources", "set_preview_feature", "get_preview_feature"),
        *("create_timing_cache", "set_timing_cache", "get_timing_cache", "num_optimization_profiles"),
    ],
    "OnnxParser": ["parse_from_file", "num_errors", "get_error"],
    "IOptimizationProfile": ["set_shape", "get_shape"],
    "ParserError": ["code", "desc", "node_name", "node_operator"],
    "EngineInspector": ["get_engine_information"],
    "TilingOptimizationLevel": ["NONE", "FAST", "MODERATE", "FULL"],
    "BuilderFlag": [
        *("TF32", "SPARSE_WEIGHTS", "REFIT", "WEIGHT_STREAMING", "VERSION_COMPATIBLE", "DISABLE_TIMING_CACHE"),
    ],
    "HardwareCompatibilityLevel": ["NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"],
    "IPluginRegistry": ["load_library"],
    "ILayer": ["name", "type", "num_inputs", "get_input"],
    "MemoryPoolType": ["WORKSPACE"],
    "ProfilingVerbosity": ["DETAILED", "LAYER_NAMES_ONLY", "NONE"],
}
OPTIONAL = {"ICudaEngine": ["get_engine_stat"], "EngineStat": ["TOTAL_WEIGHTS_SIZE"]}  # not in 10.13
RTX = {
    "IRuntimeConfig": ["cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy", "set_runtime_cache"],
    "IRuntimeCache": ["serialize", "deserialize"],
    "IBuilderConfig": ["num_compute_capabilities", "set_compute_capability"],
    "ComputeCapability": ["SM89", "SM120"],
    "CudaGraphStrategy": ["DISABLED"],
}


def absent(module, names: dict[str, list[str]]) -> list[str]:
    return [f"{kind}.{name}" for kind in names for name in names[kind] if not hasattr(getattr(module, kind), name)]


def test_tensorrt_rtx_has_every_name() -> None:
    require.library_for("tensorrt_rtx")
    trt = library.load("tensorrt_rtx").trt
    assert absent(trt, RUNTIME) == []
    assert absent(trt, OPTIONAL) == []
    assert absent(trt, {**BUILDER, "NetworkDefinitionCreationFlag": ["STRONGLY_TYPED"]}) == []
    assert absent(trt, {name: names for name, names in RTX.items() if hasattr(trt, name)}) == []


def test_tensorrt_11_has_every_name_of_a_session() -> None:
    if importlib.util.find_spec("tensorrt_lean_bindings") is None:
        require.missing("tensorrt_lean", "tensorrt-lean, whose names are those of TensorRT 11, is not installed")
    lean = importlib.import_module("tensorrt_lean_bindings")
    enums = ("TensorIOMode", "TensorLocation", "TensorFormat")
    names = {kind: names for kind, names in RUNTIME.items() if kind not in enums or hasattr(lean, kind)}
    assert absent(lean, names) == []
    assert absent(lean, OPTIONAL) == []
    assert lean.TensorIOMode.INPUT is not None
    assert "stream_handle" in lean.IExecutionContext.execute_async_v3.__doc__
    assert callable(lean.nptype)


def test_tensorrt_10_has_every_name() -> None:
    """Read as text: the stubs of 10.13 are no valid Python in places."""
    spec = importlib.util.find_spec("tensorrt_stubs")
    if spec is None or spec.origin is None:
        require.missing(
            "tensorrt_stubs", "tensorrt-stubs 10.13, whose names are those of TensorRT 10, is not installed"
        )
    text = (Path(spec.origin).parents[1] / "tensorrt_bindings" / "tensorrt.pyi").read_text()
    bodies = {part.partition("(")[0].partition(":")[0]: part for part in re.split(r"^class ", text, flags=re.MULTILINE)}
    wanted = {kind: names for kind, names in (RUNTIME | BUILDER).items() if kind != "ParserError"}
    missing = [
        f"{kind}.{name}"
        for kind, names in wanted.items()
        for name in names
        if not re.search(rf"^    (def )?{name}\b|^ +:ivar {name}:", bodies.get(kind, ""), re.MULTILINE)
    ]
    assert missing == []


def test_cuda_has_every_name_that_the_pretended_one_has() -> None:
    if not cuda.installed():
        require.missing("tensorrt_rtx", "cuda-python is not installed")
    runtime = cuda.get().rt
    names = [name for name in dir(FakeRuntime) if name.startswith("cuda")]
    assert [name for name in names if not hasattr(runtime, name)] == []
    for name in (name for name in dir(FakeDriver) if name.lower().startswith("cu")):
        members = vars(getattr(FakeDriver, name)) if isinstance(getattr(FakeDriver, name), SimpleNamespace) else {}
        assert [member for member in members if not hasattr(getattr(cuda.get().drv, name), member)] == [], name
    assert hasattr(runtime.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    assert hasattr(runtime.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert runtime.cudaGetErrorString(runtime.cudaError_t.cudaErrorMemoryAllocation)[1] == b"out of memory"


@pytest.mark.parametrize("name", library.NAMES)
def test_planning_imports_neither_cuda_nor_tensorrt(name: str) -> None:
    code = (
        f"import sys; from sweep.backends import registry; backend = registry.get({name!r}); backend.facts(); "
        "backend.missing(); registry.resolve('auto'); "
        "print(sorted({'cuda.bindings.runtime', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_missing_is_said_with_its_remedy(monkeypatch) -> None:
    backend = registry.get("tensorrt_rtx")
    monkeypatch.setattr(library, "installed", lambda _: False)
    assert "pip install 'tensorrt-rtx>=1.4'" in backend.missing()
    monkeypatch.setattr(library, "installed", lambda _: True)
    monkeypatch.setattr(cuda, "installed", lambda: False)
    assert "cuda-python" in backend.missing()


def test_auto_takes_tensorrt_then_rtx_where_they_can_run(monkeypatch) -> None:
    from sweep.backends.tensorrt.backend import TensorRT
    from sweep.system import environment

    here = {**environment.machine(), "gpu": "NVIDIA H200", "compute_capability": "9.0"}
    monkeypatch.setattr(environment, "machine", lambda: here)
    monkeypatch.setattr(TensorRT, "missing", lambda self: None)
    assert registry.resolve("auto")[0] == "tensorrt"
    monkeypatch.setattr(TensorRT, "missing", lambda self: "no" if self.name == "tensorrt" else None)
    name, why = registry.resolve("auto")
    assert name == "tensorrt_rtx"
    assert "NVIDIA H200" in why
    monkeypatch.setattr(TensorRT, "missing", lambda self: f"{self.name} is not installed")
    name, why = registry.resolve("auto")
    assert name == "onnxruntime"
    assert "tensorrt_rtx is not installed" in why
