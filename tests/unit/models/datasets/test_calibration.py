"""Ranges from a user's own samples: read, checked to one line each, cut; and by percentile and entropy."""

from __future__ import annotations

import re
import struct
import sys
import textwrap
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import passes
import pytest
from authored_graphs import IMAGE, NETWORKS, Author, batch, save
from onnx import numpy_helper
from PIL import Image
from warned import warned

from sweep import models
from sweep import spec as axes
from sweep.config import variants
from sweep.config.schema import Config, ModelConfig, PrecisionConfig
from sweep.errors import ConfigError, ConversionError
from sweep.models import Signature, TensorSpec
from sweep.models.datasets import calibration
from sweep.precision import convert, histograms
from sweep.runner.worker import artifacts, pass_notes
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, Variant

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 3, 8, 8)),), outputs=("y",))
TOKENS = Signature(
    inputs=tuple(
        TensorSpec(name=name, dtype="int64", shape=("batch", 6))
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ),
    outputs=("y",),
)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def read(text: str, signature: Signature = IMAGES, count: int = 8) -> list[dict[str, np.ndarray]]:
    data = calibration.parse(text)
    calibration.check(data, signature, count)
    return list(calibration.batches(data, signature, count))


def test_an_npz_is_cut_into_batches_of_eight(tmp_path: Path) -> None:
    values = floats(20, 3, 8, 8)
    np.savez(tmp_path / "some.npz", x=values)
    found = read(str(tmp_path / "some.npz"))
    assert [len(item["x"]) for item in found] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate([item["x"] for item in found]), values)
    assert [len(item["x"]) for item in read(str(tmp_path / "some.npz"), count=1)] == [8]


def test_a_folder_of_npy_is_an_input_a_file_or_samples_of_the_only_one(tmp_path: Path) -> None:
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", floats(3, 8, 8) + number)
    np.save(tmp_path / "3.npy", floats(7, 3, 8, 8))
    assert [len(item["x"]) for item in read(str(tmp_path))] == [8, 2]
    assert read(str(tmp_path))[0]["x"][1].mean() == pytest.approx(floats(3, 8, 8).mean() + 1, abs=1e-5)
    folder = tmp_path / "several"
    folder.mkdir()
    for spec in TOKENS.inputs:
        np.save(folder / f"{spec.name}.npy", np.ones((9, 6), np.int64))
    assert [len(item["input_ids"]) for item in read(str(folder), TOKENS)] == [8, 1]


def test_a_network_without_a_batch_takes_whole_inputs(tmp_path: Path) -> None:
    fixed = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 4)),), outputs=("y",))
    np.savez(tmp_path / "one.npz", x=floats(1, 4))
    np.savez(tmp_path / "some.npz", x=floats(5, 1, 4))
    assert [item["x"].shape for item in read(str(tmp_path / "one.npz"), fixed)] == [(1, 4)]
    assert [item["x"].shape for item in read(str(tmp_path / "some.npz"), fixed, 3)] == [(1, 4)] * 3


def test_images_are_cropped_and_normalised(tmp_path: Path) -> None:
    for number, size in enumerate([(30, 20), (8, 8)]):
        Image.new("RGB", size, (255, 0, 128)).save(tmp_path / f"{number}.png")
    Image.new("L", (9, 40), 255).save(tmp_path / "grey.jpg")
    (tmp_path / "notes.txt").write_text("not a picture")
    (found,) = read(f"images:{tmp_path}")
    assert (found["x"].shape, found["x"].dtype) == ((3, 3, 8, 8), np.float32)
    red, green = (1 - 0.485) / 0.229, (0 - 0.456) / 0.224
    np.testing.assert_allclose(found["x"][0, :2].mean(axis=(1, 2)), [red, green], rtol=1e-5)
    last = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 8, 10, 3)),), outputs=("y",))
    (other,) = read(f"images:{tmp_path}", last)
    assert other["x"].shape == (3, 8, 10, 3)


def test_tokens_are_padded_and_masked(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("101 7 8 102\n\n101 1 2 3 4 5 6 7 102\n")
    (found,) = read(f"tokens:{tmp_path / 'ids.txt'}", TOKENS)
    np.testing.assert_array_equal(found["input_ids"], [[101, 7, 8, 102, 0, 0], [101, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(found["attention_mask"], [[1, 1, 1, 1, 0, 0], [1] * 6])
    assert not found["token_type_ids"].any()


def nan(*shape: int) -> np.ndarray:
    values = floats(*shape)
    values[0, 0] = np.nan
    return values


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"y": floats(4, 3, 8, 8)}, "holds y, but the network takes x: name them so"),
        ({"x": floats(4, 3, 8, 8), "z": floats(1)}, "holds x, z, but the network takes x"),
        ({}, "holds nothing, but the network takes x"),
        ({"x": floats(4, 3, 8, 9)}, r"x has shape [4, 3, 8, 9], the network takes [batch,3,8,8]"),
        ({"x": floats(3, 8, 8)}, "x has shape [3, 8, 8], the network takes "),
        ({"x": floats(4, 3, 8, 8).astype(float)}, "x is float64, the network takes float32: save it as .astype('fl"),
        ({"x": np.ones((1, 3, 8, 8), np.uint8)}, "x is uint8, the network takes float32"),
        ({"x": nan(4, 3, 8, 8)}, "x holds 64 NaN or Inf of 768 values: leave those samples out"),
        ({"x": floats(0, 3, 8, 8)}, "holds no sample"),
        ({"x": np.array([None, 1], object)}, "cannot be read: x holds Python objects, not numbers"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_before_anything_runs(arrays: dict, line: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    refused(str(tmp_path / "bad.npz"), line)


def test_a_picture_of_too_many_pixels_is_one_line_and_odd_metadata_none(tmp_path: Path, recwarn) -> None:
    """Pillow warns of both on stderr, in lines of its own."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "a.png"
    start, pixels = b"\x89PNG\r\n\x1a\n", chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(start + chunk(b"IHDR", struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)) + pixels)
    refused(f"images:{tmp_path}", "Image size (169000000 pixels) exceeds limit of 89478485 pixels")
    Image.new("RGB", (8, 8)).save(path, exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + b"\xff" * 40)
    assert read(f"images:{tmp_path}", IMAGES)
    assert warned(recwarn) == []


def refused(text: str, line: str, signature: Signature = IMAGES) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)) as caught:
        read(text, signature)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model.calibration=")


def test_what_is_no_calibration_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "junk.npz").write_bytes(b"junk")
    refused(str(tmp_path / "junk.npz"), "cannot be read: ")
    np.save(tmp_path / "array.npy", floats(2))
    refused(str(tmp_path / "array.npy"), "it is one array, not an .npz of arrays by input name")
    refused(str(tmp_path / "gone.npz"), "No such file or directory: give an .npz, a folder of .npy, images:FOLDER,")
    refused(f"images:{tmp_path}", "no .jpg, .jpeg, .png, .bmp, .webp in that folder")
    (tmp_path / "a.png").write_bytes(b"no picture")
    refused(f"images:{tmp_path}", "cannot be read: cannot identify image file")
    refused(f"images:{tmp_path}", "images are for a network with one float input of 3 channels", TOKENS)
    (tmp_path / "ids.txt").write_text("one two\n")
    refused(f"tokens:{tmp_path / 'ids.txt'}", "cannot be read: invalid literal for int()", TOKENS)
    (tmp_path / "ids.txt").write_text(f"1 2\n3 {10**26}\n")
    refused(
        f"tokens:{tmp_path / 'ids.txt'}", "cannot be read: sequence 2 holds an id below -9223372036854775808", TOKENS
    )
    refused("no_such_module:f", "no Python source of module no_such_module")
    uneven = {spec.name: np.ones((2 + spec.name.count("_"), 6), np.int64) for spec in TOKENS.inputs}
    np.savez(tmp_path / "uneven.npz", **uneven)
    refused(str(tmp_path / "uneven.npz"), "holds 3 samples of input_ids, 3 samples of attention_mask, 4 sam", TOKENS)


FUNCTION = """
    import numpy as np

    def good():
        for _ in range(5):
            yield {"x": np.zeros((4, 3, 8, 8), np.float32)}

    def wrong():
        yield {"x": np.zeros((4, 3, 8, 8), np.float64)}

    def odd():
        return [3]

    def raises():
        raise OSError("the disk is away")
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_samples.py").write_text(textwrap.dedent(FUNCTION))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_passes", "my_samples", "my_faulty"):  # of an earlier test
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("functions")
def test_a_function_gives_batches() -> None:
    assert len(read("my_samples:good", count=3)) == 3
    assert len(read("my_samples:good", count=9)) == 5
    for name, line in (
        ("wrong", "x is float64, the network takes float32"),
        ("odd", "batch 0 is a int, not a dict of arrays by input"),
        ("raises", "raised OSError: the disk is away"),
    ):
        with pytest.raises(ConversionError, match=line):
            read(f"my_samples:{name}")


def config(text: str | None, **precision: Any) -> Config:
    asked: dict[str, Any] = {"name": "int8", "dtype": "int8", "quantize_ops": ["Conv"], "calibration_batches": 2}
    return Config(model=ModelConfig(name="tiny_cnn", calibration=text), precision=PrecisionConfig(**asked | precision))


def test_it_is_in_the_key_by_content_where_ranges_are_drawn(tmp_path: Path) -> None:
    (shape,) = (spec.concrete(16) for spec in models.signature(ModelRef(name="tiny_cnn", revision=1)).inputs)
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=np.ones(shape, np.float32))
    np.savez(tmp_path / "c.npz", x=np.zeros(shape, np.float32))
    one, same, other = (variants.from_config(config(str(tmp_path / f"{name}.npz"))) for name in "abc")
    assert axes.onnx_key(one) != axes.onnx_key(other) != axes.onnx_key(variants.from_config(config(None)))
    assert one.onnx.calibration.digest != other.onnx.calibration.digest
    assert same.onnx.calibration.kind == "npz"
    plain = {"name": "bf16", "dtype": "bf16", "quantize_ops": []}
    assert variants.from_config(config(str(tmp_path / "a.npz"), **plain)).onnx.calibration is None


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"calibration_method": "mean"}, "precision.calibration_method=mean: no such choice; there are: max, perc"),
        ({"calibration_method": "entropy", "name": "fp8", "dtype": "fp8"}, "entropy weighs the even steps of int8, "),
        ({"calibration_method": "percentile", "calibration_percentile": 101.0}, "calibration_percentile=101: above 50"),
        ({"tool": "magic"}, "precision.tool=magic: no such choice; there are: builtin, none"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(values: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)):
        variants.from_config(config(None, **values))


def test_the_largest_value_is_the_librarys_default_and_in_no_key() -> None:
    default = variants.from_config(config(None))
    assert default == variants.from_config(config(None, calibration_method="max", calibration_percentile=99.0))
    clipped = variants.from_config(config(None, calibration_method="percentile"))
    assert clipped.onnx.precision.calibration_percentile == 99.99
    assert axes.onnx_key(clipped) != axes.onnx_key(default)


def outlier(size: int) -> list[dict[str, np.ndarray]]:
    """Normal images, one pixel of which is a thousand."""
    made = batch(NETWORKS["cnn"](), size, 0)
    made["x"][0, 0, 0, 0] = 1000
    return [made]


def scale_of_x(path: Path) -> float:
    stored = {item.name: item for item in onnx.load(path).graph.initializer}
    return float(numpy_helper.to_array(stored["x__scale"]))


def test_percentile_and_entropy_leave_an_outlier_out(tmp_path: Path) -> None:
    source, scales = save("cnn", tmp_path), {}
    for method in (None, *histograms.METHODS):
        recipe = Precision(name="int8", dtype="int8", quantize_ops=("Conv",), calibration_method=method)
        found = convert(source, recipe, outlier(32), tmp_path / "typed.onnx")
        assert found.samples == 32
        scales[method] = scale_of_x(found.path) * 127
    assert scales[None] == pytest.approx(1000)
    assert scales["percentile"] < 10
    assert scales["entropy"] < 200, "steps of a bin, of which there are 1024 up to the outlier"


def test_percentile_100_is_the_largest_value_within_a_bin() -> None:
    g = Author()
    model = g.model(g.op("Conv", "x", g.weight(4, 3, 1, 1)), IMAGE, ["batch", 4, 16, 16])
    feeds = [batch(model, 4, seed) for seed in range(3)]
    largest = {"x": float(max(np.abs(feed["x"]).max() for feed in feeds))}
    found = histograms.clipping_thresholds(model, largest, feeds, "percentile", 100.0)
    assert found["x"] == pytest.approx(largest["x"], rel=2e-3)
    half = histograms.clipping_thresholds(model, largest, feeds, "percentile", 68.27)
    assert half["x"] == pytest.approx(1.0, abs=0.05), "a normal's own deviation"
    assert len(model.graph.output) == 1


def test_a_silent_tensor_keeps_its_range() -> None:
    g = Author()
    model = g.model(g.op("Conv", "x", g.weight(4, 3, 1, 1)), IMAGE, ["batch", 4, 16, 16])
    feeds = [{"x": np.zeros((1, 3, 16, 16), np.float32)}]
    for method in histograms.METHODS:
        assert histograms.clipping_thresholds(model, {"x": 0.0}, feeds, method, 99.9) == {"x": 0.0}


@pytest.mark.parametrize("own", [False, True])
def test_the_record_says_what_ranges_came_from(own: bool, tmp_path: Path) -> None:  # noqa: FBT001 - both rows of the table
    (spec,) = models.signature(ModelRef(name="tiny_cnn", revision=1)).inputs
    np.savez(tmp_path / "own.npz", **{spec.name: np.ones(spec.concrete(11), np.float32)})
    data = calibration.parse(str(tmp_path / "own.npz")) if own else None
    recipe = Precision(name="int8", dtype="int8", quantize_ops=("Conv", "Gemm"), calibration_batches=2)
    variant = Variant(
        backend="onnxruntime",
        onnx=OnnxAxes(model=ModelRef(name="tiny_cnn", revision=1), precision=recipe, calibration=data),
        engine=EngineAxes(batch=2),
        load=LoadAxes(kind="closed", warmup_s=0.0, min_s=0.02, min_requests=3, max_s=0.5),
    )
    found = passes.measured(variant, tmp_path, cache=tmp_path / "c")
    told = found["engine"]["calibration"]
    if own:
        assert (told["source"], told["samples"], told["method"]) == (str(tmp_path / "own.npz"), 11, "max")
    else:
        assert (told["source"], told["samples"]) == (artifacts.RANDOM, 16)
    assert (pass_notes.RANDOM_RANGES in found["realised"]["notes"]) != own


def test_label_and_table_tell_them_apart(tmp_path: Path) -> None:
    (shape,) = (spec.concrete(2) for spec in models.signature(ModelRef(name="tiny_cnn", revision=1)).inputs)
    np.savez(tmp_path / "mine.npz", x=np.ones(shape, np.float32))
    made = [
        variants.from_config(config(text, calibration_method=method))
        for text, method in ((None, "max"), (str(tmp_path / "mine.npz"), "max"), (None, "percentile"))
    ]
    labels = [item.label for item in made]
    assert labels == [
        "tiny_cnn int8 b1 s1",
        "tiny_cnn int8 b1 s1 calibrated-mine.npz",
        "tiny_cnn int8 b1 s1 percentile99.99",
    ]
    assert [axes.flat(item)["calibration_method"] for item in made] == [None, None, "percentile"]
    assert variants.from_config(config(None, tool="none")).label.endswith(" as-it-is")
