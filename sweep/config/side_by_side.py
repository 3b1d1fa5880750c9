"""Expand ``together=[{model: a}, {model: b}]``: each model alone, then each beside the others.

A variant measures one of the models; the others run beside it. So the whole is as many command lines as there are
models, twice, and everything that a sweep can do with a variant it can do with these.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from sweep.config.schema import UNMEASURED
from sweep.config.value_text import value_text
from sweep.config.variants import beside as beside_tables
from sweep.errors import ConfigError
from sweep.spec import parse_sharing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hydra.core.override_parser.types import Override

KEY = "together"
_SHARING = "sharing"
_MOST = 200  # combinations of swept settings, each of which is composed by itself
_LEAST = 2


def blocks(typed: Sequence[str], of_file: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the overrides of each command line that a request of models side by side stands for.

    Args:
        typed: overrides of the command line.
        of_file: overrides of a file.

    Yields:
        Those of the command line and those of the file, without ``together``, each with one value.

    Raises:
        ConfigError: the models, or how they share the device, are refused; one line.
    """
    parser = OverridesParser.create()
    value, kept_typed, kept_file = _taken(parser, typed, of_file)
    members = beside_tables.tables(value, KEY, _LEAST)
    sharings, kept_typed, kept_file = _sharings(parser, kept_typed, kept_file)
    fixed, swept = _split(parser, [*kept_file, *kept_typed])
    for combination in itertools.islice(itertools.product(*swept.values()), _MOST + 1):
        words = {**fixed, **dict(zip(swept, combination, strict=True))}
        complete = [_complete(words, member) for member in members]
        for member in members:
            yield _block(kept_typed, kept_file, words, member, {})
        for number, member in enumerate(members):
            others = [each for other, each in enumerate(complete) if other != number]
            further = {
                "beside": value_text(others),
                _SHARING: ",".join(_permuted(text, number) for text in sharings),
            }
            yield _block(kept_typed, kept_file, words, member, further)


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _section(key: str) -> str:
    """Return the choice of a group that a key belongs to, or the key itself."""
    return key.partition(".")[0]


def _taken(parser: OverridesParser, typed: Sequence[str], of_file: Sequence[str]) -> tuple[Any, list[str], list[str]]:
    """Return the value of ``together``, and the other words."""
    own = [word for word in (*of_file, *typed) if _key(word) == KEY]
    override = parser.parse_override(own[-1])
    if override.is_sweep_override():
        raise ConfigError(f"{own[-1]}: one list of models stands here; sweep over sharing= and over other settings")
    return (
        override.value(),
        [word for word in typed if _key(word) != KEY],
        [word for word in of_file if _key(word) != KEY],
    )


def _sharings(parser: OverridesParser, typed: list[str], of_file: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the values of ``sharing``, and the other words."""
    own = [word for word in (*of_file, *typed) if _key(word) == _SHARING]
    values = [_plain(text) for text in _values(parser.parse_override(own[-1]))] if own else ["processes"]
    rest = [[word for word in words if _key(word) != _SHARING] for words in (typed, of_file)]
    return values, rest[0], rest[1]


def _values(override: Override) -> list[str]:
    """Return the values of a key, in the grammar of the command line."""
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return [str(override.get_value_element_as_str())]


def _plain(text: str) -> str:
    """Return the text of a value without the marks of the grammar."""
    return str(OverridesParser.create().parse_override(f"{_SHARING}={text}").value())


def _split(parser: OverridesParser, words: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the settings that have one value, and those that are swept, by key; measured ones alone."""
    fixed: dict[str, str] = {}
    swept: dict[str, list[str]] = {}
    for word in words:
        override = parser.parse_override(word)
        key = word.partition("=")[0]
        if override.is_sweep_override():
            swept[key] = _values(override)
        else:
            fixed[key] = word.partition("=")[2]
    return fixed, swept


def _complete(words: dict[str, str], member: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a model with those that all have in common, for a table of ``beside``."""
    parser = OverridesParser.create()
    common = {
        key.lstrip("+"): parser.parse_override(f"{key}={text}").value()
        for key, text in words.items()
        if _section(key.lstrip("+")) not in UNMEASURED and _is_common(key.lstrip("+"), member)
    }
    return {**common, **member}


def _is_common(key: str, member: dict[str, Any]) -> bool:
    """Tell whether a model has a setting from outside its table: its own choice of a group decides all below it."""
    if key == "experiment" or key in member:
        return False
    return not ("." in key and _section(key) in member and _section(key) in {"model", "precision"})


def _block(
    typed: Sequence[str], of_file: Sequence[str], words: dict[str, str], member: dict[str, Any], further: dict[str, str]
) -> tuple[list[str], list[str]]:
    """Return the words of one command line."""
    typed_keys = {_key(word) for word in typed}

    def kept(keys: set[str], *, is_typed: bool) -> list[str]:
        return [
            f"{key}={text}"
            for key, text in words.items()
            if _key(f"{key}=") in keys
            and (_key(f"{key}=") in typed_keys) == is_typed
            and (_section(_key(key)) in UNMEASURED or _key(key) == "experiment" or _is_common(_key(key), member))
        ]

    own = [*beside_tables.words(member), *(f"{key}={text}" for key, text in further.items())]
    file_keys = {_key(word) for word in of_file}
    return kept(typed_keys, is_typed=True), [*kept(file_keys, is_typed=False), *own]


def _permuted(text: str, number: int) -> str:
    """Return how the device is shared, with the share of model `number` in front; a text of another form as it is."""
    sharing = parse_sharing(text)
    if sharing is None or not number < len(sharing.shares):
        return text
    return sharing.with_first(number).text
