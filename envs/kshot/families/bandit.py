"""Multi-armed bandits: k arms, n pulls; which arm pays best is hidden.

RL² (Duan et al. 2016, arXiv 1611.02779), Learning to reinforcement learn (Wang et al. 2016, arXiv 1611.05763),
DPT (Lee et al. 2023, arXiv 2306.14892), RL³ (Bhatia et al. 2023, arXiv 2306.15909).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from kshot import random
from kshot.arrays import Array, as_float, at
from kshot.family import Analytic, Family, Field, Kind, Policy, Split, Variant
from kshot.laws import Choice, Law, Normal, OneAmong, Uniform
from kshot.rendering.scene import Label, Rectangle, Scene


class Constants(NamedTuple):
    """Constants of a bandit."""

    deviation: float = 0.0  # of the reward around the arm's mean; 0: Bernoulli


class Task(NamedTuple):
    """What an arm pays."""

    means: Array  # (N, k) expected reward of each arm; of a Bernoulli arm, the probability of 1


class State(NamedTuple):
    """The last pull, so that the reward is a function of the state."""

    payoff: Array  # (N,)
    arm: Array  # (N,) for the picture


def initial(noise: Array, task: Task, c: Constants) -> State:
    """Nothing pulled yet."""
    return State(0.0 * task.means[:, 0], 0.0 * task.means[:, 0] - 1.0)


def transition(state: State, action: Array, noise: Array, task: Task, c: Constants) -> State:
    """Pull an arm: Bernoulli by the first uniform, or normal by both."""
    mean = at(task.means, action)
    if c.deviation == 0:
        return State(as_float(noise[:, 0] < mean, mean), as_float(action, mean))
    return State(mean + c.deviation * random.normal(noise[:, 0], noise[:, 1]), as_float(action, mean))


def observe(state: State) -> Array:
    """Return a constant: a bandit has one state."""
    return 0.0 * state.payoff[:, None]


def reward_terms(before: State, action: Array, after: State, task: Task, c: Constants) -> dict[str, Array]:
    """Pay what the arm gave."""
    return {"payoff": after.payoff + 0.0}  # shares no memory with the state


def expert(task: Task, c: Constants) -> Policy:
    """Pull the best arm."""
    best = task.means.argmax(-1)
    return lambda state, clock: best


def scene(state: State, task: Task, c: Constants) -> Scene:
    """Show each arm's mean as a bar, the best one as the goal, the last pull and what it paid below."""
    means, arm = np.asarray(task.means[0]), int(state.arm[0])
    k, best = len(means), float(means.max())
    low, high = min(0.0, float(means.min())), max(1.0, best)
    unit = (high - low) / 100
    bars = [Rectangle(i + 0.1, 0, 0.8, float(p), "goal" if p == best else "faint") for i, p in enumerate(means)]
    values = [Label(i + 0.5, max(float(p), 0) + 4 * unit, f"{p:.2f}", "ink") for i, p in enumerate(means)]
    numbers = [Label(i + 0.5, low - 6 * unit, str(i), "ink") for i in range(k)]
    texts = [*values, *numbers] if k <= 10 else []
    pulled = [
        Rectangle(arm + 0.1, low - 15 * unit, 0.8, 3 * unit, "agent"),
        Label(arm + 0.5, low - 20 * unit, f"paid {float(state.payoff[0]):.3g}", "agent"),
    ]
    caption = f"best arm {int(means.argmax())} pays {best:.2f}"
    view = (-0.02 * k, 1.02 * k, low - 26 * unit, high + 10 * unit)
    return Scene((*bars, *texts, *(pulled if arm >= 0 else ())), caption, view, stretch=True)


FAMILY = Family(
    name="Bandit",
    summary="Pull one of k arms, n times; which pays best is hidden.",
    hidden="the arms' mean rewards",
    formula="Bernoulli(mean of the arm), or N(mean, deviation²) where deviation > 0",
    task=Task,
    fields={"means": Field("expected reward of each arm", -10, 10)},
    reward_terms=reward_terms,
    analytic=Analytic(initial=initial, transition=transition, noise=1),
    expert=expert,
    scene=scene,
    statistics={
        "mean of the best arm": lambda task: task.means.max(-1),
        "mean of all arms": lambda task: task.means.mean(-1),
        "lead of the best arm over the second": lambda task: np.sort(task.means)[:, -1] - np.sort(task.means)[:, -2],
    },
)
GAUSSIAN = replace(FAMILY, analytic=Analytic(initial=initial, transition=transition, noise=2))


def bandit(name: str, k: int, n: int, source: str, law: Law, *, deviation: float = 0.0, note: str = "") -> Variant:
    """Return a variant of k arms and n pulls, with the two other laws of every bandit."""
    kind: Kind = "shift" if law.values is None else "extrapolation"
    return Variant(
        family=GAUSSIAN if deviation else FAMILY,
        name=name,
        source=source,
        note=note,
        horizon=n,
        horizon_terminates=True,
        action_space=spaces.Discrete(k),
        observe=observe,
        observation_bounds=(0.0, 1.0),
        constants=Constants(deviation),
        train={"means": law},
        ood={
            "ood-normal": Split(
                {"means": Normal(0.5, 0.5, (k,), 0, 1)}, kind, about="RL³'s: many sure winners and losers"
            ),
            "ood-one-good": Split(
                {"means": OneAmong(k, Uniform(0.6, 0.8), Uniform(0, 0.4))}, kind, about="one good arm among poor ones"
            ),
        },
        bounds={} if deviation else {"means": (0, 1)},  # of a probability
        scored_by_trial=True,
        budgets=(0, 20),
        frozen_tasks=10_000,
    )


VARIANTS = (
    *(
        bandit(f"k{k}n{n}", k, n, "RL² (1611.02779) table 1", Uniform(0, 1, (k,)))
        for n in (10, 100, 500)
        for k in (5, 10, 50)
    ),
    bandit(
        "gaussian",
        5,
        100,
        "pytorch-maml-rl Gaussian bandit",
        Uniform(0, 1, (5,)),
        deviation=1.0,
        note="arms and pulls are ours: the source fixes neither",
    ),
    bandit("dpt", 5, 500, "DPT (2306.14892)", Uniform(0, 1, (5,)), deviation=0.3),
    bandit("rl3", 5, 512, "RL³ (2306.15909)", Uniform(0, 1, (5,))),
    bandit("wang-easy", 2, 100, "Wang et al. (1611.05763)", Choice(((0.9, 0.1), (0.1, 0.9)))),
    bandit("wang-medium", 2, 100, "Wang et al. (1611.05763)", Choice(((0.75, 0.25), (0.25, 0.75)))),
    bandit("wang-hard", 2, 100, "Wang et al. (1611.05763)", Choice(((0.6, 0.4), (0.4, 0.6)))),
    bandit("wang-independent", 2, 100, "Wang et al. (1611.05763)", Uniform(0, 1, (2,))),
)
