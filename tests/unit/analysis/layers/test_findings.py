"""Each rule on a graph that has its one fault, and none on a clean one; costs are the layers' own times."""

import re
from collections.abc import Callable

import pytest
from layer_profiles import SIDE, ProfileAuthor, listed

from sweep import spec
from sweep.analysis.layers import RULES, Finding, analyse


def findings(author: ProfileAuthor, **more: object) -> list[Finding]:
    return analyse(author.profile(**more)).findings


def layer_norm(g: ProfileAuthor, x: str) -> list[str]:
    """A layer norm in primitives, with a cast to fp32 as exporters write it; gives the outputs of its nodes."""
    wide = g.op("Cast", x, dtype="fp32")
    mean = g.op("ReduceMean", wide, shape=(SIDE, 1))
    centred = g.op("Sub", wide, mean)
    square = g.op("Pow", centred, g.const((), "fp32"))
    variance = g.op("ReduceMean", square, shape=(SIDE, 1))
    root = g.op("Sqrt", g.op("Add", variance, g.const((), "fp32")))
    unit = g.op("Cast", g.op("Div", centred, root), dtype="fp16")
    scaled = g.op("Add", g.op("Mul", unit, g.const((SIDE,))), g.const((SIDE,)))
    assert scaled
    return [node["outputs"][0] for node in g.nodes[-10:]]


def gelu(g: ProfileAuthor, x: str) -> list[str]:
    erf = g.op("Erf", g.op("Div", x, g.const()))
    return [g.op("Mul", g.op("Mul", x, g.op("Add", erf, g.const())), g.const())]


def tanh_gelu(g: ProfileAuthor, x: str) -> list[str]:
    cube = g.op("Mul", g.op("Pow", x, g.const()), g.const())
    tanh = g.op("Tanh", g.op("Mul", g.op("Add", x, cube), g.const()))
    return [g.op("Mul", g.op("Mul", x, g.op("Add", tanh, g.const())), g.const())]


def attention(g: ProfileAuthor) -> tuple[str, list[str], str]:
    """Give the outputs of the first product, of what stands between, and of the last product."""
    keys, mask = g.tensor("keys", (SIDE, SIDE)), g.tensor("mask", (1, SIDE))
    scores = g.op("MatMul", "x", keys)
    scaled = g.op("Mul", scores, g.const())
    masked = g.op("Add", scaled, mask)
    soft = g.op("Softmax", masked)
    return scores, [scaled, masked, soft], g.op("MatMul", soft, "x")


def added_layer(g: ProfileAuthor) -> None:
    g.layer(us=30, added="reformat", name="reformat_0", inputs=[listed("a", (8, 4))],
            outputs=[listed("b", (8, 4), "fp32")])  # fmt: skip


def unaligned(g: ProfileAuthor) -> None:
    g.product(g.product("x", 1001, us=20), us=30)


def unaligned_for_sparsity(g: ProfileAuthor) -> None:
    y = g.op("MatMul", "x", g.const((SIDE, 1000)), shape=(SIDE, 1000))
    g.layer(y, us=50, kind="gemm", tactic="sm90_xmma_sparse_gemm_f16")


def padded_by_the_builder(g: ProfileAuthor) -> None:
    image = g.op("Cast", g.tensor("image", (8, 3, 224, 224), "fp32"), dtype="fp16")
    y = g.op("Conv", image, g.const((64, 3, 7, 7)), shape=(8, 64, 112, 112))
    g.layer(image, y, us=20, name="__myl_CastConc_myl0_0", outputs=[listed("padded", (8, 4, 224, 224))])
    g.layer(y, us=30, kind="correlation", inputs=[listed("padded", (8, 4, 224, 224))],
            constants=[listed("w", (64, 4, 7, 7))])  # fmt: skip


def transpose_pair(g: ProfileAuthor) -> None:
    y = g.op("Transpose", g.op("Relu", g.op("Transpose", "x", perm=[1, 0])), perm=[1, 0])
    g.each(us=20)
    assert y


def transposes_of_both_branches(g: ProfileAuthor) -> None:
    other = g.op("Transpose", g.tensor("other", (SIDE, SIDE)), perm=[1, 0])
    g.op("Transpose", g.op("Add", g.op("Transpose", "x", perm=[1, 0]), other), perm=[1, 0])
    g.each(us=15)


def redundant_cast(g: ProfileAuthor) -> None:
    g.op("Cast", g.op("Cast", "x", dtype="fp32"), dtype="fp16")
    g.each(us=20)


def cast_to_its_own_type(g: ProfileAuthor) -> None:
    g.op("Cast", "x", dtype="fp16")
    g.each(us=40)


def requantised(g: ProfileAuthor) -> None:
    q = g.tensor("q", (SIDE, SIDE), "int8")
    g.op("QuantizeLinear", g.op("DequantizeLinear", q, g.const(), dtype="fp16"), g.const(), dtype="int8")
    g.each(us=20)


def quantised_in_vain(g: ProfileAuthor) -> None:
    q = g.op("QuantizeLinear", "x", g.const(), dtype="int8")
    g.layer(q, us=10)
    weights = g.op("DequantizeLinear", g.tensor("wq", (SIDE, SIDE), "int8", constant=True), g.const(), dtype="fp16")
    g.layer(g.op("MatMul", g.op("DequantizeLinear", q, g.const(), dtype="fp16"), weights), us=30, kind="gemm")
    g.each(us=5)


def quantisers_alone(g: ProfileAuthor) -> None:
    g.op("QuantizeLinear", "x", g.const(), dtype="int8")
    g.op("DequantizeLinear", g.tensor("q", (SIDE, SIDE), "int8"), g.const(), dtype="fp16")
    g.each(us=20)


def stayed_fp32(g: ProfileAuthor) -> None:
    g.op("Erf", g.tensor("wide", (SIDE, SIDE), "fp32"))
    g.each(us=40)


def unfused_norm(g: ProfileAuthor) -> None:
    nodes = layer_norm(g, "x")
    g.layer(*nodes[:3], us=30, inputs=[listed("x", (SIDE, SIDE))], outputs=[listed("y", (SIDE, SIDE))])
    g.layer(*nodes[3:], us=40, inputs=[listed("y", (SIDE, SIDE))], outputs=[listed("z", (SIDE, SIDE))])


def unfused_gelu(g: ProfileAuthor) -> None:
    gelu(g, "x")
    g.each(us=10)


def unfused_tanh_gelu(g: ProfileAuthor) -> None:
    tanh_gelu(g, "x")
    g.each(us=10)


def unfused_attention(g: ProfileAuthor) -> None:
    scores, between, context = attention(g)
    g.layer(scores, us=100)
    g.layer(*between, us=20)
    g.layer(context, us=100)


def attention_with_softmax_in_primitives(g: ProfileAuthor) -> None:
    scores = g.op("MatMul", "x", g.tensor("keys", (SIDE, SIDE)))
    shifted = g.op("Sub", scores, g.op("ReduceMax", scores, shape=(SIDE, 1)))
    powers = g.op("Exp", shifted)
    total = g.op("ReduceSum", powers, shape=(SIDE, 1))
    soft = g.op("Div", powers, total)
    context = g.op("MatMul", soft, "x")
    g.layer(scores, us=100)
    g.layer(shifted, powers, us=10)
    g.layer(total, soft, us=15)
    g.layer(context, us=100)


def convolution(g: ProfileAuthor) -> str:
    image = g.tensor("image", (8, 64, 28, 28))
    return g.op("Conv", image, g.const((64, 64, 3, 3)), kernel_shape=[3, 3])


def quantised_beside_its_convolution(g: ProfileAuthor) -> None:
    """As TensorRT-RTX builds int8: the convolution writes fp32; another layer scales, adds the bias and quantises."""
    image = g.tensor("image", (8, 64, 28, 28), "int8")
    data = g.op("DequantizeLinear", image, g.const(), dtype="fp16")
    y = g.op("Conv", data, g.const((64, 64, 3, 3)))
    relu = g.op("Relu", y)
    q = g.op("QuantizeLinear", relu, g.const(), dtype="int8")
    g.layer(data, y, us=200, kind="correlation", inputs=[listed("a", (8, 64, 28, 28), "int8")],
            constants=[listed("w", (64, 64, 3, 3), "int8"), listed("scale", (64,), "fp32")])  # fmt: skip
    g.layer(y, relu, q, us=40, name="__myl_MulAddReluMulMinMaxRounCast_myl0_2")


def unfused_convolution(g: ProfileAuthor) -> None:
    y = convolution(g)
    norm = g.op("BatchNormalization", y, *(g.const((64,)) for _ in range(4)))
    act = g.op("Relu", norm)
    g.layer(y, us=200, kind="correlation")
    g.layer(norm, act, us=40)


def unfused_chain(g: ProfileAuthor) -> None:
    g.op("Mul", g.op("Sigmoid", "x"), g.const((SIDE,)))
    g.each(us=20)


def launch_bound(g: ProfileAuthor) -> None:
    x = g.tensor("small", (64, 64))
    for _ in range(80):
        x = g.product(x, 64, us=4)


def dominant_layer(g: ProfileAuthor) -> None:
    g.product("x", us=1100)


def gemm_share(g: ProfileAuthor) -> None:
    g.op("LayerNormalization", "x", g.const((SIDE,)))
    g.each(us=200)


Fault = Callable[[ProfileAuthor], None]
FAULTS: tuple[tuple[str, Fault, float, float | None], ...] = (
    # rule, graph that has its fault, cost and saving, us
    ("added_layer", added_layer, 30, 30),
    ("unaligned", unaligned, 50, None),
    ("unaligned", unaligned_for_sparsity, 50, None),
    ("unaligned", padded_by_the_builder, 50, 20),
    ("transpose_pair", transpose_pair, 40, 40),
    ("transpose_pair", transposes_of_both_branches, 45, 45),
    ("redundant_cast", redundant_cast, 40, 40),
    ("redundant_cast", cast_to_its_own_type, 40, 40),
    ("requantised", requantised, 40, 40),
    ("quantised_in_vain", quantised_in_vain, 50, pytest.approx(35, abs=0.1)),
    ("quantisers_alone", quantisers_alone, 40, 40),
    ("stayed_fp32", stayed_fp32, 40, 20),
    ("unfused_norm", unfused_norm, 70, 30),
    ("unfused_gelu", unfused_gelu, 50, 40),
    ("unfused_gelu", unfused_tanh_gelu, 80, 70),
    ("unfused_attention", unfused_attention, 220, 20),
    ("unfused_attention", attention_with_softmax_in_primitives, 225, 25),
    ("unfused_epilogue", unfused_convolution, 40, 40),
    ("unfused_epilogue", quantised_beside_its_convolution, 40, 40),
    ("unfused_chain", unfused_chain, 40, 20),
    ("launch_bound", launch_bound, 320, None),
    ("dominant_layer", dominant_layer, 1100, None),
    ("gemm_share", gemm_share, 200, pytest.approx(200 - 1000 / 9)),
)


@pytest.mark.parametrize(("kind", "fault", "cost_us", "saving_us"), FAULTS)
def test_a_graph_with_one_fault_has_its_one_finding(
    kind: str, fault: Fault, cost_us: float, saving_us: float | None
) -> None:
    g = ProfileAuthor()
    fault(g)
    faulty = {layer["name"] for layer in g.layers}
    g.products()
    found = findings(g)
    assert [finding.kind for finding in found] == [kind]
    assert (found[0].cost_us, found[0].saving_us) == (cost_us, saving_us)
    assert set(found[0].layers) <= faulty
    assert set(found[0].nodes) <= {node["name"] for node in g.nodes}
    assert found[0].share == pytest.approx(cost_us / g.profile()["timed_us"])


def test_time_between_the_layers_is_a_finding_without_layers() -> None:
    g = ProfileAuthor()
    g.products()
    found = findings(g, timed_us=1250.0)
    assert [(f.kind, f.cost_us, f.saving_us, f.layers) for f in found] == [("gaps", 250, 250, ())]
    assert "cuda_graph=true" in found[0].advice
    assert "streams" in findings(g, timed_us=1250.0, cuda_graph=True)[0].advice


def test_every_rule_has_a_graph_with_its_fault() -> None:
    assert {kind for kind, *_ in FAULTS} | {"gaps"} == set(RULES)


def test_advice_names_keys_that_exist() -> None:
    keys = {*spec.keyed(), "precision"}
    words = [word for rule in RULES.values() for word in re.findall(r"`([^`]+)`", rule.advice)]
    assert words
    assert [word for word in words if word.partition("=")[0] not in keys] == []


def clean(g: ProfileAuthor) -> None:
    """All groups fused, transposes and casts within layers that compute, and a Q/DQ pair inside a product."""
    g.layer(*layer_norm(g, "x"), us=20, inputs=[listed("x", (SIDE, SIDE))], outputs=[listed("z", (SIDE, SIDE))])
    y = g.op("MatMul", "x", g.const((SIDE, SIDE)))
    first = len(g.nodes)
    gelu(g, y)
    g.layer(y, *(node["outputs"][0] for node in g.nodes[first:]), us=300, kind="runtime_fusion")
    q = g.op("DequantizeLinear", g.tensor("q", (SIDE, SIDE), "int8"), g.const(), dtype="fp16")
    w = g.op("DequantizeLinear", g.tensor("wq", (SIDE, SIDE), "int8", constant=True), g.const(), dtype="fp16")
    g.layer(q, w, g.op("MatMul", q, w), us=300, kind="gemm")
    y = convolution(g)
    norm = g.op("BatchNormalization", y, *(g.const((64,)) for _ in range(4)))
    g.layer(y, norm, g.op("Relu", norm), us=300, kind="correlation")
    g.op("Transpose", g.op("Relu", g.op("Transpose", "x", perm=[1, 0])), perm=[1, 0])
    g.layer(*(node["outputs"][0] for node in g.nodes[-3:]), us=20)
    g.layer(g.op("Transpose", "x", perm=[1, 0]), us=20)  # nothing undoes it
    g.layer(g.op("Cast", "x", dtype="fp32"), us=20)  # needed
    scores, between, context = attention(g)
    g.layer(scores, *between, context, us=300, name="_gemm_mha_v2")


def test_a_clean_graph_has_no_finding() -> None:
    g = ProfileAuthor()
    clean(g)
    assert findings(g) == []


def test_what_is_small_is_listed_on_request() -> None:
    g = ProfileAuthor()
    g.layer(us=5, added="copy")
    g.products()
    assert findings(g) == []
    every = analyse(g.profile(), every=True).findings
    assert [(f.kind, f.small) for f in every] == [("added_layer", True)]
    assert [f.small for f in analyse(g.profile(), threshold=0.001).findings] == [False]


def test_dimensions_launches_and_gaps_are_those_of_a_gpu() -> None:
    g = ProfileAuthor("fp32")
    g.product("x", 1001, us=30)
    launch_bound(g)
    g.products()
    assert findings(g, source="onnxruntime", device="a CPU", timed_us=5000.0) == []


def test_a_variant_of_fp32_has_no_node_that_stayed() -> None:
    g = ProfileAuthor()
    stayed_fp32(g)
    g.products()
    assert findings(g, precision="fp32") == []
    assert [f.kind for f in findings(g, precision="mine")] == ["stayed_fp32"]  # the graph has fp16


def test_several_of_a_kind_are_one_finding() -> None:
    g = ProfileAuthor()
    for fault in (transpose_pair, transpose_pair):
        fault(g)
    g.products(us=500)
    (finding,) = findings(g)
    assert (finding.title, finding.cost_us) == ("2 transposes that undo an earlier one", 80)
    assert "Transpose0 to Transpose2, Transpose3 to Transpose5" in finding.explanation


def test_a_transpose_that_others_read_stays() -> None:
    g = ProfileAuthor()
    turned = g.op("Transpose", "x", perm=[1, 0])
    g.op("Transpose", turned, perm=[1, 0])
    g.op("LayerNormalization", turned)
    g.each(us=20)
    g.products()
    (finding,) = findings(g)
    assert (finding.kind, finding.cost_us) == ("transpose_pair", 20)  # the second alone can go
