"""Stable-Baselines3 on the native batch: a `VecEnv` over `gym.make_vec`'s environments, wrapped or not."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from kshot import tasks
from kshot.single import task_option
from kshot.vector import KshotVectorEnv
from kshot.wrappers import base_of, overlay, without_ghosts

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError("kshot.sb3 needs Stable-Baselines3: pip install 'kshot[baselines]'") from error

Indices = int | Iterable[int] | None


def as_sb3_vecenv(
    vector_env: VectorEnv[np.ndarray, Any, np.ndarray], new_task_every_episode: bool = True
) -> KshotVecEnv:
    """Return a batch environment as a Stable-Baselines3 `VecEnv`, row for row what `DummyVecEnv` would give.

    Args:
        vector_env: from `gym.make_vec(id, num_envs=N, autoreset_mode="same_step")` (or "disabled"), also
            under `VectorTrial` and `VectorTaskInObservation`.
        new_task_every_episode: draw a row's task anew at each of its episodes, unless it is pinned. An env
            made with `episodes_per_task`, and a trial, keep to their own. False: a row keeps its task.

    Raises:
        TypeError: where it is no batch environment of kshot.
        ValueError: where it is in autoreset mode NEXT_STEP.
    """
    return KshotVecEnv(vector_env, new_task_every_episode)


class KshotVecEnv(VecEnv):
    """What `as_sb3_vecenv` returns.

    Observations have the space's type, float64; rewards are float32, as in `DummyVecEnv`. `infos[i]` holds
    what the single env's `info` does, `TimeLimit.truncated`, and `terminal_observation` where row i ended;
    a row's `task` is the same dict until its task changes: do not write to it.
    """

    def __init__(self, vector_env: VectorEnv[np.ndarray, Any, np.ndarray], new_task_every_episode: bool = True) -> None:
        """Wrap a batch environment; see `as_sb3_vecenv`."""
        self._base = base_of(vector_env, KshotVectorEnv)
        self.env = vector_env
        self._same_step = without_ghosts(vector_env) is AutoresetMode.SAME_STEP
        engine = self._base.engine
        if new_task_every_episode and engine.episodes_per_task is None:
            engine.episodes_per_task = 1
        self._actions: Any = None
        self._shown_tasks: list[Any] = [None] * vector_env.num_envs  # what infos say until a row starts anew
        super().__init__(vector_env.num_envs, vector_env.single_observation_space, vector_env.single_action_space)

    def reset(self) -> np.ndarray:
        """Start the next episode of all rows, with the seeds and options set since the last; (N, k)."""
        self._apply(self._options)
        seeds: Any = None if all(s is None for s in self._seeds) else self._seeds
        observation, infos = self.env.reset(seed=seeds)
        self._begun(infos, np.ones(self.num_envs, bool))
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions of the next step, (N, …)."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Move all rows by one step and restart those that end.

        Returns:
            observations (N, k), rewards (N,) float32, dones (N,) bool, and N infos.
        """
        observation, reward, terminated, truncated, infos = self.env.step(self._actions)
        done = terminated | truncated
        last: Any = None
        if done.any():
            observation, last, infos, begun = self._restart(observation, done, infos)
        infos["TimeLimit.truncated"] = truncated & ~terminated
        rows = rows_of(infos, self.num_envs, task=self._shown_tasks)
        if last is not None:
            for i in np.flatnonzero(done):
                rows[i]["terminal_observation"] = last[i]
            self._begun(begun, done)
        return observation, reward.astype(np.float32), done, rows

    def close(self) -> None:
        """Close the batch environment."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return every row's picture, (height, width, 3) uint8."""
        if self.render_mode != "rgb_array":
            warnings.warn(f'render mode is {self.render_mode}; pictures need render_mode="rgb_array"', stacklevel=2)
            return [None] * self.num_envs
        return list(self.env.render() or ())  # type: ignore[arg-type]

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Return an attribute of the batch env or of what it wraps, once an index; spaces are those of one row."""
        name = f"single_{attr_name}" if attr_name in ("observation_space", "action_space") else attr_name
        return [getattr(self._owner(name), name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of the batch env; of all rows at once, as they are one object."""
        self._all_rows("set_attr", indices)
        setattr(self._owner(attr_name, self.env), attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch env once, for all rows, and return what it gave once a row."""
        self._all_rows("env_method", indices)
        return [getattr(self._owner(method_name), method_name)(*method_args, **method_kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """Return whether a wrapper of this class is around the batch env, once an index."""
        wrapped = any(isinstance(env, wrapper_class) for env in self._chain())
        return [wrapped] * len(list(self._get_indices(indices)))

    def _restart(self, observation: np.ndarray, done: np.ndarray, infos: dict[str, Any]) -> tuple[Any, ...]:
        """Return new observations, last ones where done, the step's infos of all rows and those of new episodes."""
        if self._same_step:
            return observation, infos["final_obs"], overlay(_step_only(infos), infos["final_info"], done), infos
        fresh, begun = self.env.reset(options={"reset_mask": done})
        return fresh, observation, infos, begun

    def _begun(self, infos: dict[str, Any], begun: np.ndarray) -> None:
        """Keep what infos say of rows that started an episode."""
        chosen = np.flatnonzero(begun)
        for i, row in zip(chosen, rows_of(_picked(infos, chosen), len(chosen)), strict=True):
            self.reset_infos[i] = row
            self._shown_tasks[i] = row["task"]

    def _apply(self, options: list[dict[str, Any]]) -> None:
        """Pin or resample the tasks of rows whose options say so."""
        who, engine = self._base.variant, self._base.engine
        asked = [task_option(who.id, o) for o in options]
        if len(asked) != self.num_envs:
            raise ValueError(f"{who.id}: got options for {len(asked)} of {self.num_envs} rows; give one dict a row")
        checked: list[Any] = [None if a is None or isinstance(a, str) else tasks.check(who, a, 1) for a in asked]
        resampled = np.array([isinstance(a, str) for a in asked])
        pinned = np.array([c is not None for c in checked])
        if resampled.any():
            engine.resample(resampled)
        if pinned.any():
            batch = type(engine.task)(*(x.copy() for x in engine.task))
            for i in np.flatnonzero(pinned):
                for field, value in zip(batch, checked[i], strict=True):
                    field[i] = value[0]
            engine.pin(pinned, batch)

    def _chain(self) -> list[Any]:
        """Return the batch env and what it wraps, from the outside in."""
        chain: list[Any] = [self.env]
        while chain[-1] is not self._base:
            chain.append(chain[-1].env)
        return chain

    def _owner(self, name: str, default: Any = None) -> Any:
        """Return the outermost env that has an attribute; AttributeError where none has, without a default."""
        owner = next((env for env in self._chain() if hasattr(env, name)), default)
        if owner is None:
            raise AttributeError(f"neither {self.env} nor what it wraps has an attribute {name!r}")
        return owner

    def _all_rows(self, what: str, indices: Indices) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ValueError(
                f"{what} acts on all rows, which are one batch environment; got indices={indices!r} "
                "(a row's own task is set by set_options and reset)"
            )


def rows_of(infos: dict[str, Any], n: int, **ready: list[Any]) -> list[dict[str, Any]]:
    """Return infos, arrays of n rows with `_name` masks, nested, as a dict a row.

    Args:
        infos: as a vector env returns them.
        n: number of rows.
        ready: entries as lists of n already, instead of those in infos.
    """
    rows: list[dict[str, Any]] = [{} for _ in range(n)]
    for name, x in infos.items():
        if name.startswith("_") or name in ready:
            continue
        column = rows_of(x, n) if isinstance(x, dict) else _column(x)
        mask = infos.get(f"_{name}")
        if mask is None or mask.all():
            _write(rows, name, column)
        else:
            shown = np.flatnonzero(mask)
            _write([rows[i] for i in shown], name, [column[i] for i in shown])
    for name, column in ready.items():
        _write(rows, name, column)
    return rows


def _write(rows: list[dict[str, Any]], name: str, column: list[Any]) -> None:
    """Put one entry into every row's dict: of several ways to build dicts from columns the fastest measured."""
    for row, value in zip(rows, column, strict=True):
        row[name] = value


def _column(x: Any) -> list[Any]:
    """Return an entry's rows: Python numbers, or arrays of their own."""
    values: list[Any] = x.tolist() if np.ndim(x) == 1 else list(np.array(x))
    return values


def _picked(infos: dict[str, Any], chosen: np.ndarray) -> dict[str, Any]:
    """Return the chosen rows of infos, without those of ended episodes."""
    return {k: _picked(x, chosen) if isinstance(x, dict) else x[chosen] for k, x in _step_only(infos).items()}


def _step_only(infos: dict[str, Any]) -> dict[str, Any]:
    """Return infos without those of ended episodes."""
    return {k: x for k, x in infos.items() if k.removeprefix("_") not in ("final_obs", "final_info")}
