"""Records are joined by what they measured, and what is not comparable has its reason."""

import dataclasses

import pytest
from measured_runs import record

from sweep.report.compare.join import join
from sweep.spec import ModelRef


def single(old, new):
    pairs = join([old], [new])
    assert len(pairs) == 1, pairs
    return pairs[0]


def test_a_key_that_a_version_changed_joins_all_the_same() -> None:
    pair = single(dataclasses.replace(record(), key="0123456789abcdef"), record())
    assert pair.old is not None
    assert pair.old.key == "0123456789abcdef"
    assert pair.obstacle is None


def test_an_axis_that_an_earlier_version_lacked_joins_at_its_default() -> None:
    old = record()
    early = {name: value for name, value in old.variant.items() if name not in {"cuda_graph", "wait", "tiling"}}
    assert single(dataclasses.replace(old, key="x", variant=early), record()).obstacle is None
    captured = record(axes={"cuda_graph": True})
    assert [pair.obstacle for pair in join([captured], [record()])] == [None, None]  # two variants, not a pair


@pytest.mark.parametrize(
    "axes", [{"min_s": 3.0}, {"repeats": 5}, {"seed": 7}, {"warmup_s": 0.1, "max_s": 30.0}, {"builds": 2}]
)
def test_how_long_a_load_is_measured_is_no_other_load(axes) -> None:
    pair = single(record(), record(axes=axes))
    assert pair.old is not None
    assert pair.obstacle is None


def test_two_variants_that_differ_in_nothing_else_are_joined_one_by_one() -> None:
    """A sweep over load.min_s: the weaker rule would have a choice."""
    olds = [record(axes={"min_s": 1.0}), record(axes={"min_s": 3.0})]
    news = [record(axes={"min_s": 3.0}), record(axes={"min_s": 1.0})]
    pairs = join(olds, news)
    assert [(pair.old.key, pair.new.key) for pair in pairs] == [(item.key, item.key) for item in news]


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        ({"axes": {"depth": 4}}, "other load: load.depth 2 -> 4"),
        ({"axes": {"batch_wait_ms": 2.0}}, "other load: batching.max_wait_ms null -> 2"),
        ({"facts": {"gpu": "NVIDIA A100"}}, "other GPU: NVIDIA H200 -> NVIDIA A100"),
        ({"facts": {"cpu": "EPYC", "driver": "580"}}, None),  # the engine runs on the GPU
        ({"facts": {"gpu": None}}, None),
    ],
)
def test_another_load_or_device_is_an_obstacle(change, obstacle) -> None:
    assert single(record(), record(**change)).obstacle == obstacle


def test_the_device_of_a_host_backend_is_its_cpu() -> None:
    on_host = {"backend": "onnxruntime"}
    old, new = (record(axes=on_host, facts={"cpu": cpu}) for cpu in ("Xeon", "EPYC"))
    assert single(old, new).obstacle == "other CPU: Xeon -> EPYC"
    assert single(old, record(axes=on_host, facts={"gpu": "other"})).obstacle is None


def test_another_network_of_one_name_is_an_obstacle() -> None:
    old, new = (
        record(axes={"model": ModelRef(name="net", path="/net.onnx", digest=digest)}) for digest in ("aaaa", "bbbb")
    )
    assert single(old, new).obstacle == "other network or precision: model_ref.digest aaaa -> bbbb"


def test_the_latest_record_of_a_variant_counts_and_the_rest_is_on_one_side_alone() -> None:
    early, late = record(), record(started_at="2026-02-01T00:00:00+00:00", key="late")
    pairs = join([early, late, record(2)], [record(), record(4)])
    assert [(pair.old and pair.old.key, pair.new and pair.new.key) for pair in pairs] == [
        ("late", record().key),
        (None, record(4).key),
        (record(2).key, None),
    ]


def test_a_damaged_variant_is_joined_by_its_key() -> None:
    broken = dataclasses.replace(record(), variant={"label": "x", "load": 3, "precision_recipe": []})
    assert single(broken, broken).obstacle is None
