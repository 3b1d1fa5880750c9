"""Print the script that completes commands, options, settings and their choices in a shell.

  bash   eval "$(sweep completion bash)"                          in ~/.bashrc
  zsh    eval "$(sweep completion zsh)"                           in ~/.zshrc, after compinit
  fish   sweep completion fish > ~/.config/fish/completions/sweep.fish

At each press of TAB the script calls the program sweep on PATH.

Exit codes: 0 done; 2 the command is wrong.

Example:
  sweep completion bash
"""

from __future__ import annotations

import argparse
import os
import sys

import argcomplete
from argcomplete import completers, shell_integration

from sweep.cli import commands
from sweep.config import conf_files, schema
from sweep.system import command_line

_FILES = ("results", "model.path", "model.engine", "model.saved_model", "load.trace")  # keys whose value is a path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    script = shell_integration.shellcode([command_line.NAME], True, options.shell)  # noqa: FBT003 - use the shell's own completion of files too
    sys.stdout.write(f"{script}\n")
    return 0


def answer() -> None:
    """Answer the completion script that started this process, and end the process."""
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    typed = [*line.split(), *([""] if line[-1:].isspace() else [])]
    complete_words = typed[1:-1]
    name = complete_words[0] if complete_words else ""
    argcomplete.autocomplete(_command_parser(name) if name in commands.COMMANDS else _sweep_parser(complete_words))


def _command_parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    commands.COMMANDS[name].load().add_arguments(subparsers.add_parser(name))
    return parser


def _sweep_parser(complete_words: list[str]) -> argparse.ArgumentParser:
    """Return a parser of a sweep's command line, and of a command if no word is complete."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--config-dir")
    parser.add_argument("--cfg", choices=("job", "hydra", "all"))
    words = parser.add_argument("words", nargs="*")
    names = () if complete_words else tuple(commands.COMMANDS)
    words.completer = lambda prefix, **_: [*(name for name in names if name.startswith(prefix)), *settings(prefix)]  # type: ignore[attr-defined]  # argcomplete's hook
    return parser


def settings(prefix: str) -> list[str]:
    """Return what ``prefix``, a part of KEY=VALUE, can become: keys one level deep, or values of a key.

    Args:
        prefix: what was typed of the word, e.g. ``load.`` or ``precision=fp16,i``.
    """
    key, assigned, value = prefix.partition("=")
    if assigned:
        before, comma, last = value.rpartition(",")
        return [f"{key}={before}{comma}{choice}" for choice in _values(key.lstrip("+"), last)]
    mark = prefix[: len(prefix) - len(prefix.lstrip("+"))]
    keys = {f"{mark}{name}=" for name in (*_keys(), *schema.GROUPS)}
    full = sorted(name for name in keys if name.startswith(prefix))
    levels = sorted({_one_level(name, len(prefix)) for name in full})
    return levels if len(levels) > 1 else full


def files(prefix: str, *endings: str) -> list[str]:
    """Return the files and folders that `prefix` can become; with `endings`, only files of these."""
    completed: list[str] = completers.FilesCompleter(endings)(prefix)
    return completed


def _keys() -> dict[str, str]:
    """Return the line of help of each key that has a fixed name."""
    lines = (line.split(None, 1) for line in schema.help_lines())
    return {key: text for key, text in lines if ".NAME." not in key}


def _one_level(name: str, start: int) -> str:
    """Return ``name`` up to the first dot from ``start`` on, or whole."""
    dot = name.find(".", start)
    return name if dot < 0 else name[: dot + 1]


def _values(key: str, prefix: str) -> list[str]:
    if key in _FILES:
        return files(prefix)
    choices = conf_files.choices(key) if key in schema.GROUPS else []
    if _keys().get(key, "").endswith(("[true]", "[false]")):
        choices = ["false", "true"]
    return [choice for choice in choices if choice.startswith(prefix)]
