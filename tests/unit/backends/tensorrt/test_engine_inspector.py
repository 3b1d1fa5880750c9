"""What an engine computes in, from either version's inspector, and when that is not what was asked."""

import dataclasses
import json
from types import SimpleNamespace

import factories
import pytest

from sweep.backends.tensorrt import engine_inspector
from sweep.backends.tensorrt.library import Library, Log
from sweep.spec import SessionAxes, Variant

TEN = {
    "Layers": [
        {
            "Name": "conv1 + relu1",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
        },
        {
            "Name": "conv2",
            "LayerType": "CaskConvolution",
            "Inputs": [
                {"Name": "y", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"},
                {"Name": "shortcut", "Format/Datatype": "Row major linear FP32 format"},
            ],
        },
        {"Name": "Reformatting", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Row major linear FP32"}]},
    ],
    "Bindings": ["x", "y"],
}
ELEVEN = {
    "Layers": [
        {
            "Name": "__myl_FcAddRelu_myl0_1",
            "LayerType": "kgen",
            "Inputs": [{"Name": "x", "Format": "(Linear) Row major linear format", "Datatype": "BFloat16"}],
            "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: b]",
        },
        {"Name": "_gemm_mha_v2_myl0_2", "LayerType": "kgen", "Inputs": [{"Datatype": "FP8"}, {"Datatype": "Int32"}]},
        {"Name": "__myl_MulAdd_myl0_3", "LayerType": "kgen", "Inputs": [{"Datatype": "Float"}]},
    ],
    "I/O Tensors": [{"Name": "x"}],
}
LISTING = (
    "Layers:\n"
    "Name: __myl_Move_0, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [2,3], Strides: [3,1], "
    "Datatype: Float, Format: (Linear) Row major linear format }], Constants: [], Outputs: [ { Name: y, Dimensions: "
    "[2,3], Datatype: Half, Format: (Linear) }], TacticName: a, b, StreamId: 0, Metadata: \n"
    "Name: stem_1, LayerType: correlation, Inputs: [ { Name: y, Dimensions: [2,3], Datatype: Half, Format: (NHWC) }, "
    "{ Name: z, Dimensions: [1], Datatype: Float, Format: (NHWC) }], Constants: [ { Name: w, Dimensions: [1], "
    "Datatype: Half, Format: (Linear) }], Outputs: [], TacticName: , StreamId: 0, Metadata: [ONNX Layer: stem]\n"
    "Name: s_2, LayerType: signal, Inputs: [], Outputs: [], TacticName: , StreamId: 1, Metadata: \n\n"
    "I/O Tensors:\n Name: x, IOMode: Input\n"
)


def test_both_forms_of_the_inspector_are_read() -> None:
    assert engine_inspector.count_layer_types(TEN) == {"int8": 1, "fp16": 1}
    assert engine_inspector.count_layer_types(ELEVEN) == {"fp8": 1, "bf16": 1}


def test_the_builders_listing_is_brought_to_the_same_form() -> None:
    found = engine_inspector.parse_listing(LISTING)
    assert [layer["Name"] for layer in found["Layers"]] == ["__myl_Move_0", "stem_1", "s_2"]
    assert found["Layers"][1]["Inputs"] == [
        {"Name": "y", "Dimensions": [2, 3], "Datatype": "Half", "Format": "(NHWC)"},
        {"Name": "z", "Dimensions": [1], "Datatype": "Float", "Format": "(NHWC)"},
    ]
    assert found["Layers"][1]["Metadata"] == "[ONNX Layer: stem]"
    assert engine_inspector.count_layer_types(found) == {"fp16": 1}


def test_a_network_without_products_is_judged_by_all_its_layers() -> None:
    layers = [{"Name": "__myl_Add", "LayerType": "kgen", "Inputs": [{"Datatype": "Half"}]}]
    assert engine_inspector.count_layer_types({"Layers": layers}) == {"fp16": 1}
    assert engine_inspector.count_layer_types({"Layers": ["a name alone"]}) == {}


def test_the_evidence_that_tells_more_is_taken() -> None:
    opaque = {"source": "inspector", "Layers": [{"Name": "{ForeignNode}", "LayerType": "Myelin", "Inputs": []}]}
    listed = engine_inspector.parse_listing(LISTING)
    assert engine_inspector.select_best([opaque, listed]) is listed
    assert engine_inspector.select_best([{**TEN, "source": "inspector"}, listed])["source"] == "inspector"
    assert engine_inspector.select_best([opaque]) is opaque
    assert engine_inspector.count_layer_types(engine_inspector.select_best([])) == {}


def test_control_characters_in_the_inspectors_json_are_taken() -> None:
    text = json.dumps(ELEVEN).replace("\\u001e", "\x1e")
    asked = SimpleNamespace(get_engine_information=lambda _: text)
    trt = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON=1))
    engine = SimpleNamespace(create_engine_inspector=lambda: asked)
    found = engine_inspector.inspect_engine(Library("tensorrt", trt, Log(), None), engine)
    assert found["Layers"] == ELEVEN["Layers"]
    assert found["source"] == "inspector"


def variant(name: str, **session) -> Variant:
    return factories.variant(precision=name, backend="tensorrt", **session)


@pytest.mark.parametrize(
    ("dtype", "ran", "words"),
    [
        ("fp16", {"fp16": 2, "fp32": 1}, None),
        ("fp16", {"fp32": 3}, "no layer"),
        ("bf16", {"fp16": 3}, "no layer"),
        ("int8", {"fp32": 3}, "no layer"),
        ("int8", {"int8": 1, "fp32": 1}, None),
        ("fp8", {"int8": 1}, "no layer"),
        ("fp32", {"fp32": 3}, None),
        ("tf32", {"fp32": 3}, None),
        ("fp32", {"fp32": 2, "fp16": 1}, "computes in"),
        ("fp16", {}, "nothing tells"),
        ("int8", {"int8": 3, "fp16": 1}, "beside fp32"),
        ("int8_fp16", {"int8": 3, "fp16": 1, "fp32": 1}, None),
        ("int8_fp16", {"int8": 3, "bf16": 1}, "beside fp16"),
    ],
)
def test_a_type_that_did_not_run_is_a_mismatch(dtype: str, ran: dict[str, int], words: str | None) -> None:
    said = engine_inspector.mismatch(variant(dtype), {"contexts": 1, "cuda_graph": False, "precision": ran})
    assert (said is None) == (words is None)
    assert words is None or (words in said and dtype.split("_", maxsplit=1)[0] in said)


def test_contexts_and_graph_are_held_to_what_was_asked() -> None:
    realised = {"contexts": 2, "cuda_graph": False, "precision": {"fp16": 1}}
    assert engine_inspector.mismatch(variant("fp16", streams=2), realised) is None
    assert "4 streams" in str(engine_inspector.mismatch(variant("fp16", streams=4), realised))
    graph = dataclasses.replace(variant("fp16"), session=SessionAxes(streams=2, cuda_graph=True))
    assert "cuda_graph" in str(engine_inspector.mismatch(graph, realised))
