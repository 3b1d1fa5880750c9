"""Axes of the load."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sweep.config.variants import axis_values, checks
from sweep.errors import ConfigError
from sweep.loadgen import arrival_processes, arrival_trace, load_curve, rate_ladder
from sweep.spec import LoadAxes

if TYPE_CHECKING:
    from sweep.config.schema import Config, LoadConfig


def load_axes(asked: Config) -> LoadAxes:
    """Return how the session is driven."""
    config, values = asked.load, axis_values.checked(asked, "load")
    if config.kind not in load_curve.KINDS:
        raise ConfigError(f"load.kind={config.kind}: no such kind; there are: {', '.join(load_curve.KINDS)}")
    if config.arrivals not in arrival_processes.PROCESSES:
        raise ConfigError(
            f"load.arrivals={config.arrivals}: no such kind; there are: {', '.join(arrival_processes.PROCESSES)}"
        )
    if config.max_s < config.min_s:
        raise ConfigError(f"load.max_s={config.max_s:g} is shorter than load.min_s={config.min_s:g}")
    if config.kind in arrival_processes.PROCESSES and not config.rates_ips:
        raise ConfigError(f"load.kind={config.kind} needs load.rates_ips, as in 'load.rates_ips=[100,200]'")
    if config.kind == "curve" and not config.fractions:
        checks.at_least(rate_ladder.MIN_RUNGS, **{"load.points": config.points})
    derived = {
        "fractions": tuple(sorted(config.fractions)) if config.kind == "curve" else (),
        "rates_ips": tuple(sorted(config.rates_ips)) if config.kind in arrival_processes.PROCESSES else (),
        "batch_wait_ms": _batch_wait_ms(asked),
        "trace": None,
        "trace_scale": None,
        "points": config.points if config.kind == "curve" and not config.fractions else None,
        "budget_s": _budget_s(config, asked.repeats),
        "labels": None,
    } | _trace(config, asked.timeout_s)
    return LoadAxes(**values | derived)


def _batch_wait_ms(asked: Config) -> float | None:
    """None also where there is nothing to gather: one sample is a full batch, and a closed loop has no arrivals."""
    wait_ms: float | None = asked.batching.max_wait_ms
    return None if asked.batch == 1 or asked.load.kind == "closed" else wait_ms


def _trace(config: LoadConfig, timeout_s: float) -> dict[str, Any]:
    """The axes of a trace; none where another kind of load is asked for."""
    if config.kind != arrival_trace.KIND:
        return {}
    return arrival_trace.axes(config.trace, config.trace_scale or 1.0, timeout_s)


def _budget_s(config: LoadConfig, repeats: int) -> float | None:
    """``load.budget_s``, once it is seen to be enough for the warm-ups; a closed loop alone has none."""
    budget_s: float | None = config.budget_s
    if budget_s is None or config.kind == "closed":
        return None
    points = 1 + (len(config.rates_ips) or len(config.fractions) or config.points)
    least = repeats * (2 * points * config.warmup_s + config.min_s)
    if not least <= budget_s < math.inf:
        raise ConfigError(
            f"load.budget_s={budget_s:g}: {points} points with load.warmup_s={config.warmup_s:g} "
            f"and repeats={repeats} need {least:g} or more"
        )
    return budget_s
