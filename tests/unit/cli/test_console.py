"""Text for narrow terminals: lines broken between words, tables that become paragraphs."""

from __future__ import annotations

import contextlib
import io
import sys

import pytest
from rich.console import Console

from sweep.cli import commands, console

HEADS = ("kind", "what", "MiB", "in use by")
ROWS = [("engines", "resnet50 int8 b8 [x]", "0.02", "-"), ("onnx", "resnet50", "107.25", "-")]


def printed(width: int, **options: object) -> list[str]:
    out = io.StringIO()
    console.print_rows(Console(file=out, width=width), HEADS, ROWS, right=("MiB",), **options)
    return out.getvalue().splitlines()


def test_a_table_leaves_out_what_no_row_has_and_aligns_numbers() -> None:
    lines = printed(60)
    assert lines[1].split() == ["kind", "what", "MiB"]
    assert [line.rstrip() for line in lines[3:5]] == [
        " engines   resnet50 int8 b8 [x]     0.02",
        " onnx      resnet50               107.25",
    ]


def test_one_column_takes_several_lines_before_the_table_becomes_paragraphs() -> None:
    assert [line.rstrip() for line in printed(40, fold="what")[3:6]] == [
        " engines   resnet50 int8 b8        0.02",
        "           [x]",
        " onnx      resnet50              107.25",
    ]
    assert printed(30) == [
        "kind engines, what resnet50",
        "  int8 b8 [x], MiB 0.02",
        "kind onnx, what resnet50, MiB",
        "  107.25",
    ]


def test_text_is_broken_between_words_and_lists_keep_their_columns() -> None:
    text = "One paragraph in\ntwo lines of text.\n\nKeys:\n  batch   samples of a request, and more of it\n  x  y\n"
    assert console.wrapped(text, 42).splitlines() == [
        "One paragraph in two lines of text.",
        "",
        "Keys:",
        "  batch   samples of a request, and more",
        "          of it",
        "  x  y",
    ]
    assert console.wrapped("  a.long.key        text of it that is long", 30).splitlines() == [
        "  a.long.key",
        "    text of it that is long",
    ]


@pytest.mark.parametrize("words", [["--help"], ["--help", "load"], ["compare", "--help"]])
def test_no_help_is_wider_than_the_terminal(words, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    with contextlib.suppress(SystemExit):  # argparse ends the process after its help
        commands.main(words)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 15
    assert max(map(len, lines)) <= 60
