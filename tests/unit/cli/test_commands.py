"""``sweep COMMAND``: the registry, help and refusals of every command, and how commands are spelled in hints."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweep import __version__, cli
from sweep.cli import commands, run
from sweep.config import help_lines
from sweep.system import command_line

HEAVY = {"mlflow", "onnx", "onnxruntime", "plotly", "scipy"}


def script(folder: Path) -> Path:
    """Return an executable named as the console script, which is never run."""
    path = folder / "sweep"
    path.write_text("")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_has_a_purpose_every_argument_the_exit_codes_and_an_example(name: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {command_line.program()} {name}")
    assert "Exit codes: 0" in text
    assert f"{command_line.program()} {name}" in text[text.index("Example") :]
    module = commands.COMMANDS[name].load()
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    for action in parser._actions:
        assert action.help, action.dest
        assert all(option in text for option in action.option_strings)


def test_every_command_module_is_registered() -> None:
    """A module of cli/ that offers add_arguments is in the registry."""
    root = Path(cli.__file__).parent
    offered = {
        ".".join(("sweep.cli", *path.relative_to(root).with_suffix("").parts))
        for path in root.rglob("*.py")
        if "\ndef add_arguments(" in path.read_text()
    }
    assert offered == {command.module for command in commands.COMMANDS.values()}


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_and_completion_of_a_command_load_no_heavy_library(name: str) -> None:
    code = (
        f"import sys; from sweep.cli import commands; commands.COMMANDS[{name!r}].parser({name!r}); "
        f"print(*sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("doctr", "doctr: no such command; did you mean doctor? The commands are doctor, run, "),
        ("recomput", "did you mean recompute?"),
        ("model.onnx", "model.onnx: no such command; The commands are doctor, "),
        ("batch", "batch: no such command; it is a setting, which takes a value: batch=VALUE"),
        ("load.points", "which takes a value: load.points=VALUE"),
        ("model", "which takes a value: model=VALUE"),
    ],
)
def test_a_first_word_that_is_neither_command_nor_setting_is_one_line(word: str, line: str, capsys) -> None:
    assert commands.main([word, "batch=1"]) == 2
    printed = capsys.readouterr()
    assert line in printed.err
    assert printed.err.startswith("sweep: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_an_unknown_option_is_one_line_of_the_command(name: str, capsys) -> None:
    needed = {"bisect": ["x.json"], "trtexec": ["x.json"], "recompute": ["x"], "completion": ["bash"]}
    needed |= {"take": ["x"], "show": ["x"], "rename": ["x", "y"], "delete": ["x"], "layers": ["x"]}
    needed["profile"] = ["x.json", "--with", "nsys"]
    first = (needed | {"run": ["x.yaml"], "report": ["x"]}).get(name, [])
    assert commands.main([name, *first, "--nonsense"]) == 2
    printed = capsys.readouterr()
    assert printed.err == f"sweep {name}: unrecognized arguments: --nonsense (--help lists the arguments)\n", (
        "abbreviations included"
    )
    assert printed.out == ""


@pytest.mark.parametrize("words", [["batch=1", "doctor"], ["-m", "batch=1"], ["+experiment=x"], ["~slo"], []])
def test_anything_else_is_a_sweep(words: list[str], monkeypatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(run, "run", lambda words: asked.append(list(words)) or 7)
    assert commands.main(words) == 7
    assert asked == [words]


@pytest.mark.parametrize("words", [["x" * 120_000 + "=1"], ["publish", "y" * 120_000], ["z" * 30_000 + "=1"]])
def test_a_word_of_any_length_is_one_short_line(words: list[str], capsys) -> None:
    assert commands.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 5000
    assert ("of at most 32768; put long lists into a YAML" in error) == (len(words[-1]) > 32_768)


def test_the_version(capsys) -> None:
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sweep {__version__}\n"


def test_the_help_of_a_sweep_fits_a_screen_and_lists_commands_and_settings_by_group(capsys) -> None:
    assert commands.main(["batch=1", "--help"]) == 0
    text = capsys.readouterr().out
    for name, command in commands.COMMANDS.items():
        assert f"  {name:<10}  {command.summary}\n" in text
    assert text.index(" Machine\n") < text.index("  doctor ")
    assert text.index("Commands") < text.index("Settings, KEY=VALUE") < text.index("  load ") < text.index("Options:")
    assert "precision=bf16 | fp16 | " in text
    assert len(text.splitlines()) < 60


def test_the_help_of_a_group_of_a_key_and_of_all(capsys) -> None:
    assert commands.main(["--help", "load"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("load: closed, constant, curve, ")
    keys = [line.split()[0] for line in text.splitlines()[2:]]
    assert keys == [line.split()[0] for line in help_lines() if line.startswith("  load.")]
    assert commands.main(["--help", "load.points", "sweep"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("  load.points ")
    assert "\n  batch " in text
    assert "accuracy." not in text
    assert commands.main(["-h", "all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(help_lines())
    assert commands.main(["--help", "laod"]) == 2
    assert "--help laod: no such group of settings and no such key; did you mean load?" in capsys.readouterr().err


def test_a_failure_of_the_operating_system_is_one_line_and_1(tmp_path: Path, monkeypatch, capsys) -> None:
    def fail(*_: object) -> int:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(commands.COMMANDS["doctor"].load(), "run", fail)
    assert commands.main(["doctor"]) == 1
    assert capsys.readouterr().err == f"sweep doctor: [Errno 13] Permission denied: '{tmp_path}'\n"


def test_the_console_script_is_spelled_by_its_name_or_else_by_its_path(tmp_path: Path, monkeypatch) -> None:
    path = script(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "batch=1"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command_line.format_command("publish", "my results") == "sweep publish 'my results'"
    monkeypatch.setenv("PATH", "/nowhere")
    assert command_line.format_command("ui") == f"{path} ui"


@pytest.mark.parametrize("interpreter", ["python", ".venv/bin/python"])
def test_a_module_is_spelled_with_the_interpreter_as_it_was_typed(interpreter: str, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/anywhere/sweep/__main__.py"])
    monkeypatch.setattr(sys, "orig_argv", [interpreter, "-m", "sweep"])
    assert command_line.format_command("ui") == f"{interpreter} -m sweep ui"


def test_the_results_folder_is_named_unless_it_is_the_default(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line.results_words(tmp_path / "results") == []
    assert command_line.results_words(Path("results")) == []
    assert command_line.results_words(tmp_path / "other") == [str(tmp_path / "other")]


NO_RESULTS = {"run", "init", "bisect", "trtexec", "profile", "completion"}  # of a file, or of a sweep's settings


@pytest.mark.parametrize("name", sorted(set(commands.COMMANDS) - NO_RESULTS))
def test_every_command_that_reads_a_results_folder_takes_it_by_the_same_option(name: str) -> None:
    places = {"compare": 2, "rename": 2, "show": 1, "delete": 1, "report": 1, "recompute": 1, "layers": 1, "take": 1}
    words = [*["s"] * places.get(name, 0), "--results", "here"]
    parser = commands.COMMANDS[name].parser(name)
    assert parser.parse_intermixed_args(words).results == Path("here")


def test_a_results_folder_by_its_place_or_by_the_option_is_one_folder(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r").mkdir()
    for words in (["list", "r"], ["list", "--results", "r"], ["list", "r", "--results", "r"]):
        assert commands.main(words) == 0
        assert capsys.readouterr().out == "no sweep below r\n"
    for words in (["list", "r", "--results", "other"], ["cache", "r", "--results", "other"]):
        assert commands.main(words) == 2
        assert re.search(r"folder is given twice, as (r|other) and as (r|other): give it once", capsys.readouterr().err)
    for words, missing in ((["publish", "r", "s"], "s"), (["publish", "--results", "r", "s"], "s")):
        assert commands.main(words) == 2
        assert f"no records of {missing} below r" in capsys.readouterr().err
