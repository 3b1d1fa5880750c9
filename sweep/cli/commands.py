"""List the commands and run the one that the command line names; without one, run a sweep.

A command is a module with a docstring (its help), ``add_arguments(parser)`` and ``run(arguments) -> int``. It is
imported when it is called for, and imports heavy libraries inside ``run``, so that help and completion stay quick.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from sweep import __version__
from sweep.cli import arguments
from sweep.errors import SweepError, error_line
from sweep.system import command_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

WRONG = 2  # exit code of a command line that cannot be run
FAILED = 1
_MOST_WORD = 32_768  # characters; Hydra looks for files of the name that a word has


class CommandModule(Protocol):
    """Define what the module of a command offers."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments to ``parser``."""

    def run(self, options: argparse.Namespace) -> int:
        """Run the command; return its exit code."""


@dataclass(frozen=True, slots=True)
class Command:
    """Describe a command: its module and one line of help.

    Attributes:
        module: full name of the module, imported by ``load``.
        summary: one line for the list of commands.
        group: heading below which the list has it.
    """

    module: str
    summary: str
    group: str = "Results"

    def load(self) -> CommandModule:
        """Import the module and return it."""
        return cast("CommandModule", importlib.import_module(self.module))

    def parser(self, name: str) -> arguments.Parser:
        """Return the command's parser; ``name`` is the word that calls it."""
        module = self.load()
        examples = re.sub(r"^( +)sweep\b", rf"\1{command_line.program()}", module.__doc__ or "", flags=re.MULTILINE)
        parser = arguments.parser_of(f"{command_line.program()} {name}", examples)
        module.add_arguments(parser)
        return parser


COMMANDS = {
    "doctor": Command("sweep.cli.doctor", "report what this machine can do and how to add what is missing", "Machine"),
    "run": Command("sweep.cli.run_file", "run the sweep of a YAML file of your own", "Sweeps"),
    "init": Command("sweep.cli.init", "make a folder for sweeps of your own, with completion in editors", "Sweeps"),
    "report": Command("sweep.cli.report", "make the page of one or several sweeps, and pictures for slides"),
    "publish": Command("sweep.cli.publish", "send records to MLflow"),
    "ui": Command("sweep.cli.ui", "serve MLflow's pages over the published records"),
    "compare": Command("sweep.cli.compare", "compare two measurements, and fail a job where one got worse"),
    "layers": Command("sweep.cli.layers", "show where the time goes, layer by layer, or why one variant is slower"),
    "export": Command("sweep.cli.export", "write records as CSV, Parquet or JSON"),
    "take": Command("sweep.cli.take.main", "take the winner away: engine, figures, and a loader that runs"),
    "list": Command("sweep.cli.list_sweeps", "list the sweeps below the results folder", "Sweeps"),
    "show": Command("sweep.cli.show", "show a sweep: outcome, command, facts, sizes", "Sweeps"),
    "rename": Command("sweep.cli.rename", "give a sweep another name", "Sweeps"),
    "delete": Command("sweep.cli.delete", "delete sweeps, with what only they use", "Sweeps"),
    "cache": Command("sweep.cli.cache", "list cached models, ONNX files and engines, or make room", "Machine"),
    "recompute": Command("sweep.cli.recompute.main", "compute the figures of records again from their samples"),
    "bisect": Command("sweep.cli.bisect.main", "find the nodes that carry the error of a converted graph", "Engines"),
    "trtexec": Command(
        "sweep.cli.trtexec.main", "print a record as a command of NVIDIA's trtexec, or compare with it", "Engines"
    ),
    "profile": Command("sweep.cli.profile.main", "run a record's engine below NVIDIA's nsys or ncu", "Engines"),
    "completion": Command("sweep.cli.completion", "print the completion script of a shell", "Machine"),
}


def main(words: Sequence[str]) -> int:
    """Run the command that the first of ``words`` names, or a sweep of ``words``.

    Args:
        words: the command line without the program.

    Returns:
        The exit code: that of the command or sweep, or 2 after one line on stderr if the first word is neither a
        command nor a part of a sweep's command line.
    """
    long = next((word for word in words if len(word) > _MOST_WORD), None)
    if long is not None:
        sys.stderr.write(
            f"{command_line.NAME}: {error_line(long[:60])}: a word of {len(long)} characters, of at most "
            f"{_MOST_WORD}; put long lists into a YAML (--config-dir)\n"
        )
        return WRONG
    first = words[0] if words else ""
    if first in COMMANDS:
        return run_command(first, words[1:])
    if {"-h", "--help"} & set(words):
        return print_help(words)
    if first == "--version":
        sys.stdout.write(f"sweep {__version__}\n")
        return 0
    if first and "=" not in first and first[0] not in "-+~":
        sys.stderr.write(f"{command_line.NAME}: {unknown(first)}\n")
        return WRONG
    from sweep.cli import run

    return run.run(words)


def print_help(words: Sequence[str]) -> int:
    """Print the help of a sweep, or that of the settings that `words` name; return the exit code."""
    from sweep.cli import help_text
    from sweep.cli.console import fitted

    named = [word for word in words if "=" not in word and word[:1] not in {"-", "+", "~"}]
    try:
        sys.stdout.write(fitted(help_text.topics(named) if named else help_text.overview(grouped())) + "\n")
    except SweepError as error:
        sys.stderr.write(f"{command_line.NAME}: {error_line(error)}\n")
        return WRONG
    return 0


def grouped() -> dict[str, list[tuple[str, str]]]:
    """Return name and summary of each command, by its group."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, command in COMMANDS.items():
        groups.setdefault(command.group, []).append((name, command.summary))
    return groups


def run_command(name: str, words: Sequence[str]) -> int:
    """Run the command ``name`` with ``words``; return its exit code.

    An error that the command does not handle becomes one line on stderr: exit code 2 for one of this package, a wrong
    command line included, and 1 for one of the operating system.
    """
    command = COMMANDS[name]
    try:
        options = command.parser(name).parse_intermixed_args(list(words))
        return command.load().run(options)
    except SweepError as error:
        sys.stderr.write(f"{command_line.NAME} {name}: {error_line(error)}\n")
        return WRONG
    except OSError as error:
        sys.stderr.write(f"{command_line.NAME} {name}: {error_line(error)}\n")
        return FAILED


def unknown(word: str) -> str:
    """Return one line on a first word that is no command and no part of a sweep's command line."""
    from sweep.config import GROUPS, help_lines

    keys = {line.split()[0] for line in help_lines()} | set(GROUPS)
    if word in keys:
        return f"{word}: no such command; it is a setting, which takes a value: {word}=VALUE"
    if word.endswith((".yaml", ".yml")):
        return f"{word}: no such command; to run the sweep of that file: {command_line.format_command('run', word)}"
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{word}: no such command; {hint}The commands are {', '.join(COMMANDS)}; settings of a sweep are KEY=VALUE"
