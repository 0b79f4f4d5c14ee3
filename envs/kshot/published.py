"""Published figures that a row of the leaderboard stands beside: what a paper or its authors' data says, and where.

A figure belongs to an agent's name on a variant's `test` split at a budget: episodes before those scored, or trials
where those are scored. The physics and the tasks drawn differ; formulas, horizons and task laws are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One published mean return."""

    value: float
    source: str
    error: float | None = None  # half the width of its 95 % interval, where that is published
    tasks: int | None = None  # that it is a mean over, where there is no interval


Key = tuple[str, str, int]  # variant, agent, budget

_RL2_1, _RL2_2 = "RL² (1611.02779) table 1", "RL² (1611.02779) table 2"
_MAML = "MAML (1703.03400) authors' data"
_BANDIT_AGENTS = (
    "random", "gittins", "thompson", "likely-thompson", "ucb1", "epsilon-greedy", "greedy", "rl2",
)  # fmt: skip
# Total reward of n pulls of k Bernoulli arms, a column an agent; means over 1,000 tasks.
_BANDITS: dict[tuple[int, int], tuple[float, ...]] = {
    (10, 5): (5.0, 6.6, 5.7, 6.5, 6.7, 6.6, 6.6, 6.7),
    (10, 10): (5.0, 6.6, 5.5, 6.2, 6.7, 6.6, 6.6, 6.7),
    (10, 50): (5.1, 6.5, 5.2, 5.5, 6.6, 6.5, 6.5, 6.8),
    (100, 5): (49.9, 78.3, 74.7, 77.9, 78.0, 75.4, 74.8, 78.7),
    (100, 10): (49.9, 82.8, 76.7, 81.4, 82.4, 77.4, 77.1, 83.5),
    (100, 50): (49.8, 85.2, 64.5, 67.7, 84.3, 78.3, 78.0, 84.9),
    (500, 5): (249.8, 405.8, 402.0, 406.7, 405.8, 388.2, 380.6, 401.6),
    (500, 10): (249.0, 437.8, 429.5, 438.9, 437.1, 408.0, 395.0, 432.5),
    (500, 50): (249.6, 463.7, 427.2, 437.6, 457.6, 413.6, 402.8, 438.9),
}
_MDP_AGENTS = ("random", "psrl", "opsrl", "ucrl2", "beb", "epsilon-greedy", "greedy", "rl2")
# Total reward of n episodes of random MDPs; means over 1,000 tasks.
_MDPS: dict[int, tuple[float, ...]] = {
    10: (100.1, 138.1, 144.1, 146.6, 150.2, 132.8, 134.8, 156.2),
    25: (250.2, 408.8, 425.2, 424.1, 427.8, 377.3, 368.8, 445.7),
    50: (499.7, 904.4, 930.7, 918.9, 917.8, 823.3, 769.3, 936.1),
    75: (749.9, 1417.1, 1449.2, 1427.6, 1422.6, 1293.9, 1172.9, 1428.8),
    100: (999.4, 1939.5, 1973.9, 1942.1, 1935.1, 1778.2, 1578.5, 1913.7),
}
# Before, and after 1, 2, 3 gradient steps, of 20 episodes each but where `_EPISODES_A_STEP` says; means over 40 tasks.
_STEPS: dict[tuple[str, str], tuple[tuple[float, float | None], ...]] = {
    ("PointGoal-maml", "maml"): ((-40.41, 4.0), (-11.68, 2.2), (-3.33, 0.55), (-3.23, 0.58)),
    ("PointGoal-maml", "pretrained"): ((-40.81, None), (-19.73, None), (-11.72, None), (-8.47, None)),
    ("PointGoal-maml", "untrained"): ((-82.66, None), (-57.96, None), (-53.84, None), (-46.81, None)),
    ("HalfCheetahVel-maml", "maml"): ((-129.5, 16.5), (-78.6, 9.9), (-66.6, 8.9), (-60.8, 8.6)),
    ("HalfCheetahVel-maml", "pretrained"): ((-158.0, None), (-135.4, None), (-128.5, None), (-133.6, None)),
    ("HalfCheetahVel-maml", "untrained"): ((-254.8, None), (-254.3, None), (-246.8, None), (-230.8, None)),
    ("HalfCheetahDir-maml", "maml"): ((-50.7, 5.7), (293.2, 17.0), (313.5, 16.0), (315.7, 14.0)),
    ("HalfCheetahDir-maml", "pretrained"): ((-43.0, None), (-24.8, None), (-12.9, None), (19.6, None)),
    ("HalfCheetahDir-maml", "untrained"): ((-35.7, None), (21.8, None), (62.3, None), (86.2, None)),
    ("AntDir-maml", "maml"): ((12.9, None), (434.4, None), (425.6, None), (411.8, None)),
    ("AntDir-maml", "pretrained"): ((3.2, None), (1.3, None), (6.5, None), (6.9, None)),
    ("AntDir-maml", "untrained"): ((3.1, None), (9.3, None), (16.0, None), (26.1, None)),
}  # fmt: skip
# Test batches were of 4,000 steps, for Ant's direction 8,000; there, MAML was run with 4,000 as well: the row above.
_EPISODES_A_STEP = {
    **{("PointGoal-maml", who): 40 for who in ("maml", "pretrained", "untrained")},
    **{("AntDir-maml", who): 40 for who in ("pretrained", "untrained")},
}
_ORACLES: dict[str, tuple[str, float, float]] = {
    "PointGoal-maml": ("expert", -2.29, 0.14),
    "HalfCheetahVel-maml": ("oracle", -54.5, 6.9),
    "HalfCheetahDir-maml": ("oracle", 442.7, 8.4),
    "AntDir-maml": ("oracle", 524.8, 12.0),
}


def _table() -> dict[Key, Figure]:
    """Return all figures."""
    found: dict[Key, Figure] = {}
    for (n, k), values in _BANDITS.items():
        id = f"kshot/Bandit-k{k}n{n}-v0"
        found |= {(id, who, 0): Figure(x, _RL2_1, tasks=1000) for who, x in zip(_BANDIT_AGENTS, values, strict=True)}
    for n, values in _MDPS.items():
        id = f"kshot/TabularMDP-n{n}-v0"
        found |= {(id, who, 0): Figure(x, _RL2_2, tasks=1000) for who, x in zip(_MDP_AGENTS, values, strict=True)}
    for (label, who), steps in _STEPS.items():
        id = f"kshot/{label}-v0"
        size = _EPISODES_A_STEP.get((label, who), 20)
        found |= {(id, who, size * i): Figure(x, _MAML, error) for i, (x, error) in enumerate(steps)}
    for label, (who, x, error) in _ORACLES.items():
        found[f"kshot/{label}-v0", who, 0] = Figure(x, _MAML, error)
    return found


FIGURES = _table()


def figures(variant: str, agent: str, config: Mapping[str, Any] | None = None) -> dict[int, Figure]:
    """Return the figures of an agent on a variant's test split, by budget.

    RL²'s learners of random MDPs took a reward prior of mean 0: with another one there is no figure beside them.
    """
    if config is not None and config.get("prior", 0) != 0:
        return {}
    return {budget: figure for (id, who, budget), figure in FIGURES.items() if (id, who) == (variant, agent)}
