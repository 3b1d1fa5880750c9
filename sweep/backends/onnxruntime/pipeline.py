"""Run the stages of a pipeline on onnxruntime's CPU provider, tensors bound from one session to the next.

Each tensor of the pipeline has one buffer, which the stage that writes it and those that read it are bound to: nothing
is copied between two sessions but what changes its type. A network runs over the rows of its inputs in slices of its
batch; the rows that fill the last slice are whatever was there before.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.backends.clock import RealClock
from sweep.backends.host_steps import HOST_STEPS, Call
from sweep.backends.onnxruntime.session import in_input_types
from sweep.backends.pipeline_rows import drawn_rows, in_turn, locks, slices
from sweep.backends.stream_outputs import StreamOutputs
from sweep.errors import SessionError, without_source_places

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sweep.backends.base import PipelinePart
    from sweep.spec import JsonDict, Pipeline, Variant

    Step = Callable[[int, int], None]  # run of the loop, rows to draw
    Arrays = dict[str, np.ndarray]
    Copies = list[tuple[np.ndarray, np.ndarray]]

_PARTS = 4  # columns of `SupportsPartTimes`, none of which a CPU times
_now = time.perf_counter_ns


class PipelineStream:
    """Run all stages of a request, one after the other; ``enqueue`` runs to completion.

    Args:
        parts: one of each stage.
        sessions: onnxruntime's session of each network; None for a host step.
        variant: its pipeline, batch and seed.
        externals: value of each tensor that comes from outside.
        locks: let as many requests into each stage as it takes at a time; None where stages do not overlap.
        number: of the stream.

    Raises:
        SessionError: a stage cannot be run; the message names it.
    """

    max_depth = 1

    def __init__(
        self,
        parts: Sequence[PipelinePart],
        sessions: Sequence[Any],
        variant: Variant,
        externals: Mapping[str, np.ndarray],
        locks: Sequence[threading.Semaphore] | None,
        number: int,
    ) -> None:
        assert variant.pipeline is not None  # noqa: S101 - for mypy: only variants with one come here
        self.clock = RealClock()
        self._pipeline: Pipeline = variant.pipeline
        self._batch = variant.engine.batch
        self._parts, self._sessions, self._locks = parts, sessions, locks
        self._order = list(self._pipeline.runs())
        self._drawn = drawn_rows(self._pipeline, variant.load.seed, number)
        self._draws = in_turn(self._drawn)
        self._times: list[NDArray[np.float32]] = []
        self._arrays: dict[str, np.ndarray] = {}
        self._rows: dict[str, int] = {}
        self._row_outputs: set[tuple[int, str]] = set()
        self._externals: dict[str, np.ndarray] = {}
        written = {link.tensor for part in parts for link in part.stage.outputs}
        self._renewed = [name for name in externals if name in written]
        self._allocate(externals)
        self._steps = [
            self._network_step(stage) if part.engine is not None else self._host_step(stage)
            for stage, part in enumerate(parts)
        ]
        self.feed(externals)
        self.enqueue()
        self._draws = in_turn(self._drawn)
        self._times.clear()

    def _allocate(self, externals: Mapping[str, np.ndarray]) -> None:
        """Run each stage once at the most rows, and allocate a buffer for each tensor that any stage touches."""
        values: dict[str, np.ndarray] = dict(externals)
        least: dict[str, int] = {name: len(value) if value.ndim else 0 for name, value in values.items()}
        for stage in dict.fromkeys(stage for stage, _ in self._order):
            part = self._parts[stage]
            try:
                if part.engine is None:
                    step = HOST_STEPS[str(part.stage.host)]
                    inputs = {link.port: values[link.tensor] for link in part.stage.inputs}
                    call = Call(run=0, count=part.stage.count, batch=self._batch, rows=part.stage.most_rows)
                    outputs = step.run(inputs, call)
                else:
                    outputs = self._try(stage, values, least)
            except Exception as error:
                raise _failure(part, error) from error
            for link in part.stage.outputs:
                values[link.tensor] = outputs[link.port]
                rows = len(values[link.tensor]) if values[link.tensor].ndim else 0
                least[link.tensor] = max(least.get(link.tensor, 0), rows)
        for name, value in values.items():
            shape = (least[name], *value.shape[1:]) if value.ndim else ()
            self._arrays[name] = np.zeros(shape, value.dtype)
            self._rows[name] = len(value) if value.ndim else 0

    def _try(self, stage: int, values: Mapping[str, np.ndarray], least: dict[str, int]) -> dict[str, np.ndarray]:
        """Run a network once at its batch, and return zeros as large as its outputs are for all rows of its inputs.

        Args:
            stage: number of the stage.
            values: tensors so far, by name.
            least: rows that the buffer of each has to have; those that fill the last slice are added.
        """
        part, session = self._parts[stage], self._sessions[stage]
        batch, types = part.variant.engine.batch, in_input_types(session, part.feeds)
        rows = _common_rows(part, values)
        whole = rows if rows is None else len(slices(rows, batch)) * batch
        for link in part.stage.inputs:
            _check_fit(
                link.port, types[link.port], link.tensor, values[link.tensor], by_row=link.port in part.row_inputs
            )
            if whole is not None and link.port in part.row_inputs:
                least[link.tensor] = max(least[link.tensor], whole)
        names = [link.port for link in part.stage.outputs]
        outputs = dict(zip(names, session.run(names, dict(types)), strict=True))
        for link in part.stage.outputs:
            value = outputs[link.port]
            if rows is not None and whole is not None and value.ndim and len(value) == batch:
                self._row_outputs.add((stage, link.port))
                outputs[link.port] = np.zeros((rows, *value.shape[1:]), value.dtype)
                least[link.tensor] = max(least.get(link.tensor, 0), whole)
        return outputs

    def _host_step(self, stage: int) -> Step:
        part = self._parts[stage]
        step, count, batch, arrays, rows = (
            HOST_STEPS[str(part.stage.host)],
            part.stage.count,
            self._batch,
            self._arrays,
            self._rows,
        )

        def run(number: int, drawn: int) -> None:
            inputs = {link.port: arrays[link.tensor][: rows[link.tensor]] for link in part.stage.inputs}
            outputs = step.run(inputs, Call(run=number, count=count, batch=batch, rows=drawn or None))
            for link in part.stage.outputs:
                value = outputs[link.port]
                arrays[link.tensor][: len(value)] = value
                rows[link.tensor] = len(value)

        return run

    def _network_step(self, stage: int) -> Step:
        """Bind the slices of a network to the buffers, and return the call that runs as many as there are rows for."""
        part, session, rows = self._parts[stage], self._sessions[stage], self._rows
        batch = part.variant.engine.batch
        sources, casts = self._sources(part, session)
        targets, backs = self._targets(part)
        by_row = {*part.row_inputs, *(port for number, port in self._row_outputs if number == stage)}
        leading = next((link.tensor for link in part.stage.inputs if link.port in part.row_inputs), None)
        capacity = batch if leading is None else len(self._arrays[leading])
        bindings = [
            _bound(session, *(_at(values, by_row, start, batch) for values in (sources, targets)))
            for start in range(0, max(capacity - batch, 0) + 1, batch)
        ]
        row_tensors = [link.tensor for link in part.stage.outputs if link.port in by_row]

        def run(_number: int, _drawn: int) -> None:
            count = batch if leading is None else rows[leading]
            for target, source in casts:
                np.copyto(target, source, casting="unsafe")
            for binding in bindings[: len(slices(count, batch))]:
                session.run_with_iobinding(binding)
            for target, source in backs:
                np.copyto(target, source)
            rows.update(dict.fromkeys(row_tensors, count))

        return run

    def _sources(self, part: PipelinePart, session: Any) -> tuple[Arrays, Copies]:
        """Return the array that each input reads, and what has to be cast into it first, as (target, source)."""
        types, casts = in_input_types(session, part.feeds), []
        sources: dict[str, np.ndarray] = {}
        for link in part.stage.inputs:
            source = self._arrays[link.tensor]
            if source.dtype != types[link.port].dtype:
                casts.append((np.zeros(source.shape, types[link.port].dtype), source))
                source = casts[-1][0]
            sources[link.port] = source
        return sources, casts

    def _targets(self, part: PipelinePart) -> tuple[Arrays, Copies]:
        """Return the array that each output writes, and what has to be copied from it then, as (target, source).

        A network that writes a tensor which it reads gets an array of its own: a kernel may write before it has read
        everything.
        """
        read, backs = {link.tensor for link in part.stage.inputs}, []
        targets: dict[str, np.ndarray] = {}
        for link in part.stage.outputs:
            target = self._arrays[link.tensor]
            if link.tensor in read:
                backs.append((target, np.zeros_like(target)))
                target = backs[-1][1]
            targets[link.port] = target
        return targets, backs

    def enqueue(self, samples: int | None = None) -> None:
        """Run all stages of one request.

        Raises:
            SessionError: a stage failed; the message names it.
        """
        del samples
        times = np.zeros(len(self._parts))
        drawn = {stage: next(draws) for stage, draws in self._draws.items()}
        steps, locks = self._steps, self._locks
        for name in self._renewed:
            self._put(name, self._externals[name])
        for stage, number in self._order:
            try:
                with locks[stage] if locks is not None else contextlib.nullcontext():
                    start = _now()
                    steps[stage](number, drawn.get(stage, 0))
                    times[stage] += _now() - start
            except Exception as error:
                raise _failure(self._parts[stage], error) from error
        self._times.append(np.concatenate([np.full(_PARTS, np.nan), times / 1e6]).astype(np.float32))

    def wait(self) -> None:
        """Do nothing: no request is in flight once ``enqueue`` has returned."""

    def take_parts_ms(self) -> NDArray[np.float32]:
        """Return and discard the times of each request since the last call: four of NaN, then one of each stage, ms."""
        times, self._times = self._times, []
        return np.array(times, dtype=np.float32).reshape(-1, _PARTS + len(self._parts))

    def feed(self, externals: Mapping[str, np.ndarray]) -> None:
        """Put values into the tensors that come from outside; each request begins with them."""
        self._externals = {name: np.array(value) for name, value in externals.items()}
        for name, value in self._externals.items():
            self._put(name, value)

    def _put(self, name: str, value: np.ndarray) -> None:
        np.copyto(self._arrays[name][: len(value)] if value.ndim else self._arrays[name], value, casting="unsafe")
        if value.ndim:
            self._rows[name] = len(value)

    def outputs(self) -> dict[str, np.ndarray]:
        """Return copies of the outputs of the pipeline, by the names of the tensors."""
        return {
            name: self._arrays[name][: self._rows[name]].copy()
            if self._arrays[name].ndim
            else self._arrays[name].copy()
            for name in self._pipeline.outputs
        }

    def infer(self, externals: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of one request with other tensors from outside, and the rows of the first request."""
        self.feed(externals)
        self._draws = in_turn(self._drawn)
        self.enqueue()
        self._times.pop()
        return self.outputs()


class PipelineSession(StreamOutputs):
    """Hold the streams of a pipeline."""

    virtual = False
    partial_batches = False

    def __init__(self, streams: Sequence[PipelineStream], realised: JsonDict) -> None:
        self.streams = streams
        self.realised = realised
        self.engine_facts: JsonDict = {}

    def prepare(self, sizes: Sequence[int]) -> None:
        """Do nothing: only whole batches run."""

    def close(self) -> None:
        """Release the sessions and their buffers."""
        self.streams = []


def _at(values: Arrays, by_row: set[str], start: int, batch: int) -> Arrays:
    """Return the rows of one slice of each array, and the whole array where it has no rows."""
    return {port: value[start : start + batch] if port in by_row else value for port, value in values.items()}


def _bound(session: Any, sources: Arrays, targets: Arrays) -> Any:
    """Return a binding of a session to arrays."""
    import onnxruntime as ort

    binding = session.io_binding()
    for port, value in sources.items():
        binding.bind_ortvalue_input(port, ort.OrtValue.ortvalue_from_numpy(value))
    for port, value in targets.items():
        binding.bind_output(port, "cpu", 0, value.dtype, list(value.shape), value.ctypes.data)
    return binding


def _common_rows(part: PipelinePart, values: Mapping[str, np.ndarray]) -> int | None:
    """Return the rows of a network's inputs; None where none of them has a batch.

    Raises:
        SessionError: they differ.
    """
    rows = {link.port: len(values[link.tensor]) for link in part.stage.inputs if link.port in part.row_inputs}
    if len(set(rows.values())) > 1:
        texts = ", ".join(f"{port} has {count}" for port, count in rows.items())
        raise SessionError(f"its inputs have different numbers of rows: {texts}; map tensors of one number")
    return next(iter(rows.values()), None)


def _check_fit(port: str, wanted: np.ndarray, tensor: str, given: np.ndarray, *, by_row: bool) -> None:
    """Refuse a tensor whose shape or type an input does not take; floats of another size are cast.

    Raises:
        SessionError: it does not fit.
    """
    shapes = [("rows", *value.shape[1:]) if by_row and value.ndim else value.shape for value in (wanted, given)]
    if shapes[0] != shapes[1]:
        texts = ["x".join(map(str, shape)) or "a scalar" for shape in shapes]
        raise SessionError(f"input {port} is {texts[0]}, and tensor {tensor} is {texts[1]}; map a tensor that fits")
    if given.dtype != wanted.dtype and {given.dtype.kind, wanted.dtype.kind} != {"f"}:
        raise SessionError(
            f"input {port} is {wanted.dtype}, and tensor {tensor} is {given.dtype}; map a tensor that fits"
        )


def _failure(part: PipelinePart, error: Exception) -> SessionError:
    """Return an error that names the stage."""
    text = " ".join(without_source_places(str(error)).split()) or type(error).__name__
    return SessionError(f"stage {part.stage.name}: {text}")


def load(
    open_session: Callable[[PipelinePart], Any],
    parts: Sequence[PipelinePart],
    variant: Variant,
    externals: Mapping[str, np.ndarray],
) -> PipelineSession:
    """Open a session of each network for each stream of a pipeline, and run each stream once.

    Args:
        open_session: opens the session of one network.
        parts: one of each stage.
        variant: its pipeline and its streams.
        externals: value of each tensor that comes from outside.

    Raises:
        SessionError: a stage cannot be loaded or run; the message names it.
    """
    assert variant.pipeline is not None  # noqa: S101 - for mypy: only variants with one come here
    shared = locks(variant.pipeline)

    def opened(part: PipelinePart) -> Any:
        try:
            return None if part.engine is None else open_session(part)
        except Exception as error:
            raise _failure(part, error) from error

    streams = [
        PipelineStream(parts, [opened(part) for part in parts], variant, externals, shared, number)
        for number in range(variant.session.streams)
    ]
    return PipelineSession(streams, {})
