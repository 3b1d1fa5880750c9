"""The order of passes: an end after the variant in hand, dropped variants, and the last pass of an engine."""

import itertools

from sweep.runner import plan
from sweep.runner.pass_order import PassOrder
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant


def works(repeats=3):
    onnx = OnnxAxes(model=ModelRef(name="mlp", revision=1), precision=Precision(name="fp32", dtype="fp32"))
    return plan.make(
        Variant(
            backend="simulated",
            onnx=onnx,
            engine=EngineAxes(batch=batch),
            session=SessionAxes(streams=streams),
            load=LoadAxes(repeats=repeats),
        )
        for batch, streams in itertools.product((1, 2), (1, 2))
    ).works


def test_all_are_given_in_order_while_nothing_is_to_end() -> None:
    passes = [(work, repeat) for repeat in range(3) for work in works()]
    assert list(PassOrder(lambda: False).through(passes)) == passes
    assert list(PassOrder(lambda: True).through(passes)) == []


def test_an_end_in_a_pass_leaves_its_variant_the_rest_of_its_passes_and_no_other() -> None:
    first, second, *_ = works()
    ending = []
    given = []
    for work, repeat in PassOrder(lambda: bool(ending)).through([(first, 0), (second, 0), (first, 1)]):
        given.append((work, repeat))
        if work is second:
            ending.append(True)
    assert given == [(first, 0), (second, 0), (second, 1), (second, 2)]


def test_an_engine_is_over_with_its_last_pass() -> None:
    order, all_works = PassOrder(lambda: False), works(repeats=2)
    order.add(all_works)
    passes = [(work, repeat) for repeat in range(2) for work in all_works]
    last = [work.engine_key for work, _ in passes if order.finish(work)]
    assert last == [all_works[0].engine_key, all_works[2].engine_key]


def test_a_dropped_variant_is_over() -> None:
    first, second, *_ = works()
    order = PassOrder(lambda: False)
    order.drop(first)
    assert (order.is_dropped(first), order.is_dropped(second)) == (True, False)
