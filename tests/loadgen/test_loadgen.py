"""Drive one onnxruntime session by our generator and by MLPerf LoadGen in turn (docs/evidence/loadgen.md)."""

import statistics

import pytest
import require

from sweep.storage.cache import Cache

try:
    import side_by_side as sides
except ModuleNotFoundError:  # without mlcommons-loadgen
    sides = None

pytestmark = [pytest.mark.loadgen, pytest.mark.timeout(1200)]

FRACTIONS = (0.3, 0.6, 0.8)  # of the closed loop's peak
PERCENTILES = ("p50", "p90", "p99")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Five calm rounds; up to eight where the ranges of five do not meet, which chance does to one in a hundred."""
    if sides is None:
        require.missing("loadgen", "mlcommons-loadgen is not installed: make install")
    folder = tmp_path_factory.mktemp("loadgen")
    session = sides.session_of(Cache(folder / "cache"))
    total = sides.measured(session, FRACTIONS, folder)
    sides.show(total)
    if total.rounds < sides.ROUNDS:
        require.missing(
            "calm", f"other programs slowed {total.thrown_away} pairs of runs: latencies need a calm machine"
        )
    return total


@pytest.mark.parametrize("name", PERCENTILES)
@pytest.mark.parametrize("what", [*FRACTIONS, "SingleStream"])
def test_percentiles_agree_within_both_tools_spread(found, what, name) -> None:
    key = what, name
    assert sides.agree(found.ours[key], found.theirs[key], sides.cost_of(found, key))


def test_throughput_offline_agrees_within_both_tools_spread(found) -> None:
    key = "Offline", "rps"
    assert sides.agree(found.ours[key], found.theirs[key])


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_what_is_taken_off_is_small_beside_an_inference(found, fraction) -> None:
    """LoadGen's start cost is a wake-up and a hand-over between threads: were it more, it would hide a difference."""
    assert 0 < statistics.median(found.start_cost[fraction]) < 0.15 * found.service_ms


@pytest.mark.parametrize("name", PERCENTILES)
def test_a_timer_that_runs_from_the_send_does_not_pass_this_check(found, name) -> None:
    key = max(FRACTIONS), name
    assert not sides.agree(found.wrong[key], found.theirs[key], sides.cost_of(found, key))


@pytest.mark.parametrize("name", PERCENTILES)
@pytest.mark.parametrize("tool", ["ours", "LoadGen"])
def test_both_timers_start_at_the_schedule(found, tool, name) -> None:
    """Under the same arrivals each tool shows the latencies of a first-in-first-out queue of its inferences."""
    assert statistics.median(found.explained[tool, name]) == pytest.approx(1.0, abs=0.1)
