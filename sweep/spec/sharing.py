"""Describe how networks side by side share a device, and read that from text."""

from __future__ import annotations

import re
from dataclasses import dataclass

KINDS = ("processes", "streams", "mps", "green")
_WITH_SHARES = ("mps", "green")
_FORM = re.compile(r"([a-z]+)(?::(\d+(?:/\d+)*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Describe how networks side by side share a device.

    Attributes:
        kind: ``processes`` (a process each, without MPS), ``streams`` (of one process), ``mps`` (a process each, under
            MPS) or ``green`` (a CUDA green context each, in one process).
        shares: per cent (``mps``) or SMs (``green``) of each network; () for the other kinds.
    """

    kind: str
    shares: tuple[int, ...] = ()

    @property
    def one_process(self) -> bool:
        """Return whether all networks run in one process."""
        return self.kind in {"streams", "green"}

    @property
    def text(self) -> str:
        """Return it as it is typed: ``mps:75/25``."""
        return f"{self.kind}:{'/'.join(map(str, self.shares))}" if self.shares else self.kind

    def with_first(self, number: int) -> Sharing:
        """Return the same with the share of network `number` in front; the others keep their order."""
        if not self.shares:
            return self
        others = self.shares[:number] + self.shares[number + 1 :]
        return Sharing(kind=self.kind, shares=(self.shares[number], *others))


def parse_sharing(text: str) -> Sharing | None:
    """Read ``processes``, ``streams``, ``mps:75/25`` or ``green:64/32``; return None for any other text."""
    match = _FORM.fullmatch(text)
    if match is None or match[1] not in KINDS or (match[1] in _WITH_SHARES) != bool(match[2]):
        return None
    return Sharing(kind=match[1], shares=tuple(int(share) for share in (match[2] or "").split("/") if share))
