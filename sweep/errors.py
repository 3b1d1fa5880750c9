"""One small tree of errors, by stage.

Each message says what was asked, what was found and what to do, in one line. ``stage`` names the
stage of the pipeline that raised it and ends up in the record's ``error.stage``.
"""


class SweepError(Exception):
    """Anything that `sweep` itself has to say; never raised as such."""

    stage = "sweep"


class ConfigError(SweepError):
    """The command line or a YAML asks for what cannot be planned. Exit code 2, nothing written."""

    stage = "config"


class ModelError(SweepError):
    """A model name, an ONNX file or its inputs cannot be used as asked."""

    stage = "model"


class ConversionError(SweepError):
    """The fp32 graph could not be turned into a graph of the asked precision."""

    stage = "onnx"


class CacheError(SweepError):
    """A cache entry could not be made or read."""

    stage = "cache"


class UnsupportedError(SweepError):
    """This backend, library or machine cannot do what was asked, and says so before timing anything."""

    stage = "plan"


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
