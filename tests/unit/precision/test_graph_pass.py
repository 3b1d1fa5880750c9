"""Passes over the fp32 graph: what they remove, what they must keep, and one line for each that does not."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import onnx
import passes
import pytest
from authored_graphs import IMAGE, Author, batch
from onnx import TensorProto, helper

from sweep import spec as axes
from sweep.config import compose, variants
from sweep.config.schema import Config
from sweep.errors import ConfigError, ConversionError
from sweep.models import file_digest
from sweep.precision import transform
from sweep.runner.worker import artifacts, model_files, reference
from sweep.spec import EngineAxes, GraphPass, LoadAxes, ModelRef, OnnxAxes, Precision, Variant
from sweep.storage.cache import Cache
from sweep.system import user_code

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODULE = """
    import onnx

    def untransposed(model):
        '''Takes out pairs of Transposes with nothing but a PRelu of one slope between them.'''
        graph = model.graph
        readers = {name: node for node in graph.node for name in node.input}
        for node in list(graph.node):
            if node.op_type != "Transpose":
                continue
            middle = readers[node.output[0]]
            last = readers[middle.output[0]]
            if middle.op_type == "Mul" and last.op_type == "Transpose":
                middle.input[0], middle.output[0] = node.input[0], last.output[0]
                graph.node.remove(node)
                graph.node.remove(last)
        return model

    def nothing(model):
        return None

    def raises(model):
        raise KeyError("no such node")

    def renames(model):
        model.graph.output[0].name = "z"
        model.graph.node[-1].output[0] = "z"
        return model

    def breaks(model):
        model.graph.node[0].input[0] = "nowhere"
        return model

    three = 3
"""


def transposes(count: int = 3) -> onnx.ModelProto:
    """Convolutions that an exporter has left in two layouts: NCHW to NHWC, a scale, and back."""
    g = Author()
    x = g.op("Conv", "x", g.weight(16, 3, 3, 3), pads=[1] * 4)
    for _ in range(count):
        x = g.op("Transpose", x, perm=[0, 2, 3, 1])
        x = g.op("Mul", x, g.const(np.float32(1.1)))
        x = g.op("Transpose", x, perm=[0, 3, 1, 2])
        x = g.op("Relu", g.op("Conv", x, g.weight(16, 16, 3, 3), pads=[1] * 4))
    # a pair side by side, which onnxslim knows
    x = g.op("Transpose", g.op("Transpose", x, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    return g.model(g.op("GlobalAveragePool", x), IMAGE, ["batch", 16, 1, 1])


def count(path: Path, op: str) -> int:
    return sum(node.op_type == op for node in onnx.load(path).graph.node)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a user's module and network."""
    (tmp_path / "my_passes.py").write_text(textwrap.dedent(MODULE))
    onnx.save(transposes(), tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_passes", "my_samples", "my_faulty"):  # of an earlier test
        monkeypatch.delitem(sys.modules, name, raising=False)
    variants.precision.graph_pass.cache_clear()
    return tmp_path


def asked(house: Path, graph: GraphPass | None, dtype: str = "fp32") -> Variant:
    ref = ModelRef(name="net", path=str(house / "net.onnx"), digest=file_digest(house / "net.onnx"))
    recipe = Precision(name=dtype, dtype=dtype, quantize_ops=("Conv",) if dtype == "int8" else (), **CALIBRATED[dtype])
    load = LoadAxes(kind="closed", warmup_s=0.0, min_s=0.02, min_requests=3, max_s=0.5)
    onnx_axes = OnnxAxes(model=ref, precision=recipe, graph=graph)
    return Variant(backend="onnxruntime", onnx=onnx_axes, engine=EngineAxes(batch=2), load=load)


CALIBRATED = {"fp32": {}, "int8": {"calibration_batches": 2}}


def loaded(spec: str) -> Callable[[onnx.ModelProto], object]:
    return user_code.load("graph", spec, user_code.digest("graph", spec))


def test_a_users_function_takes_the_pairs_out_and_nothing_else_changes(house: Path) -> None:
    function = loaded("my_passes:untransposed")
    told = transform(house / "net.onnx", "my_passes:untransposed", function, house / "out.onnx")
    assert (count(house / "net.onnx", "Transpose"), count(house / "out.onnx", "Transpose")) == (8, 2)
    assert told["nodes_before"] - told["nodes_after"] == 6

    feed = batch(transposes(), 2, 0)
    found = passes.against_fp32(house / "net.onnx", feed, reference.run(house / "out.onnx", feed))
    assert found["sqnr_db"] is None or found["sqnr_db"] > 110


def test_simplify_takes_out_a_pair_side_by_side(house: Path) -> None:
    told = transform(house / "net.onnx", "simplify", None, house / "out.onnx")
    assert count(house / "out.onnx", "Transpose") <= 6
    assert told["nodes_after"] < told["nodes_before"]
    before, after = (onnx.load(house / name) for name in ("net.onnx", "out.onnx"))
    assert [value.name for value in before.graph.output] == [value.name for value in after.graph.output]


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_it_goes_before_the_precision_and_the_reference_does_without(dtype: str, house: Path) -> None:
    variant = asked(house, variants.precision.graph_pass("my_passes:untransposed"), dtype)
    found = passes.measured(variant, house, cache=house / "c")
    assert found["mismatch"] is None
    told = found["engine"]["graph_pass"]
    assert (told["name"], told["nodes_before"] - told["nodes_after"]) == ("my_passes:untransposed", 6)
    with Cache(house / "c") as cache:
        source = model_files.model_file(variant, cache)
        passed, _ = artifacts.passed_file(variant, source, cache)
        typed, _ = artifacts.converted_file(variant, passed, cache)
    assert source == house / "net.onnx", "the reference is the graph as it was"
    assert count(typed, "Transpose") == 2
    assert axes.flat(variant)["graph"] == "my_passes:untransposed"
    assert variant.label.split()[4] == "my_passes:untransposed"


def test_an_edit_makes_it_again(house: Path) -> None:
    one = variants.precision.graph_pass("my_passes:untransposed")
    (house / "my_passes.py").write_text(textwrap.dedent(MODULE) + "\n# edited\n")
    variants.precision.graph_pass.cache_clear()
    other = variants.precision.graph_pass("my_passes:untransposed")
    assert axes.onnx_key(asked(house, one)) != axes.onnx_key(asked(house, other))
    assert axes.onnx_key(asked(house, None)) != axes.onnx_key(asked(house, one))
    with pytest.raises(ConversionError, match="its source has changed since it was planned; start the sweep again"):
        user_code.load("graph", "my_passes:untransposed", one.digest)


def test_nothing_of_a_module_runs_unless_its_source_is_the_planned_one(house: Path) -> None:
    (house / "my_loud.py").write_text("open('ran', 'w').close()\ndef f(model): return model\n")
    for planned, line in ((None, "sha256 of its source is not stated"), ("0" * 64, "its source has changed since")):
        with pytest.raises(ConversionError, match=line):
            user_code.load("graph", "my_loud:f", planned)
        assert not (house / "ran").exists()
    loaded("my_loud:f")
    assert (house / "ran").exists()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nothing", "gave a NoneType, not an onnx.ModelProto: return the graph"),
        ("raises", "KeyError: 'no such node'; mend the function"),
        ("renames", r"changed the outputs from y float\[\?,16,1,1\] to z float\[\?,16,1,1\]: a pass has to keep them"),
        ("breaks", "gave a graph that is not valid: .*; mend the function"),
    ],
)
def test_a_pass_that_goes_wrong_is_one_line(name: str, line: str, house: Path) -> None:
    function = loaded(f"my_passes:{name}")
    with pytest.raises(ConversionError, match=f"graph=my_passes:{name} on net.onnx:? {line}") as caught:
        transform(house / "net.onnx", f"my_passes:{name}", function, house / "out.onnx")
    assert "\n" not in str(caught.value)
    assert not (house / "out.onnx").exists()


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("tidy", "graph=tidy: no such pass; there are: none, simplify, or package.module:function"),
        ("my_passes:", "graph=my_passes:: no such pass"),
        ("my_pases:untransposed", "graph=my_pases:untransposed: no Python source of module my_pases in "),
        ("no.such:f", "graph=no.such:f: no Python source of module no.such"),
        ("my_passes:untranspose", "does not define untranspose; it defines breaks, nothing, onnx, raises, renames, "),
    ],
)
def test_a_pass_that_is_not_there_is_one_line(spec: str, line: str, house: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)) as caught:
        variants.from_config(Config(graph=spec))
    assert "\n" not in str(caught.value)


def test_what_is_no_function_is_one_line(house: Path) -> None:
    with pytest.raises(ConversionError, match="graph=my_passes:three is a int, not a function"):
        loaded("my_passes:three")
    (house / "my_faulty.py").write_text("import no_such_package\ndef f(model): return model\n")
    with pytest.raises(ConversionError, match="my_faulty:f cannot be imported: ModuleNotFoundError: No module named"):
        loaded("my_faulty:f")
    (house / "my_typo.py").write_text("def f(model:\n")
    with pytest.raises(ConfigError, match=r"my_typo:f: .*my_typo\.py is no Python \("):
        user_code.digest("graph", "my_typo:f")


def test_a_function_runs_only_if_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    user_code.refuse_unnamed("graph", ["none", "simplify", "my_passes:f"], ["graph=none,my_passes:f"])
    user_code.refuse_unnamed("graph", ["a.b:f", "c:g"], ["graph='a.b:f',c:g", "batch=1"])
    for typed in ([], ["batch=1"], ["graph=none"], ["model.calibration=shared.tricks:f"], ["graph=shared.tricks:ff"]):
        with pytest.raises(ConfigError, match=r"graph=shared\.tricks:f stands in a YAML.*or set SWEEP_ALLOW=shared"):
            user_code.refuse_unnamed("graph", ["shared.tricks:f"], typed)
    monkeypatch.setenv("SWEEP_ALLOW", "other, shared")
    user_code.refuse_unnamed("graph", ["shared.tricks:f"], [])


def test_an_input_of_another_type_is_a_change(tmp_path: Path) -> None:
    onnx.save(transposes(1), tmp_path / "net.onnx")

    def widened(model: onnx.ModelProto) -> onnx.ModelProto:
        model.graph.input[0].type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT16, ["b", 3, 16, 16]))
        return model

    with pytest.raises(ConversionError, match=r"changed the inputs from x float\[\?,3,16,16\] to x float16\["):
        transform(tmp_path / "net.onnx", "w", widened, tmp_path / "out.onnx")


@pytest.mark.parametrize(
    "content",
    [
        "# @package _global_\ngraph: shared.tricks:f\n",
        "# @package _global_\nmodel:\n  calibration: shared.tricks:f\n",
        "# @package _global_\nmodel:\n  torch: shared.tricks:f\n",
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      graph: none,shared.tricks:f\n",
    ],
)
def test_an_experiment_of_somebody_else_runs_no_function(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(compose.conf_folder(), tmp_path / "conf")
    (tmp_path / "conf" / "experiment" / "foreign.yaml").write_text(content)
    monkeypatch.setattr(compose, "conf_folder", lambda: tmp_path / "conf")
    monkeypatch.setattr(sys, "argv", ["sweep"])
    with pytest.raises(ConfigError, match=r"=shared\.tricks:f stands in a YAML, and functions run only if you name"):
        compose.read(["+experiment=foreign"])
    monkeypatch.setenv("SWEEP_ALLOW", "shared")
    found = compose.read(["+experiment=foreign"])
    assert "shared.tricks:f" in str(found.configs[-1])
