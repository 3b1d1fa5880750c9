"""Find time by how it is divided: launches, gaps, one dominant layer, and the share of matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.analysis.layers.rule import GUIDE, Draft, Rule, some
from sweep.analysis.layers.types import GEMM_GOAL, PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.analysis.layers.rule import Seen

LAUNCH_SHARE = 0.2
"""Share of the layers' time in layers bound by their launch above which it is a finding."""
GAP_SHARE = 0.1
"""Share of an inference between layers above which it is a finding."""
DOMINANT = 0.5
"""Share of the layers' time above which one layer dominates."""
_FEW = 4
_MENTIONED = 0.005


def _launches(seen: Seen) -> Iterator[Draft]:
    places = [row.index for row in seen.rows if row.bound == "launch" and row.time_us]
    cost = seen.time_us(places)
    if not places or cost < LAUNCH_SHARE * seen.totals.layers_us:
        return
    timed = sum(row.time_us is not None for row in seen.rows)
    yield Draft(
        title=f"{len(places)} of {timed} layers are too short to fill the GPU",
        places=places,
        nodes=[name for place in places for name in seen.rows[place].nodes],
        cost_us=cost,
        saving_us=None,
        explanation=f"They take less than 5 us each and reach neither roof: starting and ending them takes "
        f"{cost / seen.totals.layers_us:.0%} of the layers' time.",
    )


def _gaps(seen: Seen) -> Iterator[Draft]:
    totals = seen.totals
    if not seen.on_gpu or not totals.layers_us or totals.rest_us < GAP_SHARE * totals.timed_us:
        return
    graph = seen.profile["cuda_graph"]
    yield Draft(
        title=f"{totals.rest_us:,.0f} us of an inference lie between its layers",
        places=(),
        nodes=(),
        cost_us=totals.rest_us,
        saving_us=None if graph else totals.rest_us,
        explanation=f"The layers take {totals.layers_us:,.0f} of {totals.timed_us:,.0f} us; the rest is "
        f"{totals.rest_name}.",
        advice="A larger `batch`, or `streams=2,4` to fill the gaps with other requests." if graph else None,
    )


def _dominant(seen: Seen) -> Iterator[Draft]:
    timed = [row for row in seen.rows if row.time_us]
    if len(timed) < _FEW:
        return
    longest = max(timed, key=lambda row: row.time_us or 0.0)
    if longest.share is None or longest.share < DOMINANT:
        return
    yield Draft(
        title=f"{longest.name} takes {longest.share:.0%} of the layers' time",
        places=[longest.index],
        nodes=longest.nodes,
        cost_us=longest.time_us or 0.0,
        saving_us=None,
        explanation=f"{_bound_text(longest.bound)}. What is gained elsewhere hardly shows.",
    )


def _bound_text(bound: str) -> str:
    texts = {
        "compute": "It is bound by compute: a narrower type helps",
        "memory": "It is bound by memory: fewer bytes help, by a narrower type or by fusion with its neighbours",
        "launch": "It is bound by its launch: a larger batch helps",
    }
    return texts.get(bound, "What bounds it is not known, for the peaks of this device are not")


def _named(seen: Seen, place: int) -> str:
    """Return a layer by the first of its nodes, which a reader knows; by its own name without any."""
    row = seen.rows[place]
    return row.nodes[0] if row.nodes else row.name


def _gemm_share(seen: Seen) -> Iterator[Draft]:
    share = seen.totals.gemm_share
    if not share or share >= GEMM_GOAL:
        return
    places = [row.index for row in seen.rows if row.time_us and row.category not in PRODUCTS]
    places.sort(key=lambda place: -(seen.rows[place].time_us or 0.0))
    cost, products = seen.time_us(places), share * seen.totals.layers_us
    others = [
        f"{name} {time / seen.totals.layers_us:.0%}"
        for name, time in seen.totals.category_us.items()
        if name not in PRODUCTS and time >= _MENTIONED * seen.totals.layers_us
    ]
    yield Draft(
        title=f"matrix products take {share:.0%} of the layers' time, not {GEMM_GOAL:.0%}",
        places=places,
        nodes=(),
        cost_us=cost,
        saving_us=cost - products * (1 - GEMM_GOAL) / GEMM_GOAL,
        explanation=f"The others: {some(others, 4)}. The longest: {some([_named(seen, at) for at in places])}.",
    )


TIME_RULES = (
    Rule(
        kind="launch_bound",
        title="Layers too short to fill the GPU",
        meaning="A fifth or more of the layers' time is in layers below 5 us that reach neither the compute nor the "
        "memory roof: their kernels take as long as any kernel takes.",
        advice="A larger `batch`; `cuda_graph=true`; fewer and larger layers (the findings on fusion).",
        source=f"{GUIDE}, Enqueue-Bound Workloads and CUDA Graphs",
        detect=_launches,
    ),
    Rule(
        kind="gaps",
        title="Time between the layers",
        meaning="A tenth or more of an inference passes while no layer runs: the host launches kernels more slowly "
        "than the GPU ends them.",
        advice="`cuda_graph=true` launches them all at once.",
        source=f"{GUIDE}, Enqueue-Bound Workloads and CUDA Graphs",
        detect=_gaps,
    ),
    Rule(
        kind="dominant_layer",
        title="One layer dominates",
        meaning="Half of the layers' time or more is in one of at least four layers.",
        advice="Look at this layer alone: `precision`, `batch`, its dimensions and its neighbours.",
        source=f"{GUIDE}, Optimizing Layer Performance",
        detect=_dominant,
    ),
    Rule(
        kind="gemm_share",
        title="Matrix products take less than 90% of the time",
        meaning="Matrix products, convolutions and attention take less than 90% of the layers' time: the rest moves or "
        "maps data, which Tensor Cores do not help.",
        advice="Mend the findings on fusion and layout first; a narrower type moves fewer bytes.",
        source=f"{GUIDE}, Optimizing TensorRT Performance",
        detect=_gemm_share,
    ),
)
