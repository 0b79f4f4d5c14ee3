"""What moves the rows of an engine: closed forms with their noise, or a MuJoCo body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kshot import random
from kshot.arrays import Array, namespace, place, to_numpy
from kshot.family import Variant
from kshot.laws import Law
from kshot.physics.bodies import MjState
from kshot.physics.cpu import CpuPhysics

if TYPE_CHECKING:
    from kshot.engine import Engine

_TAPE_STEPS = 64  # steps of noise that NumPy draws at once: a call costs the same for one step as for many


class Dynamics(Protocol):
    """What moves the state."""

    state: Any
    initial_noise: int  # uniforms that a reset takes

    def reset(self, chosen: Array, u: Array, task: Any) -> None:
        """Start an episode in the chosen rows from uniforms (None for none) and tasks of the picked rows."""

    def set_task(self, chosen: Array, task: Any) -> None:
        """Take over the chosen rows' parts of all rows' tasks."""

    def step(self, action: Array, engine: Engine, active: Array | None) -> Array | None:
        """Move all rows, or the active ones; return which diverged, or None."""

    def get_state(self) -> dict[str, np.ndarray]:
        """Return everything that the future depends on."""

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Restore it."""


class Analytic:
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
        self._tape = np.zeros((self._steps, self._f.noise, n))  # rows last, as they are drawn fastest; NumPy only
        self._rows = np.arange(n)
        self._stale = np.ones(n, bool)

    def reset(self, chosen: Array, u: Array, task: Any) -> None:
        """Start an episode in the chosen rows."""
        new = self._f.initial(None if u is None else self._uniforms(u), task, self._c)
        # A new array each time: `before` of the last step, and whoever holds it, keep theirs.
        self.state = replaced(self.state, chosen, new)
        self._stale[chosen if self._numpy else slice(None)] = True

    def set_task(self, chosen: Array, task: Any) -> None:
        """Nothing to do: every step is given the tasks."""

    def step(self, action: Array, engine: Engine, active: Array | None) -> None:
        """Move the rows."""
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
        if not self._numpy:
            return self._uniforms(
                random.uniform(engine.seed, engine.episode, engine.clock, self._f.noise, random.TRANSITION)
            )
        if engine.together is None:
            column = engine.clock % self._steps
            self._record(engine, np.flatnonzero(self._stale | (column == 0)), column)
            return self._tape[column, :, self._rows]
        column = engine.together % self._steps
        if column == 0:
            self._record(engine, slice(None), column)
        return self._tape[column].copy().T

    def _record(self, engine: Engine, chosen: Array, column: Array) -> None:
        """Write the noise of the coming steps of the chosen rows on the tape."""
        seed, episode, start = engine.seed[chosen], engine.episode[chosen], (engine.clock - column)[chosen]
        if len(seed):
            noise = random.lanes(seed, episode, start, self._f.noise, random.TRANSITION, self._steps)
            self._tape[:, :, chosen] = noise.reshape(self._steps, self._f.noise, -1)
            self._stale[:] = False

    def _uniforms(self, u: Array) -> Array:
        """Return uniforms in the engine's floating type, still below 1."""
        return u if self._numpy else self._asarray(u).clip(max=1 - 2**-24)

    def get_state(self) -> dict[str, np.ndarray]:
        """Return the state; the tape can be drawn again."""
        return {name: to_numpy(x).copy() for name, x in self.state._asdict().items()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Restore it."""
        self.state = type(self.state)(**{name: self._asarray(np.array(x)) for name, x in state.items()})
        self._stale[:] = True


class Mujoco:
    """A MuJoCo body on the CPU; on torch, its states and actions cross to the device once a step."""

    def __init__(self, variant: Variant, n: int, engine: Engine, threads: int) -> None:
        assert variant.body is not None
        assert variant.reset_noise is not None
        self._family, self._noise = variant.family, variant.reset_noise
        self._asarray, self._numpy = engine.asarray, namespace(engine.seed) is np
        self.physics = CpuPhysics(variant.body, variant.frame_skip, n, threads)
        model = self.physics.model
        # At least one, so that the batch size is known.
        self.initial_noise = max(1, model.nq * self._noise.qpos.uniforms + model.nv * self._noise.qvel.uniforms)
        self._rows = np.arange(n)
        self._read()

    def _read(self) -> None:
        self._numpy_state = self.physics.snapshot()
        self.state = self._numpy_state if self._numpy else self._converted()

    def _converted(self) -> MjState:
        return MjState(*(self._asarray(x) if isinstance(x, np.ndarray) else x for x in self._numpy_state))

    def reset(self, chosen: Array, u: Array, task: Any) -> None:
        """Start an episode in the chosen rows."""
        numbers = self._numbers(chosen)
        u = u if namespace(u) is np else to_numpy(u)[numbers]
        nq, nv, k = self.physics.model.nq, self.physics.model.nv, self._noise.qpos.uniforms
        qpos = self.physics.model.qpos0 + _elements(self._noise.qpos, u[:, : nq * k], nq)
        if self._noise.origin:
            qpos[:, :2] = 0.0
        self.physics.reset(numbers, qpos, _elements(self._noise.qvel, u[:, nq * k :], nv))
        self._read()

    def set_task(self, chosen: Array, task: Any) -> None:
        """Give the chosen rows their model parameters."""
        if self._family.model_params is not None:
            numbers = self._numbers(chosen)
            chosen_tasks = type(task)(*(to_numpy(x)[numbers] for x in task))
            self.physics.set_params(numbers, self._family.model_params(chosen_tasks, self.physics.model))

    def _numbers(self, chosen: Array) -> np.ndarray:
        """Return the numbers of the chosen rows."""
        return self._rows[chosen] if self._numpy else np.flatnonzero(to_numpy(chosen))

    def step(self, action: Array, engine: Engine, active: Array | None) -> Array | None:
        """Move the rows; return which diverged, or None."""
        actuate, before = self._family.actuate, self._numpy_state
        ctrl = action if actuate is None else actuate(action, engine.task, engine.constants)
        if not self._numpy:
            ctrl, active = to_numpy(ctrl), None if active is None else to_numpy(active)
        diverged = self.physics.step(ctrl, active)
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
        """Return the simulations' state, and the read-outs, which lag behind it."""
        snapshot = {k: x.copy() for k, x in self._numpy_state._asdict().items() if isinstance(x, np.ndarray)}
        return {"physics": self.physics.get_state(), **snapshot}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Restore it."""
        self.physics.set_state(state["physics"])
        self._numpy_state = self._numpy_state._replace(**{k: np.array(x) for k, x in state.items() if k != "physics"})
        self.state = self._numpy_state if self._numpy else self._converted()


def _elements(law: Law, u: np.ndarray, count: int) -> np.ndarray:
    """Draw `count` independent numbers a row from a law of one, (n, count * uniforms) -> (n, count)."""
    return np.broadcast_to(
        law.sample(u.reshape(-1, law.uniforms)) if law.uniforms else law.sample(u[:, :0].repeat(count, 0)),
        (len(u) * count,),
    ).reshape(-1, count)


def replaced(old: Any, chosen: Array, new: Any) -> Any:
    """Return a NamedTuple of arrays with the chosen rows new; whoever holds the old one keeps it as it is."""
    numpy, some = namespace(old[0]) is np, not isinstance(chosen, slice)
    bases = ((x.copy() if some else np.empty_like(x)) if numpy else x for x in old)
    return type(old)(*(place(base, chosen, x) for base, x in zip(bases, new, strict=True)))
