"""Real trained files with control flow and unnamed dimensions, as silero-vad ships them."""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from sweep.errors import ModelError
from sweep.models import check_batch, draw, inspect, parameters
from sweep.spec import InputFix, ModelRef


def silero(name: str) -> Path:
    found = importlib.util.find_spec("silero_vad")
    assert found is not None, "silero-vad is a development dependency: install it without its own dependencies"
    return Path(found.submodule_search_locations[0]) / "data" / name


RATE = InputFix(name="sr", low=16000, high=16000)
SILERO = {
    "silero_vad.onnx": (
        InputFix(name="input", shape=("batch", 576)),
        InputFix(name="state", shape=(2, "batch", 128)),
        RATE,
    ),
    "silero_vad_16k_op15.onnx": (InputFix(name="input", shape=("batch", 576), low=-1, high=1), RATE),
    "silero_vad_op18_ifless.onnx": (InputFix(name="input", shape=("batch", 576)), RATE),
    "silero_vad_half.onnx": (InputFix(name="input", shape=("batch", 576)),),
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", SILERO)
def test_real_networks_run_on_what_is_drawn(name: str, batch: int) -> None:
    path = silero(name)
    spec = inspect(path, ModelRef(name="silero", inputs=SILERO[name]))
    check_batch(spec, batch, "silero")
    assert {item.name: item.batch_axis for item in spec.inputs} | {"sr": None} == {"input": 0, "state": 1, "sr": None}
    assert parameters(path) > 100_000
    outputs = dict(zip(spec.outputs, ort.InferenceSession(path).run(None, draw(spec, batch, seed=0)), strict=True))
    assert outputs["output"].shape == (batch, 1)
    assert outputs["stateN"].shape == (2, batch, 128)
    assert len(np.unique(outputs["output"])) == batch


def test_real_network_without_fixes_says_what_to_type() -> None:
    with pytest.raises(ModelError) as error:
        inspect(silero("silero_vad.onnx"), ModelRef(name="silero"))
    assert str(error.value).endswith(
        "for example +model.inputs.input.shape=[batch,128] +model.inputs.state.shape=[2,batch,128]"
    )


def test_real_network_without_a_batch_axis() -> None:
    spec = inspect(silero("silero_vad_openvino_16k.onnx"), ModelRef(name="silero"))
    check_batch(spec, 1, "silero")
    with pytest.raises(ModelError, match=r"has no batch axis \(input 'input' is \[1,576\]\)"):
        check_batch(spec, 4, "silero")
