"""Wrappers for single environments, each with a twin for the batch: trials, and the task in the observation.

A row of a wrapped batch is bit for bit the wrapped single environment, as without a wrapper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from kshot.engine import Engine
from kshot.single import KshotEnv
from kshot.vector import KshotVectorEnv

Reset: TypeAlias = tuple[np.ndarray, dict[str, Any]]
Step: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]
Seeds: TypeAlias = int | Sequence[int | None] | None
Base = TypeVar("Base", KshotEnv, KshotVectorEnv)


class Trial(gym.Wrapper[np.ndarray, Any, np.ndarray, Any], RecordConstructorArgs):
    """One Gym episode of K consecutive episodes of one task, a new task every trial unless one is pinned.

    The observation is [observation, previous action (one-hot if Discrete), previous reward, previous done],
    zeros after the observation at the start of a trial. Where an episode ends inside the trial, the step
    returns the first observation of the next one, with the action and reward that ended the last and
    done = 1: no step is spent on it, and K episodes of H steps are K·H steps. Only the last episode's end
    ends the trial, with that episode's flags; its last observation has done = 1 too.

    `info` is that of the step, with `episode_index`, the number within the trial of the episode to which the
    step, its reward and the rest of `info` belong.
    """

    def __init__(self, env: gym.Env[np.ndarray, Any], episodes: int | None = None) -> None:
        """Wrap an environment, which from now on draws a task every `episodes` episodes.

        Args:
            env: of kshot, bare or as `gym.make` returns it, made without `episodes_per_task`.
            episodes: a trial, K; None for the variant's `trial`.

        Raises:
            TypeError: where `env` is not of kshot, or not with a flat Box of observations.
            ValueError: for a K that makes no sense, or an env that changes its task on its own.
        """
        RecordConstructorArgs.__init__(self, episodes=episodes)
        super().__init__(env)
        self._engine = base_of(env, KshotEnv).engine
        self.episodes = _own_the_draws(self._engine, episodes)
        self._layout = TrialLayout(env.observation_space, env.action_space)
        self.observation_space = self._layout.space
        self._index = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Start the next trial; the arguments are those of the wrapped environment."""
        _draw_anew(self._engine, options)
        observation, info = self.env.reset(seed=seed, options=options)
        self._index = 0
        return self._layout.join(observation[None], self._layout.zeros(1))[0], {**info, "episode_index": 0}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move by one step, into the next episode where one ends inside the trial."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        done = terminated or truncated
        tail = self._layout.tail(np.asarray(action)[None], np.array([reward]), np.array([done]))
        info = {**info, "episode_index": self._index}
        if done and self._index < self.episodes - 1:
            observation, _ = self.env.reset()
            self._index += 1
            terminated = truncated = False
        return self._layout.join(observation[None], tail)[0], float(reward), terminated, truncated, info


class VectorTrial(VectorWrapper[np.ndarray, Any, np.ndarray, Any, np.ndarray]):
    """The batch twin of `Trial`: every row runs its own trials.

    Rows whose trial has ended follow the autoreset mode of the wrapped batch, SAME_STEP or DISABLED; in
    SAME_STEP their last observation and info are `final_obs` and `final_info`, as without a wrapper.
    """

    def __init__(self, env: VectorEnv[np.ndarray, Any, np.ndarray], episodes: int | None = None) -> None:
        """Wrap a batch, which from now on draws a row's task every `episodes` episodes of the row.

        Args:
            env: of kshot, as `gym.make_vec` returns it, made without `episodes_per_task`.
            episodes: a trial, K; None for the variant's `trial`.

        Raises:
            TypeError: where `env` is not a batch of kshot, or not with a flat Box of observations.
            ValueError: for a K that makes no sense, an env that changes its tasks on its own, or one in
                NEXT_STEP autoreset mode, whose ghost steps would enter the trials.
        """
        super().__init__(env)
        self._base = base_of(env, KshotVectorEnv)
        self._same_step = without_ghosts(env) is AutoresetMode.SAME_STEP
        self.episodes = _own_the_draws(self._base.engine, episodes)
        self._layout = TrialLayout(env.single_observation_space, env.single_action_space)
        self.single_observation_space = self._layout.space
        self.observation_space = batch_space(self._layout.space, self.num_envs)
        self._index = np.zeros(self.num_envs, np.int64)
        self._tail = self._layout.zeros(self.num_envs)
        self._all = np.ones(self.num_envs, bool)
        self._all.flags.writeable = False

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> Reset:
        """Start the next trial of all rows, or of those in `options["reset_mask"]`."""
        _draw_anew(self._base.engine, options)
        observation, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # a seed a row
        mask = (options or {}).get("reset_mask")
        begun = self._all if mask is None else mask.copy()
        self._index = np.where(begun, 0, self._index)
        self._tail = np.where(begun[:, None], 0.0, self._tail)
        infos = {**infos, "episode_index": np.zeros(self.num_envs, np.int64), "_episode_index": begun}
        return self._layout.join(observation, self._tail), infos

    def step(self, actions: Any) -> Step:
        """Move all rows by one step, into their next episodes where they end inside the trial."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        done = terminated | truncated
        tail = self._tail = self._layout.tail(actions, reward, done)
        infos = {**infos, "episode_index": self._index.copy(), "_episode_index": self._all}
        if not done.any():
            return self._layout.join(observation, tail), reward, terminated, truncated, infos
        over = done & (self._index == self.episodes - 1)
        inner = done & ~over
        if self._same_step:
            infos = self._relabel(infos, over, inner)
            self._tail = np.where(over[:, None], 0.0, tail)
        elif inner.any():
            observation, _ = self.env.reset(options={"reset_mask": inner})
        self._index = np.where(over & self._same_step, 0, self._index + inner)
        return self._layout.join(observation, self._tail), reward, terminated & over, truncated & over, infos

    def get_state(self) -> dict[str, Any]:
        """Return everything that the trials' future depends on, as arrays."""
        return {"env": self._base.get_state(), "index": self._index.copy(), "tail": self._tail.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` of trials of the same variant, split and size returned."""
        self._base.set_state(state["env"])
        self._index, self._tail = np.array(state["index"]), np.array(state["tail"])

    def _relabel(self, infos: dict[str, Any], over: np.ndarray, inner: np.ndarray) -> dict[str, Any]:
        """Turn the final infos of episodes into those of trials; rows inside a trial get theirs as of any step."""
        final_obs, final_info = infos.pop("final_obs"), infos.pop("final_info")
        del infos["_final_obs"], infos["_final_info"]
        infos = overlay(infos, final_info, inner)
        infos["episode_index"] = np.where(over, 0, self._index)
        if not over.any():
            return infos
        last = np.full(self.num_envs, None, object)
        ended = np.flatnonzero(over)
        for i, x in zip(ended, self._layout.join(np.stack(final_obs[ended]), self._tail[ended]), strict=True):
            last[i] = x
        final = overlay({}, {**final_info, "episode_index": self._index}, over)
        return {**infos, "final_obs": last, "_final_obs": over, "final_info": final, "_final_info": over.copy()}


class TaskInObservation(gym.ObservationWrapper[np.ndarray, Any, np.ndarray], RecordConstructorArgs):
    """The observation with the task after it, flattened, fields in the family's order: for oracles."""

    def __init__(self, env: gym.Env[np.ndarray, Any]) -> None:
        """Wrap an environment of kshot; TypeError for another."""
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._engine = base_of(env, KshotEnv).engine
        self.observation_space = _with_task_space(env.observation_space, self._engine)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Append the task."""
        shown: np.ndarray = with_task(observation[None], self._engine)[0]
        return shown


class VectorTaskInObservation(VectorWrapper[np.ndarray, Any, np.ndarray, Any, np.ndarray]):
    """The batch twin of `TaskInObservation`, in any autoreset mode."""

    def __init__(self, env: VectorEnv[np.ndarray, Any, np.ndarray]) -> None:
        """Wrap a batch of kshot; TypeError for another."""
        super().__init__(env)
        self._engine = base_of(env, KshotVectorEnv).engine
        self.single_observation_space = _with_task_space(env.single_observation_space, self._engine)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> Reset:
        """Start the next episode of all rows, or of those in `options["reset_mask"]`."""
        observation, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # a seed a row
        return with_task(observation, self._engine), infos

    def step(self, actions: Any) -> Step:
        """Move all rows by one step."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            ended, old = np.flatnonzero(infos["_final_obs"]), infos["final_info"]["task"]
            final_obs = infos["final_obs"].copy()
            # Not the engine's tasks: it may hold the next ones already.
            tasks = [old[name][ended] for name in self._engine.task._fields]
            for i, x in zip(ended, _append(np.stack(final_obs[ended]), tasks), strict=True):
                final_obs[i] = x
            infos = {**infos, "final_obs": final_obs}
        return with_task(observation, self._engine), reward, terminated, truncated, infos


class TrialLayout:
    """What a trial shows: the observation, then a tail of previous action, reward and done."""

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        """Take the spaces of one row; TypeError for those without a flat layout."""
        box = _flat_box(observation)
        if isinstance(action, spaces.Discrete):
            low, high = np.zeros(action.n), np.ones(action.n)
            self._one_hot: np.ndarray | None = np.eye(int(action.n))
            self._start = int(action.start)
        elif isinstance(action, spaces.Box):
            low, high, self._one_hot = action.low.ravel(), action.high.ravel(), None
        else:
            raise TypeError(f"a trial shows Box or Discrete actions, not {action}")
        self._low, self._high = low, high
        self.space = spaces.Box(
            np.concatenate([box.low, low, [-np.inf, 0.0]]), np.concatenate([box.high, high, [np.inf, 1.0]]), None,
            np.float64,
        )  # fmt: skip
        self._split = len(box.low)

    def zeros(self, n: int) -> np.ndarray:
        """Return the tails at the start of a trial, (n, tail)."""
        return np.zeros((n, len(self._low) + 2))

    def tail(self, actions: Any, reward: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Return the tails after a step, (N, tail); actions are shown as the environment took them, clipped."""
        tail = np.empty((len(reward), len(self._low) + 2))
        if self._one_hot is None:
            # By way of the space's type, so that the same number shows whatever type it was given in.
            given = np.asarray(actions, self._low.dtype).reshape(len(reward), -1)
            tail[:, :-2] = given.clip(self._low, self._high)
        else:
            tail[:, :-2] = self._one_hot[np.asarray(actions) - self._start]
        tail[:, -2], tail[:, -1] = reward, done
        return tail

    def join(self, observation: np.ndarray, tail: np.ndarray) -> np.ndarray:
        """Return observations with their tails, (N, k) and (N, tail) -> (N, k + tail), a new array."""
        out = np.empty((len(observation), self._split + tail.shape[1]))
        out[:, : self._split], out[:, self._split :] = observation, tail
        return out


def base_of(env: Any, kind: type[Base]) -> Base:
    """Return the kshot environment of this kind under any wrappers; TypeError where there is none."""
    base = getattr(env, "unwrapped", env)
    if isinstance(base, kind):
        return base
    raise TypeError(
        f"expected a {kind.__name__} under the wrapper, got {env!r}: environments of gym.make, also inside "
        "SyncVectorEnv, take Trial and TaskInObservation; those of gym.make_vec take their Vector twins"
    )


def without_ghosts(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """Return the autoreset mode; ValueError for NEXT_STEP, whose ghost steps must never reach an agent."""
    mode = AutoresetMode(env.metadata["autoreset_mode"])
    if mode is AutoresetMode.NEXT_STEP:
        raise ValueError(
            "the batch is in autoreset mode NEXT_STEP, whose steps after an episode's end are no steps of the task; "
            'make it with gym.make_vec(id, num_envs=N, autoreset_mode="same_step") (or "disabled")'
        )
    return mode


def overlay(infos: dict[str, Any], extra: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Return infos (arrays of N rows with `_name` masks, nested) in which `rows` show the entries of `extra`."""
    out = dict(infos)
    for name, value in extra.items():
        if name.startswith("_"):
            continue
        old = out.get(name)
        if isinstance(value, dict):
            out[name] = overlay(old or {}, value, rows)
        else:
            here = rows.reshape(-1, *[1] * (np.ndim(value) - 1))
            out[name] = np.where(here, value, np.zeros_like(value) if old is None else old)
        out[f"_{name}"] = rows if old is None else out[f"_{name}"] | rows
    return out


def _own_the_draws(engine: Engine, episodes: int | None) -> int:
    """Have the engine draw a task every trial, and return the checked number of episodes of one."""
    who = engine.variant.id
    k = engine.variant.trial if episodes is None else episodes
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"{who}: a trial of {k!r} episodes; expected a whole number from 1, or None for the variant's")
    if engine.episodes_per_task is not None:
        raise ValueError(
            f"{who}: the env draws a new task every {engine.episodes_per_task} episodes already, by "
            "episodes_per_task= or for an earlier wrapper; a trial draws its own: make a new env without it"
        )
    engine.episodes_per_task = int(k)
    return int(k)


def _draw_anew(engine: Engine, options: dict[str, Any] | None) -> None:
    """Have the rows whose trials a reset starts draw new tasks, also where it cuts a trial short; pins stay."""
    mask = (options or {}).get("reset_mask")
    if mask is None:
        engine.resample(~engine.pinned)
    elif isinstance(mask, np.ndarray) and mask.dtype == bool and mask.shape == engine.pinned.shape:
        engine.resample(~engine.pinned & mask)  # any other mask the env refuses


def _flat_box(space: spaces.Space[Any]) -> spaces.Box:
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return space
    raise TypeError(f"expected observations in a flat Box, got {space}; put this wrapper under the one that changes it")


def _with_task_space(observation: spaces.Space[Any], engine: Engine) -> spaces.Box:
    """Return the space of observations with the task after them, float64."""
    box, task = _flat_box(observation), engine.variant.task_space
    bounds = [task[name] for name in engine.task._fields]
    low = np.concatenate([box.low, *(b.low.ravel() for b in bounds)])  # type: ignore[attr-defined]
    high = np.concatenate([box.high, *(b.high.ravel() for b in bounds)])  # type: ignore[attr-defined]
    return spaces.Box(low, high, None, np.float64)


def with_task(observation: np.ndarray, engine: Engine) -> np.ndarray:
    """Return observations with the rows' tasks after them, (N, k) -> (N, k + task), a new array."""
    return _append(observation, engine.task)


def _append(observation: np.ndarray, task: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([observation, *(x.reshape(len(x), -1) for x in task)], axis=1)
