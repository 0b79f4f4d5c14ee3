"""HalfCheetah and Ant are Gymnasium's, bit for bit: positions, velocities, measured speed, observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import kshot

STEPS = 1000


def of_gymnasium(id: str, **kwargs: Any) -> Any:
    """Make one of Gymnasium's MuJoCo envs, without its time limit."""
    return gym.make(id, **kwargs).unwrapped


@pytest.fixture
def cheetah(tmp_path, monkeypatch) -> Any:
    monkeypatch.chdir(tmp_path)  # where MuJoCo logs that Gymnasium's settotalmass is deprecated
    return of_gymnasium("HalfCheetah-v5")


@pytest.fixture
def ant() -> Callable[..., Any]:
    return lambda **kwargs: of_gymnasium("Ant-v5", include_cfrc_ext_in_observation=False, **kwargs)


def take_over(theirs: Any, ours: Any) -> None:
    """Put our freshly reset body's state into Gymnasium's env."""
    theirs.reset()
    state = ours.engine.state
    theirs.set_state(state.qpos[0].copy(), state.qvel[0].copy())


def check_parity(theirs: Any, ours: Any, speeds: tuple[str, ...]) -> int:
    """Step both with the same random actions from the same states; return how many episodes it took."""
    rng = np.random.default_rng(0)
    ours.reset(seed=1)
    take_over(theirs, ours)
    episodes = 1
    for _ in range(STEPS):
        action = rng.uniform(-1, 1, ours.action_space.shape).astype(np.float32)
        obs, _, terminated, _, info = ours.step(action)
        expected, _, ended, _, their_info = theirs.step(action)
        state = ours.engine.state
        assert (state.qpos[0] == theirs.data.qpos).all()
        assert (state.qvel[0] == theirs.data.qvel).all()
        assert obs.dtype == expected.dtype
        assert obs.shape == expected.shape
        assert (obs == expected).all()
        assert [info[name] for name in speeds] == [their_info[name] for name in speeds]
        if terminated:
            assert ended
            ours.reset()
            take_over(theirs, ours)
            episodes += 1
    return episodes


@pytest.mark.parametrize("id", ["HalfCheetahVel", "HalfCheetahDir"])
def test_half_cheetah_is_gymnasiums_bit_for_bit(id, cheetah):
    ours = gym.make(f"kshot/{id}-v0").unwrapped
    assert check_parity(cheetah, ours, ("x_velocity",)) == 1


def test_ant_dir_is_gymnasiums_bit_for_bit_over_several_falls(ant):
    ours = gym.make("kshot/AntDir-v0").unwrapped
    theirs = ant()
    assert theirs.observation_space.shape == ours.observation_space.shape == (27,)
    assert check_parity(theirs, ours, ("x_velocity", "y_velocity")) > 1


def test_ant_goal_is_gymnasiums_bit_for_bit(ant):
    ours = gym.make("kshot/AntGoal-v0").unwrapped
    theirs = ant(exclude_current_positions_from_observation=False, terminate_when_unhealthy=False)
    assert theirs.observation_space.shape == ours.observation_space.shape == (29,)
    assert check_parity(theirs, ours, ()) == 1


def test_rewards_are_gymnasiums_where_the_task_is_its_own(cheetah, ant):
    # Forward is Gymnasium's task: the same velocity term, and its control cost up to the coefficient.
    forward = {"direction": 1, "swapped": 0, "friction": 1}
    for ours, theirs, ratio in (
        (gym.make("kshot/HalfCheetahDir-v0", task=forward), cheetah, 0.05 / 0.1),
        (gym.make("kshot/AntDir-v0", task={"angle": 0.0, "friction": 1}), ant(), 0.5 / 0.5),
    ):
        rng = np.random.default_rng(1)
        ours.reset(seed=1)
        take_over(theirs, ours.unwrapped)
        for _ in range(30):
            action = rng.uniform(-1, 1, ours.action_space.shape).astype(np.float32)
            info, their_info = ours.step(action)[4], theirs.step(action)[4]
            assert info["reward_forward"] == their_info["reward_forward"]
            assert info["reward_control"] == pytest.approx(ratio * their_info["reward_ctrl"], rel=1e-6)


def test_time_steps_and_masses_are_gymnasiums(cheetah, ant):
    for id, theirs in (("HalfCheetahVel", cheetah), ("HalfCheetahDir", cheetah), ("AntDir", ant()), ("AntGoal", ant())):
        ours = gym.make(f"kshot/{id}-v0").unwrapped
        assert ours.variant == kshot.variant(f"{id}-v0")
        assert ours.variant.dt == theirs.dt
        assert ours.metadata["render_fps"] == theirs.metadata["render_fps"]
        assert (ours.engine.physics().model.body_mass == theirs.model.body_mass).all()
        assert (ours.action_space.low == theirs.action_space.low).all()
        assert (ours.action_space.high == theirs.action_space.high).all()
