"""YAMLs from anywhere: nothing in one is instantiated, run, or expanded beyond bounds; each refusal is one line."""

from __future__ import annotations

import ast
import logging
import sys
import time
from pathlib import Path

import pytest
from warned import warned

import sweep
from sweep.config import compose, variants
from sweep.config.schema import Config
from sweep.errors import ConfigError

pytestmark = pytest.mark.fault

HEADER = "# @package _global_\n"


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Asks for an experiment of the user's own folder; gives the request, or raises the line that refuses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["sweep"])
    own = tmp_path / "own"

    def call(text: str, *words: str, group: str = "experiment"):
        path = own / group / "theirs.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        choice = "+experiment=theirs" if group == "experiment" else f"{group}=theirs"
        return compose.read(["--config-dir", str(own), choice, *words])

    return call


def refusal(ask, text: str, *words: str, group: str = "experiment") -> str:
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        ask(text, *words, group=group)
    assert time.process_time() - began < 10
    assert "\n" not in str(caught.value)
    assert "GlobalHydra" not in str(caught.value)
    return str(caught.value)


def touching(path: Path) -> str:
    """A ``_target_`` that would leave a file."""
    return f"{{_target_: pathlib.Path.touch, self: {{_target_: pathlib.Path, _args_: ['{path}']}}}}"


def test_a_users_own_folder_is_read(ask) -> None:
    request = ask(f"{HEADER}hydra:\n  sweeper:\n    params:\n      batch: 2,4\nstreams: 3\n", "seed=7")
    assert [(config.batch, config.streams, config.seed) for config in request.configs] == [(2, 3, 7), (4, 3, 7)]


@pytest.mark.parametrize(
    "where",
    [
        *("hydra.callbacks.x", "hydra.launcher", "hydra.sweeper", "hydra.job_logging.handlers.x"),
        *("hydra.hydra_logging.handlers.x", "hydra.sweeper.params.x", "hydra.help"),
    ],
)
def test_a_target_in_hydras_keys_never_runs(ask, tmp_path, where: str) -> None:
    mark = tmp_path / "mark"
    text = HEADER
    for depth, name in enumerate(where.split(".")):
        text += f"{'  ' * depth}{name}:\n"
    line = refusal(ask, text.rstrip("\n") + f" {touching(mark)}\n")
    assert "hydra" in line or "params" in line
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "hydra:\n  run:\n    dir: {out}\n",
        "hydra:\n  sweep:\n    dir: {out}\n    subdir: x\n",
        "hydra:\n  output_subdir: {out}\n",
        "hydra:\n  mode: RUN\n",
        "hydra:\n  job:\n    chdir: true\n",
        "hydra:\n  job:\n    env_set:\n      LD_PRELOAD: {out}\n",
        "hydra:\n  job:\n    env_copy: [HOME]\n",
        "hydra:\n  verbose: true\n",
        "hydra:\n  runtime:\n    output_dir: {out}\n",
        "hydra:\n  searchpath: ['file://{out}']\n",
        "defaults:\n  - override /hydra/launcher: basic\nhydra:\n  launcher:\n    _target_: os.system\n",
        "hydra:\n  job_logging: {version: 1, handlers: {f: {class: logging.FileHandler, filename: '{out}'}}}\n",
        "hydra:\n  job_logging:\n    version: 1\n    handlers:\n      f:\n        (): os.mkdir\n        path: {out}\n",
    ],
)
def test_how_hydra_runs_is_not_a_yamls_to_set(ask, tmp_path, text: str) -> None:
    out = tmp_path / "out"
    handlers = list(logging.getLogger().handlers)
    for flags in ((), ("--cfg", "job"), ("--help",)):
        assert "hydra" in refusal(ask, HEADER + text.replace("{out}", str(out)), *flags)
    assert not out.exists()
    assert logging.getLogger().handlers == handlers
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_another_choice_of_hydras_logging_is_inert(ask, tmp_path) -> None:
    assert ask(f"{HEADER}defaults:\n  - override /hydra/job_logging: default\nbatch: 2\n").configs[0].batch == 2
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(
    "text",
    [
        "_target_: os.getcwd\n",
        "model:\n  _target_: os.getcwd\n",
        "backend:\n  script: {_target_: os.getcwd}\n",
        "load: {_target_: os.getcwd, kind: closed}\n",
        "model:\n  path: !!python/object/apply:os.getcwd []\n",
        "batch: !!python/name:os.getcwd\n",
        "model: {path: '${oc.env:HOME}'}\n",
        "model: {path: '${oc.decode:x}'}\n",
        "model: {path: '${hydra:runtime.cwd}'}\n",
        "model: {path: '${nope:x}'}\n",
        "batch: [1, 2\n",
        "\t- x\n",
        "batch: &a [*a]\n",
        "- 1\n- 2\n",
        "just text\n",
        "5\n",
        "gpus: [" + "1," * 12_000 + "1]\n",
        "batch: " + "[" * 5000 + "\n",
        "batch: " + "9" * 5000 + "\n",
        "name: " + "x" * 300_000 + "\n",
        "hydra:\n  sweeper:\n    params:\n      batch: range(1,1000000000)\n",
        "hydra:\n  sweeper:\n    params:\n      batch: range(1,5000)\n      streams: range(1,5000)\n",
        "hydra:\n  sweeper:\n    params:\n      hydra.run.dir: x\n",
        "hydra:\n  sweeper: 3\n",
        "model: {inputs: {" + ", ".join(f"x{n}: '${{seed}}'" for n in range(20)) + "}}\n",
        "name: '" + "${tracking.experiment}" * 9 + "'\n",
    ],
)
def test_what_a_yaml_cannot_be_is_one_line(ask, text: str) -> None:
    refusal(ask, HEADER + text)


def test_a_target_among_a_models_inputs_is_inert(ask, tmp_path) -> None:
    mark = tmp_path / "mark"
    (config,) = ask(f"{HEADER}model:\n  inputs:\n    x: {touching(mark)}\n").configs
    assert config.model.inputs["x"]["_target_"] == "pathlib.Path.touch"
    with pytest.raises(ConfigError, match="inputs"):  # ``variants`` knows no such key
        variants.from_config(config)
    assert not mark.exists()


@pytest.mark.parametrize("group", ["experiment", "model"])
def test_a_billion_laughs_end_in_seconds(ask, group: str) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    line = refusal(ask, HEADER + "\n".join(lines), group=group)
    assert "stand for more than" in line
    assert "theirs.yaml" in line


def test_a_yaml_of_a_name_that_hydra_registers_is_one_line(ask, tmp_path, recwarn) -> None:
    """Hydra warns of it in six lines."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "schema.yaml").write_text("a: 1\n")
    assert "theirs" not in refusal(ask, HEADER + "batch: 2\n")
    assert warned(recwarn) == []


def test_a_few_aliases_are_taken(ask) -> None:
    (config,) = ask(f"{HEADER}batch: &n 4\nstreams: *n\n").configs
    assert (config.batch, config.streams) == (4, 4)


@pytest.mark.parametrize(
    "words",
    [
        ["--experimental-rerun=x.pickle"],
        ["--experimental=x.pickle"],
        ["--config-path=/x"],
        ["--config-name", "x"],
        ["-cp", "/x"],
        ["-cn=x"],
        ["--run"],
        ["--info"],
        ["hydra={callbacks: {x: {_target_: os.getcwd}}}"],
        ["+hydra.callbacks.x._target_=os.getcwd"],
        ["++hydra.run.dir=x"],
        ["~hydra.launcher"],
        ["hydra/launcher=basic"],
        ["+hydra/callbacks=x"],
        ["load@hydra.callbacks=closed"],
        ["+load@hydra.callbacks.x=closed"],
        ["hydra.searchpath=[pkg://os]"],
        ["_target_=os.getcwd"],
        ["+model._target_=os.getcwd"],
        ["+_target_=os.getcwd"],
        ["batch=range(1,1000000000)"],
    ],
)
def test_words_that_would_change_how_hydra_runs_are_refused(monkeypatch, tmp_path, words) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        compose.read(words)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../up", "/abs", "a/b", "..", ".", ".hidden", "a\nb", "a\x1b[2J", "cache", "mlartifacts", "", "x" * 101]
)
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match="name="):
        variants.settings(Config(name=name), ())


SOURCES = sorted(Path(sweep.__file__).parent.rglob("*.py"))
FORBIDDEN = {
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec"),
    *("pickle.load", "pickle.loads", "hydra.utils.instantiate", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_shell_no_pickle_and_nothing_instantiated_by_name(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN, f"{path}:{node.lineno}"
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                assert keyword.arg not in {"shell", "allow_pickle"} or off, f"{path}:{node.lineno}"
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"pickle", "dill", "cloudpickle", "instantiate", "pty"}, f"{path}:{node.lineno}"
