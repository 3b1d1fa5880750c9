"""Run the commands of pages of the docs as they are written, in order, each page in a fresh folder.

    .venv/bin/python tests/docs/run_pages.py README.md docs/howto/own-yaml.md
    .venv/bin/python tests/docs/run_pages.py --limit-s 120 --into /tmp/pages

Files that a page shows are written where it says. A name that stands for a file of the reader's, such as
``net.onnx``, is given one of a small trained network. A command that takes longer than the limit is interrupted as by
Ctrl-C, twice where it goes on, and counted as not run to its end. Commands of ``make`` and of a GPU are listed and
not run. Ends with 1 if a command ended with another code than 0.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]
PROGRAMS = {"sweep", "python", "git", "make", "source", "pip", "env", "cp", "cd", "export"}
NOT_RUN = {  # beginning of a command: why it is not run
    "make ": "of the clone",
    "source ": "of the clone",
    "sweep model.torch": "needs torch",
    "sweep model.saved_model": "needs tensorflow",
    "sweep model.path=silero_vad.onnx": "needs a network of others",
    "sweep pipeline=mine.yaml": "needs networks of others",
    "sweep run pair.yaml": "needs a GPU",
    "sweep 'together=[{model:resnet50,batch:8},{model:bert_base}]'": "needs a GPU",
    "sweep model.engine=": "needs a GPU",
    "sweep trtexec": "needs a GPU",
    "sweep layers types": "needs a GPU",
    "sweep layers on-gpu": "needs a GPU",
    "sweep ui": "serves until it is interrupted",
}


@dataclass
class Outcome:
    """Hold how a command ended.

    Attributes:
        page, command: where it stands, and its text.
        code: exit code; None if it was not run, or not to its end.
        remark: why.
        wall_s: time that it took, s.
        output: what it printed.
    """

    page: str
    command: str
    code: int | None
    remark: str
    wall_s: float
    output: str = ""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the code blocks of a page, in order: info and text."""
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    return [(token.info, token.content) for token in tokens if token.type in {"fence", "code_block"}]


def commands(text: str) -> list[str]:
    """Return the commands of a block, each with the lines that continue it; none for what a command prints."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line.strip() for line in lines if (line.split() or [""])[0] in PROGRAMS]


def filled(command: str, folder: Path) -> str:
    """Return a command with files that are there in place of the names that stand for any."""
    records = sorted(folder.glob("results/*/records/*.json"), key=lambda path: path.stat().st_mtime)
    recipes = sorted(folder.glob("results/recipes/precision/*.yaml"))
    command = command.replace("/any/model.onnx", "net.onnx")
    if "model.samples=inputs.npz" in command:
        command = command.replace("net.onnx", "bytes.onnx")
    if records:
        command = command.replace("results/SWEEP/records/KEY.json", str(records[-1].relative_to(folder)))
    if recipes:
        command = command.replace("net_int8_kept_0a1b2c", recipes[0].stem)
    return command


def run_page(page: Path, folder: Path, fixtures: Path, limit_s: float) -> list[Outcome]:
    """Run a page in `folder`; return how each command ended."""
    name = page.relative_to(ROOT).as_posix()
    folder.mkdir(parents=True)
    shutil.copytree(fixtures, folder, dirs_exist_ok=True)
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    outcomes, session = [], ""
    for info, text in blocks(page):
        caption = re.match(r":caption: (\S+)\n", text)
        if caption:
            file = folder / caption[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text[caption.end() :].lstrip("\n"))
        elif info == "python":  # blocks of a page are one session
            session += text
            outcomes.append(run(name, f"python - <<'END'\n{session}END", folder, limit_s))
        elif info in {"", "sh", "console", "shell"}:
            outcomes += [run(name, command, folder, limit_s) for command in commands(text)]
    return outcomes


def run(page: str, command: str, folder: Path, limit_s: float) -> Outcome:
    """Run one command; interrupt it at the limit."""
    reason = next((why for head, why in NOT_RUN.items() if command.startswith(head)), None)
    if reason is not None or (command.startswith("sweep") and "..." in command.split("#", maxsplit=1)[0]):
        outcome = Outcome(page, command, None, reason or "a synopsis", 0.0)
        say(outcome)
        return outcome
    start = time.monotonic()
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    child = subprocess.Popen(
        ["bash", "-c", f"exec {filled(command, folder)}" if command.startswith("sweep") else filled(command, folder)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    remark = ""
    try:
        output, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        remark = f"interrupted after {limit_s:.0f} s"
        output, is_killed = interrupted(child)
        remark += ", killed" if is_killed else ""
    outcome = Outcome(page, command, None if remark else child.returncode, remark, time.monotonic() - start, output)
    say(outcome)
    return outcome


def interrupted(child: subprocess.Popen[str]) -> tuple[str, bool]:
    """Interrupt a command as Ctrl-C would, twice if it goes on, which ends its variant too, and kill it at last.

    Returns:
        What it printed, and whether it had to be killed.
    """
    for _ in range(2):
        child.send_signal(signal.SIGINT)
        try:
            return child.communicate(timeout=30)[0], False
        except subprocess.TimeoutExpired:
            continue
    os.killpg(child.pid, signal.SIGKILL)
    return child.communicate()[0], True


def say(outcome: Outcome) -> None:
    """Print one outcome, and what a command that failed printed."""
    code = outcome.remark or outcome.code
    sys.stdout.write(f"{outcome.page}\t{outcome.wall_s:6.1f} s\t{code}\t{outcome.command.splitlines()[0]}\n")
    if outcome.code:
        sys.stdout.write("".join(f"    {line}\n" for line in outcome.output.splitlines()[-12:]))
    sys.stdout.flush()


def main() -> int:
    """Run the pages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, help="pages [README.md, the tutorial, all of docs/howto]")
    parser.add_argument("--limit-s", type=float, default=120.0, help="longest time of a command, s")
    parser.add_argument("--into", type=Path, help="folder for the pages' folders, kept [a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        into = options.into or Path(temporary) / "pages"
        fixtures = Path(temporary) / "fixtures"
        subprocess.run([sys.executable, Path(__file__).with_name("reader_files.py"), fixtures], check=True)
        outcomes = [
            outcome
            for page in options.pages or PAGES
            for outcome in run_page(page.resolve(), into.resolve() / page.stem, fixtures, options.limit_s)
        ]
        failed = [outcome for outcome in outcomes if outcome.code]
        not_run = [outcome for outcome in outcomes if outcome.code is None]
        sys.stdout.write(f"{len(outcomes)} commands, {len(failed)} failed, {len(not_run)} not run to their end\n")
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
