"""Split the command line into overrides, the flags that only print, and the folder of ``--config-dir``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep import spec
from sweep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_GRAMMAR = frozenset("'\"\\[]{}()$")  # with one of these in a value, it is in Hydra's grammar already
_NEEDS_QUOTES = frozenset("~&#;!<>^`=")  # characters of paths and names that Hydra reads only in quotes


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """Hold the parts of one command line.

    Attributes:
        overrides: ``key=value`` and ``+key=value``, in Hydra's grammar.
        flags: flags of Hydra that print something instead of a sweep, such as ``--help`` and ``--cfg=job``.
        where: expressions of ``where=`` that a combination has to meet.
        config_dir: absolute path of the user's own YAML files; None without ``--config-dir``.
    """

    overrides: tuple[str, ...]
    flags: tuple[str, ...]
    config_dir: Path | None
    where: tuple[str, ...] = ()


def parse(argv: Sequence[str]) -> Arguments:
    """Return the parts of `argv`.

    Raises:
        ConfigError: a flag does not exist or lacks its value, or the folder of ``--config-dir`` does not exist.
    """
    where = tuple(word.partition("=")[2] for word in argv if word.startswith("where="))
    argv = [word for word in argv if not word.startswith("where=")]
    try:
        options, overrides = _parser().parse_known_args([_escape_condition(argument) for argument in argv])
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    unknown = next((argument for argument in overrides if argument.startswith("-")), None)
    if unknown is not None:
        raise ConfigError(f"{unknown}: no such flag; there are --help, --cfg job and --config-dir FOLDER")
    folder: Path | None = options.config_dir
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--config-dir {folder}: no such folder")
    flags = [flag for flag in (options.help, options.hydra_help, options.resolve) if flag]
    flags += [f"--{name}={value}" for name in ("cfg", "package") if (value := getattr(options, name)) is not None]
    return Arguments(
        overrides=tuple(map(quote_value, overrides)),
        flags=tuple(flags),
        config_dir=None if folder is None else folder.resolve(),
        where=where,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-m", "--multirun", action="store_true")  # accepted and ignored: every command is a sweep
    parser.add_argument("--config-dir", "-cd", type=Path)
    for names in (("--help", "-h"), ("--hydra-help",), ("--resolve",)):
        parser.add_argument(*names, action="store_const", const=names[0], default=None)
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--package", "-p")
    return parser


def quote_value(override: str) -> str:
    """Return `override` with quotes around each value that Hydra's grammar reads only in quotes.

    They are paths and names: ``model.path=~/net.onnx,größer.onnx``, whose quotes the shell would have taken away. A
    value that has quotes, brackets or a reference in it is left as it is.
    """
    key, equals, value = override.partition("=")
    if not equals or _GRAMMAR.intersection(value):
        return override
    parts = value.split(",")
    return f"{key}={','.join(spec.quote(part.strip()) if _is_unreadable(part) else part for part in parts)}"


def _is_unreadable(value: str) -> bool:
    return not value.isascii() or bool(_NEEDS_QUOTES.intersection(value[1:] + value[:1].strip("=")))


def _escape_condition(argument: str) -> str:
    """Write ``only=batch=8`` as ``only=batch:8``, since Hydra's grammar has no second `=`; `skip` likewise."""
    key, _, value = argument.partition("=")
    return f"{key}={value.replace('=', ':')}" if key in {"only", "skip"} else argument
