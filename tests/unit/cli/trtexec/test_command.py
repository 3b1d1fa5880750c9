"""A record as a command: every axis is a flag, a variable, or a line that says it is neither."""

import dataclasses
import json
import re
import shlex
import subprocess
from pathlib import Path

import factories
import pytest

from sweep import spec as sweep_axes
from sweep.backends import registry
from sweep.cli import commands
from sweep.cli.trtexec import artifact_paths, binary_versions, command, flags
from sweep.errors import ConfigError
from sweep.spec import side_by_side
from sweep.storage import record_file
from sweep.system import command_line

REFERENCE = Path(__file__).parents[4] / "results" / "reference"
KEPT = Path(__file__).parents[3] / "data" / "records"  # two real ones whose figures the tests know
ALONE = factories.variant("mlp")
BESIDE = sweep_axes.flat(side_by_side.beside(ALONE, [ALONE], "streams"))["beside"]
PATHS = [*sorted(KEPT.glob("*.json")), *sorted(REFERENCE.glob("h200/*/records/*.json"))]


def labelled(label):
    return next(path for path in PATHS if record_file.read(path).variant["label"] == label)


def changed(base, facts=None, realised=None, **variant):
    """The record with some facts, realised choices and axes replaced; ``load`` is merged."""
    load = base.variant["load"] | variant.pop("load", {})
    return dataclasses.replace(
        base,
        variant={**base.variant, **variant, "load": load},
        facts={**base.facts, **(facts or {})},
        realised={**base.realised, **(realised or {})},
    )


@pytest.fixture
def base():
    return record_file.read(labelled("unet fp32 b8 s1 graph"))


def made(found, path=PATHS[0]):
    return command.make(found, artifact_paths.find(found, path, None))


def trt(base, version, **variant):
    asked = {name: variant[name] for name in ("cuda_graph", "transfers", "wait") if name in variant}
    return changed(base, {"tensorrt": f"tensorrt {version}"}, asked, backend="tensorrt", **variant)


def test_every_published_record_prints() -> None:
    assert len(PATHS) > 50
    for path in PATHS:
        found = record_file.read(path)
        if found.engine is None:
            continue
        here = artifact_paths.find(found, path, None)
        (only,) = command.make(found, here)
        text = command.printed(found, here, only)
        assert only.dialect.versions == "TensorRT-RTX 1.5 and later"
        assert f"engines/{found.engine['key']}/engine.plan" in text
        assert "tensorrt_rtx \\\n" in text


def test_the_two_majors_of_trtexec_turn_their_defaults_round(base) -> None:
    """The same run in both: what one has to say is the other's default (sampleOptions.h, v10.16 and v11.0)."""
    graph_alone = {"cuda_graph": True, "transfers": False, "wait": "spin"}
    ten, eleven = (made(trt(base, version, **graph_alone))[0] for version in ("10.13.0.35", "11.1.0.106"))
    three = {"--useCudaGraph", "--noDataTransfers", "--useSpinWait"}
    assert three <= set(ten.load)
    assert not {"--noCudaGraph", "--includeDataTransfers", "--noSpinWait", *three} & set(eleven.load)
    neither = {"cuda_graph": False, "transfers": True, "wait": "block"}
    ten, eleven = (made(trt(base, version, **neither))[0] for version in ("10.13.0.35", "11.1.0.106"))
    assert {"--noCudaGraph", "--includeDataTransfers", "--noSpinWait"} <= set(eleven.load)
    assert not {"--noCudaGraph", "--includeDataTransfers", "--noSpinWait", *three} & set(ten.load)
    assert "--stronglyTyped" in ten.build
    assert "--stronglyTyped" not in eleven.build


@pytest.mark.parametrize(
    ("version", "on", "off"),
    [
        ("1.1.1.26", {"--useCudaGraph", "--noDataTransfers", "--useSpinWait"}, set()),
        ("1.4.0.76", {"--rtxCudaGraphStrategy=wholeGraph", "--noDataTransfers", "--useSpinWait"}, set()),
        (
            "1.6.1.120",
            {"--rtxCudaGraphStrategy=wholeGraph"},
            {"--rtxCudaGraphStrategy=disable", "--includeDataTransfers", "--noSpinWait"},
        ),
    ],
)
def test_tensorrt_rtx_by_version(base, version, on, off) -> None:
    known = {"--useCudaGraph", "--noDataTransfers", "--useSpinWait", "--rtxCudaGraphStrategy=wholeGraph"}
    known |= {"--rtxCudaGraphStrategy=disable", "--includeDataTransfers", "--noSpinWait"}
    for expected, axes_now in (
        (on, {"cuda_graph": True, "transfers": False, "wait": "spin"}),
        (off, {"cuda_graph": False, "transfers": True, "wait": "block"}),
    ):
        (only,) = made(changed(base, {"tensorrt": f"tensorrt_rtx {version}"}, axes_now, **axes_now))
        assert set(only.load) & known == expected


def test_what_ran_counts_not_what_was_left_to_the_default(base) -> None:
    """The record's variant has transfers and wait at null; ``realised`` says that they were on and spin."""
    assert (base.variant["transfers"], base.variant["wait"]) == (None, None)
    (ten,) = made(changed(base, {"tensorrt": "tensorrt 10.13.0.35"}, backend="tensorrt"))
    assert "--noDataTransfers" not in ten.load
    assert "--useSpinWait" in ten.load


KNOBS = [
    ({"builder_optimization_level": 5}, "--builderOptimizationLevel=5"),
    ({"max_aux_streams": 0}, "--maxAuxStreams=0"),
    ({"tiling": "none"}, "--tilingOptimizationLevel=0"),
    ({"tiling": "full"}, "--tilingOptimizationLevel=3"),
    ({"sparsity": "force"}, "--sparsity=force"),
    ({"workspace_mib": 1024}, "--memPoolSize=workspace:1024M"),
    ({"version_compatible": True}, "--versionCompatible"),
    ({"hardware_compatibility": "none"}, "--hardwareCompatibilityLevel=none"),
    ({"hardware_compatibility": "ampere_plus"}, "--hardwareCompatibilityLevel=ampere+"),
    (
        {"hardware_compatibility": "same_compute_capability"},
        "--hardwareCompatibilityLevel=sameComputeCapability",
    ),
    ({"refit": True}, "--refit"),
    ({"weight_streaming": True}, "--allowWeightStreaming"),
    ({"weight_streaming": True, "weight_streaming_budget_mib": 0}, "--weightStreamingBudget=0M"),
    ({"profiling_verbosity": "none"}, "--profilingVerbosity=none"),
    ({"plugins": ["/lib/a b.so"]}, "--staticPlugins=/lib/a b.so"),
    ({"plugins": [{"path": "/lib/a.so", "digest": "00"}]}, "--staticPlugins=/lib/a.so"),
    ({"batch": 3}, "--shapes=x:3x3x128x128"),
    ({"streams": 4}, "--infStreams=4"),
    ({"streams": 4}, "--threads"),
    ({"load": {"depth": 1}}, "--exposeDMA"),
    ({"load": {"warmup_s": 0.25}}, "--warmUp=250"),
    ({"load": {"min_s": 2.5}}, "--duration=2.5"),
    ({"load": {"min_requests": 6636}}, "--iterations=6636"),
    ({"precision": "fp16", "precision_recipe": {"name": "fp16", "dtype": "fp16"}}, "--noTF32"),
]


@pytest.mark.parametrize(("axis", "flag"), KNOBS)
@pytest.mark.parametrize("version", ["10.16.0.72", "11.1.0.106"])
def test_an_axis_is_its_flag_and_unset_it_is_none(base, version, axis, flag) -> None:
    (plain,) = made(trt(base, version, precision_recipe={"name": "tf32", "dtype": "tf32"}, batch=1))
    (asked,) = made(trt(base, version, **axis))
    assert flag not in plain.build
    assert flag in asked.build


def test_only_how_it_is_run_is_said_of_an_engine_that_is_loaded(base) -> None:
    (only,) = made(trt(base, "11.1.0.106", sparsity="enable", refit=True, workspace_mib=9, streams=2))
    assert only.load[0].startswith("--loadEngine=")
    assert "--infStreams=2" in only.load
    built = {"--sparsity=enable", "--refit", "--memPoolSize=workspace:9M", "--noTF32"}
    assert not built & set(only.load)
    assert built <= set(only.build)


@pytest.mark.parametrize("profile", [{"least": 1, "best": 8, "most": 32}, {"min": 1, "opt": 8, "max": 32}])
def test_a_range_profile_is_three_shapes_and_the_one_that_runs(base, profile) -> None:
    (only,) = made(trt(base, "11.1.0.106", profile=profile))
    for flag, batch in (("--minShapes", 1), ("--optShapes", 8), ("--maxShapes", 32)):
        assert f"{flag}=x:{batch}x3x128x128" in only.build
        assert not any(part.startswith(flag) for part in only.load)
    assert "--shapes=x:8x3x128x128" in only.load


def test_every_axis_is_a_flag_a_variable_or_a_line(base) -> None:
    """Nothing that decides a variant may vanish: changed alone, each axis changes what is printed."""
    other = {
        "batch": 2, "builder_optimization_level": 1, "max_aux_streams": 1, "tiling": "fast", "sparsity": "enable",
        "workspace_mib": 1, "streams": 2, "clients": 2, "mps": 50, "cuda_graph": False, "transfers": False,
        "wait": "yield", "repeats": 3, "seed": 7, "mps_build": 50, "sm_count": 16,
        "tactic_sources": "none", "max_tactics": 2, "tiling_l2_limit_kib": 64, "preview_features": "one",
        "build_route": "one", "io_format": "hwc", "context_memory": "user_managed", "persistent_cache_ratio": 0.5,
        "sharing": "streams", "beside": BESIDE,
        "profiles": {"way": "per_shape", "shapes": [[{"name": "h", "size": 64}]], "best": None}, "profile_switch": True,
    }  # fmt: skip
    ours = {item.name for kind in (sweep_axes.EngineAxes, sweep_axes.SessionAxes) for item in dataclasses.fields(kind)}
    elsewhere = ours - registry.get("tensorrt").honours  # axes of other backends alone
    assert {"intra_op_threads", "script"} <= elsewhere
    later = {
        "profile", "timing_cache", "profiling_verbosity", "version_compatible", "hardware_compatibility", "refit",
        "weight_streaming", "weight_streaming_budget_mib", "plugins", "plan",
    }  # fmt: skip
    assert ours - elsewhere - later <= set(other)
    start = trt(base, "10.13.0.35", cuda_graph=True, transfers=True, wait="spin")

    def text(found):
        here = artifact_paths.find(found, PATHS[0], None)
        printed = command.printed(found, here, command.make(found, here)[0])
        return [line for line in printed.splitlines() if "are made" not in line]

    for axis, value in other.items():
        assert text(changed(start, None, {axis: value}, **{axis: value})) != text(start), axis


@pytest.mark.parametrize(
    ("axis", "word"),
    [
        ({"load": {"kind": "curve"}}, "load=curve: poisson arrivals"),
        ({"load": {"kind": "constant"}}, "load=constant: constant arrivals"),
        ({"load": {"depth": 4}}, "load.depth=4: it keeps 2"),
        ({"clients": 3}, "clients=3: one process"),
        ({"mps": 25}, "mps: the variable gives the share only under a running nvidia-cuda-mps-control"),
        ({"mps_build": 25}, "mps_build=25: a build from ONNX runs under the same share"),
        ({"sm_count": 16}, "sm_count=16: it uses the whole GPU"),
        ({"repeats": 2}, "repeats=2"),
    ],
)
def test_what_has_no_flag_is_a_line(base, axis, word) -> None:
    (only,) = made(trt(base, "11.1.0.106", **axis))
    assert any(line.startswith(f"not expressible: {word}") for line in only.notes), only.notes


def test_copies_that_overlap_are_told_with_their_share(base) -> None:
    """Three CUDA streams of trtexec against one of sweep: (0.03619 + 0.04450) / 2.16492."""
    (only,) = made(base)
    assert any("may be up to 3.7% higher" in line for line in only.notes)
    (without,) = made(changed(base, None, {"transfers": False}))
    assert not any("copies beside" in line for line in without.notes)


def test_variables_go_before_the_command(base) -> None:
    assert flags.environment(base) == {"NVIDIA_TF32_OVERRIDE": "0"}
    assert flags.environment(changed(base, mps=50))["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "50"
    assert flags.environment(record_file.read(labelled("unet fp16 b8 s1 graph"))) == {}


def test_a_shell_gets_the_very_arguments(base, tmp_path) -> None:
    """What is printed, run by sh: spaces and quotes arrive as they are, the variable is set."""
    binary = tmp_path / "tensorrt_rtx"
    binary.write_text('#!/bin/sh\nprintf "%s\\n" "$NVIDIA_TF32_OVERRIDE" "$@"\n')
    binary.chmod(0o755)
    cache = tmp_path / "it's a cache"
    (only,) = command.make(base, artifact_paths.find(base, PATHS[0], cache))
    line = command.shell(only, only.build)
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, check=True
    )
    assert done.stdout.splitlines() == ["0", *only.build]
    assert f"--onnx={cache}/" in done.stdout


def test_a_version_that_is_not_recorded_prints_every_dialect(base) -> None:
    unknown = changed(base, {"tensorrt": None}, backend="tensorrt")
    assert [each.dialect.versions for each in made(unknown)] == ["TensorRT 10.x", "TensorRT 11.x"]


@pytest.mark.parametrize("backend", ["onnxruntime", "simulated"])
def test_other_backends_have_no_such_binary(base, backend) -> None:
    with pytest.raises(ConfigError, match=f"of backend {backend}, which has no trtexec") as caught:
        made(changed(base, backend=backend))
    assert "\n" not in str(caught.value)


def test_a_version_from_before_strong_typing_is_refused(base) -> None:
    with pytest.raises(ConfigError, match=r"flags are known from TensorRT 10\.0"):
        made(trt(base, "8.6.1"))


@pytest.mark.parametrize(
    ("said", "version"),
    [("tensorrt 10.13.0.35", (10, 13, 0, 35)), ("tensorrt_rtx 1.6.1.120", (1, 6, 1, 120)), (None, None), ("dev", None)],
)
def test_versions(said, version) -> None:
    assert binary_versions.library_version(said) == version


def user_file(folder, shape):
    """A user's ONNX: y = relu(x)."""
    from onnx import TensorProto, helper, save

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("a:0", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["a:0"], ["y"])], "g", values[:1], values[1:])
    path = folder / "own.onnx"
    save(helper.make_model(graph), path)
    return path


def own(base, path, **ref):
    return changed(base, model_ref={**base.variant["model_ref"], "name": "own", "path": str(path), **ref})


def test_a_users_dynamic_input_is_spelled_with_its_fixes(base, tmp_path) -> None:
    path = user_file(tmp_path, ["batch", "length"])
    inputs = [{"name": "a:0", "shape": ["batch", 64], "low": None, "high": None}]
    (only,) = made(own(base, path, inputs=inputs))
    assert "--shapes='a:0':8x64" in only.load
    (graph,) = (part for part in only.build if part.startswith("--onnx="))
    assert re.search(r"/cache/models/[0-9a-f]{16}/model\.onnx$", graph), "the file in the form that all libraries read"


def test_a_static_file_gets_no_shapes_since_trtexec_refuses_them(base, tmp_path) -> None:
    (only,) = made(own(base, user_file(tmp_path, [8, 64])))
    assert not any(part.startswith("--shapes") for part in (*only.load, *only.build))


def test_a_file_that_is_gone_is_told(base, tmp_path) -> None:
    gone = own(base, tmp_path / "gone.onnx")
    here = artifact_paths.find(gone, PATHS[0], None)
    (only,) = command.make(gone, here)
    assert "# add --shapes=NAME:8x... of each dynamic input:" in command.printed(gone, here, only)


def test_the_cache_stands_beside_the_sweep(base, tmp_path) -> None:
    here = artifact_paths.find(base, tmp_path / "results" / "s" / "records" / "k.json", None)
    assert here.engine == tmp_path / "results" / "cache" / "engines" / "5cae05c3f1adb17c" / "engine.plan"
    assert here.onnx.parent.parent == tmp_path / "results" / "cache" / "models"  # fp32 is the zoo's own graph
    half = record_file.read(labelled("unet fp16 b8 s1 graph"))
    assert (
        artifact_paths.find(half, PATHS[0], tmp_path).onnx == tmp_path / "onnx" / half.engine["onnx_key"] / "model.onnx"
    )


def test_the_advice_makes_the_same_engine(base) -> None:
    """Its words, planned by sweep itself, give the record's own typed ONNX and engine axes."""
    from sweep.config import compose, variants
    from sweep.runner import plan

    half = record_file.read(labelled("unet fp16 b8 s1 graph"))
    half = changed(half, max_aux_streams=1, wait="block", transfers=False)
    words = artifact_paths.find(half, PATHS[0], None).advice.removeprefix(f"{command_line.program()} ")
    request = compose.read(shlex.split(words))
    assert request is not None
    (work,) = plan.make(variants.from_config(config) for config in request.configs).works
    found = sweep_axes.flat(work.variant)
    assert {name: found[name] for name in ("model", "precision", "batch", "max_aux_streams", "wait", "transfers")} == {
        "model": "unet", "precision": "fp16", "batch": 8, "max_aux_streams": 1, "wait": "block", "transfers": False
    }  # fmt: skip
    later = {
        "inputs": (),
        "made_from": None,
        "export_inputs": (),
        "shape": None,
        "open_dimensions": None,
    }  # fields that the record's version had not
    assert found["model_ref"] == half.variant["model_ref"] | later


def test_a_plan_that_was_built_elsewhere_is_loaded_and_never_built(base, tmp_path) -> None:
    """The copy in the cache where it is there, else the user's own file; shapes are those that the plan told."""
    own = tmp_path / "their.plan"
    own.write_bytes(b"plan")
    built = {"plan": {"path": str(own), "digest": "d", "library": "tensorrt_rtx", "version": "1.6.1.120"}}
    native = {"precision": "as-built", "precision_recipe": {**base.variant["precision_recipe"], "dtype": "native"}}
    alone = {"model_ref": {**base.variant["model_ref"], "revision": None}, "weight_streaming_budget_mib": 3}
    inputs = [
        {"name": "x", "dtype": "float32", "shape": ["batch", 3], "dynamic": True, "least": [4, 3], "most": [4, 3]},
        {"name": "fixed", "dtype": "float32", "shape": [1], "dynamic": False, "least": [1], "most": [1]},
    ]
    found = dataclasses.replace(
        changed(base, **built, **native, **alone, batch=4, model="their"), engine={"key": "k", "inputs": inputs}
    )
    path = tmp_path / "s" / "records" / "key.json"
    for cached in (False, True):
        copy = tmp_path / "cache" / "engines" / "k" / "engine.plan"
        if cached:
            copy.parent.mkdir(parents=True)
            copy.write_bytes(b"plan")
        files = artifact_paths.find(found, path, None)
        (only,) = command.make(found, files)
        text = command.printed(found, files, only)
        assert only.build is None
        assert only.choose(files)[0] == f"--loadEngine={copy if cached else own}"
        assert {"--shapes=x:4x3", "--allowWeightStreaming", "--weightStreamingBudget=3M"} <= set(only.load)
        assert "--onnx" not in text
        assert "not there" not in text
    assert {"backend=tensorrt_rtx", f"model.engine={own}"} <= set(files.advice.split())
    assert "model=" not in files.advice
    assert "precision=" not in files.advice
    copy.unlink()
    own.unlink()
    gone = artifact_paths.find(found, path, None)
    with pytest.raises(ConfigError, match=r"their\.plan, which was built elsewhere and is not there; copy it back"):
        command.make(found, gone)[0].choose(gone)
    never = dataclasses.replace(found, engine=None)
    (only,) = command.make(never, gone)
    assert "add --shapes=NAME:4x... of each dynamic input: the plan was not loaded" in command.printed(
        never, gone, only
    )


def test_a_typed_file_beside_the_network_is_what_trtexec_builds(base, tmp_path) -> None:
    """And its advice, planned, takes the same file and keeps and searches the same nodes."""
    from sweep.config import compose, variants

    path, typed = user_file(tmp_path, [8, 64]), tmp_path / "a, typed.onnx"
    typed.write_bytes(path.read_bytes())
    recipe = {"name": "qat", "dtype": "native", "tool": "none", "path": str(typed)}
    found = changed(own(base, path, inputs=[]), precision="qat", precision_recipe=recipe)
    here = artifact_paths.find(found, PATHS[0], None)
    assert here.onnx == typed
    typed.rename(tmp_path / "moved.onnx")
    assert artifact_paths.find(found, PATHS[0], None).onnx == typed, "named, though it is gone"
    (tmp_path / "moved.onnx").rename(typed)
    search = {"gates": {"min_sqnr_db": 30.0}, "evaluations": 9}
    kept = {"name": "fp16", "dtype": "fp16", "keep": ["fc", "/head/*"], "search": search}
    searched = changed(found, precision="fp16", precision_recipe=kept)
    for each in (found, searched):
        words = artifact_paths.find(each, PATHS[0], None).advice.removeprefix(f"{command_line.program()} ")
        request = compose.read(shlex.split(words))
        assert request is not None
        again = variants.from_config(request.configs[0]).onnx.precision
        wanted = each.variant["precision_recipe"]
        assert (again.path, list(again.keep or [])) == (wanted.get("path"), wanted.get("keep", []))
        assert (again.search.evaluations if again.search else None) == wanted.get("search", {}).get("evaluations")


EVIL = "x\nrm -rf canary\r\x1b[31m\x9b2J\u202e$(touch canary)`id`;'"


@pytest.mark.fault
@pytest.mark.parametrize(
    "change",
    [
        {"label": EVIL},
        {"model": EVIL},
        {"precision": EVIL},
        {"profile": EVIL},
        {"facts": {"gpu": EVIL}},
        {"backend": EVIL},
        {"graph": EVIL},
        {"sm_count": EVIL},
    ],
)
def test_no_name_of_a_record_becomes_a_line_or_an_escape(base, tmp_path, capsys, change) -> None:
    """What is printed is comments, blank lines and one command, whatever the record holds."""
    facts = {"facts": change["facts"]} if "facts" in change else {}
    found = changed(base, facts.get("facts"), **{key: value for key, value in change.items() if key != "facts"})
    path = tmp_path / "s" / "records" / f"{found.key}.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(record_file.encode(found))
    code = commands.main(["trtexec", str(path)])
    out, err = capsys.readouterr()
    assert code in {0, 2}
    assert all(line.isprintable() for line in (out + err).split("\n"))
    assert len(err.splitlines()) == (code == 2)
    for line in out.splitlines():
        assert not line or line.startswith(("# ", "    --", "tensorrt_rtx", "trtexec", "NVIDIA_TF32_OVERRIDE=")), line


@pytest.mark.fault
@pytest.mark.parametrize("variant", [{}, {"load": "x"}, {"precision_recipe": "x"}, {"batch": None}])
def test_a_variant_of_which_no_command_can_be_made_is_one_line(base, tmp_path, capsys, variant) -> None:
    whole = dataclasses.asdict(base)
    whole["variant"] = {**(whole["variant"] if variant else {"label": "x", "backend": "tensorrt_rtx"}), **variant}
    path = tmp_path / "s" / "records" / f"{base.key}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(whole))
    assert commands.main(["trtexec", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_argument_that_cannot_be_typed_is_refused(base) -> None:
    (only,) = made(base)
    with pytest.raises(ConfigError, match=r"x\\x1b.* cannot be typed: rename what it names"):
        command.shell(only, ["--onnx=x\x1b[31m"])
