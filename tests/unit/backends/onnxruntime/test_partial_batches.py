"""onnxruntime at fewer samples than its batch: same outputs, in their place; padded where the graph will not."""

import dataclasses

import factories
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sweep.backends.onnxruntime.backend import OnnxRuntime
from sweep.spec import LoadAxes, ModelRef

BATCH = 4
GATHERED = LoadAxes(batch_wait_ms=1.0)


def asked(load=GATHERED, streams=1):
    return factories.variant(ModelRef(name="net"), batch=BATCH, streams=streams, load=load)


def saved(path, nodes, inputs, outputs, initializers=()):
    def ends(named):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in named.items()]

    graph = helper.make_graph(nodes, "net", ends(inputs), ends(outputs), list(initializers))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def product(path, batch="N"):
    """A matrix product, batch first."""
    weight = numpy_helper.from_array(np.arange(20, dtype=np.float32).reshape(4, 5), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return saved(path, [node], {"x": [batch, 4]}, {"y": [batch, 5]}, [weight])


def loaded(model, tmp_path, feeds, variant):
    backend, target = OnnxRuntime(), tmp_path / "engine"
    target.mkdir()
    info = backend.build(model, variant, lambda _batch: {name: value.shape for name, value in feeds.items()}, target)
    return backend.load(target, info, variant, feeds)


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_requests_take_the_batches_in_turn_and_smaller_ones_keep_to_the_first(tmp_path) -> None:
    feeds = draw(BATCH, 4)
    session = loaded(product(tmp_path / "m.onnx"), tmp_path, {"x": feeds}, asked(streams=2))
    weight = np.arange(20, dtype=np.float32).reshape(4, 5)
    batches = [{"x": feeds + number} for number in range(3)]
    assert session.take_turns(batches) == 3
    for number in (0, 1, 2, 0):
        for place, stream in enumerate(session.streams):
            stream.enqueue()
            assert np.allclose(session.outputs_of(place)["y"], batches[number]["x"] @ weight, rtol=1e-4), number
    session.streams[1].enqueue(2)
    assert np.allclose(session.outputs_of(1)["y"][:2], feeds[:2] @ weight, rtol=1e-4)
    assert session.take_turns(batches[2:]) == 1
    session.streams[1].enqueue()
    assert np.allclose(session.outputs_of(1)["y"], batches[2]["x"] @ weight, rtol=1e-4)


def test_each_smaller_batch_writes_its_samples_and_no_others(tmp_path) -> None:
    session = loaded(product(tmp_path / "m.onnx"), tmp_path, {"x": draw(BATCH, 4)}, asked(streams=2))
    assert session.partial_batches
    full = session.outputs()["y"]
    assert full.any(axis=1).all()
    for stream in session.streams:
        for size in range(1, BATCH):
            stream._outputs["y"].update_inplace(np.zeros_like(full))
            stream.enqueue(size)
            stream.wait()
            assert np.allclose(stream.outputs()["y"][:size], full[:size], rtol=1e-5)
            assert not stream.outputs()["y"][size:].any()
        stream.enqueue()
        assert np.array_equal(stream.outputs()["y"], full)


def test_a_batch_that_is_not_the_first_axis_is_cut_there(tmp_path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "state"], ["sum"]),
        helper.make_node("Mul", ["sum", "scale"], ["next"]),
        helper.make_node("ReduceSum", ["next", "axes"], ["y"], keepdims=0),
    ]
    axes = numpy_helper.from_array(np.array([0], dtype=np.int64), "axes")
    inputs = {"x": ["N", 3], "state": [2, "N", 3], "scale": []}
    model = saved(tmp_path / "m.onnx", nodes, inputs, {"y": ["N", 3], "next": [2, "N", 3]}, [axes])
    feeds = {"x": draw(BATCH, 3), "state": draw(2, BATCH, 3) + 5, "scale": np.array(2, dtype=np.float32)}
    session = loaded(model, tmp_path, feeds, asked())
    assert session.partial_batches
    full = session.outputs()
    (stream,) = session.streams
    stream.enqueue(1)
    assert np.allclose(stream.outputs()["y"][0], full["y"][0])
    part = stream.outputs()["next"].ravel()[: 2 * 3].reshape(2, 3)  # the front of the buffer, as a batch of one
    assert np.allclose(part, full["next"][:, 0])


@pytest.mark.parametrize("case", ["static", "reshape", "two symbols"])
def test_a_graph_that_does_not_take_them_is_padded(case, tmp_path) -> None:
    feeds = {"x": draw(BATCH, 4)}
    if case == "static":
        model = product(tmp_path / "m.onnx", batch=BATCH)
    elif case == "reshape":  # an exporter that wrote the batch into the graph
        shape = numpy_helper.from_array(np.array([BATCH, 2, -1], dtype=np.int64), "shape")
        node = helper.make_node("Reshape", ["x", "shape"], ["y"])
        model = saved(tmp_path / "m.onnx", [node], {"x": ["N", 4]}, {"y": None}, [shape])
        feeds = {"x": draw(BATCH, 4)}
    else:
        node = helper.make_node("Relu", ["x"], ["y"])
        model = saved(tmp_path / "m.onnx", [node], {"x": [None, None]}, {"y": [None, None]})
        feeds = {"x": draw(BATCH, BATCH)}
    session = loaded(model, tmp_path, feeds, asked())
    assert not session.partial_batches
    with pytest.raises(IndexError):
        session.streams[0].enqueue(1)
    session.streams[0].enqueue()


def test_nothing_is_prepared_where_nothing_is_gathered(tmp_path) -> None:
    load = dataclasses.replace(GATHERED, batch_wait_ms=None)
    session = loaded(product(tmp_path / "m.onnx"), tmp_path, {"x": draw(BATCH, 4)}, asked(load))
    assert not session.partial_batches
