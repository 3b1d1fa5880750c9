"""A pretended GPU on host memory, to try a session's every path where there is none: never to measure.

Work is done when it is enqueued; each stream has a clock in ms that copies and inferences move on. Errors can be
scripted. A leak shows in ``held``.
"""

import ctypes
import itertools
import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np

from sweep.backends.tensorrt import cuda
from sweep.backends.tensorrt.library import Library, Log

COPY_MS, COMPUTE_MS, EVENT_MS, PROFILE_MS = 0.25, 2.0, 0.004, 0.125
WEIGHTS_BYTES, CONTEXT_BYTES, GRAPH_BYTES, POOL_BYTES = 5000, 700, 300, 40
GIVES = ("cudaMalloc", "cudaHostAlloc", "cudaGraphInstantiate", "cudaStreamEndCapture")
OK, NOT_READY, NO_MEMORY, INVALIDATED = 0, 600, 2, 901


class Executable(list):
    """The nodes of an instantiated graph."""


class FakeRuntime:
    """What ``cuda.bindings.runtime`` offers to a session."""

    cudaError_t = SimpleNamespace(cudaSuccess=OK, cudaErrorNotReady=NOT_READY)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaGraphMemAttributeType = SimpleNamespace(cudaGraphMemAttrReservedMemCurrent=2)
    cudaStreamNonBlocking = cudaEventBlockingSync = 1
    cudaEventDefault = cudaHostAllocDefault = 0
    cudaStream_t = int

    def __init__(self) -> None:
        self.held: dict[object, object] = {}
        self.clocks: dict[int, float] = {}
        self.calls: list[str] = []
        self.fails: dict[str, int] = {}
        self.busy_polls = 0
        self.captured: list[object] | None = None
        self.recorded: list[SimpleNamespace] | None = None  # what CUPTI records; None while nothing is enabled
        self.edges: list[tuple[int, int]] | None = None  # of a captured graph; None for a chain
        self.graph_nodes: dict[int, object] = {}
        self._next = 100

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if not name.startswith("cuda") or not callable(found):
            return found

        def call(*args):
            self.calls.append(name)
            error = self.fails.get(name, OK)
            if error:
                self.captured = None
                return (error, None) if name in GIVES else (error,)
            return found(*args)

        return call

    def _new(self, value=None):
        self._next += 1
        self.held[self._next] = value
        return OK, self._next

    def _drop(self, handle):
        del self.held[int(handle)]
        return (OK,)

    cudaEventDestroy = cudaGraphExecDestroy = cudaStreamDestroy = cudaFreeHost = _drop

    def cudaGraphDestroy(self, graph):
        self.graph_nodes = {}
        return self._drop(graph)

    def cudaFree(self, address):
        return (OK,) if address == 0 else self._drop(address)

    def cudaMalloc(self, size):
        memory = ctypes.create_string_buffer(size)
        address = ctypes.addressof(memory)
        self.held[address] = memory
        return OK, address

    def cudaHostAlloc(self, size, _flags):
        return self.cudaMalloc(size)[-2:]

    def cudaStreamCreateWithFlags(self, _flags):
        error, handle = self._new()
        self.clocks[handle] = 0.0
        return error, handle

    def cudaEventCreateWithFlags(self, _flags):
        return self._new(0.0)

    def cudaEventRecord(self, event, stream):
        self.held[event] = self.clocks[stream]
        return (OK,)

    def cudaStreamWaitEvent(self, stream, event, _flags):
        self.clocks[stream] = max(self.clocks[stream], self.held[event])
        return (OK,)

    def cudaEventElapsedTime(self, start, end):
        return OK, self.held[end] - self.held[start]

    def cudaEventSynchronize(self, _event):
        return (OK,)

    def cudaEventQuery(self, _event):
        self.busy_polls += 1
        return (NOT_READY if self.busy_polls % 3 else OK,)

    def cudaStreamSynchronize(self, _stream):
        return (OK,)

    def cudaMemcpyAsync(self, target, source, size, _kind, stream):
        ctypes.memmove(target, source, size)
        self.clocks[stream] += COPY_MS
        return (OK,)

    def cudaMemsetAsync(self, address, byte, size, _stream):
        ctypes.memset(address, byte, size)
        return (OK,)

    def cudaMemGetInfo(self):
        taken = sum(len(item) for item in self.held.values() if hasattr(item, "raw"))
        return OK, (1 << 30) - taken - GRAPH_BYTES * self._executables(), 1 << 30

    def _executables(self):
        return sum(isinstance(item, Executable) for item in self.held.values())

    def cudaDeviceGetGraphMemAttribute(self, _device, _attribute):
        return OK, POOL_BYTES * self._executables()

    def cudaDeviceSynchronize(self):
        return (OK,)

    def cudaGraphUpload(self, _graph, _stream):
        return (OK,)

    def cudaStreamBeginCapture(self, _stream, _mode):
        self.captured = []
        return (OK,)

    def cudaStreamEndCapture(self, _stream):
        nodes, self.captured = self.captured, None
        return self._new(nodes)

    def cudaGraphGetNodes(self, graph, count):
        self.graph_nodes = dict(enumerate(self.held[graph], 1))
        return OK, list(self.graph_nodes)[:count] or None, len(self.graph_nodes)

    def cudaGraphGetEdges(self, graph, count):
        edges = self.edges or list(itertools.pairwise(range(1, len(self.held[graph]) + 1)))
        sources, targets = ([edge[side] for edge in edges[:count]] for side in (0, 1))
        return OK, sources, targets, None, len(edges)

    def cudaGraphNodeGetType(self, node):
        kind = getattr(self.graph_nodes[node], "kind", "Kernel")
        return OK, SimpleNamespace(name=f"cudaGraphNodeType{kind}")

    def ran(self, stream, ms, name="scale_kernel", kind=10):
        """Move the clock of a stream on by what the GPU runs, which CUPTI records."""
        start = self.clocks[stream]
        self.clocks[stream] += ms
        if self.recorded is not None:
            times = {"start": round(start * 1e6), "end": round(self.clocks[stream] * 1e6)}
            self.recorded.append(SimpleNamespace(kind=kind, name=name, stream_id=stream, **times))

    def cudaGraphInstantiate(self, graph, _flags):
        return self._new(Executable(self.held[graph]))

    def cudaGraphLaunch(self, graph, stream):
        for node in self.held[graph]:
            node(stream)
        return (OK,)

    def cudaGetDevice(self):
        return OK, 0

    def cudaGetDeviceProperties(self, _device):
        return OK, SimpleNamespace(
            name=b"Pretended", major=9, minor=0, multiProcessorCount=132, persistingL2CacheMaxSize=1000
        )

    def cudaRuntimeGetVersion(self):
        return OK, 13000

    def cudaGetErrorName(self, error):
        return OK, {NO_MEMORY: b"cudaErrorMemoryAllocation", INVALIDATED: b"cudaErrorStreamCaptureInvalidated"}[error]

    def cudaGetErrorString(self, error):
        return OK, {NO_MEMORY: b"out of memory", INVALIDATED: b"operation failed due to a previous error"}[error]


class FakeDriver:
    """What ``cuda.bindings.driver`` offers to a session: green contexts, and a kernel that finds SMs.

    Attributes:
        reached: SMs that the kernel finds; None for all that the stream's context has.
        under_mps: what the device says of MPS.
        current: the current context, ``primary`` or a green one's.
    """

    CUresult = SimpleNamespace(CUDA_SUCCESS=OK)
    CUdevice_attribute = SimpleNamespace(CU_DEVICE_ATTRIBUTE_MPS_ENABLED=133)
    CUdevResourceType = SimpleNamespace(CU_DEV_RESOURCE_TYPE_SM=1)
    CUgreenCtxCreate_flags = SimpleNamespace(CU_GREEN_CTX_DEFAULT_STREAM=1)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUstream = int

    def __init__(self, runtime: FakeRuntime) -> None:
        self.runtime = runtime
        self.reached: int | None = None
        self.under_mps = False
        self.current: object = "primary"
        self.fails: dict[str, int] = {}
        self.contexts: list[object] = []
        self._of_stream: dict[int, int] = {}

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("cu") and name in self.fails:
            return lambda *_args: (self.fails[name], None)
        return found

    def cuGetErrorName(self, _error):
        return OK, b"CUDA_ERROR_NOT_SUPPORTED"

    def cuDeviceGet(self, number):
        return OK, number

    def cuDeviceGetAttribute(self, _attribute, _device):
        return OK, int(self.under_mps)

    def cuModuleLoadData(self, text):
        assert b"%smid" in text
        return OK, 1

    def cuModuleUnload(self, _module):
        return (OK,)

    def cuModuleGetFunction(self, _module, name):
        return OK, name

    def cuLaunchKernel(self, _kernel, *rest):
        stream, ((memory, slots, _cycles), _types) = rest[7:9]
        given = self._of_stream.get(stream, 132)
        count = given if self.reached is None else self.reached

        def work(_on):
            (ctypes.c_uint * slots).from_address(memory)[:count] = [1] * count

        if self.runtime.captured is None:
            work(stream)
        else:
            self.runtime.captured.append(work)
        return (OK,)

    def cuDevicePrimaryCtxRetain(self, _device):
        return OK, "primary"

    def cuCtxSetCurrent(self, context):
        self.current = context
        return (OK,)

    def cuDeviceGetDevResource(self, _device, _kind):
        return OK, SimpleNamespace(sm=SimpleNamespace(smCount=132))

    def cuDevSmResourceSplitByCount(self, groups, whole, _flags, least):
        """Multiples of 8, as on Hopper."""
        given = min(-(-least // 8) * 8, whole.sm.smCount)
        count = min(groups, whole.sm.smCount // given)
        sms = [SimpleNamespace(smCount=given, first=number * given) for number in range(count)]
        return OK, [SimpleNamespace(sm=each) for each in sms], count, None

    def cuDevResourceGenerateDesc(self, parts, _count):
        return OK, [part.sm for part in parts]

    def cuGreenCtxCreate(self, described, _device, _flags):
        first = getattr(described[0], "first", 0)
        self.contexts.append(made := SimpleNamespace(sms=sum(sm.smCount for sm in described), first=first))
        return OK, made

    def cuCtxFromGreenCtx(self, green):
        return OK, green

    def cuCtxGetDevResource(self, context, _kind):
        return OK, SimpleNamespace(sm=SimpleNamespace(smCount=context.sms))

    def cuGreenCtxStreamCreate(self, green, _flags, _priority):
        error, handle = self.runtime.cudaStreamCreateWithFlags(1)
        self._of_stream[handle] = green.sms
        return error, handle


class FakeContext:
    """Computes y = 2 x."""

    def __init__(self, engine) -> None:
        self.engine = engine
        self.allocator = engine.allocator
        self.scratch = self.allocator.allocate_async(CONTEXT_BYTES, 256, 0, 0) if self.allocator else 0
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.profile = 0
        self.persistent_cache_limit = 0
        self.given: tuple[int, int] | None = None
        self.profiler = None

    def __del__(self):
        if self.allocator:
            self.allocator.deallocate_async(self.scratch, 0)

    def update_device_memory_size_for_shapes(self):
        return 16 * self.shape[0]

    def set_device_memory(self, address, size):
        self.given = (address, size)

    def set_optimization_profile_async(self, profile, stream):
        if not 0 <= profile < self.engine.num_optimization_profiles:
            return False
        self.profile, self.shape = profile, ()
        self.engine.runtime.clocks[stream] += PROFILE_MS
        return True

    def set_input_shape(self, name, shape):
        if self.engine.profiles:
            least, most = self.engine.profiles[self.profile]
            if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
                return False
            self.shape = tuple(shape)
            return True
        least, most = self.engine.batches
        if not self.engine.takes_shape or not least <= shape[0] <= most:
            return False
        self.shape = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        return self.engine.output_shape or self.shape

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        size, addresses = int(np.prod(self.shape)), dict(self.addresses)

        def work(on):
            x, y = ((ctypes.c_float * size).from_address(addresses[name]) for name in "xy")
            y[:] = [2 * value for value in x]
            self.engine.runtime.ran(on, COMPUTE_MS)

        def event(on):
            self.engine.runtime.clocks[on] += EVENT_MS

        event.kind = "EventRecord"
        nodes = [work] if self.profiler is None else [event, work, event]
        if not self.engine.enqueues:
            return False
        if self.engine.runtime.captured is not None:
            self.engine.runtime.captured += [] if self.engine.captures_nothing else nodes
            return True
        for node in nodes:
            node(stream)
        if self.profiler is not None:
            self.profiler.report_layer_time("scale", COMPUTE_MS + EVENT_MS)
        return True


class FakeEngine:
    """One input x, one output y, both float32.

    Attributes:
        profiles: smallest and largest shape of x in each of several profiles; () for one over ``batches``.
    """

    num_io_tensors = 2
    device_memory_size_v2 = 4096

    def __init__(self, runtime: FakeRuntime) -> None:
        self.runtime = runtime
        self.enqueues = self.takes_shape = self.tells_layers = True
        self.captures_nothing = False
        self.output_shape: tuple[int, ...] | None = None
        self.contexts = 0
        self.strategies: list[str] = []
        self.batches = (2, 2)
        self.profiles: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
        self.allocator = None
        self.refittable = False
        self.streamable_weights_size = 3 << 20
        self.weight_streaming_budget_v2 = self.streamable_weights_size
        self.compiled: list[bytes] = []

    @property
    def num_optimization_profiles(self):
        return len(self.profiles) or 1

    def get_device_memory_size_for_profile_v2(self, profile):
        return 1000 * (profile + 1)

    def get_tensor_profile_shape(self, name, profile):
        if self.profiles:
            least, most = self.profiles[profile]
            return [least, most, most]
        least, most = self.batches
        return [(least, 3), (most, 3), (most, 3)]

    def get_tensor_name(self, number):
        return "xy"[number]

    def get_tensor_mode(self, name):
        return "INPUT" if name == "x" else "OUTPUT"

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name="FLOAT")

    def get_tensor_shape(self, name):
        least, most = self.batches
        return [least if least == most else -1, 3]

    def get_tensor_location(self, name):
        return SimpleNamespace(name="DEVICE")

    def get_tensor_format(self, name):
        return SimpleNamespace(name="LINEAR")

    def create_engine_inspector(self):
        layers = [{"Name": "scale", "LayerType": "gemm", "Inputs": [{"Name": "x", "Datatype": "Half"}]}]
        text = json.dumps({"Layers": layers if self.tells_layers else []})
        return SimpleNamespace(get_engine_information=lambda _form: text)

    def create_runtime_config(self):
        cache = SimpleNamespace(
            deserialize=lambda known: self.compiled.append(known) or True, serialize=lambda: b"compiled"
        )
        return SimpleNamespace(
            create_runtime_cache=lambda: cache,
            set_runtime_cache=lambda cache: True,
            set_execution_context_allocation_strategy=self.strategies.append,
        )

    def create_execution_context(self, choice=None):
        if isinstance(choice, str):
            self.strategies.append(choice)
        self.contexts += 1
        return FakeContext(self)


def library_of(engine: FakeEngine | None, *, rtx: bool = True) -> Library:
    """A library whose every plan is ``engine``."""

    class Allocator:
        pass

    class Runtime:
        gpu_allocator = None
        weights = 0

        def __init__(self, _logger) -> None:
            pass

        def deserialize_cuda_engine(self, _plan):
            if engine is not None and self.gpu_allocator is not None:
                engine.allocator = self.gpu_allocator
                self.weights = self.gpu_allocator.allocate_async(WEIGHTS_BYTES, 256, 0, 0)
            return engine

        def __del__(self):
            if self.weights:
                engine.allocator = None
                self.gpu_allocator.deallocate_async(self.weights, 0)

    strategies = {"CudaGraphStrategy": SimpleNamespace(DISABLED=SimpleNamespace(name="DISABLED"))} if rtx else {}
    trt = SimpleNamespace(
        __version__="0.0",
        TensorIOMode=SimpleNamespace(INPUT="INPUT"),
        LayerInformationFormat=SimpleNamespace(JSON="JSON"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="USER_MANAGED"),
        nptype=lambda _: np.float32,
        Runtime=Runtime,
        IGpuAllocator=Allocator,
        IProfiler=type("IProfiler", (), {}),
        **strategies,
    )
    return Library("tensorrt_rtx" if rtx else "tensorrt", trt, Log(), None)


def installed(monkeypatch, runtime):
    """``runtime`` in the place of CUDA's, driver included."""
    wrapped = object.__new__(cuda.Cuda)
    wrapped.rt, wrapped._ok, wrapped.not_ready = runtime, 0, 600
    wrapped.drv = runtime.driver = FakeDriver(runtime)
    monkeypatch.setattr(cuda, "get", lambda: wrapped)
    return runtime


class FakeCupti:
    """What ``cupti.cupti`` offers to a recorder: it hears of what the pretended GPU runs while a kind is enabled.

    Attributes:
        refuses: what enabling raises; None for nothing.
    """

    ActivityKind = SimpleNamespace(CONCURRENT_KERNEL=10, MEMSET=2, MEMCPY=1)

    def __init__(self, runtime: FakeRuntime) -> None:
        self.runtime = runtime
        self.enabled: set[int] = set()
        self.refuses: Exception | None = None

    def activity_register_callbacks(self, requested, completed):
        assert requested() == (8 << 20, 0)
        self.completed = completed

    def activity_enable(self, kind):
        if self.refuses is not None:
            raise self.refuses
        self.enabled.add(kind)
        self.runtime.recorded = []

    def activity_disable(self, kind):
        self.enabled.discard(kind)
        if not self.enabled:
            self.runtime.recorded = None

    def activity_flush_all(self, _flag):
        self.completed(self.runtime.recorded)


def with_cupti(monkeypatch, runtime) -> FakeCupti:
    """``cupti-python`` as if it were installed."""
    package = ModuleType("cupti")
    package.__spec__ = ModuleSpec("cupti", None)
    package.cupti = FakeCupti(runtime)
    monkeypatch.setitem(sys.modules, "cupti", package)
    return package.cupti
