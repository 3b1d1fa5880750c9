"""Looks at YAML files before anything expands them: a few lines of aliases can stand for a billion values."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sweep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_BYTES = 256 << 10
_MOST_VALUES = 10_000
_MOST_FILES = 1_000


def check(folder: Path) -> None:
    """Make sure that every YAML below ``folder`` is one that can be read in bounded time and memory.

    Raises:
        ConfigError: one is too large, nested too deep, no YAML, or its aliases stand for too many values.
    """
    for number, path in enumerate(_below(folder)):
        if number >= _MOST_FILES:
            raise ConfigError(f"{folder} holds more than {_MOST_FILES} YAML files; name the folder of your own")
        _check_file(path)


def _below(folder: Path) -> Iterator[Path]:
    seen = 0
    for place, folders, names in os.walk(folder, followlinks=True):
        seen += 1 + len(names)
        if seen > 10 * _MOST_FILES:
            raise ConfigError(f"{folder} holds more than {10 * _MOST_FILES} files; name the folder of your YAMLs")
        folders.sort()
        yield from (Path(place) / name for name in sorted(names) if name.endswith((".yaml", ".yml")))


def _check_file(path: Path) -> None:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            raise ConfigError(f"{path}: no file of at most {_MOST_BYTES} bytes, as a config is")
        text = path.read_text(encoding="utf-8")
        if "&" in text and "*" in text and _values(yaml.compose(text, yaml.SafeLoader), {}) > _MOST_VALUES:
            raise ConfigError(f"{path}: its aliases (*name) stand for more than {_MOST_VALUES} values; write them out")
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deep, or an alias holds itself") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error


def _values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many values the node stands for once every alias is written out; each node is counted once."""
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]
