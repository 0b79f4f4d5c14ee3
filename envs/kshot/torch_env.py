"""The batch environment as torch tensors on a device, for training."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import torch
from gymnasium.error import ResetNeeded

from kshot import random, registry, tasks
from kshot.engine import ActionError, Engine
from kshot.single import configure, step_info


class TorchEnv:
    """N rows of a task distribution as float32 tensors; each row agrees with the NumPy batch to rounding.

    Rows reset in the step that ends them (Gymnasium's SAME_STEP), so that no step is a ghost: `info` then
    holds the last observations as `final_obs`, meaningful where `done`. Analytic families never leave the
    device inside a step; MuJoCo families step on the CPU.
    """

    def __init__(
        self,
        variant: str,
        num_envs: int,
        device: str | torch.device = "cpu",
        *,
        split: str = "train",
        task: Any = None,
        tasks: Any = None,
        episodes_per_task: int | None = None,
        threads: int = 0,
    ) -> None:
        """Build the rows; see `KshotVectorEnv` for the arguments."""
        self.variant = registry.variant(variant)
        self.num_envs, self.device = num_envs, torch.device(device)
        self.engine = Engine(
            self.variant, split, num_envs, threads=threads, limit=self.variant.time_limit, device=self.device
        )
        configure(self.engine, tasks, episodes_per_task)
        if task is not None:
            self.set_task(task)
        self.single_observation_space = self.variant.observation_space
        self.single_action_space = self.variant.action_space
        self._started = False
        self._steps_left = 0  # before rows that run in step end together; known without asking the device
        self._ends_early = self.variant.family.terminated is not None or self.variant.body is not None

    def reset(self, seed: int | np.ndarray | None = None) -> torch.Tensor:
        """Start the next episode of all rows.

        Args:
            seed: gives row i the row seed of a single env with seed + i. An array, (N,) uint64, is the row seeds
                themselves, as `random.row_seeds` makes them of a run's seed.

        Returns:
            Observations, (N, k) float32.
        """
        if isinstance(seed, np.ndarray):
            self.engine.reseed(None, seed)
        elif seed is not None:
            self.engine.reseed(None, random.gymnasium_row_seeds(range(seed, seed + self.num_envs)))
        elif not self._started:
            self.engine.reseed(None, random.row_seeds(secrets.randbits(63), self.num_envs))
        self.engine.begin()
        self._started, self._steps_left = True, self.variant.horizon
        observation: torch.Tensor = self.engine.observe()
        return observation

    def step(
        self, action: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Move all rows by one step and reset those that end.

        Args:
            action: (N, …); float for a Box, where it is clipped, whole numbers for Discrete.

        Returns:
            observations (N, k), rewards, terminated, truncated (N,), and info: the reward terms, the
            family's metrics, and `final_obs` in a step that may have ended rows.
        """
        if not self._started:
            raise ResetNeeded(f"{self.variant.id}: step before reset; call reset() first")
        out = self.engine.step(self._prepare(action))
        info = step_info(self.variant.body is not None, out)
        if "diverged" in info:
            info["diverged"] = info["diverged"].clone()
        self._steps_left -= 1
        if self._ends_early or self._steps_left == 0:
            info["final_obs"] = self.engine.observe()
            self._restart(out.terminated | out.truncated)
        # Copies: the engine may share its flags.
        return self.engine.observe(), out.reward, out.terminated.clone(), out.truncated.clone(), info

    def set_task(self, task: Any) -> None:
        """Pin tasks, at once and also within episodes: one for all rows, or a batch of N."""
        self.engine.pin(None, tasks.check(self.variant, task, self.num_envs))

    def resample(self) -> None:
        """Unpin tasks; every row draws one at its next episode."""
        self.engine.resample()

    @property
    def task(self) -> Any:
        """The rows' tasks, a NamedTuple of tensors: for oracles and pictures, never for an agent."""
        return self.engine.task

    def get_state(self) -> dict[str, Any]:
        """Return everything that the rows' future depends on, as NumPy arrays."""
        return {"engine": self.engine.get_state(), "started": self._started, "steps_left": self._steps_left}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` of an env of the same variant, split and size returned."""
        self.engine.set_state(state["engine"])
        self._started, self._steps_left = bool(state["started"]), int(state["steps_left"])

    def _restart(self, done: torch.Tensor) -> None:
        """Begin the next episode where done."""
        if not self._ends_early:
            self.engine.begin()  # all rows run in step: every one has ended
            self._steps_left = self.variant.horizon
        elif self.device.type != "cpu" or bool(done.any()):  # on the CPU asking is cheap, on a device it waits
            self.engine.begin(done)

    def _prepare(self, action: torch.Tensor) -> torch.Tensor:
        """Check shape and type, without asking the device for values, and clip."""
        who, expected = self.variant.id, (self.num_envs, *(self.single_action_space.shape or ()))
        if not isinstance(action, torch.Tensor):
            raise ActionError(f"{who}: got actions of type {type(action).__name__}; expected a torch tensor")
        if tuple(action.shape) != expected:
            raise ActionError(f"{who}: got actions of shape {tuple(action.shape)}; expected {expected}")
        discrete = self.engine.low is None
        if action.is_complex() or (discrete and (action.is_floating_point() or action.dtype is torch.bool)):
            raise ActionError(
                f"{who}: got actions of type {action.dtype}; expected {'whole' if discrete else 'real'} numbers"
            )
        if action.device.type == "cpu":  # asking costs nothing there
            self._check_values(action)
        action = action.detach()  # the environment is no part of anybody's graph
        if discrete:
            return action.to(self.device, torch.int64)
        return action.to(self.device, torch.float32).clip(self.engine.low, self.engine.high)

    def _check_values(self, action: torch.Tensor) -> None:
        """Refuse actions on the CPU that are out of range or not finite."""
        if self.engine.low is not None:
            bad = (~torch.isfinite(action)).flatten(1).any(1).nonzero().flatten().tolist()
            if bad:
                raise ActionError(f"{self.variant.id}: the actions hold NaN or infinity, first in row {bad[0]}")
            return
        last = self.single_action_space.n - 1  # type: ignore[attr-defined]
        if bool((action < 0).any()) or bool((action > last).any()):
            low, high = int(action.min()), int(action.max())
            raise ActionError(f"{self.variant.id}: got actions from {low} to {high}; expected 0 … {last}")
