"""The classical learners of random tabular MDPs that RL² is compared with, for all tasks at once.

RL² (Duan et al. 2016, arXiv 1611.02779), table 2: PSRL, OPSRL, UCRL2, BEB, ε-greedy, greedy. All hold the same
posterior, Dirichlet(1) of transitions and N(prior, 1) of mean rewards (the noise is N(0, 1)), and plan by backward
induction over the episode's steps when an episode begins.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from kshot.agents import Experience, Memoryless
from kshot.agents.bandit_learners import between, explore, nearest, tune
from kshot.families.tabular_mdp import ACTIONS, HORIZON, STATES
from kshot.family import Variant

# By the mean of the reward prior, then by episodes a trial: the best on at least 500 tasks of `val` (200 from 50).
# `python -m kshot.agents.mdp_learners` searches the grids anew.
Tuned = dict[float, dict[tuple[int, ...], float]]
SAMPLES: Tuned = {
    0: {(10,): 10, (25,): 10, (50,): 10, (100,): 10},
    1: {(10,): 10, (25,): 10, (50,): 10, (100,): 5},
}
SCALE: Tuned = {
    0: {(10,): 0.5, (25,): 0.7, (50,): 0.7, (100,): 0.7},
    1: {(10,): 0.05, (25,): 0.1, (50,): 0.1, (100,): 0.1},
}
BONUS: Tuned = {
    0: {(10,): 1.5, (25,): 2, (50,): 2, (100,): 2},
    1: {(10,): 0.25, (25,): 0.75, (50,): 1, (100,): 1.5},
}
EPSILON: Tuned = {
    0: {(10,): 0.1, (25,): 0.1, (50,): 0.1, (100,): 0.1},
    1: {(10,): 0.1, (25,): 0.1, (50,): 0.1, (100,): 0.1},
}


def induct(rewards: np.ndarray, transitions: np.ndarray, horizon: int = HORIZON) -> np.ndarray:
    """Return the optimal action values by backward induction.

    Args:
        rewards: (n, states, actions).
        transitions: (n, states, actions, states).
        horizon: steps of an episode.

    Returns:
        (horizon, n, states, actions): [t] with horizon - t steps left.
    """
    value = np.zeros(rewards.shape[:2])
    q = np.empty((horizon, *rewards.shape))
    for t in reversed(range(horizon)):
        q[t] = rewards + np.einsum("nsaz,nz->nsa", transitions, value)
        value = q[t].max(-1)
    return q


def induct_optimistically(
    rewards: np.ndarray, transitions: np.ndarray, radius: np.ndarray, horizon: int = HORIZON
) -> np.ndarray:
    """Return `induct` of the best transitions within an L1 radius: extended value iteration of UCRL2.

    Each step moves up to radius / 2 of probability to the state of highest value, away from those of lowest.

    Args:
        rewards: (n, states, actions), optimistic already.
        transitions: (n, states, actions, states).
        radius: (n, states, actions).
        horizon: steps of an episode.

    Returns:
        (horizon, n, states, actions).
    """
    value = np.zeros(rewards.shape[:2])
    q = np.empty((horizon, *rewards.shape))
    for t in reversed(range(horizon)):
        order = np.argsort(-value, axis=-1)
        probability = np.take_along_axis(transitions, order[:, None, None], -1)
        probability[..., 0] = np.minimum(1, probability[..., 0] + radius / 2)
        left = np.minimum(probability.cumsum(-1), 1)  # the lowest states lose what exceeds 1
        probability[..., 1:] = np.diff(left, axis=-1)
        q[t] = rewards + np.einsum("nsaz,nz->nsa", probability, np.take_along_axis(value, order, -1))
        value = q[t].max(-1)
    return q


class MDPLearner(Memoryless):
    """Keeps the posterior and follows, for an episode, the plan that `plan` makes at its beginning.

    Equal actions are drawn from, anew for each step: an episode then tries several in a state that it revisits,
    where the first of equals would be tried again and again. RL²'s baselines (TabulaRL) do so too.
    """

    _policy: np.ndarray | None = None  # (horizon, n, states) actions
    _clock = 0

    def __init__(self, variant: Variant, seed: int = 0, prior: float = 1.0) -> None:
        """Take a random tabular MDP, and the mean of the reward prior.

        Args:
            variant: of TabularMDP.
            seed: of the learner's own draws.
            prior: 1 is the mean of the law that the tasks come from; RL²'s baselines take TabulaRL's default, 0.

        Raises:
            ValueError: for a variant of another family.
        """
        if variant.family.name != "TabularMDP":
            raise ValueError(f"{variant.id}: {self.name} learns TabularMDP only")
        self._key, self._prior = (variant.trial,), prior
        self._generator = np.random.default_rng(seed)
        self.config: dict[str, float] = {"prior": prior}

    def _set(self, name: str, value: float | None, table: Tuned, least: float, most: float = math.inf) -> None:
        """Record a parameter, the tuned one where it is None."""
        if value is None:
            value = nearest(table[min(table, key=lambda mean: abs(mean - self._prior))], self._key)
        self.config[name] = between(name, value, least, most)

    def reset(self, n: int) -> None:
        """Forget all transitions and rewards."""
        self._counts = np.zeros((n, STATES, ACTIONS, STATES))
        self._visits, self._sums = np.zeros((n, STATES, ACTIONS)), np.zeros((n, STATES, ACTIONS))
        self._rows, self._steps = np.arange(n), 0
        self.end_episode()

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Follow the plan; make it first where the episode begins."""
        if self._policy is None:
            q = self.plan()
            ties = self._generator.random(q.shape, np.float32)
            self._policy = np.where(q == q.max(-1, keepdims=True), ties, -1).argmax(-1)
        action: np.ndarray = self._policy[self._clock, self._rows, observation.argmax(-1)]
        return action

    def observe(self, experience: Experience) -> None:
        """Count."""
        pair = self._rows, experience.observation.argmax(-1), experience.action
        self._counts[(*pair, experience.next_observation.argmax(-1))] += experience.active
        self._visits[pair] += experience.active
        self._sums[pair] += experience.reward * experience.active
        self._clock += 1
        self._steps += 1

    def end_episode(self) -> None:
        """Drop the plan."""
        self._policy, self._clock = None, 0

    def rewards(self) -> np.ndarray:
        """Return the posterior mean of the mean rewards, (n, states, actions)."""
        return (self._prior + self._sums) / (1 + self._visits)

    def transitions(self) -> np.ndarray:
        """Return the posterior mean of the transitions, (n, states, actions, states)."""
        return (1 + self._counts) / (STATES + self._visits)[..., None]

    def plan(self) -> np.ndarray:
        """Return the action values to follow, (horizon, n, states, actions)."""
        return induct(self.rewards(), self.transitions())


class Greedy(MDPLearner):
    """Plans in the posterior mean."""

    name = "greedy"


class EpsilonGreedy(MDPLearner):
    """Greedy, but takes a uniform action with probability epsilon."""

    name = "epsilon-greedy"

    def __init__(self, variant: Variant, seed: int = 0, prior: float = 1.0, epsilon: float | None = None) -> None:
        """Take the probability; None for the one tuned for the trial's episodes."""
        super().__init__(variant, seed, prior)
        self._set("epsilon", epsilon, EPSILON, 0, 1)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Follow the plan, or do anything."""
        return explore(self._generator, super().act(observation), ACTIONS, self.config["epsilon"])


class BEB(MDPLearner):
    """Plans in the posterior mean with bonus / (1 + visits) added to the rewards (Kolter, Ng 2009)."""

    name = "beb"

    def __init__(self, variant: Variant, seed: int = 0, prior: float = 1.0, bonus: float | None = None) -> None:
        """Take the bonus of what was never tried; None for the one tuned for the trial's episodes."""
        super().__init__(variant, seed, prior)
        self._set("bonus", bonus, BONUS, 0)

    def plan(self) -> np.ndarray:
        """Add the bonus, and plan."""
        return induct(self.rewards() + self.config["bonus"] / (1 + self._visits), self.transitions())


class UCRL2(MDPLearner):
    """Plans in the best MDP of a confidence set (Jaksch, Ortner, Auer 2010), of tuned width.

    The set is centred on the posterior mean: rewards within scale √(log(2 S A t / δ) / (1 + visits)),
    transitions within an L1 distance of scale √(S log(2 S A t / δ) / (1 + visits)), δ = 0.05, after t steps.
    """

    name = "ucrl2"

    def __init__(self, variant: Variant, seed: int = 0, prior: float = 1.0, scale: float | None = None) -> None:
        """Take the factor of the widths; None for the one tuned for the trial's episodes."""
        super().__init__(variant, seed, prior)
        self._set("scale", scale, SCALE, 0)

    def plan(self) -> np.ndarray:
        """Plan with optimism."""
        log = math.log(2 * STATES * ACTIONS * (1 + self._steps) / 0.05)
        width = self.config["scale"] * np.sqrt(log / (1 + self._visits))
        return induct_optimistically(self.rewards() + width, self.transitions(), math.sqrt(STATES) * width)


class PSRL(MDPLearner):
    """Plans in one MDP drawn from the posterior (Strens 2000; Osband, Russo, Van Roy 2013)."""

    name = "psrl"

    def plan(self) -> np.ndarray:
        """Draw, and plan."""
        drawn = self._generator.standard_gamma(1 + self._counts)
        drawn /= drawn.sum(-1, keepdims=True)
        noise = self._generator.standard_normal(self._visits.shape)
        return induct(self.rewards() + noise / np.sqrt(1 + self._visits), drawn)


class OPSRL(PSRL):
    """Plans in several MDPs drawn from the posterior, and takes each action value from the best."""

    name = "opsrl"

    def __init__(self, variant: Variant, seed: int = 0, prior: float = 1.0, samples: int | None = None) -> None:
        """Take the number of MDPs; None for the one tuned for the trial's episodes."""
        super().__init__(variant, seed, prior)
        self._set("samples", samples, SAMPLES, 1)

    def plan(self) -> np.ndarray:
        """Draw several, plan in each."""
        best = super().plan()
        for _ in range(int(self.config["samples"]) - 1):
            np.maximum(best, super().plan(), out=best)
        return best


MDP_LEARNERS: dict[str, type[MDPLearner]] = {
    learner.name: learner for learner in (PSRL, OPSRL, UCRL2, BEB, EpsilonGreedy, Greedy)
}
GRIDS: dict[str, tuple[str, tuple[float, ...]]] = {
    "ucrl2": ("scale", (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1)),
    "beb": ("bonus", (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5)),
    "epsilon-greedy": ("epsilon", (0.1, 0.2, 0.3)),
    "opsrl": ("samples", (2, 5, 10, 20)),
}

if __name__ == "__main__":
    for mean in (0.0, 1.0):
        print(f"prior {mean:g}")
        makers = {name: functools.partial(learner, prior=mean) for name, learner in MDP_LEARNERS.items()}
        tune(makers, GRIDS, {(n,): f"kshot/TabularMDP-n{n}-v0" for n in (10, 25)}, 500)
        tune(makers, GRIDS, {(n,): f"kshot/TabularMDP-n{n}-v0" for n in (50, 100)}, 200)
