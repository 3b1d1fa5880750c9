"""Print the plan of a sweep: variants by shared engine, duplicates, predicted time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.markup import escape

from sweep.cli.console import print_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sweep.runner import Plan, Work

_SHOWN_AT_MOST = 60  # rows of a plan
_DUPLICATES_SHOWN = 10
_MINUTE_S = 60


def print_plan(
    console: Console,
    plan: Plan,
    todo: Sequence[Work],
    predicted_s: tuple[float, float],
    searches: Sequence[Work] = (),
) -> None:
    """Print the variants by shared engine, duplicates, unsupported variants with the reason, and the predicted time.

    Args:
        console: where to print.
        plan: plan of the sweep.
        todo: work without a valid record.
        predicted_s: shortest and longest predicted duration, s.
        searches: work whose capacity is to be searched.
    """
    rows = []
    todo_keys, searched_keys = {work.key for work in todo}, {work.key for work in searches}
    for work in plan.works[:_SHOWN_AT_MOST]:
        state = "to measure" if work.key in todo_keys else "measured already"
        state += ", then its capacity" if work.key in searched_keys else ""
        state = f"unsupported: {work.unsupported}" if work.unsupported else state
        rows.append((work.engine_key[:8], work.label, work.key, state))
    print_rows(console, ("engine", "variant", "record", "state"), rows)
    if len(plan.works) > _SHOWN_AT_MOST:
        console.print(f"... and {len(plan.works) - _SHOWN_AT_MOST} more")
    unsupported = len(plan.works) - len(plan.runnable)
    console.print(
        f"{len(plan.works)} variants, {len(plan.engines)} engines, {len(todo)} to measure, "
        f"{len(plan.duplicates)} duplicates dropped, {unsupported} unsupported here.",
        highlight=False,
    )
    repeated = Counter(plan.duplicates)
    for label, count in list(repeated.items())[:_DUPLICATES_SHOWN]:
        console.print(f"duplicate dropped: {escape(label)} (asked {count + 1} times)", highlight=False)
    if len(repeated) > _DUPLICATES_SHOWN:
        console.print(
            f"... and {len(repeated) - _DUPLICATES_SHOWN} more that were asked more than once", highlight=False
        )
    low, high = predicted_s
    span = _duration(low) if high <= low else f"{_duration(low)} to {_duration(high)}"
    console.print(f"Predicted time: {span}.", highlight=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 2 * _MINUTE_S else f"{seconds / _MINUTE_S:.0f} min"
