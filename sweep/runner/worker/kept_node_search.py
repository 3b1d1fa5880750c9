"""Search for the nodes that a recipe has to keep in float32, each set of them converted, run and judged."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sweep import models, precision, spec
from sweep.analysis import accuracy, accuracy_gates
from sweep.backends import registry
from sweep.errors import ConversionError, SweepError
from sweep.models import evaluation
from sweep.runner.worker import scoring
from sweep.runner.worker.artifact_keys import onnx_cache_key
from sweep.runner.worker.reference import inputs_identity, reference_outputs, reference_score, runner
from sweep.spec import SessionAxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    from sweep.spec import Gates, JsonDict, NodeSearch, Shape, Variant
    from sweep.storage import Accuracy, NodeSearchInfo
    from sweep.storage.cache import Cache

    Feeds = Mapping[str, np.ndarray]
    Infer = Callable[[Feeds], Mapping[str, np.ndarray]]

_REVISION = 1  # part of the cache's key: raise it when the search takes other steps
_EMULATED = "onnxruntime, rounding emulated"
_LET_THROUGH_DB = -100.0  # leaves the decision to the gates that the user set
_RECIPE_FILE = "recipe.onnx"  # what the recipe by itself makes, which the nodes are ranked by
_SCORE_GATES = ("min_score", "max_score_drop")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchInput:
    """Hold what a search works on.

    Attributes:
        variant: its recipe has a search.
        model: the fp32 graph, which outputs are compared with.
        source: that graph after the graph pass, which is converted.
        batches: calibration data.
        name: what errors call the source; None for its own name.
        emulated: the backend hides 16-bit rounding, so that emulated graphs are judged.
    """

    variant: Variant
    model: Path
    source: Path
    batches: Callable[[], Sequence[Feeds]]
    name: str | None
    emulated: bool


def search_and_keep(
    request: SearchInput, cache: Cache, tell: Callable[[str, float], None]
) -> tuple[Variant, NodeSearchInfo]:
    """Search, or take an earlier result from the cache.

    Args:
        request: what to search.
        cache: keeps the result.
        tell: called with what is done now, and the share of the evaluations that is done.

    Returns:
        The variant with the nodes in its ``precision.keep`` and no search, and the record's ``engine.node_search``.

    Raises:
        ConversionError: the recipe by itself cannot be converted, or the network draws random numbers.
    """
    requested, variant = request.variant, _at_one_batch(request.variant)
    request = dataclasses.replace(request, variant=variant)
    feeds = evaluation.feeds(variant, variant.engine.batch)
    labelled = evaluation.of(variant)
    backend = registry.get(variant.backend)
    on_engine = not request.emulated and backend.runs_models and backend.unsupported(variant) is None
    library = [variant.backend, backend.facts(), spec.projection(variant.engine)] if on_engine else []
    key = spec.digest(
        "node search",
        _REVISION,
        onnx_cache_key(variant),
        *inputs_identity(variant, request.model, feeds),
        None if labelled is None else labelled.identity,
        *library,
    )

    def build(folder: Path) -> JsonDict:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            return _Trials(request, feeds, cache, Path(place), on_engine=on_engine).search(tell)

    info = cache.get("costs", key, build, {"model": variant.onnx.model.name, "precision": "node search"}).info
    facts = {**info, "recipe": _recipe_name(variant, key) if info["reached"] else None}
    recipe = dataclasses.replace(variant.onnx.precision, keep=tuple(info["keep"]) or None, search=None)
    onnx = dataclasses.replace(variant.onnx, precision=recipe)
    return dataclasses.replace(requested, onnx=onnx), cast("NodeSearchInfo", facts)


def _at_one_batch(variant: Variant) -> Variant:
    """Return `variant` at the batch that the nodes are searched at: one for all batches of a range profile."""
    profile = variant.engine.profile
    if profile is None:
        return variant
    return dataclasses.replace(variant, engine=dataclasses.replace(variant.engine, batch=profile.best))


def _recipe_name(variant: Variant, key: str) -> str:
    """Return a name for the recipe that is a word in Hydra's grammar and in a file's name."""
    words = (variant.onnx.model.name, variant.onnx.precision.name, "kept", key[:6])
    return "_".join(re.sub(r"[^A-Za-z0-9]+", "_", word).strip("_") for word in words)


class _Trials:
    """Convert, run and judge sets of nodes.

    Args:
        request: what is searched.
        feeds: the inputs that the variant is judged on, by name.
        cache: keeps the reference.
        place: scratch folder.
        on_engine: the backend's own engine runs, not the emulation.
    """

    def __init__(self, request: SearchInput, feeds: Feeds, cache: Cache, place: Path, *, on_engine: bool) -> None:
        self._request = request
        self._variant = request.variant
        self._recipe = request.variant.onnx.precision
        self._feeds = feeds
        self._cache = cache
        self._place = place
        self._on_engine = on_engine
        self._batches = request.batches()
        self._ranges = precision.Ranges()
        self._expected = reference_outputs(self._variant, request.model, feeds, cache)
        self._count = 0

    def search(self, tell: Callable[[str, float], None]) -> JsonDict:
        """Search; return the record's table without the name of the recipe."""
        self._refuse_random()
        search = cast("NodeSearch", self._recipe.search)

        def judge(nodes: tuple[str, ...]) -> precision.Judgement:
            done = self._count / search.evaluations
            tell(f"search: {len(nodes)} nodes in fp32, evaluation {self._count + 1}", done)
            return self._judge(nodes, search.gates)

        found = precision.fewest_nodes(self._rank, judge, search.evaluations)
        return {
            "gates": accuracy_gates.limits(search.gates),
            "reached": found.last.reached,
            "nodes": list(found.nodes),
            "keep": list(self._keep(found.nodes)),
            "evaluations": found.evaluations,
            "exhausted": found.exhausted,
            "judged_on": self._variant.backend if self._on_engine else _EMULATED,
            "before": found.first.details,
            "after": found.last.details,
        }

    def _refuse_random(self) -> None:
        drawn = precision.random_ops(self._request.model)
        infer = runner(self._request.model) if drawn else None
        if infer is not None and not accuracy.identical(infer(self._feeds), infer(self._feeds)):
            raise ConversionError(
                f"precision.search: the network draws random numbers ({', '.join(drawn)}), so that no conversion can "
                "be judged; leave precision.search out"
            )

    def _keep(self, nodes: Sequence[str]) -> tuple[str, ...]:
        """Return ``precision.keep`` with these nodes."""
        patterns = precision.exact_patterns(nodes, self._request.source)
        return tuple(dict.fromkeys((*(self._recipe.keep or ()), *patterns)))

    def _rank(self) -> list[str]:
        errors = precision.measure_layer_errors(
            self._request.source, self._place / _RECIPE_FILE, self._recipe, self._feeds
        )
        on_gpu = registry.get(self._variant.backend).on_gpu  # whose kernels may err where the emulation does not
        return precision.ranked_nodes(errors, exact=self._on_engine and on_gpu)

    def _judge(self, nodes: tuple[str, ...], gates: Gates) -> precision.Judgement:
        """Judge the recipe with these nodes in float32; a fault of the recipe by itself is raised."""
        self._count += 1
        recipe = dataclasses.replace(self._recipe, keep=self._keep(nodes) or None, search=None)
        with tempfile.TemporaryDirectory(dir=self._place) as folder:
            typed = Path(folder, "typed.onnx") if nodes else self._place / _RECIPE_FILE
            try:
                precision.convert(
                    self._request.source, recipe, self._batches, typed, self._request.name, ranges=self._ranges
                )
            except ConversionError:
                if not nodes:
                    raise
                return precision.Judgement(reached=False, refused=True)
            try:
                figures = self._figures(typed, Path(folder), gates)
            except SweepError:
                if not nodes:
                    raise
                return precision.Judgement(reached=False)
        return precision.Judgement(
            reached=_fault(recipe.dtype, figures, gates) is None,
            nearness=_nearness(figures, gates),
            details={name: value for name, value in figures.items() if name not in {"reference", "note"}},
        )

    def _figures(self, typed: Path, folder: Path, gates: Gates) -> Accuracy:
        with self._runner(typed, folder) as infer:
            figures = accuracy.against(self._expected, infer(self._feeds))
            if any(getattr(gates, name) is not None for name in _SCORE_GATES):
                return cast("Accuracy", {**figures, **self._score(infer)})  # mypy combines no two tables
        return figures

    def _score(self, infer: Infer) -> JsonDict:
        labelled = evaluation.of(self._variant)
        if labelled is None:
            return {}
        score = scoring.score(labelled, self._variant.engine.batch, infer)
        reference = reference_score(self._variant, self._request.model, labelled, self._cache, lambda _done: None)
        return {"score": score, "reference_score": reference, "scored_on": labelled.what}

    @contextlib.contextmanager
    def _runner(self, typed: Path, folder: Path) -> Iterator[Infer]:
        """Open a function that runs a typed graph: the backend's own engine where it runs, else the emulation."""
        if not self._on_engine:
            emulated = folder / "emulated.onnx"
            precision.emulate(typed, emulated)
            yield runner(emulated)
            return
        backend, variant = registry.get(self._variant.backend), self._variant
        engine_axes = dataclasses.replace(variant.engine, profiles=None)  # it runs at one shape
        variant = dataclasses.replace(variant, engine=engine_axes, session=SessionAxes())
        inputs = models.signature(variant.onnx.model).inputs

        def shapes(batch: int, _: Shape | None = None, /) -> dict[str, tuple[int, ...]]:
            return {item.name: item.concrete(batch) for item in inputs}

        engine = folder / "engine"
        engine.mkdir()
        info = backend.build(typed, variant, shapes, engine)
        session = backend.load(engine, info, variant, self._feeds)
        try:
            yield session.infer
        finally:
            session.close()


def _fault(dtype: str, figures: Accuracy, gates: Gates) -> accuracy_gates.Fault | None:
    if gates.min_sqnr_db is None:
        gates = dataclasses.replace(gates, min_sqnr_db=_LET_THROUGH_DB)
    return accuracy_gates.fault(dtype, figures, gates)


def _nearness(figures: Accuracy, gates: Gates) -> tuple[float, ...]:
    """Return how near the figures are to the gates: the figure of the strictest kind of gate, then the SQNR."""
    if accuracy.unknown_reason(figures):
        return ()
    level = accuracy.level(figures)
    if gates.min_score is not None or gates.max_score_drop is not None:
        return (figures.get("score", 0.0), level)
    if gates.min_top1 is not None:
        return (figures.get("top1_agreement") or 0.0, level)
    return (level,)
