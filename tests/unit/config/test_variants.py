"""Values that types cannot check, names of sweeps, and what a user says of their own model's inputs."""

import dataclasses
import json
import sys

import onnx
import pytest
from authored_graphs import NETWORKS
from factories import config
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from sweep.config import compose, variants
from sweep.config.variants.model import read_shape
from sweep.errors import ConfigError, ModelError
from sweep.spec import Gates, InputFix, NodeSearch, Precision, Profile, Variant, engine_key, onnx_key, variant_key
from sweep.spec.slo import Slo
from sweep.system import serialization

INF, NAN = float("inf"), float("nan")


def test_a_config_becomes_the_axes_it_asks_for() -> None:
    made = variants.from_config(
        config(
            batch=8,
            streams=2,
            clients=3,
            mps=50,
            cuda_graph=True,
            seed=4,
            repeats=5,
            backend__intra_op_threads=6,
            load__fractions=[0.9, 0.2],
        )
    )
    assert made.engine.batch == 8
    assert (made.session.streams, made.session.clients, made.session.mps, made.session.cuda_graph) == (2, 3, 50, True)
    assert made.session.intra_op_threads == 6
    assert made.session.script
    assert (made.load.seed, made.load.repeats, made.load.fractions) == (4, 5, (0.2, 0.9))


def test_the_share_is_in_the_engine_only_where_it_is_built_under_it() -> None:
    assert variants.from_config(config(mps=50)).engine.mps_build is None
    built = variants.from_config(config(mps=50, mps_build=True))
    assert (built.session.mps, built.engine.mps_build) == (50, 50)
    assert variants.from_config(config(sm_count=16)).session.sm_count == 16


def test_a_daemon_of_the_users_is_a_folder_that_is_there(tmp_path) -> None:
    assert variants.settings(config(), []).mps_pipe_directory is None
    found = variants.settings(config(mps_pipe_directory=str(tmp_path)), []).mps_pipe_directory
    assert found == str(tmp_path)
    with pytest.raises(ConfigError, match=r"mps_pipe_directory=.*/none: no such folder; it is CUDA_MPS_PIPE"):
        variants.settings(config(mps_pipe_directory=f"{tmp_path}/none"), [])


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"batch": 0}, "batch=0: must be 1 or more"),
        ({"batch": 10**23}, f"batch={10**23}: must be at most {2**31 - 1}"),
        ({"streams": 100_000}, "streams=100000: must be at most 4096"),
        ({"clients": 1000}, "clients=1000: must be at most 256"),
        ({"repeats": 10**12}, "repeats=1000000000000: must be at most 10000"),
        ({"load__points": 10**9}, "load.points=1000000000: must be at most 1000"),
        ({"load__kind": "poisson", "load__rates_ips": [1.0, 1e300]}, "load.rates_ips=1e+300: must be at most 1e+09"),
        ({"streams": 0}, "streams=0: "),
        ({"clients": -1}, "clients=-1: "),
        ({"repeats": 0}, "repeats=0: "),
        ({"seed": -1}, "seed=-1: must be 0 or more"),
        ({"mps": 0}, "mps=0: a percentage from 1 to 100"),
        ({"mps": 101}, "mps=101: "),
        ({"mps_build": True}, "mps_build=true builds under the share of mps, and none is set"),
        ({"sm_count": 0}, "sm_count=0: must be 1 or more"),
        ({"backend__name": "abacus"}, "backend=abacus: no such backend; there are: auto, "),
        ({"backend__intra_op_threads": 0}, "backend.intra_op_threads=0: "),
        ({"backend__script__service_us": 0.0}, "backend.script.service_us=0: must be above 0"),
        ({"backend__script__sample_us": -1.0}, "backend.script.sample_us=-1.0: "),
        ({"backend__script__distribution": "zipf"}, "backend.script.distribution=zipf: constant or exponential"),
        ({"backend__script__raise_at": "lunch"}, "backend.script.raise_at=lunch: "),
        ({"precision__dtype": "fp12"}, "precision.dtype=fp12: no such type; there are: fp32, "),
        ({"precision__dtype": "int8"}, "precision.calibration_batches=0: "),
        ({"precision__dtype": "fp8", "precision__calibration_batches": 0}, "precision.calibration_batches=0: "),
        ({"precision__dtype": "fp16", "precision__guard": True}, "precision.calibration_batches=0: "),
        ({"precision__dtype": "fp16", "precision__rest": "bf16"}, "precision.rest=bf16: dtype fp16 leaves no rest; "),
        (
            {"precision__dtype": "int8", "precision__rest": "fp8", "precision__calibration_batches": 1},
            "precision.rest=fp8: no such choice; there are: fp16, bf16",
        ),
        ({"backend__sparsity": "wish"}, "backend.sparsity=wish: no such choice; there are: enable, force"),
        ({"load__kind": "bursts"}, "load.kind=bursts: no such kind; there are: curve, closed, poisson, constant"),
        ({"load__arrivals": "bursts"}, "load.arrivals=bursts: no such kind; "),
        ({"load__depth": 0}, "load.depth=0: "),
        ({"load__min_requests": 0}, "load.min_requests=0: "),
        ({"load__warmup_s": -0.1}, "load.warmup_s=-0.1: "),
        ({"load__min_s": 0.0}, "load.min_s=0: must be above 0"),
        ({"load__max_wait_s": 0.0}, "load.max_wait_s=0: "),
        ({"load__min_s": 3.0, "load__max_s": 2.0}, "load.max_s=2 is shorter than load.min_s=3"),
        ({"load__kind": "poisson"}, "load.kind=poisson needs load.rates_ips"),
        ({"load__kind": "constant"}, "load.kind=constant needs load.rates_ips"),
        ({"load__points": 2}, "load.points=2: must be 3 or more"),
        ({"load__budget_s": 3.0}, "load.budget_s=3: 8 points with load.warmup_s=0.3 and repeats=1 need 5.8 or more"),
        ({"backend__script__wake_us": -1.0}, "backend.script.wake_us=-1.0: "),
        ({"load__fractions": [0.5, 0.0]}, "load.fractions=0: must be above 0"),
        ({"load__kind": "poisson", "load__rates_ips": [100.0, -5.0]}, "load.rates_ips=-5: "),
        ({"batch": 8, "batching__max_wait_ms": -1.0}, "batching.max_wait_ms=-1.0: must be 0 or more"),
        ({"batch": 8, "batching__max_wait_ms": NAN}, "batching.max_wait_ms=nan: "),
        ({"batch": 1, "batching__max_wait_ms": INF}, "batching.max_wait_ms=inf: "),
        ({"model__name": "resnet51"}, "resnet51"),
        ({"profile": "dynamic"}, "profile=dynamic: no such choice; there are: static, range"),
        ({"profile": "range", "range__least": 0}, "range=0..1..1: range.least, range.best and range.most must ascend"),
        ({"profile": "range", "range__best": 8, "range__most": 4}, "range=1..8..4: "),
        ({"profile": "range", "batch": 16, "range__best": 4, "range__most": 8}, "batch=16 is outside range=1..4..8"),
        ({"backend__hardware_compatibility": "all"}, "backend.hardware_compatibility=all: no such choice; there are:"),
        ({"backend__profiling_verbosity": "loud"}, "backend.profiling_verbosity=loud: no such choice"),
        ({"backend__weight_streaming_budget_mib": 5}, "needs backend.weight_streaming=true"),
        ({"backend__weight_streaming": True, "backend__weight_streaming_budget_mib": -1}, "budget_mib=-1: must be 0"),
        ({"backend__plugins": ["/nowhere/lib.so"]}, "backend.plugins: /nowhere/lib.so cannot be read: No such file"),
        ({"model__inputs": {"x": {"low": 0}}}, "model.inputs: tiny_cnn is built here"),
    ],
)
def test_a_value_out_of_range_is_one_line_with_key_and_value(values, line) -> None:
    with pytest.raises((ConfigError, ModelError)) as caught:
        variants.from_config(config(**values))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        *(
            {key: bad}
            for key in ("load__warmup_s", "load__min_s", "load__max_wait_s", "load__max_s")
            for bad in (INF, NAN)
        ),
        {"load__min_s": INF, "load__max_s": INF},
        {"load__fractions": [1.0, NAN]},
        {"load__fractions": [INF]},
        {"load__kind": "poisson", "load__rates_ips": [5.0, NAN]},
        {"load__kind": "poisson", "load__rates_ips": [INF]},
        {"backend__script__service_us": INF},
        {"backend__script__sample_us": NAN},
    ],
)
def test_a_load_that_is_no_number_is_refused_before_it_is_measured(values) -> None:
    """A record cannot hold it, so the sweep would end in a traceback once the first variant was measured."""
    with pytest.raises(ConfigError, match=r"load\.|backend\.script\."):
        variants.from_config(config(**values))


@pytest.mark.parametrize(
    "values", [{"timeout_s": INF}, {"timeout_s": NAN}, {"slo__p99_ms": INF}, {"cache_gib": 1e300}, {"cache_gib": INF}]
)
def test_a_setting_that_is_no_number_or_has_no_bound_is_refused(values) -> None:
    with pytest.raises(ConfigError, match=r"timeout_s|slo\.p99_ms|cache_gib"):
        variants.settings(config(**values), [])


@pytest.mark.parametrize(
    "values", [{"load__kind": "closed", "load__fractions": []}, {"mps": 1}, {"mps": 100}, {"seed": 0}]
)
def test_the_ends_of_the_ranges_are_in(values) -> None:
    variants.from_config(config(**values))


def test_a_range_profile_is_one_engine_for_every_batch_in_it() -> None:
    asked = {"profile": "range", "range__best": 8, "range__most": 32}
    made = [variants.from_config(config(batch=batch, **asked)) for batch in (1, 8, 32)]
    assert {variant.engine.profile for variant in made} == {Profile(least=1, best=8, most=32)}
    assert len({engine_key(variant) for variant in made}) == 1
    assert len({variant_key(variant) for variant in made}) == 3
    assert "profile1..8..32" in made[0].label
    other = variants.from_config(config(batch=8, **(asked | {"range__most": 64})))
    assert engine_key(other) != engine_key(made[0])
    (alone,) = {variants.from_config(config(batch=8, profile="range")).engine.profile}
    assert alone == Profile(least=1, best=8, most=8)


def test_a_plugin_is_known_by_its_content_also_where_its_path_is_relative(tmp_path, monkeypatch) -> None:
    keys = set()
    for folder, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "lib.so").write_bytes(content)
        monkeypatch.chdir(tmp_path / folder)
        made = variants.from_config(config(backend__plugins=["lib.so"]))
        keys.add(engine_key(made))
        assert serialization.from_plain(Variant, json.loads(json.dumps(serialization.to_plain(made)))) == made
    assert len(keys) == 2


def test_what_a_kind_of_load_does_not_use_is_not_in_its_key() -> None:
    closed = [config(load__kind="closed", load__fractions=rungs) for rungs in ([0.5], [0.7, 0.9])]
    assert len({variant_key(variants.from_config(item)) for item in closed}) == 1
    curves = [config(load__fractions=rungs) for rungs in ([0.5, 0.7], [0.7, 0.5], [0.5])]
    assert len({variant_key(variants.from_config(item)) for item in curves}) == 2


def test_batching_is_a_variant_that_shares_its_engine() -> None:
    made = [variants.from_config(config(batch=8, batching__max_wait_ms=wait)) for wait in (None, 0.0, 2.0, 2.5)]
    assert len({variant_key(item) for item in made}) == 4
    assert len({engine_key(item) for item in made}) == 1
    assert [item.label for item in made[1:]] == [f"tiny_cnn fp32 b8 s1 w{wait}ms" for wait in ("0", "2", "2.5")]


@pytest.mark.parametrize("values", [{"batch": 1}, {"batch": 8, "load__kind": "closed"}])
def test_where_there_is_nothing_to_gather_batching_is_no_axis(values) -> None:
    plain, gathered = (config(**values, batching__max_wait_ms=wait) for wait in (None, 2.0))
    assert variant_key(variants.from_config(plain)) == variant_key(variants.from_config(gathered))


words = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=8)


@given(words)
def test_a_slug_is_a_name_that_settings_take(asked) -> None:
    name = variants.slug(asked)
    assert variants.settings(config(), asked).name == name
    assert len(name) <= 70
    assert name == variants.slug(list(asked))


@given(words, st.randoms())
def test_the_tail_of_a_slug_knows_what_was_asked_and_not_its_order(asked, rng) -> None:
    shuffled = rng.sample(asked, len(asked))
    tail = variants.slug(asked).rpartition("-")[2]
    assert variants.slug(shuffled).rpartition("-")[2] == tail
    assert variants.slug([*asked, "batch=77"]).rpartition("-")[2] != tail


def test_slugs_are_readable_and_stable() -> None:
    assert variants.slug(["precision=fp16,int8", "batch=1,8,32"]) == "batch-1-8-32_precision-fp16-int8-4fe3ed"
    assert variants.slug([]).startswith("defaults-")
    assert variants.slug(["+experiment=quickstart"]).startswith("experiment-quickstart-")


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".hidden", "a b", "cache", "recipes", "reference", "mlartifacts", "x" * 101, "a\n"]
)
def test_a_name_that_is_no_plain_folder_is_refused(name) -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        variants.settings(config(name=name), [])


def test_settings_hold_what_was_given(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = variants.settings(config(name="my.run-1", results="out", force=True, seed=3, slo__p99_ms=5.0), ["batch=1"])
    assert (made.name, made.force, made.seed, made.slo) == ("my.run-1", True, 3, Slo("p99", 5.0))
    assert made.results == tmp_path / "out"
    assert made.root == tmp_path / "out" / "my.run-1"


def test_the_cache_limit_is_a_setting_and_in_no_key() -> None:
    assert variants.settings(config(), []).cache_limit_bytes == 50 << 30
    assert variants.settings(config(cache_gib=0.5), []).cache_limit_bytes == 1 << 29
    assert variants.from_config(config(cache_gib=0.5)) == variants.from_config(config())
    assert variants.settings(config(limits__memory_mib=0.5), []).limits.memory_mib == 0.5
    assert variants.from_config(config(limits__memory_mib=0.5)) == variants.from_config(config())


@pytest.mark.parametrize(
    "values",
    [{"timeout_s": 0.0}, {"slo__p50_ms": 0.0}, {"slo__p99_ms": NAN}, {"cache_gib": 0.0}, {"limits__memory_mib": 0.0}],
)
def test_settings_out_of_range_are_refused(values) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        variants.settings(config(**values), [])


def test_one_slo_at_a_time() -> None:
    with pytest.raises(ConfigError, match=r"p50_ms and p999_ms are set; set one"):
        variants.slo(config(slo__p50_ms=1.0, slo__p999_ms=2.0).slo)
    assert variants.slo(config().slo) is None


def saved(path, name):
    """A file with one float input of that name, (batch, features), both free."""
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["N", "F"]) for end in (name, "y")]
    graph = helper.make_graph([helper.make_node("Relu", [name], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def hydra(monkeypatch, tmp_path):
    """What the launcher changes in this process is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweep"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")


@pytest.fixture
def file(tmp_path, hydra):
    """A file with one input called ``x``."""
    del hydra
    return saved(tmp_path / "net.onnx", "x")


def typed(*argv):
    """The variants of a command line."""
    request = compose.read(["backend=simulated", *argv])
    assert request is not None
    return [variants.from_config(item) for item in request.configs]


@pytest.mark.parametrize(
    "words",
    [
        ["+model.inputs={x:{shape:[batch,16],low:-1,high:2}}"],
        ["+model.inputs.x.shape=[batch,16]", "+model.inputs.x.low=-1", "+model.inputs.x.high=2"],
    ],
)
def test_both_ways_to_say_an_input_mean_the_same(file, words) -> None:
    (made,) = typed(f"model.path={file}", *words)
    assert made.onnx.model.inputs == (InputFix(name="x", shape=("batch", 16), low=-1, high=2),)
    assert made.onnx.model.name == "net"
    assert made.onnx.model.digest


@pytest.mark.parametrize(("name", "typed_as"), [("x:0", r"x\:0"), ("input.1", "input.1"), ("a/b", "a/b")])
def test_names_that_exporters_give_go_in_braces(tmp_path, hydra, name, typed_as) -> None:
    del hydra
    path = saved(tmp_path / "net.onnx", name)
    (made,) = typed(f"model.path={path}", f"+model.inputs={{{typed_as}:{{shape:[batch,16]}}}}")
    assert made.onnx.model.inputs == (InputFix(name=name, shape=("batch", 16)),)


def test_an_input_can_be_swept(file) -> None:
    made = typed(f"model.path={file}", "+model.inputs.x.shape=[batch,16],[batch,32]")
    assert [item.onnx.model.inputs[0].shape for item in made] == [("batch", 16), ("batch", 32)]
    assert len({engine_key(item) for item in made}) == 2


@pytest.mark.parametrize(
    ("given_", "line"),
    [
        ({"shpe": [1]}, "model.inputs.x: shpe is not known; there are: dtype, high, low, name, shape"),
        ([1, 2], "model.inputs.x: [1, 2] is not known"),
        ({"shape": 16}, "model.inputs.x.shape=16: must be a list"),
        ({"shape": ["batch", 0]}, "model.inputs.x.shape: 0 is neither a size nor the word batch"),
        ({"shape": ["batch", 16.0]}, "model.inputs.x.shape: 16.0 is neither"),
        ({"shape": ["batch", True]}, "model.inputs.x.shape: True is neither"),
        ({"shape": ["batch", "seq"]}, "model.inputs.x.shape: 'seq' is neither"),
        ({"shape": ["batch"]}, "x"),
        ({"shape": ["batch", 16], "low": "a"}, "model.inputs.x.low=a: must be a number"),
        ({"shape": ["batch", 16], "high": True}, "model.inputs.x.high=True: must be a number"),
        ({"shape": ["batch", 16], "low": INF}, "x"),
        ({"shape": ["batch", 16], "low": NAN}, "x"),
        ({"shape": ["batch", 16], "low": 2, "high": 1}, "x"),
    ],
)
def test_a_wrong_input_is_one_line(file, given_, line) -> None:
    with pytest.raises((ConfigError, ModelError)) as caught:
        variants.from_config(config(model__path=str(file), model__inputs={"x": given_}))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_are_one_set_however_they_are_ordered(file) -> None:
    one = {"x": {"shape": ["batch", 16], "low": 0, "high": 1}}
    other = {"x": {"high": 1, "low": 0, "shape": ["batch", 16]}}
    keys = {
        variant_key(variants.from_config(config(model__path=str(file), model__inputs=item))) for item in (one, other)
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("load.min_s=1", "load.min_s=1.0"),
        ("load.fractions=[1]", "load.fractions=[1.0]"),
        ("load.fractions=[1],[2]", "load.fractions=[1.0],[2.0]"),
        ("load.min_s=1,2", "load.min_s=1.0,2.0"),
        ("backend.script.service_us=7", "backend.script.service_us=7.0"),
        ("+model.inputs.x.low=1", "+model.inputs.x.low=1.0"),
    ],
)
def test_an_integer_and_the_same_float_are_one_request(file, one, other) -> None:
    common = [f"model.path={file}", "++model.inputs.x.shape=[batch,16]"]
    first = typed(*common, "++model.inputs.x.high=9", one)
    variants.model.resolve.cache_clear()  # as in another process, later
    second = typed(*common, "++model.inputs.x.high=9", other)
    assert [variant_key(item) for item in first] == [variant_key(item) for item in second]
    assert [engine_key(item) for item in first] == [engine_key(item) for item in second]


@pytest.mark.parametrize(
    ("word", "count"), [("load=closed,curve,quick", 3), ("precision=glob(*,exclude=qat)", 11), ("model=glob(*)", 10)]
)
def test_every_shipped_group_makes_a_variant(hydra, word, count) -> None:
    del hydra
    assert len({variant_key(item) for item in typed(word)}) == count


def test_a_label_is_not_the_name_of_another_type() -> None:
    """precision.name=fp16 for precision=fp16 would be an fp32 measurement that every table calls fp16."""
    with pytest.raises(ConfigError, match=r"precision\.name=fp16"):
        variants.from_config(config(precision__name="fp16"))
    mixed = {"precision__dtype": "int8", "precision__rest": "fp16", "precision__calibration_batches": 1}
    for name in ("int8", "int8_bf16"):
        with pytest.raises(ConfigError, match=rf"precision\.name={name} on dtype int8_fp16 is a wrong label"):
            variants.from_config(config(precision__name=name, **mixed))
    assert variants.from_config(config(precision__name="int8_fp16", **mixed)).onnx.precision.rest == "fp16"
    wide = variants.from_config(config(precision__wide=True, precision__name="mine", **mixed)).onnx.precision
    assert (wide.wide, variants.from_config(config(precision__wide=True)).onnx.precision.wide) == (True, None)
    assert variants.from_config(config(precision__name="mine")).onnx.precision.name == "mine"


def test_what_a_guard_has_nothing_to_guard_stays_out_of_the_key() -> None:
    plain = config(precision__name="fp16", precision__dtype="fp16", precision__calibration_batches=4)
    assert variants.from_config(plain).onnx.precision == Precision(name="fp16", dtype="fp16")
    plain.precision.guard = True
    guarded = variants.from_config(plain).onnx.precision
    assert (guarded.guard, guarded.calibration_batches) == (True, 4)
    wide = config(precision__name="bf16", precision__dtype="bf16", precision__guard=True)
    assert variants.from_config(wide).onnx.precision == Precision(name="bf16", dtype="bf16")


def test_forced_sparsity_changes_the_graph_and_enabled_sparsity_the_engine() -> None:
    plain, enabled, forced = (
        variants.from_config(config(backend__sparsity=value)) for value in (None, "enable", "force")
    )
    assert onnx_key(plain) == onnx_key(enabled) != onnx_key(forced)
    assert len({engine_key(item) for item in (plain, enabled, forced)}) == 3
    assert (plain.onnx.prune, forced.onnx.prune, forced.engine.sparsity) == (None, "2:4", "force")


def test_nodes_to_keep_are_an_axis_where_something_is_converted() -> None:
    fp16 = {"precision__name": "fp16", "precision__dtype": "fp16"}
    asked = {"precision__keep": ["fc", "/head/*"]}
    assert variants.from_config(config(**fp16, **asked)).onnx.precision.keep == ("fc", "/head/*")
    assert variants.from_config(config(**fp16)).onnx.precision.keep is None
    for unconverted in ({}, {**fp16, "precision__tool": "none"}):
        plain, keeping = (variants.from_config(config(**unconverted, **more)) for more in ({}, asked))
        assert keeping.onnx.precision.keep is None
        assert variant_key(plain) == variant_key(keeping)
    with pytest.raises(ConfigError, match=r"precision\.keep: modelopt chooses .*precision\.tool=builtin"):
        variants.from_config(config(**fp16, **asked, precision__tool="modelopt"))


def test_a_search_for_nodes_needs_a_gate_and_is_an_axis_where_something_is_converted() -> None:
    int8 = {"precision__name": "int8", "precision__dtype": "int8", "precision__quantize_ops": ["Conv"]}
    int8["precision__calibration_batches"] = 1
    asked = {"precision__search": True, "accuracy__min_sqnr_db": 30.0}
    found = variants.from_config(config(**int8, **asked, precision__search_evaluations=9))
    assert found.onnx.precision.search == NodeSearch(gates=Gates(min_sqnr_db=30.0), evaluations=9)
    assert "search-min_sqnr_db30" in found.label.split()
    stricter = variants.from_config(config(**int8, **{**asked, "accuracy__min_sqnr_db": 31.0}))
    assert len({variant_key(item) for item in (found, stricter, variants.from_config(config(**int8)))}) == 3
    for unconverted in ({}, {**int8, "precision__tool": "none"}):
        plain, searching = (variants.from_config(config(**unconverted, **more)) for more in ({}, asked))
        assert searching.onnx.precision.search is None
        assert variant_key(plain) == variant_key(searching)
    for gate in ({}, {"accuracy__min_sqnr_db": -100.0}):
        with pytest.raises(ConfigError, match=r"precision\.search=true: no gate .*accuracy\.min_sqnr_db=30"):
            variants.from_config(config(**int8, **{**asked, "accuracy__min_sqnr_db": None, **gate}))
    for wrong, line in (
        ({"precision__search_evaluations": 0}, r"precision\.search_evaluations=0: must be 1 or more"),
        ({"accuracy__min_top1": 2.0}, r"accuracy\.min_top1=2\.0: must be from 0 to 1"),
        ({"precision__tool": "modelopt"}, r"precision\.search: modelopt chooses .*precision\.tool=builtin"),
    ):
        with pytest.raises(ConfigError, match=line):
            variants.from_config(config(**int8, **{**asked, **wrong}))


def test_a_typed_file_beside_the_network_is_keyed_by_its_content_where_nothing_is_converted(tmp_path) -> None:
    net, typed = (tmp_path / name for name in ("net.onnx", "qat.onnx"))
    onnx.save(NETWORKS["cnn"](), net)
    onnx.save(NETWORKS["cnn"](), typed)
    qat = {"model__path": str(net), "precision__name": "qat", "precision__dtype": "native"}
    first = variants.from_config(config(**qat, precision__path=str(typed)))
    assert (first.onnx.precision.path, first.onnx.precision.tool) == (str(typed), "none")
    moved = typed.rename(tmp_path / "moved.onnx")
    assert variant_key(variants.from_config(config(**qat, precision__path=str(moved)))) == variant_key(first)
    trained = tmp_path / "trained.onnx"
    trained.write_bytes(moved.read_bytes() + onnx.ModelProto(doc_string="trained on").SerializeToString())
    again = variants.from_config(config(**qat, precision__path=str(trained)))
    assert variant_key(again) != variant_key(first)
    assert variant_key(dataclasses.replace(again, onnx=first.onnx)) == variant_key(first)
    fp32 = {"model__path": str(net)}
    plain, beside = (variants.from_config(config(**fp32, precision__path=path)) for path in (None, str(moved)))
    assert variant_key(plain) == variant_key(beside)
    with pytest.raises(ConfigError, match=r"precision=qat: no file is named; give precision\.path=FILE"):
        variants.from_config(config(**qat))
    with pytest.raises(ConfigError, match=r"backend\.sparsity=force prunes the fp32 graph, and precision\.path="):
        variants.from_config(config(**qat, precision__path=str(moved), backend__sparsity="force"))


def test_native_takes_the_file_with_no_tool() -> None:
    for tool in ("none", "builtin"):
        native = variants.from_config(config(precision__name="native", precision__dtype="native", precision__tool=tool))
        assert (native.onnx.precision.tool, native.onnx.precision.calibration_batches) == ("none", None)
    with pytest.raises(ConfigError, match=r"precision\.name=native on dtype fp16 is a wrong label"):
        variants.from_config(config(precision__name="native", precision__dtype="fp16"))


@pytest.mark.parametrize(
    ("value", "sizes"),
    [
        (None, ()),
        (128, ((None, 128),)),
        ("seq:128", (("seq", 128),)),
        ("w:320+h:224", (("h", 224), ("w", 320))),
        ({"w": 320, "h": 224}, (("h", 224), ("w", 320))),
        ("past + 1:64+a:b:2", (("a:b", 2), ("past + 1", 64))),
    ],
)
def test_a_shape_is_a_table_a_text_or_a_size(value: object, sizes: object) -> None:
    assert read_shape(value) == sizes


@pytest.mark.parametrize(
    "value", ["seq", "seq:x", "seq:1+seq:2", "", {}, {"h": 0}, {"h": 2**31}, {"h": "8"}, [1, 2], True, 1.5]
)
def test_what_is_no_shape_is_refused_in_one_line(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^shape=[^\n]*(as in shape=seq:128|give a whole number)"):
        read_shape(value)
