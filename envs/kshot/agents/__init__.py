"""Agents: what `evaluate` scores, and those that need no training."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import os
import sys
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
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
    `config`, which the result records, `first_update`, after how many episodes it had updated on every task
    (None for never): budgets below are then no score; and `adapts = False` where it does nothing of the kind, so that
    a few episodes tell its score at every budget. Where it has a `close()`, `evaluate` calls that at its end, also
    after an error, so that threads and memory can be given back; `reset` must work after it.
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
    adapts = False

    def __init__(self, variant: Variant, seed: int = 0) -> None:
        """Take the action space of a variant."""
        self._space, self._generator = variant.action_space, np.random.default_rng(seed)
        if isinstance(self._space, spaces.Box):
            self._low = self._space.low.astype(np.float64)
            self._range = self._space.high - self._low

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Draw an action a row."""
        if isinstance(self._space, spaces.Discrete):
            return self._generator.integers(self._space.n, size=len(observation))
        # As Generator.uniform draws, which is slow where its bounds are arrays.
        u = self._generator.random((len(observation), *self._low.shape))
        drawn: np.ndarray = (self._low + self._range * u).astype(np.float32)
        return drawn


class ConstantAgent(Memoryless):
    """The same action at every step: by default zero, or action 0."""

    name = "constant"
    adapts = False

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

    adapts = False

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


def make_agent(name: Any, variant: Variant, seed: int = 0, **settings: Any) -> Agent:
    """Return an agent by name, or what is given where it is one already.

    Args:
        name: "random", "constant", "expert", "gait", a classical learner of bandits or tabular MDPs ("ucb1",
            "thompson", "gittins", …, "psrl", "beb", …), the path of a policy file ("my/policy.safetensors"; see
            `kshot.agents.policy`) or of a checkpoint (see `agent_of_file`), "module:attribute" or
            "my/file.py:attribute", a function of observations, a torch.nn.Module (see `kshot.agents.torch`), or an
            agent. An attribute may be any of the last three, or a class that takes (variant, seed).
        variant: what it will act in.
        seed: of its own random choices.
        settings: of an agent that ships, or of a class: further arguments of its constructor. What `config` holds of
            an agent that ships makes the same one again; to the config of another, settings are added that it does
            not hold.

    Raises:
        ValueError: naming what is known where nothing fits, or where settings cannot be added to an agent's config; a
            `PolicyError` for a policy file.
    """
    if isinstance(name, (str, os.PathLike)):
        return _named(os.fsdecode(name), variant, seed, settings)
    if settings:
        raise ValueError(f"{name!r} is an agent already; it takes no settings: {', '.join(settings)}")
    if isinstance(name, type):
        raise ValueError(f"{name.__name__} is a class; give an agent, as {name.__name__}(...)")
    if isinstance(name, Agent):
        return name
    if _is_torch_module(name):
        from kshot.agents.torch import TorchAgent

        return TorchAgent(name, variant, seed)
    if callable(name):
        return FunctionAgent(name)
    raise ValueError(f"{name!r} is not an agent: expected reset, act, observe and end_episode, or a function")


def _named(name: str, variant: Variant, seed: int, settings: Mapping[str, Any]) -> Agent:
    """Return a built-in agent, a classical learner, a policy file's, or what module:attribute names."""
    learners = learners_of(variant)
    shipped = _BUILT_IN.get(name) or learners.get(name)
    if shipped is not None:
        agent: Agent = _made(name, shipped, variant, seed, settings)
        return agent
    suffix = Path(name).suffix.lower()
    if suffix == ".safetensors":
        if settings:
            raise ValueError(f"{name}: a policy file takes no settings, got {', '.join(settings)}")
        return agent_of_file(name, variant, seed)
    if suffix in _UNSAFE:
        raise ValueError(
            f"{name}: a file of this kind can run code when it is loaded, so kshot never loads one; write a policy "
            "file with kshot.agents.sb3.export_policy(model, path, variant_id) or kshot.agents.policy.save_policy, or "
            "load the model in a Python file of your own and give my_file.py:attribute"
        )
    module, colon, attribute = name.rpartition(":")
    if not colon or not attribute:
        known = ", ".join([*_BUILT_IN, *learners])
        raise ValueError(
            f"no agent {name!r}; expected one of {known}, policy.safetensors, module:attribute or file.py:attribute"
        )
    try:
        found = getattr(_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot find the agent {name!r}: {error}") from error
    if isinstance(found, type):
        return _recorded(make_agent(_made(name, found, variant, seed, settings), variant, seed), settings)
    return make_agent(found, variant, seed, **settings)


def agent_of_file(path: str | os.PathLike[str], variant: Variant, seed: int = 0) -> Agent:
    """Return the agent of a policy file, or of a checkpoint of an installed package.

    A package takes the files whose metadata has the name of one of its entry points in the group
    `kshot.checkpoints`: a function of (path, variant, seed) that returns an agent, and raises a `PolicyError`.

    Raises:
        PolicyError: where the file cannot be read, is damaged, or does not fit the variant.
        ImportError: where the package that reads it lacks what it needs.
    """
    from kshot.agents.policy import PolicyAgent, decode, read_file

    path, data = Path(path), read_file(path)
    entry = _reader(data)
    if entry is None:
        return PolicyAgent(decode(data, path), variant, seed)
    try:
        load = entry.load()
    except ImportError as error:
        raise ImportError(
            f"{path} is a checkpoint of {entry.name}, which cannot be imported: {error}; for the methods of kshot: "
            "pip install 'kshot[baselines]'"
        ) from error
    agent: Agent = load(path, variant, seed)
    return agent


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Return whether an installed package reads a file, and not the suite itself; PolicyError where nobody can."""
    from kshot.agents.policy import read_file

    return _reader(read_file(path)) is not None


def _reader(data: bytes) -> EntryPoint | None:
    """Return the entry point of whoever reads a file's bytes; None where no metadata names one."""
    from kshot.agents.policy import metadata_of

    keys = metadata_of(data)
    return next((entry for entry in entry_points(group="kshot.checkpoints") if entry.name in keys), None)


def _made(name: str, maker: Callable[..., Any], variant: Variant, seed: int, settings: Mapping[str, Any]) -> Any:
    """Call a class with (variant, seed, **settings); ValueError where it does not take them."""
    try:
        inspect.signature(maker).bind(variant, seed, **settings)
    except TypeError as error:
        given = "".join(f", {key}=…" for key in settings)
        raise ValueError(f"the agent {name!r} does not take (variant, seed{given}): {error}") from error
    return maker(variant, seed, **settings)


def _recorded(agent: Agent, settings: Mapping[str, Any]) -> Agent:
    """Return an agent whose config holds its settings, too; what it says of one itself stays.

    Raises:
        ValueError: where its config cannot be changed.
    """
    config: Any = getattr(agent, "config", {})
    is_record = dataclasses.is_dataclass(config) and not isinstance(config, type)
    held = {field.name for field in dataclasses.fields(config)} if is_record else set(config)
    more = {key: value for key, value in settings.items() if key not in held}
    if more:
        try:
            agent.config = _longer_record(config, more) if is_record else {**config, **more}  # type: ignore[attr-defined]
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"the settings {', '.join(more)} cannot be added to the config of {type(agent).__name__}, which a "
                f"result records; let its config hold them: {error}"
            ) from error
    return agent


def _longer_record(record: Any, more: Mapping[str, Any]) -> Any:
    """Return a dataclass instance with more fields; the agent that reads the others by name finds them as before."""
    kind = type(record)
    fields = [(key, Any, dataclasses.field(init=False)) for key in more]
    frozen = kind.__dataclass_params__.frozen
    longer: Any = object.__new__(dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=frozen))
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    for key, value in {**getattr(record, "__dict__", {}), **values, **more}.items():
        object.__setattr__(longer, key, value)
    return longer


def _module(name: str) -> ModuleType:
    """Import a module by name, or run a Python file by its path; ImportError where there is none."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).resolve()
    if not path.is_file():
        raise ImportError(f"there is no file {name}")
    label = f"_kshot_agent_{path.stem}_{zlib.crc32(os.fsencode(path)):08x}"  # two files of one name are two modules
    spec = importlib.util.spec_from_file_location(label, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[label] = importlib.util.module_from_spec(spec)  # there before it runs, as dataclasses need
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[label]
        raise
    return module


def _is_torch_module(x: Any) -> bool:
    """Tell whether this is a torch.nn.Module, which nobody has where torch is not imported."""
    nn = sys.modules.get("torch.nn")
    return nn is not None and isinstance(x, nn.Module)


def learners_of(variant: Variant) -> Mapping[str, Callable[[Variant, int], Agent]]:
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


_UNSAFE = (".zip", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".cleanrl_model")  # all of them pickle


def _constant(variant: Variant, seed: int = 0, action: Any = 0) -> ConstantAgent:
    return ConstantAgent(variant, action)


def _expert(variant: Variant, seed: int = 0) -> ExpertAgent:
    return ExpertAgent(variant)


def _gait(variant: Variant, seed: int = 0) -> GaitAgent:
    return GaitAgent(variant)


_BUILT_IN: dict[str, Callable[..., Agent]] = {
    "random": RandomAgent,
    "constant": _constant,
    "expert": _expert,
    "gait": _gait,
}
