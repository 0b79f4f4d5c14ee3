"""The native batch environment: N rows, one task a row, as a `gymnasium.vector.VectorEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ClosedEnvironmentError, Error, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from kshot import random, registry
from kshot.engine import Engine, Outcome
from kshot.family import Variant
from kshot.rendering import Renderer
from kshot.single import KshotEnv, check_render_mode, configure, step_info, task_option
from kshot.tasks import check as check_task


class KshotVectorEnv(VectorEnv[np.ndarray, Any, np.ndarray]):
    """N rows of a task distribution; row i is bit for bit the single environment with seed + i.

    Tasks are drawn, pinned and restricted as by the single environment, a row at a time:
    `reset(options={"task": batch, "reset_mask": mask})` with a batch of N tasks or one task for all, or
    `"task": "resample"`.
    """

    metadata = KshotEnv.metadata

    def __init__(
        self,
        variant: str,
        num_envs: int = 1,
        split: str = "train",
        task: Any = None,
        tasks: Any = None,
        episodes_per_task: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        threads: int = 0,
    ) -> None:
        """Build the environments; `gym.make_vec(id, ...)` passes these arguments on.

        Args:
            variant: the variant's id.
            num_envs: number of rows N.
            split: whose law tasks are drawn from.
            task: tasks to pin: one for all rows, or a batch of N.
            tasks: restricts draws to these tasks: a list, a batch, or the path of a JSON file.
            episodes_per_task: draw a row's new task after so many of its episodes.
            autoreset_mode: Gymnasium's `AutoresetMode` or its value.
            max_episode_steps: truncates episodes; None for the variant's own time limit, -1 for none.
            render_mode: None, "rgb_array" or "human" (row 0).
            threads: physics threads, 0 for one a core; the results do not depend on it.
        """
        super().__init__()
        self.variant = registry.variant(variant)
        self.num_envs = num_envs
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {
            **self.metadata,
            "render_fps": self.variant.fps,
            "autoreset_mode": self.autoreset_mode,
        }
        self.render_mode = check_render_mode(render_mode)
        limit = _time_limit(self.variant, max_episode_steps)
        self.engine = Engine(self.variant, split, num_envs, threads=threads, limit=limit)
        configure(self.engine, tasks, episodes_per_task)
        if task is not None:
            self.engine.pin(None, check_task(self.variant, task, num_envs))
        self.single_observation_space = self.variant.observation_space
        self.single_action_space = self.variant.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._started = False
        self._all, self._nobody = np.ones(num_envs, bool), np.zeros(num_envs, bool)
        self._all.flags.writeable = self._nobody.flags.writeable = False
        self._done = self._nobody
        self._shown: tuple[Any, dict[str, np.ndarray]] | None = None  # the engine's tasks and read-only views of them
        self._renderer: Renderer | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the next episode of all rows, or of those in `options["reset_mask"]`.

        Args:
            seed: an int gives row i the seed + i; a sequence gives each row its own, None for none.
            options: {"task": …} pins tasks or resamples them, {"reset_mask": (N,) bool} resets some rows.
        """
        self._check_open()
        mask = _mask(self.variant.id, options, self.num_envs)
        asked = task_option(self.variant.id, options, "reset_mask")
        if mask is not None and not self._started:
            raise ResetNeeded(f"{self.variant.id}: the first reset must be of all rows, without 'reset_mask'")
        pinned = None if asked is None or isinstance(asked, str) else check_task(self.variant, asked, self.num_envs)
        self._reseed(mask, seed)  # from here on nothing is refused
        if isinstance(asked, str):
            self.engine.resample(mask)
        elif pinned is not None:
            self.engine.pin(mask, pinned)
        self.engine.begin(mask)
        self._started = True
        begun = self._all if mask is None else mask
        self._done = self._done & ~begun
        if self.render_mode == "human":
            self.render()
        return self.engine.observe(), self._with_task({}, begun)

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Move all rows by one step, and reset rows as the autoreset mode says.

        Raises:
            ActionError: for actions of the wrong shape or type, out of range or not finite.
            ResetNeeded: before the first reset, or with autoreset disabled where a row has ended.
        """
        self._check_open()
        if not self._started:
            raise ResetNeeded(f"{self.variant.id}: step before reset; call reset() first")
        action = self.engine.prepare(actions)
        # Rows that ended in the last step.
        waiting = None if self._done is self._nobody or not self._done.any() else self._done
        if waiting is not None and self.autoreset_mode is AutoresetMode.DISABLED:
            raise ResetNeeded(
                f"{self.variant.id}: rows {np.flatnonzero(waiting)[:5].tolist()} have ended; "
                "reset them with options={'reset_mask': mask}"
            )
        active = None if waiting is None or self.autoreset_mode is AutoresetMode.SAME_STEP else ~waiting
        if active is not None and not active.any():  # nothing to move
            self.engine.begin()
            self._done, reward = self._nobody, np.zeros(self.num_envs)
            if self.render_mode == "human":
                self.render()
            return self.engine.observe(), reward, ~self._all, ~self._all, self._with_task({}, self._all)
        out = self.engine.step(action, active)
        if active is None:
            return self._finish(out)
        self.engine.begin(waiting)
        terminated, truncated = out.terminated & active, out.truncated & active
        self._done = terminated | truncated
        infos = self._with_task(_masked(step_info(self.variant.body is not None, out), active), self._all)
        if self.render_mode == "human":
            self.render()
        return self.engine.observe(), np.where(active, out.reward, 0.0), terminated, truncated, infos

    def _finish(self, out: Outcome) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Return a step in which every row moved."""
        # The engine gives the same array for both where all rows agree: none ended, or all by both.
        done = out.terminated if out.terminated is out.truncated else out.terminated | out.truncated
        done = done if done.any() else self._nobody
        info = step_info(self.variant.body is not None, out)
        if self.render_mode == "human":
            self.render()
        if self.autoreset_mode is not AutoresetMode.SAME_STEP or done is self._nobody:
            self._done = done if self.autoreset_mode is not AutoresetMode.SAME_STEP else self._done
            infos = {}
            for name, x in info.items():
                infos[name], infos["_" + name] = x, self._all
            self._with_task(infos, self._all)
            return self.engine.observe(), out.reward, out.terminated.copy(), out.truncated.copy(), infos
        final_obs = np.full(self.num_envs, None, object)
        last = self.engine.observe()
        for i in np.flatnonzero(done):
            final_obs[i] = last[i]
        final_info = self._with_task(_masked(info, done), done)
        self.engine.begin(done)
        infos = self._with_task(_masked(info, ~done), self._all)
        infos.update(final_obs=final_obs, _final_obs=done, final_info=final_info, _final_info=done.copy())
        return self.engine.observe(), out.reward, out.terminated.copy(), out.truncated.copy(), infos

    def render(self) -> tuple[Any, ...] | None:
        """Return the pictures of all rows, (height, width, 3) uint8 each, or show row 0."""
        self._check_open()
        if self.render_mode is None or not self._started:
            raise ResetNeeded(f'{self.variant.id}: render() needs render_mode="rgb_array" or "human", and a reset')
        if self._renderer is None:
            self._renderer = Renderer(self.engine)
        if self.render_mode == "rgb_array":
            return tuple(self._renderer.picture(i) for i in range(self.num_envs))
        self._renderer.show(0, self.metadata["render_fps"])
        return None

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def get_state(self) -> dict[str, Any]:
        """Return everything that the rows' future depends on, as arrays."""
        return {"engine": self.engine.get_state(), "done": self._done.copy(), "started": self._started}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` of a batch of the same variant, split and size returned."""
        self._check_open()
        self.engine.set_state(state["engine"])
        self._done, self._started = np.array(state["done"]), bool(state["started"])

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError(f"{self.variant.id}: used after close; make a new environment")

    def _reseed(self, mask: np.ndarray | None, seed: Any) -> None:
        """Give rows the row seeds that single environments would take from these seeds."""
        if seed is None:
            if not self._started:
                self.engine.reseed(None, random.row_seeds(int(self.np_random.integers(2**63)), self.num_envs))
            return
        seeds = _seeds(self.variant.id, seed, self.num_envs)
        if not self._started and None in seeds:
            self.engine.reseed(None, random.row_seeds(int(self.np_random.integers(2**63)), self.num_envs))
        chosen = np.array([s is not None for s in seeds]) & (self._all if mask is None else mask)
        self.engine.reseed(chosen, random.gymnasium_row_seeds(s for s, here in zip(seeds, chosen, strict=True) if here))

    def _with_task(self, infos: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
        """Add every row's task to infos, shown where `mask`."""
        if self._shown is None or self._shown[0] is not self.engine.task:
            self._shown = self.engine.task, {k: _read_only(x) for k, x in self.engine.task._asdict().items()}
        fields = self._shown[1]
        if mask is not self._all and not mask.all():
            fields = {k: np.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, 0.0) for k, x in fields.items()}
        task = {}
        for name, x in fields.items():
            task[name], task["_" + name] = x, mask
        infos["task"], infos["_task"] = task, mask
        return infos


def _masked(info: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """Return entries with their masks, zero where not shown; none at all where nothing is."""
    if not mask.any():
        return {}
    return {
        k: v
        for name, x in info.items()
        for k, v in ((name, np.where(mask, x, np.zeros((), x.dtype))), (f"_{name}", mask))
    }


def _read_only(x: np.ndarray) -> np.ndarray:
    """Return a view that nobody can write the engine's arrays through."""
    view = x.view()
    view.flags.writeable = False
    return view


def _mask(who: str, options: dict[str, Any] | None, n: int) -> np.ndarray | None:
    """Return the checked option `reset_mask`; None for all rows."""
    mask = (options or {}).get("reset_mask")
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != (n,):
        raise ValueError(f"{who}: 'reset_mask' must be a NumPy array of {n} bools, got {mask!r}")
    if not mask.any():
        raise ValueError(f"{who}: 'reset_mask' names no row; give at least one True")
    return None if mask.all() else mask.copy()


def _seeds(who: str, seed: Any, n: int) -> list[int | None]:
    """Return the checked seeds of all rows."""
    each = seed if np.ndim(seed) else [seed + i for i in range(n)] if isinstance(seed, (int, np.integer)) else [seed]
    seeds: list[int | None] = []
    for s in each:
        if s is not None and (not isinstance(s, (int, np.integer)) or s < 0):
            raise Error(f"{who}: seed {s!r} is of type {type(s).__name__}; expected a whole number from 0, or None")
        seeds.append(None if s is None else int(s))
    if len(seeds) != n:
        raise ValueError(f"{who}: got {len(seeds)} seeds for {n} rows; give one a row")
    return seeds


def _time_limit(variant: Variant, steps: int | None) -> int | None:
    """Return the checked `max_episode_steps`, as Gymnasium understands it."""
    if steps is None:
        return variant.time_limit
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or (steps < 1 and steps != -1):
        raise ValueError(
            f"{variant.id}: max_episode_steps is {steps!r}; expected a whole number from 1, or -1 for none"
        )
    return None if steps == -1 else int(steps)


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    """Return the mode of a name ("same_step", "SameStep") or of the enum."""
    if isinstance(mode, AutoresetMode):
        return mode
    for known in AutoresetMode:
        if str(mode).lower().replace("_", "") in (
            known.name.lower().replace("_", ""),
            known.value.lower().replace("_", ""),
        ):
            return known
    raise ValueError(f"autoreset_mode is {mode!r}; expected one of {', '.join(m.name for m in AutoresetMode)}")
