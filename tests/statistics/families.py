"""Service times in two halves: constants of the product are tuned on the first, and the second is held apart.

A family draws service times of mean near 1, shape (sweeps, count), one row a sweep. No constant of the product may be
chosen by what the held-apart half shows; the study prints both halves side by side. Of the second half, ``APART`` was
looked at while constants were chosen in November 2026; ``FRESH`` was added after that and is printed once a version.
"""

import functools
import heapq
import math

import numpy as np
from scipy import special

from sweep.loadgen.arrivals import draw_due_ns


def constant(_rng, sweeps, count):
    """Every service time is 1."""
    return np.ones((sweeps, count))


def lognormal(cv, phi=0.0):
    """Lognormal times whose logarithms are an AR(1) series."""
    width = math.sqrt(math.log1p(cv * cv))

    def draw(rng, sweeps, count):
        noise = rng.standard_normal((sweeps, count))
        if phi:
            from scipy import signal  # a second to import, which the collection of all other tests does without

            noise[:, 1:] *= math.sqrt(1 - phi * phi)
            noise = signal.lfilter([1.0], [1.0, -phi], noise, axis=1)
        return np.exp(width * noise - width * width / 2)

    return draw


def lognormal_percentile(p, cv):
    width = math.sqrt(math.log1p(cv * cv))
    return math.exp(width * special.ndtri(p) - width * width / 2)


# The half to tune on.


def erlang(cv):
    """Gamma times of the given spread."""
    shape = 1 / cv**2
    return lambda rng, sweeps, count: rng.gamma(shape, 1 / shape, (sweeps, count))


def moving_average(cv, width):
    """Times that share the noise of the ``width`` requests before them: correlation that ends sharply."""

    def draw(rng, sweeps, count):
        noise = np.cumsum(rng.standard_normal((sweeps, count + width)), axis=1)
        return np.maximum(1 + cv * (noise[:, width:] - noise[:, :-width]) / math.sqrt(width), 0.05)

    return draw


def clock_steps(stay, levels=(1.0, 1.08, 1.25)):
    """A clock that steps to a random level, each for a geometric time of mean ``stay`` requests."""

    def draw(rng, sweeps, count):
        renew = rng.random((sweeps, count)) < 1 / stay
        renew[:, 0] = True
        at = np.maximum.accumulate(np.where(renew, np.arange(count), 0), axis=1)
        level = rng.choice(levels, (sweeps, count))
        held = np.take_along_axis(level, at, axis=1)
        return held * rng.normal(1.0, 0.02, (sweeps, count)) / float(np.mean(levels))

    return draw


def random_pauses(gap, length):
    """A pause of ``length`` before a request in ``gap``, at random."""

    def draw(rng, sweeps, count):
        times = rng.normal(1.0, 0.05, (sweeps, count))
        return times + length * (rng.random((sweeps, count)) < 1 / gap)

    return draw


def sine(period, depth):
    """A speed that swings with a period counted in requests, from a random phase."""

    def draw(rng, sweeps, count):
        phase = 2 * math.pi * (rng.random((sweeps, 1)) + np.arange(count) / period)
        return (1 + depth * np.sin(phase)) * rng.normal(1.0, 0.03, (sweeps, count))

    return draw


def weibull(shape):
    """A tail between the exponential one and a power law."""
    mean = math.gamma(1 + 1 / shape)
    return lambda rng, sweeps, count: rng.weibull(shape, (sweeps, count)) / mean


# The half held apart.


def two_states(stay, share, slow, jitter=0.02):
    """A fast and a slow state, with geometric visits: ``stay`` requests in the slow one, ``share`` of all are slow."""

    def draw(rng, sweeps, count):
        leave, enter = 1 / stay, share / (stay * (1 - share))
        drawn = rng.random((count, sweeps))
        state = np.empty((count, sweeps), dtype=bool)
        state[0] = rng.random(sweeps) < share
        for at in range(1, count):
            state[at] = np.where(state[at - 1], drawn[at] >= leave, drawn[at] < enter)
        return np.where(state.T, slow, 1.0) * np.exp(jitter * rng.standard_normal((sweeps, count)))

    return draw


def pareto(shape):
    """A power law."""
    return lambda rng, sweeps, count: (shape - 1) / shape * rng.random((sweeps, count)) ** (-1 / shape)


def periodic_stalls(period, length, cv=0.05):
    """A stall of ``length`` in every ``period`` of busy time, from a random phase."""
    plain = lognormal(cv)

    def draw(rng, sweeps, count):
        times = plain(rng, sweeps, count)
        work = period - length
        worked = np.cumsum(times, axis=1)
        stalls = np.floor((worked + rng.random((sweeps, 1)) * work) / work)
        return times + length * np.diff(stalls, axis=1, prepend=np.floor(stalls[:, :1]))

    return draw


def ticks(draw_times, tick):
    """Times that a coarse clock rounds up."""
    return lambda rng, sweeps, count: np.ceil(draw_times(rng, sweeps, count) / tick) * tick


def exponential(rng, sweeps, count):
    """Memoryless times."""
    return rng.exponential(1.0, (sweeps, count))


def hyperexponential(cv2):
    """Two exponentials with balanced means, squared cv ``cv2``."""
    share = (1 + math.sqrt((cv2 - 1) / (cv2 + 1))) / 2

    def draw(rng, sweeps, count):
        first = rng.random((sweeps, count)) < share
        return rng.exponential(1.0, (sweeps, count)) / (2 * np.where(first, share, 1 - share))

    return draw


def bimodal(rng, sweeps, count):
    """Nine in ten take 0.7, the tenth 3.7."""
    return np.where(rng.random((sweeps, count)) < 0.9, 0.7, 3.7)


# Held apart, and added after the constants were chosen.


def inverse_gaussian(cv):
    """Times of a random walk until it reaches a level: a tail between gamma and lognormal."""
    return lambda rng, sweeps, count: rng.wald(1.0, 1 / cv**2, (sweeps, count))


def loglogistic(shape):
    """A power law on top of a smooth body: moments exist below order ``shape``."""
    mean = (math.pi / shape) / math.sin(math.pi / shape)

    def draw(rng, sweeps, count):
        uniform = rng.random((sweeps, count))
        return (uniform / (1 - uniform)) ** (1 / shape) / mean

    return draw


def fractional_noise(cv, memory):
    """Long memory: correlation that falls as a power of the lag, ``memory`` between 0 and 0.5."""

    def draw(rng, sweeps, count):
        from scipy import signal

        lags = np.arange(1, 2000)
        weights = np.concatenate([[1.0], np.cumprod((lags - 1 + memory) / lags)])
        noise = signal.fftconvolve(rng.standard_normal((sweeps, count + len(weights))), weights[None, :], axes=1)
        noise = noise[:, len(weights) : len(weights) + count] / math.sqrt(float(np.sum(weights**2)))
        return np.maximum(1 + cv * noise, 0.05)

    return draw


def volatility_clusters(cv):
    """Times whose spread itself swings: uncorrelated in their values, correlated in their squares."""

    def draw(rng, sweeps, count):
        from scipy import signal

        wander = signal.lfilter([1.0], [1.0, -0.95], rng.standard_normal((sweeps, count)), axis=1)
        spread = cv * np.exp(0.5 * wander * math.sqrt(1 - 0.95**2))
        return np.maximum(1 + spread * rng.standard_normal((sweeps, count)), 0.05)

    return draw


def every_nth(period, slow):
    """One request in ``period`` takes ``slow`` times as long, from a random phase: a buffer that is refilled."""

    def draw(rng, sweeps, count):
        phase = rng.integers(period, size=(sweeps, 1))
        times = np.where((np.arange(count) + phase) % period == 0, slow, 1.0) * period / (period - 1 + slow)
        return times * rng.normal(1.0, 0.03, (sweeps, count))

    return draw


def noisy_neighbour(stay, away, slow):
    """A neighbour that comes for gamma-distributed visits of mean ``stay`` requests, away for a mean of ``away``."""

    def draw(rng, sweeps, count):
        rounds = int(4 * count / (stay + away)) + 8
        lengths = np.empty((sweeps, 2 * rounds))
        lengths[:, 0::2] = rng.gamma(4.0, away / 4, (sweeps, rounds))
        lengths[:, 1::2] = rng.gamma(4.0, stay / 4, (sweeps, rounds))
        ends = np.cumsum(lengths, axis=1)
        start = rng.random(sweeps) * ends[:, -1] / 2
        slow_now = [
            np.searchsorted(row, first + np.arange(count)) % 2 == 1 for row, first in zip(ends, start, strict=True)
        ]
        mean = (away + stay * slow) / (away + stay)
        return np.where(np.stack(slow_now), slow, 1.0) / mean * rng.normal(1.0, 0.03, (sweeps, count))

    return draw


TUNED = {
    "lognormal cv .1": lognormal(0.1),
    "gamma cv .5": erlang(0.5),
    "moving average of 25": moving_average(0.1, 25),
    "clock steps, 15 requests": clock_steps(15),
    "clock steps, 60 requests": clock_steps(60),
    "pause of 10 in 150": random_pauses(150, 10.0),
    "sine of 75 requests": sine(75, 0.2),
    "Weibull .6": weibull(0.6),
}
APART = {
    "AR(1) .7, cv .3": lognormal(0.3, 0.7),
    "AR(1) .97, cv .05": lognormal(0.05, 0.97),
    "slow 10% x1.5, stays 20": two_states(20, 0.1, 1.5),
    "slow 20% x1.2, stays 30": two_states(30, 0.2, 1.2),
    "slow 10% x1.5, stays 200": two_states(200, 0.1, 1.5),
    "Pareto 2.2": pareto(2.2),
    "stall of 20 in 500": periodic_stalls(500, 20.0),
    "stall of 20 in 90": periodic_stalls(90, 20.0),
    "cv .02 in ticks of .015": ticks(lognormal(0.02), 0.015),
}
FRESH = {
    "inverse Gaussian cv .7": inverse_gaussian(0.7),
    "log-logistic 3": loglogistic(3.0),
    "long memory .3, cv .1": fractional_noise(0.1, 0.3),
    "spread that swings, cv .2": volatility_clusters(0.2),
    "each 8th x2": every_nth(8, 2.0),
    "neighbour 40 in 400, x1.4": noisy_neighbour(40, 360, 1.4),
}
TUNED_QUEUES = {"M/Erlang(cv .5)/1": erlang(0.5), "M/Weibull .6/1": weibull(0.6), "M/steps of 60/1": clock_steps(60)}
APART_QUEUES = {
    "M/D/1": constant,
    "M/M/1": exponential,
    "M/H2/1": hyperexponential(4.0),
    "M/bimodal/1": bimodal,
    "M/Pareto 2.2/1": pareto(2.2),
    "M/slow 10% x1.5, stays 200/1": two_states(200, 0.1, 1.5),
    "M/stall of 20 in 500/1": periodic_stalls(500, 20.0),
}
FRESH_QUEUES = {
    "M/inverse Gaussian .7/1": inverse_gaussian(0.7),
    "M/log-logistic 3/1": loglogistic(3.0),
    "M/each 8th x2/1": every_nth(8, 2.0),
    "M/neighbour 40 in 400, x1.4/1": noisy_neighbour(40, 360, 1.4),
}


def sojourn(gaps, served):
    """Waiting and service of each request, from the gap before it and its own service time (Lindley's recursion)."""
    steps = np.zeros_like(served)
    steps[:, 1:] = served[:, :-1] - gaps[:, 1:]
    walk = np.cumsum(steps, axis=1)
    return walk - np.minimum(np.minimum.accumulate(walk, axis=1), 0) + served


def product_gaps(rate, counts, seeds):
    """Gaps drawn as the product draws them: Poisson, conditioned on the count of the warm-up and of the window."""
    due = np.stack([draw_due_ns("poisson", rate * 1e3, counts, seed) for seed in seeds]) / 1e6
    return np.diff(due, axis=1, prepend=0.0)


def queue(rng, sweeps, count, *, load, draw, warm=3000):
    """Latencies of a single server under Poisson arrivals, after a long warm-up."""
    total = warm + count
    return sojourn(rng.exponential(1 / load, (sweeps, total)), draw(rng, sweeps, total))[:, warm:]


def several_servers(due, served, servers):
    """Starts and ends of requests of a queue in front of ``servers`` servers."""
    free = [0.0] * servers
    starts, ends = np.empty(len(due)), np.empty(len(due))
    for at, (arrival, length) in enumerate(zip(due.tolist(), served.tolist(), strict=True)):
        starts[at] = max(heapq.heappop(free), arrival)
        ends[at] = starts[at] + length
        heapq.heappush(free, ends[at])
    return starts, ends


@functools.cache
def _long_run(draw, rows, count, seed=1_000_003):
    values = draw(np.random.default_rng(seed), rows, count)
    return np.sort(values, axis=None), float(values.mean())


def long_run(draw, levels, rows=8, count=100_000):
    """Percentiles and mean of 800,000 service times; drawn once a family."""
    ordered, mean = _long_run(draw, rows, count)
    return [float(value) for value in np.quantile(ordered, levels)], mean
