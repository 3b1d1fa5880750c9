"""One small tree of errors, by stage.

Each message says what was asked, what was found and what to do, in one line. ``stage`` names the
stage of the pipeline that raised it and ends up in the record's ``error.stage``.
"""

_BIDI = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # they reorder what stands around them
_CODES = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_CODES |= {code: f"\\u{code:04x}" for code in _BIDI}


def printable(text: str) -> str:
    """The text with the control codes of a terminal shown as text; line feeds and tabs stay."""
    return text if text.isprintable() else text.translate(_CODES)


class SweepError(Exception):
    """Anything that `sweep` itself has to say; never raised as such."""

    stage = "sweep"

    def __str__(self) -> str:
        return printable(super().__str__())  # it may quote a file's names, and goes to a terminal


class ConfigError(SweepError):
    """The command line or a YAML asks for what cannot be planned. Exit code 2, nothing written."""

    stage = "config"


class ModelError(SweepError):
    """A model name, an ONNX file or its inputs cannot be used as asked."""

    stage = "model"


class ConversionError(SweepError):
    """The fp32 graph could not be turned into a graph of the asked precision."""

    stage = "onnx"


class LabelError(SweepError):
    """Labelled samples cannot be had, or the network cannot be scored on them."""

    stage = "accuracy"


class CacheError(SweepError):
    """A cache entry could not be made or read."""

    stage = "cache"


class UnsupportedError(SweepError):
    """This backend, library or machine cannot do what was asked, and says so before timing anything."""

    stage = "plan"


class MessageError(SweepError):
    """A message between the parent and a worker is malformed."""

    stage = "start"


class MpsError(SweepError):
    """The MPS daemon cannot be started or reached."""

    stage = "start"


class BuildError(SweepError):
    """The backend refused to build an engine from the typed ONNX."""

    stage = "build"


class SessionError(SweepError):
    """An engine could not be loaded or run."""

    stage = "load"


class LoadError(SweepError):
    """The load generator could not do what its axes ask."""

    stage = "measure"


class BusyError(SweepError):
    """Somebody else measures on the device for longer than the user would wait. Exit code 2, nothing lost."""

    stage = "wait"


class RecordError(SweepError):
    """A record on disk cannot be read: damaged, or written by a newer version."""

    stage = "record"


class TrackingError(SweepError):
    """The tracking server could not be reached or refused what it was sent."""

    stage = "tracking"


class ParityError(SweepError):
    """NVIDIA's tool ran and gave no figures that could stand beside a record. Exit code 1."""

    stage = "parity"
