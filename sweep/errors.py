"""Define the errors of ``sweep``, one class a stage of the pipeline.

Each message says in one line what was requested, what it met and what to do. ``stage`` names the stage that raised it
and stands in the record's ``error.stage``.

    SweepError
        ConfigError        config      the command line or a YAML
        ModelError         model       a network, its file, its inputs
        ConversionError    onnx        fp32 to another precision
        LabelError         accuracy    labelled samples
        CacheError         cache       the cache of models and engines
        UnsupportedError   plan        what this backend or machine lacks
        MessageError       start       between parent and worker
        MpsError           start       the MPS daemon
        BuildError         build       typed ONNX to an engine
        SessionError       load        an engine that is loaded or run
        LoadError          measure     the load generator
        BusyError          wait        a device that others measure on
        RecordError        record      a record or its samples
        NewerRecordError   record      a record of a newer version
        TrackingError      tracking    the tracking server
        TrackingBusyError  tracking    a store that another process publishes to
        ParityError        parity      NVIDIA's own tool
"""

import re

MOST_LINE = 4000
"""Most characters of a line about an error."""

_BIDI = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # they reorder what stands around them
_CODES = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_CODES |= {code: f"\\u{code:04x}" for code in (*_BIDI, *range(0xD800, 0xE000))}  # halves of pairs have no UTF-8
_CLAUSE_END = re.compile(r"(?<=[.;!?])\s+|(?<!\s)\s*\n\s*")
_CAUSES = (  # words of the clause that names a cause, the surest first
    re.compile(r"\b\w*(?:Error|Exception)\b:|\berror:|max(?:imum)? supported|out of memory", re.IGNORECASE),
    re.compile(r"unsupported|not supported|mismatch|invalid|no such|not found|not implemented", re.IGNORECASE),
    re.compile(r"cannot|could not|must|expected|required|refused|denied|fail|error", re.IGNORECASE),
)
_GAP = " ... "
_SOURCE_FILE = r"[\w./+-]*\w\.(?:cc|cpp|cxx|cu|cuh|h|hpp|inl)"
_SIGNATURE = r"[\w:<>,*&~ ]*::[\w~<>:, *&]+\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^\]]*\])?"
_SOURCE_PLACES = (  # where in its own C++ source a library raised an error; none is tried at each letter of a long word
    re.compile(rf"\[{_SOURCE_FILE}:[\w:, ~<>]*\d+[\w:, ~<>]*\]\s*"),  # [checkMacros.cpp::check::250]
    re.compile(
        rf"(?:(?<!\s)\s+)?\b[Ii]n (?:function )?[\w:~]+ at {_SOURCE_FILE}:\d+"
    ),  # In validate at /_src/nodes/add.cpp:40
    re.compile(
        rf"(?:\bat )?(?<![\w./+-]){_SOURCE_FILE}:\d+:?\s*(?:In function \w+:\s*|{_SIGNATURE}\s*)?"
    ),  # /core/model.cc:12
)


def printable(text: str) -> str:
    """Return the text with the control codes of a terminal shown as text; line feeds and tabs stay."""
    return text if text.isprintable() else text.translate(_CODES)


def without_source_places(text: str) -> str:
    """Return a library's message without the files, lines and signatures of its C++ source, which help no user."""
    for place in _SOURCE_PLACES:
        text = place.sub("", text)
    return text


def printable_line(text: str) -> str:
    """Return the text on one line: as ``printable``, with line feeds and tabs shown as text too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def error_line(error: BaseException | str) -> str:
    """Return an error's message as the one line that a command prints of it: as ``printable_line``, and bounded."""
    line = printable_line(str(error))
    return line if len(line) <= MOST_LINE else shorten(line, MOST_LINE)


def shorten(text: str, limit: int = 400) -> str:
    """Put a message on one line of at most `limit` characters, by leaving out what tells the least.

    The head, the end, and the clause in between that names a cause stay; `` ... `` stands for what is left out. Places
    in the library's own source go first.

    Args:
        text: message of a library, of any length.
        limit: most characters of the result, at least 60.

    Returns:
        The message on one line; nothing but places in sources left out if it is short enough.
    """
    text = without_source_places(text)
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    share = (limit - 2 * len(_GAP)) // 3
    cause = _cause(text, line[:share], line[-share:])[: share - 1]
    if not cause:
        half = (limit - len(_GAP)) // 2
        return f"{line[:half].rstrip()}{_GAP}{line[-half:].lstrip()}"
    return f"{line[:share].rstrip()}{_GAP}{cause}{_GAP}{line[-share:].lstrip()}"


def _cause(text: str, head: str, tail: str) -> str:
    """Return the clause that names a cause, from its first telling word's surroundings; empty if head and tail do."""
    clauses = [" ".join(clause.split()) for clause in _CLAUSE_END.split(text)]
    for words in _CAUSES:
        for clause in clauses:
            match = words.search(clause)
            if match is None:
                continue
            told = clause[max(match.start() - 20, 0) :]
            return "" if told[:40] in head or told[-40:] in tail else told
    return ""


class SweepError(Exception):
    """Report an error of `sweep` itself. The base class; never raised as such."""

    stage = "sweep"

    def __str__(self) -> str:
        return printable(super().__str__())  # it may quote a file's names, and goes to a terminal


class ConfigError(SweepError):
    """Refuse a command line or a YAML that cannot be planned. Exit code 2, nothing written."""

    stage = "config"


class ModelError(SweepError):
    """Refuse a model name, an ONNX file or inputs that cannot be used as requested."""

    stage = "model"


class ConversionError(SweepError):
    """Report an fp32 graph that could not be converted to the requested precision."""

    stage = "onnx"


class LabelError(SweepError):
    """Report labelled samples that cannot be read, or a network that cannot be scored on them."""

    stage = "accuracy"


class CacheError(SweepError):
    """Report a cache entry that could not be made or read."""

    stage = "cache"


class UnsupportedError(SweepError):
    """Refuse what this backend, library or machine cannot do, before anything is timed."""

    stage = "plan"


class MessageError(SweepError):
    """Report a malformed message between the parent and a worker."""

    stage = "start"


class MpsError(SweepError):
    """Report an MPS daemon that cannot be started or reached."""

    stage = "start"


class BuildError(SweepError):
    """Report that the backend refused to build an engine from the typed ONNX."""

    stage = "build"


class SessionError(SweepError):
    """Report an engine that could not be loaded or run."""

    stage = "load"


class LoadError(SweepError):
    """Report a load that the generator could not produce."""

    stage = "measure"


class BusyError(SweepError):
    """Report a device that others measure on for longer than the user would wait. Exit code 2, nothing lost."""

    stage = "wait"


class RecordError(SweepError):
    """Report a record on disk that cannot be read: damaged, or written by a newer version."""

    stage = "record"


class NewerRecordError(RecordError):
    """Report a record whose schema is newer than this version's. It is sound, and must not be written over."""


class TrackingError(SweepError):
    """Report a tracking server that could not be reached or refused what it was sent."""

    stage = "tracking"


class TrackingBusyError(TrackingError):
    """Report a tracking store that another process publishes to; the same records can be sent later."""


class ParityError(SweepError):
    """Report that NVIDIA's tool gave no figures to stand beside a record. Exit code 1."""

    stage = "parity"
