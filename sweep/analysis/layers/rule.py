"""Define a rule that finds lost time, and what it sees of a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis.layers.graph import is_product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sweep.analysis.layers.graph import Graph
    from sweep.analysis.layers.peaks import Peaks
    from sweep.analysis.layers.types import LayerRow, Totals
    from sweep.storage import LayerProfile

GUIDE = "NVIDIA TensorRT documentation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Hold what a rule found; the finding adds what the rule says of all of its kind.

    Attributes:
        title: one line.
        places: places of the layers that it is about.
        nodes: names of the nodes that it is about.
        cost_us: time of these layers, us.
        saving_us: time that may be saved, us; None where it cannot be told.
        explanation: what was seen.
        advice: what to try; None for the rule's own.
    """

    title: str
    places: Sequence[int]
    nodes: Sequence[str]
    cost_us: float
    saving_us: float | None
    explanation: str
    advice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Describe one kind of finding.

    Attributes:
        kind: its name.
        title: what is wrong, in a few words.
        meaning: when it is found and what it means.
        advice: what to try.
        source: section of the document that it follows.
        detect: finds it in a profile.
    """

    kind: str
    title: str
    meaning: str
    advice: str
    source: str
    detect: Callable[[Seen], Iterable[Draft]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Hold what a rule sees.

    Attributes:
        graph: the graph of the profile.
        rows: its layers.
        totals: figures of the engine.
        peaks: peaks of the device; None where they are not known.
    """

    graph: Graph
    rows: Sequence[LayerRow]
    totals: Totals
    peaks: Peaks | None

    @property
    def profile(self) -> LayerProfile:
        """Return the profile."""
        return self.graph.profile

    @property
    def on_gpu(self) -> bool:
        """Return whether kernels of a GPU were timed."""
        return self.profile["source"] != "onnxruntime"

    def time_us(self, places: Iterable[int]) -> float:
        """Return the time of some layers, us."""
        return sum(self.rows[place].time_us or 0.0 for place in set(places))

    def timed(self, names: Iterable[str]) -> list[int]:
        """Return the places of the timed layers that compute any of these nodes."""
        return [place for place in self.graph.layers(names) if self.rows[place].time_us]

    def without_products(self, places: Iterable[int]) -> list[int]:
        """Return those of some layers to which no matrix product counts."""
        return [place for place in places if not any(is_product(op) for op in self.owned_ops(place))]

    def owned_ops(self, place: int) -> list[str]:
        """Return the operators of the nodes whose work counts to a layer."""
        graph = self.graph
        return [graph.op(name) for name in self.rows[place].nodes if place in graph.owners.get(name, [])]


def removable(
    seen: Seen, groups: Sequence[tuple[Sequence[int], Sequence[str]]], title: str, why: str
) -> Iterator[Draft]:
    """Draft one finding of all groups of layers that can go; none without a group.

    Args:
        seen: the profile.
        groups: places of the layers of each, and the nodes that it is about.
        title: title of the finding.
        why: why they can go; the first ones are named behind it.
    """
    if groups:
        places = sorted(
            {place for group, _ in groups for place in group}, key=lambda at: -(seen.rows[at].time_us or 0.0)
        )
        cost = seen.time_us(places)
        yield Draft(
            title=title,
            places=places,
            nodes=list(dict.fromkeys(name for _, names in groups for name in names)),
            cost_us=cost,
            saving_us=cost,
            explanation=f"{why}: {some([_from_to(names) for _, names in groups])}.",
        )


def _from_to(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun, as in ``1 layer`` and ``3 layers``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """List the first names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
