"""Run inferences on an onnxruntime session, one stream object per concurrent stream."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from sweep.backends.clock import RealClock
from sweep.backends.onnxruntime import NUMERIC_TYPES
from sweep.backends.stream_outputs import StreamOutputs
from sweep.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from sweep.spec import JsonDict


def in_input_types(session: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the inputs in the types that a graph takes: those of ``keep_io=false`` are float16, samples are float32.

    Args:
        session: onnxruntime's session.
        feeds: value of each input.
    """
    halves = {item.name for item in session.get_inputs() if item.type == "tensor(float16)"}
    return {name: value.astype("float16") if name in halves else value for name, value in feeds.items()}


class OnnxRuntimeStream:
    """Run one session with bound buffers. ``enqueue`` runs to completion, without the GIL.

    Args:
        session: onnxruntime's session.
        feeds: value of each input at the full batch.
        parts: the same at each smaller batch, from 1 sample up; empty where only the full batch runs.
    """

    max_depth = 1

    def __init__(
        self, session: Any, feeds: Mapping[str, np.ndarray], parts: Sequence[Mapping[str, np.ndarray]] = ()
    ) -> None:
        import onnxruntime as ort

        self.clock = RealClock()
        self._binding = session.io_binding()
        self._run = session.run_with_iobinding
        numeric = [output.name for output in session.get_outputs() if output.type in NUMERIC_TYPES]
        first = session.run(numeric, dict(feeds)) if numeric else []
        for name, value in feeds.items():
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
        inputs = {item.name for item in session.get_inputs()}
        self._outputs = {}
        for name, value in zip(numeric, first, strict=True):
            if name not in inputs:  # onnxruntime returns the input itself, and leaves a buffer for it as it was
                self._outputs[name] = ort.OrtValue.ortvalue_from_shape_and_type(list(value.shape), value.dtype)
                self._binding.bind_ortvalue_output(name, self._outputs[name])
        # Sequences, maps and strings have no buffer of a fixed size: onnxruntime allocates them in each inference.
        self._unbound = [output.name for output in session.get_outputs() if output.name not in self._outputs]
        for name in self._unbound:
            self._binding.bind_output(name, "cpu")
        order = [*self._outputs, *self._unbound]
        self._returned_inputs = {name: order.index(name) for name in numeric if name in inputs}
        self._session = session
        self._bound_arrays: tuple[Any, ...] = (feeds, parts)  # the bindings point into these arrays
        self._parts = [self._binding, *(self._part(session, part) for part in parts)]
        self._whole_batches: Iterator[Any] = itertools.repeat(self._binding)
        self._run(self._binding)  # last, so that the buffers hold the whole batch

    def _part(self, session: Any, feeds: Mapping[str, np.ndarray]) -> Any:
        """Bind a smaller batch, or another whole one, to the front of the output buffers, and run it once."""
        import onnxruntime as ort

        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
        values = session.run(list(self._outputs), dict(feeds)) if self._outputs else []
        for (name, whole), value in zip(self._outputs.items(), values, strict=True):
            if value.dtype != whole.numpy().dtype or value.nbytes > whole.numpy().nbytes:
                raise SessionError(f"output {name} of a smaller batch does not fit that of the full one")
            binding.bind_output(name, "cpu", 0, value.dtype, list(value.shape), whole.data_ptr())
        for name in self._unbound:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        return binding

    def enqueue(self, samples: int | None = None) -> None:
        """Run one inference on the bound buffers.

        Args:
            samples: how many of them; None for the batch.
        """
        self._run(next(self._whole_batches) if samples is None else self._parts[samples])

    def wait(self) -> None:
        """Do nothing: no inference is in flight once ``enqueue`` has returned."""

    def outputs(self) -> dict[str, np.ndarray]:
        """Return copies of the numeric outputs, by name."""
        outputs = {name: value.numpy().copy() for name, value in self._outputs.items()}
        if self._returned_inputs:
            values = self._binding.get_outputs()
            outputs |= {name: values[place].numpy().copy() for name, place in self._returned_inputs.items()}
        return outputs

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of one inference with other inputs, which stay bound."""
        import onnxruntime as ort

        feeds = in_input_types(self._session, feeds)
        self._bound_arrays = (feeds, *self._bound_arrays[1:])
        for name, value in feeds.items():
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
        self._run(self._binding)
        return self.outputs()

    def take_turns(self, batches: Sequence[Mapping[str, np.ndarray]]) -> bool:
        """Run these batches in turn from now on; False, with the first alone, where their outputs differ in size."""
        batches = [in_input_types(self._session, feeds) for feeds in batches]
        self.infer(batches[0])
        self._whole_batches = itertools.repeat(self._binding)
        others = []
        for feeds in batches[1:]:
            values = self._session.run(list(self._outputs), dict(feeds)) if self._outputs else []
            if any(
                value.shape != self._outputs[name].numpy().shape
                for name, value in zip(self._outputs, values, strict=True)
            ):
                return False
            others.append(self._part(self._session, feeds))
        self._bound_arrays = (*self._bound_arrays[:2], batches)
        if others:
            self._whole_batches = itertools.cycle([self._binding, *others])
        return True


class OnnxRuntimeSession(StreamOutputs):
    """Hold N onnxruntime sessions of one optimised graph.

    Attributes:
        shape_facts: {first_run_ms}: time in which a stream was bound and ran first, ms.
    """

    virtual = False

    def __init__(self, streams: Sequence[OnnxRuntimeStream], realised: JsonDict, *, partial_batches: bool) -> None:
        self.streams = streams
        self.partial_batches = partial_batches
        self.realised = realised
        self.engine_facts: JsonDict = {}
        self.shape_facts: JsonDict = {}

    def prepare(self, sizes: Sequence[int]) -> None:
        """Do nothing: every size up to the batch was bound at load."""

    def take_turns(self, batches: Sequence[Mapping[str, np.ndarray]]) -> int:
        """Feed these inputs in turn, on every stream; the first alone where the sizes of outputs depend on the data.

        Raises:
            SessionError: onnxruntime cannot run one of them; its own message is kept.
        """
        try:
            fixed_sizes = [stream.take_turns(batches) for stream in self.streams]
            if all(fixed_sizes):
                return len(batches)
            for stream in self.streams:
                stream.take_turns(batches[:1])
        except Exception as error:
            raise SessionError(f"onnxruntime could not run the inputs: {' '.join(str(error).split())}") from error
        return 1

    def close(self) -> None:
        """Release the sessions and their buffers."""
        self.streams = []
