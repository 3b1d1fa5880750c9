"""Answer for a session by its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np


class StreamOutputs:
    """Give a session the outputs of its streams, each of which has ``outputs()`` and ``infer(feeds)``.

    Attributes:
        streams: those of the session.
    """

    streams: Sequence[Any]

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the outputs, by name, of the last inference on the first stream."""
        return self.outputs_of(0)

    def outputs_of(self, number: int) -> dict[str, np.ndarray]:
        """Return the outputs, by name, of the last inference on stream ``number``."""
        outputs: dict[str, np.ndarray] = self.streams[number].outputs()
        return outputs

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of one inference with other inputs, by name, on the first stream."""
        outputs: dict[str, np.ndarray] = self.streams[0].infer(feeds)
        return outputs
