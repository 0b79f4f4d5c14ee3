"""Rotated actions: a point goes to a known goal, but its actions are turned by a hidden angle.

NoRML (Yang et al. 2019, arXiv 1903.01063). The reward never changes between tasks: only dynamics do.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from kshot.arrays import Array, namespace, norm, rotate
from kshot.family import Analytic, Family, Field, Policy, Split, Variant
from kshot.laws import JointLaw, Uniform, always
from kshot.rendering.scene import Arrow, Disc, Rectangle, Scene

GOAL = (1.0, 0.0)  # m
ARENA = 2.0  # m, positions are clipped to ± this


class Constants(NamedTuple):
    """Constants of the plane."""

    step: float = 1.0  # m a step at an action of 1
    sparse: bool = False  # −1 a step until the goal, instead of −distance
    radius: float = 0.0  # m, ends the episode
    success: float = 0.1  # m


class Task(NamedTuple):
    """What happens to an action."""

    angle: Array  # (N,) rad, counter-clockwise
    mirrored: Array  # (N,) 0 or 1: its y is negated first


class State(NamedTuple):
    """Where the point is."""

    position: Array  # (N, 2) m


def initial(noise: Array, task: Task, c: Constants) -> State:
    """Start at the origin."""
    return State(0.0 * namespace(task.angle).stack([task.angle, task.angle], -1))


def transition(state: State, action: Array, noise: Array, task: Task, c: Constants) -> State:
    """Move by the turned action."""
    x, y = action[:, 0], action[:, 1] * (1.0 - 2.0 * task.mirrored)
    moved = state.position + c.step * rotate(namespace(x).stack([x, y], -1), task.angle)
    return State(moved.clip(-ARENA, ARENA))


def observe(state: State) -> Array:
    """Return the position."""
    return state.position + 0.0


def _offset(state: State) -> Array:
    position = state.position
    return namespace(position).stack([position[:, 0] - GOAL[0], position[:, 1] - GOAL[1]], -1)


def reward_terms(before: State, action: Array, after: State, task: Task, c: Constants) -> dict[str, Array]:
    """Charge the distance to the goal, or one a step."""
    distance = norm(_offset(after))
    return {"time": 0.0 * distance - 1.0} if c.sparse else {"distance": -distance}


def terminated(state: State, task: Task, c: Constants) -> Array:
    """End within radius of the goal."""
    return norm(_offset(state)) < c.radius


def metrics(before: State, after: State, task: Task, c: Constants) -> dict[str, Array]:
    """Success: within the success radius of the goal."""
    return {"success": norm(_offset(after)) < c.success}


def expert(task: Task, c: Constants) -> Policy:
    """Turn the straight way back, at most one step long."""

    def policy(state: State, clock: Array) -> Array:
        way = rotate(-_offset(state) / c.step, -task.angle)
        xp = namespace(way)
        x, y = way[:, 0], way[:, 1] * (1.0 - 2.0 * task.mirrored)
        longest = xp.maximum(abs(x), abs(y)).clip(1.0, None)
        return xp.stack([x / longest, y / longest], -1)

    return policy


def scene(state: State, task: Task, c: Constants) -> Scene:
    """Show the goal, the point, the border of the arena, and where the actions (1, 0) and (0, 1) lead."""
    x, y = (float(v) for v in state.position[0])
    angle, mirrored = float(task.angle[0]), bool(task.mirrored[0])
    cos, sin, side = 0.5 * math.cos(angle), 0.5 * math.sin(angle), -1 if mirrored else 1
    first, second = Arrow(x, y, cos, sin, "guide"), Arrow(x, y, -side * sin, side * cos, "faint")
    border = Rectangle(-ARENA, -ARENA, 2 * ARENA, 2 * ARENA, "ink", hollow=True)
    goal = (Disc(*GOAL, c.success, "reach"), Disc(*GOAL, 0.05, "goal"))
    caption = f"actions turned by {math.degrees(angle):.0f}°{', mirrored' if mirrored else ''}"
    reach = 1.08 * ARENA
    marks = (border, *goal, second, first, Disc(x, y, 0.07, "agent"))
    return Scene(marks, caption, (-reach, reach, -reach, reach), grid=0.5)


FAMILY = Family(
    name="PointRotated",
    summary="Move a point to a known goal with actions that are turned by a hidden angle.",
    hidden="the angle: a change of dynamics, not of reward",
    formula="−distance to the goal, or −1 a step where sparse",
    task=Task,
    fields={
        "angle": Field("angle by which actions are turned", -math.pi, 2 * math.pi, "rad"),
        "mirrored": Field("whether actions are mirrored first", 0, 1, whole=True),
    },
    reward_terms=reward_terms,
    metrics=metrics,
    analytic=Analytic(initial=initial, transition=transition),
    expert=expert,
    scene=scene,
)
ENDING = replace(FAMILY, terminated=terminated)


def turned(start: float, stop: float, mirrored: int = 0) -> JointLaw:
    """Return the law of an angle uniform between two, in half turns."""
    return {"angle": Uniform(start * math.pi, stop * math.pi), "mirrored": always(mirrored)}


DEFAULT = Variant(
    family=FAMILY,
    source="kshot, after NoRML (1903.01063)",
    horizon=20,
    trial=2,
    action_space=spaces.Box(-1, 1, (2,), np.float32),
    observe=observe,
    observation_bounds=(-ARENA, ARENA),
    constants=Constants(step=0.2),
    train=turned(-1, 0.5),
    ood={
        "ood-sector": Split(turned(0.5, 1), "hole", about="the quarter of angles left out of training"),
        "ood-mirrored": Split(turned(-1, 0.5, 1), "dynamics", about="a reflection, which no rotation gives"),
    },
)
NORML = replace(
    DEFAULT,
    family=ENDING,
    name="norml",
    source="NoRML (1903.01063)",
    horizon=10,
    constants=Constants(),
    train=turned(-1, 1),
    ood={
        "ood-sparse": Split(turned(-1, 1), "reward", {"sparse": True, "radius": 0.1}, "−1 a step until the goal"),
        "ood-mirrored": Split(turned(-1, 1, 1), "dynamics", about="a reflection, which no rotation gives"),
    },
)
VARIANTS = (
    DEFAULT,
    NORML,
    replace(
        NORML,
        name="norml-sparse",
        horizon=100,
        constants=Constants(sparse=True, radius=0.1),
        ood={"ood-mirrored": NORML.ood["ood-mirrored"]},
    ),
)
