"""The bodies: MJCF files, what our variants change in them, and the state that family functions read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import mujoco

from kshot.arrays import Array

ASSETS = Path(__file__).parent.parent / "assets"


class MjState(NamedTuple):
    """What the family functions of a MuJoCo family read; a body fills the fields that it lists."""

    qpos: Array  # (N, nq) m, rad
    qvel: Array  # (N, nv) m/s, rad/s
    dt: Array  # (1,) s an env step
    torso: Array = None  # (N, 3) m, origin of the torso frame
    rotation: Array = None  # (N, 9) torso rotation matrix, row by row
    com: Array = None  # (N, 3) m, centre of mass of the torso's subtree
    com_velocity: Array = None  # (N, 3) m/s
    contact: Array = None  # (N, nbody, 6) external contact wrench of each body: torque Nm, force N


@dataclass(frozen=True)
class Body:
    """A robot: an MJCF file, our changes to it, and the read-outs beyond joint positions and velocities.

    Read-outs are those that `mj_step` leaves, one substep behind `qpos` (with RK4, those of its first stage
    for contact): what Gymnasium and its forerunners return. With `current=True` they are computed anew at
    the new state, as rllab did by a forward pass after each step.
    """

    file: str
    total_mass: float | None = None  # kg
    timestep: float | None = None  # s
    gear: float | None = None  # Nm at full control
    start: tuple[float, ...] | None = None  # qpos at reset, before noise
    readouts: tuple[str, ...] = ()  # fields of MjState
    current: bool = False

    def compile(self) -> mujoco.MjModel:
        """Return the compiled model; the same object for equal bodies, not to be changed."""
        return _compile(self)


@cache
def _compile(body: Body) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(ASSETS / body.file))
    # A body is one tree, so there are no islands to find: the same bits, a few per cent faster.
    spec.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    if body.timestep is not None:
        spec.option.timestep = body.timestep
    if body.gear is not None:
        for actuator in spec.actuators:
            actuator.gear = [body.gear, 0, 0, 0, 0, 0]
    if "com_velocity" in body.readouts:  # computed by the engine only where a sensor asks for it
        spec.add_sensor(type=mujoco.mjtSensor.mjSENS_SUBTREELINVEL, objtype=mujoco.mjtObj.mjOBJ_BODY, objname="torso")
    if "contact" in body.readouts:
        spec.body("torso").add_site(name="torso")
        spec.add_sensor(type=mujoco.mjtSensor.mjSENS_FORCE, objtype=mujoco.mjtObj.mjOBJ_SITE, objname="torso")
    model = spec.compile()
    if body.total_mass is not None:
        mujoco.mj_setTotalmass(model, body.total_mass)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    if body.start is not None:
        model.qpos0[:] = body.start
    return model


def scaled_friction(friction: Array, model: mujoco.MjModel) -> dict[str, Array]:
    """Return all geoms' friction times one number a row, (N,); of all, as a contact takes the larger of its two."""
    return {"geom_friction": friction[:, None, None] * model.geom_friction}


HALF_CHEETAH = Body("half_cheetah.xml", total_mass=14)
ANT = Body("ant.xml", readouts=("torso",))
