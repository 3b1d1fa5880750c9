"""A slice of ``make fuzz``, the same cases each time: every door reads a content or refuses it in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fuzz_doors
import pytest
from hypothesis import HealthCheck, Phase, given, settings

if TYPE_CHECKING:
    from pathlib import Path

_CASES = 500  # of all doors together


@pytest.mark.fault
@pytest.mark.parametrize("door", fuzz_doors.DOORS, ids=lambda door: door.name)
def test_every_content_is_read_or_refused_in_one_line(door: fuzz_doors.Door, tmp_path: Path) -> None:
    outcomes: set[str] = set()

    @settings(
        max_examples=max(_CASES * door.share // 1000, 8),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(fuzz_doors.contents(door))
    def run_cases(content: bytes) -> None:
        outcomes.add(fuzz_doors.outcome(door, content, tmp_path))

    run_cases()
    assert outcomes >= ({"read"} if door.name == "index" else set())
    assert outcomes - {"read"} or door.name in {"index", "cache manifest"}, "no case was broken enough to be refused"


@pytest.mark.fault
def test_a_write_elsewhere_and_another_error_are_seen(tmp_path: Path) -> None:
    """The two promises can be broken: a door that does so fails."""
    elsewhere = tmp_path / "elsewhere"

    def write(path: Path) -> None:
        elsewhere.write_bytes(path.read_bytes())

    def divide(path: Path) -> float:
        return 1 / (path.stat().st_size - 2)

    for use, line in ((write, f"outside of its folder: open {elsewhere}"), (divide, "ZeroDivisionError at")):
        door = fuzz_doors.Door(name="bad", file="f", seeds=list, use=use, share=1)
        with pytest.raises(fuzz_doors.FaultError, match=line):
            fuzz_doors.outcome(door, b"ab", tmp_path / "inside")
