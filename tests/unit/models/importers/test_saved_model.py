"""TensorFlow's SavedModel, converted for real where tf2onnx is; and what is said where something is missing."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import require

from sweep import models
from sweep.config import variants
from sweep.config.schema import BackendConfig, Config, ModelConfig, ScriptConfig
from sweep.errors import ConfigError, ModelError
from sweep.runner.worker import reference
from sweep.spec import ModelRef

MAKER = """
import tensorflow as tf
class Net(tf.Module):
    def __init__(self):
        self.w = tf.Variable(tf.random.stateless_normal([3, 3, 3, 8], (0, 1)))
        self.v = tf.Variable(tf.random.stateless_normal([8, 5], (1, 1)))
    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32, name="image")])
    def __call__(self, image):
        hidden = tf.nn.relu(tf.nn.conv2d(image, self.w, 2, "SAME"))
        return {"logits": tf.matmul(tf.reduce_mean(hidden, [1, 2]), self.v)}
net = Net()
tf.saved_model.save(net, "small_net", signatures=net.__call__)
"""


def ref(folder: Path, **model: str) -> ModelRef:
    variants.model.convert_saved_model.cache_clear()
    config = Config(backend=BackendConfig(name="simulated", script=ScriptConfig()), results=str(folder / "results"))
    config.model = ModelConfig(**model)
    return variants.from_config(config).onnx.model


def test_a_network_is_converted_once(tmp_path: Path) -> None:
    if importlib.util.find_spec("tf2onnx") is None or importlib.util.find_spec("tensorflow") is None:
        require.missing("tensorflow", "tf2onnx and tensorflow are not installed: the extra `saved_model`")
    subprocess.run([sys.executable, "-c", MAKER], check=True, cwd=tmp_path, capture_output=True)
    made = ref(tmp_path, saved_model=str(tmp_path / "small_net"))
    assert (made.name, made.made_from) == ("small_net", f"saved_model {tmp_path / 'small_net'}")
    found = models.signature(made)
    assert [(spec.name, spec.shape) for spec in found.inputs] == [("image", ("batch", 16, 16, 3))]
    (logits,) = reference.run(Path(str(made.path)), models.draw(found, 3, 0)).values()
    assert logits.shape == (3, 5)
    assert logits.std() > 0
    written = Path(str(made.path)).stat().st_mtime_ns
    assert ref(tmp_path, saved_model=str(tmp_path / "small_net")) == made
    assert Path(str(made.path)).stat().st_mtime_ns == written


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no saved_model.pb in it; give the folder that "):
        ref(tmp_path, saved_model=str(tmp_path))


def test_without_tf2onnx_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "tf2onnx":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ModelError, match="needs tf2onnx, which is not installed; pip install tf2onnx tensorflow"):
        ref(tmp_path, saved_model=str(tmp_path))


def test_several_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.saved_model=a and model.path=m.onnx: give one of them"):
        ref(tmp_path, saved_model="a", path="m.onnx")
