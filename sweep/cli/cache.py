"""List the models, ONNX files and engines in the cache, and its limit; prune removes those that are not in use.

prune removes the least recently used entries first. Without an option it prunes down to the limit of the last sweep
(cache_gib).

Exit codes: 0 done; 1 some entries that are not in use could not be removed; 2 the command is wrong.

Examples:
  sweep cache
  sweep cache prune --to-gib 5
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from sweep.cli import arguments
from sweep.cli.console import Terminal, print_rows
from sweep.errors import ConfigError
from sweep.storage.cache import DEFAULT_GIB, GIB, eviction, inventory, location, pins

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from sweep.storage.cache import Item, Pruned

_ACTIONS = ("list", "prune")
_KINDS = ("models", "onnx", inventory.ENGINES, "references", inventory.RUNTIME)
_MIB = 1 << 20
_DAY_NS = 86_400 * 10**9
_LOG_WIDTH = 160  # of a pipe or file, where nothing says how wide it is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    bounds_usage = "[--to-gib N | --older-than-days N | --all] [--kind KIND]"
    parser.usage = f"%(prog)s [list] [RESULTS]\n       %(prog)s prune [RESULTS] {bounds_usage}"
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[list|prune] [RESULTS]",
        help="list or prune [list], and the results folder [results]",
    )
    parser.add_argument("--results", type=Path, metavar="RESULTS", help="the same")
    bounds = parser.add_mutually_exclusive_group()
    bounds.add_argument(
        "--to-gib", type=arguments.amount, metavar="N", help="prune to at most N GiB [the cache's limit]"
    )
    bounds.add_argument(
        "--older-than-days", type=arguments.amount, metavar="N", help="prune entries that were not used for N days"
    )
    bounds.add_argument("--all", action="store_true", help="prune everything that is not in use")
    parser.add_argument(
        "--kind", action="append", choices=_KINDS, default=[], help="prune this kind only; can be repeated"
    )


def run(options: argparse.Namespace) -> int:
    """List the cache or prune it; return the exit code.

    Raises:
        ConfigError: if the words make no command, the results folder does not exist, or its cache is a link to what is
            no cache.
        CacheError: if the cache cannot be read.
    """
    action, results = _action(options)
    root = results / "cache"
    if not results.is_dir():
        raise ConfigError(f"{results} is not there: name the results folder")
    if not root.is_dir():
        sys.stdout.write(f"nothing is cached below {results}\n")
        return 0
    location.check(root)
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    if action == "list":
        _show(console, root)
        return 0
    outcome = _prune(root, options)
    _print_outcome(console, outcome)
    return 1 if outcome.failed else 0


def _action(options: argparse.Namespace) -> tuple[str, Path]:
    """Return what to do, list or prune, and the results folder."""
    words = list(options.words)
    action = words.pop(0) if words and words[0] in _ACTIONS else "list"
    if len(words) > 1:
        raise ConfigError(f"{' '.join(words)}: give {' or '.join(_ACTIONS)}, then one results folder")
    if words and options.results is not None and Path(words[0]) != options.results:
        raise ConfigError(f"the results folder is given twice, as {words[0]} and as {options.results}: give it once")
    bounded = options.to_gib is not None or options.older_than_days is not None or options.all or options.kind
    if action == "list" and bounded:
        raise ConfigError("--to-gib, --older-than-days, --all and --kind belong to prune")
    return action, options.results or Path(words[0] if words else "results")


def _prune(root: Path, options: argparse.Namespace) -> Pruned:
    if options.older_than_days is not None:
        return eviction.older_than(root, time.time_ns() - int(options.older_than_days * _DAY_NS), options.kind)
    if options.all:
        return eviction.to_bytes(root, 0, options.kind)
    limit = _limit_bytes(root) if options.to_gib is None else int(options.to_gib * GIB)
    return eviction.to_bytes(root, limit, options.kind)


def _limit_bytes(root: Path) -> int:
    """Return the limit of the last sweep that built something in `root`, or the default."""
    return inventory.read_limit(root) or int(DEFAULT_GIB * GIB)


def _show(console: Console, root: Path) -> None:
    items, users = inventory.items(root), pins.in_use(root)
    heads = ("kind", "key", "what", "MiB", "last used", "in use by")
    print_rows(
        console, heads, [_row(item, users.get(item.owner)) for item in reversed(items)], right=("MiB",), fold="what"
    )
    total, limit = sum(item.bytes for item in items), _limit_bytes(root)
    console.print(
        f"total {_amount_of(total)} in {len(items)}, of at most {limit / GIB:g} GiB (cache_gib)", highlight=False
    )
    leftover_bytes = sum(inventory.size_bytes(path) for _, _, path in inventory.scratch_folders(root))
    if leftover_bytes:
        console.print(f"besides, {_amount_of(leftover_bytes)} are being built, or were when their process was killed")


def _row(item: Item, user: str | None) -> tuple[str, ...]:
    last_used = dt.datetime.fromtimestamp(item.used_ns / 1e9, dt.UTC).astimezone()
    description = "shared by builds; never pruned" if item.kind == inventory.TIMING else item.description
    size = f"{item.bytes / _MIB:.2f}"
    return item.kind, item.key, description or "-", size, f"{last_used:%Y-%m-%d %H:%M}", user or "-"


def _print_outcome(console: Console, outcome: Pruned) -> None:
    lines = [f"removed  {_name(item)}" for item in outcome.evicted]
    lines += [f"kept     {_name(item)}: in use by {user}" for item, user in outcome.in_use]
    lines += [f"failed   {_name(item)}: {reason}" for item, reason in outcome.failed]
    freed = sum(item.bytes for item in outcome.evicted) + outcome.leftover_bytes
    lines.append(f"{len(outcome.evicted)} removed, {len(outcome.in_use)} in use, {_amount_of(freed)} freed")
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)


def _amount_of(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / _MIB:.2f} MiB"


def _name(item: Item) -> str:
    return f"{item.kind} {item.key} {item.description}".rstrip()
