"""What the kernel's other clocks tell of CLOCK_MONOTONIC."""

import re

import pytest
import stepped_clocks
from stepped_clocks import CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW

from sweep.errors import LoadError
from sweep.system import ClockWatch, Stopwatch

ALL = (CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME)


@pytest.fixture
def clocks(monkeypatch):
    return stepped_clocks.install(monkeypatch)


@pytest.mark.parametrize("by_s", [3600.0, -3600.0, 0.02, -0.02])
def test_a_step_is_told_with_its_size_and_direction(clocks, by_s):
    watch = ClockWatch()
    watch.check()
    clocks.step(by_s, CLOCK_MONOTONIC)
    assert watch.jump_s() == pytest.approx(by_s, abs=0.005)
    with pytest.raises(LoadError, match=r"CLOCK_MONOTONIC\) jumped by " + f"[{'+' if by_s > 0 else '-'}]"):
        watch.check()
    ClockWatch().check()  # what follows is measured by a clock that runs


@pytest.mark.parametrize("missing", [CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME])
@pytest.mark.parametrize("by_s", [60.0, -60.0])
def test_either_of_the_other_clocks_is_enough(clocks, missing, by_s):
    clocks.missing.add(missing)
    watch = ClockWatch()
    watch.check()
    clocks.step(by_s, CLOCK_MONOTONIC)
    expected = re.compile(r"jumped by \+60" if by_s > 0 else r"(jumped by -|suspended for )60")
    with pytest.raises(LoadError) as caught:
        watch.check()
    assert expected.search(str(caught.value))


def test_what_ntp_does_to_the_clock_is_no_step(clocks):
    watch = ClockWatch()
    clocks.step(100.0, CLOCK_MONOTONIC_RAW)
    clocks.step(108.3, CLOCK_MONOTONIC, CLOCK_BOOTTIME)
    assert watch.jump_s() == 0.0
    watch.check()


def test_a_machine_that_was_suspended_is_told_apart(clocks):
    watch = ClockWatch()
    clocks.step(7.0, CLOCK_BOOTTIME)
    assert watch.jump_s() == 0.0
    with pytest.raises(LoadError, match=r"the machine was suspended for 7\.000 s while it was measured"):
        watch.check()


@pytest.mark.parametrize("by_s", [60.0, -60.0])
def test_a_stopwatch_shows_the_time_that_passed(clocks, by_s):
    watch = Stopwatch()
    clocks.step(2.5, *ALL)
    clocks.step(by_s, CLOCK_MONOTONIC)
    assert watch.seconds() == pytest.approx(2.5, abs=0.2)
