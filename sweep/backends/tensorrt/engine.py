"""A deserialised engine, and how its execution contexts are made with either library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.errors import SessionError

if TYPE_CHECKING:
    import tensorrt

    from sweep.axes import JsonDict
    from sweep.backends.tensorrt.library import Library

_COMPILED: dict[str, bytes] = {}  # what TensorRT-RTX compiled in this process, by engine: a reload need not again


class Engine:
    """A deserialised engine.

    Args:
        library: its library.
        plan: the serialised engine.
        name: tells engines apart in what this process remembers of them; None remembers nothing.

    Attributes:
        library: as given.
        engine: the library's own object.
        settings: the choices that go into ``realised``.

    Raises:
        SessionError: the library refused it; its own last messages.
    """

    def __init__(self, library: Library, plan: bytes, name: str | None = None) -> None:
        self.library = library
        self._name = name
        library.log.clear()
        self._runtime: tensorrt.Runtime = library.trt.Runtime(library.logger)
        self.engine: tensorrt.ICudaEngine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise SessionError(f"{library.label} cannot load the engine: {library.log.tail()}")
        self.settings: JsonDict = {}
        self._compiled: Any = None
        self._config = self._runtime_config()

    def _runtime_config(self) -> Any:
        """TensorRT-RTX compiles when a context is made: once a process, whole, and with no graph of its own.

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
            known = _COMPILED.get(self._name or "")
            warm = known is not None and bool(self._compiled.deserialize(known))
            config.set_runtime_cache(self._compiled)
            self.settings["runtime_cache"] = "warm" if warm else "cold"
        return config

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
        """Keep what was compiled for the next session of this engine in this process."""
        if self._compiled is not None and self._name is not None:
            _COMPILED[self._name] = bytes(self._compiled.serialize())

    def facts(self) -> JsonDict:
        """{context_memory_bytes, weights_bytes}: scratch memory of one context, and the engine's weights."""
        weights = None
        if hasattr(self.engine, "get_engine_stat") and self.library.has("EngineStat", "TOTAL_WEIGHTS_SIZE"):
            weights = int(self.engine.get_engine_stat(self.library.member("EngineStat", "TOTAL_WEIGHTS_SIZE")))
        size = getattr(self.engine, "device_memory_size_v2", None)
        return {"context_memory_bytes": None if size is None else int(size), "weights_bytes": weights}
