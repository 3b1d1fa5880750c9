import dataclasses
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from sweep.errors import ConfigError, ModelError
from sweep.models import draw, file_digest, graph_inputs, inspect, parameters, resolution, resolve, signature
from sweep.models.cost_model import cost
from sweep.models.signatures import TensorSpec
from sweep.models.zoo import catalog, diffusion, transformers
from sweep.spec import Dimension, InputFix, ModelRef

# A changed network has other bytes: raise its revision in the zoo and pin the new pair here.
GOLDEN = {
    "tiny_cnn": (1, "534a450a62e0db3495638ef76ab0dda8712dc68c9a32fbb203ae013f5e70a42f"),
    "mlp": (1, "67f066af42a1646a7e31b4d9e2bff870b271b527d783827bbf6e7ee4ebe75af3"),
    "digits": (1, "42aa1b955bf0b639ee04de0c6dfc97ddd176ec5b401de9254a250383aea0a4ec"),
    "unet": (1, "1d024c505e0cda924db81393fc8fa84bab3ff32cb5422ed28400057bf751e5e7"),
    "mobilenet_v3": (1, "9d0d0b006290f8935df5aba9d144a8ace7fa98929cf30e4c4d19b5762238116f"),
    "resnet50": (1, "373b31e26081c830e5dd24e52c7ff5c117f61a87fabccafc576fee8c01400ff5"),
    "sd_unet_block": (1, "5325ae721764174f97c49a5822fdc6b9f1af4eb8525d18003376ece07f80dea1"),
    "vit_b16": (1, "dae1aef99a203f8175b11b2606565a21288ec652c2ef51bbdf2f564b7c302878"),
    "bert_base": (1, "3bd2bff33154d646d673b83a6ad45139bef2f809d2b26359ebb8c87f49930bed"),
    "bert_base_384": (1, "62cdf4fe6a80acf6179ee94de6ab2047b10d96b3a6c9e65d3828113417ab0e7d"),
    "ocr_detector_tiny": (1, "f12e7a557ad8a930603eeb7f999cd8d6881261576c27b0fa1a66f84ee09efa08"),
    "sd_text_encoder_tiny": (1, "cbda147cc70993637db083462241223ad6425c5f3e47705e51c56494ce1b1776"),
    "ocr_recogniser_tiny": (1, "f9ff98432292cf518ca57fdcec27ffc21be106f6d7a4acb2c4bd122dc00acd19"),
    "sd_vae_decoder_tiny": (1, "fe31808da7c6a4a5a274c19deb6446f0ec654742979406ea0bb31d28c9e147f7"),
    "sd_unet_tiny": (1, "4306581f14b333f2c4c352e86e12ea7b2dd82e615e34fe5204e54fe5e2f170d7"),
    "ocr_detector": (1, "538d25797124333578d54316acfb1906ce0288dbb699c5c0f47188fa2e58ec82"),
    "ocr_recogniser": (1, "36f480ab001e8b9f53e271c75de522a6ca696317015ab09007b3af59b0ac8524"),
}
REAL_SIZES = ("sd_vae_decoder", "sd_text_encoder", "sd_unet")  # built as their tiny forms are: gigabytes of weights
LARGE = ("sd_unet_block", "vit_b16", "bert_base", "bert_base_384")
VOCABULARY = 1000  # of BERT's 30,522, which are most of its bytes


def bert_macs(tokens: int) -> int:
    """Devlin et al., 2018, table 1: twelve layers of 768, feed-forward 3072; and the pooler."""
    return 12 * ((4 * 768**2 + 2 * 768 * 3072) * tokens + 2 * tokens**2 * 768) + 768**2


def unet_macs() -> int:
    """Two 3 x 3 convolutions at each of 32, 64, 128, 256 channels down and three times up, and 1 x 1 to 4 classes."""
    pairs = [(3, 32, 128), (32, 64, 64), (64, 128, 32), (128, 256, 16), (384, 128, 32), (192, 64, 64), (96, 32, 128)]
    return sum(9 * side**2 * (c_in * c_out + c_out**2) for c_in, c_out, side in pairs) + 128**2 * 32 * 4


def diffusion_macs() -> int:
    """Stable Diffusion 1.5's unet/config.json: 320, 640, 1280 channels, text of 77 x 768; one block of each level."""
    total = 9 * 4 * 320 * 64**2 + 320 * 1280 + 1280**2
    for c_in, width, side in ((320, 320, 64), (320, 640, 32), (640, 1280, 16)):
        places = side**2
        total += 9 * c_in**2 * places if side < 64 else 0  # the strided convolution before it
        total += (9 * c_in * width + 9 * width**2 + (c_in * width if c_in != width else 0)) * places + 1280 * width
        total += 2 * width**2 * places + (4 * width**2 + 2 * places * width) * places  # in and out, self-attention
        total += 2 * width**2 * places + 2 * 768 * width * 77 + 2 * places * 77 * width  # attention to the text
        total += (8 + 4) * width**2 * places  # gated, so twice as wide on the way up
    return total


def detector_macs(side: int, widths: tuple[int, ...]) -> int:
    """Two 3 x 3 convolutions a level, each level but the first at half the side; 1 x 1 to the scores."""
    pairs = zip((3, *widths), widths, strict=False)
    convolutions = sum(9 * (side >> level) ** 2 * (c * width + width**2) for level, (c, width) in enumerate(pairs))
    return convolutions + (side // 8) ** 2 * widths[-1]


def recogniser_macs(widths: tuple[int, int, int], layers: int) -> int:
    """Three 3 x 3 convolutions at 32 x 128, 16 x 64 and 8 x 32; 32 tokens of 8 rows, attention, 96 characters."""
    pairs = zip((3, *widths), widths, strict=False)
    convolutions = sum(9 * (32 >> level) * (128 >> level) * c * width for level, (c, width) in enumerate(pairs))
    width = widths[-1]
    each = 12 * width**2 * 32 + 2 * 32**2 * width
    return convolutions + 32 * 8 * width**2 + layers * each + 32 * width * 96


# Parameters and multiply-adds as published: torchvision's model pages (mobilenet_v3_large 5,483,032 and 0.217e9,
# resnet50 25,557,032 and 4.089e9, vit_b_16 86,567,656 and 17.564e9), which have batch norm apart, and the papers above.
LITERATURE = {
    "tiny_cnn": (23_914, 1_585_472),
    "mlp": (1_863_690, 784 * 1024 + 1024**2 + 1024 * 10),
    "digits": (19_178, 9 * (16 * 64 + 16 * 32 * 16 + 32 * 32 * 16) + 512 * 10),
    "unet": (1_946_984, unet_macs()),
    "mobilenet_v3": (5_483_032, 0.217e9),
    "resnet50": (25_557_032, 4.089e9),
    "sd_unet_block": (86_565_184, diffusion_macs()),
    "vit_b16": (86_567_656, 17.564e9),
    "bert_base": (110e6, bert_macs(128)),
    "bert_base_384": (110e6, bert_macs(384)),
    "ocr_detector": (1_172_513, detector_macs(512, (32, 64, 128, 256))),
    "ocr_detector_tiny": (4_321, detector_macs(64, (8, 8, 8, 8))),
    "ocr_recogniser": (2_499_552, recogniser_macs((64, 128, 256), 2)),
    "ocr_recogniser_tiny": (8_952, recogniser_macs((8, 8, 16), 1)),
    "sd_text_encoder_tiny": (5_073, 7 * 12 * 16**2 + 2 * 7**2 * 16),
    "sd_vae_decoder_tiny": (32_147, 3_419_136),
    "sd_unet_tiny": (132_960, 5_422_592),
}


@pytest.fixture(scope="module", params=[name for name in catalog.names() if name not in REAL_SIZES])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def path(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = resolve(ModelRef(name=name), tmp_path_factory.mktemp("zoo") / "new" / f"{name}.onnx")
    yield path
    path.unlink()  # BERT is 438 MB


@pytest.fixture(scope="module")
def shortened(name: str, path: Path) -> Iterator[Path]:
    """Build a large network with fewer layers, channels, positions and words: one is like the other."""
    if name not in LARGE:
        yield path
        return
    sample, features, text = diffusion.INPUTS
    sample = dataclasses.replace(sample, shape=(*sample.shape[:2], 16, 16))
    features = dataclasses.replace(features, shape=(features.shape[0], 64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers, "LAYERS", 2)
        patch.setattr(transformers, "BERT_VOCABULARY", VOCABULARY)
        patch.setattr(diffusion, "WIDTHS", (64, 128, 256))
        patch.setattr(diffusion, "SIDE", 16)
        patch.setattr(diffusion, "INPUTS", (sample, features, text))
        model = catalog.build(name)
    shorter = path.with_name(f"{name}.short.onnx")
    onnx.save(model, shorter)
    yield shorter
    shorter.unlink()


@pytest.fixture(scope="module")
def outputs(name: str, shortened: Path) -> dict[int, list[np.ndarray]]:
    """Outputs at batch 1 and 2, by batch."""
    session = ort.InferenceSession(shortened, providers=["CPUExecutionProvider"])
    short = inspect(shortened, ModelRef(name=name, inputs=tuple(map(bounded, catalog.entry(name).inputs))))
    return {batch: session.run(None, draw(short, batch, seed=0)) for batch in (1, 2)}


def bounded(spec: TensorSpec) -> InputFix:
    high = min(VOCABULARY - 1, spec.high or 0) if spec.name == "input_ids" else spec.high
    return InputFix(name=spec.name, low=spec.low, high=high)


def test_bytes_are_those_of_the_revision(name: str, path: Path) -> None:
    found = (catalog.entry(name).revision, file_digest(path))
    assert found == GOLDEN[name], f"{name}: bytes and revision go together: raise the revision, pin {found}"


def test_second_build_has_the_same_bytes(name: str, path: Path) -> None:
    if name in LARGE:
        return  # seconds each, and the pinned bytes say as much
    assert hashlib.sha256(catalog.build(name).SerializeToString()).hexdigest() == file_digest(path)


def test_checker_accepts_it(path: Path) -> None:
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    assert model.opset_import[0].version == 20
    assert model.ir_version == 10


def test_parameters(name: str, path: Path) -> None:
    assert parameters(path) == catalog.entry(name).parameters


def test_parameters_and_multiply_adds_are_those_of_the_literature(name: str, path: Path) -> None:
    found = cost(path, {spec.name: spec.concrete(1) for spec in signature(ModelRef(name=name)).inputs})
    assert found.gmacs is not None
    assert (found.parameters, found.gmacs * 1e9) == pytest.approx(LITERATURE[name], rel=0.01)


def test_entry_tells_what_the_file_says(name: str, path: Path) -> None:
    entry = catalog.entry(name)
    ranges = tuple(InputFix(name=spec.name, low=spec.low, high=spec.high) for spec in entry.inputs)
    assert inspect(path, ModelRef(name=name, inputs=ranges)) == signature(ModelRef(name=name))
    assert entry.source


def test_outputs_are_float32_of_the_declared_names(
    name: str, shortened: Path, outputs: dict[int, list[np.ndarray]]
) -> None:
    declared = onnx.load(shortened).graph.output
    assert tuple(value.name for value in declared) == catalog.entry(name).outputs
    for value, one, two in zip(declared, outputs[1], outputs[2], strict=True):
        fixed = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])
        assert one.dtype == two.dtype == np.float32
        assert (one.shape, two.shape) == ((1, *fixed), (2, *fixed))


def test_a_sample_does_not_depend_on_its_batch(outputs: dict[int, list[np.ndarray]]) -> None:
    for one, two in zip(outputs[1], outputs[2], strict=True):
        np.testing.assert_allclose(two[:1], one, rtol=1e-3, atol=1e-3 * one.std())


def test_samples_are_told_apart_and_scaled(outputs: dict[int, list[np.ndarray]]) -> None:
    for values in outputs[2]:
        assert np.isfinite(values).all()
        assert 0.1 < values.std() < 10
        assert (values[0] - values[1]).std() > 0.1 * values.std()


def test_bert_heeds_its_mask_and_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "LAYERS", 2)  # a mask that one layer heeds, all do
    monkeypatch.setattr(transformers, "BERT_VOCABULARY", VOCABULARY)
    network = ModelRef(name="bert_base", inputs=(InputFix(name="input_ids", high=VOCABULARY - 1),))
    session = ort.InferenceSession(resolve(network, tmp_path / "b.onnx"))
    feed = draw(signature(network), 1, seed=0)
    (whole,) = session.run(["pooler_output"], feed)
    padded = feed | {"attention_mask": feed["attention_mask"] * (np.arange(128) < 64)}
    (half,) = session.run(["pooler_output"], padded)
    assert not np.allclose(half, whole, atol=1e-3)
    other = padded | {"input_ids": np.where(np.arange(128) < 64, feed["input_ids"], 7)}
    np.testing.assert_allclose(session.run(["pooler_output"], other)[0], half, atol=1e-5)
    typed = feed | {"token_type_ids": 1 - feed["token_type_ids"]}
    assert not np.allclose(session.run(["pooler_output"], typed)[0], whole, atol=1e-3)


@pytest.mark.parametrize(
    ("build", "name", "published", "outline"),
    [
        (diffusion.text_encoder, "sd_text_encoder", 123_060_480, "2653a37a65adae25"),
        (diffusion.unet, "sd_unet", 859_520_964, "71b907fcb43ed3a4"),
        (diffusion.decoder, "sd_vae_decoder", 49_490_199, "7497d22c6a0658ad"),
    ],
)
def test_a_network_at_its_real_size_has_the_weights_that_are_published(build, name, published, outline) -> None:
    """Published: the configurations of Stable Diffusion 1.5; a causal mask and ones and zeros of norms come on top."""
    graph = build(diffusion.SD15, name)
    entry = catalog.entry(name)
    assert graph.parameters() == entry.parameters
    assert 0 <= entry.parameters - published <= 77 * 77
    weights = {key: getattr(value, "shape", None) for key, value in graph._weights.items()}
    text = repr((graph._nodes, graph._inputs, graph._outputs, weights))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == outline, "raise the revision, pin the new outline"


def test_weights_that_no_protobuf_holds_lie_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = ModelRef(name="sd_text_encoder_tiny")
    whole = resolve(network, tmp_path / "whole.onnx")
    monkeypatch.setattr(resolution, "_SINGLE_FILE_BYTES", 1000)
    apart = resolve(network, tmp_path / "apart.onnx")
    assert (tmp_path / "apart.onnx.data").stat().st_size > 1000
    feed = draw(signature(network), 2, seed=0)
    one, two = (ort.InferenceSession(path).run(None, feed) for path in (whole, apart))
    assert np.array_equal(one[0], two[0])


def test_every_network_is_pinned() -> None:
    assert set(GOLDEN) | set(REAL_SIZES) == set(catalog.names())


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as error:
        catalog.entry("resnet51")
    assert str(error.value) == (
        "model 'resnet51' is unknown; take one of ocr_detector_tiny, sd_text_encoder_tiny, ocr_recogniser_tiny, "
        "sd_vae_decoder_tiny, sd_unet_tiny, tiny_cnn, mlp, digits, unet, mobilenet_v3, resnet50, sd_unet_block, "
        "vit_b16, bert_base, bert_base_384, ocr_detector, ocr_recogniser, sd_vae_decoder, sd_text_encoder, sd_unet, or "
        "your own file with model.path=FILE.onnx"
    )
    with pytest.raises(ConfigError, match="resnet51"):
        signature(ModelRef(name="resnet51"))
    with pytest.raises(ConfigError, match="resnet51"):
        resolve(ModelRef(name="resnet51"), Path("unused"))


def test_other_revision_is_refused(tmp_path: Path) -> None:
    revision = catalog.entry("mlp").revision
    signature(ModelRef(name="mlp", revision=revision))
    with pytest.raises(ModelError, match=f"revision 99, but this version of sweep builds revision {revision}"):
        resolve(ModelRef(name="mlp", revision=99), tmp_path / "mlp.onnx")


def test_zoo_inputs_can_be_fixed() -> None:
    fixes = (InputFix(name="input_ids", shape=(1, 128), high=99),)
    inputs = signature(ModelRef(name="bert_base", inputs=fixes)).inputs
    assert [spec.shape for spec in inputs] == [(1, 128)] * 3
    assert inputs[0].bounds == (0, 99)
    with pytest.raises(ModelError, match="wants 256 at axis 1"):
        signature(ModelRef(name="bert_base", inputs=(InputFix(name="input_ids", shape=("batch", 256)),)))


def at(name: str, **sizes: int) -> ModelRef:
    return ModelRef(name=name, shape=tuple(Dimension(name=key, size=size) for key, size in sizes.items()))


@pytest.mark.parametrize(
    ("name", "sizes"), [("bert_base", {"seq": (3, 16)}), ("tiny_cnn", {"h": (8, 20)}), ("unet", {"h": (16, 32)})]
)
def test_a_graph_with_an_open_dimension_computes_what_that_of_each_size_does(
    name: str, sizes: dict[str, tuple[int, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"LAYERS": 1, "WIDTH": 24, "HIDDEN": 32, "BERT_VOCABULARY": 99, "BERT_POSITIONS": 20}
    for constant, value in small.items():
        monkeypatch.setattr(transformers, constant, value)
    ((dimension, values),) = sizes.items()
    fixed = {} if name != "unet" else {"w": 16}
    ref = dataclasses.replace(at(name, **{dimension: values[-1]}, **fixed), open_dimensions=(dimension,))
    assert dimension in graph_inputs(ref)[0].shape
    session = ort.InferenceSession(resolve(ref, tmp_path / "open.onnx"))
    for size in values:
        own = at(name, **{dimension: size}, **fixed)
        drawn = draw(signature(own), 2, 0)
        feed = {key: value % 99 if value.dtype == np.int64 else value for key, value in drawn.items()}
        static = ort.InferenceSession(resolve(own, tmp_path / f"{size}.onnx")).run(None, feed)
        for one, other in zip(session.run(None, feed), static, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "sizes", "shapes"),
    [
        ("tiny_cnn", {"h": 8, "w": 12}, {"x": (2, 3, 8, 12)}),
        ("unet", {"h": 16}, {"x": (2, 3, 16, 128)}),
        ("mobilenet_v3", {"w": 64}, {"x": (2, 3, 224, 64)}),
    ],
)
def test_a_network_runs_at_the_sizes_that_are_set_with_the_weights_that_it_has(
    name: str, sizes: dict[str, int], shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    ref = at(name, **sizes)
    network = signature(ref)
    assert {spec.name: spec.concrete(2) for spec in network.inputs} == shapes
    path = resolve(ref, tmp_path / "model.onnx")
    values = ort.InferenceSession(path).run(None, draw(network, 2, 0))
    assert all(np.isfinite(value).all() for value in values)
    weights, own = (
        {tensor.name: tensor.raw_data for tensor in model.graph.initializer}
        for model in (onnx.load(path), catalog.build(name))
    )
    assert weights == own


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        (at("bert_base", seq=513), "seq of model 'bert_base' takes 1 to 512"),
        (at("vit_b16", h=100), "h of model 'vit_b16' takes 16 and more, multiples of 16"),
        (at("mlp", h=8), "has no dimension 'h' that can be set (it has: none)"),
    ],
)
def test_sizes_that_a_network_does_not_take_are_refused(ref: ModelRef, words: str) -> None:
    with pytest.raises(ModelError, match=re.escape(words)):
        signature(ref)


def test_signatures_need_no_onnx() -> None:
    code = (
        "import sys, sweep.models as m; from sweep.spec import ModelRef\n"
        "for name in m.zoo.names(): m.draw(m.signature(ModelRef(name=name)), 2, 0)\n"
        "assert not {'onnx', 'onnxruntime', 'google.protobuf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
