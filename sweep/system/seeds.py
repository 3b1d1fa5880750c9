"""Derive independent random streams from the seed of a sweep.

``default_rng([seed, 5])`` and ``default_rng([seed, 5, 0])`` are the same stream, since NumPy pads entropy with zeros,
and ``seed + 1`` is the neighbour's seed. Spawn keys have neither fault.
"""

from __future__ import annotations

import numpy as np


def generator(seed: int, *path: int) -> np.random.Generator:
    """Return the random stream at `path` below `seed`; every other path, longer or shorter, has another one.

    Args:
        seed: seed of the sweep.
        path: what the stream is for, 0 or more each.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=path))


def child_seed(seed: int, *path: int) -> int:
    """Return a seed below 2**32 that stands for `path` below `seed`, where a number is needed."""
    return int(np.random.SeedSequence(seed, spawn_key=path).generate_state(1)[0])
