"""A deserialised engine, and how its execution contexts are made with either library."""

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
    """A deserialised engine.

    Args:
        library: its library.
        plan: the serialised engine.
        ledger: records the device memory that it takes; None leaves that to the library.
        kernels: file of what TensorRT-RTX compiled of it for this GPU; None keeps none.

    Attributes:
        library: as given.
        engine: the library's own object.
        settings: the choices that go into ``realised``.

    Raises:
        SessionError: the library refused it; its own last messages.
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
        self._allocator = None if ledger is None else gpu_allocator.recorder(library, ledger)
        if self._allocator is not None:
            self._runtime.gpu_allocator = self._allocator
        self.engine: tensorrt.ICudaEngine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise SessionError(f"{library.label} cannot load the engine: {library.log.tail()}")
        self.settings: JsonDict = {"knobs": builder_config.realised(self.engine)}
        self._compiled: Any = None
        self._config = self._runtime_config()

    def _runtime_config(self) -> Any:
        """TensorRT-RTX compiles when a context is made: once, whole, and with no graph of its own.

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
            known = None if self._kernels is None else runtime_cache.read(self._kernels)
            warm = known is not None and bool(self._compiled.deserialize(known))
            config.set_runtime_cache(self._compiled)
            self.settings["runtime_cache"] = "warm" if warm else "cold"
        return config

    def stream_weights(self, budget_mib: int) -> None:
        """Leave at most ``budget_mib`` MiB of weights on the GPU; before any context is made.

        Raises:
            UnsupportedError: this version streams no weights, or took another budget.
        """
        if not hasattr(self.engine, "weight_streaming_budget_v2"):
            raise UnsupportedError(f"{self.library.label} does not have weight_streaming_budget_mib")
        self.library.log.clear()
        asked = min(budget_mib * _MIB, int(self.engine.streamable_weights_size))
        try:
            self.engine.weight_streaming_budget_v2 = asked
        except RuntimeError as error:
            raise UnsupportedError(
                f"{self.library.label} does not take weight_streaming_budget_mib={budget_mib}: "
                f"{' '.join(str(error).split())}; {self.library.log.tail()}"
            ) from error
        found = int(self.engine.weight_streaming_budget_v2)
        if found != asked:
            raise UnsupportedError(
                f"{self.library.label} does not take weight_streaming_budget_mib={budget_mib}: "
                f"of {asked} bytes it made {found}; {self.library.log.tail()}"
            )
        self.settings["weight_streaming_budget_bytes"] = found

    def context(self) -> tensorrt.IExecutionContext:
        """A new execution context.

        Raises:
            SessionError: the library could not make one.
        """
        self.library.log.clear()
        made: tensorrt.IExecutionContext | None = (
            self.engine.create_execution_context()
            if self._config is None
            else self.engine.create_execution_context(self._config)
        )
        if made is None:
            raise SessionError(f"{self.library.label} made no execution context: {self.library.log.tail()}")
        return made

    def remember(self) -> None:
        """Keep what was compiled for the next session of this engine."""
        if self._compiled is not None and self._kernels is not None and self.settings["runtime_cache"] == "cold":
            runtime_cache.write(self._kernels, bytes(self._compiled.serialize()))

    def facts(self) -> JsonDict:
        """{context_memory_bytes, weights_bytes}: scratch memory of one context, and the engine's weights."""
        weights = None
        if hasattr(self.engine, "get_engine_stat") and self.library.has("EngineStat", "TOTAL_WEIGHTS_SIZE"):
            weights = int(self.engine.get_engine_stat(self.library.member("EngineStat", "TOTAL_WEIGHTS_SIZE")))
        size = getattr(self.engine, "device_memory_size_v2", None)
        return {"context_memory_bytes": None if size is None else int(size), "weights_bytes": weights}
