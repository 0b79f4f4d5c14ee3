"""What a task family and its variants are made of: data, and a few pure functions over batched arrays.

Signatures of the family functions (N rows, one task a row; the same lines run on NumPy and torch):

    initial(noise, task, c) -> state                          analytic families
    transition(state, action, noise, task, c) -> state        analytic families
    actuate(action, task, c) -> ctrl                          MuJoCo families
    model_params(task, model) -> {MjModel field: (N, …)}      MuJoCo families
    observe(state) -> (N, k)
    reward_terms(before, action, after, task, c) -> {name: (N,)}, summed to the reward
    terminated(state, task, c) -> (N,) bool
    metrics(before, after, task, c) -> {name: (N,)}, shown in `info`; one named `success` is scored
    expert(task, c) -> policy(state, clock) -> action, by whoever knows the task
    scene(state, task, c) -> what a picture shows beside the body, row 0
    shared(before, after, task, c) -> (N,), what `reward_terms` and `metrics` both need: computed once a step and
        given to them as their last argument; called without it, they compute it themselves

`c` holds the variant's constants, a NamedTuple that the family declares. Uniform noise comes in rows of
numbers in (0, 1). Actions are clipped to the action space before any function sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from gymnasium import spaces

from kshot.arrays import Array
from kshot.laws import JointLaw, Law, Normal, Uniform
from kshot.physics.bodies import Body, MjState

Policy: TypeAlias = Callable[[Any, Array], Array]  # (state, clock) -> actions of N rows
Kind = Literal["train", "extrapolation", "hole", "combination", "dynamics", "shift", "reward"]
ZERO_PROBABILITY: tuple[Kind, ...] = ("extrapolation", "hole", "combination", "dynamics")


@dataclass(frozen=True)
class Field:
    """One parameter of a task: what it means, and which values the env accepts."""

    meaning: str
    low: float
    high: float
    unit: str = ""
    whole: bool = False  # only whole numbers
    values: tuple[float, ...] = ()  # only these, where not empty
    simplex: bool = False  # rows of the last axis sum to one


@dataclass(frozen=True, kw_only=True)
class Analytic:
    """Dynamics in closed form."""

    initial: Callable[..., Any]
    transition: Callable[..., Any]
    initial_noise: int = 0  # uniform numbers an episode
    noise: int = 0  # uniform numbers a step


@dataclass(frozen=True, kw_only=True)
class Family:
    """One parameterised kind of MDP."""

    name: str
    summary: str  # one sentence
    hidden: str  # what the agent is not told
    formula: str  # of the reward, in terms of the constants
    task: Callable[..., Any]  # the NamedTuple type
    fields: Mapping[str, Field]
    reward_terms: Callable[..., dict[str, Array]]
    terminated: Callable[..., Array] | None = None
    metrics: Callable[..., dict[str, Array]] | None = None
    shared: Callable[..., Array] | None = None
    analytic: Analytic | None = None
    actuate: Callable[..., Array] | None = None
    model_params: Callable[..., dict[str, Array]] | None = None
    expert: Callable[..., Policy] | None = None
    scene: Callable[..., Any] | None = None
    statistics: Mapping[str, Callable[[Any], Array]] = field(default_factory=dict)  # of tasks; what a shift changes


@dataclass(frozen=True)
class Split:
    """A distribution over tasks, and for kind `reward` the constants that differ."""

    law: JointLaw
    kind: Kind
    constants: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""  # where it comes from, what it asks


@dataclass(frozen=True)
class ResetNoise:
    """Noise on a MuJoCo body's start: laws of one element of qpos and of one of qvel."""

    qpos: Law
    qvel: Law
    origin: bool = False  # put the body's x and y at zero

    def __str__(self) -> str:
        return f"qpos + {self.qpos}, qvel + {self.qvel}" + (", x = y = 0" if self.origin else "")


# What Gymnasium's and rllab's bodies start with.
GYM_NOISE = ResetNoise(Uniform(-0.1, 0.1), Normal(0, 0.1))
RLLAB_NOISE = ResetNoise(Normal(0, 0.01), Normal(0, 0.1))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A family with everything fixed: the unit of everything that is scored, trained or cited."""

    family: Family
    name: str = ""
    version: int = 0
    source: str
    note: str = ""
    horizon: int  # steps
    horizon_terminates: bool = False  # the horizon is part of the problem, not a time limit
    action_space: spaces.Space[Any]
    observe: Callable[[Any], Array]
    observation_bounds: tuple[float, float] = (-np.inf, np.inf)
    constants: Any = ()
    train: JointLaw
    ood: Mapping[str, Split]
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of task fields, where not the family's
    trial: int = 1  # episodes a trial: what a recurrent agent is trained on, or what is scored as one
    scored_by_trial: bool = False  # the score is a trial's total, and budgets count trials
    budgets: tuple[int, ...] = (0, 1, 2, 20, 40)  # episodes on the task before those scored
    frozen_tasks: int = 1000  # tasks a split in the frozen set
    body: Body | None = None
    frame_skip: int = 1
    reset_noise: ResetNoise | None = None

    @property
    def id(self) -> str:
        """Gymnasium id."""
        return f"kshot/{self.family.name}{'-' * bool(self.name)}{self.name}-v{self.version}"

    @property
    def label(self) -> str:
        """The id without its namespace, as in file names."""
        return self.id.removeprefix("kshot/")

    @property
    def fps(self) -> int:
        """Pictures a second: real time for MuJoCo families."""
        return round(1 / self.dt) if self.dt else 10

    @cached_property
    def splits(self) -> dict[str, Split]:
        """All splits by name; `val` and `test` follow the training law in streams of their own."""
        train = {name: Split(self.train, "train") for name in ("train", "val", "test")}
        return {**train, **self.ood}

    @property
    def scored_splits(self) -> list[str]:
        """The splits that a finished run is scored on: all but `val`, which is for selection."""
        return [name for name in self.splits if name != "val"]

    def split(self, name: str) -> Split:
        """Return a split; ValueError where the variant has none of this name."""
        if name not in self.splits:
            raise ValueError(f"{self.id} has no split {name!r}; its splits are {', '.join(self.splits)}")
        return self.splits[name]

    def task_field(self, name: str) -> Field:
        """Return a task field with this variant's bounds."""
        low, high = self.bounds.get(name, (self.family.fields[name].low, self.family.fields[name].high))
        return replace(self.family.fields[name], low=low, high=high)

    @property
    def time_limit(self) -> int | None:
        """Steps after which an episode is truncated; None where the horizon is part of the problem."""
        return None if self.horizon_terminates else self.horizon

    def sample(self, split: str, n: int, seed: int = 0) -> Any:
        """Draw `n` tasks of a split's law; see `kshot.tasks.sample`."""
        from kshot import tasks

        return tasks.sample(self, split, n, seed)

    def constants_on(self, split: str) -> Any:
        """Return the constants that hold on a split."""
        overrides = self.split(split).constants
        return self.constants._replace(**overrides) if overrides else self.constants

    @cached_property
    def task_space(self) -> spaces.Dict:
        """Bounds of every task parameter."""
        return spaces.Dict(
            {
                name: spaces.Box(self.task_field(name).low, self.task_field(name).high, law.shape, np.float64)
                for name, law in self.train.items()
            }
        )

    @cached_property
    def observation_space(self) -> spaces.Box:
        """Box of float64, its size that of `observe`."""
        size = self.observe(self.example_state()).shape[1]
        return spaces.Box(*self.observation_bounds, (size,), np.float64)

    def example_state(self) -> Any:
        """Return a state of one row, for shapes."""
        if self.family.analytic is not None:
            analytic = self.family.analytic
            task = self.family.task(**{name: np.zeros((1, *law.shape)) for name, law in self.train.items()})
            return analytic.initial(np.full((1, max(1, analytic.initial_noise)), 0.5), task, self.constants)
        assert self.body is not None
        model = self.body.compile()
        sizes = {"torso": (3,), "rotation": (9,), "com": (3,), "com_velocity": (3,), "contact": (model.nbody, 6)}
        readouts = {name: np.zeros((1, *sizes[name])) for name in self.body.readouts}
        return MjState(model.qpos0[None].copy(), np.zeros((1, model.nv)), self.dt, **readouts)

    @cached_property
    def dt(self) -> float:
        """Seconds an env step; 0 for analytic families."""
        return float(self.body.compile().opt.timestep) * self.frame_skip if self.body else 0.0


def register_names(variants: Iterable[Variant]) -> dict[str, Variant]:
    """Index variants by id; ValueError where two share one."""
    table: dict[str, Variant] = {}
    for variant in variants:
        if variant.id in table:
            raise ValueError(f"two variants are called {variant.id}")
        table[variant.id] = variant
    return table
