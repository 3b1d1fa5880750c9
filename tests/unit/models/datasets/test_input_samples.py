"""A user's own inputs: read in every form, in the types and shapes of the network, or refused in a line."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import passes
import pytest
from onnx import TensorProto, helper

from sweep import spec
from sweep.cli.bisect import trace
from sweep.cli.trtexec import loaded_inputs
from sweep.config import compose, variants
from sweep.config.variants import samples as config_samples
from sweep.errors import ModelError
from sweep.models import Signature, TensorSpec, datasets, evaluation
from sweep.models.datasets import input_samples, sample_files
from sweep.spec import SampleData, Variant

ROWS = np.arange(24, dtype=np.float32).reshape(8, 3)
ONE = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 3)),), outputs=("y",))
IDS = Signature(inputs=(TensorSpec(name="ids", dtype="int32", shape=("batch", 3)),), outputs=("y",))
STATE = Signature(
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=("batch", 3)),
        TensorSpec(name="state", dtype="float32", shape=(2, "batch", 4)),
        TensorSpec(name="rate", dtype="int64", shape=()),
    ),
    outputs=("y",),
)
FIXED = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=(2, 3)),), outputs=("y",))


def read(path: Path | str, signature: Signature = ONE) -> datasets.InputSamples:
    return datasets.InputSamples(datasets.parse_samples(str(path)), signature)


def test_every_form_of_file_gives_the_same_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "named.npz", x=ROWS)
    np.savez_compressed(tmp_path / "other.npz", anything=ROWS)
    np.save(tmp_path / "one.npy", ROWS)
    for name in ("samples", "batches", "archives"):
        (tmp_path / name).mkdir()
    for number, row in enumerate(ROWS):
        np.save(tmp_path / "samples" / f"{number}.npy", row)
    for number in range(2):
        np.save(tmp_path / "batches" / f"{number}.npy", ROWS[4 * number : 4 * number + 4])
        np.savez(tmp_path / "archives" / f"{number}.npz", x=ROWS[4 * number : 4 * number + 4])
    (tmp_path / "samples" / "notes.txt").write_text("no samples")
    for name in ("named.npz", "other.npz", "one.npy", "samples", "batches", "archives"):
        got = read(tmp_path / name)
        assert got.count == 8, name
        np.testing.assert_array_equal(got.feeds(3, 6)["x"], ROWS[[6, 7, 0]], err_msg=name)
        np.testing.assert_array_equal(got.feeds(4, 2, 4)["x"], ROWS[[6, 7, 4, 5]], err_msg=name)


def test_several_inputs_with_another_batch_axis_and_one_value_for_all(tmp_path: Path) -> None:
    state = np.arange(5 * 8, dtype=np.float64).reshape(2, 5, 4)
    along, first = {"state": state}, {"state": np.moveaxis(state, 1, 0)}
    for number, arrays in enumerate((along, first)):
        np.savez(tmp_path / f"{number}.npz", x=ROWS[:5], rate=np.full(5, 16000, np.int32), **arrays)
        got = read(tmp_path / f"{number}.npz", STATE).feeds(2, 4)
        np.testing.assert_array_equal(got["state"], state[:, [4, 0]].astype(np.float32))
        assert got["state"].flags.c_contiguous
        assert (got["rate"].shape, got["rate"].dtype, int(got["rate"])) == ((), np.int64, 16000)
    (tmp_path / "inputs").mkdir()
    for name, value in {"x": ROWS[:5], "rate": np.int64(8), **along}.items():
        np.save(tmp_path / "inputs" / f"{name}.npy", value)
    assert read(tmp_path / "inputs", STATE).count == 5


def test_a_network_without_a_batch_axis_takes_whole_inputs_or_as_many_samples_as_it_was_exported_with(
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "rows.npy", ROWS.reshape(4, 2, 3))
    np.save(tmp_path / "samples.npy", ROWS[:7])
    assert read(tmp_path / "rows.npy", FIXED).count == 4
    got = read(tmp_path / "samples.npy", FIXED)
    assert (got.count, got.size(1)) == (4, 1)
    np.testing.assert_array_equal(got.feeds(2, 3)["x"], ROWS[[6, 0]])


def test_types_are_changed_where_nothing_is_lost(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS.astype(">f8"))
    assert read(tmp_path / "x.npy").feeds(1, 0)["x"].dtype == np.float32
    np.save(tmp_path / "ids.npy", ROWS.astype(np.int64))
    assert read(tmp_path / "ids.npy", IDS).feeds(1, 0)["ids"].dtype == np.int32


def spoilt(folder: Path, kind: str) -> str:  # noqa: C901 - a branch a fault
    """Write the files of a fault and return their path."""
    path = folder / "x.npz"
    nan = ROWS.copy()
    nan[0, 0] = np.nan
    arrays: dict[str, dict[str, Any]] = {
        "names": {"wrong": ROWS, "too": ROWS},
        "labels": {"x": ROWS, "labels": np.arange(8)},
        "shape": {"x": ROWS[:, :2]},
        "rank": {"x": ROWS.reshape(2, 2, 2, 3)},
        "nan": {"x": nan},
        "empty": {"x": ROWS[:0]},
        "integers": {"x": ROWS.astype(np.uint8)},
        "large": {"x": ROWS.astype(np.float64) * 1e300},
        "objects": {"x": np.array([{}, None, []], dtype=object)},
    }
    if kind in arrays:
        np.savez(path, allow_pickle=True, **arrays[kind])
    elif kind == "truncated":
        np.savez(path, x=ROWS)
        path.write_bytes(path.read_bytes()[:-30])
    elif kind == "cut":
        path = folder / "x.npy"
        np.save(path, ROWS)
        path.write_bytes(path.read_bytes()[:-30])
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(6 << 30)
    elif kind == "bomb":
        with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 29, 3)}
            np.lib.format.write_array_header_1_0(file, header)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "nothing":
        path.touch()
    elif kind == "ending":
        path = folder / "x.csv"
        path.write_text("1,2,3")
    elif kind == "folder":
        path = folder / "none"
        path.mkdir()
    elif kind == "differ":
        path = folder / "sizes"
        path.mkdir()
        np.save(path / "0.npy", ROWS)
        np.save(path / "1.npy", ROWS[:, :2])
    return str(path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("names", "holds too, wrong, but the network takes x: name them so"),
        ("labels", "labels belong to model.labels=FILE"),
        ("shape", "x has shape [8, 2], the network takes [batch,3]"),
        ("rank", "x has shape [2, 2, 2, 3], the network takes [batch,3]"),
        ("nan", "x holds 1 NaN or Inf of 24 values: leave those samples out"),
        ("empty", "holds no sample"),
        ("integers", "x is uint8, the network takes float32: save it as .astype('float32')"),
        ("large", "x is float64 and holds 2.3e+301, which float32, the network's type, cannot hold"),
        ("objects", "x holds Python objects, not numbers; save one array of numbers per input"),
        ("truncated", "cannot be read: it is no .npz or .npy, or was cut off: copy or save it again"),
        ("cut", "cannot be read: it was cut off: 66 bytes of values where 96 are declared"),
        ("bomb", "cannot be read: x was cut off: 0 bytes of values where 6442450944 are declared"),
        ("huge", "holds 6.0 GiB, and 4 GiB at most are read into memory; save fewer samples"),
        ("pipe", "is a pipe, socket or device, not a file"),
        ("nothing", "is empty (0 bytes); save it again with numpy.savez"),
        ("ending", "ends neither in .npz nor .npy; give an .npz"),
        ("folder", "no .npz or .npy in that folder"),
        ("missing", "No such file or directory: give an .npz"),
        ("differ", "1.npy: x has shape [8, 2], the network takes [batch,3]"),
    ],
)
def test_what_cannot_be_fed_is_refused_in_one_line(kind: str, words: str, tmp_path: Path) -> None:
    path = spoilt(tmp_path, kind)
    with pytest.raises(ModelError) as refused:
        read(path)
    message = str(refused.value)
    assert words in message
    assert message.startswith("model.samples=")
    assert "\n" not in message


def test_integers_that_the_type_cannot_hold_and_values_that_differ_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", ids=ROWS.astype(np.int64) + (1 << 40))
    with pytest.raises(ModelError, match=r"ids is int64 and holds 1099511627776, which int32"):
        read(tmp_path / "x.npz", IDS)
    np.savez(tmp_path / "x.npz", x=ROWS, state=np.zeros((2, 8, 4), np.float32), rate=np.arange(8))
    with pytest.raises(ModelError, match="rate differs by sample, but the network takes one value of it for the whole"):
        read(tmp_path / "x.npz", STATE)
    np.save(tmp_path / "x.npy", ROWS)
    with pytest.raises(ModelError, match=r"x.npy holds one array, but the network takes x, state, rate"):
        read(tmp_path / "x.npy", STATE)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write y = relu(x w) with both sizes of x open, and samples that are far from random ones."""
    monkeypatch.chdir(tmp_path)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="mul"),
            helper.make_node("Relu", ["h"], ["y"], name="relu"),
        ],
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["unk__1", "unk__2"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor("w", TensorProto.FLOAT, [3, 4], np.linspace(-1, 1, 12))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "open.onnx")
    np.savez("own.npz", x=np.random.default_rng(0).normal(100, 30, (20, 3)))
    for cached in (config_samples._parsed, config_samples._headers, config_samples._read_samples):
        cached.cache_clear()
    input_samples.load.cache_clear()
    return tmp_path


def planned(*words: str) -> list[Variant]:
    short = ("load=closed", "load.warmup_s=0.01", "load.min_s=0.02", "load.min_requests=3", "load.max_s=0.3")
    request = compose.read(
        ("-m", f"model.path={Path('open.onnx').resolve()}", "backend=onnxruntime", "batch=3", *short, *words)
    )
    assert request is not None
    return [variants.from_config(config) for config in request.configs]


def test_samples_settle_sizes_and_their_content_is_the_key(network: Path) -> None:
    (first,) = planned("model.samples=own.npz")
    assert [(fix.name, fix.shape) for fix in first.onnx.model.inputs] == [("x", ("batch", 3))]
    assert first.load.samples is not None
    assert (first.load.samples.count, first.load.samples.calibrating) == (20, 10)
    (network / "own.npz").rename(network / "moved.npz")
    (moved,) = planned("model.samples=moved.npz")
    assert spec.variant_key(moved) == spec.variant_key(first)
    np.savez("other.npz", x=np.ones((20, 3)))
    (other,) = planned("model.samples=other.npz")
    assert spec.variant_key(other) != spec.variant_key(first)
    assert spec.engine_key(other) == spec.engine_key(first), "fp32 reads none of them"
    with pytest.raises(ModelError, match="x has shape"):
        planned("model.samples=moved.npz", "+model.inputs.x.shape=[batch,5]")


def test_samples_are_timed_compared_and_calibrate_apart(network: Path) -> None:
    fp32, int8 = planned("model.samples=own.npz", "precision=fp32,int8")
    fed = [feeds["x"] for feeds, _ in evaluation.turns(int8)]
    own = np.load("own.npz")["x"].astype(np.float32)
    assert [count for _, count in evaluation.turns(int8)] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(fed)[:10], own[10:])
    assert int8.onnx.calibration is not None
    assert (int8.onnx.calibration.kind, int8.onnx.calibration.first, fp32.onnx.calibration) == ("samples", 10, None)
    measured = passes.measured(int8, network)
    assert measured["engine"]["calibration"]["samples"] == 10
    assert measured["engine"]["calibration"]["source"].endswith("own.npz")
    assert measured["realised"]["inputs"] == "samples of own.npz (20)"
    assert measured["realised"]["input_batches"] == 4
    assert measured["accuracy"]["samples"] == 10
    assert measured["accuracy"]["sqnr_db"] > 15, "ranges of random values clip all of these"
    assert measured["accuracy"]["again"]["sqnr_db"] == measured["accuracy"]["sqnr_db"]
    assert measured["mismatch"] is None
    assert not [note for note in measured["realised"]["notes"] if "random" in note]
    flat = {"record": spec.flat(int8)}["record"]
    assert spec.from_record(flat).load.samples == int8.load.samples
    record = type("R", (), {"variant": flat, "engine": None})()
    assert trace.of_record(record).load.samples == int8.load.samples
    (flag,) = loaded_inputs.flags(record, network / "bins")
    assert flag == f"--loadInputs=x:{network / 'bins' / '0.bin'}"
    np.testing.assert_array_equal(np.fromfile(network / "bins" / "0.bin", np.float32).reshape(3, 3), own[10:13])


def test_few_samples_repeat_and_calibrate_on_what_is_compared_and_both_are_said(network: Path) -> None:
    np.savez("own.npz", x=np.load("own.npz")["x"][:2])
    (int8,) = planned("model.samples=own.npz", "precision=int8")
    assert int8.load.samples is not None
    assert int8.load.samples.calibrating == 0
    measured = passes.measured(int8, network)
    assert measured["accuracy"]["samples"] == 2
    notes = " ".join(measured["realised"]["notes"])
    assert "2 samples of own.npz fill a batch of 3, some of them twice" in notes
    assert "the 2 samples of own.npz calibrate and are compared on, too few to be set apart" in notes


def test_calibration_data_of_its_own_leaves_all_samples_to_the_comparison(network: Path) -> None:
    np.savez("train.npz", x=np.ones((8, 3), np.float32))
    (int8,) = planned(
        "model.samples=own.npz", "model.calibration=train.npz", "precision=int8", "+model.inputs.x.shape=[batch,3]"
    )
    assert int8.load.samples is not None
    assert int8.load.samples.calibrating == 0
    assert int8.onnx.calibration is not None
    assert int8.onnx.calibration.kind == "npz"
    assert sum(count for _, count in evaluation.turns(int8)) == 20


def test_samples_that_change_after_the_plan_end_the_variant(network: Path) -> None:
    (variant,) = planned("model.samples=own.npz")
    np.savez("own.npz", x=np.ones((20, 3)))
    with pytest.raises(ModelError, match="has changed since it was planned; start the sweep again"):
        passes.measured(variant, network)


def test_the_digest_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", ROWS)
    data = datasets.parse_samples(str(tmp_path / "one.npy"))
    assert dataclasses.replace(data, path=None) == SampleData(kind="npy", digest=data.digest)
    assert data.digest == sample_files.content(data)
