"""Running other people's converters: their chatter to our debug log, their exceptions to one line."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

from sweep.errors import ConversionError, SweepError

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

_ORT_ERROR, _ORT_WARNING = 3, 2
_LINE = 300


def one_line(error: BaseException) -> str:
    """The exception as one line of at most 300 characters, its type first."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"[:_LINE]


@contextlib.contextmanager
def translated(doing: str, todo: str) -> Iterator[None]:
    """Turns whatever a tool raises into a ConversionError.

    Args:
        doing: what was asked of which file, the start of the message.
        todo: what the user can do, its end.

    Raises:
        ConversionError: in place of any exception that is not already one of ours.
    """
    try:
        yield
    except SweepError:
        raise
    except Exception as error:
        raise ConversionError(f"{doing}: {one_line(error)}; {todo}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends what onnxruntime's tools print, warn and log to this module's debug log.

    They log through the root logger, and importing onnxruntime.quantization even configures it
    (a handler on stderr at INFO) unless it has a handler already: hence the one put there meanwhile.
    Process-wide while it lasts: conversions run in processes of their own.
    """
    import onnxruntime

    root, handler, printed = logging.getLogger(), logging.NullHandler(), io.StringIO()
    root.addHandler(handler)
    root.addFilter(_demote)
    onnxruntime.set_default_logger_severity(_ORT_ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(_ORT_WARNING)
        root.removeFilter(_demote)
        root.removeHandler(handler)
        if printed.getvalue().strip():
            log.debug("printed by the converter: %s", printed.getvalue().strip())


def _demote(record: logging.LogRecord) -> bool:
    """Keeps what is not onnxruntime's; repeats what is at debug level."""
    if "onnxruntime" not in record.pathname:
        return True
    log.debug("onnxruntime: %s", record.getMessage())
    return False
