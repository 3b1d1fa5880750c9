"""``make cache``: what the cache holds, against its limit; ``prune`` makes room. What is in use stays."""

from __future__ import annotations

import argparse
import datetime as dt
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich import box
from rich.markup import escape
from rich.table import Table

from sweep.cli.console import Terminal
from sweep.errors import CacheError
from sweep.storage.cache import DEFAULT_GIB, GIB, eviction, inventory, pins
from sweep.system import file_trust

if TYPE_CHECKING:
    from rich.console import Console

    from sweep.storage.cache.eviction import Pruned
    from sweep.storage.cache.inventory import Item

_KINDS = ("models", "onnx", inventory.ENGINES, "references", inventory.RUNTIME)
_MIB = 1 << 20
_DAY_NS = 86_400 * 10**9
_LOG_WIDTH = 160  # of a pipe or file, where nothing says how wide it is


class _Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (-h shows what there is)\n")


def main(argv: list[str] | None = None) -> int:
    """Show or prune.

    Returns:
        0; 1 when what nobody uses could not be removed; 2 after one line on stderr when
        what was asked makes no sense.
    """
    file_trust.restrict()
    args = _arguments(argv)
    root = args.results / "cache"
    if not args.results.is_dir():
        return _refuse(f"{args.results} is not there: name the results folder")
    if not root.is_dir():
        print(f"nothing is cached below {args.results}")  # noqa: T201 - a command's answer
        return 0
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    try:
        if args.command != "prune":
            _show(console, root)
            return 0
        done = _prune(root, args)
    except CacheError as error:
        return _refuse(str(error))
    _say(console, done)
    return 1 if done.failed else 0


def _prune(root: Path, args: argparse.Namespace) -> Pruned:
    if args.older_than_days is not None:
        return eviction.older_than(root, time.time_ns() - int(args.older_than_days * _DAY_NS), args.kind)
    if args.all:
        return eviction.to_bytes(root, 0, args.kind)
    limit = _limit_bytes(root) if args.to_gib is None else int(args.to_gib * GIB)
    return eviction.to_bytes(root, limit, args.kind)


def _limit_bytes(root: Path) -> int:
    """The limit of the last sweep that built something here, or the default."""
    return inventory.kept_limit(root) or int(DEFAULT_GIB * GIB)


def _show(console: Console, root: Path) -> None:
    found, users = inventory.items(root), pins.in_use(root)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("kind", "key", "what"):
        table.add_column(name, overflow="fold")
    table.add_column("MiB", justify="right")
    table.add_column("last used", no_wrap=True)
    table.add_column("in use by", overflow="fold")
    for item in reversed(found):
        table.add_row(*map(escape, _row(item, users.get(item.owner))))
    console.print(table)
    total, limit = sum(item.bytes for item in found), _limit_bytes(root)
    console.print(
        f"total {_amount_of(total)} in {len(found)}, of at most {limit / GIB:g} GiB (cache_gib)", highlight=False
    )
    scraps = sum(inventory.size(path) for _, _, path in inventory.remains(root))
    if scraps:
        console.print(f"besides, {_amount_of(scraps)} are being built, or were when their process was killed")


def _row(item: Item, user: str | None) -> tuple[str, ...]:
    used = dt.datetime.fromtimestamp(item.used_ns / 1e9, dt.UTC).astimezone()
    what = "shared by builds; never pruned" if item.kind == inventory.TIMING else item.what
    size = f"{item.bytes / _MIB:.2f}"
    return item.kind, item.key, what or "-", size, f"{used:%Y-%m-%d %H:%M}", user or "-"


def _say(console: Console, done: Pruned) -> None:
    lines = [f"removed  {_name(item)}" for item in done.evicted]
    lines += [f"kept     {_name(item)}: in use by {user}" for item, user in done.kept]
    lines += [f"failed   {_name(item)}: {reason}" for item, reason in done.failed]
    freed = sum(item.bytes for item in done.evicted) + done.remains_bytes
    lines.append(f"{len(done.evicted)} removed, {len(done.kept)} in use, {_amount_of(freed)} freed")
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)


def _amount_of(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / _MIB:.2f} MiB"


def _name(item: Item) -> str:
    return f"{item.kind} {item.key} {item.what}".rstrip()


def _refuse(line: str) -> int:
    print(f"python -m sweep.storage.cache: {line}", file=sys.stderr)  # noqa: T201 - a command's answer
    return 2


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m sweep.storage.cache", description=__doc__)
    parser.add_argument("results", type=Path, help="the results folder")
    commands = parser.add_subparsers(dest="command", metavar="prune", parser_class=_Parser)
    pruning = commands.add_parser("prune", help="least recently used goes first; without options, down to the limit")
    how = pruning.add_mutually_exclusive_group()
    how.add_argument("--to-gib", type=_amount, metavar="GIB", help="until all that is cached takes no more than this")
    how.add_argument("--older-than-days", type=_amount, metavar="DAYS", help="what was not used for so long")
    how.add_argument("--all", action="store_true", help="everything that is not in use")
    pruning.add_argument("--kind", action="append", choices=_KINDS, default=[], help="only these; may be given again")
    return parser.parse_args(argv)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or more")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
