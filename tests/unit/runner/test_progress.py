"""What a log file gets to see: one line per variant, with every name as it is."""

import io

import pytest
from rich.console import Console

from sweep.runner.progress import Display
from sweep.storage.record import Record


def record(label="tiny_cnn fp16 b1 s1", status="ok", message=None, peak=1234.0):
    return Record(
        key="k",
        sweep="s",
        status=status,
        started_at="2026-01-01T00:00:00.000+00:00",
        wall_s=1.25,
        variant={"label": label},
        peak=None if peak is None else {"ips": peak},
        error=None if message is None else {"stage": "build", "kind": "X", "message": message, "stderr_tail": []},
    )


def shown(*records, terminal=False, width=80):
    """What the display prints over a sweep that ends with ``records``."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    with Display(console, passes=len(records)) as display:
        for item in records:
            display.variant(item.variant["label"])
            display.stage("measure", "closed loop", 0.5)
            display.passed()
            display.finished(item)
    return out.getvalue()


def test_a_log_has_one_line_per_variant_and_nothing_else() -> None:
    assert shown(record("a"), record("b")).splitlines() == [
        "[1/2] a  ok  peak 1,234 samples/s, 1.2 s",
        "[2/2] b  ok  peak 1,234 samples/s, 1.2 s",
    ]


def test_a_long_error_is_still_one_line_in_a_log() -> None:
    message = "onnxruntime refused the graph: " + "no kernel for this node and its many inputs " * 5
    text = shown(record("net fp16 b1 s1", "failed", message.strip(), peak=None))
    assert text == f"[1/1] net fp16 b1 s1  failed  build: {message.strip()}\n"


@pytest.mark.parametrize("label", ["net[v2] fp16", "net[bold]x[/bold]", "[red]", "a[/]b", "net\\[x]"])
@pytest.mark.parametrize("terminal", [False, True])
def test_brackets_in_a_label_are_not_eaten(label, terminal) -> None:
    assert label in shown(record(label), terminal=terminal, width=200)


def test_brackets_in_messages_and_notes_are_not_eaten() -> None:
    assert "build: no [kernel] for [/it]" in shown(record(status="failed", message="no [kernel] for [/it]"))
    out = io.StringIO()
    Display(Console(file=out, width=200), passes=1).note("shape is [batch,16] [red]")
    assert out.getvalue() == "note: shape is [batch,16] [red]\n"


def test_a_variant_without_figures_has_its_line() -> None:
    assert shown(record("a", "crashed", "killed", peak=None)) == "[1/1] a  crashed  build: killed\n"
    assert shown(record("a", peak=None)).strip() == "[1/1] a  ok  1.2 s"


def test_a_terminal_sees_the_stage() -> None:
    text = shown(record("a"), terminal=True, width=200)
    assert "variant 1 of 1" in text
    assert "[1/1] a  ok" in text


def test_the_bar_is_gone_when_the_sweep_breaks_off() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)

    def interrupted() -> None:
        with Display(console, passes=1) as display:
            display.variant("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with Display(console, passes=1):  # a live bar left behind would be refused here
        pass
