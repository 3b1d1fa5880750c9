"""Parse the command line of a command: one style of arguments, help and refusals for all of them."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from sweep.errors import ConfigError
from sweep.system import atomic_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_GIVEN = "results_given"  # in a namespace: the results folder of the command line


class Parser(argparse.ArgumentParser):
    """Parse arguments; refuse a wrong command line with a ConfigError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError of one line."""
        raise ConfigError(f"{message} (--help lists the arguments)")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Format a help whose text is broken between words on a terminal."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        from sweep.cli.console import fitted

        return fitted(super()._fill_text(text, width, indent))


def parser_of(prog: str, text: str) -> Parser:
    """Return a parser whose help is ``text``: what precedes "Exit codes:" above the arguments, the rest below them."""
    above, mark, below = text.partition("Exit codes:")
    return Parser(
        prog=prog,
        description=above.strip(),
        epilog=mark + below.rstrip(),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


class _Results(argparse.Action):
    """Store the results folder, which may be given by its place or by ``--results``, and once."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002 - argparse passes it
    ) -> None:
        """Store the folder; refuse another one that was given before."""
        if str(values) == argparse.SUPPRESS:  # what intermixed parsing passes for a place that is empty
            return
        earlier = getattr(namespace, _GIVEN, None)
        if earlier is not None and earlier != values:
            parser.error(f"the results folder is given twice, as {earlier} and as {values}: give it once")
        setattr(namespace, _GIVEN, values)
        setattr(namespace, self.dest, values)


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add the results folder as the positional argument RESULTS, and as ``--results`` like any other command."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="?",
        default=argparse.SUPPRESS,
        action=_Results,
        metavar="RESULTS",
        help="results folder [results]",
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), action=_Results, metavar="RESULTS", help="the same"
    )


def add_results_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --results, the folder below which the names of sweeps are looked for."""
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="RESULTS", help="results folder [results]"
    )


def add_record(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument RECORD, the file of one record."""
    parser.add_argument("record", type=Path, metavar="RECORD", help="results/SWEEP/records/KEY.json")


def count(text: str) -> int:
    """Return the integer of 1 or more that ``text`` holds.

    Raises:
        argparse.ArgumentTypeError: if it holds none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not an integer of 1 or more")
    return int(text)


def amount(text: str) -> float:
    """Return the finite number of 0 or more that ``text`` holds.

    Raises:
        argparse.ArgumentTypeError: if it holds none.
    """
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or more")
    return value


def seconds(text: str) -> float:
    """Return the finite duration above 0 s that ``text`` holds.

    Raises:
        argparse.ArgumentTypeError: if it holds none.
    """
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def decibels(text: str) -> float:
    """Return the number of dB that ``text`` holds.

    Raises:
        argparse.ArgumentTypeError: if it holds none.
    """
    value = _number(text)
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text} is not a number of dB")
    return value


def filled(text: str) -> str:
    """Return ``text``, the name of a program or folder.

    Raises:
        argparse.ArgumentTypeError: if it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("the value is empty")
    return text


def folder(text: str) -> Path:
    """Return the path that ``text`` holds.

    Raises:
        argparse.ArgumentTypeError: if it is empty, which ``Path`` takes for the working directory.
    """
    return Path(filled(text))


def refuse_special_files(*paths: Path | None) -> None:
    """Refuse to replace what no output may replace, before anything is read or written.

    Raises:
        ConfigError: one of the paths is a folder, a pipe or a device, or would lie among the records of a sweep.
    """
    from sweep.storage import is_own_file

    for path in paths:
        if path is not None and path.exists() and not path.is_file():
            raise ConfigError(f"{path} is no regular file, and is not replaced: name another file")
        if path is not None and is_own_file(path):
            raise ConfigError(f"{path} lies among the files that sweep itself keeps and reads: name another file")


def write_output(path: Path, content: bytes) -> None:
    """Write a file that the command line names, readable as other new files of the user are.

    Raises:
        OSError: the file could not be written; the old one is untouched.
    """
    with output_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def output_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that the command line names; it appears when it is whole, and replaces an old one then.

    Raises:
        OSError: the file could not be written; the old one is untouched.
    """
    with atomic_files.errors_name(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.refuse_device(path)
        mask = os.umask(0)
        os.umask(mask)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
