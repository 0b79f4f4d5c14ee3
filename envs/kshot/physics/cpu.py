"""N simulations of one body in C MuJoCo, on all cores, through `mujoco.batch`."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import mujoco
import numpy as np
from mujoco.batch import Batch

from kshot.physics.bodies import Body, MjState

# MuJoCo resets a simulation that raises one of these and goes on; we end its episode.
_log = logging.getLogger(__name__)
if mujoco.get_mju_user_warning() is None:
    # MuJoCo's own handler prints, and writes MUJOCO_LOG.TXT into the working directory.
    mujoco.set_mju_user_warning(lambda text: _log.info(text))
_DIVERGENCE = [
    int(w)
    for w in (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
]


class CpuPhysics:
    """N simulations; a simulation's trajectory does not depend on N, nor on the number of threads."""

    def __init__(self, body: Body, frame_skip: int, n: int, threads: int = 0) -> None:
        """Compile the body.

        Args:
            body: the robot.
            frame_skip: physics steps an env step.
            n: number of simulations.
            threads: 0 for one a core.
        """
        self.model = body.compile()
        self.dt = np.array([self.model.opt.timestep * frame_skip])  # NumPy divides faster by an array than by a float
        self._frame_skip = frame_skip
        self._current = body.current
        self._batch = Batch(self.model, n, 1 if n == 1 else threads)
        self._qpos, self._qvel, self._ctrl = (self._batch.bind(f) for f in ("qpos", "qvel", "ctrl"))
        torso = self.model.body("torso").id
        views = {
            "torso": lambda: self._batch.bind("xpos")[:, torso],
            "rotation": lambda: self._batch.bind("xmat")[:, torso],
            "com": lambda: self._batch.bind("subtree_com")[:, torso],
            "com_velocity": lambda: self._batch.bind("subtree_linvel")[:, torso],
            "contact": lambda: self._batch.bind("cfrc_ext"),
        }
        self._readouts = {name: views[name]() for name in body.readouts}
        self._warnings = self._batch.warning[:, _DIVERGENCE[0] : _DIVERGENCE[-1] + 1, 1]
        self._quiet = self._warnings.tobytes()
        self._stage = int(mujoco.mjtStage.mjSTAGE_ACC if body.current else mujoco.mjtStage.mjSTAGE_NONE)

    def snapshot(self) -> MjState:
        """Return a copy of the state of all simulations."""
        if not self._readouts:
            return MjState(self._qpos.copy(), self._qvel.copy(), self.dt)
        return MjState(
            self._qpos.copy(), self._qvel.copy(), self.dt, **{k: v.copy() for k, v in self._readouts.items()}
        )

    def step(self, ctrl: np.ndarray, active: np.ndarray | None = None) -> np.ndarray | None:
        """Advance the simulations by one env step, all of them or where `active`.

        Args:
            ctrl: controls, (N, nu), held for the whole env step.
            active: (N,) bool.

        Returns:
            Which simulations diverged, (N,) bool, or None where none did; MuJoCo has reset those.
        """
        self._ctrl[:] = ctrl
        self._batch.step(active, self._frame_skip, self._stage)
        if self._warnings.tobytes() == self._quiet:
            return None
        diverged: np.ndarray = self._warnings.any(1)
        self._warnings[:] = 0
        return diverged

    def reset(self, rows: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put simulations into a state at rest of everything else (warm start, controls, time).

        Args:
            rows: simulation numbers, (n,).
            qpos: positions, (n, nq).
            qvel: velocities, (n, nv).
        """
        self._batch.reset(rows, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self._qpos[rows], self._qvel[rows] = qpos, qvel
        if self._readouts:
            self._batch.forward(rows)

    def set_params(self, rows: np.ndarray, params: Mapping[str, np.ndarray]) -> None:
        """Give simulations their own values of model fields, by MjModel field name, (n, …) each.

        A field stays shared, which is faster, for as long as nobody asks for another value.
        """
        changed = False
        for name, values in params.items():
            if self._batch.expanded(name) is None and (values == getattr(self.model, name)).all():
                continue
            self._batch.expand(name)[rows] = values
            changed = changed or name in mujoco.MjModel._setconst_inputs
        if changed:
            self._batch.set_const(rows)

    def get_state(self) -> np.ndarray:
        """Return everything that a simulation's future depends on, (N, k)."""
        return np.array(self._batch.state)

    def set_state(self, state: np.ndarray) -> None:
        """Restore what `get_state` returned."""
        self._batch.state[:] = state
        if self._readouts:
            self._batch.forward()

    def mj_data(self, row: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Return one simulation's model and forwarded data, for rendering."""
        model, data = self._batch.get_model(row), self._batch.get_data(row)
        mujoco.mj_forward(model, data)
        return model, data
