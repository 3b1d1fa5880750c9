"""Have Optuna's TPE sampler propose candidates, by ask and tell."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.runner.search.candidates import Candidate
    from sweep.runner.search.objectives import Objective
    from sweep.runner.search.observation import Observation

_STARTUP = 5  # random proposals before the sampler models anything
_TRIES = 4  # proposals a wanted one, since a grid may lack a combination or have tried it


class Sampler:
    """Propose candidates of a grid.

    Args:
        candidates: the grid.
        objectives: one or several.
        seed: random seed.
    """

    def __init__(self, candidates: Sequence[Candidate], objectives: Sequence[Objective], seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of options that Optuna calls experimental
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=_STARTUP)
            self._study = optuna.create_study(directions=["maximize"] * len(objectives), sampler=sampler)
        names = list(candidates[0].axes) if candidates else []
        self._values = {name: sorted({c.axes[name] for c in candidates}, key=_order) for name in names}
        self._spaces: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(range(len(values)))
            for name, values in self._values.items()
        }
        self._points = [tuple(self._values[name].index(c.axes[name]) for name in names) for c in candidates]
        self._by_point = {point: place for place, point in enumerate(self._points)}
        self._optuna = optuna

    def ask(self, count: int) -> list[int]:
        """Return up to ``count`` distinct candidates that the sampler proposes."""
        proposals: dict[int, None] = {}
        for _ in range(_TRIES * count):
            trial = self._study.ask(self._spaces)
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)  # what is run is told as its own trial
            place = self._by_point.get(tuple(trial.params[name] for name in self._spaces))
            if place is not None:
                proposals[place] = None
            if len(proposals) == count:
                break
        return list(proposals)

    def tell(self, place: int, observation: Observation) -> None:
        """Take in an observation; one that cannot win is no evidence of a good score."""
        if observation.reason is not None or None in observation.scores:
            return
        self._study.add_trial(
            self._optuna.trial.create_trial(
                params=dict(zip(self._spaces, self._points[place], strict=True)),
                distributions=self._spaces,
                values=[score for score in observation.scores if score is not None],
            )
        )


def _order(value: Any) -> tuple[str, Any]:
    return (type(value).__name__, value) if isinstance(value, int | float | str) else ("", repr(value))
