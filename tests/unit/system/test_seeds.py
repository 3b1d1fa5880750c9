"""Random streams below a seed: none is another one, however its path ends."""

import itertools

from sweep.loadgen.arrivals import draw_due_ns, draw_unit_arrivals
from sweep.system import child_seed, generator


def test_paths_that_zeros_lengthen_and_neighbouring_seeds_are_streams_of_their_own() -> None:
    paths = [path for size in range(4) for path in itertools.product((0, 1, 5), repeat=size)]
    firsts = {float(generator(seed, *path).random()) for seed in (0, 1, 5) for path in paths}
    assert len(firsts) == 3 * len(paths)
    assert generator(3, 1, 0).random() == generator(3, 1, 0).random()
    assert len({child_seed(seed, number) for seed in range(9) for number in range(9)}) == 81


def test_the_arrivals_that_place_a_ladder_are_not_those_of_a_rung() -> None:
    """(0, 5) placed the ladder, and (0, 5, 0) was its fifth rung: the same stream, as NumPy pads with zeros."""
    placing = draw_unit_arrivals("poisson", 50, (0, 5)).times
    rung = draw_due_ns("poisson", 1.0, (50,), (0, 5, 0)) / 1e9
    assert abs(placing / placing[-1] - rung / rung[-1]).max() > 0.01
