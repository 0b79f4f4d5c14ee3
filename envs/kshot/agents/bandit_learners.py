"""The classical learners of Bernoulli bandits that RL² is compared with, for all tasks at once.

RL² (Duan et al. 2016, arXiv 1611.02779), table 1: Gittins index, UCB1, Thompson sampling with and without
optimism, ε-greedy, greedy. All start from Beta(1, 1): an arm's mean is (1 + successes) / (2 + pulls).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from kshot.agents import Agent, Experience, Memoryless
from kshot.family import Variant

# By (arms, pulls): the best on `val`, 1,000 tasks each. `python -m kshot.agents.bandit_learners` prints them anew.
_SETTINGS = [(k, n) for n in (10, 100, 500) for k in (5, 10, 50)]
UCB1_C: dict[tuple[int, ...], float] = dict.fromkeys(_SETTINGS, 0.2)
EPSILON: dict[tuple[int, ...], float] = dict.fromkeys(_SETTINGS, 0.1)
SAMPLES: dict[tuple[int, ...], float] = dict(zip(_SETTINGS, (20, 20, 20, 10, 20, 20, 5, 10, 20), strict=True))

GITTINS_PULLS = 128  # the table has n³/3 entries, each from 201 values
GITTINS_POINTS = 201


def nearest(table: Mapping[tuple[int, ...], float], key: tuple[int, ...]) -> float:
    """Return the value of the key nearest in the sum of |log ratio|s, the first of equals."""
    return table[min(table, key=lambda known: sum(abs(math.log(a / b)) for a, b in zip(known, key, strict=True)))]


def between(name: str, value: float, least: float, most: float = math.inf) -> float:
    """Return a parameter, or raise ValueError where it is out of bounds."""
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}; expected {least} to {most}")
    return value


def explore(generator: np.random.Generator, choice: np.ndarray, n: int, epsilon: float) -> np.ndarray:
    """Replace each choice by one of n, uniformly, with probability epsilon."""
    other = generator.integers(n, size=len(choice))
    return np.where(generator.random(len(choice)) < epsilon, other, choice)


class BanditLearner(Memoryless):
    """Counts successes and pulls of every arm and pulls the arm of highest index, the first of equals."""

    def __init__(self, variant: Variant, seed: int = 0) -> None:
        """Take a Bernoulli bandit; ValueError for anything else."""
        space = variant.action_space
        if variant.family.name != "Bandit" or variant.constants.deviation or not isinstance(space, spaces.Discrete):
            raise ValueError(f"{variant.id}: {self.name} learns Bernoulli bandits only")
        self._arms, self._horizon = int(space.n), variant.horizon
        self._generator = np.random.default_rng(seed)
        self.config: dict[str, float] = {}

    def reset(self, n: int) -> None:
        """Forget all pulls."""
        self._successes, self._pulls = np.zeros((n, self._arms)), np.zeros((n, self._arms))
        self._rows = np.arange(n)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Pull the arm of highest index."""
        arm: np.ndarray = self.indices().argmax(-1)
        return arm

    def observe(self, experience: Experience) -> None:
        """Count."""
        self._pulls[self._rows, experience.action] += experience.active
        self._successes[self._rows, experience.action] += experience.reward * experience.active

    def means(self) -> np.ndarray:
        """Return the posterior mean of every arm, (n, arms)."""
        return (1 + self._successes) / (2 + self._pulls)

    def indices(self) -> np.ndarray:
        """Return what each arm is ranked by, (n, arms)."""
        return self.means()


class Greedy(BanditLearner):
    """Pulls the arm of highest posterior mean."""

    name = "greedy"


class EpsilonGreedy(BanditLearner):
    """Greedy, but for a uniform arm with probability epsilon."""

    name = "epsilon-greedy"

    def __init__(self, variant: Variant, seed: int = 0, epsilon: float | None = None) -> None:
        """Take the probability; None for the one tuned for the arms and pulls."""
        super().__init__(variant, seed)
        chosen = nearest(EPSILON, (self._arms, self._horizon)) if epsilon is None else epsilon
        self.config = {"epsilon": between("epsilon", chosen, 0, 1)}

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Pull the best arm, or any."""
        return explore(self._generator, super().act(observation), self._arms, self.config["epsilon"])


class UCB1(BanditLearner):
    """Posterior mean + c √(2 ln t / (2 + pulls)) after t pulls in all.

    UCB1 (Auer, Cesa-Bianchi, Fischer 2002) pulls every arm once first and has c = 1; RL² starts from Beta(1, 1)
    instead and tunes c in 0, 0.1, …, 1.
    """

    name = "ucb1"

    def __init__(self, variant: Variant, seed: int = 0, c: float | None = None) -> None:
        """Take the constant; None for the one tuned for the arms and pulls."""
        super().__init__(variant, seed)
        chosen = nearest(UCB1_C, (self._arms, self._horizon)) if c is None else c
        self.config = {"c": between("c", chosen, 0)}

    def indices(self) -> np.ndarray:
        """Add the bonus."""
        clock = np.maximum(1, self._pulls.sum(-1, keepdims=True))
        bonus: np.ndarray = self.config["c"] * np.sqrt(2 * np.log(clock) / (2 + self._pulls))
        bonus += self.means()
        return bonus


class ThompsonSampling(BanditLearner):
    """Ranks the arms by a draw from each one's posterior (Thompson 1933)."""

    name = "thompson"

    def indices(self) -> np.ndarray:
        """Draw a mean for every arm."""
        return self._generator.beta(1 + self._successes, 1 + self._pulls - self._successes)


class OptimisticThompsonSampling(ThompsonSampling):
    """Thompson sampling with draws below the posterior mean raised to it (May et al. 2012)."""

    name = "optimistic-thompson"

    def indices(self) -> np.ndarray:
        """Draw, but not below the mean."""
        raised: np.ndarray = np.maximum(self.means(), super().indices())
        return raised


class LikelyThompsonSampling(ThompsonSampling):
    """Ranks the arms by the most probable of several joint draws from the posterior.

    This is the "OTS" of RL²'s table 1, whose authors cite May et al. 2012 but keep, of 1 to 20 draws of all
    arms, the one of highest posterior density (their code in florensacc/rllab-curriculum).
    """

    name = "likely-thompson"

    def __init__(self, variant: Variant, seed: int = 0, samples: int | None = None) -> None:
        """Take the number of draws; None for the one tuned for the arms and pulls."""
        super().__init__(variant, seed)
        chosen = nearest(SAMPLES, (self._arms, self._horizon)) if samples is None else samples
        self.config = {"samples": int(between("samples", chosen, 1))}

    def indices(self) -> np.ndarray:
        """Draw, and keep the most probable."""
        best, highest = super().indices(), None
        failures = self._pulls - self._successes
        for i in range(int(self.config["samples"])):
            drawn = best if i == 0 else super().indices()
            inside = np.clip(drawn, 1e-300, 1 - 1e-16)
            density = (self._successes * np.log(inside) + failures * np.log1p(-inside)).sum(-1, keepdims=True)
            if highest is None:
                highest = density
            best, highest = np.where(density > highest, drawn, best), np.maximum(highest, density)
        return best


class Gittins(BanditLearner):
    """Ranks the arms by the finite-horizon Gittins index, which `gittins_table` computes.

    The table covers one trial; at its end the learner forgets. Optimal for one unknown arm beside known ones
    (Bradt, Johnson, Karlin 1956), close to optimal for several (Kaufmann 2018, arXiv 1601.06750, FH-Gittins).
    """

    name = "gittins"

    def __init__(self, variant: Variant, seed: int = 0) -> None:
        """Compute the table; ValueError where the trial is too long for it."""
        super().__init__(variant, seed)
        if self._horizon > GITTINS_PULLS:
            raise ValueError(f"{variant.id}: Gittins indices are tabulated up to {GITTINS_PULLS} pulls, not more")
        self._table = gittins_table(self._horizon)

    def reset(self, n: int) -> None:
        """Forget all pulls, and begin a trial."""
        super().reset(n)
        self._clock = 0

    def observe(self, experience: Experience) -> None:
        """Count, also the time."""
        super().observe(experience)
        self._clock += 1

    def end_episode(self) -> None:
        """A trial is over."""
        self.reset(len(self._rows))

    def indices(self) -> np.ndarray:
        """Look them up."""
        successes = self._successes.astype(np.intp)
        failures = self._pulls.astype(np.intp) - successes
        index: np.ndarray = self._table[self._horizon - self._clock, successes, failures]
        return index


@functools.cache
def gittins_table(horizon: int) -> np.ndarray:
    """Return the finite-horizon Gittins index of a Bernoulli arm by pulls left, successes and failures.

    The index is the price λ of a pull at which the best stopping rule just breaks even. Backward induction
    finds what the arm is worth at each price of a grid, exactly; the index is where the gain of one more pull
    crosses zero, between two prices linearly, so that it is off by less than the spacing squared.

    Returns:
        (horizon + 1, horizon, horizon): [r, s, f] holds for r >= 1 pulls left and s + f <= horizon - r.
    """
    price = np.linspace(0, 1, GITTINS_POINTS)
    table = np.zeros((horizon + 1, horizon, horizon))
    worth = np.zeros((horizon + 1, horizon + 1, len(price)))
    for left in range(1, horizon + 1):
        side = horizon - left + 1
        successes, failures = np.ogrid[:side, :side]
        mean = ((1 + successes) / (2 + successes + failures))[..., None]
        gain = mean - price + mean * worth[1:, :side] + (1 - mean) * worth[:side, 1:]
        above = (gain > 0).sum(-1, keepdims=True)  # at least 1 and not all: 0 < mean < 1
        low, high = np.take_along_axis(gain, above - 1, -1), np.take_along_axis(gain, above, -1)
        table[left, :side, :side] = ((above - 1 + low / (low - high)) / (len(price) - 1))[..., 0]
        worth = np.maximum(gain, 0)
    return table


BANDIT_LEARNERS: dict[str, type[BanditLearner]] = {
    learner.name: learner
    for learner in (
        Gittins,
        ThompsonSampling,
        OptimisticThompsonSampling,
        LikelyThompsonSampling,
        UCB1,
        EpsilonGreedy,
        Greedy,
    )
}
GRIDS: dict[str, tuple[str, tuple[float, ...]]] = {
    "ucb1": ("c", tuple(i / 10 for i in range(11))),
    "epsilon-greedy": ("epsilon", tuple(i / 10 for i in range(1, 11))),
    "likely-thompson": ("samples", (1, 2, 5, 10, 20)),
}


def search(make: Callable[..., Agent], id: str, name: str, grid: Iterable[float], num_tasks: int) -> dict[float, float]:
    """Return the score on `val` at each value of a learner's parameter."""
    from kshot.evaluation import evaluate
    from kshot.registry import variant

    v = variant(id)
    return {x: evaluate(make(v, 0, **{name: x}), id, split="val", num_tasks=num_tasks).score() for x in grid}


def tune(
    learners: Mapping[str, Callable[..., Agent]],
    grids: Mapping[str, tuple[str, tuple[float, ...]]],
    ids: Mapping[Any, str],
    num_tasks: int,
) -> None:
    """Search the grid of each learner on each variant, and print the tables of the best values.

    Args:
        learners: by name.
        grids: by name, the parameter and its values.
        ids: of the variants, by the key of the table.
        num_tasks: of `val`.
    """
    for name, (parameter, grid) in grids.items():
        best = {}
        for key, id in ids.items():
            scores = search(learners[name], id, parameter, grid, num_tasks)
            best[key] = max(scores, key=scores.__getitem__)
            print(f"# {name} {id}:", ", ".join(f"{x:g}: {y:.2f}" for x, y in scores.items()), flush=True)
        print(f"{name} {parameter}: {best}", flush=True)


if __name__ == "__main__":
    tune(BANDIT_LEARNERS, GRIDS, {(k, n): f"kshot/Bandit-k{k}n{n}-v0" for k, n in _SETTINGS}, 1000)
