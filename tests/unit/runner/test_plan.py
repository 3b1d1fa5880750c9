"""Order, duplicates, refusals and the time it will take: all before anything runs."""

import dataclasses
import itertools

import factories
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep import spec
from sweep.errors import ConfigError
from sweep.runner import plan, time_estimate
from sweep.spec import LoadAxes


def variant(dtype="fp32", batch=1, backend="onnxruntime", load=None, **session):
    load = load or LoadAxes(fractions=(0.5, 0.9))
    return factories.variant(precision=dtype, backend=backend, batch=batch, load=load, **session)


variants = st.builds(
    variant, dtype=st.sampled_from(["fp32", "fp16", "bf16"]), batch=st.integers(1, 3), streams=st.integers(1, 3)
)


@given(st.lists(variants, max_size=20))
def test_engines_stay_together_and_nothing_is_lost(asked) -> None:
    made = plan.make(asked)
    groups = [key for key, _ in itertools.groupby(work.engine_key for work in made.works)]
    assert len(groups) == len(set(groups))
    assert {work.variant for work in made.works} == set(asked)
    assert len(made.works) + len(made.duplicates) == len(asked)
    for key in groups:
        within = [work.variant for work in made.works if work.engine_key == key]
        assert within == sorted(within, key=asked.index)
    assert sum(map(len, made.engines.values())) == len(made.runnable)


def test_duplicates_are_named_once_per_extra_time() -> None:
    made = plan.make([variant(batch=2), variant(), variant(batch=2), variant(batch=2)])
    assert made.duplicates == ("tiny_cnn fp32 b2 s1", "tiny_cnn fp32 b2 s1")
    assert [work.variant.engine.batch for work in made.works] == [2, 1]


def test_the_same_file_elsewhere_is_a_duplicate_and_another_load_is_not() -> None:
    here = variant()
    model = dataclasses.replace(here.onnx.model, path="/elsewhere/a.onnx")
    there = dataclasses.replace(here, onnx=dataclasses.replace(here.onnx, model=model))
    calmer = dataclasses.replace(here, load=LoadAxes(kind="closed"))
    made = plan.make([here, there, calmer])
    assert len(made.duplicates) == 1
    assert [work.key for work in made.works] == [spec.variant_key(here), spec.variant_key(calmer)]
    assert len(made.engines) == 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (variant(mps=50), ("onnxruntime", "mps=50")),
        (variant(cuda_graph=True), ("onnxruntime", "cuda_graph=True")),
        (variant("tf32"), ("onnxruntime", "precision=tf32", "fp16")),
    ],
)
def test_what_cannot_run_here_says_why(asked, words) -> None:
    made = plan.make([asked, variant()])
    work = next(work for work in made.works if work.variant == asked)
    assert all(word in work.unsupported for word in words)
    assert [work.variant for work in made.runnable] == [variant()]
    assert len(made.engines) == 1


def test_an_axis_at_its_default_is_never_unsupported() -> None:
    others = [variant(dtype) for dtype in ("bf16", "fp8")]
    assert len(plan.make(others).runnable) == len(others)
    assert plan.make([variant(), variant("int8", batch=8, streams=4, intra_op_threads=2)]).runnable


def test_an_unknown_backend_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="there are: auto, onnxruntime"):
        plan.make([variant(backend="abacus")])


times = st.floats(0.01, 100, allow_nan=False)
loads = st.builds(
    lambda points, warmup_s, min_s, more_s, repeats: LoadAxes(
        fractions=tuple(0.1 * (1 + number) for number in range(points)),
        warmup_s=warmup_s,
        min_s=min_s,
        max_s=min_s + more_s,
        repeats=repeats,
    ),
    st.integers(1, 9),
    times,
    times,
    times,
    st.integers(1, 4),
)


def predicted(*found):
    return time_estimate.predicted_s(plan.make(found).works)


@given(loads)
def test_prediction_is_a_range_and_grows_with_every_axis_of_the_load(load) -> None:
    low, high = predicted(variant(load=load))
    assert 0 < low <= high
    for change in (
        {"fractions": (*load.fractions, 2.0)},
        {"min_s": load.min_s * 1.1, "max_s": load.max_s * 1.1},
        {"repeats": load.repeats + 1},
        {"builds": 2},
        {"warmup_s": load.warmup_s + 1},
    ):
        more = predicted(variant(load=dataclasses.replace(load, **change)))
        assert more[0] > low
        assert more[1] > high


@given(loads)
def test_prediction_covers_the_measured_windows(load) -> None:
    low, high = predicted(variant(load=load))
    points = 1 + len(load.fractions)
    assert low >= load.repeats * points * load.min_s
    assert high >= load.repeats * load.max_s


def test_prediction_counts_an_engine_once_and_simulated_time_not_at_all() -> None:
    alone = predicted(variant(batch=1))
    shared = predicted(variant(batch=1), variant(batch=1, streams=2))
    apart = predicted(variant(batch=1), variant(batch=2))
    assert alone[0] < shared[0] < apart[0]
    assert alone[1] < shared[1] < apart[1]
    slow = LoadAxes(kind="closed", min_s=1000.0, max_s=1000.0)
    assert predicted(variant(backend="simulated", load=slow))[1] < 60
    assert time_estimate.predicted_s([]) == (0, 0)


@pytest.mark.parametrize(
    ("load", "points"),
    [
        (LoadAxes(kind="closed"), 1),
        (LoadAxes(kind="poisson", rates_ips=(1.0, 2.0)), 2),
        (LoadAxes(kind="curve", fractions=(0.5,)), 2),
    ],
)
def test_prediction_knows_the_points_of_each_kind(load, points) -> None:
    fixed = predicted(variant(load=LoadAxes(kind="poisson", rates_ips=())))[0]
    assert predicted(variant(load=load))[0] - fixed == pytest.approx(points * (load.warmup_s + load.min_s))


@pytest.mark.parametrize(
    ("passes", "every", "runs"),
    [(0, 8, 0), (5, 0, 0), (1, 8, 2), (8, 8, 2), (9, 8, 3), (16, 8, 3), (17, 8, 4), (3, 1, 4)],
)
def test_the_sentinel_runs_before_in_between_and_after(passes, every, runs) -> None:
    assert plan.sentinel_runs(passes, every) == runs


def test_prediction_counts_the_sentinel_and_little_of_it() -> None:
    works = plan.make([variant(batch=batch) for batch in range(1, 9)]).works
    without, watched = (
        time_estimate.predicted_s(works),
        time_estimate.predicted_s(works, sentinels=plan.sentinel_runs(8, 8)),
    )
    assert without[0] + 2 * 0.8 <= watched[0] < without[0] * 1.1
    assert without[1] < watched[1] < without[1] * 1.2
    simulated = plan.make([variant(backend="simulated", batch=batch) for batch in (1, 2)]).works
    assert time_estimate.predicted_s(simulated, sentinels=2)[0] < time_estimate.predicted_s(simulated)[0] + 1


def test_every_round_of_repeats_is_in_a_random_order_of_its_own_and_single_passes_keep_theirs() -> None:
    asked = [
        variant(batch=batch, streams=streams, load=LoadAxes(repeats=2, builds=2))
        for batch in range(1, 9)
        for streams in (1, 2)
    ]
    works = plan.make(asked).works
    ordered = plan.passes(works, 0)
    assert ordered == plan.passes(works, 0)
    rounds = [[work for work, repeat in ordered if repeat == number] for number in range(4)]
    assert len(ordered) == 4 * len(works)
    for order in rounds:
        assert set(order) == set(works)
        assert order != list(works)
        assert len(list(itertools.groupby(order, key=lambda work: work.engine_key))) == 8
    assert len({tuple(work.key for work in order) for order in rounds}) == 4
    assert rounds[0] != [work for work, repeat in plan.passes(works, 1) if repeat == 0]
    single = plan.make(variant(batch=batch) for batch in (3, 1, 2)).works
    assert [work for work, _ in plan.passes(single, 0)] == list(single)


def test_the_sentinel_is_the_first_that_can_run_and_needs_a_second_to_compare() -> None:
    assert plan.make([variant()]).sentinel is None
    assert plan.make([variant(mps=50), variant()]).sentinel is None
    watched = plan.make([variant(mps=50), variant(batch=2), variant(batch=3)]).sentinel
    assert watched
    assert watched.variant.engine.batch == 2
    assert watched.key not in {spec.variant_key(variant(batch=2)), spec.variant_key(variant(batch=3))}
