"""The tables on terminals of every width."""

import io

import pytest
from profiled_layers import FP16, INT8, layer, source
from rich.console import Console

from sweep.report.layers import differ, print_difference, print_profile, wording

LONG = source(
    "net fp16 b8",
    [
        layer("a", 60.0, "encoder.0.attention.self.query.MatMul", "encoder.0.attention.self.query.Add"),
        layer("b", 30.0, "encoder.0.attention.output.dense.MatMul"),
        layer("c", 10.0),
        layer("d", None, "encoder.0.norm"),
    ],
    {
        "encoder.0.attention.self.query.MatMul": "MatMul",
        "encoder.0.attention.self.query.Add": "Add",
        "encoder.0.attention.output.dense.MatMul": "MatMul",
        "encoder.0.norm": "LayerNormalization",
    },
)


def lines(width: int, show, *arguments, **options) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    show(console, *arguments, **options)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("by", ["layer", "kind", "scope", "node"])
def test_no_line_is_wider_than_the_terminal_and_the_times_are_there(width: int, by: str) -> None:
    text = lines(width, print_profile, LONG, top=15, by=by)
    assert max(map(len, text)) <= width
    assert not any("… " in f"{line} " for line in text)  # a figure or a word is whole or left out
    largest = "60.0" if by in {"layer", "node"} else "90.0"
    assert any(largest in line and f"{largest}%" in line for line in text)


def test_wide_terminals_show_the_whole_name_and_narrow_ones_its_end() -> None:
    wide = lines(200, print_profile, LONG, top=15)
    assert any(line.startswith("encoder.0.attention.self.query.{MatMul, Add}  60.0") for line in map(_squeezed, wide))
    narrow = next(line for line in lines(60, print_profile, LONG, top=15) if " 60.0 " in line)
    assert _squeezed(narrow).startswith("encoder.…self.query.MatMul +1  60.0  60.0%  60%  memory")


def test_the_rows_that_are_left_out_are_counted() -> None:
    text = "\n".join(lines(120, print_profile, LONG, top=1))
    assert "3 more layers (40% of the time): --all prints them, --top N so many." in text
    assert "An inference takes 110 us, its 4 layers 100 us; the other 10.0 us (9%)" in text


def test_a_node_has_the_time_of_the_layer_that_it_is_fused_into() -> None:
    text = lines(160, print_profile, LONG, top=None, by="node")
    rows = [_squeezed(line) for line in text if "query.Add" in line]
    assert rows == ["encoder.0.attention.self.query.Add  60.0  60.0%  1  Add, fused with 1 more"]


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("by", ["layer", "kind", "scope"])
def test_a_difference_fits_too_and_begins_with_the_answer(width: int, by: str) -> None:
    difference = differ(source("net fp16 b8", *FP16), source("net int8 b8", *INT8))
    text = lines(width, print_difference, difference, top=2, by=by)
    assert max(map(len, text)) <= width
    assert text[0].startswith("B (int8) is 1.4 times slower than A (fp16)")
    assert any("+60.0" in line for line in text)
    assert any("more" in line and "--all" in line for line in text) is (by != "kind")


def _squeezed(line: str) -> str:
    return "  ".join(part.strip() for part in line.split("  ") if part.strip())


def test_a_rest_of_rounding_and_a_rate_of_nothing_are_told_in_words() -> None:
    layers, ops = FP16
    text = lines(200, print_profile, source("net", layers, ops, timed_us=150.0 - 1e-9), top=15)
    assert "An inference takes 150 us, its 2 layers 150 us: all of it." in text
    assert [wording.rate(value) for value in (0.000375, 0.0, 0.02, 1234.0)] == ["<0.001", "0", "0.02", "1,234"]
