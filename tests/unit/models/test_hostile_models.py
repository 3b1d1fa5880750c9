"""Model files from anywhere: what leads out of its folder, cannot be read to its end, or changes, is one line."""

from __future__ import annotations

import os
import re
import socket
import stat
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sweep.errors import ModelError
from sweep.models import file_digest, inspect, resolve
from sweep.spec import ModelRef

pytestmark = pytest.mark.fault

REF = ModelRef(name="m", path="/m.onnx")
GIB = 1 << 30


def value(name: str, shape: list[object]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(*nodes: onnx.NodeProto, **more: object) -> onnx.ModelProto:
    """Y = x @ w, and whatever else is given."""
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    ends = [value("x", ["batch", 4])], [value("y", ["batch", 3])]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"]), *nodes], "g", *ends)
    graph.initializer.append(weight)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for name, item in more.items():
        getattr(made, name).append(item)
    return made


def outside(location: str, kind: int = TensorProto.FLOAT) -> onnx.TensorProto:
    """A tensor whose data is in another file."""
    tensor = onnx.TensorProto(name="stolen", data_type=kind, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def written(folder: Path, made: onnx.ModelProto) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def refusal(path: Path) -> str:
    began = time.process_time()
    with pytest.raises(ModelError) as caught:
        inspect(path, REF)
    assert time.process_time() - began < 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weights_at(folder: Path, location: str) -> Path:
    made = model()
    del made.graph.initializer[:]
    tensor = outside(location)
    tensor.name = "w"
    made.graph.initializer.append(tensor)
    return written(folder, made)


@pytest.fixture
def unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A secret outside the model's folder, and the check that nobody has opened it."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    before = secret.stat().st_atime_ns
    os.utime(secret, ns=(before - 10**15, secret.stat().st_mtime_ns))
    untouched = secret.stat().st_atime_ns
    yield folder
    assert secret.stat().st_atime_ns == untouched


@pytest.mark.parametrize(
    "location", ["../secret", "{secret}", "a/../../secret", "..\\secret", "./../secret", "~/../x/.."]
)
def test_weights_outside_the_folder(unread: Path, location: str) -> None:
    path = weights_at(unread, location.replace("{secret}", str(unread.parent / "secret")))
    assert "outside the model's folder" in refusal(path)


def test_a_link_out_of_the_folder(unread: Path) -> None:
    (unread / "w.bin").symlink_to(unread.parent / "secret")
    assert "a link out of its folder" in refusal(weights_at(unread, "w.bin"))


def test_a_folder_that_links_out(unread: Path) -> None:
    (unread / "sub").symlink_to(unread.parent)
    assert "a link out of its folder" in refusal(weights_at(unread, "sub/secret"))


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "w.bin").symlink_to("w.bin")
    assert "w.bin" in refusal(weights_at(tmp_path, "w.bin"))


def test_a_model_that_names_itself_as_the_file_of_its_weights(tmp_path: Path) -> None:
    assert "names itself as the file of its weights" in refusal(weights_at(tmp_path, "m.onnx"))


@pytest.mark.parametrize("name", ["batch", "MatMul", "w.bin", "stolen"])
def test_a_name_that_is_no_utf8(tmp_path: Path, name: str) -> None:
    """Of a size, an operator, the file of a weight, and a weight: protobuf gives bytes where text is due."""
    made = model()
    made.graph.initializer.append(outside("w.bin"))
    (tmp_path / "w.bin").write_bytes(bytes(64))
    path = written(tmp_path, made)
    inspect(path, REF)
    path.write_bytes(path.read_bytes().replace(name.encode(), b"\xff" + name.encode()[1:]))
    assert "holds a name that is no UTF-8" in refusal(path)


@pytest.mark.parametrize("where", ["input", "weight", "branch"])
def test_an_element_type_that_onnx_does_not_know(tmp_path: Path, where: str) -> None:
    made = model()
    if where == "input":
        made.graph.input[0].type.tensor_type.elem_type = 99
    elif where == "weight":
        made.graph.initializer[0].data_type = 99
    else:
        made.graph.node[0].attribute.append(helper.make_attribute("t", onnx.TensorProto(name="c", data_type=99)))
    assert "is of element type 99, which the installed onnx does not know" in refusal(written(tmp_path, made))


@pytest.mark.parametrize("location", ["a\0b", "a\x1b[2J", "a\nb"])
def test_a_location_that_is_no_name(tmp_path: Path, location: str) -> None:
    assert "\x1b" not in refusal(weights_at(tmp_path, location))


@pytest.mark.parametrize("size", ["9" * 5000, "-1", "1e9", "٣"])
def test_an_offset_that_is_no_number(tmp_path: Path, size: str) -> None:
    made = model()
    tensor = outside("w.bin")
    tensor.external_data.add(key="offset", value=size)
    made.graph.initializer.append(tensor)
    (tmp_path / "w.bin").write_bytes(bytes(64))
    path = written(tmp_path, made)
    if size == "٣":  # a digit to Python, though no other reader takes it
        inspect(path, REF)
    else:
        assert "export the model again" in refusal(path)


def hidden(place: str) -> onnx.ModelProto:
    """A model that keeps an external tensor where few readers look."""
    stolen, sparse = outside("../secret"), onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    sparse.indices.CopyFrom(outside("../secret", TensorProto.INT64))
    if place == "sparse indices":
        made = model()
        made.graph.sparse_initializer.append(sparse)
        return made
    if place == "constant":
        return model(helper.make_node("Constant", [], ["c"], value=stolen))
    if place == "sparse constant":
        return model(helper.make_node("Constant", [], ["c"], sparse_value=sparse))
    if place == "branch":
        node = helper.make_node("Identity", ["stolen"], ["o"])
        branch = helper.make_graph([node], "b", [], [value("o", [4])], [stolen])
        return model(helper.make_node("If", ["f"], ["z"], then_branch=branch, else_branch=branch))
    if place == "function":
        node = helper.make_node("Constant", [], ["c"], value=stolen)
        return model(functions=helper.make_function("d", "f", [], ["c"], [node], [helper.make_opsetid("", 17)]))
    training = onnx.TrainingInfoProto()
    training.initialization.initializer.append(stolen)
    return model(training_info=training)


@pytest.mark.parametrize("place", ["sparse indices", "constant", "sparse constant", "branch", "function", "training"])
def test_an_external_tensor_is_found_wherever_it_hides(unread: Path, place: str) -> None:
    assert "'../secret', outside the model's folder" in refusal(written(unread, hidden(place)))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    os.mkfifo(path)
    assert "is a pipe, socket or device" in refusal(path)


def test_a_socket_and_a_device(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        assert "is a pipe, socket or device" in refusal(path)
    assert "is a pipe, socket or device" in refusal(Path("/dev/zero"))


def test_weights_in_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.bin")
    assert "'w.bin'" in refusal(weights_at(tmp_path, "w.bin"))


def test_three_gigabytes_that_are_not_there(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "large.onnx")
    made = model()
    tensor = outside("large.bin")
    tensor.external_data.add(key="length", value=str(3 * GIB))
    made.graph.initializer.append(tensor)
    path = written(tmp_path, made)
    assert "'large.bin', which is not in" in refusal(path)
    (tmp_path / "large.bin").write_bytes(bytes(64))
    assert f"needs {3 * GIB} bytes of 'large.bin', which has 64" in refusal(path)


def test_three_gigabytes_in_one_file_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(3 * GIB)
    assert f"has {3 * GIB} bytes and an ONNX file at most" in refusal(path)
    assert path.stat().st_blocks == 0


def test_a_file_that_changes_is_refused_by_its_digest(tmp_path: Path) -> None:
    path = written(tmp_path, model())
    ref = ModelRef(name="m", path=str(path), digest=file_digest(path))
    assert resolve(ref, tmp_path / "unused") == path
    content = bytearray(path.read_bytes())
    stamps = path.stat()
    at = content.find(np.ones(12, np.float32).tobytes())
    content[at] ^= 1  # of a weight
    path.write_bytes(bytes(content))
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))  # as a copy that keeps times would
    with pytest.raises(ModelError, match=r"has changed since it was planned \(sha256 .* start the sweep again"):
        resolve(ref, tmp_path / "unused")


def test_names_with_a_terminals_control_codes_are_shown_as_text(tmp_path: Path) -> None:
    made = model()
    made.graph.input.append(value("\x1b]0;owned\x07\x1b[2J", ["any", "any"]))
    line = refusal(written(tmp_path, made))
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)
    assert "\\x1b" in line


def test_the_file_stays_as_it_was(tmp_path: Path) -> None:
    path = written(tmp_path, model())
    path.chmod(0o400)
    inspect(path, REF)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
