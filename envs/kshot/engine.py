"""The batch engine: N rows of one variant and split, each with its own task, seed and clock.

The adapters (`single.py`, `vector.py`, `torch_env.py`) and `evaluate` only move data in and out of it. It
runs on NumPy arrays (float64) or on torch tensors of a device (float32); a row's trajectory depends on its
seed, task and actions, never on the other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from kshot import random, tasks
from kshot.arrays import Array, namespace, pick, place, rows, to_numpy
from kshot.family import Variant
from kshot.laws import Law, sample_joint, uniforms_of
from kshot.physics.bodies import MjState
from kshot.physics.cpu import CpuPhysics

_TAPE_STEPS = 64  # steps of noise that NumPy draws at once: a call costs the same for one step as for many


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


class Dynamics(Protocol):
    """What moves the state."""

    state: Any
    initial_noise: int  # uniforms that a reset takes

    def reset(self, chosen: Array, u: Array, task: Any) -> None:
        """Start an episode in the chosen rows from uniforms and tasks of the picked rows."""

    def set_task(self, chosen: Array, task: Any) -> None:
        """Take over the chosen rows' parts of all rows' tasks."""

    def step(self, action: Array, engine: Engine, active: Array | None) -> Array | None:
        """Move all rows, or the active ones; return which diverged, or None."""

    def get_state(self) -> dict[str, np.ndarray]:
        """Return everything that the future depends on."""

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Restore it."""


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
            limit: steps after which an episode is truncated; None for never. A horizon that is part of the
                problem terminates whatever the limit.
            device: None for NumPy, else a torch device.
        """
        if n < 1:
            raise ValueError(f"{variant.id}: expected at least one row, got {n}")
        self.variant, self.split, self.n, self.limit = variant, split, n, limit
        self.law = variant.split(split).law
        self.constants = variant.constants_on(split)
        self.pool: Any = None  # tasks that draws are restricted to
        self.episodes_per_task: int | None = None
        self.asarray = _converter(device)
        self.seed = self.asarray(np.zeros(n, np.uint64))
        self.episode = self.asarray(np.full(n, -1))
        self.clock = self.asarray(np.zeros(n, np.int64))
        self.pinned = self.asarray(np.zeros(n, bool))
        self.drawn = self.asarray(np.full(n, -1))  # episode in which the row's task was drawn, -1: none yet
        fields = {name: np.zeros((n, *law.shape)) for name, law in variant.train.items()}
        self.task = variant.family.task(**{name: self.asarray(x) for name, x in fields.items()})
        self._dynamics: Dynamics = (
            _Analytic(variant, n, self) if variant.body is None else _Mujoco(variant, n, self, threads)
        )
        box = variant.action_space if isinstance(variant.action_space, spaces.Box) else None
        self.low = None if box is None else self.asarray(box.low.astype(np.float64))
        self.high = None if box is None else self.asarray(box.high.astype(np.float64))
        self._action_shape = (n, *(variant.action_space.shape or ()))
        self._rows = rows(self.seed)
        self._one = self.asarray(np.ones(1, np.int64))  # NumPy adds it faster than a Python int
        self._false = self.pinned & False  # shared: not to be written to
        if namespace(self._false) is np:
            self._false.flags.writeable = False

    # --- episodes -----------------------------------------------------------------------------------------

    def begin(self, mask: Array | None = None) -> None:
        """Start the next episode in all rows or where `mask`, with a new task where one is due."""
        chosen = self._chosen(mask)
        self.episode = place(self.episode, chosen, pick(self.episode, chosen) + 1)
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
        u = random.uniform(seed, episode, clock, max(1, self._dynamics.initial_noise), random.INITIAL_STATE)
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
        # Copied first: whoever was shown the old tasks keeps them.
        copies = (old.copy() if namespace(old) is np else old for old in self.task)
        self.task = type(task)(*(place(old, chosen, x) for old, x in zip(copies, new, strict=True)))
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
        self.clock = self.clock + (self._one if active is None else active)
        terms = family.reward_terms(before, action, after, task, c)
        first, *others = terms.values()
        reward = first if others else first + 0.0  # its own array
        for term in others:
            reward = reward + term
        metrics = {} if family.metrics is None else family.metrics(before, after, task, c)
        terminated = self._false if family.terminated is None else family.terminated(after, task, c)
        truncated = self._false
        if self.variant.horizon_terminates:
            terminated = terminated | (self.clock >= self.variant.horizon)
        elif self.limit is not None:
            truncated = self.clock >= self.limit
        if diverged is None:
            return Outcome(reward, terms, metrics, terminated, truncated, self._false)
        return Outcome(reward, terms, metrics, terminated & ~diverged, truncated | diverged, diverged)

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
        try:
            x = np.asarray(action, np.float32)
        except (TypeError, ValueError) as error:
            raise ActionError(f"{self.variant.id}: got actions {action!r}; expected real numbers") from error
        self._check_shape(x)
        if not math.isfinite(np.vdot(x, x)) and not np.isfinite(x).all():  # the first overflows on huge numbers
            row = np.flatnonzero(~np.isfinite(x).reshape(self.n, -1).all(1))[0]
            raise ActionError(f"{self.variant.id}: the actions hold NaN or infinity, first in row {row}: {x[row]}")
        return x.astype(np.float64).clip(self.low, self.high)

    def _prepare_discrete(self, action: Any) -> np.ndarray:
        x, last = np.asarray(action), self.variant.action_space.n - 1  # type: ignore[attr-defined]
        self._check_shape(x)
        if x.dtype.kind not in "iu":
            raise ActionError(f"{self.variant.id}: got actions of type {x.dtype}; expected whole numbers 0 … {last}")
        if x.min() < 0 or x.max() > last:
            raise ActionError(f"{self.variant.id}: got actions from {x.min()} to {x.max()}; expected 0 … {last}")
        return x.astype(np.int64)

    def _check_shape(self, x: np.ndarray) -> None:
        if x.shape != self._action_shape:
            raise ActionError(f"{self.variant.id}: got actions of shape {x.shape}; expected {self._action_shape}")

    @property
    def state(self) -> Any:
        """The state that family functions see."""
        return self._dynamics.state

    def physics(self) -> CpuPhysics | None:
        """The physics engine, None for analytic families."""
        return self._dynamics.physics if isinstance(self._dynamics, _Mujoco) else None

    def get_state(self) -> dict[str, Any]:
        """Return everything that the rows' future depends on, as NumPy arrays."""
        own = {name: to_numpy(getattr(self, name)).copy() for name in _OWN}
        return {
            **own,
            "task": {k: to_numpy(x).copy() for k, x in self.task._asdict().items()},
            "dynamics": self._dynamics.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` of an engine of the same variant, split and size returned."""
        if len(state["seed"]) != self.n:
            raise ValueError(f"{self.variant.id}: the state has {len(state['seed'])} rows, this batch {self.n}")
        self._set_task(self._chosen(None), type(self.task)(**{k: self.asarray(x) for k, x in state["task"].items()}))
        for name in _OWN:
            setattr(self, name, self.asarray(np.array(state[name])))
        self._dynamics.set_state(state["dynamics"])

    def _chosen(self, mask: Array | None) -> Array:
        """Return row numbers (NumPy) or a mask (torch) for `pick` and `place`."""
        if namespace(self.seed) is np:
            return self._rows if mask is None else np.flatnonzero(mask)
        return namespace(self.seed).ones_like(self.pinned) if mask is None else mask


_OWN = ("seed", "episode", "clock", "pinned", "drawn")  # the engine's own state, beside tasks and dynamics


class _Analytic:
    """Dynamics in closed form, with the noise of the coming steps on a tape."""

    def __init__(self, variant: Variant, n: int, engine: Engine) -> None:
        assert variant.family.analytic is not None
        self._f, self._c = variant.family.analytic, engine.constants
        self.initial_noise = self._f.initial_noise
        self._asarray = engine.asarray
        example = variant.example_state()
        self.state = type(example)(*(self._asarray(np.repeat(x, n, 0)) for x in example))
        self._numpy = namespace(self.state[0]) is np
        self._steps = min(_TAPE_STEPS, variant.horizon)
        self._tape = np.zeros((n, self._steps, self._f.noise)) if self._numpy else None
        self._rows = np.arange(n)
        self._stale = np.ones(n, bool)

    def reset(self, chosen: Array, u: Array, task: Any) -> None:
        new = self._f.initial(self._uniforms(u), task, self._c)
        # A new array each time: `before` of the last step, and whoever holds it, keep theirs.
        fields = (place(old.copy() if self._numpy else old, chosen, x) for old, x in zip(self.state, new, strict=True))
        self.state = type(self.state)(*fields)
        self._stale[chosen if self._numpy else slice(None)] = True

    def set_task(self, chosen: Array, task: Any) -> None:
        pass

    def step(self, action: Array, engine: Engine, active: Array | None) -> None:
        new = self._f.transition(self.state, action, self._noise(engine), engine.task, self._c)
        if active is not None:
            fields = zip(new, self.state, strict=True)
            xp = namespace(active)
            new = type(new)(*(xp.where(active.reshape(-1, *[1] * (x.ndim - 1)), x, old) for x, old in fields))
        self.state = new

    def _noise(self, engine: Engine) -> Array:
        """Return this step's uniforms, (N, noise)."""
        if self._f.noise == 0:
            return None
        if self._tape is None:
            return self._uniforms(
                random.uniform(engine.seed, engine.episode, engine.clock, self._f.noise, random.TRANSITION)
            )
        column = engine.clock % self._steps
        stale = self._stale | (column == 0)
        if stale.any():
            chosen = np.flatnonzero(stale)
            start = engine.clock[chosen] - column[chosen]
            self._tape[chosen] = random.uniform(
                engine.seed[chosen], engine.episode[chosen], start, self._f.noise, random.TRANSITION, self._steps
            ).reshape(len(chosen), self._steps, self._f.noise)
            self._stale[:] = False
        return self._tape[self._rows, column]

    def _uniforms(self, u: Array) -> Array:
        """Return uniforms in the engine's floating type, still below 1."""
        return u if self._numpy else self._asarray(u).clip(max=1 - 2**-24)

    def get_state(self) -> dict[str, np.ndarray]:
        return {name: to_numpy(x).copy() for name, x in self.state._asdict().items()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        self.state = type(self.state)(**{name: self._asarray(np.array(x)) for name, x in state.items()})
        self._stale[:] = True


class _Mujoco:
    """A MuJoCo body on the CPU; on torch, its states and actions cross to the device once a step."""

    def __init__(self, variant: Variant, n: int, engine: Engine, threads: int) -> None:
        assert variant.body is not None
        assert variant.reset_noise is not None
        self._family, self._noise = variant.family, variant.reset_noise
        self._asarray, self._numpy = engine.asarray, namespace(engine.seed) is np
        self.physics = CpuPhysics(variant.body, variant.frame_skip, n, threads)
        model = self.physics.model
        self.initial_noise = model.nq * self._noise.qpos.uniforms + model.nv * self._noise.qvel.uniforms
        self._read()

    def _read(self) -> None:
        self._numpy_state = self.physics.snapshot()
        self.state = self._numpy_state if self._numpy else self._converted()

    def _converted(self) -> MjState:
        return MjState(*(self._asarray(x) if isinstance(x, np.ndarray) else x for x in self._numpy_state))

    def reset(self, chosen: Array, u: Array, task: Any) -> None:
        numbers = _numbers(chosen)
        u = u if namespace(u) is np else to_numpy(u)[numbers]
        nq, nv, k = self.physics.model.nq, self.physics.model.nv, self._noise.qpos.uniforms
        qpos = self.physics.model.qpos0 + _elements(self._noise.qpos, u[:, : nq * k], nq)
        if self._noise.origin:
            qpos[:, :2] = 0.0
        self.physics.reset(numbers, qpos, _elements(self._noise.qvel, u[:, nq * k :], nv))
        self._read()

    def set_task(self, chosen: Array, task: Any) -> None:
        if self._family.model_params is not None:
            numbers = _numbers(chosen)
            chosen_tasks = type(task)(*(to_numpy(x)[numbers] for x in task))
            self.physics.set_params(numbers, self._family.model_params(chosen_tasks, self.physics.model))

    def step(self, action: Array, engine: Engine, active: Array | None) -> Array | None:
        ctrl = action if self._family.actuate is None else self._family.actuate(action, engine.task, engine.constants)
        mask = None if active is None else to_numpy(active)
        before = self._numpy_state
        diverged = self.physics.step(to_numpy(ctrl), mask)
        self._read()
        if diverged is None:
            return None
        self._restore(diverged, before)
        return self._asarray(diverged)

    def _restore(self, diverged: np.ndarray, before: MjState) -> None:
        """Put diverged rows back to their last sound state, so that nothing unsound is ever seen."""
        chosen = np.flatnonzero(diverged)
        self.physics.reset(chosen, before.qpos[chosen], before.qvel[chosen])
        self._read()

    def get_state(self) -> dict[str, np.ndarray]:
        snapshot = {k: x.copy() for k, x in self._numpy_state._asdict().items() if isinstance(x, np.ndarray)}
        return {"physics": self.physics.get_state(), **snapshot}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        self.physics.set_state(state["physics"])
        self._numpy_state = self._numpy_state._replace(**{k: np.array(x) for k, x in state.items() if k != "physics"})
        self.state = self._numpy_state if self._numpy else self._converted()


def _elements(law: Law, u: np.ndarray, count: int) -> np.ndarray:
    """Draw `count` independent numbers a row from a law of one, (n, count * uniforms) -> (n, count)."""
    return np.broadcast_to(
        law.sample(u.reshape(-1, law.uniforms)) if law.uniforms else law.sample(u[:, :0].repeat(count, 0)),
        (len(u) * count,),
    ).reshape(-1, count)


def _numbers(chosen: Array) -> np.ndarray:
    """Return the numbers of the chosen rows."""
    return chosen if namespace(chosen) is np else np.flatnonzero(to_numpy(chosen))


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
