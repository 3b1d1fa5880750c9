"""Serve several shapes with one engine: a context for each of its profiles, or one context that changes.

A stream has one CUDA stream for all shapes. Every shape has inputs and outputs of its own on the device, whichever way
it is served, so that the ways differ in engines and contexts alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.backends.tensorrt.execution_context import ExecutionContext, Place
from sweep.backends.tensorrt.session import TensorRTSession
from sweep.errors import SessionError
from sweep.spec import PER_SHAPE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from sweep.backends.base import Session
    from sweep.backends.tensorrt.engine import Engine
    from sweep.backends.tensorrt.library import Library
    from sweep.backends.tensorrt.stream import TensorRTStream
    from sweep.spec import JsonDict, SessionAxes, ShapeProfiles
    from sweep.system import Stopwatch


class ProfiledSession(TensorRTSession):
    """Hold the contexts of one engine for all shapes of a load; as a session it runs the largest.

    Args:
        library: deserialises the engine.
        plan: the serialised engine.
        axes: as for ``TensorRTSession``; with ``profile_switch`` one context a stream has all profiles in turn.
        feeds: value of each input at each shape, the smallest first.
        entry: the engine's folder in the cache; None stores no compiled kernels.
        profiles: those that the engine was built with.

    Raises:
        SessionError: as ``TensorRTSession``, or the engine has another number of profiles.
        UnsupportedError: as ``TensorRTSession``.
    """

    def __init__(
        self,
        library: Library,
        plan: bytes,
        axes: SessionAxes,
        feeds: Sequence[Mapping[str, np.ndarray]],
        entry: Path | None,
        profiles: ShapeProfiles,
    ) -> None:
        self._feeds, self._profiles = feeds, profiles
        self._by_shape: list[list[ExecutionContext]] = []
        super().__init__(library, plan, axes, feeds[-1], entry, profile_of(profiles, len(feeds) - 1))

    def _open(self, engine: Engine, axes: SessionAxes, feeds: Mapping[str, np.ndarray], watch: Stopwatch) -> None:
        """Open the contexts of the largest shape first, which decides the memory of a context that all shapes share."""
        expected = len(self._profiles.limits)
        if engine.profiles != expected:
            raise SessionError(f"the engine has {engine.profiles} optimization profiles, and {expected} were built")
        super()._open(engine, axes, feeds, watch)
        self._ledger.phase = "contexts"
        largest, shares = self._contexts[:], self._profiles.way != PER_SHAPE or bool(axes.profile_switch)
        for place, own in enumerate(self._feeds[:-1]):
            opened = [
                ExecutionContext(
                    engine,
                    self._cuda,
                    self._resources,
                    axes,
                    own,
                    beside.handle,
                    Place(profile=profile_of(self._profiles, place), beside=beside, shares=shares),
                )
                for beside in largest
            ]
            self._contexts += opened
            self._by_shape.append(opened)
        self._by_shape.append(largest)
        engine.save_runtime_cache()
        self._ledger.phase = "run"

    @property
    def streams(self) -> Sequence[TensorRTStream]:
        """Return the streams of the largest shape."""
        return [context.stream for context in self._contexts[: self._axes.streams]]

    def facts_of(self, place: int) -> JsonDict:
        """Return ``shape_facts`` of the shape at `place`."""
        return self._facts_of(self._by_shape[place])

    def views(self) -> list[Session]:
        """Return a session for each shape, the smallest first; the last is this one, which owns the engine."""
        views: list[Any] = [ShapeView(self, contexts, place) for place, contexts in enumerate(self._by_shape[:-1])]
        return [*views, self]


class ShapeView:
    """Run the inferences of one shape on the contexts of a ``ProfiledSession``, which outlives this.

    Args:
        owner: holds the engine.
        contexts: one of each stream, at this shape.
        place: number of the shape.
    """

    virtual = False
    partial_batches = False

    def __init__(self, owner: ProfiledSession, contexts: Sequence[ExecutionContext], place: int) -> None:
        self._contexts = contexts
        self.streams: Sequence[TensorRTStream] = [context.stream for context in contexts]
        self.realised: JsonDict = owner.realised
        self.engine_facts: JsonDict = {}
        self.shape_facts: JsonDict = owner.facts_of(place)

    def prepare(self, sizes: Sequence[int]) -> None:
        """Do nothing: only whole batches run."""

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the outputs, by name, of the last inference of this shape on the first stream."""
        return self.outputs_of(0)

    def outputs_of(self, number: int) -> dict[str, np.ndarray]:
        """Return the outputs, by name, of the last inference of this shape on stream ``number``."""
        return self._contexts[number].buffers.fetch()

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of one inference with other inputs, on the first stream; the inputs stay on the device."""
        return self._contexts[0].infer(feeds)

    def close(self) -> None:
        """Do nothing: the contexts are the owner's."""


def profile_of(profiles: ShapeProfiles, place: int) -> int:
    """Return the number of the profile that serves the shape at `place`."""
    return place if profiles.way == PER_SHAPE else 0
