"""Simulate a server with scripted service times on a virtual clock.

It tests the load generator, measures the harness and predicts curves. No model runs: its records carry ``backend:
simulated``.
"""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep import __version__
from sweep.backends import pipeline_rows
from sweep.backends.clock import VirtualClock
from sweep.errors import BuildError, LoadError, SessionError
from sweep.spec import RANGE, Script, elements
from sweep.system import generator, regular_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from sweep.backends.base import PipelinePart, ShapesAt
    from sweep.spec import JsonDict, Variant

_DEPTH = 64  # inferences a simulated stream holds in flight
_DRAWS_AT_ONCE = 4096
_PARTS = 4  # columns of `SupportsPartTimes`, none of which is simulated
_SERVICE = 7001  # of the seed's children: no rung of a ladder has this number
_ALL_PERCENT = 100
_MOST_FACTOR = 64  # bytes of the file with the factor
_LARGEST_FACTOR = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Tell how the engine of a stream serves the requests of the load.

    Attributes:
        in_range: one profile covers all of them.
        switches_profile: one context has the profiles of the shapes in turn.
        slowness: factor on all service times, which networks beside this one cause.
    """

    in_range: bool = False
    switches_profile: bool = False
    slowness: float = 1.0


class SimulatedStream:
    """Simulate one first-in-first-out server with scripted service times on its own virtual clock.

    Args:
        script: service times and faults.
        batch: samples of a full batch.
        seed: of the random service times.
        number: number of the stream in its session; each has times of its own.
        scales: factor on the service times at each shape of the load; the last is that of the model's own.
        served: how the engine serves requests, which decides what the script adds.
    """

    max_depth = _DEPTH

    def __init__(
        self,
        script: Script,
        batch: int,
        seed: int,
        number: int = 0,
        scales: Sequence[float] = (1.0,),
        served: Served | None = None,
    ) -> None:
        served = served or Served()
        self.clock = VirtualClock()
        self._script = script
        self._batch = batch
        self._slowness = _slowness(script.machine) * served.slowness
        self._raises = script.raise_at == "measure"
        self._rng = generator(seed, _SERVICE, number)
        self._draw = _exponential(self._rng).__next__ if script.distribution == "exponential" else None
        self._mean_ns: dict[int, float] = {}  # of an inference, by its samples
        self._in_flight: deque[int] = deque()
        self._free_ns = 0
        self._scales = scales
        self._last_shape = len(scales) - 1
        profile_us = (script.profile_us or 0.0) if served.switches_profile else 0.0
        self._switch_ns = round(((script.switch_us or 0.0) + profile_us) * 1000)
        self._range_ns = round((script.range_us or 0.0) * 1000) if served.in_range else 0
        self._sleeps_ns = None if script.sleep_after_us is None else script.sleep_after_us * 1000
        self._wake_ns = round((script.wake_us or 0.0) * 1000)

    def enqueue(self, samples: int | None = None) -> None:
        """Start one inference: it completes one service time after now, or after the inference before it.

        Args:
            samples: how many; None for the batch.
        """
        self._start(self._service_ns(self._batch if samples is None else samples))

    def enqueue_shape(self, number: int) -> None:
        """Start one inference of the shape of an engine, whose service time is as much shorter as it has elements.

        Args:
            number: place of the engine in the load's ``engine_shapes``.
        """
        added_ns = self._switch_ns if number != self._last_shape else 0
        self._last_shape = number
        self._start(added_ns + round(self._service_ns(self._batch) * self._scales[number]))

    def _start(self, service_ns: int) -> None:
        """Start one inference that takes `service_ns`, ns."""
        if self._raises:
            raise LoadError("scripted error in measure")
        start = self.clock.now_ns()
        if start < self._free_ns:  # noqa: PLR1730 - a call of max is a tenth of what a request costs
            start = self._free_ns
        if self._sleeps_ns is not None and start - self._free_ns > self._sleeps_ns:
            start += self._wake_ns
        self._free_ns = start + service_ns + self._range_ns
        self._in_flight.append(self._free_ns)

    def wait(self) -> None:
        """Move the clock to the completion of the oldest inference."""
        self.clock.sleep_until_ns(self._in_flight.popleft())

    def _service_ns(self, samples: int) -> int:
        mean_ns = self._mean_ns.get(samples)
        if mean_ns is None:
            mean_ns = (self._script.service_us + self._script.sample_us * samples) * 1000 * self._slowness
            self._mean_ns[samples] = mean_ns
        return round(mean_ns) if self._draw is None else int(self._draw() * mean_ns)


def _exponential(rng: np.random.Generator) -> Iterator[float]:
    """Yield exponential times of mean 1 without end."""
    while True:
        yield from rng.exponential(1.0, _DRAWS_AT_ONCE).tolist()


class SimulatedPipelineStream(SimulatedStream):
    """Simulate the stages of a pipeline, each with a scripted time, on one virtual clock.

    Where stages overlap, the requests in flight are in different stages: each stage serves one at a time, or as many as
    it has streams, in the order of arrival.

    Args:
        script: service times of stages without one of their own, and faults.
        variant: its pipeline, batch and seed.
        number: number of the stream in its session.
    """

    def __init__(self, script: Script, variant: Variant, number: int) -> None:
        super().__init__(script, variant.engine.batch, variant.load.seed, number)
        assert variant.pipeline is not None  # noqa: S101 - for mypy: only variants with one come here
        self._pipeline = variant.pipeline
        self._order = list(self._pipeline.runs())
        self._row_draws = pipeline_rows.in_turn(pipeline_rows.drawn_rows(self._pipeline, variant.load.seed, number))
        self._servers = [[0] * (stage.streams or 1) for stage in self._pipeline.stages]
        self._times: deque[NDArray[np.float32]] = deque()
        self._waited = 0

    def enqueue(self, samples: int | None = None) -> None:
        """Start one request: each run of a stage begins once that before it is over and the stage is free."""
        if self._raises:
            raise LoadError("scripted error in measure")
        rows = dict.fromkeys((link.tensor for link in self._pipeline.externals()), samples or self._batch)
        drawn = {stage: next(draws) for stage, draws in self._row_draws.items()}
        times = np.zeros(len(self._pipeline.stages))
        now = self.clock.now_ns() if self._pipeline.overlap else max(self.clock.now_ns(), self._free_ns)
        for number, _ in self._order:
            stage, servers = self._pipeline.stages[number], self._servers[number]
            given = max((rows.get(link.tensor, self._batch) for link in stage.inputs), default=self._batch)
            batch = stage.batch or self._batch
            runs = 1 if stage.host is not None else len(pipeline_rows.slices(given, batch))
            own_us = stage.service_us
            each_ns = self._service_ns(batch) if own_us is None else round(own_us * 1000 * self._slowness)
            rows.update(dict.fromkeys((link.tensor for link in stage.outputs), drawn.get(number, given)))
            place = servers.index(min(servers))
            now = max(now, servers[place]) + runs * each_ns
            servers[place] = now
            times[number] += runs * each_ns
        self._free_ns = now
        self._in_flight.append(now)
        self._times.append(np.concatenate([np.full(_PARTS, np.nan), times / 1e6]).astype(np.float32))

    def wait(self) -> None:
        """Move the clock to the completion of the oldest request."""
        super().wait()
        self._waited += 1

    def take_parts_ms(self) -> NDArray[np.float32]:
        """Return and discard the times of each request waited for: four of NaN, then one of each stage, ms."""
        times = [self._times.popleft() for _ in range(self._waited)]
        self._waited = 0
        return np.array(times, dtype=np.float32).reshape(-1, _PARTS + len(self._pipeline.stages))


def _scales(variant: Variant) -> list[float]:
    """Return the factor on the service time at each shape of the load: its elements over those of the largest."""
    counts = [elements(shape) for shape in variant.load.engine_shapes]
    return [count / counts[-1] for count in counts] or [1.0]


def _served(variant: Variant) -> Served:
    """Return how the engine of `variant` serves the requests of its load."""
    profiles = variant.engine.profiles
    return Served(
        in_range=profiles is not None and profiles.way == RANGE,
        switches_profile=profiles is not None and bool(variant.session.profile_switch),
        slowness=_interference(variant),
    )


def _interference(variant: Variant) -> float:
    """Return the factor on the service times of a network that has others beside it.

    Under shares it is that of the share alone, as if the others had no other effect.
    """
    shared = variant.session.shared
    if shared is None:
        return 1.0
    if shared.shares:
        return _ALL_PERCENT / shared.shares[0]
    scripts = [other.session.script or Script() for other in variant.session.beside or ()]
    return math.prod(script.slows or 1.0 for script in scripts)


def _slowness(machine: str | None) -> float:
    """Return the factor in the file ``machine``, by which service times are multiplied; 1 without a file."""
    if machine is None:
        return 1.0
    try:
        factor = float(regular_files.read_text(Path(machine), follow=True, most=_MOST_FACTOR))
    except (OSError, ValueError) as error:
        raise SessionError(f"backend.script.machine={machine}: no factor can be read from it ({error})") from error
    if not 0 < factor <= _LARGEST_FACTOR:
        raise SessionError(
            f"backend.script.machine={machine}: {factor:g} is no factor above 0, up to {_LARGEST_FACTOR:g}"
        )
    return factor


class SimulatedSession:
    """Hold the streams of one simulated variant."""

    virtual = True
    partial_batches = True

    def __init__(self, script: Script, variant: Variant) -> None:
        self.streams: Sequence[SimulatedStream] = [
            SimulatedStream(script, variant.engine.batch, variant.load.seed, number, _scales(variant), _served(variant))
            if variant.pipeline is None
            else SimulatedPipelineStream(script, variant, number)
            for number in range(variant.session.streams)
        ]
        self.engine_facts: JsonDict = {}
        self.realised: JsonDict = {
            "precision": None,
            "cuda_graph": variant.session.cuda_graph,
            "contexts": variant.session.streams,
            "sm_count": None,
            "clocks_mhz": None,
            "notes": ["simulated: no model ran"],
        }

    def prepare(self, sizes: Sequence[int]) -> None:
        """Do nothing: every size up to the batch runs without preparation."""

    def outputs(self) -> dict[str, np.ndarray]:
        """Return no outputs: nothing is computed."""
        return {}

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return no outputs: nothing is computed."""
        del feeds
        return {}

    def close(self) -> None:
        """Do nothing: no resource is in use."""


class Simulated:
    """Provide the ``simulated`` backend."""

    name = "simulated"
    honours = frozenset(
        {
            *("batch", "profiles", "profile_switch", "streams", "clients", "mps", "cuda_graph", "script"),
            *("sharing", "beside"),
        }
    )
    runs_models = False
    on_gpu = False

    def unsupported(self, variant: Variant) -> str | None:
        """Return None: every variant can be simulated."""
        del variant
        return None

    def environment(self, variant: Variant) -> dict[str, str]:
        """Return no variables."""
        del variant
        return {}

    def facts(self) -> JsonDict:
        """Return the version of sweep, since no library is involved."""
        return {"simulated": __version__}

    def build(self, onnx: Path, variant: Variant, shapes: ShapesAt, target: Path) -> JsonDict:
        """Write a file that describes the engine in place of one."""
        script = variant.session.script or Script()
        if script.raise_at == "build":
            raise BuildError("scripted error in build")
        text = json.dumps({"onnx": onnx.name, "shapes": shapes(variant.engine.batch)})
        write_atomic(target / "engine.json", text.encode(), durable=False)
        return {}

    def load(self, engine: Path, info: JsonDict, variant: Variant, feeds: Mapping[str, np.ndarray]) -> SimulatedSession:
        """Create the streams on virtual clocks that all start at zero."""
        del engine, info, feeds
        script = variant.session.script or Script()
        if script.raise_at == "load":
            raise SessionError("scripted error in load")
        return SimulatedSession(script, variant)

    def load_pipeline(
        self, parts: Sequence[PipelinePart], variant: Variant, externals: Mapping[str, np.ndarray]
    ) -> SimulatedSession:
        """Create the streams of a pipeline on virtual clocks that all start at zero."""
        del parts, externals
        return self.load(Path(), {}, variant, {})

    def mismatch(self, variant: Variant, realised: JsonDict) -> str | None:
        """Return None: nothing ran that could differ from the request."""
        del variant, realised
        return None
