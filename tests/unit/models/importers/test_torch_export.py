"""Exports from PyTorch, for real where torch is; and what is said where something is missing or wrong."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import require

from sweep import models
from sweep.config import variants
from sweep.config.schema import BackendConfig, Config, ModelConfig, ScriptConfig
from sweep.errors import ConfigError, ModelError
from sweep.runner.worker.reference import run
from sweep.spec import ModelRef

NETS = '''
import torch
from torch import nn


class Block(nn.Module):
    """A residual block with batch norm, as in ResNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return torch.relu(x + self.body(x))


def resnet():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), Block(16), Block(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )


class Small(nn.Module):
    example_input_array = torch.zeros(1, 1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, image):
        return self.head(torch.relu(self.conv(image)).mean((2, 3)))


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, ids, mask):
        kept = self.table(ids) * mask.to(torch.float32).unsqueeze(-1)
        return self.head(kept.sum(1)), kept


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("no forward today\\nand more lines")


def failing():
    raise ValueError("no weights here")


def number():
    return 3


CONSTANT = 7
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of networks, as the user's current one."""
    (tmp_path / "sweep_nets.py").write_text(NETS)
    (tmp_path / "breaks.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def torch() -> None:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnxscript") is None:
        require.missing("torch", "torch and onnxscript are not installed: the extra `export`")


def ref(folder: Path, reference: str, **inputs: dict[str, object]) -> ModelRef:
    variants.model.export_torch.cache_clear()
    config = Config(backend=BackendConfig(name="simulated", script=ScriptConfig()), results=str(folder / "results"))
    config.model = ModelConfig(torch=reference, inputs=inputs)
    return variants.from_config(config).onnx.model


def refusal(folder: Path, reference: str, **inputs: dict[str, object]) -> str:
    with pytest.raises((ModelError, ConfigError)) as error:
        ref(folder, reference, **inputs)
    assert "\n" not in str(error.value)
    assert reference in str(error.value)
    assert not list(folder.glob("results/cache/models/*/model.onnx"))
    return str(error.value)


def test_a_residual_network_with_the_shapes_given(folder: Path) -> None:
    torch()
    made = ref(folder, "sweep_nets:resnet", input={"shape": ["batch", 3, 32, 32]})
    assert (made.name, made.made_from) == ("resnet", "torch sweep_nets:resnet")
    found = models.signature(made)
    assert [(spec.name, spec.dtype, spec.shape) for spec in found.inputs] == [
        ("input", "float32", ("batch", 3, 32, 32))
    ]
    onnx.checker.check_model(made.path, full_check=True)
    for batch in (1, 3):
        (logits,) = run(Path(str(made.path)), models.draw(found, batch, 0)).values()
        assert logits.shape == (batch, 10)
    code = (
        "import torch, numpy as np, sweep_nets, sys; torch.manual_seed(0); net = sweep_nets.resnet().eval()\n"
        "x = torch.tensor(np.load('x.npy'))\nnp.save('y.npy', net(x).detach().numpy())\n"
    )
    feeds = models.draw(found, 3, 0)
    np.save(folder / "x.npy", feeds["input"])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
    (logits,) = run(Path(str(made.path)), feeds).values()
    np.testing.assert_allclose(logits, np.load(folder / "y.npy"), atol=1e-5)


def test_a_module_that_brings_its_example(folder: Path) -> None:
    torch()
    made = ref(folder, "sweep_nets:Small")
    assert [(spec.name, spec.shape) for spec in models.signature(made).inputs] == [("image", ("batch", 1, 8, 8))]
    assert models.parameters(Path(str(made.path))) == 4 * 9 + 4 + 4 * 3 + 3


def test_integer_inputs_and_two_outputs(folder: Path) -> None:
    torch()
    ids = {"shape": ["batch", 6], "dtype": "int64", "high": 49}
    made = ref(folder, "sweep_nets:Text", ids=ids, mask={"shape": ["batch", 6], "dtype": "bool"})
    found = models.signature(made)
    assert [(spec.name, spec.dtype, spec.shape) for spec in found.inputs] == [
        ("ids", "int64", ("batch", 6)),
        ("mask", "bool", ("batch", 6)),
    ]
    assert found.inputs[0].bounds == (0, 49)
    outputs = run(Path(str(made.path)), models.draw(found, 3, 0))
    assert [value.shape for value in outputs.values()] == [(3, 2), (3, 6, 8)]


def test_nothing_is_exported_twice_until_the_code_changes(folder: Path) -> None:
    torch()
    first = ref(folder, "sweep_nets:Small")
    written = Path(str(first.path)).stat().st_mtime_ns
    again = ref(folder, "sweep_nets:Small")
    assert again == first
    assert Path(str(again.path)).stat().st_mtime_ns == written
    (folder / "sweep_nets.py").write_text(NETS.replace("mean((2, 3))", "amax((2, 3))"))
    assert ref(folder, "sweep_nets:Small").digest != first.digest


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_package.nets:small", "no module no_such_package in "),
        ("breaks:small", "importing breaks failed: ModuleNotFoundError: No module named 'no_such_library'"),
        ("sweep_nets:Smal", "sweep_nets has no Smal; did you mean Small?"),
        ("sweep_nets:CONSTANT", "CONSTANT is a int, and must be callable"),
        ("sweep_nets:failing", "calling failing() failed: ValueError: no weights here"),
        ("sweep_nets:number", "number() returned a int, and must return a torch.nn.Module"),
        ("sweep_nets:Text", "forward takes ids, mask); give them as in '+model.inputs.ids.shape=[batch,3,224,224]'"),
    ],
)
def test_what_cannot_be_made(folder: Path, reference: str, message: str) -> None:
    torch()
    assert message in refusal(folder, reference)


def test_a_forward_that_fails_is_told_in_one_line(folder: Path) -> None:
    torch()
    said = refusal(folder, "sweep_nets:Broken", x={"shape": ["batch", 3]})
    assert said.endswith("PyTorch could not export it: RuntimeError: no forward today")


def test_inputs_that_forward_does_not_take(folder: Path) -> None:
    torch()
    said = refusal(folder, "sweep_nets:Small", x={"shape": ["batch", 1, 8, 8]})
    assert "model.inputs names x, but forward takes image" in said


def test_without_torch_the_line_says_what_to_install(folder: Path) -> None:
    (folder / "torch.py").write_text("raise ImportError('not here')\n")  # found first, as the current folder is
    said = refusal(folder, "sweep_nets:Small")
    assert "exporting needs torch, which cannot be imported (not here); pip install torch onnxscript" in said


def test_a_child_that_dies_is_told_with_its_last_words(folder: Path) -> None:
    (folder / "torch.py").write_text("import os, sys\nsys.stderr.write('out of luck\\n')\nos._exit(9)\n")
    assert "the exporting process ended with status 9: out of luck" in refusal(folder, "sweep_nets:Small")


@pytest.mark.parametrize("reference", ["nets", "nets:", ":small", "nets/small.py:net", "a b:c"])
def test_a_reference_of_another_form(folder: Path, reference: str) -> None:
    assert "must be package.module:factory" in refusal(folder, reference)


def test_a_path_beside_it(folder: Path) -> None:
    config = Config(model=ModelConfig(torch="a:b", path="m.onnx"), results=str(folder))
    with pytest.raises(ConfigError, match=r"model.torch=a:b and model.path=m.onnx: give one of them"):
        variants.from_config(config)


def test_torch_stays_out_of_this_process(folder: Path) -> None:
    torch()
    before = "torch" in sys.modules
    ref(folder, "sweep_nets:Small")
    assert ("torch" in sys.modules) == before
