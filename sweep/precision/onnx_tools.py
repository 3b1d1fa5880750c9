"""Run third-party converters: send their output to the debug log and turn their exceptions into one line."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from typing import TYPE_CHECKING

from sweep.errors import ConversionError, SweepError

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

_ORT_ERROR, _ORT_WARNING = 3, 2
_MAX_CHARACTERS = 300
# onnxruntime puts the path of the file, and a line and a function of its source, before the cause.
_NOISE = re.compile(
    r"Load model from \S+ failed: ?|/onnxruntime_src/\S+:\d+ [^(]*\((?:[^()]|\([^()]*\))*\)(?: const)? ?"
)


def one_line(error: BaseException) -> str:
    """Format an exception as one line of at most 300 characters, its type first.

    Args:
        error: the exception.

    Returns:
        ``TypeError: message``.
    """
    text = _NOISE.sub("", " ".join(str(error).split())) or "no message"
    return f"{type(error).__name__}: {text}"[:_MAX_CHARACTERS]


@contextlib.contextmanager
def as_conversion_error(context: str, advice: str) -> Iterator[None]:
    """Turn whatever a tool raises into a ConversionError.

    Args:
        context: what was requested of which file, the start of the message.
        advice: what the user can do, the end of the message.

    Raises:
        ConversionError: in place of any exception that is not already one of ours.
    """
    try:
        yield
    except SweepError:
        raise
    except Exception as error:
        raise ConversionError(f"{context}: {one_line(error)}; {advice}") from error


@contextlib.contextmanager
def quiet_onnxruntime() -> Iterator[None]:
    """Send what onnxruntime's tools print, warn and log to this module's debug log.

    They log through the root logger, and importing onnxruntime.quantization even configures it (a handler on stderr at
    INFO) unless it has a handler already: hence the temporary one. The effect is process-wide while the context lasts,
    so conversions run in processes of their own.
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
    """Repeat onnxruntime's records at debug level and keep all others."""
    if "onnxruntime" not in record.pathname:
        return True
    log.debug("onnxruntime: %s", record.getMessage())
    return False
