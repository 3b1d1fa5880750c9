"""Make the load axes from `load`, `batching`, `seed` and `repeats`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sweep.config.variants import axis_values, checks
from sweep.errors import ConfigError
from sweep.loadgen import arrival_processes, arrival_trace, load_curve, rate_ladder
from sweep.spec import LoadAxes

if TYPE_CHECKING:
    from sweep.config.schema import Config, LoadConfig


def load_axes(config: Config) -> LoadAxes:
    """Return the load axes, without labels and samples.

    Raises:
        ConfigError: a value is out of its range, or two contradict each other; one line.
    """
    load, values = config.load, axis_values.checked(config, "load")
    if load.kind not in load_curve.KINDS:
        raise ConfigError(f"load.kind={load.kind}: no such kind; there are: {', '.join(load_curve.KINDS)}")
    if load.arrivals not in arrival_processes.PROCESSES:
        raise ConfigError(
            f"load.arrivals={load.arrivals}: no such kind; there are: {', '.join(arrival_processes.PROCESSES)}"
        )
    if load.max_s < load.min_s:
        raise ConfigError(f"load.max_s={load.max_s:g} is shorter than load.min_s={load.min_s:g}")
    if load.kind in arrival_processes.PROCESSES and not load.rates_ips:
        raise ConfigError(f"load.kind={load.kind} needs load.rates_ips, as in 'load.rates_ips=[100,200]'")
    if load.kind == "curve" and not load.fractions:
        checks.at_least(rate_ladder.MIN_RUNGS, rate_ladder.MAX_RUNGS, **{"load.points": load.points})
    if load.shapes is not None and _batch_wait_ms(config) is not None:
        raise ConfigError("batching.max_wait_ms gathers requests of one shape; leave it or load.shapes out")
    derived = {
        "fractions": tuple(sorted(load.fractions)) if load.kind == "curve" else (),
        "rates_ips": tuple(sorted(load.rates_ips)) if load.kind in arrival_processes.PROCESSES else (),
        "batch_wait_ms": _batch_wait_ms(config),
        "trace": None,
        "trace_scale": None,
        "points": load.points if load.kind == "curve" and not load.fractions else None,
        "budget_s": _budget_s(load, config.repeats, config.builds),
        "labels": None,
        "shapes": None,
        "buckets": None,
        "samples": None,
    } | _trace(load, config.timeout_s)
    return LoadAxes(**values | derived)


def _batch_wait_ms(config: Config) -> float | None:
    """Return the longest wait of server batching, ms, or None where there is nothing to gather.

    At batch 1 one sample is a full batch, and a closed loop has no arrivals.
    """
    wait_ms: float | None = config.batching.max_wait_ms
    # `batch` is read last, and seldom: what it decides is made anew for each of its values (`StageCache`).
    return None if wait_ms is None or config.load.kind == "closed" or config.batch == 1 else wait_ms


def _trace(load: LoadConfig, timeout_s: float) -> dict[str, Any]:
    """Return the axes of an arrival trace; {} for another kind of load."""
    if load.kind != arrival_trace.KIND:
        return {}
    return arrival_trace.axes(load.trace, load.trace_scale or 1.0, timeout_s)


def _budget_s(load: LoadConfig, repeats: int, builds: int | None) -> float | None:
    """Return the time for all passes of a variant, s, checked to be enough for its warm-ups; None for a closed loop."""
    budget_s: float | None = load.budget_s
    if budget_s is None or load.kind == "closed":
        return None
    points = 1 + (len(load.rates_ips) or len(load.fractions) or load.points)
    least = repeats * (builds or 1) * (2 * points * load.warmup_s + load.min_s)
    if not least <= budget_s < math.inf:
        raise ConfigError(
            f"load.budget_s={budget_s:g}: {points} points with load.warmup_s={load.warmup_s:g} "
            f"and repeats={repeats}{f', builds={builds}' if builds else ''} need {least:g} or more"
        )
    return budget_s
