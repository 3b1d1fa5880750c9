"""Word the help of a sweep: a page that fits a screen, and the keys of one group, or all of them, on request."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from sweep.config import GROUPS, conf_files, help_lines
from sweep.errors import ConfigError
from sweep.system import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ALL = "all"
_OWN = "sweep"  # group of the keys that have no prefix


def overview(commands: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """Return the short help: examples, commands by group, groups of settings, options.

    Args:
        commands: name and summary of each command, by the name of its group.
    """
    program = command_line.program()
    examples = {
        "precision=fp16,int8 batch=1,8,32": "sweep over every combination",
        "+experiment=quickstart": "run a sweep from conf/experiment/",
        "+experiment=quickstart plan=true": "print the variants that would run, and their time",
        "run my.yaml": "run a sweep of a file of your own",
    }
    width = max((len(name) for rows in commands.values() for name, _ in rows), default=0)
    sections = _sections()
    inner = max(map(len, sections))
    return "\n".join(
        [
            "Sweeps precision x batch x streams x ... and answers with latency-at-throughput curves.\n",
            *(f"  {program} {words:<34}  {text}" for words, text in examples.items()),
            f"\nCommands ({program} COMMAND --help explains one):",
            *(
                line
                for group, rows in commands.items()
                for line in (f" {group}", *(f"  {name:<{width}}  {summary}" for name, summary in rows))
            ),
            f"\nSettings, KEY=VALUE ({program} --help NAME lists the keys of one of these, --help all every key):",
            *(f"  {name:<{inner}}  {_gist(name, keys)}" for name, keys in sections.items()),
            "\nOptions:",
            "  --config-dir FOLDER  YAML files of your own, beside those of conf/",
            "  --cfg job            print the composed settings and run nothing",
            "  --version            print the version",
        ]
    )


def topics(words: Sequence[str]) -> str:
    """Return one line on every key of the groups, or of the keys, that `words` name.

    Raises:
        ConfigError: a word is neither.
    """
    sections = _sections()
    lines = {line.split()[0]: line for line in help_lines()}
    parts = []
    for word in words:
        if word == _ALL:
            parts.append("\n".join(["Keys [default]:", *lines.values()]))
        elif word in sections:
            head = f"{word}: {', '.join(conf_files.choices(word))}\n" if word in GROUPS else ""
            parts.append(f"{head}Keys [default]:\n" + "\n".join(lines[key] for key in sections[word]))
        elif word in lines:
            parts.append(lines[word])
        else:
            names = [_ALL, *sections, *lines]
            near = difflib.get_close_matches(word, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join([_ALL, *sections])}"
            raise ConfigError(f"--help {word}: no such group of settings and no such key; {hint}")
    return "\n\n".join(parts)


def _sections() -> dict[str, list[str]]:
    """Return the keys of each group, those without a prefix first."""
    sections: dict[str, list[str]] = {_OWN: [], **{name: [] for name in GROUPS}}
    for line in help_lines():
        key = line.split()[0]
        head, dot, _ = key.partition(".")
        sections.setdefault(head if dot else _OWN, []).append(key)
    return sections


def _gist(name: str, keys: Sequence[str]) -> str:
    """Return what one group offers: its choices, or its first keys."""
    if name in GROUPS:
        return f"{'+' if name == 'experiment' else ''}{name}={' | '.join(conf_files.choices(name))}"
    short = [key.removeprefix(f"{name}.") for key in keys]
    shown = 8
    return ", ".join(short[:shown]) + (f" and {len(short) - shown} more" if len(short) > shown else "")
