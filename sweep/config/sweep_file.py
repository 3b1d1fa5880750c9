"""Read a sweep that a user writes as one YAML file: fixed values, ``sweep:`` with lists, and what to leave out.

    model: resnet50
    sweep: {precision: [fp16, int8], batch: [1, 8, 32]}
    where: batch * streams <= 64

The file becomes the words of a command line, so that every check is that of a command line, and an error names the
line of the file. What may run code (functions, plans) has to be typed on the command line all the same.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweep.config import arguments, compose, constraints, error_messages, key_lines
from sweep.config.combinations import Combinations
from sweep.config.conf_files import conf_folder
from sweep.config.schema import GROUPS, UNMEASURED
from sweep.config.value_text import value_text
from sweep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sweep.config.compose import SweepRequest
    from sweep.config.key_lines import KeyLines

_SPECIAL = ("sweep", "where", "exclude", "include", "per_model")
_WITH_KEYS = (*_SPECIAL, "together", "beside")  # keys at the top below which keys of the schema stand
_TABLES = ("model.inputs", "load.shapes", "pipeline")  # keys whose value is a table
_FREE = ("per_model", *_TABLES)  # keys below which the names are the user's own
_EXPERIMENT = "+experiment="


@dataclass
class _File:
    """Hold what a file says.

    Attributes:
        lines: lines of its keys; keys below ``sweep`` and the like have their own name too.
        values: fixed values by dotted key, or by the name of a group.
        special: content of ``sweep``, ``where``, ``exclude``, ``include`` and ``per_model``.
    """

    lines: KeyLines
    values: dict[str, Any] = field(default_factory=dict)
    special: dict[str, Any] = field(default_factory=dict)


def read(path: Path, words: Sequence[str]) -> SweepRequest:
    """Return the sweep of a file; `words` of the command line win over it.

    Raises:
        ConfigError: the file or a word is refused; one line, with the line of the file where it is at fault.
    """
    return _sweep_of(_load(path), words)


def read_words(words: Sequence[str]) -> SweepRequest | None:
    """Return the sweep that a command line requests; None if Hydra has printed something instead (--help, --cfg).

    An experiment without ``defaults`` and ``hydra`` is a file as `read` takes it, whatever its folder. An error of
    another one names file and line too.

    Raises:
        ConfigError: a word or a YAML is refused; one line.
    """
    named = [word for word in words if word.startswith(_EXPERIMENT)]
    paths = [path for word in named if (path := experiment_path(words, word)) is not None]
    parsed = arguments.parse(words)
    if len(named) == len(paths) == 1:
        file, rest = _experiment(paths[0]), [word for word in words if word != named[0]]
        if file is not None and parsed.flags:
            return compose.read(rest, of_file=_words(_fixed_values(file)))
        if file is not None:
            sweep = _sweep_of(file, rest)
            measured = (text for text in sweep.overrides if compose.key_of(text) not in file.values)
            return dataclasses.replace(sweep, overrides=(*named, *measured))
    used = [*paths, *own_choices(parsed)]
    try:
        request = compose.read(words)
    except ConfigError as error:
        raise ConfigError(_locate(used, parsed, str(error))) from error
    if request is None or not used:
        return request
    return dataclasses.replace(request, locate=lambda message: _locate(used, parsed, message))


def experiment_path(words: Sequence[str], word: str) -> Path | None:
    """Return the file of an experiment: that of conf/, or of the folder of ``--config-dir``; None if there is none."""
    folder = arguments.parse(words).config_dir
    name = f"{word.removeprefix(_EXPERIMENT)}.yaml"
    places = (place / "experiment" / name for place in (conf_folder(), folder) if place is not None)
    return next((path for path in places if path.is_file()), None)


def own_choices(parsed: arguments.Arguments) -> list[Path]:
    """Return the files of the folder of ``--config-dir`` that are choices of a group on the command line."""
    pairs = [word.partition("=")[::2] for word in parsed.overrides]
    if parsed.config_dir is None:
        return []
    paths = [
        parsed.config_dir / key / f"{name}.yaml" for key, value in pairs if key in GROUPS for name in value.split(",")
    ]
    return [path for path in paths if path.is_file()]


def _experiment(path: Path) -> _File | None:
    """Return an experiment that `read` can take; None for one in Hydra's form, or without anything in it."""
    content, lines = key_lines.parse(path, _WITH_KEYS, _FREE, empty=True)
    return None if not content or any(key in content for key in key_lines.HYDRA) else _filled(content, lines)


def _locate(paths: Sequence[Path], parsed: arguments.Arguments, message: str) -> str:
    """Return a message with file and line, if it is about a key of one of the files that no word sets."""
    typed = {compose.key_of(word) for word in parsed.overrides if not word.startswith(_EXPERIMENT)}
    for path in paths:
        try:
            content, lines = key_lines.parse(path, (*_WITH_KEYS, *key_lines.HYDRA), _FREE, empty=True)
        except ConfigError as error:
            return str(error)
        if content and path.parent.name != "experiment":
            lines = lines.below(f"{path.parent.name}.")
        if not key_lines.keys_named(message) & typed and lines.line(message) is not None:
            return lines.located(message)
    return message


def _sweep_of(file: _File, words: Sequence[str]) -> SweepRequest:
    typed = {compose.key_of(word) for word in arguments.parse(words).overrides}

    def locate(message: str) -> str:
        return message if key_lines.keys_named(message) & typed else file.lines.located(message)

    try:
        blocks = list(_blocks(file))
        where = constraints.conditions(file.special.get("where"))
        exclude = constraints.entries("exclude", file.special.get("exclude"))
        rest = [word for word in words if not word.startswith("where=")]
        requests = [_request(rest, block) for block in blocks]
        count = len(blocks) - len(constraints.entries("include", file.special.get("include")))
        _refuse_without_sweep(count, {"where": where, "exclude": exclude})
        swept = Combinations([request.configs for request in requests[:count]])
        kept = constraints.keep(swept, where, exclude)
        every = Combinations([kept, *(request.configs for request in requests[count:])])
        configs = constraints.keep(every, arguments.parse(words).where, ())
    except ConfigError as error:
        raise ConfigError(locate(str(error))) from error
    overrides = tuple(dict.fromkeys(text for request in requests for text in request.overrides))
    left_out = sum(request.left_out for request in requests)
    left_out += len(swept) - len(kept) + len(every) - len(configs)
    return dataclasses.replace(requests[0], configs=configs, overrides=overrides, left_out=left_out, locate=locate)


def _refuse_without_sweep(count: int, filters: dict[str, list[Any]]) -> None:
    """Refuse filters that have no combination of ``sweep`` to leave out, for those of ``include`` stay."""
    head = next((head for head, entries in filters.items() if entries), None)
    if not count and head is not None:
        raise ConfigError(f"{head}: leaves out combinations of `sweep`, and there is none beside `include`")


def _request(words: Sequence[str], block: tuple[str, ...]) -> SweepRequest:
    request = compose.read(words, of_file=block)
    if request is None:
        raise ConfigError("flags such as --cfg are for the command line alone, without a file")
    return request


def _load(path: Path) -> _File:
    """Parse the file, with the line of every key."""
    content, lines = key_lines.parse(path, _WITH_KEYS, _FREE)
    for key in key_lines.HYDRA:
        if key in content:
            raise ConfigError(
                f"{path}:{lines.keys[key]}: {key}: belongs to an experiment of --config-dir; here write `sweep:` with "
                f"lists, and a group by its name, as in model: resnet50"
            )
    return _filled(content, lines)


def _filled(content: dict[str, Any], lines: KeyLines) -> _File:
    file = _File(lines)
    for key, value in content.items():
        if key in _SPECIAL:
            file.special[key] = value
        elif isinstance(value, dict) and key not in _TABLES:
            file.values |= _dotted(value, f"{key}.")
        else:
            file.values[key] = value
    return file


def _dotted(table: dict[Any, Any], prefix: str) -> dict[str, Any]:
    """Return a section as dotted keys; the table of the inputs, or of shapes, stays one value."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        values |= _dotted(value, f"{name}.") if isinstance(value, dict) and name not in _TABLES else {name: value}
    return values


def _blocks(file: _File) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command line that the file stands for.

    There is one, or one a model where models have values of their own, and one for each combination of ``include``.
    """
    sweep = _table("sweep", file.special.get("sweep"))
    include = constraints.entries("include", file.special.get("include"))
    per_model = _table("per_model", file.special.get("per_model"))
    fixed = _fixed_values(file)
    swept = {key: _swept(key, value) for key, value in constraints.flat(sweep).items()}
    twice = next((key for key in swept if key in fixed), None)
    if twice is not None:
        raise ConfigError(f"{twice}: stands below `sweep:` and outside of it; keep one of them")
    if "sweep" in file.special and not swept:
        raise ConfigError("sweep: sweeps over nothing; give it lists, as in {batch: [1, 8]}, or leave it out")
    if swept or not include:
        if per_model:
            yield from _of_models(fixed, swept, per_model, sweep.get("model", file.values.get("model")))
        else:
            yield _words(fixed | swept)
    for entry in include:
        yield _words(fixed | {key: _fixed(key, value) for key, value in entry.items()})


def _fixed_values(file: _File) -> dict[str, str]:
    return {key: _fixed(key, value) for key, value in file.values.items()}


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
        if not compose.is_known(key):
            raise ConfigError(error_messages.unknown_key(key))
        raise ConfigError(f"{key}: takes one value; to sweep over several, put it below `sweep:`")
    if key in GROUPS and not isinstance(value, str):
        raise ConfigError(
            f"{key}={value_text(value)}: is no name of a choice; a name that YAML reads as something else needs quotes"
        )
    return value_text(value)


def _swept(key: str, value: Any) -> str:
    """Return the values of a key that is swept, in the grammar of the command line."""
    if not isinstance(value, list):
        return value_text(value)
    if not value:
        raise ConfigError(f"{key}: sweeps over nothing; give it one value or more")
    inner = next((item for item in value if isinstance(item, list | dict)), None)
    if isinstance(inner, dict) or (inner is not None and not compose.takes_list(key)):
        kind = "a table" if isinstance(inner, dict) else "a list"
        raise ConfigError(f"{key}: {kind} stands in its list; give the values one by one, as in [1, 2, 4]")
    return ",".join(value_text(item) for item in value)


def _words(values: dict[str, str]) -> tuple[str, ...]:
    """Return the words of a command line; a table needs a plus sign, for the schema lacks its keys."""
    return tuple(f"{'+' if text.startswith('{') else ''}{key}={text}" for key, text in values.items())
