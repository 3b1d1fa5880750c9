"""Leave out variants that need at least as much memory as one that ran out of it."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from sweep.spec import Variant

KIND = "Pruned"  # error.kind of a record that was made without trying, with error.stage plan


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Describe a variant that was tried and ran out of memory.

    Attributes:
        label: label of the variant.
        needs: batch, streams and clients of the variant; the memory that it needs grows with each.
    """

    label: str
    needs: tuple[int, int, int]


class Pruning:
    """Remember the variants that ran out of memory; shared by all device runners."""

    def __init__(self) -> None:
        self._exhausted: dict[Hashable, list[Exhausted]] = {}
        self._lock = threading.Lock()

    def ran_out(self, variant: Variant, gpu: str | None) -> None:
        """Remember that `variant` ran out of memory on a GPU of that model (None for the host)."""
        with self._lock:
            self._exhausted.setdefault(_comparison_key(variant, gpu), []).append(
                Exhausted(variant.label, _needs(variant))
            )

    def cause(self, variant: Variant, gpu: str | None) -> Exhausted | None:
        """Return one that ran out of memory, the same but for a smaller batch, fewer streams or clients; or None."""
        with self._lock:
            if not self._exhausted:
                return None
            candidates = self._exhausted.get(_comparison_key(variant, gpu), ())
            needs = _needs(variant)
            return next((item for item in candidates if _needs_less(item.needs, needs)), None)


def _needs_less(needs: tuple[int, ...], other_needs: tuple[int, ...]) -> bool:
    """Return whether `needs` is smaller than `other_needs` in some part and larger in none."""
    return needs != other_needs and all(need <= other_need for need, other_need in zip(needs, other_needs, strict=True))


def _needs(variant: Variant) -> tuple[int, int, int]:
    return variant.engine.batch, variant.session.streams, variant.session.clients


def _comparison_key(variant: Variant, gpu: str | None) -> Hashable:
    """Return everything else that distinguishes variants, and the GPU model, whose memory ran out."""
    engine = dataclasses.replace(variant.engine, batch=1)
    session = dataclasses.replace(variant.session, streams=1, clients=1)
    return dataclasses.replace(variant, engine=engine, session=session), gpu
