"""Limit YAML files before anything expands them: a few lines of aliases can stand for a billion values."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sweep.config import yaml_errors
from sweep.errors import ConfigError
from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BYTES = 256 << 10
_MAX_VALUES = 10_000
_SHORT = _MAX_VALUES  # characters that hold no more values than that
_MAX_FILES = 1_000


def check(folder: Path) -> None:
    """Refuse a folder with a YAML that cannot be read in bounded time and memory.

    Raises:
        ConfigError: a file is too large, nested too deep or no YAML, its aliases stand for too many values, or there
            are too many files.
    """
    for number, path in enumerate(_yaml_files(folder)):
        if number >= _MAX_FILES:
            raise ConfigError(f"{folder} holds more than {_MAX_FILES} YAML files; name the folder of your own")
        check_file(path)


def _yaml_files(folder: Path) -> Iterator[Path]:
    count = 0  # files and folders of all kinds
    for place, folders, names in os.walk(folder, followlinks=True):
        count += 1 + len(names)
        if count > 10 * _MAX_FILES:
            raise ConfigError(f"{folder} holds more than {10 * _MAX_FILES} files; name the folder of your YAMLs")
        folders.sort()
        yield from (Path(place) / name for name in sorted(names) if name.endswith((".yaml", ".yml")))


def check_file(path: Path) -> None:
    """Refuse a YAML that cannot be read in bounded time and memory; raises as `check`."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: no file of at most {_MAX_BYTES} bytes, as a config is")
        text = regular_files.read_text(path, follow=True, most=_MAX_BYTES)
        aliases = "&" in text and "*" in text
        if not aliases and len(text) <= _SHORT:
            return
        if _count_values(yaml.compose(text, yaml.SafeLoader), {}) > _MAX_VALUES:
            advice = "its aliases (*name) stand for" if aliases else "it holds"
            raise ConfigError(f"{path}: {advice} more than {_MAX_VALUES} values; give fewer")
    except yaml_errors.ERRORS as error:
        raise ConfigError(yaml_errors.describe(path, error)) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or ' '.join(str(error).split())}") from error


def _count_values(node: yaml.Node | None, counts: dict[int, int]) -> int:
    """Return the number of values in `node` with every alias expanded.

    Args:
        node: root of the tree.
        counts: number of values by id of a node, filled here, so that the work grows with the file and not with what
            its aliases stand for.
    """
    if id(node) not in counts:
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
        counts[id(node)] = 1 + sum(_count_values(part, counts) for part in parts)
    return counts[id(node)]
