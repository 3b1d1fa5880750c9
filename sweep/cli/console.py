"""A console on which no text can act: what a model's file calls its tensors may hold a terminal's control codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.segment import Segment

from sweep.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import ConsoleOptions, RenderableType


class Terminal(Console):
    """As rich's console; control codes are shown as text, unless rich itself sends them."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """What is to be shown, piece by piece."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)
