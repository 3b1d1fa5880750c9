"""What a log file gets to see: one line per variant, with every name as it is."""

import dataclasses
import io

import pytest
from rich.console import Console

from sweep.runner.progress import Display, TimeLeft, _Line
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
        for number, item in enumerate(records):
            display.variant(item.variant["label"])
            display.stage("measure", "closed loop", 0.5)
            display.passed()
            display.finished(dataclasses.replace(item, key=str(number)))
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
    assert "[1/1] a  \u2501" in text
    assert "left 0 s" in text
    assert "starting" in text, "no stage is blank"
    assert "[1/1] a  ok" in text


def test_one_count_of_variants_whatever_the_number_of_passes() -> None:
    out = io.StringIO()
    records = [dataclasses.replace(record(name), key=name) for name in "ab"]
    with Display(Console(file=out, width=80), passes=6, variants=2) as display:
        for item in (*records, records[1]):  # b gets a second record, after its search
            display.passed()
            display.finished(item)
    assert [line[:7] for line in out.getvalue().splitlines()] == ["[1/2] a", "[2/2] b", "[2/2] b"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_the_live_line_never_wraps_and_keeps_count_stage_and_time(width) -> None:
    line = _Line("[3/40]", "resnet50 int8_bf16 b128 s4 graph", "measuring closed loop", 0.5)
    text = line.text(width, "1:05, left 12 min").plain
    assert len(text) < width
    assert text.startswith("[3/40] resnet50")
    if width >= 60:
        assert "measuring closed" in text
        assert text.endswith("  1:05, left 12 min")
    assert ("\u2501" in text) == (width == 200)
    if width == 40:
        assert text == "[3/40] resnet50 in\u2026  1:05, left 12 min"
    assert _Line("[0/4]", stage="waiting for the device").text(40, "0:02").plain == "[0/4] waiting for the device  0:02"


def test_the_time_left_moves_and_contains_waiting() -> None:
    now = 0.0
    left = TimeLeft(4, 40.0, lambda: now)
    assert left.left_s() == 40.0
    now = 4.0
    assert left.left_s() == 36.0, "it moves while a pass runs"
    now = 15.0
    assert left.left_s() == 30.0, "a pass that takes longer leaves the others their time"
    left.wait(waits=True)
    now = 25.0
    assert left.left_s() == 30.0
    left.passed()
    assert left.left_s() == pytest.approx(3 * (25 + 10) / 2), "the next ones may have to wait too"
    now = 26.0
    left.wait(waits=True)
    now = 36.0
    assert left.left_s() == pytest.approx(3 * (25 + 10) / 2 - 1), "no second of a wait brings the end nearer"
    for _ in range(3):
        left.passed()
    assert left.left_s() == 0.0
    assert TimeLeft(4, None, lambda: now).left_s() is None


def test_a_narrower_terminal_leaves_no_rest_of_the_line() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with Display(console, passes=1) as display:
        display.variant("a" * 70)
        display._live._live.refresh()
        console.width = 40
        display._live._live.refresh()
        assert console.file.getvalue().count("\x1b[1A\x1b[2K") == 2, "a line of 97 columns is three of 40"


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
