"""Every shipped network in every precision, built for real by TensorRT-RTX, which needs no GPU for it.

What the engine computes in is read from the builder's own listing of its layers, every product counted.
"""

import json

import passes
import pytest
import require
from recipes import RECIPES, shipped

from sweep import models
from sweep.backends.tensorrt import engine_inspector
from sweep.backends.tensorrt.backend import TensorRTRTX
from sweep.models.datasets import calibration
from sweep.models.zoo import convnets, transformers
from sweep.runner.worker import artifacts
from sweep.spec import EngineAxes, InputFix, ModelRef, OnnxAxes, Variant
from sweep.storage.cache import Cache

PRODUCTS = {"tiny_cnn": 5, "mlp": 3, "digits": 4, "unet": 15, "mobilenet_v3": 64, "resnet50": 18}
LAYER, OUTSIDE = 5, {"vit_b16": 2, "bert_base": 1}  # transformers: products of a layer, and outside all layers
LAYERS = 1  # of the shipped network's 12: all are alike, and bench_precision builds them all
NO_FP8_STEM = ("resnet50", "vit_b16")  # it has no fp8 kernel of that convolution, and takes it dequantised
STAGES = tuple((1, width) for width in (64, 128, 256, 512))  # of ResNet-50's 3, 4, 6 and 3 blocks a stage
VOCABULARY = 1000  # of BERT's 30,522, which are two thirds of the bytes and no product
FEW = ("fp16", "int8", "fp8_fp16")  # of a slow network; bench_precision has all of all
SLOW = {"mobilenet_v3": ("fp16", "int8"), "resnet50": ("fp16", "int8_bf16", "fp8")}
CASES = [
    *((model, name) for model in PRODUCTS for name in SLOW.get(model, RECIPES)),
    *(("vit_b16", name) for name in ("fp32", "int8_bf16", *FEW)),
    *(("bert_base", name) for name in ("fp16", "fp8_fp16")),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    require.library_for("tensorrt_rtx")
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(("model", "name"), CASES)
def test_every_product_is_computed_in_the_asked_type(
    cache: Cache, model: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "SAMPLES", 1)  # what is built does not hang on the ranges
    monkeypatch.setattr(transformers, "LAYERS", LAYERS)
    monkeypatch.setattr(convnets, "RESNET50_STAGES", STAGES)
    monkeypatch.setattr(transformers, "BERT_VOCABULARY", VOCABULARY)
    tokens = (InputFix(name="input_ids", high=VOCABULARY - 1),) if model == "bert_base" else ()
    network = ModelRef(name=model, revision=models.zoo.entry(model).revision, inputs=tokens)
    asked = Variant(
        backend="tensorrt_rtx",
        onnx=OnnxAxes(model=network, precision=shipped(name)),
        engine=EngineAxes(batch=2),
    )
    backend = TensorRTRTX()
    typed = passes.typed_file(asked, cache)
    entry = artifacts.build_engine(asked, backend, typed, cache)
    precision = asked.onnx.precision
    unfused = precision.dtype in {"fp32", "tf32"}  # attention is two products there; in every other type one kernel
    products = OUTSIDE[model] + (LAYER + unfused) * LAYERS if model in OUTSIDE else PRODUCTS[model]
    expected = {precision.dtype.replace("tf32", "fp32"): products}
    if precision.dtype == "fp8" and model in NO_FP8_STEM:
        expected = {"fp8": products - 1, "fp32": 1}
    assert entry.info["precision"] == expected
    if precision.rest is not None:
        kept = json.loads((entry.path / engine_inspector.FILE).read_text())
        assert sums(kept) == {"Float"}, "an unscaled sum of quantised products overflows fp16"
    held = {"sm_count": 132, "sm_reached": 132, "sm_total": 132, "under_mps": False, "build_sm_count": None}
    realised = {"contexts": 1, "cuda_graph": False, "precision": entry.info["precision"], "knobs": {}, **held}
    assert backend.mismatch(asked, realised) is None


def sums(information: dict) -> set[str]:
    """Types of what quantised products with a weight give: attention works on activations alone, in one kernel."""
    quantised = {"Int8", "FP8"}
    return {
        tensor["Datatype"]
        for layer in information["Layers"]
        if layer["LayerType"] in {"gemm", "correlation"}
        and quantised & {tensor["Datatype"] for tensor in layer["Inputs"]}
        for tensor in layer["Outputs"]
    }
