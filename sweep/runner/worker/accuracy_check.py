"""Check the outputs of the session that was timed against the reference."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sweep import models
from sweep.analysis import accuracy, accuracy_gates
from sweep.backends import SupportsStreamOutputs
from sweep.loadgen import issue_loops, load_point
from sweep.models import evaluation
from sweep.runner.worker import artifacts, model_files, plan_import, scoring
from sweep.runner.worker.expected_accuracy import (
    FURTHER_DRAWS,
    draws_random_numbers,
    expected_accuracy,
    fits_tf32_again,
)
from sweep.runner.worker.reference import compared_outputs, reference_outputs, reference_score, runner
from sweep.system import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np

    from sweep.backends import Backend, Session
    from sweep.runner.worker.artifacts import OnnxFiles
    from sweep.runner.worker.compared_inputs import ComparedInputs
    from sweep.runner.worker.events import Events
    from sweep.spec import LoadAxes, Variant
    from sweep.storage import Accuracy, AccuracyFigures, Score
    from sweep.storage.cache import Cache

_MOST_GMACS = 100.0  # of the reference's run over all samples
_HEARTBEAT_S = 1.0  # between two events on how far the scoring is
_BURST_S = 0.2  # on all streams, before the outputs are looked at once more; no longer than a window
_SHORT_BURST_S = 0.002  # of those that follow on a GPU, each with a look
_LOOKS_S = 1.2  # of bursts and looks together
ROUNDED = "emulated: every 16-bit tensor is rounded, arithmetic between them is fp32"
PRUNED = "weights pruned 2:4 by magnitude: speed counts, accuracy means nothing (the reference is pruned too)"


def check_accuracy(
    variant: Variant,
    backend: Backend,
    onnx: OnnxFiles | None,
    inputs: ComparedInputs,
    session: Session,
    cache: Cache,
) -> Accuracy:
    """Compute the errors of what was timed, then of every stream after further bursts.

    Where what was timed hides rounding, the first are those of a run that rounds.

    Args:
        variant: what was timed.
        backend: ran it.
        onnx: its graphs; None for a plan that came without a network.
        inputs: those that were timed; the first of them are the session's last.
        session: the one that was timed.
        cache: keeps the reference outputs.

    Returns:
        ``Record.accuracy`` without the score.
    """
    if onnx is None:
        return _without_reference(variant, backend, session)
    plan, first = variant.engine.plan, session.outputs()
    given = inputs if plan is None else inputs.changed(lambda feeds: plan_import.reference_feeds(variant, feeds))
    first_feeds = given.batches[0]
    first_expected = reference_outputs(variant, onnx.model, first_feeds, cache)
    given, expected = compared_outputs(variant, onnx.model, _affordable(variant, onnx, given, cache), cache)
    inputs = inputs.first(len(given.batches))
    others = [session.infer(feeds) for feeds in inputs.batches[1:]]
    if others:
        session.infer(inputs.batches[0])  # what follows looks at these again
    emulation, timed = artifacts.emulation(variant, backend), inputs.join([first, *others])
    rounded = timed
    if emulation == "outputs":
        rounded = inputs.run(runner(artifacts.emulated_file(variant, onnx.typed, cache)))
    random = draws_random_numbers(variant, onnx.model, first_feeds, cache)
    real = variant.load.samples is not None
    undiagnosed = None if random else accuracy.undiagnosed(expected, given.feeds(), real=real)
    rounds = emulation or artifacts.emulates_native(variant, backend, onnx.typed, cache)
    notes = ([ROUNDED] if rounds else []) + ([PRUNED] if variant.onnx.prune else [])
    names = dict.fromkeys((*models.signature(variant.onnx.model).outputs, *(timed if plan else ())))
    left_out = accuracy.left_out(expected, timed, names)
    without = "no floats, or on one side alone" if plan else "no floats"
    notes += [f"not compared ({without}): {', '.join(left_out)}"] if left_out else []
    notes += [f"draws random numbers ({', '.join(random)}): two runs differ"] if random else []
    notes += [undiagnosed] if undiagnosed else []
    reference = accuracy.TYPED_REFERENCE if onnx.model_is_typed else accuracy.REFERENCE
    compared = accuracy.against(expected, rounded, "; ".join(notes) or None, reference, random)
    if left_out:
        compared["not_compared"] = left_out
    if undiagnosed:
        compared["undiagnosed"] = undiagnosed
    if real:
        compared["samples"] = inputs.samples
    inferences: list[int] = []

    def whole(outputs: Mapping[str, np.ndarray]) -> AccuracyFigures:
        joined = inputs.join([outputs, *others])
        return accuracy.random_outputs(joined, random) if random else accuracy.errors(expected, joined)

    looks = _looks(session, variant.load, _LOOKS_S if backend.on_gpu else 0.0, inferences)
    repeated = accuracy.again(first_expected, first, looks, random, whole=whole if real else None)
    repeated["inferences"] = sum(inferences)
    compared["again"] = repeated
    if accuracy.is_known(compared) and plan is None:  # whose types nothing tells, so that nothing is expected of them
        compared["expected"] = expected_accuracy(variant, onnx, inputs, expected, cache)
        if accuracy_gates.looks_like_tf32(variant.onnx.precision.dtype, compared):
            compared["expected"]["draws"] = FURTHER_DRAWS
            compared["expected"]["tf32_draws"] = fits_tf32_again(variant, onnx.model, session, cache)
    return compared


def _without_reference(variant: Variant, backend: Backend, session: Session) -> Accuracy:
    """Return ``Record.accuracy`` of a plan that came without a network: nothing is compared, and that is said."""
    timed = session.outputs()
    compared = accuracy.without_reference(timed)
    inferences: list[int] = []
    looks = _looks(session, variant.load, _LOOKS_S if backend.on_gpu else 0.0, inferences)
    repeated = accuracy.again(timed, timed, looks, uncompared=compared["unknown"])
    repeated["inferences"] = sum(inferences)
    compared["again"] = repeated
    return compared


def _affordable(variant: Variant, onnx: OnnxFiles, inputs: ComparedInputs, cache: Cache) -> ComparedInputs:
    """Return the first batches, as many as the reference computes in seconds on a few cores; at least one."""
    gmacs = (model_files.model_facts(variant, onnx.model, cache)["gmacs"] or 1.0) * variant.engine.batch
    return inputs.first(max(int(_MOST_GMACS // gmacs) if gmacs else len(inputs.batches), 1))


def _looks(
    session: Session, load: LoadAxes, seconds: float, burst_inferences: list[int]
) -> Iterator[dict[int, dict[str, np.ndarray]]]:
    """Yield the outputs of every stream after each of several bursts; append each burst's count to `burst_inferences`.

    The first burst is the longest. A GPU's kernels may race, once in a hundred inferences: it gets ``seconds``.
    """
    watch = Stopwatch()
    with issue_loops.quiet_interpreter():  # each burst would collect garbage for 10 ms
        while not burst_inferences or watch.seconds() < seconds:
            burst_s = _SHORT_BURST_S if burst_inferences else min(_BURST_S, load.min_s)
            burst_inferences.append(load_point.burst(session, load.depth, burst_s))
            if isinstance(session, SupportsStreamOutputs):
                yield {number: session.outputs_of(number) for number in range(len(session.streams))}
            else:
                yield {0: session.outputs()}


def outputs_under_load(
    session: Session, load: LoadAxes, burst_inferences: list[int]
) -> Iterator[dict[int, dict[str, np.ndarray]]]:
    """Yield the outputs of every stream after one burst; append its count to `burst_inferences`."""
    yield from _looks(session, load, 0.0, burst_inferences)


def heartbeat(events: Events) -> Callable[[int], None]:
    """Return a function that tells, now and then, how many samples are scored.

    A worker that is silent for long is taken for one that hangs.
    """
    last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _HEARTBEAT_S:
            last = time.monotonic()
            events.stage("accuracy", f"{done:,} labelled samples", 1.0)

    return tell


def score_session(
    variant: Variant,
    backend: Backend,
    onnx: OnnxFiles,
    session: Session,
    cache: Cache,
    tell: Callable[[int], None],
) -> Score | None:
    """Score the timed session and fp32; None where samples have no labels.

    Where the session hides rounding, a run that rounds is scored, as in ``check_accuracy``.
    """
    labelled, batch = evaluation.of(variant), variant.engine.batch
    if labelled is None:
        return None
    rounding = artifacts.emulation(variant, backend) == "outputs"
    infer = runner(artifacts.emulated_file(variant, onnx.typed, cache)) if rounding else session.infer
    score = scoring.score(labelled, batch, infer, tell)
    reference = reference_score(variant, onnx.model, labelled, cache, tell)
    return {"score": score, "reference_score": reference, "scored_on": labelled.what}
