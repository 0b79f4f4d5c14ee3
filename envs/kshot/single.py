"""The single environment: row 0 of a batch of one, as a `gymnasium.Env`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

from kshot import random, registry, tasks
from kshot.engine import Engine, Outcome
from kshot.rendering import Renderer
from kshot.tasks import check as check_task

RENDER_MODES = ["human", "rgb_array"]


class KshotEnv(gym.Env[np.ndarray, Any]):
    """One MDP of a task distribution, hidden from the agent.

    A task is drawn at the first reset and again at every reset with a seed, and otherwise stays until asked:
    `reset(options={"task": {...}})` or `task=` pins it, against seeds too, until
    `reset(options={"task": "resample"})`.

    `info` holds `task`, each reward term as `reward_<name>` (their sum is the reward), the family's metrics,
    and for MuJoCo families `diverged`.
    """

    metadata = {"render_modes": RENDER_MODES, "render_fps": 10}  # noqa: RUF012 - Gymnasium's way

    def __init__(
        self,
        variant: str,
        split: str = "train",
        task: Any = None,
        tasks: Any = None,
        episodes_per_task: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Build the environment; `gym.make(id, ...)` passes these arguments on.

        Args:
            variant: the variant's id.
            split: whose law tasks are drawn from.
            task: a task to pin, {field: value}.
            tasks: restricts draws to these tasks: a list, a batch, or the path of a JSON file.
            episodes_per_task: draw a new task after so many episodes.
            render_mode: None, "rgb_array" or "human".

        Raises:
            ValueError: for an unknown split or render mode, or a task outside the task space.
        """
        self.variant = registry.variant(variant)
        self.metadata = {**self.metadata, "render_fps": self.variant.fps}
        self.render_mode = check_render_mode(render_mode)
        self.engine = Engine(self.variant, split, 1)
        configure(self.engine, tasks, episodes_per_task)
        if task is not None:
            self.engine.pin(None, check_task(self.variant, task, 1))
        self.observation_space = self.variant.observation_space
        self.action_space = self.variant.action_space
        self._mujoco = self.variant.body is not None
        self._shown: tuple[Any, dict[str, Any]] | None = None  # the engine's task and its first row
        self._arrays = [name for name, law in self.variant.train.items() if law.shape]  # fields that are no numbers
        self._phase = "before"  # then "running", "ended" or "closed"
        self._renderer: Renderer | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the next episode.

        Args:
            seed: starts the env's random stream anew, and draws a new task unless one is pinned.
            options: {"task": {field: value}} pins a task, {"task": "resample"} draws one.
        """
        if self._phase == "closed":
            raise ClosedEnvironmentError(f"{self.variant.id}: reset after close; make a new environment")
        asked = task_option(self.variant.id, options)
        pinned = None if asked is None or isinstance(asked, str) else check_task(self.variant, asked, 1)
        super().reset(seed=seed)  # from here on nothing is refused
        if seed is not None or self._phase == "before":
            self.engine.reseed(None, np.array([random.row_seed(self.np_random)], np.uint64))
        if isinstance(asked, str):
            self.engine.resample()
        elif pinned is not None:
            self.engine.pin(None, pinned)
        self.engine.begin()
        self._phase = "running"
        if self.render_mode == "human":
            self.render()
        return self.engine.observe()[0], {"task": self._task()}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move by one step.

        Raises:
            ActionError: for an action of the wrong shape or type, out of range or not finite.
            ResetNeeded: before the first reset, or after the end of an episode.
            ClosedEnvironmentError: after `close`.
        """
        if self._phase != "running":
            self._refuse()
        engine = self.engine
        out = engine.step(engine.prepare(action[None] if isinstance(action, np.ndarray) else (action,)))
        terminated, truncated = out.terminated.item(), out.truncated.item()
        if terminated or truncated:
            self._phase = "ended"
        info: dict[str, Any] = {"reward_" + name: x.item() for name, x in out.terms.items()}  # as `step_info`
        for name, x in out.metrics.items():
            info[name] = x.item()
        if self._mujoco:
            info["diverged"] = out.diverged.item()
        info["task"] = self._task()
        if self.render_mode == "human":
            self.render()
        return engine.observe()[0], out.reward.item(), terminated, truncated, info

    def render(self) -> Any:
        """Return the picture of the current state, (height, width, 3) uint8, or show it."""
        if self.render_mode is None:
            gym.logger.warn(
                f'{self.variant.id}: render() without render_mode; make the env with render_mode="rgb_array" or "human"'
            )
            return None
        if self._phase in ("before", "closed"):
            self._refuse()
        if self._renderer is None:
            self._renderer = Renderer(self.engine)
        if self.render_mode == "rgb_array":
            return self._renderer.picture(0)
        self._renderer.show(0, self.metadata["render_fps"])
        return None

    def close(self) -> None:
        """Free the renderer; the env takes no further calls."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._phase = "closed"

    def get_state(self) -> dict[str, Any]:
        """Return everything that the env's future depends on; not what wrappers count, as `TimeLimit` does."""
        return {"engine": self.engine.get_state(), "phase": self._phase}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` of an env of the same variant and split returned."""
        if self._phase == "closed":
            self._refuse()
        self.engine.set_state(state["engine"])
        self._phase = state["phase"]

    def _task(self) -> dict[str, Any]:
        """Return the task as a new dict of numbers and arrays."""
        task = self.engine.task
        if self._shown is None or self._shown[0] is not task:
            self._shown = task, {name: x.item() if x.ndim == 1 else x[0] for name, x in task._asdict().items()}
        shown = self._shown[1].copy()
        for name in self._arrays:
            shown[name] = shown[name].copy()
        return shown

    def _refuse(self) -> None:
        if self._phase == "closed":
            raise ClosedEnvironmentError(f"{self.variant.id}: used after close; make a new environment")
        when = "before the first reset" if self._phase == "before" else "after the end of the episode"
        raise ResetNeeded(f"{self.variant.id}: used {when}; call reset() first")


def configure(engine: Engine, restricted: Any, episodes_per_task: int | None) -> None:
    """Set what tasks an engine draws and for how many episodes each; ValueError where they make no sense."""
    if restricted is not None:
        engine.pool = tasks.pool(engine.variant, restricted)
    if episodes_per_task is not None and (
        not isinstance(episodes_per_task, (int, np.integer)) or episodes_per_task < 1
    ):
        raise ValueError(
            f"{engine.variant.id}: episodes_per_task is {episodes_per_task!r}; expected a whole number from 1, or None"
        )
    engine.episodes_per_task = episodes_per_task


def task_option(who: str, options: dict[str, Any] | None, *others: str) -> Any:
    """Return the option `task`; ValueError for an option that is not known or a word other than "resample"."""
    if not options:
        return None
    if not isinstance(options, Mapping):
        raise ValueError(f"{who}: reset options are {options!r}; expected a mapping like {{'task': ...}}")
    unknown = set(options) - {"task", *others}
    if unknown:
        raise ValueError(
            f"{who}: reset options {', '.join(map(repr, sorted(unknown, key=str)))} are not known; expected 'task'"
            + "".join(f" or {o!r}" for o in others)
        )
    task = options.get("task")
    if isinstance(task, str) and task != "resample":
        raise ValueError(f"{who}: reset option 'task' is {task!r}; expected a task or \"resample\"")
    return task


def step_info(mujoco: bool, out: Outcome) -> dict[str, Any]:
    """Return the entries that `info` holds after a step beside the task, (N,) each."""
    info = {"reward_" + name: x for name, x in out.terms.items()}
    info.update(out.metrics)
    if mujoco:
        info["diverged"] = out.diverged
    return info


def check_render_mode(mode: str | None) -> str | None:
    """Return a render mode that is known; ValueError for another."""
    if mode is not None and mode not in RENDER_MODES:
        raise ValueError(f"render_mode is {mode!r}; expected None or one of {', '.join(RENDER_MODES)}")
    return mode
