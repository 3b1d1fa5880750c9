"""Know at which line of a YAML file each key and each value stands, so that an error names the line."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from sweep.config import yaml_errors, yaml_limits
from sweep.config.value_text import value_text
from sweep.errors import ConfigError, shorten
from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_KEY = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
_DOTTED = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)+")  # also the names of files
_PARAMS = "hydra.sweeper.params."
_MERGE = "<<"
HYDRA = ("hydra", "defaults")  # keys of a file in Hydra's form
_LISTS = ("exclude", "include", "together", "beside")


@dataclass
class KeyLines:
    """Hold the lines of one file.

    Attributes:
        path: the file.
        keys: line of each key, by its dotted name; a key below one of the tables has its own name too.
        values: line of each plain value, by the dotted name of its key and its text on a command line.
    """

    path: Path
    keys: dict[str, int] = field(default_factory=dict)
    values: dict[tuple[str, str], int] = field(default_factory=dict)

    def line(self, message: str) -> int | None:
        """Return the line of what a message is about: of the value or the key that it begins with, or that it names."""
        key, rest = _head(message)
        value = next((line for (name, text), line in self.values.items() if name == key and _begins(rest, text)), None)
        if value is not None:
            return value
        if key in self.keys:
            return self.keys[key]
        return next((self.keys[name] for name in _DOTTED.findall(message) if name in self.keys), None)

    def below(self, prefix: str) -> KeyLines:
        """Return the lines of a file whose keys stand below `prefix`, as those of a choice of a group."""
        keys = {f"{prefix}{name}": line for name, line in self.keys.items()}
        return KeyLines(
            self.path, keys, {(f"{prefix}{name}", text): line for (name, text), line in self.values.items()}
        )

    def located(self, message: str) -> str:
        """Return a message with the file in front, and the line where one is known."""
        line = self.line(message)
        return f"{self.path}: {message}" if line is None else f"{self.path}:{line}: {message}"


def keys_named(message: str) -> set[str]:
    """Return the keys that a message may be about: the one that it begins with, and dotted ones."""
    return {_head(message)[0], *_DOTTED.findall(message)}


def _head(message: str) -> tuple[str, str]:
    """Return the key that a message begins with, and what follows it."""
    match = re.match(r"\+*([^=:]*)[=:]?(.*)", message, flags=re.DOTALL)
    return (match[1].strip(), match[2]) if match else ("", "")


def _is_listed(prefix: str) -> bool:
    """Tell whether the keys below `prefix` may be there several times: those of the tables of a list."""
    return prefix.partition(".")[0] in _LISTS


def _begins(rest: str, text: str) -> bool:
    """Tell whether `rest` begins with the whole value `text`."""
    return re.match(rf"\s*{re.escape(text)}(?![\w.,])", rest) is not None


def parse(
    path: Path, tables: Collection[str] = (), free: Collection[str] = (), *, empty: bool = False
) -> tuple[dict[str, Any], KeyLines]:
    """Return the content of a file that holds a table, and the lines of its keys.

    Args:
        path: the file.
        tables: keys at the top below which keys of the schema stand, such as ``sweep``.
        free: dotted keys below which the names are the user's own.
        empty: whether a file without anything in it is a table without keys.

    Raises:
        ConfigError: it cannot be read, is no table, or a key stands twice or is no name; one line, with the line.
    """
    yaml_limits.check_file(path)
    try:
        root = yaml.compose(regular_files.read_text(path, follow=True), yaml.SafeLoader)
        lines = KeyLines(path)
        if root is None or root.tag == "tag:yaml.org,2002:null":
            if empty:
                return {}, lines
            raise ConfigError(f"{path}: is empty; `sweep init` writes one to begin with")
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path}:1: give KEY: VALUE, as in sweep: {{batch: [1, 8]}}")
        _Reader(lines, tables, free).note(root, "")
        return dict(yaml.SafeLoader("").construct_document(root)), lines
    except yaml_errors.ERRORS as error:
        raise ConfigError(yaml_errors.describe(path, error)) from error
    except ValueError as error:  # of a key: values are read one by one above
        raise ConfigError(f"{path}: {shorten(str(error), 60)}; put text into quotes") from error


@dataclass
class _Reader:
    """Note the lines of a tree of nodes."""

    lines: KeyLines
    tables: Collection[str]
    free: Collection[str]
    full_names: set[str] = field(default_factory=set)

    def note(self, node: yaml.Node, prefix: str) -> None:
        """Note the line of every key and value below `node`, and refuse a key that stands twice, or is no name."""
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._note_value(item, prefix.removesuffix("."))
                self.note(item, prefix)
        if not isinstance(node, yaml.MappingNode):
            return
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{self.lines.path}:{line}: a list or a table is no key; give KEY: VALUE")
            name = str(key.value)
            if name == _MERGE:
                self.note(value, prefix)
                continue
            full = f"{prefix}{name}"
            if name in seen or (full in self.full_names and not _is_listed(prefix)):
                raise ConfigError(f"{self.lines.path}:{line}: {name}: stands twice; keep one of them")
            if not _KEY.fullmatch(name) and not self._is_free(prefix):
                hint = f"write {name.lstrip('+')}" if name.startswith("+") else "give KEY: VALUE, as in batch: 8"
                raise ConfigError(f"{self.lines.path}:{line}: {name}: is no key; {hint}")
            seen.add(name)
            self.full_names.add(full)
            self._note_key(full, line)
            self._note_value(value, full)
            self.note(value, f"{full}.")

    def _is_free(self, prefix: str) -> bool:
        """Tell whether any name may stand below `prefix`: one of the user's own, or of Hydra's."""
        return prefix.partition(".")[0] in HYDRA or prefix.endswith(tuple(f"{head}." for head in self.free))

    def _note_key(self, full: str, line: int) -> None:
        self.lines.keys.setdefault(full, line)
        for name in self._own_names(full):
            if full.startswith("per_model."):
                self.lines.keys.setdefault(name, line)
            else:
                self.lines.keys[name] = line

    def _note_value(self, node: yaml.Node, full: str) -> None:
        if isinstance(node, yaml.ScalarNode):
            try:
                texts = {node.value, value_text(yaml.SafeLoader("").construct_object(node))} - {""}
            except (ValueError, AttributeError, TypeError) as error:  # a date that is none, a number by its tag alone
                spot, kind = f"{self.lines.path}:{node.start_mark.line + 1}", node.tag.rpartition(":")[2]
                text = shorten(node.value, 60)
                raise ConfigError(f"{spot}: {text}: cannot be read as {kind}; put text into quotes") from error
            for place in itertools.product((full, *self._own_names(full)), texts):
                self.lines.values.setdefault(place, node.start_mark.line + 1)

    def _own_names(self, full: str) -> list[str]:
        """Return the names that a key below one of the tables has in the schema."""
        if full.startswith(_PARAMS):
            return [full.removeprefix(_PARAMS)]
        head, _, rest = full.partition(".")
        if head not in self.tables:
            return []
        return [name for name in (rest or full, rest.partition(".")[2] if head == "per_model" else "") if name]
