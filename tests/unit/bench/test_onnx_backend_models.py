"""A slice of the onnx package's own test models: each runs, or is refused in one line with a cause."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import onnx
import onnx_backend_models as bench
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from pathlib import Path

RUN = [
    *("test_abs", "test_add_bcast", "test_argmax_default_axis_example", "test_averagepool_2d_default"),
    *("test_clip_example", "test_concat_2d_axis_1", "test_constant_pad", "test_convtranspose"),
    *("test_gather_0", "test_gemm_all_attributes"),
    *("test_instancenorm_example", "test_isnan", "test_layer_normalization_2d_axis0", "test_loop11"),
    *("test_lstm_defaults", "test_matmul_3d", "test_maxpool_2d_ceil", "test_pow"),
    *("test_reduce_max_keepdims_random", "test_slice"),
    *("test_where_example", "test_tile", "test_softmax_example"),
]
REFUSED = {
    **dict.fromkeys(
        (
            "test_cumsum_1d",
            "test_eyelike_with_dtype",
            "test_if",
            "test_identity",
            "test_nonzero_example",
            "test_reshape_extended_dims",
            "test_if_seq",
            "test_shape",
            "test_xor2d",
            "test_transpose_default",
        ),
        "no node of",
    ),
    "test_identity_sequence": "only tensors can be fed",
    "test_strnormalizer_export_monday_casesensintive_lower": "is of type STRING",
    "test_cast_FLOAT8E4M3FN_to_FLOAT": "is of type FLOAT8E4M3FN",
    "test_sequence_insert_at_back": "only tensors can be fed",
    "test_scatternd_add": "is not supported with ScatterND",
}


def test_each_runs_or_is_refused_with_its_cause(tmp_path: Path) -> None:
    """In one test, for the package computes all of its examples before it gives one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = {case.name: case for case in bench.cases() if case.name in {*RUN, *REFUSED}}
    outcomes = {}
    for name in (*RUN, *REFUSED):
        (tmp_path / name).mkdir()
        outcomes[name] = bench.outcome(cases[name], tmp_path / name)
    assert {name: outcomes[name] for name in RUN} == dict.fromkeys(RUN, bench.Outcome("ran"))
    assert {name: outcomes[name].kind for name in REFUSED} == dict.fromkeys(REFUSED, "refused")
    assert [name for name, cause in REFUSED.items() if cause not in outcomes[name].line] == []


def test_the_cause_is_not_behind_a_path_of_onnxruntimes_source(tmp_path: Path) -> None:
    """A file of a later IR version than this onnxruntime reads."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=onnx.IR_VERSION)
    model.ir_version = 99
    outcome = bench.outcome(bench.Case("late", model, []), tmp_path)
    assert outcome.kind == "refused"
    assert "99" in outcome.line
    assert "/onnxruntime_src/" not in outcome.line
