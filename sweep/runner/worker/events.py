"""Send the events of a worker to its parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.runner import messages

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO


class Events:
    """Send the events of one request.

    Args:
        stream: takes them, a line each; None sends them nowhere.

    Attributes:
        last_stage: the stage that was last told.
        on_stage: called with name and detail of each stage; None for nobody.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self.last_stage = "start"
        self.on_stage: Callable[[str, str], None] | None = None

    def send(self, event: messages.AnyEvent) -> None:
        """Send one event."""
        if self._stream is not None:
            self._stream.write(messages.encode(event).decode())

    def stage(self, name: str, detail: str = "", done: float = 0.0) -> None:
        """Tell that stage `name` starts or has come further.

        Args:
            name: name of the stage, as in the record's ``error.stage``.
            detail: what of it is done now.
            done: share of it that is done, 0 to 1.
        """
        self.last_stage = name
        if self.on_stage is not None:
            self.on_stage(name, detail)
        self.send(messages.Stage(stage=name, detail=detail, done=done))

    def note(self, text: str) -> None:
        """Tell the user one line."""
        self.send(messages.Note(text=text))

    def engine(self, key: str) -> None:
        """Tell the key of the engine in the cache while this pass still pins it."""
        self.send(messages.Engine(key=key))
