"""Agents: what `evaluate` scores, and those that need no training."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces

from kshot.agents import gait
from kshot.engine import Engine
from kshot.families import half_cheetah
from kshot.family import Variant


class Experience(NamedTuple):
    """One step of all rows, as an agent may learn from it."""

    observation: np.ndarray  # (rows, k)
    action: np.ndarray  # (rows, …), as the environment took it
    reward: np.ndarray  # (rows,)
    terminated: np.ndarray  # (rows,) bool
    truncated: np.ndarray  # (rows,) bool
    next_observation: np.ndarray  # (rows, k)
    active: np.ndarray  # (rows,) bool; the other rows' episodes had ended before this step: ignore them


@runtime_checkable
class Agent(Protocol):
    """What `evaluate` scores: it adapts to n tasks at once, without being told them.

    An agent may declare `round`, the number of episodes that it runs under one fixed policy before it updates
    (1 if it does not): its rows are then n * round, those of a task side by side. It may declare `name` and
    `config`, which the result records, and `first_update`, after how many episodes it had updated on every task
    (None for never): budgets below are then no score.
    """

    def reset(self, n: int) -> None:
        """Forget everything: n new tasks begin."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return actions, (rows, k) -> (rows, …)."""

    def observe(self, experience: Experience) -> None:
        """See what the actions did."""

    def end_episode(self) -> None:
        """All rows' episodes have ended; the same tasks go on."""


class Memoryless:
    """The parts of an agent that those without memory leave empty."""

    name = "agent"

    def reset(self, n: int) -> None:
        """Nothing to forget."""

    def observe(self, experience: Experience) -> None:
        """Nothing to learn."""

    def end_episode(self) -> None:
        """Nothing to do."""


class RandomAgent(Memoryless):
    """Uniform actions."""

    name = "random"

    def __init__(self, variant: Variant, seed: int = 0) -> None:
        """Take the action space of a variant."""
        self._space, self._generator = variant.action_space, np.random.default_rng(seed)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Draw an action a row."""
        if isinstance(self._space, spaces.Discrete):
            return self._generator.integers(self._space.n, size=len(observation))
        assert isinstance(self._space, spaces.Box)
        shape = (len(observation), *self._space.shape)
        return self._generator.uniform(self._space.low, self._space.high, shape).astype(np.float32)


class ConstantAgent(Memoryless):
    """The same action at every step: by default zero, or action 0."""

    name = "constant"

    def __init__(self, variant: Variant, action: Any = 0) -> None:
        """Take an action of a variant's action space; a number stands for all elements of a Box."""
        space = variant.action_space
        self._action = np.broadcast_to(np.asarray(action, space.dtype), space.shape or ())
        if not space.contains(self._action.copy() if space.shape else space.dtype.type(action)):  # type: ignore[union-attr]
            raise ValueError(f"action {action!r} is not in {space}")
        self.config = {"action": np.asarray(action).tolist()}

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Repeat the action for every row."""
        return np.broadcast_to(self._action, (len(observation), *self._action.shape))


class FunctionAgent(Memoryless):
    """A plain function of observations, (rows, k) -> (rows, …)."""

    def __init__(self, function: Callable[[np.ndarray], Any]) -> None:
        """Take the function."""
        self._function, self.name = function, getattr(function, "__name__", type(function).__name__)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Call it."""
        return np.asarray(self._function(observation))


class PrivilegedAgent(Memoryless):
    """Sees the task: a ceiling to compare with, not a competitor."""

    def see(self, engine: Engine) -> None:
        """Look at the rows and their tasks, before the first episode."""
        self._engine = engine


class ExpertAgent(PrivilegedAgent):
    """The closed-form expert of a family: best arm, optimal policy, straight way, shortest path."""

    name = "expert"

    def __init__(self, variant: Variant) -> None:
        """Take a variant whose family has an expert; ValueError for the others."""
        if variant.family.expert is None:
            raise ValueError(f"{variant.id}: the family {variant.family.name} has no closed-form expert")
        self._expert = variant.family.expert

    def see(self, engine: Engine) -> None:
        """Plan for the tasks."""
        super().see(engine)
        self._policy = self._expert(engine.task, engine.constants)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Follow the plan."""
        return np.asarray(self._policy(self._engine.state, self._engine.clock))


class GaitAgent(PrivilegedAgent):
    """The hand-written HalfCheetah controller of `kshot.agents.gait`, at the task's velocity or direction."""

    name = "gait"

    def __init__(self, variant: Variant) -> None:
        """Take a variant of HalfCheetahVel or HalfCheetahDir."""
        if variant.family.name not in ("HalfCheetahVel", "HalfCheetahDir"):
            raise ValueError(f"{variant.id}: the gait controller runs HalfCheetahVel and HalfCheetahDir only")
        if variant.dt != 0.05 or variant.observe not in (half_cheetah.joints, half_cheetah.with_torso):
            raise ValueError(
                f"{variant.id}: the gait controller needs steps of 0.05 s and joints first in the observation"
            )

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Drive the motors."""
        task = self._engine.task
        velocity = task.velocity if hasattr(task, "velocity") else gait.TOP_SPEED * task.direction
        return gait.torques(observation, self._engine.clock, velocity)


def make_agent(name: Any, variant: Variant, seed: int = 0) -> Agent:
    """Return an agent by name, or what is given where it is one already.

    Args:
        name: "random", "constant", "expert", "gait", a classical learner of bandits or tabular MDPs ("ucb1",
            "thompson", "gittins", …, "psrl", "beb", …), "module:attribute", a function of observations, or an
            agent. An attribute may be an agent, a function of observations, or a class that takes (variant, seed).
        variant: what it will act in.
        seed: of its own random choices.

    Raises:
        ValueError: naming what is known where nothing fits.
    """
    if isinstance(name, str):
        return _named(name, variant, seed)
    if isinstance(name, type):
        raise ValueError(f"{name.__name__} is a class; give an agent, as {name.__name__}(...)")
    if isinstance(name, Agent):
        return name
    if callable(name):
        return FunctionAgent(name)
    raise ValueError(f"{name!r} is not an agent: expected reset, act, observe and end_episode, or a function")


def _named(name: str, variant: Variant, seed: int) -> Agent:
    """Return a built-in agent, a classical learner, or what module:attribute names."""
    if name in _BUILT_IN:
        return _BUILT_IN[name](variant, seed)
    learners = _learners(variant)
    if name in learners:
        return learners[name](variant, seed)
    if ":" not in name:
        known = ", ".join([*_BUILT_IN, *learners])
        raise ValueError(f"no agent {name!r}; expected one of {known}, or module:attribute")
    module, attribute = name.split(":", 1)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot find the agent {name!r}: {error}") from error
    if isinstance(found, type):
        try:
            inspect.signature(found).bind(variant, seed)
        except TypeError as error:
            raise ValueError(f"the class {name!r} must take (variant, seed): {error}") from error
        found = found(variant, seed)
    return make_agent(found, variant, seed)


def _learners(variant: Variant) -> Mapping[str, Callable[[Variant, int], Agent]]:
    """Return the classical learners of the variant's family by name."""
    module = {"Bandit": "bandit", "TabularMDP": "mdp"}.get(variant.family.name)
    if module is None:
        return {}
    found = importlib.import_module(f"kshot.agents.{module}_learners")
    return found.BANDIT_LEARNERS if module == "bandit" else found.MDP_LEARNERS  # type: ignore[no-any-return]


def shipped_names() -> frozenset[str]:
    """Return the names of all agents that ship with kshot."""
    from kshot.agents.bandit_learners import BANDIT_LEARNERS
    from kshot.agents.mdp_learners import MDP_LEARNERS

    return frozenset({*_BUILT_IN, *BANDIT_LEARNERS, *MDP_LEARNERS})


_BUILT_IN: dict[str, Callable[[Variant, int], Agent]] = {
    "random": RandomAgent,
    "constant": lambda variant, seed: ConstantAgent(variant),
    "expert": lambda variant, seed: ExpertAgent(variant),
    "gait": lambda variant, seed: GaitAgent(variant),
}
