"""Random tabular MDPs: 10 states, 5 actions, horizon 10; transitions and rewards are hidden.

RL² (Duan et al. 2016, arXiv 1611.02779); RL³ (Bhatia et al. 2023, arXiv 2306.15909) for the other law.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from kshot import random
from kshot.arrays import Array, at, one_hot, rows
from kshot.family import Analytic, Family, Field, Policy, Split, Variant
from kshot.laws import Dirichlet, JointLaw, Normal
from kshot.rendering.scene import Arrow, Disc, Label, Role, Scene

STATES, ACTIONS, HORIZON = 10, 5, 10
DEVIATION = 1.0  # of a reward around its mean


class Task(NamedTuple):
    """A random MDP."""

    transitions: Array  # (N, states, actions, states) probabilities
    rewards: Array  # (N, states, actions) mean rewards


class State(NamedTuple):
    """Where the agent is, and what the last step paid."""

    node: Array  # (N,) int
    payoff: Array  # (N,)


def initial(noise: Array, task: Task, c: tuple[()]) -> State:
    """Start in state 0."""
    payoff = 0.0 * task.rewards[:, 0, 0]
    return State(rows(payoff) * 0, payoff)


def transition(state: State, action: Array, noise: Array, task: Task, c: tuple[()]) -> State:
    """Move by the first uniform, pay by the other two."""
    reached = at(task.transitions, state.node, action).cumsum(-1)[:, :-1]  # the last state takes what rounding leaves
    node = (noise[:, :1] > reached).sum(-1)
    return State(node, at(task.rewards, state.node, action) + DEVIATION * random.normal(noise[:, 1], noise[:, 2]))


def observe(state: State) -> Array:
    """Return the state as a one-hot row."""
    return one_hot(state.node, STATES, state.payoff)


def reward_terms(before: State, action: Array, after: State, task: Task, c: tuple[()]) -> dict[str, Array]:
    """Pay what the transition gave."""
    return {"payoff": after.payoff + 0.0}  # shares no memory with the state


def optimal_values(task: Task, gamma: float = 1.0) -> np.ndarray:
    """Return the optimal values-to-go by backward induction.

    Returns:
        (horizon, N, states, actions): [t] holds the action values with horizon - t steps left.
    """
    value = np.zeros(task.rewards.shape[:2])
    q = np.zeros((HORIZON, *task.rewards.shape))
    for t in reversed(range(HORIZON)):
        q[t] = task.rewards + gamma * (task.transitions * value[:, None, None]).sum(-1)
        value = q[t].max(-1)
    return q


def expert(task: Task, c: tuple[()]) -> Policy:
    """Act optimally in the true MDP."""
    best = optimal_values(task).argmax(-1)  # (horizon, N, states)
    return lambda state, clock: best[clock, rows(clock), state.node]


def scene(state: State, task: Task, c: tuple[()]) -> Scene:
    """Show the states on a circle with their best mean reward, and where each action most likely leads from here."""
    angle = 2 * math.pi * np.arange(STATES) / STATES
    x, y, node = np.cos(angle).tolist(), np.sin(angle).tolist(), int(state.node[0])
    best, likely = np.asarray(task.rewards[0]).max(-1), np.asarray(task.transitions[0, node]).argmax(-1)
    roles: list[Role] = ["agent" if i == node else "goal" if best[i] == best.max() else "faint" for i in range(STATES)]
    discs = [Disc(x[i], y[i], 0.16, roles[i]) for i in range(STATES)]
    labels = [Label(x[i], y[i], f"{best[i]:.1f}", "ink") for i in range(STATES)]
    arrows = []
    for j in sorted(set(likely.tolist()) - {node}):
        dx, dy = x[j] - x[node], y[j] - y[node]
        rim = 0.2 / math.hypot(dx, dy)  # the arrow goes from rim to rim
        arrows.append(Arrow(x[node] + rim * dx, y[node] + rim * dy, (1 - 2 * rim) * dx, (1 - 2 * rim) * dy, "actual"))
    stays = [Disc(x[node], y[node], 0.2, "actual", hollow=True)] if node in likely else []
    caption = f"state {node}; numbers: best mean reward of each state"
    return Scene((*arrows, *stays, *discs, *labels), caption, (-1.25, 1.25, -1.25, 1.25))


FAMILY = Family(
    name="TabularMDP",
    summary="Act in a random MDP of 10 states and 5 actions whose transitions and rewards are hidden.",
    hidden="transition probabilities and mean rewards",
    formula="N(mean reward of state and action, 1)",
    task=Task,
    fields={
        "transitions": Field("probability of the next state", 0, 1, simplex=True),
        "rewards": Field("mean reward of a state and action", -100, 100),
    },
    reward_terms=reward_terms,
    analytic=Analytic(initial=initial, transition=transition, noise=3),
    expert=expert,
    scene=scene,
    statistics={
        "largest transition probability": lambda task: task.transitions.max(-1).mean((1, 2)),
        "optimal return of an episode": lambda task: optimal_values(task)[0, :, 0].max(-1),
    },
)
SHAPE = (STATES, ACTIONS, STATES)
TRAIN: JointLaw = {"transitions": Dirichlet(1, SHAPE), "rewards": Normal(1, 1, SHAPE[:2])}
VARIANTS = tuple(
    Variant(
        family=FAMILY,
        name=f"n{n}",
        source="RL² (1611.02779) table 2",
        horizon=HORIZON,
        horizon_terminates=True,
        trial=n,
        action_space=spaces.Discrete(ACTIONS),
        observe=observe,
        observation_bounds=(0.0, 1.0),
        train=TRAIN,
        ood={
            "ood-deterministic": Split(
                {**TRAIN, "transitions": Dirichlet(0.25, SHAPE)}, "shift", about="RL³'s: nearly deterministic"
            ),
            "ood-rich": Split(
                {**TRAIN, "rewards": Normal(0, 2, SHAPE[:2])}, "shift", about="rewards spread twice as wide around 0"
            ),
        },
        scored_by_trial=True,
        budgets=(0, 20),
        frozen_tasks=10_000,
    )
    for n in (10, 25, 50, 75, 100)
)
