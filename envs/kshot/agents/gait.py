"""A hand-written gait that runs HalfCheetah at a given velocity: a rhythm, a posture and two reflexes.

Each of the six joints (back thigh, shin, foot; front thigh, shin, foot) is driven by

    torque = drive · swing · sin(2π · frequency · t + phase) + posture
             + hurry · (goal − v) + balance · pitch − DAMPING · joint velocity

and clipped to [−1, 1], where v is the torso's forward velocity. All joints share one rhythm: its frequency rises with
the goal's speed, and so does its drive, which also grows while the body is too slow and falls, even below zero, while
it is too fast. There is one set of numbers for running forward and one for running backward.

The numbers were found by CMA-ES in about a quarter of an hour a direction on one core, by the mean return of
`kshot/HalfCheetahVel-v0` (200 steps, its start noise) over goals of uniform speed in [0, 4] m/s.
"""

from __future__ import annotations

import numpy as np

TOP_SPEED = 4.0  # m/s, faster goals count as this
DAMPING = 0.03
_STEP = 0.05  # s an env step

# A row a direction, forward and backward; the frequency in Hz is the first number + the second · |goal|, the drive
# is the third + |goal| / 2 + the fourth · (the speed that is missing).
_RHYTHM = np.array(
    [
        [3.37, 0.40, 0.54, 1.00],
        [4.07, 0.15, 0.32, 1.12],
    ]
)
# A column a joint; phases in radians.
_JOINTS = np.array(
    [
        [  # forward
            [0.37, 0.61, -0.29, -0.40, 0.23, 0.39],  # swing
            [-2.65, -0.32, 0.54, -2.72, 0.56, 0.83],  # phase
            [-0.08, 0.11, 0.14, -0.21, -0.26, -0.07],  # posture
            [0.56, -0.25, -0.19, -0.23, -0.01, -0.74],  # hurry
            [0.64, -0.63, 0.02, 1.75, 0.26, 0.44],  # balance
        ],
        [  # backward
            [0.65, 0.55, 0.13, 0.55, 0.58, -0.37],  # swing
            [-0.87, 0.25, 3.00, 2.70, -0.95, 1.75],  # phase
            [-0.16, 1.61, -0.06, 0.00, 0.24, 0.15],  # posture
            [0.62, -0.62, -0.15, 0.32, 0.20, 2.00],  # hurry
            [-0.68, -0.34, -0.42, -0.23, -0.11, -0.72],  # balance
        ],
    ]
)


def torques(observation: np.ndarray, clock: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Return the actions of a batch of HalfCheetahs that are to run at given velocities.

    Args:
        observation: (N, 17) positions without x, and velocities; further columns are ignored.
        clock: (N,) steps since the episode began.
        velocity: (N,) goal velocities in m/s, negative to run backward.

    Returns:
        Torques in [-1, 1], (N, 6).
    """
    goal = np.clip(velocity, -TOP_SPEED, TOP_SPEED)
    missing = goal - observation[:, 8]
    backward = (goal < 0).astype(np.int64)
    base_frequency, frequency_gain, base_drive, drive_gain = _RHYTHM[backward].T
    swing, phase, posture, hurry, balance = np.moveaxis(_JOINTS[backward], 1, 0)
    frequency = base_frequency + frequency_gain * abs(goal)
    drive = base_drive + abs(goal) / 2 + drive_gain * np.where(goal < 0, -missing, missing)
    angle = 2 * np.pi * frequency * _STEP * clock
    rhythm = drive[:, None] * swing * np.sin(angle[:, None] + phase)
    reflexes = hurry * missing[:, None] + balance * observation[:, 1:2] - DAMPING * observation[:, 11:17]
    torque: np.ndarray = np.clip(rhythm + posture + reflexes, -1.0, 1.0)
    return torque
