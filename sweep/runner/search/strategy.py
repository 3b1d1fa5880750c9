"""Decide what a search does next. Every decision follows from the seed and the observations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.runner.search.candidates import features
from sweep.runner.search.costs import Costs
from sweep.runner.search.outcome import Outcome, State
from sweep.runner.search.sampler import Sampler
from sweep.runner.search.surrogate import Posterior, Surrogate, normal_excess
from sweep.system import generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis import Floats
    from sweep.runner.search.candidates import Candidate, Features
    from sweep.runner.search.objectives import Objective
    from sweep.runner.search.observation import Observation

TOLERANCE = 0.02  # of the best, within which a variant is as good
RISK = 0.05
_START_CV, _START_FREEDOM = 0.025, 3  # what starts differ by until pairs say more
_LEAST_CV = 0.003
_EXACT_CV = 0.002
_DRAWS = 400
_MOST_DRAWN = 40  # candidates whose scores are drawn together: the likeliest to be better
_SEED = 6700  # path of the draws below the seed
_TOGETHER = 0.5  # share of the first one's value a second, from which a sibling is probed with it
_RESERVED, _RESERVED_FIRST = 1, 4  # measurements that the budget keeps time for: with an answer, and without one
_MOST_RESERVED = 0.15  # of the budget
_HOPE = 0.5  # weight of the belief that a candidate may win, against those near it that could not
_NEAR_DOUBLINGS, _NEAR_WORD = 1.5, 0.5  # how far the reason of one that could not win reaches
_LEAST_SHARE = 1e-3
_SMALL = 1e-6  # of a doubling
_ALL, _SPENT = "everything was tried", "the budget is spent"
_MOST_SIBLINGS, _FIRST_SIBLINGS = 5, 1  # probed with a candidate: of words that were seen, and of new ones
_ASKED = 8  # proposals of the sampler among which the cheapest is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Hold what is searched for, and how.

    Attributes:
        method: halving or bayes.
        objectives: one, or several for a front.
        budget_s: time of all probes and measurements, s; None for no limit.
        seed: random seed.
        full_s: expected time of a measurement, s.
    """

    method: str
    objectives: tuple[Objective, ...]
    budget_s: float | None
    seed: int = 0
    full_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Hold what is to run next: candidates of one engine.

    Attributes:
        keys: in this order.
        full: measure them; False probes them.
        reason: why, in a few words.
    """

    keys: tuple[str, ...]
    full: bool
    reason: str


class Search:
    """Decide, one step after the other.

    Args:
        candidates: in the order of the plan.
        goal: what is searched for.
    """

    def __init__(self, candidates: Sequence[Candidate], goal: Goal) -> None:
        self._candidates = list(candidates)
        self._goal = goal
        self._places = {candidate.key: place for place, candidate in enumerate(candidates)}
        self._features = features(candidates)
        self._alike, self._near = _nearness(self._features)
        self._kinds = _engine_words(self._candidates, self._features)
        self._surrogates = [Surrogate(self._features, objective.slopes) for objective in goal.objectives]
        self._probes: dict[int, Observation] = {}
        self._fulls: dict[int, Observation] = {}
        self._built: set[str] = set()
        self._refused: dict[str, str] = {}
        self._costs = Costs(goal.full_s)
        self._steps = 0
        self._posteriors: list[Posterior] | None = None
        self._sampler = Sampler(self._candidates, goal.objectives, goal.seed) if goal.method == "bayes" else None
        self.spent_s = 0.0
        self.ended = _ALL

    def tell(self, observations: Sequence[Observation]) -> None:
        """Take in what a step showed."""
        for observation in observations:
            place = self._places[observation.key]
            (self._fulls if observation.full else self._probes)[place] = observation
            self._costs.add(observation)
            self.spent_s += observation.cost_s
            engine = self._candidates[place].engine
            if observation.scores[0] is not None:
                self._built.add(engine)
            elif observation.reason is not None and engine not in self._built:
                self._refused[engine] = observation.reason
            if self._sampler is not None:
                self._sampler.tell(place, observation)
        self._posteriors = None

    def next(self) -> Step | None:
        """Return the next step; None where the search has ended, with the reason in ``ended``."""
        self._steps += 1
        untried, leader = self._untried(), self._leader()
        if leader is None:
            return self._first_look(untried)
        weighted, scores = self._weighted()
        worth_it = self._chance(weighted, untried, leader) >= RISK
        affordable = [place for place in untried if self._fits(place)]
        if affordable and worth_it:
            values = self._values(affordable, float(scores[leader]))
            promising = self._most_promising(scores)
            if promising is not None and promising[1] > max(values.values()):
                return self._measure(promising[0], "it is worth more a second than what was not tried")
            return self._explore(affordable, float(scores[leader]))
        near = self._neighbours(leader, affordable)
        if near:
            return self._explore(near, float(scores[leader]))
        step = self._confirm(weighted, leader)
        if step is None and self.ended == _ALL and untried:
            self.ended = _SPENT if worth_it else f"nothing left is more than {TOLERANCE:.0%} better, at 95% confidence"
        return step

    def _most_promising(self, scores: Floats) -> tuple[int, float] | None:
        """Return the probed candidate whose measurement is worth most a second, and how much: what it gains the answer.

        As long as nothing measured can be the answer, it gains all of itself, which counts as a doubling.
        """
        unusable, shares = self._unusable(), self._feasible_share()
        probed = [p for p in self._probes if p not in self._fulls and p not in unusable]
        usable = [p for p in self._fulls if p not in unusable]
        if not probed:
            return None
        top = max(float(scores[p]) for p in probed)
        answer = max((float(scores[p]) for p in usable), default=top - math.log(2))
        worth = {p: float(shares[p]) * (float(scores[p]) - answer) / self._costs.full_s for p in probed}
        best = max(worth, key=worth.__getitem__)
        return best, worth[best]

    def _first_look(self, untried: Sequence[int]) -> Step | None:
        """Return the first probes, or those after all so far failed: an answer is worth the rest of the budget."""
        budget_s = math.inf if self._goal.budget_s is None else self._goal.budget_s
        left_s = budget_s - self.spent_s
        measured_s = min(self._costs.full_s, left_s / 4) if self._fulls else self._costs.full_s
        affordable = [place for place in untried if self._cost(place) + measured_s <= left_s]
        if untried and not affordable:
            self.ended = _SPENT
        return self._explore(affordable, -math.inf) if affordable else None

    def _confirm(self, weighted: Posterior, leader: int) -> Step | None:
        """Return the measurement of what may still be the best by its probe; None where nothing may, or can be paid."""
        if leader not in self._fulls:
            return self._measure(leader, "the best of the probes")
        unusable = self._unusable()
        chances = {
            p: self._chance(weighted, [p], leader) for p in self._probes if p not in self._fulls and p not in unusable
        }
        likeliest = max(chances, key=chances.__getitem__, default=None)
        if likeliest is None or chances[likeliest] < RISK:
            return None
        return self._measure(likeliest, "it may be better than the best")

    def outcome(self) -> Outcome:
        """Return the answer by what was observed so far."""
        usable = [p for p in self._fulls if self._fulls[p].reason is None]
        states = {c.key: self._state(p) for p, c in enumerate(self._candidates)}
        reasons = {self._candidates[p].key: reason for p, reason in self._unusable().items()}
        if not usable:
            return Outcome(
                best=None, front=(), confidence=None, states=states, reasons=reasons, spent_s=self.spent_s,
                ended=self.ended,
            )  # fmt: skip
        front = self._front(usable)
        best = max(usable, key=lambda p: self._fulls[p].scores[0] or -math.inf)
        confidence = None
        if len(self._goal.objectives) == 1:
            others = [p for p in range(len(self._candidates)) if p != best and p not in self._unusable()]
            confidence = 1 - self._chance(self._posterior_list()[0], others, best, draws=4 * _DRAWS)
            for p in self._probes:
                if states[self._candidates[p].key] is State.PROBED:
                    chance = self._chance(self._posterior_list()[0], [p], best)
                    if chance < RISK:
                        states[self._candidates[p].key] = State.DROPPED
                        reasons[self._candidates[p].key] = (
                            f"its chance of being more than {TOLERANCE:.0%} better than the best is {chance:.1%}"
                        )
        return Outcome(
            best=self._candidates[best].key,
            front=tuple(self._candidates[p].key for p in front),
            confidence=confidence,
            states=states,
            reasons=reasons,
            spent_s=self.spent_s,
            ended=self.ended,
        )

    def _untried(self) -> list[int]:
        """Return the candidates without a probe or measurement whose engine was not refused."""
        return [
            place
            for place, candidate in enumerate(self._candidates)
            if place not in self._probes and place not in self._fulls and candidate.engine not in self._refused
        ]

    def _unusable(self) -> dict[int, str]:
        """Return the candidates that cannot win, with the reason."""
        reasons = {p: o.reason for p, o in {**self._probes, **self._fulls}.items() if o.reason is not None}
        for place, candidate in enumerate(self._candidates):
            if candidate.engine in self._refused:
                reasons.setdefault(place, self._refused[candidate.engine])
        return reasons

    def _state(self, place: int) -> State:
        if place in self._fulls:
            return State.MEASURED
        if place in self._probes:
            return State.DROPPED if self._probes[place].reason is not None else State.PROBED
        return State.DROPPED if self._candidates[place].engine in self._refused else State.UNTRIED

    def _leader(self) -> int | None:
        """Return the candidate with the best expected score among those that were observed; None without one."""
        unusable = self._unusable()
        seen = [p for p in {**self._probes, **self._fulls} if p not in unusable]
        if not seen:
            return None
        hoped = self._weighted()[1] + np.log(np.maximum(self._feasible_share(), _LEAST_SHARE))
        return max(seen, key=lambda p: float(hoped[p]))

    def _neighbours(self, place: int, untried: Sequence[int]) -> list[int]:
        """Return untried candidates at the next value of an axis, where these words were never tried with that value.

        They are looked at before a search ends: what is expected of an axis was then seen on both sides of the best.
        """
        x, words = self._features.doublings, self._features.words
        seen = [p for p in {**self._probes, **self._fulls} if (self._kinds[p] == self._kinds[place]).all()]
        near = []
        for axis in range(x.shape[1]):
            if self._features.doubled[axis] == "narrowness":
                continue
            others = np.delete(x, axis, axis=1)
            same = (words == words[place]).all(axis=1) & np.isclose(others, others[place]).all(axis=1)
            for sign in (-1, 1):
                gaps = np.where(
                    same & (sign * (x[:, axis] - x[place, axis]) > _SMALL),
                    np.abs(x[:, axis] - x[place, axis]),
                    math.inf,
                )
                closest = int(gaps.argmin())
                tried = np.isclose(x[seen, axis], x[closest, axis]).any()
                if math.isfinite(gaps[closest]) and closest in untried and not tried:
                    near.append(closest)
        return near

    def _weighted(self) -> tuple[Posterior, Floats]:
        """Return the posterior of the one objective, or of several weighted at random, and its mean."""
        posteriors = self._posterior_list()
        if len(posteriors) == 1:
            return posteriors[0], posteriors[0].mean
        weights = generator(self._goal.seed, _SEED + 1, self._steps).dirichlet(np.ones(len(posteriors)))
        mean = sum((w * p.mean for w, p in zip(weights, posteriors, strict=True)), np.zeros(len(self._candidates)))
        covariance = sum(
            (w**2 * p.covariance for w, p in zip(weights, posteriors, strict=True)),
            np.zeros((len(self._candidates),) * 2),
        )
        return Posterior(mean, covariance), mean

    def _posterior_list(self) -> list[Posterior]:
        if self._posteriors is None:
            self._posteriors = [self._posterior(number) for number in range(len(self._goal.objectives))]
        return self._posteriors

    def _posterior(self, number: int) -> Posterior:
        """Return the posterior of one objective."""
        cv = _EXACT_CV if self._goal.objectives[number].exact else self._start_cv(number)
        places, scores, variances = [], [], []
        for observations in (self._probes, self._fulls):
            for place, observation in observations.items():
                score = observation.scores[number]
                if score is not None:
                    places.append(place)
                    scores.append(score)
                    variances.append(cv**2 + observation.error**2)
        return self._surrogates[number].posterior(places, np.array(scores), np.array(variances))

    def _start_cv(self, number: int) -> float:
        """Return what starts of a variant differ by, from those that have a probe and a measurement."""
        squares, pairs = _START_CV**2 * _START_FREEDOM, _START_FREEDOM
        for place, full in self._fulls.items():
            probe = self._probes.get(place)
            ends = (full.scores[number], None if probe is None else probe.scores[number])
            if ends[0] is not None and ends[1] is not None:
                squares, pairs = squares + (ends[0] - ends[1]) ** 2 / 2, pairs + 1
        return max(math.sqrt(squares / pairs), _LEAST_CV)

    def _chance(self, posterior: Posterior, places: Sequence[int], best: int, draws: int = _DRAWS) -> float:
        """Return the chance that one of the candidates is better than the best one by more than the tolerance."""
        usable = self._feasible_share()
        if not places:
            return 0.0
        order = sorted(places, key=lambda p: -float(posterior.mean[p] + 2 * posterior.deviation[p]))[:_MOST_DRAWN]
        index = np.array([*order, best])
        part = Posterior(posterior.mean[index], posterior.covariance[np.ix_(index, index)])
        rng = generator(self._goal.seed, _SEED, 0)
        values = part.draws(draws, rng)
        shares = np.array([usable[p] for p in order])
        alive = rng.random((draws, len(order))) < shares
        better = (values[:, :-1] > values[:, -1:] + math.log1p(TOLERANCE)) & alive
        return float(better.any(axis=1).mean())

    def _feasible_share(self) -> Floats:
        """Return the chance of each candidate that it may win at all, by those near it that could and could not."""
        shown = {**{p: o for p, o in self._probes.items() if o.reason is not None}, **self._fulls}
        if all(observation.reason is None for observation in shown.values()):
            return np.ones(len(self._candidates))
        places = list(shown)
        broken = np.array([shown[p].scores[0] is None for p in places])
        near = np.where(broken[None], self._alike[:, places], self._near[:, places])
        good = np.array([shown[p].reason is None for p in places], dtype=np.float64)
        shares = np.asarray((near @ good + _HOPE) / (near.sum(axis=1) + _HOPE))
        shares[places] = good
        return shares

    def _cost(self, place: int) -> float:
        built = self._candidates[place].engine in self._built
        return self._costs.probe_s + (0.0 if built else self._costs.build_s)

    def _measure(self, place: int, reason: str) -> Step | None:
        budget_s = self._goal.budget_s
        if budget_s is not None and self._fulls and self.spent_s + self._costs.full_s > budget_s:
            self.ended = _SPENT
            return None
        return Step(keys=(self._candidates[place].key,), full=True, reason=reason)

    def _explore(self, affordable: Sequence[int], best: float) -> Step:
        """Return the probes of largest expected improvement a second: one candidate, and its siblings worth as much."""
        values = self._values(affordable, best)
        chosen = max(affordable, key=values.__getitem__)
        if self._sampler is not None and math.isfinite(best):
            proposals = [p for p in self._sampler.ask(_ASKED) if p in values]
            if proposals:
                chosen = min(proposals, key=self._cost)
        engine = self._candidates[chosen].engine
        siblings = [p for p in affordable if self._candidates[p].engine == engine and p != chosen]
        gain = values[chosen] * self._cost(chosen)  # what the engine's price buys; its siblings cost a probe each
        rate = values[chosen]
        together = [p for p in siblings if self._gain(values, p) / self._costs.probe_s > max(rate, _TOGETHER * gain)]
        together.sort(key=lambda p: -self._gain(values, p))
        known = any((self._kinds[p] == self._kinds[chosen]).all() for p in (*self._probes, *self._fulls))
        room = min(self._room(chosen), _MOST_SIBLINGS if known else _FIRST_SIBLINGS)
        return Step(
            keys=tuple(self._candidates[p].key for p in (chosen, *together[:room])),
            full=False,
            reason=f"expected gain {gain:.1%}" if math.isfinite(best) else "the first look",
        )

    def _gain(self, values: dict[int, float], place: int) -> float:
        return values[place] * self._cost(place)

    def _room(self, chosen: int) -> int:
        """Return how many siblings the budget leaves room for."""
        if self._goal.budget_s is None:
            return len(self._candidates)
        left = self._goal.budget_s - self.spent_s - self._cost(chosen) - self._reserved_s()
        return max(int(left / max(self._costs.probe_s, 1e-3)), 0)

    def _fits(self, place: int) -> bool:
        if self._goal.budget_s is None:
            return True
        return self.spent_s + self._cost(place) + self._reserved_s() <= self._goal.budget_s

    def _reserved_s(self) -> float:
        """Return the time that the budget keeps for measurements, s: more as long as none can be the answer."""
        answered = any(observation.reason is None for observation in self._fulls.values())
        reserved_s = (_RESERVED if answered else _RESERVED_FIRST) * self._costs.full_s
        return min(reserved_s, _MOST_RESERVED * (self._goal.budget_s or math.inf))

    def _values(self, places: Sequence[int], best: float) -> dict[int, float]:
        """Return the expected improvement a second of each candidate; before any, the expected score itself."""
        posterior, mean = self._weighted()
        shares = self._feasible_share()
        if not math.isfinite(best):
            top = float(mean.max())
            return {p: math.exp(float(mean[p]) - top) * float(shares[p]) / self._cost(p) for p in places}
        excess = normal_excess(posterior.mean, posterior.deviation, best)
        return {p: float(excess[p] * shares[p]) / self._cost(p) for p in places}

    def _front(self, usable: Sequence[int]) -> list[int]:
        scores = {p: [score or 0.0 for score in self._fulls[p].scores] for p in usable}
        return [
            p
            for p in usable
            if not any(
                all(a >= b for a, b in zip(scores[q], scores[p], strict=True)) and scores[q] != scores[p]
                for q in usable
            )
        ]


def _nearness(points: Features) -> tuple[Floats, Floats]:
    """Return how much each candidate says of what another can do, 0 to 1: of what cannot run at all, and otherwise.

    What a library refuses it refuses at any batch; what is unsteady or lacks memory is so near its own size.
    """
    square = ((points.doublings[:, None] - points.doublings[None]) ** 2).sum(axis=-1)
    differing = (points.words[:, None] != points.words[None]).sum(axis=-1)
    alike = np.asarray(_NEAR_WORD ** (2.0 * differing))
    return alike, np.asarray(np.exp(-square / (2 * _NEAR_DOUBLINGS**2)) * _NEAR_WORD**differing)


def _engine_words(candidates: Sequence[Candidate], points: Features) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the words that all variants of an engine share."""
    by_engine: dict[str, list[int]] = {}
    for place, candidate in enumerate(candidates):
        by_engine.setdefault(candidate.engine, []).append(place)
    shared = [
        axis
        for axis in range(points.words.shape[1])
        if all(len(set(points.words[places, axis])) == 1 for places in by_engine.values())
    ]
    return points.words[:, shared]
