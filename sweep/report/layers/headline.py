"""Word the difference between two engines in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.report.layers.wording import us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.report.layers.difference import Cause

OUTSIDE = "outside the layers"
SAME = 0.02  # share by which two times differ at least to be called different
_MOST_CAUSES, _ENOUGH = 3, 0.9  # causes in the headline, and the share of the difference that is enough


def headline(causes: Sequence[Cause], a_us: float, b_us: float, names: tuple[str, str], *, per_sample: bool) -> str:
    """Say in one sentence which side is slower, and what explains most of it.

    Args:
        causes: where time differs, the largest first.
        a_us: time of an inference of A, us; of a sample if `per_sample`.
        b_us: that of B.
        names: what the sides are called.
        per_sample: the times are those of a sample.
    """
    a, b = names
    unit = " a sample" if per_sample else ""
    change = b_us - a_us
    times = f"{us(b_us)} against {us(a_us)}{unit}"
    if a_us <= 0 or b_us <= 0:
        return f"{b} takes {times}."
    if abs(change) < SAME * a_us:
        faster = [cause for cause in causes if cause.change_us < -SAME * a_us][:1]
        slower = [cause for cause in causes if cause.change_us > SAME * a_us][:1]
        moved = [
            f"{us(abs(cause.change_us))} {'more' if cause.change_us > 0 else 'less'} {_place(cause)}"
            for cause in (*slower, *faster)
        ]
        return f"{b} takes as long as {a} ({times})" + (f"; within it, {', '.join(moved)}." if moved else ".")
    word, factor = ("slower", b_us / a_us) if change > 0 else ("faster", a_us / b_us)
    total = abs(change)
    along, against = ([cause for cause in causes if sign * cause.change_us > SAME * total] for sign in _signs(change))
    shown: list[Cause] = []
    for cause in along[:_MOST_CAUSES]:
        if sum(abs(item.change_us) for item in shown) < _ENOUGH * total:
            shown.append(cause)
    more, less = ("more", "less") if change > 0 else ("less", "more")
    text = f"{b} is {_factor(factor)} times {word} than {a} ({times})"
    if not shown:
        return f"{text}; no kind of layer explains it."
    if sum(abs(cause.change_us) for cause in shown) > (1 + SAME) * total and against:
        parts = [f"{us(abs(cause.change_us))} {more} {_place(cause)}" for cause in shown]
        parts += [f"{us(abs(cause.change_us))} {less} {_place(cause)}" for cause in against[:1]]
        return f"{text}: {', '.join(parts)}."
    parts = [f"{us(abs(cause.change_us))} are {_place(cause)}" for cause in shown]
    return f"{text}: of the {us(total)} {more}, {', '.join(parts)}."


def _signs(change: float) -> tuple[int, int]:
    return (1, -1) if change > 0 else (-1, 1)


def _place(cause: Cause) -> str:
    """Word where time goes: ``in 42 quantise/dequantise layers that A does not have``."""
    if cause.layers == 0:
        return f"{OUTSIDE} ({us(cause.b_us)} against {us(cause.a_us)})"
    number = f"in {cause.layers} {cause.what} layer{'s' if cause.layers > 1 else ''}"
    if cause.presence != "both":
        other = "A" if cause.presence == "B" else "B"
        return f"{number} that {other} {'fuses into others' if cause.fused else 'does not have'}"
    types = f", {cause.types[1]} against {cause.types[0]}" if cause.types else ""
    return f"{number} ({_factor(cause.b_us / cause.a_us)} times the time{types})" if cause.a_us > 0 else number


def _factor(value: float) -> str:
    return f"{value:.1f}" if value >= 1.1 else f"{value:.2g}" if value < 1 else f"{value:.2f}"  # noqa: PLR2004
