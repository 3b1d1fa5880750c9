"""Keys are an interface: a changed golden key is a decision, not an accident."""

import dataclasses
import json

import factories
import pytest

from sweep import spec
from sweep.spec import EngineAxes, LoadAxes, ModelRef, Script, SessionAxes, Variant
from sweep.system import serialization


def variant(**changes):
    int8 = factories.recipe("int8", quantize_ops=("Conv",), calibration_batches=2)
    made = factories.variant(ModelRef(name="tiny_cnn", revision=1), int8, batch=8, streams=2, fractions=(0.5, 1.0))
    return dataclasses.replace(made, **changes)


def test_golden_keys() -> None:
    assert spec.onnx_key(variant()) == "686cc6da235e4f0e"
    assert spec.engine_key(variant()) == "c9f66cc4923f83f5"
    assert spec.variant_key(variant()) == "8bc91e94259c7739"


@pytest.mark.parametrize(
    "change",
    [
        {"session": SessionAxes(streams=4)},
        {"session": SessionAxes(streams=2, mps=50)},
        {"session": SessionAxes(streams=2, cuda_graph=True)},
        {"load": LoadAxes(kind="closed")},
    ],
)
def test_session_and_load_axes_never_rebuild(change) -> None:
    assert spec.engine_key(variant(**change)) == spec.engine_key(variant())
    assert spec.variant_key(variant(**change)) != spec.variant_key(variant())


def test_each_class_invalidates_its_stage() -> None:
    bigger = variant(engine=EngineAxes(batch=16))
    assert spec.onnx_key(bigger) == spec.onnx_key(variant())
    assert spec.engine_key(bigger) != spec.engine_key(variant())


def test_unset_knobs_and_paths_stay_out_of_the_key() -> None:
    model = variant().onnx.model
    moved = dataclasses.replace(model, path="/elsewhere/model.onnx")
    onnx = dataclasses.replace(variant().onnx, model=moved)
    assert spec.variant_key(variant(onnx=onnx)) == spec.variant_key(variant())
    assert "mps" not in spec.projection(variant().session)


def test_label_names_only_what_is_set() -> None:
    assert variant().label == "tiny_cnn int8 b8 s2"
    full = variant(session=SessionAxes(streams=1, clients=2, mps=50, cuda_graph=True))
    assert full.label == "tiny_cnn int8 b8 s1 c2 mps50 graph"


def test_knobs_left_alone_are_in_no_key_and_no_label() -> None:
    knobs = EngineAxes(batch=8, builder_optimization_level=2, tiling="fast", sparsity="enable", workspace_mib=64)
    set_ = variant(engine=knobs, session=SessionAxes(streams=2, transfers=False, wait="block"))
    assert set_.label == "tiny_cnn int8 b8 s2 opt2 tiling-fast sparsity-enable workspace64 wait-block transfers-off"
    assert spec.engine_key(set_) != spec.engine_key(variant())
    assert spec.engine_key(variant(session=set_.session)) == spec.engine_key(variant())
    assert not {"tiling", "transfers", "wait"} & {
        *spec.projection(variant().engine),
        *spec.projection(variant().session),
    }


def test_flat_holds_every_axis() -> None:
    flat = spec.flat(variant())
    names = {item.name for kind in (EngineAxes, SessionAxes) for item in dataclasses.fields(kind)}
    assert names <= set(flat)
    assert flat["seed"] == 0
    assert flat["repeats"] == 1
    assert {item.name for item in dataclasses.fields(LoadAxes)} == {*flat["load"], "seed", "repeats"}


def test_a_variant_survives_the_trip_through_json() -> None:
    there = variant(session=SessionAxes(script=Script(raise_at="build")))
    assert serialization.from_plain(Variant, json.loads(json.dumps(serialization.to_plain(there)))) == there
