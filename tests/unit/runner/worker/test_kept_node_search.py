"""Networks of which few nodes lose the outputs: these are kept, the recipe repeats it, and what cannot be is told."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
import passes
import pytest
from authored_graphs import Author
from factories import variant
from onnx import TensorProto

from sweep.errors import ConversionError
from sweep.models import file_digest
from sweep.runner.worker import artifacts, kept_node_search, model_files
from sweep.spec import Gates, LoadAxes, ModelRef, NodeSearch, Precision
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.spec import Variant
    from sweep.storage import NodeSearchInfo

INT8 = Precision(name="int8", dtype="int8", quantize_ops=("MatMul",), per_channel=False, calibration_batches=8)
FP16 = Precision(name="fp16", dtype="fp16")
WIDTH = 32
FLOATS = {"x": (TensorProto.FLOAT, ["batch", WIDTH])}


def perceptron(bad: tuple[int, ...]) -> onnx.ModelProto:
    """Five products with Relus; those at ``bad`` have a weight that one scale for the tensor does not survive."""
    g = Author()
    x = "x"
    for layer in range(5):
        weight = g.rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) * np.float32((2 / WIDTH) ** 0.5)
        bias = np.zeros(WIDTH, np.float32)
        if layer in bad:
            weight[:, 0], weight[0, 0] = 0, 1000  # of a channel that is silent
        if layer + 1 in bad:
            bias[0] = -1000
        x = g.op("Relu", g.op("Add", g.op("MatMul", x, g.const(weight)), g.const(bias)))
    return g.model(x, FLOATS, ["batch", WIDTH])


def loud() -> onnx.ModelProto:
    """A Mul beyond fp16's range and the Mul that undoes it, after a product and before another."""
    g = Author()
    x = g.op("Tanh", g.op("MatMul", "x", g.weight(WIDTH, WIDTH)))
    x = g.op("Mul", g.op("Mul", x, g.const(np.float32(1e6))), g.const(np.float32(1e-6)))
    return g.model(g.op("MatMul", x, g.weight(WIDTH, WIDTH)), FLOATS, ["batch", WIDTH])


def of_file(model: onnx.ModelProto, recipe: Precision, folder: Path, **gates: float) -> Variant:
    path = folder / "net.onnx"
    onnx.save(model, path)
    ref = ModelRef(name="net", path=str(path), digest=file_digest(path))
    search = NodeSearch(gates=Gates(**gates))
    load = LoadAxes(kind="closed", warmup_s=0.0, min_s=0.02, min_requests=3, max_s=0.5)
    return variant(ref, dataclasses.replace(recipe, search=search), batch=4, load=load)


def searched(asked: Variant, folder: Path) -> tuple[NodeSearchInfo, Variant, list[str]]:
    """The outcome of a search, the variant with its nodes, and what was told on the way."""
    told: list[str] = []
    with Cache(folder / "cache") as cache:
        model = model_files.model_file(asked, cache)
        request = artifacts._search_input(asked, model, model, cache)
        found, info = kept_node_search.search_and_keep(request, cache, lambda detail, _share: told.append(detail))
        again = kept_node_search.search_and_keep(request, cache, lambda *_: pytest.fail("searched twice"))
        assert again == (found, info)
    return info, found, told


@pytest.mark.parametrize(
    ("network", "recipe", "gates", "nodes"),
    [
        (perceptron((3,)), INT8, {"min_sqnr_db": 20.0}, {"MatMul9"}),
        (perceptron((1, 3)), INT8, {"min_cosine": 0.9}, {"MatMul3", "MatMul9"}),
        (loud(), FP16, {"max_error": 0.01}, {"Mul2", "Mul3"}),
    ],
    ids=["one loses in int8", "two lose in int8", "one overflows fp16, and the next reads it"],
)
def test_exactly_the_nodes_that_lose_the_outputs_stay_in_fp32(
    network: onnx.ModelProto, recipe: Precision, gates: dict[str, float], nodes: set[str], tmp_path: Path
) -> None:
    info, found, told = searched(of_file(network, recipe, tmp_path, **gates), tmp_path)
    assert (info["reached"], set(info["nodes"]), info["exhausted"]) == (True, nodes, False)
    assert info["gates"] == gates
    assert (found.onnx.precision.search, set(found.onnx.precision.keep or ())) == (None, nodes)
    assert len(told) == info["evaluations"] > len(nodes)
    before, after = (figures["sqnr_db"] or 0.0 for figures in (info["before"], info["after"]))
    assert after > before + 15
    assert info["judged_on"] == ("onnxruntime" if recipe is INT8 else "onnxruntime, rounding emulated")


def test_a_recipe_that_does_by_itself_keeps_nothing(tmp_path: Path) -> None:
    info, found, told = searched(of_file(perceptron(()), INT8, tmp_path, min_sqnr_db=10.0), tmp_path)
    assert (info["reached"], info["nodes"], info["evaluations"], len(told)) == (True, [], 1, 1)
    assert info["before"] == info["after"]
    assert found.onnx.precision == INT8


def test_the_record_has_the_search_and_a_gate_out_of_reach_makes_it_invalid(tmp_path: Path) -> None:
    asked = of_file(perceptron((3,)), INT8, tmp_path, min_sqnr_db=200.0)
    found = passes.measured(asked, tmp_path, gates=Gates(min_sqnr_db=200.0))
    info = found["engine"]["node_search"]
    assert (info["reached"], info["recipe"], found["gate"]) == (False, None, "min_sqnr_db")
    assert "MatMul9" in info["nodes"]
    assert len(info["nodes"]) == 4, "with all five nothing is in int8"
    assert info["after"]["sqnr_db"] == pytest.approx(found["accuracy"]["sqnr_db"], abs=0.01)
    (note,) = (text for text in found["realised"]["notes"] if text.startswith("search: "))
    assert note.startswith(
        "search: no set of nodes in fp32 reaches accuracy.min_sqnr_db=200: the nearest, with 4 nodes"
    )
    assert f"{info['after']['sqnr_db']:.1f} dB" in note


def test_a_network_that_draws_random_numbers_is_not_searched(tmp_path: Path) -> None:
    g = Author()
    noise = g.op("RandomNormalLike", "x")
    model = g.model(g.op("MatMul", g.op("Add", "x", noise), g.weight(WIDTH, WIDTH)), FLOATS, ["batch", WIDTH])
    with pytest.raises(
        ConversionError, match=r"draws random numbers \(RandomNormalLike\).*leave precision\.search out"
    ):
        searched(of_file(model, INT8, tmp_path, min_sqnr_db=10.0), tmp_path)


def test_nothing_is_nearer_than_what_can_be_compared() -> None:
    known = {"sqnr_db": 3.0, "max_abs": 1.0, "top1_agreement": 0.5, "score": 0.25}
    unknown = {"sqnr_db": None, "unknown": "2 outputs are not finite", "nonfinite": 2}
    exact = {"sqnr_db": None, "max_abs": 0.0}
    level = Gates(min_sqnr_db=1.0)
    assert kept_node_search._nearness(unknown, level) < kept_node_search._nearness(known, level) == (3.0,)
    assert kept_node_search._nearness(exact, level) == (math.inf,)
    assert kept_node_search._nearness(known, Gates(min_top1=1.0)) == (0.5, 3.0)
    assert kept_node_search._nearness(known, Gates(min_score=1.0, min_top1=1.0)) == (0.25, 3.0)
