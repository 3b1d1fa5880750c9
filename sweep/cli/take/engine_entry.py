"""Locate the engine of a variant in the cache, verified by its digests, or build it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep import spec
from sweep.cli import sweep_commands
from sweep.errors import ConfigError
from sweep.report import compared
from sweep.storage.cache import Cache
from sweep.system import command_line, user_code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sweep.cli.take.selection import Choice
    from sweep.spec import Variant
    from sweep.storage.cache import Entry

_KIND = "engines"


class Source:
    """Hold an engine in a cache, which keeps it until ``close``.

    Args:
        cache: the cache.
        entry: the engine's entry.
    """

    def __init__(self, cache: Cache, entry: Entry) -> None:
        self._cache = cache
        self.entry = entry

    def close(self) -> None:
        """Let the cache evict the engine again."""
        self._cache.close()


def locate(choice: Choice, cache: Path | None, results: Path, *, build: bool) -> Source:
    """Return the engine of a variant.

    Args:
        choice: the variant.
        cache: the cache to look in; None looks beside the sweep and in `results`.
        results: the results folder.
        build: build the engine if no cache has it.

    Raises:
        ConfigError: no cache has the engine, with the command that builds it; or it was built and is another one.
    """
    key = str((choice.record.engine or {}).get("key"))
    places = [cache] if cache is not None else [choice.store.root.parent / "cache", results / "cache"]
    source = _find(places, key)
    if source is not None:
        return source
    words = _build_words(choice)
    starts = (choice.record.engine or {}).get("starts") or []
    if any(start["build"] is not None for start in starts):
        raise ConfigError(
            f"{choice.label} was measured on engines that were built afresh (load.builds), of which none is kept; "
            f"measure it without load.builds, then take that: {command_line.format_command(*words[:-3])}"
        )
    if not build:
        where = " or ".join(str(place) for place in dict.fromkeys(places))
        raise ConfigError(
            f"{choice.label}: its engine {key} is no longer in {where}; --build builds it again, as does "
            f"{command_line.format_command(*words)}"
        )
    _refuse_functions(choice, words)
    from sweep.cli import run

    if run.run(words) != 0:
        raise ConfigError(f"{choice.label}: its engine cannot be built here, for the reason above; nothing is taken")
    source = _find([*places, choice.store.root.parent / "cache"], key)  # the command builds it beside the sweep
    if source is None:
        raise ConfigError(
            f"{choice.label}: what is built here is not the engine {key} that was measured, whose key holds the "
            "versions of the libraries and the GPU; measure the variant here, then take it: "
            f"{command_line.format_command(*words[:-3])}"
        )
    return source


def _find(places: list[Path], key: str) -> Source | None:
    for place in dict.fromkeys(places):
        if place.is_dir():
            cache = Cache(place)
            entry = cache.find(_KIND, key)
            if entry is not None:
                return Source(cache, entry)
            cache.close()
    return None


def _build_words(choice: Choice) -> tuple[str, ...]:
    """Return the words of the command line that build the engine into the cache beside the sweep."""
    root = choice.store.root
    return (*command_words(choice), "build_only=true", f"results={spec.quote(str(root.parent))}", f"name={root.name}")


def command_words(choice: Choice) -> tuple[str, ...]:
    """Return the words of the command line that measure the variant alone, under the objective of its record.

    Raises:
        ConfigError: this version cannot write the variant as a command.
    """
    record = choice.record
    words = sweep_commands.words_of(spec.from_record(record.variant), compared(choice.peers).axes)
    if words is None:
        raise ConfigError(f"{choice.label}: this version cannot write the command of a record of another version")
    if record.slo is None:
        return words
    objective = spec.of_percent(record.slo["percentile"], record.slo["limit_ms"])
    return (*words, f"slo.{objective.percentile}_ms={objective.limit_ms:g}")


def _refuse_functions(choice: Choice, words: tuple[str, ...]) -> None:
    """Refuse to run a user's code that only a record names.

    Raises:
        ConfigError: the record names some; with the command that names it, too.
    """
    for name in _user_code(spec.from_record(choice.record.variant)):
        raise ConfigError(
            f"{choice.label} is made with {name}, which runs only if you name it: {command_line.format_command(*words)}"
        )


def _user_code(variant: Variant) -> Iterator[str]:
    graph, calibration = variant.onnx.graph, variant.onnx.calibration
    source = (variant.onnx.model.made_from or "").partition(" ")[2]
    names = (graph and graph.name, calibration and calibration.name, source)
    yield from (name for name in names if name and user_code.is_named(name))
    yield from (plugin.path for plugin in variant.engine.plugins or ())
