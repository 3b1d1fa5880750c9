"""Deserialise an engine and create its execution contexts with either library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.backends.tensorrt import builder_config, gpu_allocator, runtime_cache
from sweep.errors import SessionError, UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

    import tensorrt

    from sweep.backends.tensorrt.gpu_allocator import Ledger
    from sweep.backends.tensorrt.library import Library
    from sweep.spec import JsonDict

_MIB = 1 << 20


class Engine:
    """Hold a deserialised engine.

    Args:
        library: deserialises it.
        plan: the serialised engine.
        ledger: records its device memory; None leaves allocation to the library.
        kernels: file of the kernels that TensorRT-RTX compiled for this GPU; None keeps none.

    Attributes:
        library: as given.
        engine: the library's own object.
        settings: the choices that go into ``realised``.

    Raises:
        SessionError: the library refused the plan; with its own last messages.
    """

    def __init__(
        self, library: Library, plan: bytes, *, ledger: Ledger | None = None, kernels: Path | None = None
    ) -> None:
        self.library = library
        self._kernels = kernels
        library.log.clear()
        self._runtime: tensorrt.Runtime = library.trt.Runtime(library.logger)
        if hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True  # a version-compatible engine carries its own runtime
        self._allocator = None if ledger is None else gpu_allocator.create_allocator(library, ledger)
        if self._allocator is not None:
            self._runtime.gpu_allocator = self._allocator
        self.engine: tensorrt.ICudaEngine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise SessionError(f"{library.label} cannot load the engine: {library.log.tail()}")
        self.settings: JsonDict = {"knobs": builder_config.read_engine_config(self.engine)}
        self._compiled: Any = None
        self._config = self._runtime_config()

    def _runtime_config(self) -> Any:
        """Return the config with which TensorRT-RTX compiles a context: once, eagerly, and without a graph of its own.

        None for a library that compiled when it built.
        """
        if not self.library.has("CudaGraphStrategy", "DISABLED"):
            return None
        config: Any = self.engine.create_runtime_config()
        config.cuda_graph_strategy = self.library.member("CudaGraphStrategy", "DISABLED")
        self.settings["cuda_graph_strategy"] = config.cuda_graph_strategy.name
        if self.library.has("DynamicShapesKernelSpecializationStrategy", "EAGER"):
            eager = self.library.member("DynamicShapesKernelSpecializationStrategy", "EAGER")
            config.dynamic_shapes_kernel_specialization_strategy = eager
            self.settings["kernel_specialization"] = eager.name
        if hasattr(config, "create_runtime_cache"):
            self._compiled = config.create_runtime_cache()
            cached = None if self._kernels is None else runtime_cache.read(self._kernels)
            warm = cached is not None and bool(self._compiled.deserialize(cached))
            config.set_runtime_cache(self._compiled)
            self.settings["runtime_cache"] = "warm" if warm else "cold"
        return config

    def stream_weights(self, budget_mib: int) -> None:
        """Limit the weights on the GPU to ``budget_mib`` MiB; to be called before a context is created.

        Raises:
            UnsupportedError: this version does not stream weights, or set another budget.
        """
        if not hasattr(self.engine, "weight_streaming_budget_v2"):
            raise UnsupportedError(f"{self.library.label} does not have weight_streaming_budget_mib")
        self.library.log.clear()
        requested = min(budget_mib * _MIB, int(self.engine.streamable_weights_size))
        try:
            self.engine.weight_streaming_budget_v2 = requested
        except RuntimeError as error:
            raise UnsupportedError(
                f"{self.library.label} does not take weight_streaming_budget_mib={budget_mib}: "
                f"{' '.join(str(error).split())}; {self.library.log.tail()}"
            ) from error
        actual = int(self.engine.weight_streaming_budget_v2)
        if actual != requested:
            raise UnsupportedError(
                f"{self.library.label} does not take weight_streaming_budget_mib={budget_mib}: "
                f"{requested} bytes were requested, {actual} were set; {self.library.log.tail()}"
            )
        self.settings["weight_streaming_budget_bytes"] = actual

    def create_context(self, memory: str | None = None) -> tensorrt.IExecutionContext:
        """Create an execution context.

        Args:
            memory: who allocates its scratch memory: static, on_profile_change or user_managed; None leaves that to the
                library.

        Raises:
            SessionError: the library could not create one.
            UnsupportedError: it lacks this way of allocation.
        """
        self.library.log.clear()
        arguments: tuple[Any, ...] = ()
        if memory is not None:
            enum = "ExecutionContextAllocationStrategy"
            arguments = (builder_config.member(self.library, "context_memory", enum, memory.upper()),)
        if self._config is not None:
            if arguments:
                self._config.set_execution_context_allocation_strategy(*arguments)
            arguments = (self._config,)
        context: tensorrt.IExecutionContext | None = self.engine.create_execution_context(*arguments)
        if context is None:
            raise SessionError(f"{self.library.label} made no execution context: {self.library.log.tail()}")
        return context

    def save_runtime_cache(self) -> None:
        """Save the compiled kernels for the next session of this engine."""
        if self._compiled is not None and self._kernels is not None and self.settings["runtime_cache"] == "cold":
            runtime_cache.write(self._kernels, bytes(self._compiled.serialize()))

    @property
    def profiles(self) -> int:
        """Return the number of optimization profiles."""
        return int(self.engine.num_optimization_profiles)

    def context_memory_bytes(self, profile: int) -> int | None:
        """Return the scratch memory that a context needs under a profile, bytes; None where the version cannot tell."""
        if not hasattr(self.engine, "get_device_memory_size_for_profile_v2"):
            return None
        return int(self.engine.get_device_memory_size_for_profile_v2(profile))

    def facts(self) -> JsonDict:
        """Return {context_memory_bytes, weights_bytes}: scratch memory of one context, and the engine's weights."""
        weights = None
        if hasattr(self.engine, "get_engine_stat") and self.library.has("EngineStat", "TOTAL_WEIGHTS_SIZE"):
            weights = int(self.engine.get_engine_stat(self.library.member("EngineStat", "TOTAL_WEIGHTS_SIZE")))
        size = getattr(self.engine, "device_memory_size_v2", None)
        return {"context_memory_bytes": None if size is None else int(size), "weights_bytes": weights}
