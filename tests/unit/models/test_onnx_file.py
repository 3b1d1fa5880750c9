import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from sweep.errors import ModelError
from sweep.models import draw, file_digest, inspect, onnx_file, parameters, resolve, signature
from sweep.spec import InputFix, ModelRef

REF = ModelRef(name="m", path="/m.onnx")
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


def value(name: str, shape: list[Any] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def matmul(
    inputs: list[onnx.ValueInfoProto] | None = None, outputs: list[onnx.ValueInfoProto] | None = None
) -> onnx.ModelProto:
    """Y = x @ w with x [batch,4] and w [4,3]."""
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [value("x", ["batch", 4])] if inputs is None else inputs,
            [value("y", ["batch", 3])] if outputs is None else outputs,
            [numpy_helper.from_array(WEIGHT, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def saved(tmp_path: Path, model: onnx.ModelProto, **how: Any) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(model, path, **how)
    return path


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose weights are in w.bin beside it."""
    return saved(tmp_path, matmul(), save_as_external_data=True, location="w.bin", size_threshold=0)


def relocated(path: Path, **entries: str) -> None:
    """The model with other external-data entries on its weight."""
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    kept = {item.key: item.value for item in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, text in kept.items():
        tensor.external_data.add(key=key, value=text)
    path.write_bytes(model.SerializeToString())


def refusal(path: Path, ref: ModelRef = REF) -> str:
    with pytest.raises(ModelError) as error:
        inspect(path, ref)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def test_inputs_and_outputs(tmp_path: Path) -> None:
    path = saved(tmp_path, matmul())
    found = inspect(path, REF)
    assert [(spec.name, spec.dtype, spec.shape) for spec in found.inputs] == [("x", "float32", ("batch", 4))]
    assert found.outputs == ("y",)
    assert parameters(path) == 12
    ref = ModelRef(name="m", path=str(path))
    assert signature(ref) == found
    assert resolve(ref, tmp_path / "unused.onnx") == path


def test_initializers_listed_as_inputs_are_weights(tmp_path: Path) -> None:
    path = saved(tmp_path, matmul(inputs=[value("x", ["batch", 4]), value("w", [4, 3])]))
    assert [spec.name for spec in inspect(path, REF).inputs] == ["x"]


@pytest.mark.parametrize("size", [None, -1, 0, ""])
def test_exporters_ways_to_say_any(tmp_path: Path, size: object) -> None:
    assert inspect(saved(tmp_path, matmul(inputs=[value("x", [size, 4])])), REF).inputs[0].shape == ("batch", 4)


def test_input_without_a_shape(tmp_path: Path) -> None:
    path = saved(tmp_path, matmul(inputs=[value("x", None)]))
    with pytest.raises(ModelError, match=r"'x' is \[\.\.\.\]; .* \+model\.inputs\.x\.shape=\[batch,128\]"):
        inspect(path, REF)
    fixed = ModelRef(name="m", inputs=(InputFix(name="x", shape=("batch", 4)),))
    assert inspect(path, fixed).inputs[0].shape == ("batch", 4)


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "gone.onnx"
    assert refusal(path) == f"{path}: No such file or directory; give model.path the path of an ONNX file"
    for read in (file_digest, parameters):
        with pytest.raises(ModelError, match="No such file"):
            read(path)


def test_folder(tmp_path: Path) -> None:
    assert "is a folder; give model.path the ONNX file in it" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty (0 bytes); download or export it again"),
        (b"\xff\xfe no protobuf", "is no ONNX model (broken protobuf); download or export it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer, not the model itself"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert message in refusal(path)


def test_half_a_download(tmp_path: Path) -> None:
    path = saved(tmp_path, matmul())
    path.write_bytes(path.read_bytes()[:-20])
    assert "broken protobuf" in refusal(path)


def test_no_outputs_and_no_inputs(tmp_path: Path) -> None:
    assert "has no graph outputs; is it an ONNX model" in refusal(saved(tmp_path, matmul(outputs=[])))
    assert "has no inputs besides its weights" in refusal(saved(tmp_path, matmul(inputs=[])))


def test_inputs_that_cannot_be_fed(tmp_path: Path) -> None:
    text = saved(tmp_path, matmul(inputs=[value("x", ["batch"], TensorProto.STRING)]))
    assert "input 'x' is of type STRING; export it with one of float32, float64" in refusal(text)
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    assert "input 'x' is a sequence_type; only tensors can be fed" in refusal(
        saved(tmp_path, matmul(inputs=[sequence]))
    )


def test_external_data_runs_and_counts(external: Path) -> None:
    spec = inspect(external, REF)
    assert parameters(external) == 12
    feed = draw(spec, 2, seed=0)
    (found,) = ort.InferenceSession(external).run(None, feed)
    np.testing.assert_allclose(found, feed["x"] @ WEIGHT, rtol=1e-5)


def test_digest_is_sha256sum_for_one_file(tmp_path: Path) -> None:
    path = saved(tmp_path, matmul())
    assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("age", ["new", "settled"])
def test_digest_follows_every_byte(external: Path, age: str) -> None:
    data = external.parent / "w.bin"
    if age == "settled":  # old enough that what was read of them is kept
        wait_until_settled(external, data)
    before = file_digest(external)
    assert file_digest(external) == before
    assert before != hashlib.sha256(external.read_bytes()).hexdigest()
    data.write_bytes(bytes(len(data.read_bytes())))
    changed = file_digest(external)
    assert changed != before
    relocated(external, checksum="x")
    assert file_digest(external) not in (before, changed)


def wait_until_settled(*files: Path) -> None:
    newest = max(file.stat().st_ctime for file in files)
    time.sleep(max(0.0, newest + 2.05 - time.time()))


def test_a_settled_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, matmul())
    wait_until_settled(path)
    first = inspect(path, REF)
    monkeypatch.setattr(onnx_file, "_load", None)
    assert all(inspect(path, REF) == first for _ in range(1000))


def test_digest_is_the_same_elsewhere(external: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    there = tmp_path_factory.mktemp("there")
    for file in external.parent.iterdir():
        (there / file.name).write_bytes(file.read_bytes())
    assert file_digest(there / "m.onnx") == file_digest(external)


def test_changed_since_planned(external: Path, tmp_path: Path) -> None:
    ref = ModelRef(name="m", path=str(external), digest=file_digest(external))
    assert resolve(ref, tmp_path / "unused") == external
    (external.parent / "w.bin").write_bytes(bytes(48))
    with pytest.raises(ModelError, match=r"has changed since it was planned .* start the sweep again"):
        resolve(ref, tmp_path / "unused")


def test_external_file_missing_or_short(external: Path) -> None:
    data = external.parent / "w.bin"
    data.write_bytes(bytes(40))
    assert "needs 48 bytes of 'w.bin', which has 40; download it again" in refusal(external)
    data.unlink()
    assert f"keeps weights in 'w.bin', which is not in {external.parent}; put it there" in refusal(external)
    with pytest.raises(ModelError, match="keeps weights in"):
        file_digest(external)
    assert parameters(external) == 12


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "..\\w.bin"])
def test_external_file_outside_the_folder(external: Path, location: str) -> None:
    relocated(external, location=location)
    assert f"weight 'w' is in {location!r}, outside the model's folder" in refusal(external)


def test_external_link_out_of_the_folder(external: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "w.bin"
    data = external.parent / "w.bin"
    data.rename(outside)
    data.symlink_to(outside)
    assert f"a link out of its folder to {outside}" in refusal(external)


def test_external_without_a_file_name(external: Path) -> None:
    relocated(external, location="")
    assert "weight 'w' is external but names no file" in refusal(external)


def test_weights_in_subgraphs_and_constants_count(tmp_path: Path) -> None:
    """Where both branches of an If hold a constant, all of them are found, external ones too."""
    branches = {
        f"{side}_branch": helper.make_graph(
            [helper.make_node("Constant", [], [side], value=numpy_helper.from_array(np.ones(size, np.float32)))],
            side,
            [],
            [value(side, None)],
        )
        for side, size in (("then", 5), ("else", 7))
    }
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("If", ["flag"], ["y"], **branches)],
            "g",
            [value("flag", [], TensorProto.BOOL)],
            [value("y", None)],
            [numpy_helper.from_array(np.ones(9, np.int64), "shape")],
        )
    )
    assert parameters(saved(tmp_path, model)) == 12
