"""The batch engine: N rows of one variant and split, each with its own task, seed and clock.

The adapters (`single.py`, `vector.py`, `torch_env.py`) and `evaluate` only move data in and out of it. It
runs on NumPy arrays (float64) or on torch tensors of a device (float32); a row's trajectory depends on its
seed, task and actions, never on the other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from kshot import random, tasks
from kshot.arrays import Array, namespace, pick, place, to_numpy
from kshot.dynamics import Analytic, Dynamics, Mujoco, replaced
from kshot.family import Variant
from kshot.laws import sample_joint, uniforms_of
from kshot.physics.cpu import CpuPhysics


class ActionError(ValueError):
    """An action that the variant does not accept."""


class Outcome(NamedTuple):
    """What one step gave; arrays of N rows, the flags possibly shared and read-only."""

    reward: Array
    terms: dict[str, Array]  # their sum is the reward
    metrics: dict[str, Array]
    terminated: Array
    truncated: Array
    diverged: Array  # the simulation blew up: its last sound state stands, and the episode is truncated


class Engine:
    """N rows of a variant on one split."""

    def __init__(
        self, variant: Variant, split: str, n: int, *, threads: int = 0, limit: int | None = None, device: Any = None
    ) -> None:
        """Build the rows; `begin` starts them.

        Args:
            variant: the task distribution.
            split: whose law tasks are drawn from.
            n: number of rows.
            threads: physics threads, 0 for one a core.
            limit: steps after which an episode is truncated; None for never, but a horizon that is part of the
                problem terminates all the same.
            device: None for NumPy, else a torch device.
        """
        if n < 1 or threads < 0:
            raise ValueError(f"{variant.id}: expected at least one row and no negative threads, got {n} and {threads}")
        self.variant, self.split, self.n, self.limit = variant, split, n, limit
        self._built = {"threads": threads, "limit": limit, "device": device}
        self.law = variant.split(split).law
        self.constants = variant.constants_on(split)
        self.pool: Any = None  # tasks that draws are restricted to
        self.episodes_per_task: int | None = None
        self.asarray = _converter(device)
        self.seed = self.asarray(np.zeros(n, np.uint64))
        self.episode = self.asarray(np.full(n, -1))
        self._clock = self.asarray(np.zeros(n, np.int64))
        self.together: int | None = None  # the clock of all rows where they are known to run in step; NumPy only
        self.pinned = self.asarray(np.zeros(n, bool))
        self.drawn = self.asarray(np.full(n, -1))  # episode in which the row's task was drawn, -1: none yet
        fields = {name: np.zeros((n, *law.shape)) for name, law in variant.train.items()}
        self.task = variant.family.task(**{name: self.asarray(x) for name, x in fields.items()})
        self._dynamics: Dynamics = (
            Analytic(variant, n, self) if variant.body is None else Mujoco(variant, n, self, threads)
        )
        self._action_shape = (n, *(variant.action_space.shape or ()))
        box = variant.action_space if isinstance(variant.action_space, spaces.Box) else None
        self.low: Array = None if box is None else self._bound(box.low)
        self.high: Array = None if box is None else self._bound(box.high)
        # Of all numbers of one row, where they have the same.
        self._range: tuple[float, float] | None = None
        if n == 1 and box is not None and len(box.shape) == 1 and (box.low == box.low[0]).all():
            self._range = float(box.low[0]), float(box.high[0])
        self._one = self.asarray(np.ones(1, np.int64))  # NumPy adds it faster than a Python int
        self._false, self._true = self.pinned & False, self.pinned | True  # shared: not to be written to
        if namespace(self._false) is np:
            self._false.flags.writeable = self._true.flags.writeable = False

    # --- episodes -----------------------------------------------------------------------------------------

    def begin(self, mask: Array | None = None) -> None:
        """Start the next episode in all rows or where `mask`, with a new task where one is due."""
        if mask is not None and namespace(mask) is np and mask.all():
            mask = None
        chosen = self._chosen(mask)
        self.episode = place(self.episode, chosen, pick(self.episode, chosen) + 1)
        if mask is None and namespace(self.seed) is np:
            self.together = 0
        else:
            self.clock = place(self.clock, chosen, pick(self.clock, chosen) * 0)
        due = self.drawn < 0
        if self.episodes_per_task is not None:
            due = due | (self.episode - self.drawn >= self.episodes_per_task)
        due = due & ~self.pinned
        if mask is not None:
            due = due & mask
        if namespace(due) is not np or due.any():
            self._draw(self._chosen(due))
        seed, episode, clock = (pick(x, chosen) for x in (self.seed, self.episode, self.clock))
        count = self._dynamics.initial_noise
        u = random.uniform(seed, episode, clock, count, random.INITIAL_STATE) if count else None
        self._dynamics.reset(chosen, u, type(self.task)(*(pick(x, chosen) for x in self.task)))

    def reseed(self, mask: Array | None, seeds: np.ndarray) -> None:
        """Give the rows in `mask` new seeds, (n,): their next episode is number 0, with a new task unless pinned."""
        chosen = self._chosen(mask)
        full = np.zeros(self.n, np.uint64)
        full[slice(None) if mask is None else to_numpy(mask)] = seeds
        self.seed = place(self.seed, chosen, pick(self.asarray(full), chosen))
        self.episode = place(self.episode, chosen, pick(self.episode, chosen) * 0 - 1)
        self.drawn = place(self.drawn, chosen, pick(self.drawn, chosen) * 0 - 1)

    def seat(self, seeds: np.ndarray, episode: np.ndarray, task: Any) -> None:
        """Fix every row's seed, task and the number of the episode that `begin` starts next."""
        self.reseed(None, seeds)
        self.pin(None, task)
        self.episode = self.asarray(np.asarray(episode, np.int64) - 1)

    def pin(self, mask: Array | None, task: Any) -> None:
        """Fix the tasks of rows to those of a checked batch of N, against draws and seeds."""
        self._set_task(self._chosen(mask), type(task)(*(self.asarray(x) for x in task)))
        self.pinned = self.pinned | (True if mask is None else mask)
        self.drawn = place(self.drawn, self._chosen(mask), pick(self.episode, self._chosen(mask)) + 1)

    def resample(self, mask: Array | None = None) -> None:
        """Unpin rows, and have `begin` draw their tasks anew."""
        chosen = self._chosen(mask)
        self.pinned = place(self.pinned, chosen, pick(self.pinned, chosen) & False)
        self.drawn = place(self.drawn, chosen, pick(self.drawn, chosen) * 0 - 1)

    def _draw(self, chosen: Array) -> None:
        seed, episode = pick(self.seed, chosen), pick(self.episode, chosen)
        use = tasks.purpose(random.EPISODE_TASKS, self.split)
        u = random.uniform(seed, episode, episode * 0, uniforms_of(self.law), use)
        if self.pool is not None:
            size = len(self.pool[0])
            index = to_numpy(u[:, 0] * size).astype(np.int64)
            drawn = {name: x[index] for name, x in self.pool._asdict().items()}
        else:
            drawn = sample_joint(self.law, u)
        fields = {name: self.asarray(drawn[name]) for name in self.variant.train}
        self._set_task(chosen, type(self.task)(**fields), picked=True)
        self.drawn = place(self.drawn, chosen, episode)

    def _set_task(self, chosen: Array, task: Any, picked: bool = False) -> None:
        new = task if picked else type(task)(*(pick(x, chosen) for x in task))
        self.task = replaced(self.task, chosen, new)
        self._dynamics.set_task(chosen, self.task)

    # --- steps --------------------------------------------------------------------------------------------

    def step(self, action: Array, active: Array | None = None) -> Outcome:
        """Move all rows, or the active ones, by one step.

        Args:
            action: (N, …), as `prepare` returns it.
            active: (N,) bool; the other rows stay as they are, and what is returned for them means nothing.
        """
        family, c, task = self.variant.family, self.constants, self.task
        before = self._dynamics.state
        diverged = self._dynamics.step(action, self, active)
        after = self._dynamics.state
        if self.together is not None and active is None:
            self.together += 1
        else:
            self.clock = self.clock + (self._one if active is None else active)
        shared = () if family.shared is None else (family.shared(before, after, task, c),)
        terms = family.reward_terms(before, action, after, task, c, *shared)
        first, *others = terms.values()
        reward = first if others else first + 0.0  # its own array
        for term in others:
            reward = reward + term
        metrics = {} if family.metrics is None else family.metrics(before, after, task, c, *shared)
        terminated = self._false if family.terminated is None else family.terminated(after, task, c)
        truncated = self._false
        if self.variant.horizon_terminates:
            reached = self._reached(self.variant.horizon)
            terminated = reached if family.terminated is None else terminated | reached
        if self.limit is not None:
            truncated = self._reached(self.limit)
        if diverged is None:
            return Outcome(reward, terms, metrics, terminated, truncated, self._false)
        return Outcome(reward, terms, metrics, terminated & ~diverged, truncated | diverged, diverged)

    def _reached(self, steps: int) -> Array:
        """Tell which rows' episodes have taken so many steps."""
        if self.together is None:
            return self.clock >= steps
        return self._true if self.together >= steps else self._false

    def observe(self) -> Array:
        """Return what the agent sees of every row, (N, k), sharing no memory with the state."""
        return self.variant.observe(self._dynamics.state)

    def prepare(self, action: Any) -> Array:
        """Check a batch of actions and return it clipped to the action space: int64, or float64 from float32.

        Raises:
            ActionError: naming what is wrong with shape, type or values.
        """
        if self.low is None:
            return self._prepare_discrete(action)
        x = self._array(action, "numbers", "fiu")
        if self._range is not None:  # for a few numbers Python is faster
            low, high = self._range
            for v in x[0].tolist():
                if not low <= v <= high:
                    break
            else:
                return x.astype(np.float32, copy=False).astype(np.float64)
        if not math.isfinite(np.vdot(x, x)) and not np.isfinite(x).all():  # the first overflows on huge numbers
            row = np.flatnonzero(~np.isfinite(x).reshape(self.n, -1).all(1))[0]
            raise ActionError(f"{self.variant.id}: the actions hold NaN or infinity, first in row {row}: {x[row]}")
        return x.clip(self.low, self.high).astype(np.float32, copy=False).astype(np.float64)

    def _array(self, action: Any, expected: str, kinds: str) -> np.ndarray:
        """Return actions as an array of numbers of the right shape."""
        try:
            x = np.asarray(action)
            if x.shape == self._action_shape and x.dtype.kind in kinds:
                return x
            x = x.astype(np.float64) if x.dtype.kind == "O" and "f" in kinds and None not in x else x
        except (TypeError, ValueError) as error:
            raise ActionError(self._refusal(action, "", expected)) from error
        if x.dtype.kind not in kinds:
            raise ActionError(self._refusal(action, f" of type {x.dtype}", expected))
        if x.shape != self._action_shape:
            got, shape = (x.shape, self._action_shape) if self.n > 1 else (x.shape[1:], self._action_shape[1:])
            raise ActionError(f"{self.variant.id}: got actions of shape {got}; expected {shape}")
        return x

    def _refusal(self, action: Any, what: str, expected: str) -> str:
        shown = repr(action[0] if self.n == 1 and isinstance(action, tuple) else action)
        shown = shown if len(shown) <= 80 else shown[:77] + "…"
        shape = self._action_shape[self.n == 1 :]
        return f"{self.variant.id}: got actions {shown}{what}; expected {expected} of shape {shape}"

    def _bound(self, x: np.ndarray) -> Array:
        """Return a bound of actions: one number, or of the full shape; broadcast, NumPy clips ten times slower."""
        bound = x.ravel()[:1].reshape(()) if (x == x.flat[0]).all() else np.full(self._action_shape, x)
        return self.asarray(bound.astype(np.float32))

    def _prepare_discrete(self, action: Any) -> np.ndarray:
        last = self.variant.action_space.n - 1  # type: ignore[attr-defined]
        x = self._array(action, f"whole numbers 0 … {last}", "iu")
        index = x.astype(np.int64)
        if index.view(np.uint64).max() > last:  # a negative number is a huge one there
            raise ActionError(f"{self.variant.id}: got actions from {x.min()} to {x.max()}; expected 0 … {last}")
        return index

    @property
    def clock(self) -> Array:
        """How many steps each row's episode has taken, (N,)."""
        return self._clock if self.together is None else np.full(self.n, self.together)

    @clock.setter
    def clock(self, clock: Array) -> None:
        self._clock, self.together = clock, None

    @property
    def state(self) -> Any:
        """The state that family functions see."""
        return self._dynamics.state

    def physics(self) -> CpuPhysics | None:
        """The physics engine, None for analytic families."""
        return self._dynamics.physics if isinstance(self._dynamics, Mujoco) else None

    def get_state(self) -> dict[str, Any]:
        """Return everything that the rows' future depends on, as NumPy arrays."""
        own = {name: to_numpy(getattr(self, name)).copy() for name in _OWN}
        return {
            "variant": self.variant.id,
            "split": self.split,
            **own,
            "task": {k: to_numpy(x).copy() for k, x in self.task._asdict().items()},
            "dynamics": self._dynamics.get_state(),
        }

    def __reduce__(self) -> Any:
        # Pickles and copies are built anew and put into this state: physics engines cannot be copied themselves.
        return _rebuilt, (
            self.variant.id,
            self.split,
            self.n,
            self._built,
            self.get_state(),
            self.pool,
            self.episodes_per_task,
        )

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` of an engine of the same variant, split and size returned."""
        got = state["variant"], state["split"], len(state["seed"])
        if got != (self.variant.id, self.split, self.n):
            raise ValueError(
                f"a state of {got[0]} {got[1]} with {got[2]} rows does not fit "
                f"{self.variant.id} {self.split} with {self.n}"
            )
        self._set_task(self._chosen(None), type(self.task)(**{k: self.asarray(x) for k, x in state["task"].items()}))
        for name in _OWN:
            setattr(self, name, self.asarray(np.array(state[name])))
        self._dynamics.set_state(state["dynamics"])

    def _chosen(self, mask: Array | None) -> Array:
        """Return row numbers, `slice(None)` for all (NumPy), or a mask (torch) for `pick` and `place`."""
        if namespace(self.seed) is np:
            return slice(None) if mask is None else np.flatnonzero(mask)
        return namespace(self.seed).ones_like(self.pinned) if mask is None else mask


_OWN = ("seed", "episode", "clock", "pinned", "drawn")  # the engine's own state, beside tasks and dynamics


def _rebuilt(id: str, split: str, n: int, built: dict[str, Any], state: Any, pool: Any, per_task: int | None) -> Engine:
    """Return an engine in a state; what an engine is pickled as."""
    from kshot.registry import variant

    engine = Engine(variant(id), split, n, **built)
    engine.pool, engine.episodes_per_task = pool, per_task
    engine.set_state(state)
    return engine


def _converter(device: Any) -> Callable[[Any], Array]:
    """Return the function that brings an array or tensor to where the engine computes, in its types."""
    if device is None:
        return lambda x: x
    import torch

    def convert(x: Any) -> Array:
        if isinstance(x, np.ndarray):
            x = torch.from_numpy(np.array(x.astype(np.int64) if x.dtype == np.uint64 else x))
        return x.to(device, torch.float32 if x.is_floating_point() else x.dtype)

    return convert
