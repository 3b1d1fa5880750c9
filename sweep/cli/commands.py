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
    """

    module: str
    summary: str

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
    "doctor": Command("sweep.cli.doctor", "report what this machine can do and how to add what is missing"),
    "report": Command("sweep.cli.report", "make the page of one or several sweeps, and pictures for slides"),
    "publish": Command("sweep.cli.publish", "send records to MLflow"),
    "ui": Command("sweep.cli.ui", "serve MLflow's pages over the published records"),
    "compare": Command("sweep.cli.compare", "compare two measurements, and fail a job where one got worse"),
    "export": Command("sweep.cli.export", "write records as CSV, Parquet or JSON"),
    "cache": Command("sweep.cli.cache", "list cached models, ONNX files and engines, or make room"),
    "recompute": Command("sweep.cli.recompute.main", "compute the figures of records again from their samples"),
    "bisect": Command("sweep.cli.bisect.main", "find the nodes that carry the error of a converted graph"),
    "trtexec": Command("sweep.cli.trtexec.main", "print a record as a command of NVIDIA's trtexec, or compare with it"),
    "completion": Command("sweep.cli.completion", "print the completion script of a shell"),
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
    if first == "--version":
        sys.stdout.write(f"sweep {__version__}\n")
        return 0
    if first and "=" not in first and first[0] not in "-+~":
        sys.stderr.write(f"{command_line.NAME}: {unknown(first)}\n")
        return WRONG
    if {"-h", "--help"} & set(words):
        sys.stdout.write(help_header() + "\n")
    from sweep.cli import run

    return run.run(words)


def help_header() -> str:
    """Return the help's first lines: examples of a sweep, the commands and the options."""
    program = command_line.program()
    examples = {
        "-m precision=fp16,int8 batch=1,8,32": "sweep over every combination",
        "+experiment=quickstart": "run a sweep from conf/experiment/",
        "+experiment=quickstart plan=true": "print the variants that would run, and their time",
    }
    return "\n".join(
        [
            "Sweeps precision x batch x streams x ... and answers with latency-at-throughput curves.\n",
            *(f"  {program} {words:<36}  {text}" for words, text in examples.items()),
            f"\nCommands ({program} COMMAND --help explains one):",
            listing(),
            "\nOptions:",
            "  --config-dir FOLDER  YAML files of your own, beside those of conf/",
            "  --cfg job            print the composed settings and run nothing",
            "  --version            print the version\n",
        ]
    )


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


def listing() -> str:
    """Return the lines of the help that list the commands."""
    width = max(map(len, COMMANDS))
    return "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())


def unknown(word: str) -> str:
    """Return one line on a first word that is no command and no part of a sweep's command line."""
    from sweep.config import GROUPS, help_lines

    keys = {line.split()[0] for line in help_lines()} | set(GROUPS)
    if word in keys:
        return f"{word}: no such command; it is a setting, which takes a value: {word}=VALUE"
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{word}: no such command; {hint}The commands are {', '.join(COMMANDS)}; settings of a sweep are KEY=VALUE"
