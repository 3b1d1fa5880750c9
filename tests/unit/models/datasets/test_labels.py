"""A user's own model on labelled samples: scored as a network that brings its own, or refused in a line."""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import passes
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from sweep import models, spec
from sweep.analysis import reevaluate
from sweep.analysis.accuracy_gates import fault
from sweep.cli.bisect import trace
from sweep.config import compose, variants
from sweep.config.schema import AccuracyConfig, BackendConfig, Config, ModelConfig
from sweep.errors import ConfigError, LabelError
from sweep.models import Signature, TensorSpec, datasets, evaluation
from sweep.models.datasets import calibration
from sweep.models.zoo import digits
from sweep.report import html, table
from sweep.report.mlflow import record_mapping
from sweep.runner.worker import artifacts
from sweep.spec import EngineAxes, LabelledData, LoadAxes, ModelRef, OnnxAxes, Precision, Variant
from sweep.spec.gates import Gates
from sweep.storage.record import Record
from sweep.storage.store import Store

if TYPE_CHECKING:
    from pathlib import Path

RIGHT = 582 / 597  # of model=digits on what it was not trained on
HELD = digits.DATA.held_out()
MEAN, DEVIATION = (
    np.array(values, np.float32)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
)
INT8 = {"name": "int8", "dtype": "int8", "quantize_ops": ("Conv", "Gemm"), "calibration_batches": 4}
FLAT = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),), outputs=("y",))


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The digits network as anybody's file, in the working directory."""
    onnx.save(digits.digits(), tmp_path / "mynet.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_samples", raising=False)
    return tmp_path / "mynet.onnx"


def saved(folder: Path, name: str = "held.npz", **arrays: Any) -> str:
    (folder / name).parent.mkdir(exist_ok=True)
    np.savez(folder / name, **{"x": HELD.inputs["x"], "labels": HELD.labels} | arrays)
    return str(folder / name)


def config(path: Path, text: str | None, scores: str | None = None, **gates: float) -> Config:
    model = ModelConfig(path=str(path), labels=text, scores=scores)
    return Config(model=model, backend=BackendConfig(name="onnxruntime"), accuracy=AccuracyConfig(**gates))


def variant(path: Path, text: str | None, batch: int = 32, repeats: int = 1, **recipe: Any) -> Variant:
    """As the command line makes it, with a short load."""
    variants.labels._read_labels.cache_clear()
    made = variants.from_config(config(path, text))
    load = LoadAxes(
        kind="closed", warmup_s=0.01, min_s=0.02, min_requests=3, max_s=0.3, repeats=repeats, labels=made.load.labels
    )
    onnx_axes = OnnxAxes(model=made.onnx.model, precision=Precision(**{"name": "fp32", "dtype": "fp32"} | recipe))
    return Variant(backend="onnxruntime", onnx=onnx_axes, engine=EngineAxes(batch=batch), load=load)


def measured(asked: Variant, folder: Path, repeat: int = 0, **changes: Any) -> dict[str, Any]:
    return passes.measured(asked, folder, repeat=repeat, **changes)


def scored(asked: Variant, folder: Path) -> tuple[float, float, str]:
    found = measured(asked, folder)["accuracy"]
    return found["score"], found["reference_score"], found["scored_on"]


@pytest.mark.parametrize("batch", [7, 600])
def test_an_npz_scores_as_the_network_that_brings_the_same_samples(batch: int, network: Path) -> None:
    asked = variant(network, saved(network.parent), batch)
    assert scored(asked, network.parent) == (RIGHT, RIGHT, "597 samples of held.npz")
    own = ModelRef(name="digits", revision=models.zoo.entry("digits").revision)
    brought = Variant(
        backend="onnxruntime",
        onnx=OnnxAxes(model=own, precision=Precision(name="fp32", dtype="fp32")),
        engine=EngineAxes(batch=batch),
        load=LoadAxes(kind="closed", warmup_s=0.01, min_s=0.02, min_requests=3, max_s=0.3),
    )
    assert scored(brought, network.parent)[:2] == (RIGHT, RIGHT)


def test_other_labels_are_another_score_of_engine_and_reference(network: Path) -> None:
    """The cache has the reference's score of the right labels by then."""
    assert scored(variant(network, saved(network.parent)), network.parent)[1] == RIGHT
    permuted = variant(network, saved(network.parent, labels=(HELD.labels + 1) % 10))
    engine, reference, what = scored(permuted, network.parent)
    assert what == "597 samples of held.npz", "of the same name"
    assert engine == reference < 0.05


def test_int8_is_scored_in_its_own_engine_and_calibrated_without_the_samples(network: Path) -> None:
    found = measured(variant(network, saved(network.parent), **INT8), network.parent)
    assert found["accuracy"]["reference_score"] == RIGHT
    assert 0.9 < found["accuracy"]["score"] < RIGHT, "ranges of random inputs cost some"
    assert found["engine"]["calibration"]["source"] == artifacts.RANDOM


def test_what_is_timed_and_compared_are_some_of_the_samples(network: Path) -> None:
    """The cache has fp32's outputs for random inputs by then, and for other samples of the same name."""
    known = {image.tobytes() for image in HELD.inputs["x"]}
    asked = variant(network, saved(network.parent), 9)
    few, more = evaluation.feeds(asked, 4)["x"], evaluation.feeds(asked, 9)["x"]
    np.testing.assert_array_equal(more[:4], few)
    assert all(image.tobytes() in known for image in more)
    other = saved(network.parent, "other/held.npz", x=HELD.inputs["x"][::-1], labels=HELD.labels[::-1])
    for text in (None, asked.load.labels.path, other):
        found = measured(variant(network, text, 9), network.parent)
        assert found["mismatch"] is None, "else fp32 would not be fp32"


def test_samples_for_ranges_are_given_apart_and_errors_are_those_of_real_samples(network: Path) -> None:
    np.savez(network.parent / "train.npz", x=digits.DATA.training().inputs["x"][:200])
    asked = variant(network, saved(network.parent), 4, **INT8)
    data = calibration.parse(str(network.parent / "train.npz"))
    asked = dataclasses.replace(asked, onnx=dataclasses.replace(asked.onnx, calibration=data))
    found = measured(asked, network.parent)
    assert found["accuracy"]["sqnr_db"] > 30, "on random inputs it is 11 dB, for ranges are those of images"
    assert abs(found["accuracy"]["score"] - RIGHT) < 0.01
    (network.parent / "s" / "records").mkdir(parents=True)
    store = Store(network.parent / "s")
    store.write(record(asked, found))
    path = store.record_path(spec.variant_key(asked))
    traced = trace.trace(trace.of_record(store.read(path.stem)), trace.cache_root(path, None), 4)
    assert -10 * np.log10(traced[-1].output_noise_ratio) == pytest.approx(found["accuracy"]["sqnr_db"], abs=0.2)


def test_only_the_last_pass_is_scored(network: Path) -> None:
    asked = variant(network, saved(network.parent), repeats=2)
    assert "score" not in measured(asked, network.parent)["accuracy"]
    assert measured(asked, network.parent, repeat=1)["accuracy"]["score"] == RIGHT


def test_the_samples_are_in_the_key_of_the_variant_and_in_no_other(network: Path) -> None:
    one, moved = saved(network.parent), saved(network.parent, "moved.npz")
    edited = saved(network.parent, "edited.npz", labels=HELD.labels[::-1])
    plain, first, same, other = (variant(network, text) for text in (None, one, moved, edited))
    assert {spec.engine_key(item) for item in (first, same, other)} == {spec.engine_key(plain)}
    assert {spec.onnx_key(item) for item in (first, same, other)} == {spec.onnx_key(plain)}
    assert spec.variant_key(first) == spec.variant_key(same)
    assert len({spec.variant_key(item) for item in (plain, first, other)}) == 3
    assert first.load.labels == LabelledData(
        kind="npz", path=one, digest=first.load.labels.digest, output="logits", classes=10
    )


@pytest.mark.fault
def test_samples_that_change_after_the_plan_are_refused(network: Path) -> None:
    asked = variant(network, saved(network.parent))
    saved(network.parent, labels=HELD.labels[::-1])
    with pytest.raises(LabelError, match="has changed since it was planned; start the sweep again"):
        measured(asked, network.parent)


# pictures


def on_pictures(path: Path, batch: int | str = "batch") -> Path:
    """The digits network behind what turns a normalised picture of 8 x 8 back into its grey."""
    grey = [
        helper.make_node("Mul", ["picture", "deviation"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["rgb"]),
        helper.make_node("ReduceMean", ["rgb", "channels"], ["x"], keepdims=1),
    ]
    model = digits.digits()
    for node in reversed(grey):
        model.graph.node.insert(0, node)
    stored = {"deviation": DEVIATION, "mean": MEAN, "channels": np.array([1], np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items())
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("picture", TensorProto.FLOAT, [batch, 3, 8, 8]))
    model.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    onnx.save(model, path)
    return path


def drawn(folder: Path, names: tuple[str, ...], count: int = 597) -> None:
    """Held-out digits as PNGs, a folder a class."""
    for name in names:
        (folder / name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(HELD.inputs["x"][:count], HELD.labels[:count], strict=True)):
        grey = Image.fromarray(np.round(image[0] * 255).astype(np.uint8))
        grey.convert("RGB").save(folder / names[label] / f"{number}.png")


NAMED = ("a_zero", "b_one", "c_two", "d_three", "e_four", "f_five", "g_six", "h_seven", "i_eight", "j_nine")


@pytest.mark.parametrize("prefix", ["images:", ""])
def test_a_folder_of_pictures_a_class_in_sorted_order(prefix: str, network: Path) -> None:
    drawn(network.parent / "val", NAMED)
    asked = variant(on_pictures(network), f"{prefix}{network.parent / 'val'}", 50)
    assert asked.load.labels.kind == "images"
    assert scored(asked, network.parent) == (RIGHT, RIGHT, "597 pictures of val")
    assert evaluation.feeds(asked, 3)["picture"].shape == (3, 3, 8, 8)


def test_folders_may_be_numbers_of_classes_of_which_some_are_missing(network: Path) -> None:
    folder = network.parent / "some"
    drawn(folder, tuple(f"{number:02d}" for number in range(10)), 60)
    for gone in ("00", "03"):
        for file in (folder / gone).iterdir():
            file.unlink()
        (folder / gone).rmdir()
    (folder / "05" / "notes.txt").write_text("no picture")
    left = int(np.count_nonzero(~np.isin(HELD.labels[:60], (0, 3))))
    score, reference, what = scored(variant(on_pictures(network), str(folder)), network.parent)
    assert what == f"{left} pictures of some"
    assert score == reference > 0.9


def test_the_order_of_folders_and_a_picture_moved_are_in_the_digest(network: Path) -> None:
    drawn(network.parent / "val", NAMED, 30)
    before = variant(on_pictures(network), f"{network.parent / 'val'}").load.labels.digest
    (network.parent / "val" / "a_zero").rename(network.parent / "val" / "z_zero")
    assert variant(network, f"{network.parent / 'val'}").load.labels.digest != before


def test_a_folder_that_is_none_of_classes_is_one_line(network: Path) -> None:
    folder = network.parent / "val"
    on_pictures(network)
    refused(network, f"images:{folder}", "No such file or directory: give an .npz of inputs and labels, images:FOLDER")
    drawn(folder, NAMED[:3], 0)
    refused(
        network, str(folder), "holds 3 folders, but output logits has 10 classes: where some are missing, name each"
    )
    Image.new("RGB", (8, 8)).save(folder / "loose.png")
    for name in NAMED[:3]:
        (folder / name).rmdir()
    refused(network, str(folder), "no folders in it; give a folder of pictures for each class")
    drawn(folder, ("0", "10"), 0)
    refused(network, str(folder), "holds a folder 10, but output logits has 10 classes")
    (folder / "10").rename(folder / "9")
    refused(network, str(folder), "no .jpg, .jpeg, .png, .bmp, .webp in its 2 folders")
    (folder / "9" / "junk.png").write_bytes(b"no picture")
    refused(network, str(folder), "cannot be read: cannot identify image file")
    onnx.save(digits.digits(), network)
    Image.new("RGB", (8, 8)).save(folder / "9" / "junk.png")
    refused(network, str(folder), "cannot be read: images are for a network with one float input of 3 channels")


def test_a_picture_that_is_cut_short_is_one_line_with_its_name(network: Path) -> None:
    drawn(network.parent / "val", NAMED, 60)  # more than are looked at when it is planned
    big = network.parent / "val" / "j_nine" / "big.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(big)
    big.write_bytes(big.read_bytes()[:900])
    asked = variant(on_pictures(network), str(network.parent / "val"))
    with pytest.raises(LabelError, match=r"cannot be read: .*/val/j_nine/big.jpg: image file is truncated") as caught:
        measured(asked, network.parent)
    assert "\n" not in str(caught.value)


# functions

FUNCTIONS = """
    import numpy as np
    with np.load("held.npz") as file:
        X, LABELS = file["x"], file["labels"]

    def uneven(sizes=(1, 100, 3, 493)):
        start = 0
        for size in sizes:
            yield {"x": X[start:start + size]}, LABELS[start:start + size]
            start += size

    def listed():
        return [[{"x": X[:40]}, LABELS[:40].tolist()]]

    def other_each_time():
        yield {"x": X[:9] * np.float32(np.random.default_rng().random())}, LABELS[:9]

    def short():
        yield {"x": X[:9]}, LABELS[:8]

    def odd():
        yield {"x": X[:9]}

    def late():
        yield {"x": X[:9]}, LABELS[:9]
        yield {"x": X[:9]}, LABELS[:9] * 0 + 19

    def raises():
        raise OSError("the disk is away")

    def nothing():
        return []
"""


@pytest.fixture
def functions(network: Path) -> Path:
    saved(network.parent)
    (network.parent / "my_samples.py").write_text(textwrap.dedent(FUNCTIONS))
    return network


def test_a_function_gives_batches_of_any_size(functions: Path) -> None:
    asked = variant(functions, "my_samples:uneven", 64)
    assert scored(asked, functions.parent) == (RIGHT, RIGHT, "597 samples of my_samples:uneven")
    np.testing.assert_array_equal(evaluation.feeds(asked, 5)["x"], HELD.inputs["x"][:5])
    assert scored(variant(functions, "my_samples:listed"), functions.parent)[2] == "40 samples of my_samples:listed"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("short", "holds 8 labels for 9 samples"),
        ("odd", r"batch 0 is a dict, not \(arrays by input, labels\)"),
        ("raises", "raised OSError: the disk is away"),
        ("nothing", "gives no batch"),
    ],
)
def test_a_function_that_gives_what_cannot_be_scored_ends_before_the_build(
    name: str, line: str, functions: Path
) -> None:
    asked = variant(functions, f"my_samples:{name}")
    with pytest.raises(LabelError, match=f"model.labels=my_samples:{name}:? {line}"):
        measured(asked, functions.parent)
    assert not (functions.parent / "cache" / "engines").exists()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("late", r"labels\[\d\] is 19, but output logits has 10 classes, from 0 to 9"),
        ("other_each_time", "gives other samples each time; make it give the same, as by a seed"),
    ],
)
def test_what_a_function_gives_later_is_looked_at_too(name: str, line: str, functions: Path) -> None:
    with pytest.raises(LabelError, match=line):
        measured(variant(functions, f"my_samples:{name}"), functions.parent)


def test_a_function_that_reads_other_data_is_held_against_fp32_on_the_same(functions: Path) -> None:
    """Its source, and so its key, is as it was; the reference's score in the cache is of other labels."""
    assert scored(variant(functions, "my_samples:uneven"), functions.parent)[1] == RIGHT
    saved(functions.parent, labels=(HELD.labels + 1) % 10)
    del sys.modules["my_samples"]
    engine, reference, _ = scored(variant(functions, "my_samples:uneven"), functions.parent)
    assert engine == reference < 0.05


def test_a_function_in_a_yaml_is_refused_until_it_is_named(functions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = functions.parent / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "theirs.yaml").write_text("# @package _global_\nmodel:\n  labels: my_samples:uneven\n")
    words = [f"--config-dir={functions.parent / 'mine'}", "+experiment=theirs"]
    with pytest.raises(
        ConfigError, match=r"model\.labels=my_samples:uneven stands in a YAML, and functions run only if"
    ):
        compose.read(words)
    assert compose.read([*words, "model.labels=my_samples:uneven"])
    monkeypatch.setenv("SWEEP_ALLOW", "my_samples")
    assert compose.read(words)
    (folder / "theirs.yaml").write_text(
        "# @package _global_\nmodel:\n  labels: images:val\n  calibration: images:val\n"
    )
    monkeypatch.delenv("SWEEP_ALLOW")
    assert compose.read(words), "a folder is no function"


# what does not fit


def refused(path: Path, text: str, line: str, **more: Any) -> None:
    variants.labels._read_labels.cache_clear()
    with pytest.raises(ConfigError, match=re.escape(line)) as caught:
        variants.from_config(config(path, text, **more))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(("model.", "accuracy."))


def nan(values: np.ndarray) -> np.ndarray:
    spoilt = values.copy()
    spoilt[3] = np.nan
    return spoilt


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"labels": HELD.labels[:-1]}, "holds 596 labels for 597 samples"),
        ({"labels": HELD.labels.astype(float)}, "labels are float64, not integers: save them as .astype('int64')"),
        ({"labels": HELD.labels > 4}, "labels are bool, not integers"),
        ({"labels": np.eye(10)[HELD.labels]}, "labels have shape [597, 10], not one class a sample; of one-hot rows "),
        ({"labels": np.int64(3)}, "labels have shape [], not one class a sample"),
        ({"labels": HELD.labels - 1}, "is -1: classes count from 0"),
        ({"labels": HELD.labels + 1}, "is 10, but output logits has 10 classes, from 0 to 9; take 1 off labels that"),
        ({"labels": HELD.labels * 2}, "is 18, but output logits has 10 classes, from 0 to 9"),
        ({"x": nan(HELD.inputs["x"])}, "x holds 64 NaN or Inf of 38208 values: leave those samples out"),
        ({"x": HELD.inputs["x"].astype(float)}, "x is float64, the network takes float32"),
        ({"x": HELD.inputs["x"][:, 0]}, "x has shape [597, 8, 8], the network takes [batch,1,8,8]"),
        ({"z": np.zeros(597)}, "holds x, z, but the network takes x: name them so"),
        ({"x": HELD.inputs["x"][:0], "labels": HELD.labels[:0]}, "holds no sample"),
        ({"labels": np.array([None])}, "cannot be read: labels holds Python objects, not numbers"),
    ],
)
def test_an_npz_that_does_not_fit_is_one_line_before_anything_runs(arrays: dict, line: str, network: Path) -> None:
    refused(network, saved(network.parent, **arrays), line)


def test_what_is_no_labelled_data_is_one_line(network: Path) -> None:
    folder = network.parent
    np.savez(folder / "bare.npz", x=HELD.inputs["x"])
    refused(network, str(folder / "bare.npz"), "holds x, and no array labels")
    np.savez(folder / "misnamed.npz", images=HELD.inputs["x"], labels=HELD.labels)
    refused(network, str(folder / "misnamed.npz"), "holds images, but the network takes x: name them so")
    np.save(folder / "array.npy", HELD.labels)
    refused(network, str(folder / "array.npy"), "it is one array, not an .npz of arrays by input name and labels")
    cut = folder / "cut.npz"
    cut.write_bytes((folder / "bare.npz").read_bytes()[:5000])
    refused(network, str(cut), "cannot be read: it is no .npz or .npy, or was cut off")
    refused(network, "/dev/null", "is neither a file nor a folder: give an .npz of inputs and labels, images:FOLDER")
    refused(network, str(folder / "gone.npz"), "No such file or directory: give an .npz of inputs and labels, ")
    refused(network, "no_such_module:f", "no Python source of module no_such_module")
    refused(
        network, None, "model.scores=logits: names the output for model.labels, which is not given", scores="logits"
    )


@pytest.mark.parametrize(("name", "why"), [("digits", "brings its own labels"), ("tiny_cnn", "has random weights")])
def test_a_network_that_is_built_here_takes_no_labels(name: str, why: str) -> None:
    asked = Config(model=ModelConfig(name=name, labels="held.npz"), backend=BackendConfig(name="onnxruntime"))
    with pytest.raises(ConfigError, match=f"model.labels=held.npz: {name} is built here and {why}; labels are for a"):
        variants.from_config(asked)


# which output


def linear(path: Path, outputs: dict[str, list[int | str] | None], batch: int | str = "batch") -> Path:
    """From x [batch,4] every output the class scores x @ w, whatever shape is declared; ``mean`` is [batch,1]."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1)
        if name == "mean"
        else helper.make_node("MatMul", ["x", "w"], [name])
        for name in outputs
    ]
    declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])]
    weight = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "w")
    graph = helper.make_graph(nodes, "linear", given, declared, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def rows(folder: Path, count: int = 10, wrong: int = 3) -> str:
    """Samples whose class is the place of their one; ``wrong`` of them are labelled otherwise."""
    classes = np.arange(count) % 3
    given = np.eye(4, dtype=np.float32)[classes]
    np.savez(folder / "rows.npz", x=given, labels=np.where(np.arange(count) < wrong, (classes + 1) % 3, classes))
    return str(folder / "rows.npz")


def test_the_only_output_that_can_hold_scores_is_taken(network: Path) -> None:
    path = linear(network, {"mean": ["batch", 1], "y": ["batch", 3]})
    assert variant(path, rows(network.parent)).load.labels.output == "y"
    assert scored(variant(path, rows(network.parent), 4), network.parent)[0] == 0.7


def test_of_several_one_is_named(network: Path) -> None:
    path, text = linear(network, {"y": ["batch", 3], "aux": None, "mean": ["batch", 1]}), rows(network.parent)
    refused(path, text, "y and aux of mynet could be scores of classes; name one, as in model.scores=y")
    assert variants.from_config(config(path, text, "aux")).load.labels.output == "aux"
    refused(path, text, "model.scores=z: mynet has no such output; it has y [batch,3], aux of a shape not", scores="z")
    refused(path, text, "model.scores=mean: must be floats [batch,classes], and is mean [batch,1]", scores="mean")
    one, other = (spec.variant_key(variants.from_config(config(path, text, name))) for name in ("y", "aux"))
    assert one != other


def test_a_network_without_scores_of_classes_is_refused(network: Path) -> None:
    path = linear(network, {"mean": ["batch", 1]})
    refused(path, rows(network.parent), "no output of mynet is floats [batch,classes]; it has mean [batch,1]")


def test_shapes_that_the_file_leaves_open_are_seen_when_it_runs(network: Path) -> None:
    path = linear(network, {"y": None})
    assert variant(path, rows(network.parent)).load.labels.classes is None
    assert scored(variant(path, rows(network.parent)), network.parent)[0] == 0.7
    np.savez(network.parent / "rows.npz", x=np.eye(4, dtype=np.float32), labels=np.arange(4))
    with pytest.raises(LabelError, match="a sample is of class 3, but output y has 3, from 0"):
        measured(variant(path, str(network.parent / "rows.npz")), network.parent)
    path = linear(network.with_name("mean.onnx"), {"mean": None})
    with pytest.raises(
        LabelError, match=r"output mean has shape \[32, 1\] for a batch of 32, not \[batch,classes\]; mod"
    ):
        measured(variant(path, rows(network.parent)), network.parent)


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_network_without_a_batch_axis_takes_samples_along_its_first(fixed: int, network: Path) -> None:
    path = linear(network, {"y": [fixed, 3]}, fixed)
    assert scored(variant(path, rows(network.parent), fixed), network.parent)[0] == 0.7


def test_an_input_without_a_batch_axis_is_one_value_for_all(tmp_path: Path) -> None:
    rate = TensorSpec(name="rate", dtype="int64", shape=())
    both = Signature(inputs=(*FLAT.inputs, rate), outputs=("y",))
    given = {"x": np.ones((5, 4), np.float32), "labels": np.zeros(5, int)}
    np.savez(tmp_path / "one.npz", rate=np.int64(16000), **given)
    data = datasets.parse_labels(str(tmp_path / "one.npz"), "y", 3)
    feeds = [feed for feed, _ in datasets.Samples(data, both).batches(2)]
    assert [(feed["x"].shape, feed["rate"].shape) for feed in feeds] == [((2, 4), ())] * 3
    np.savez(tmp_path / "each.npz", rate=np.full(5, 16000), **given)
    data = datasets.parse_labels(str(tmp_path / "each.npz"), "y", 3)
    with pytest.raises(ConfigError, match="rate has a value a sample, but the network takes one for the whole batch"):
        datasets.check(data, both)
    apart = Signature(
        inputs=tuple(TensorSpec(name=name, dtype="float32", shape=(size, 4)) for name, size in (("x", 1), ("h", 2))),
        outputs=("y",),
    )
    with pytest.raises(ConfigError, match="the network has no batch axis, and its inputs no first size in common"):
        datasets.check(data, apart)


# gates, and what people see


def test_gates_of_the_score_make_it_invalid_and_keep_the_figure(network: Path) -> None:
    asked = variant(network, saved(network.parent), **INT8)
    found = measured(asked, network.parent, gates=Gates(max_score_drop=0.001))
    told = found["accuracy"]
    right = rf"accuracy: {told['score']:.2%} of 597 samples of held.npz are right, "
    line = r"points below fp32's 97.49%; 0.1 were allowed \(accuracy.max_score_drop\)"
    assert re.fullmatch(rf"{right}\d.\d\d {line}", found["mismatch"])
    line = r"below the 0.99 that was asked for \(accuracy.min_score\)"
    assert re.fullmatch(right + line, fault("int8", told, Gates(min_score=0.99)).message)
    assert fault("int8", told, Gates(max_score_drop=0.05, min_score=0.9)) is None


def test_a_drop_of_just_what_was_allowed_passes() -> None:
    known = {"sqnr_db": 40.0, "nonfinite": 0, "score": 0.7, "reference_score": 0.8, "scored_on": "10 samples of a"}
    assert fault("int8", known, Gates(max_score_drop=0.1, min_score=0.7)) is None
    assert fault("int8", known | {"score": 0.9}, Gates(max_score_drop=0.0)) is None, "better than fp32"
    assert fault("int8", known | {"score": None}, Gates(max_score_drop=0.0, min_score=1.0)) is None


@pytest.mark.parametrize(
    ("gates", "line"),
    [
        ({"min_score": 0.9}, "accuracy.min_score=0.9: mynet has no labels to be scored on; give model.labels="),
        ({"max_score_drop": 0.01}, "accuracy.max_score_drop=0.01: mynet has no labels to be scored on"),
    ],
)
def test_a_gate_of_the_score_without_labels_is_one_line(gates: dict, line: str, network: Path) -> None:
    refused(network, None, line, **gates)
    brought = Config(model=ModelConfig(name="digits"), accuracy=AccuracyConfig(**gates))
    assert variants.from_config(brought).load.labels is None


@pytest.mark.parametrize("values", [{"min_score": 1.1}, {"max_score_drop": -0.1}, {"max_score_drop": float("nan")}])
def test_a_gate_out_of_its_range_is_one_line(values: dict) -> None:
    (name,) = values
    with pytest.raises(ConfigError, match=f"accuracy.{name}=.*: must be from 0 to 1"):
        variants.settings(Config(accuracy=AccuracyConfig(**values)), ["batch=1"])


def record(asked: Variant, found: dict[str, Any], status: str = "ok") -> Record:
    error = {"stage": "realised", "kind": "Mismatch", "message": found["mismatch"], "stderr_tail": []}
    return Record(
        key=spec.variant_key(asked),
        sweep="s",
        status=status,
        started_at="2026-01-01T00:00:00+00:00",
        variant=spec.flat(asked),
        error=error if found["mismatch"] else None,
        **{name: found[name] for name in ("model", "engine", "realised", "accuracy")},
    )


def test_records_are_judged_by_the_gates_of_today(network: Path) -> None:
    asked, store = variant(network, saved(network.parent), **INT8), Store(network.parent / "s")
    made = record(asked, measured(asked, network.parent))
    store.write(made)
    strict = reevaluate.regated(store, made, Gates(max_score_drop=0.0))
    assert (strict.status, store.read(made.key).status) == ("invalid", "invalid")
    assert "accuracy.max_score_drop" in strict.error["message"]
    assert strict.error["gate"] == "max_score_drop"
    assert strict.accuracy == made.accuracy
    assert reevaluate.regated(store, strict, Gates(max_score_drop=0.05)) == made
    assert store.read(made.key).status == "ok"
    for why in (
        "asked for 2 streams, found 1 contexts",
        "under load, on stream 0: accuracy: the outputs lost 25.2 dB against those right after the timing",
        "client 2 of 4: accuracy: the outputs are 3.0 dB from the fp32 reference, below (accuracy.min_sqnr_db)",
    ):
        error = {"stage": "realised", "kind": "Mismatch", "message": why, "stderr_tail": []}
        for same in (error, error | {"gate": None}):
            untouched = Record(**{**vars_of(made), "status": "invalid", "error": same})
            assert reevaluate.regated(store, untouched, Gates()) is untouched
    old = {name: value for name, value in strict.error.items() if name != "gate"}
    assert reevaluate.regated(store, Record(**{**vars_of(strict), "error": old}), Gates()) == made, "the message has it"
    failed = Record(**{**vars_of(made), "status": "failed", "error": strict.error})
    assert reevaluate.regated(store, failed, Gates()) is failed


def vars_of(made: Record) -> dict[str, Any]:
    return {name: getattr(made, name) for name in Record.__dataclass_fields__}


def test_table_page_and_mlflow_say_what_was_scored(network: Path, tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    from sweep.report.outcome_lines import score_lines
    from sweep.report.ranking import answer

    asked = variant(network, saved(network.parent), **INT8)
    found = measured(asked, network.parent, gates=Gates(max_score_drop=0.0))
    made, out = record(asked, found, "invalid"), StringIO()
    shown = f"{found['accuracy']['score']:.2%}"
    table.print_outcome(Console(file=out, width=200), [made], answer([made], None), None)
    assert "top-1 on 597 samples of held.npz; fp32 97.49%" in out.getvalue()
    assert re.search(rf"invalid .* {shown}", out.getvalue())
    page = html.write(tmp_path / "page.html", "t", [made], None).read_text()
    assert f">{shown}</td>" in page
    assert "top-1 on 597 samples of held.npz; fp32 97.49%" in page
    told = {value.key: value.value for value in record_mapping.metrics(made)}
    assert (told["accuracy.score"], told["accuracy.reference_score"]) == (found["accuracy"]["score"], RIGHT)
    assert "peak_samples_per_s" not in told
    assert record_mapping.params(made)["load.labels.digest"] == asked.load.labels.digest
    named = Record(**{**vars_of(made), "variant": {**made.variant, "model": "other"}})
    assert score_lines([made, named])[0] == "mynet: top-1 on 597 samples of held.npz; fp32 97.49%"


def test_the_reference_is_computed_once_for_all_that_are_scored_alike(network: Path) -> None:
    text = saved(network.parent)
    for batch in (8, 16):
        measured(variant(network, text, batch), network.parent)
    kept = [
        path for path in (network.parent / "cache" / "references").glob("*/entry.json") if '"score"' in path.read_text()
    ]
    assert len(kept) == 1
