"""What is typed becomes the combinations that were meant, or one line that says why not."""

import sys

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from sweep.config import compose
from sweep.config.combinations import replace
from sweep.config.schema import Config, help_lines
from sweep.errors import ConfigError
from sweep.system import command_line


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Calls the launcher as the command line does; gives the request."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["sweep"])

    def call(*words):
        request = compose.read(words)
        assert request is not None
        return request

    return call


def picked(request, *names):
    """The values at dotted ``names`` of each config; bare where there is one name."""

    def value(config, name):
        for part in name.split("."):
            config = getattr(config, part)
        return config

    rows = [tuple(value(config, name) for name in names) for config in request.configs]
    return [row[0] for row in rows] if len(names) == 1 else rows


def test_nothing_asked_is_one_default_config(ask) -> None:
    request = ask()
    assert list(request.configs) == [Config()]
    assert request.overrides == ()


@pytest.mark.parametrize("flag", [(), ("-m",), ("--multirun",)])
def test_commas_sweep_with_and_without_m_in_the_order_asked(ask, flag) -> None:
    request = ask(*flag, "precision=int8,fp16", "batch=8,1")
    assert picked(request, "precision.dtype", "batch") == [("int8", 8), ("int8", 1), ("fp16", 8), ("fp16", 1)]
    assert request.overrides == ("precision=int8,fp16", "batch=8,1")


@pytest.mark.parametrize(
    ("word", "paths"),
    [
        ("model.path=~/a net.onnx", ["~/a net.onnx"]),
        ("model.path=größer.onnx,模型.onnx,b.onnx", ["größer.onnx", "模型.onnx", "b.onnx"]),
        ("model.path=a=b&c#d;e!.onnx", ["a=b&c#d;e!.onnx"]),
        ("model.path='größer.onnx'", ["größer.onnx"]),
        ("model.path='/a (1)/b.onnx'", ["/a (1)/b.onnx"]),
    ],
)
def test_a_path_is_typed_as_it_is_since_the_shell_takes_quotes_away(ask, word, paths) -> None:
    assert picked(ask(word), "model.path") == paths


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("batch=range(1,4)", [1, 2, 3]),
        ("batch=range(1,9,4)", [1, 5]),
        ("batch=choice(4,2)", [4, 2]),
        ("batch=sort(3,1,2)", [1, 2, 3]),
        ("batch=1,1", [1, 1]),
        ("batch='4'", [4]),
        ("batch='4','2'", [4, 2]),
    ],
)
def test_every_way_to_write_a_sweep(ask, word, values) -> None:
    assert picked(ask(word), "batch") == values


@pytest.mark.parametrize(
    ("word", "key", "values"),
    [
        ("load.kind='closed','curve'", "load.kind", ["closed", "curve"]),
        ("model.path='/a,b.onnx'", "model.path", ["/a,b.onnx"]),
        ("model.path='/a,b.onnx','/c.onnx'", "model.path", ["/a,b.onnx", "/c.onnx"]),
        ("mps=null,50", "mps", [None, 50]),
        ("cuda_graph=true,false", "cuda_graph", [True, False]),
        ("load.fractions=[0.1,0.2],[0.3]", "load.fractions", [[0.1, 0.2], [0.3]]),
        ("precision=glob(fp*)", "precision.name", ["fp16", "fp32", "fp8", "fp8_bf16", "fp8_fp16"]),
    ],
)
def test_texts_lists_nulls_and_globs_sweep(ask, word, key, values) -> None:
    assert picked(ask(word), key) == values


def test_an_integer_swept_through_a_float_key_is_a_float(ask) -> None:
    found = picked(ask("load.min_s=0.5,1"), "load.min_s")
    assert found == [0.5, 1.0]
    assert [type(value) for value in found] == [float, float]


@limits(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 99), min_size=2, max_size=4),
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
)
def test_a_sweep_is_the_cartesian_product(ask, batches, streams) -> None:
    words = [f"{key}={','.join(map(str, values))}" for key, values in (("batch", batches), ("streams", streams))]
    assert picked(ask(*words), "batch", "streams") == [(one, other) for one in batches for other in streams]


def test_an_experiment_sweeps_and_the_command_line_wins(ask) -> None:
    request = ask("+experiment=quickstart")
    assert picked(request, "precision.dtype", "batch") == [
        (kind, size) for kind in ("fp16", "int8") for size in (1, 8, 32)
    ]
    assert request.overrides == ("+experiment=quickstart", "precision=fp16,int8", "batch=1,8,32")
    assert picked(ask("+experiment=quickstart", "batch=4"), "precision.dtype", "batch") == [("fp16", 4), ("int8", 4)]
    request = ask("precision=fp32", "batch=2,4", "+experiment=quickstart")
    assert picked(request, "precision.dtype", "batch") == [("fp32", 2), ("fp32", 4)]


def test_a_forced_override_wins_over_an_experiment_too(ask) -> None:
    assert picked(ask("+experiment=quickstart", "++batch=4"), "precision.dtype", "batch") == [("fp16", 4), ("int8", 4)]


def test_two_experiments_at_once_are_refused_not_dropped(ask) -> None:
    with pytest.raises(ConfigError, match="experiment"):
        ask("+experiment=quickstart,batch_scaling")


def test_the_last_of_two_words_on_a_key_wins(ask) -> None:
    assert picked(ask("batch=1,2", "batch=3"), "batch") == [3]
    assert picked(ask("batch=3", "batch=1,2"), "batch") == [1, 2]


@pytest.mark.parametrize("words", [("load=closed", "load.min_s=3"), ("load.min_s=3,4", "load=quick")])
def test_a_value_wins_over_its_group_in_either_order(ask, words) -> None:
    assert picked(ask(*words), "load.min_s")[0] == 3.0


def test_a_value_over_swept_groups_reaches_all_of_them(ask) -> None:
    request = ask("load=closed,curve", "load.min_s=1,2")
    assert picked(request, "load.kind", "load.min_s") == [("closed", 1), ("closed", 2), ("curve", 1), ("curve", 2)]


@pytest.mark.parametrize(
    ("words", "keys", "values"),
    [
        (("batch=${streams}", "streams=1,2"), ("batch", "streams"), [(1, 1), (2, 2)]),
        (("load.min_s=${load.warmup_s}", "load.warmup_s=0.1,0.2"), ("load.min_s",), [0.1, 0.2]),
        (("streams=2", "batch=1,${streams}"), ("batch",), [1, 2]),
        (
            ("batch=8,${streams}", "streams=1,2"),
            ("batch", "streams"),
            [(8, 1), (8, 2), (1, 1), (2, 2)],
        ),
    ],
)
def test_a_value_made_of_another_is_resolved_in_each_combination(ask, words, keys, values) -> None:
    assert picked(ask(*words), *keys) == values


def test_combinations_do_not_share_what_they_do_not_share(ask) -> None:
    first, second = ask("load.min_s=1,2").configs
    assert first.load is not second.load
    assert first.load.max_s == second.load.max_s


def test_replace_reaches_nested_values_and_leaves_the_original() -> None:
    config = Config()
    changed = replace(config, {"batch": 4, "load.min_s": 9.0, "backend.intra_op_threads": 2})
    assert (changed.batch, changed.load.min_s, changed.backend.intra_op_threads) == (4, 9.0, 2)
    assert config == Config()
    assert changed.precision is config.precision
    assert replace(config, {}) is config


@pytest.mark.parametrize("name", ["batch", "load.min_s", "model.path", "slo.p99_ms", "backend.script.service_us"])
def test_plain_values_are_those_of_the_schema(name) -> None:
    assert compose.is_plain_value(name)
    assert not compose.is_plain_value(f"+{name}")
    assert not compose.is_plain_value(f"{name}x")


def test_only_what_is_measured_names_the_sweep(ask) -> None:
    words = ("plan=true", "name=x", "results=/r", "slo.p99_ms=3", "tracking=none", "force=true", "timeout_s=9")
    assert ask(*words, "cache_gib=5", "batch=2").overrides == ("batch=2",)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["bacth=1"], "bacth: no such key; did you mean batch?"),
        (["bacth=1,2"], "bacth: no such key; did you mean batch?"),
        (["+batchh=3,4"], "batchh: no such key; did you mean batch?"),
        (["load.foo=1"], "load.foo: no such key; "),
        (["+load.foo=1,2"], "load.foo: no such key; "),
        (["+zzz.y=1"], f"zzz: no such key; `{command_line.format_command('--help', 'all')}` lists the keys"),
        (["precison=fp16"], "precison: no such key; did you mean precision?"),
        (["experiment=quickstart"], "+experiment"),
        (["batch=1.5"], "batch=1.5: "),
        (["batch=1,1.5"], "batch=1.5: "),
        (["batch=a,b"], "batch=a: "),
        (["batch=null"], "batch=null: "),
        (["batch=[1,2]"], "batch=[1,2]: "),
        (["load.fractions=0.5"], "load.fractions=0.5: "),
        (["load.fractions=[1],[a]"], "load.fractions=[a]: "),
        (["precision=fp16", "streams=abc"], "streams=abc: "),
        (["precision=fp16,int8", "streams=abc"], "streams=abc: "),
        (["-m", "precision=fp16,int8", "streams=abc"], "streams=abc: "),
        (["precision=fp16,fp17"], "precision=fp17: no such precision; there are: bf16, fp16, "),
        (["+experiment=nope"], "experiment=nope: no such experiment; there are: batch_scaling, "),
        (["load@foo=closed"], "load@foo: no such key; "),
        (["batch"], "batch: cannot be read (a setting is KEY=VALUE)"),
        (["batch=1,,2"], "batch=1,,2: cannot be read "),
        (["batch==8"], "batch==8: cannot be read (a character stands where none of its kind can)"),
        (
            ["name=a (1)"],
            "a text with such characters has quotes: \"name='a (1)'\"",
        ),
        (["load.min_s=interval(0.1,1)"], "load.min_s=interval(0.1,1): give the values one by one, as in load.min_s=1,"),
        (["batch=${nope}"], "'nope'"),
        (["batch=${nope},2"], "'nope'"),
        (["batch=glob(*)"], "batch=glob(*)"),
        (["batch=range(3,1)"], "batch=range(3,1)"),
        (["batch=range(1,3,0)"], "batch=range(1,3,0)"),
        (["precision=null"], "precision"),
        (["precision=fp16,null"], "precision"),
        (["=1"], "=1"),
        (["backend.script.service_us=1"], "backend.script.service_us"),
        (["backend.script.service_us=1,2"], "backend.script.service_us"),
        (["backend.script={service_us:1}"], "backend.script"),
        (["hydra.mode=RUN"], "hydra.mode"),
        (["hydra/sweeper=basic"], "hydra/sweeper"),
    ],
)
def test_what_cannot_be_is_one_line(ask, words, line) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(*words)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "word", ["slo.p99_ms=1,2", "name=a,b", "plan=true,false", "tracking=auto,none", "timeout_s=1,2"]
)
def test_what_belongs_to_the_whole_sweep_cannot_be_swept(ask, word) -> None:
    """Only the first value would count, and every variant would be asked twice."""
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        ask(word)


def test_a_swept_script_needs_its_backend(ask) -> None:
    request = ask("backend=simulated", "backend.script.service_us=1,2")
    assert [config.backend.script.service_us for config in request.configs] == [1.0, 2.0]


def test_hydra_makes_no_folders(ask, tmp_path) -> None:
    ask("batch=1,2")
    assert list(tmp_path.iterdir()) == []


def leaves(config, prefix=""):
    for name, value in vars(config).items():
        if hasattr(value, "__dataclass_fields__"):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_help_has_every_key_once_with_its_default() -> None:
    lines = [line.split(maxsplit=1) for line in help_lines()]
    texts = dict(lines)
    assert len(texts) == len(lines)
    for key, value in leaves(Config()):
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        if key != "backend.script":
            assert texts[key].endswith(f"[{shown}]"), key
            assert len(texts[key].rpartition("[")[0].strip()) > 5, key
    assert texts["backend.script.service_us"].endswith("[100.0]")
    assert texts["model.inputs.NAME.shape"].endswith("[null]")


def test_help_is_aligned() -> None:
    starts = {len(line) - len(line[2:].partition(" ")[2].lstrip()) for line in help_lines()}
    assert len(starts) == 1
