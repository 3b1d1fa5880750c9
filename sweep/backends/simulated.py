"""Scripted service times on a virtual clock: tests the generator, measures the harness, predicts curves.

It runs no model and never claims to: its records carry ``backend: simulated``.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep import __version__
from sweep.axes import Script
from sweep.clock import VirtualClock
from sweep.errors import BuildError, LoadError, SessionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.axes import JsonDict, Variant

_DEPTH = 64  # inferences a simulated stream holds in flight
_DRAWN_AT_ONCE = 4096


class SimulatedStream:
    """One server with its own virtual clock: a first-in-first-out queue with scripted service times."""

    max_depth = _DEPTH

    def __init__(self, script: Script, batch: int, seed: int) -> None:
        self.clock = VirtualClock()
        self._mean_ns = (script.service_us + script.sample_us * batch) * 1000 * _slowness(script.machine)
        self._exponential = script.distribution == "exponential"
        self._raises = script.raise_at == "measure"
        self._rng = np.random.default_rng([seed, 7])
        self._drawn: deque[int] = deque()
        self._in_flight: deque[int] = deque()
        self._free_ns = 0

    def enqueue(self) -> None:
        """Start one inference: it ends one service time after it, or after the one before it."""
        if self._raises:
            raise LoadError("scripted error in measure")
        start = max(self.clock.now_ns(), self._free_ns)
        self._free_ns = start + self._service_ns()
        self._in_flight.append(self._free_ns)

    def wait(self) -> None:
        """Move the clock to the completion of the oldest inference."""
        self.clock.sleep_until_ns(self._in_flight.popleft())

    def _service_ns(self) -> int:
        if not self._exponential:
            return round(self._mean_ns)
        if not self._drawn:
            self._drawn.extend(self._rng.exponential(self._mean_ns, _DRAWN_AT_ONCE).astype(np.int64).tolist())
        return self._drawn.popleft()


def _slowness(machine: str | None) -> float:
    """The factor in the file ``machine``; 1 without one."""
    if machine is None:
        return 1.0
    try:
        return float(Path(machine).read_text())
    except (OSError, ValueError) as error:
        raise SessionError(f"backend.script.machine={machine}: no factor can be read from it ({error})") from error


class SimulatedSession:
    """Streams of scripted service times."""

    virtual = True

    def __init__(self, script: Script, variant: Variant) -> None:
        self.streams: Sequence[SimulatedStream] = [
            SimulatedStream(script, variant.engine.batch, variant.load.seed + number)
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

    def outputs(self) -> dict[str, np.ndarray]:
        """Nothing is computed."""
        return {}

    def close(self) -> None:
        """Nothing is held."""


class Simulated:
    """The ``simulated`` backend."""

    name = "simulated"
    honours = frozenset({"batch", "streams", "clients", "mps", "cuda_graph", "script"})
    runs_models = False

    def unsupported(self, variant: Variant) -> str | None:
        """It takes everything."""
        del variant
        return None

    def environment(self, variant: Variant) -> dict[str, str]:
        """It needs none."""
        del variant
        return {}

    def facts(self) -> JsonDict:
        """Its own version: there is no library behind it."""
        return {"simulated": __version__}

    def build(self, onnx: Path, variant: Variant, shapes: Mapping[str, tuple[int, ...]], target: Path) -> JsonDict:
        """Write down what would have been built."""
        script = variant.session.script or Script()
        if script.raise_at == "build":
            raise BuildError("scripted error in build")
        (target / "engine.json").write_text(json.dumps({"onnx": onnx.name, "shapes": shapes}))
        return {}

    def load(self, engine: Path, info: JsonDict, variant: Variant, feeds: Mapping[str, np.ndarray]) -> SimulatedSession:
        """Streams on virtual clocks that all start at zero."""
        del engine, info, feeds
        script = variant.session.script or Script()
        if script.raise_at == "load":
            raise SessionError("scripted error in load")
        return SimulatedSession(script, variant)

    def mismatch(self, variant: Variant, realised: JsonDict) -> str | None:
        """Nothing ran, so nothing differs."""
        del variant, realised
        return None
