"""Completion in a real bash, and in zsh and fish where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from require import missing

from sweep.cli import completion
from sweep.config import conf_files, schema

if TYPE_CHECKING:
    from pathlib import Path

PRECISIONS = [
    "bf16",
    "fp16",
    "fp32",
    "fp8",
    "fp8_bf16",
    "fp8_fp16",
    "int8",
    "int8_bf16",
    "int8_fp16",
    "native",
    "qat",
    "tf32",
]
# Split a line at blanks, `=` and `:`, as readline does with bash's COMP_WORDBREAKS, and call what `complete` names.
TAB = r"""
eval "$(sweep completion bash)"
function=$(complete -p sweep | sed -E 's/.*-F ([^ ]+) .*/\1/')
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMPREPLY=()
read -ra COMP_WORDS <<< "$(sed -E 's/([=:])/ \1 /g' <<< "$1")"
[[ $1 == *" " || $1 == *= ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
$function sweep
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose PATH has the console script, as an installer writes it."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "sweep"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom sweep.__main__ import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}


def tab(line: str, environment: dict[str, str], folder: Path) -> list[str]:
    """Return what bash offers when TAB is pressed at the end of ``line``, in ``folder``."""
    done = subprocess.run(
        ["bash", "--norc", "-c", TAB, "bash", line],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=folder,
    )
    assert done.stderr == ""
    return [word.strip() for word in done.stdout.splitlines() if word.strip()]


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("sweep doc", ["doctor"]),
        ("sweep show qu", ["quickstart"]),
        ("sweep re", ["report", "rename", "recompute", "repeats=", "results=", "retry="]),
        ("sweep completion ", ["-h", "--help", "bash", "zsh", "fish"]),
        ("sweep cache prune --o", ["--older-than-days"]),
        ("sweep cache prune --kind e", ["engines"]),
        ("sweep recompute --", ["--help", "--results", "--write"]),
        ("sweep bisect --g", ["--gate-db"]),
        ("sweep precision=", PRECISIONS),
        ("sweep precision=fp16,int8_", ["fp16,int8_bf16", "fp16,int8_fp16"]),
        ("sweep -m model=bert", ["bert_base", "bert_base_384"]),
        ("sweep +experiment=qu", ["quickstart"]),
        ("sweep -m precision=fp16 ba", ["backend.", "backend=", "batch=", "batching."]),
        ("sweep load.mi", ["load.min_requests=", "load.min_s="]),
        ("sweep plan=", ["false", "true"]),
        ("sweep batch=1 doc", []),
        ("sweep results=o", ["other/"]),
        ("sweep model.path=a", ["a.onnx"]),
        ("sweep run b", ["b.yaml"]),
        ("sweep run b.yaml load.mi", ["load.min_requests=", "load.min_s="]),
        ("sweep run b.yaml batch=1 precision=fp16,int8_", ["fp16,int8_bf16", "fp16,int8_fp16"]),
    ],
)
def test_bash_completes(line: str, offers: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "a.onnx").touch()
    (tmp_path / "results" / "quickstart" / "records").mkdir(parents=True)
    (tmp_path / "b.yaml").touch()
    assert tab(line, environment, tmp_path) == offers


def test_a_hostile_name_is_not_run(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a$(touch pwned)'b").touch()
    tab("sweep model.path=a$(touch pwned)'", environment, tmp_path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_accepts_its_script(shell: str, environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(["sweep", "completion", shell], capture_output=True, text=True, check=True, env=environment)
    assert "sweep" in done.stdout
    if shutil.which(shell) is None:
        missing(shell, f"{shell} is not installed: apt-get install {shell}")
    path = tmp_path / "script"
    path.write_text(done.stdout)
    subprocess.run([shell, "-n", path], check=True, env=environment)


def test_fish_completes(environment: dict[str, str]) -> None:
    if shutil.which("fish") is None:
        missing("fish", "fish is not installed: apt-get install fish")
    line = 'sweep completion fish | source; complete -C "sweep run my.yaml precision=fp16,int8_"'
    done = subprocess.run(["fish", "-c", line], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["precision=fp16,int8_bf16", "precision=fp16,int8_fp16"]


# -D: no dump. With `-d FILE` compinit renames its dump over FILE, whatever that is.
ZSH = r"""
zmodload zsh/zpty
zpty shell 'zsh -f -i'
zpty -w shell 'autoload -U compinit; compinit -u -D; eval "$(sweep completion zsh)"; PROMPT=; echo re""ady'
zpty -r -m shell line '*ready*'
zpty -w -n shell $'sweep run my.yaml precision=fp16,int8_b\t'
repeat 100 { sleep 0.1; zpty -r -t shell more && line+=$more; [[ $line == *int8_bf16* ]] && break }
print -r -- $line
zpty -d shell
"""


def test_zsh_completes(environment: dict[str, str]) -> None:
    """In a terminal of its own: zsh completes nothing without its line editor."""
    if shutil.which("zsh") is None:
        missing("zsh", "zsh is not installed: apt-get install zsh")
    done = subprocess.run(["zsh", "-f", "-c", ZSH], capture_output=True, text=True, check=True, env=environment)
    assert "precision=fp16,int8_bf16" in done.stdout, done.stdout


@pytest.mark.parametrize("line", ["sweep precision=", "sweep bisect --"])
def test_an_answer_costs_little_and_loads_no_heavy_library(
    line: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """CPU time of the whole process, so that a crowded machine does not count."""
    modules = tmp_path / "modules"
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nold = os._exit\ndef leave(code):\n    open({str(modules)!r}, 'w').write("
        "f'{sum(os.times()[:2])} ' + ' '.join(sys.modules))\n    old(code)\nos._exit = leave\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    assert tab(line, environment | {"PYTHONPATH": path}, tmp_path)
    cpu_s, *names = modules.read_text().split()
    assert float(cpu_s) < 0.3
    assert not {"mlflow", "onnx", "onnxruntime", "hydra", "rich", "numpy"} & set(names)


def test_every_key_and_choice_is_offered() -> None:
    """Descending through the levels reaches each key that the help lists."""
    reached: set[str] = set()
    waiting = [""]
    while waiting:
        words = completion.settings(waiting.pop())
        waiting += [word for word in words if word.endswith(".")]
        reached |= {word for word in words if not word.endswith(".")}
    keys = {line.split()[0] for line in schema.help_lines()}
    assert reached == {f"{key}=" for key in keys | set(schema.GROUPS) if ".NAME." not in key}
    for group in schema.GROUPS:
        assert completion.settings(f"{group}=") == [f"{group}={choice}" for choice in conf_files.choices(group)]
