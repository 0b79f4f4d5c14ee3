"""The Stable-Baselines3 face against SB3's own `DummyVecEnv` of single environments, and SB3's tools on top of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import kshot
from kshot.sb3 import as_sb3_vecenv
from kshot.tasks import TaskError
from kshot.wrappers import TaskInObservation, Trial, VectorTaskInObservation, VectorTrial

EARLY = "kshot/PointGoal-maml-v0"  # an episode ends at the goal
EARLY_TASK = {"goal": [0.3, 0.3]}
MODES = ["same_step", "disabled"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small only lose by more, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch(env_id: str, n: int, mode: str = "same_step", **kwargs: Any) -> Any:
    return gym.make_vec(env_id, num_envs=n, autoreset_mode=mode, **kwargs)


def actions_of(env_id: str, steps: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    space = kshot.variant(env_id).action_space
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.n, size=(steps, n))
    return np.repeat(rng.choice([0.0, 0.4], (steps, n, 1)), space.shape[0], 2).astype(np.float32)


def equal(a: Any, b: Any) -> bool:
    """Bit-equality of infos and observations."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(x, b[k]) for k, x in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


def compare(ours: Any, theirs: Any, actions: np.ndarray) -> int:
    """Step two VecEnvs beside each other; return how many episodes ended."""
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    assert ours.seed(3) == theirs.seed(3)
    assert equal(ours.reset(), theirs.reset())
    ended = 0
    for action in actions:
        a, b = ours.step(action), theirs.step(action)
        assert all(equal(x, y) for x, y in zip(a, b, strict=True))
        assert equal(ours.reset_infos, theirs.reset_infos)
        ended += int(a[2].sum())
    return ended


# --- row for row what SB3 makes of single environments ----------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", ["kshot/Bandit-k5n10-v0", "kshot/PointGoal-v0", "kshot/HalfCheetahDir-v0"])
def test_it_is_dummy_vec_env_of_singles_that_draw_a_task_an_episode(env_id, mode):
    kwargs = {"max_episode_steps": None if kshot.variant(env_id).horizon_terminates else 8}
    ours = as_sb3_vecenv(batch(env_id, 3, mode, **kwargs))
    theirs = DummyVecEnv([lambda: gym.make(env_id, episodes_per_task=1, **kwargs)] * 3)
    assert compare(ours, theirs, actions_of(env_id, 35, 3)) >= 9


@pytest.mark.parametrize("mode", MODES)
def test_it_is_dummy_vec_env_where_rows_end_at_different_times_and_in_both_ways(mode):
    kwargs = {"task": EARLY_TASK, "max_episode_steps": 5}
    ours = as_sb3_vecenv(batch(EARLY, 6, mode, **kwargs))
    assert compare(ours, DummyVecEnv([lambda: gym.make(EARLY, **kwargs)] * 6), actions_of(EARLY, 60, 6)) > 72
    ours.reset()
    infos = [info for action in actions_of(EARLY, 60, 6) for info in ours.step(action)[3]]
    assert {i["TimeLimit.truncated"] for i in infos if "terminal_observation" in i} == {True, False}
    assert not any(i["TimeLimit.truncated"] for i in infos if "terminal_observation" not in i)


@pytest.mark.parametrize("mode", MODES)
def test_wrapped_batches_are_dummy_vec_env_of_wrapped_singles(mode):
    kwargs = {"max_episode_steps": 5}
    ours = as_sb3_vecenv(VectorTaskInObservation(VectorTrial(batch(EARLY, 3, mode, **kwargs), episodes=2)))
    theirs = DummyVecEnv([lambda: TaskInObservation(Trial(gym.make(EARLY, **kwargs), episodes=2))] * 3)
    assert compare(ours, theirs, actions_of(EARLY, 45, 3)) >= 12


def test_terminal_observation_is_what_the_bare_env_saw_last():
    bare = gym.make(EARLY, task=EARLY_TASK)
    bare.reset()
    ours = as_sb3_vecenv(batch(EARLY, 2, task=EARLY_TASK))
    start = ours.reset()
    action = np.full((2, 2), 0.1, np.float32)
    for _ in range(3):
        last, _, terminated, *_ = bare.step(action[0])
        observation, rewards, dones, infos = ours.step(action)
    assert terminated
    assert dones.all()
    assert np.array_equal(infos[1]["terminal_observation"], last)
    assert np.array_equal(observation, start)
    assert observation.dtype == np.float64
    assert rewards.dtype == np.float32
    assert infos[0]["TimeLimit.truncated"] is False


# --- tasks, seeds, options --------------------------------------------------------------------------------


def goals_by_episode(env: Any, episodes: int) -> np.ndarray:
    """Return (episodes, rows, 2) goals of the steps of PointGoal-v0."""
    env.reset()
    found = []
    for t in range(20 * episodes):
        *_, infos = env.step(np.zeros((env.num_envs, 2), np.float32))
        if t % 20 == 10:
            found.append([i["task"]["goal"] for i in infos])
    return np.array(found)


def different(goals: np.ndarray) -> list[int]:
    """Return how many different goals each row had."""
    return [len(np.unique(goals[:, i], axis=0)) for i in range(goals.shape[1])]


def test_tasks_change_every_episode_unless_told_otherwise():
    env_id = "kshot/PointGoal-v0"
    assert different(goals_by_episode(as_sb3_vecenv(batch(env_id, 2)), 4)) == [4, 4]
    assert different(goals_by_episode(as_sb3_vecenv(batch(env_id, 2), new_task_every_episode=False), 4)) == [1, 1]
    assert different(goals_by_episode(as_sb3_vecenv(batch(env_id, 2, episodes_per_task=2)), 4)) == [2, 2]
    assert different(goals_by_episode(as_sb3_vecenv(VectorTrial(batch(env_id, 2), episodes=2)), 4)) == [2, 2]
    assert different(goals_by_episode(as_sb3_vecenv(batch(env_id, 2, task={"goal": [0.5, 0.5]})), 4)) == [1, 1]


@pytest.mark.parametrize("wrap", [lambda env: env, lambda env: VectorTrial(env, episodes=1)])
def test_options_pin_and_free_rows_at_the_next_reset_only(wrap):
    env = as_sb3_vecenv(wrap(batch("kshot/PointGoal-v0", 3)))
    env.seed(0)
    before = goals_by_episode(env, 1)
    env.set_options([{"task": {"goal": [0.5, 0.25]}}, {}, {"task": {"goal": [-0.5, 0.25]}}])
    *_, infos = env.step(np.zeros((3, 2), np.float32))
    assert np.abs(infos[0]["task"]["goal"] - [0.5, 0.25]).sum() > 0
    goals = goals_by_episode(env, 2)
    assert goals[:, 0].tolist() == [[0.5, 0.25]] * 2
    assert goals[:, 2].tolist() == [[-0.5, 0.25]] * 2
    assert different(np.concatenate([before, goals])) == [2, 3, 2]
    env.set_options([{"task": "resample"}, {}, {}])
    env.seed(0)
    goals = goals_by_episode(env, 2)
    assert different(goals) == [2, 2, 1]
    assert goals[0, 0].tolist() == before[0, 0].tolist()
    env.set_options({"task": {"goal": [0.5, 0.25]}})
    assert goals_by_episode(env, 1).tolist() == [[[0.5, 0.25]] * 3]


def test_options_are_used_once():
    env = as_sb3_vecenv(batch("kshot/PointGoal-v0", 2), new_task_every_episode=False)
    env.reset()
    env.set_options({"task": "resample"})
    assert goals_by_episode(env, 1).tolist() == goals_by_episode(env, 1).tolist()


def test_options_before_the_first_reset_hold_in_it():
    env = as_sb3_vecenv(batch("kshot/HalfCheetahVel-v0", 2))
    env.set_options([{"task": {"velocity": 1.5}}, {}])
    env.reset()
    assert env.reset_infos[0]["task"] == {"velocity": 1.5}
    assert env.reset_infos[1]["task"] != {"velocity": 1.5}


def test_bad_options_are_refused():
    env = as_sb3_vecenv(batch("kshot/PointGoal-v0", 2))
    env.set_options({"goal": [0, 0]})
    with pytest.raises(ValueError, match="'goal' are not known"):
        env.reset()
    env.set_options({"task": {"goal": [np.nan, 0]}})
    with pytest.raises(TaskError, match="expected within"):
        env.reset()
    env.set_options([{}])
    with pytest.raises(ValueError, match="one dict a row"):
        env.reset()


def test_the_same_seed_gives_the_same_run_and_lasts_one_reset():
    runs = []
    for _ in range(2):
        env = as_sb3_vecenv(batch("kshot/PointGoal-v0", 2))
        env.seed(8)
        runs.append((goals_by_episode(env, 2), goals_by_episode(env, 2)))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0], runs[0][1])


# --- the rest of the interface ----------------------------------------------------------------------------


def test_next_step_autoreset_is_refused_with_the_fix():
    with pytest.raises(ValueError, match=r'NEXT_STEP.*autoreset_mode="same_step"'):
        as_sb3_vecenv(gym.make_vec("kshot/PointGoal-v0", num_envs=2))


def test_what_is_no_batch_of_kshot_is_refused():
    with pytest.raises(TypeError, match="KshotVectorEnv"):
        as_sb3_vecenv(gym.make("kshot/PointGoal-v0"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="KshotVectorEnv"):
        as_sb3_vecenv(gym.make_vec("CartPole-v1", num_envs=2))


def test_attributes_methods_and_wrappers_are_found_through_wrappers():
    trial = VectorTrial(batch("kshot/PointGoal-v0", 3), episodes=2)
    env = as_sb3_vecenv(VectorTaskInObservation(trial))
    assert env.get_attr("episodes") == [2, 2, 2]
    assert env.get_attr("variant", indices=[0]) == [kshot.variant("kshot/PointGoal-v0")]
    assert env.get_attr("observation_space", 1) == [env.observation_space]
    assert not env.has_attr("nothing")
    with pytest.raises(AttributeError, match="nothing"):
        env.get_attr("nothing")
    assert env.env_is_wrapped(VectorTrial) == [True] * 3
    assert env.env_is_wrapped(Monitor, indices=0) == [False]
    env.set_attr("note", "x")
    assert env.get_attr("note") == ["x"] * 3
    env.set_attr("episodes", 4)
    assert trial.episodes == 4
    env.reset()
    assert [sorted(s) for s in env.env_method("get_state")] == [["env", "index", "tail"]] * 3
    for call in (lambda: env.env_method("get_state", indices=[0]), lambda: env.set_attr("note", 1, indices=0)):
        with pytest.raises(ValueError, match="all rows"):
            call()


def test_pictures_are_one_a_row_and_tiled():
    env = as_sb3_vecenv(batch("kshot/PointGoal-v0", 4, render_mode="rgb_array"))
    env.reset()
    images = env.get_images()
    assert len(images) == 4
    height, width, _ = images[0].shape
    assert env.render().shape == (2 * height, 2 * width, 3)
    env.close()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        env.reset()


def test_without_a_render_mode_pictures_are_refused_with_a_warning():
    with pytest.warns(UserWarning, match="rgb_array"):
        assert as_sb3_vecenv(batch("kshot/PointGoal-v0", 2)).get_images() == [None, None]


# --- SB3 on top -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box:UserWarning")
@pytest.mark.parametrize("env_id", ["kshot/PointGoal-v0", "kshot/Bandit-k5n10-v0", EARLY])
def test_sb3s_checker_passes_on_wrapped_singles(env_id):
    check_env(Trial(gym.make(env_id), episodes=2))
    check_env(TaskInObservation(gym.make(env_id)))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("env_id", ["kshot/PointGoal-v0", "kshot/Bandit-k5n10-v0"])
def test_ppo_learns_2000_steps_under_monitor_and_normalisation(env_id):
    env = VecNormalize(VecMonitor(as_sb3_vecenv(batch(env_id, 8))))
    model = PPO("MlpPolicy", env, n_steps=125, batch_size=500, n_epochs=1, seed=0, device="cpu").learn(2000)
    assert model.num_timesteps == 2000
    horizon = kshot.variant(env_id).horizon
    assert {e["l"] for e in model.ep_info_buffer} == {horizon}
    assert np.isfinite(evaluate_policy(model, env, n_eval_episodes=8)[0])


@pytest.mark.usefixtures("one_thread")
def test_recurrent_ppo_learns_on_trials():
    contrib = pytest.importorskip("sb3_contrib")
    env = VecMonitor(as_sb3_vecenv(VectorTrial(batch("kshot/Bandit-k5n10-v0", 4), episodes=2)))
    model = contrib.RecurrentPPO("MlpLstmPolicy", env, n_steps=40, batch_size=80, n_epochs=1, seed=0, device="cpu")
    model.learn(160)
    assert {e["l"] for e in model.ep_info_buffer} == {20}
