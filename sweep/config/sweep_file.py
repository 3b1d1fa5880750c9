"""Read a sweep that a user writes as one YAML file: fixed values, ``sweep:`` with lists, and what to leave out.

    model: resnet50
    sweep: {precision: [fp16, int8], batch: [1, 8, 32]}
    where: batch * streams <= 64

The file becomes the words of a command line, so that every check is that of a command line, and an error names the
line of the file. What may run code (functions, plans) has to be typed on the command line all the same.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from sweep.config import compose, constraints, yaml_limits
from sweep.config.combinations import Combinations
from sweep.config.schema import UNMEASURED
from sweep.config.value_text import value_text
from sweep.errors import ConfigError
from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sweep.config.compose import SweepRequest

_SPECIAL = ("sweep", "where", "exclude", "include", "per_model")
_HYDRA = ("hydra", "defaults")
_KEY = re.compile(r"[A-Za-z_][\w.]*")


@dataclass
class _File:
    """Hold what a file says.

    Attributes:
        path: the file.
        lines: line of each key, by its dotted name; keys below ``sweep`` and the like have their own name too.
        values: fixed values by dotted key, or by the name of a group.
        special: content of ``sweep``, ``where``, ``exclude``, ``include`` and ``per_model``.
    """

    path: Path
    lines: dict[str, int] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    special: dict[str, Any] = field(default_factory=dict)

    def located(self, message: str) -> str:
        """Return a message with the file in front, and the line of the key that it begins with."""
        key = re.split(r"[=:]", message.lstrip("+"), maxsplit=1)[0].strip()
        line = self.lines.get(key)
        return f"{self.path}:{line}: {message}" if line is not None else f"{self.path}: {message}"


def read(path: Path, words: Sequence[str]) -> SweepRequest:
    """Return the sweep of a file; `words` of the command line win over it.

    Raises:
        ConfigError: the file or a word is refused; one line, with the line of the file where it is at fault.
    """
    file = _load(path)
    try:
        blocks = list(_blocks(file))
        where = constraints.conditions(file.special.get("where"))
        exclude = constraints.entries("exclude", file.special.get("exclude"))
        requests = [_request(words, block) for block in blocks]
        configs = Combinations([request.configs for request in requests])
        kept = constraints.keep(configs, where, exclude)
    except ConfigError as error:
        raise ConfigError(file.located(str(error))) from error
    overrides = tuple(dict.fromkeys(text for request in requests for text in request.overrides))
    left_out = sum(request.left_out for request in requests) + len(configs) - len(kept)
    return dataclasses.replace(requests[0], configs=kept, overrides=overrides, left_out=left_out, locate=file.located)


def _request(words: Sequence[str], block: tuple[str, ...]) -> SweepRequest:
    request = compose.read(words, of_file=block)
    if request is None:
        raise ConfigError("flags such as --cfg are for the command line alone, without a file")
    return request


def _load(path: Path) -> _File:
    """Parse the file, with the line of every key."""
    yaml_limits.check_file(path)
    file = _File(path)
    try:
        root = yaml.compose(regular_files.read_text(path, follow=True), yaml.SafeLoader)
        content = _content(file, root)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    for key, value in content.items():
        if key in _HYDRA:
            raise ConfigError(
                f"{path}:{file.lines[key]}: {key}: belongs to an experiment of --config-dir; here write `sweep:` with "
                f"lists, and a group by its name, as in model: resnet50"
            )
        if key in _SPECIAL:
            file.special[key] = value
        elif isinstance(value, dict) and key != "model.inputs":
            file.values |= _dotted(value, f"{key}.")
        else:
            file.values[key] = value
    return file


def _content(file: _File, root: yaml.Node | None) -> dict[str, Any]:
    """Return the content of the document, and note the line of every key."""
    if root is None:
        raise ConfigError(f"{file.path}: is empty; `sweep init` writes one to begin with")
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{file.path}:1: give KEY: VALUE, as in sweep: {{batch: [1, 8]}}")
    _note_lines(file, root, "")
    return dict(yaml.SafeLoader("").construct_document(root))


def _dotted(table: dict[Any, Any], prefix: str) -> dict[str, Any]:
    """Return a section as dotted keys; the table of the inputs stays one value."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        values |= _dotted(value, f"{name}.") if isinstance(value, dict) and name != "model.inputs" else {name: value}
    return values


def _note_lines(file: _File, node: yaml.Node, prefix: str) -> None:
    """Note the line of every key below `node`, and refuse a key that stands twice, or is no name."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _note_lines(file, item, prefix)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = str(key.value)
        if name in seen:
            raise ConfigError(f"{file.path}:{line}: {name}: stands twice; keep one of them")
        if not prefix and not _KEY.fullmatch(name):
            raise ConfigError(f"{file.path}:{line}: {name}: is no key; give KEY: VALUE, as in batch: 8")
        seen.add(name)
        full = f"{prefix}{name}"
        file.lines.setdefault(full, line)
        if full.partition(".")[0] in _SPECIAL:
            file.lines[full.partition(".")[2] or full] = line
            if full.startswith("per_model."):
                file.lines.setdefault(full.removeprefix("per_model.").partition(".")[2], line)
        _note_lines(file, value, f"{full}.")


def _blocks(file: _File) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command line that the file stands for.

    There is one, or one a model where models have values of their own, and one for each combination of ``include``.
    """
    sweep = _table("sweep", file.special.get("sweep"))
    include = constraints.entries("include", file.special.get("include"))
    per_model = _table("per_model", file.special.get("per_model"))
    fixed = {key: _fixed(key, value) for key, value in file.values.items()}
    swept = {key: _swept(key, value) for key, value in constraints.flat(sweep).items()}
    if swept or not include:
        if per_model:
            yield from _of_models(fixed, swept, per_model, sweep.get("model", file.values.get("model")))
        else:
            yield _words(fixed | swept)
    for entry in include:
        yield _words(fixed | {key: _fixed(key, value) for key, value in entry.items()})


def _of_models(
    fixed: dict[str, str], swept: dict[str, str], per_model: dict[str, Any], models: Any
) -> Iterator[tuple[str, ...]]:
    names = [str(name) for name in (models if isinstance(models, list) else [models])]
    unknown = next((name for name in per_model if name not in names), None)
    if unknown is not None:
        raise ConfigError(f"{unknown}: per_model has it, and `model` does not; there are: {', '.join(names)}")
    for name in names:
        own = constraints.flat(_table(f"per_model.{name}", per_model.get(name)))
        for key in own:
            if key.partition(".")[0] in UNMEASURED:
                raise ConfigError(f"{key}: belongs to the whole sweep, not to a model; put it at the top of the file")
        values = {key: _swept(key, value) for key, value in own.items()}
        yield _words({key: text for key, text in (fixed | swept | values).items() if key != "model"} | {"model": name})


def _table(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: give a table, as in {{precision: [fp16, int8], batch: [1, 8]}}")
    return {str(key): item for key, item in value.items()}


def _fixed(key: str, value: Any) -> str:
    """Return one value in the grammar of the command line.

    Raises:
        ConfigError: a list stands where one value belongs.
    """
    if isinstance(value, list) and not compose.takes_list(key):
        raise ConfigError(f"{key}: takes one value; to sweep over several, put it below `sweep:`")
    return value_text(value)


def _swept(key: str, value: Any) -> str:
    """Return the values of a key that is swept, in the grammar of the command line."""
    if not isinstance(value, list):
        return value_text(value)
    if not value:
        raise ConfigError(f"{key}: sweeps over nothing; give it one value or more")
    return ",".join(value_text(item) for item in value)


def _words(values: dict[str, str]) -> tuple[str, ...]:
    """Return the words of a command line; a table needs a plus sign, for the schema lacks its keys."""
    return tuple(f"{'+' if text.startswith('{') else ''}{key}={text}" for key, text in values.items())
