"""Trials and shown tasks: what a step shows, when tasks change, and a batch row against the single environment."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import kshot
from kshot.wrappers import TaskInObservation, Trial, VectorTaskInObservation, VectorTrial

EARLY = "kshot/PointGoal-maml-v0"  # an episode ends at the goal
EARLY_TASK = {"goal": [0.3, 0.3]}  # three steps from the start at full speed
IDS = ["kshot/Bandit-k5n10-v0", "kshot/PointGoal-v0", EARLY, "kshot/PointRotated-v0", "kshot/HalfCheetahDir-v0"]
MODES = ["same_step", "disabled"]


def towards_goal(rng: np.random.Generator, n: int) -> np.ndarray:
    """Actions that reach EARLY_TASK's goal, each row at a time of its own: beyond the bounds, so clipped too."""
    return np.repeat(rng.choice([0.0, 0.4], (n, 1)), 2, 1).astype(np.float32)


def actions_of(env_id: str, steps: int, n: int) -> np.ndarray:
    """Return (steps, n, …) actions; those of a Box beyond its bounds as well."""
    rng = np.random.default_rng(5)
    space = kshot.variant(env_id).action_space
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.n, size=(steps, n))
    assert isinstance(space, gym.spaces.Box)
    return (1.5 * rng.uniform(space.low, space.high, (steps, n, *space.shape))).astype(np.float32)


def batch(env_id: str, n: int, mode: str, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    return gym.make_vec(env_id, num_envs=n, autoreset_mode=mode, **kwargs)


def play(env: gym.Env[Any, Any], actions: np.ndarray) -> list[tuple[Any, ...]]:
    """Step until the episode ends; [(observation, reward, terminated, truncated, info)]."""
    steps = []
    for action in actions:
        steps.append(env.step(action))
        if steps[-1][2] or steps[-1][3]:
            break
    return steps


def equal(a: Any, b: Any) -> bool:
    """Bit-equality of infos and observations."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(x, b[k]) for k, x in a.items())
    if isinstance(a, np.ndarray) and a.dtype == object:
        return a.shape == np.shape(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and np.array_equal(a, b)


def row_info(infos: dict[str, Any], i: int) -> dict[str, Any]:
    """Return what infos show of row i, as a single env's info."""
    return {
        name: row_info(x, i) if isinstance(x, dict) else (x[i].item() if x.ndim == 1 else x[i].copy())
        for name, x in infos.items()
        if not name.startswith(("_", "final_")) and infos[f"_{name}"][i]
    }


# --- what a trial shows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "flags"), [("kshot/PointGoal-v0", (False, True)), ("kshot/GridNav-v0", (True, False))]
)
def test_a_trial_is_k_episodes_of_h_steps_and_ends_with_the_last_ones_flags(env_id, flags):
    env = Trial(gym.make(env_id), episodes=3)
    horizon = kshot.variant(env_id).horizon
    env.reset(seed=0)
    steps = play(env, actions_of(env_id, 100, 1)[:, 0])
    assert len(steps) == 3 * horizon
    assert steps[-1][2:4] == flags
    assert not any(s[2] or s[3] for s in steps[:-1])
    assert [s[4]["episode_index"] for s in steps] == [0] * horizon + [1] * horizon + [2] * horizon


def test_episodes_default_to_the_variants_trial():
    assert Trial(gym.make("kshot/GridNav-v0")).episodes == 4
    assert VectorTrial(batch("kshot/GridNav-v0", 2, "same_step")).episodes == 4


def test_done_is_one_exactly_where_an_episode_ended_in_the_step():
    env = Trial(gym.make("kshot/PointGoal-v0"), episodes=3)
    first, _ = env.reset(seed=0)
    steps = play(env, actions_of("kshot/PointGoal-v0", 60, 1)[:, 0])
    assert np.array_equal(first[2:], np.zeros(4))
    assert np.flatnonzero([s[0][-1] for s in steps]).tolist() == [19, 39, 59]


def test_an_inner_end_shows_the_next_episodes_start_and_what_ended_the_last():
    """The bare env run beside it: same seed, its own resets."""
    bare, trial = gym.make("kshot/PointGoal-v0"), Trial(gym.make("kshot/PointGoal-v0"), episodes=2)
    bare.reset(seed=4)
    trial.reset(seed=4)
    for t, action in enumerate(actions_of("kshot/PointGoal-v0", 40, 1)[:, 0]):
        observation, reward, *_ = bare.step(action)
        if t == 19:
            observation, _ = bare.reset()
        shown, got, *_ = trial.step(action)
        tail = [*action.clip(-1, 1), reward, float(t in (19, 39))]
        assert got == reward
        assert np.array_equal(shown, np.concatenate([observation, tail]))
    assert shown.dtype == np.float64


def test_discrete_actions_are_shown_one_hot():
    env = Trial(gym.make("kshot/Bandit-k5n10-v0"), episodes=2)
    env.reset(seed=0)
    for action in range(5):
        observation, reward, *_ = env.step(action)
        assert observation.tolist() == [0.0, *np.eye(5)[action], reward, 0.0]


def test_the_next_trial_starts_with_zeros_and_the_first_episode():
    env = Trial(gym.make("kshot/Bandit-k5n10-v0"), episodes=2)
    for _ in range(2):
        observation, info = env.reset()
        assert not observation.any()
        assert info["episode_index"] == 0
        assert len(play(env, actions_of("kshot/Bandit-k5n10-v0", 20, 1)[:, 0])) == 20


def test_an_episode_that_ends_early_shortens_the_trial():
    env = Trial(gym.make(EARLY, task=EARLY_TASK), episodes=3)
    env.reset(seed=0)
    steps = play(env, np.full((300, 2), 0.1, np.float32))
    ends = np.flatnonzero([s[0][-1] for s in steps])
    assert len(ends) == 3
    assert len(steps) == ends[-1] + 1 < 30
    assert np.array_equal(steps[ends[0]][0][:2], steps[ends[1]][0][:2])  # both the start
    assert steps[ends[0]][4]["success"]
    assert steps[-1][2:4] == (True, False)


def test_observations_lie_in_the_declared_space():
    for env_id in IDS:
        env = Trial(gym.make(env_id), episodes=2)
        assert env.reset(seed=1)[0] in env.observation_space
        assert all(s[0] in env.observation_space for s in play(env, actions_of(env_id, 30, 1)[:, 0]))
        vector = VectorTrial(batch(env_id, 3, "same_step"), episodes=2)
        assert vector.reset(seed=1)[0] in vector.observation_space
        assert vector.step(actions_of(env_id, 1, 3)[0])[0] in vector.observation_space


# --- tasks and seeds --------------------------------------------------------------------------------------


def tasks_by_trial(env: Trial, trials: int) -> list[list[float]]:
    found = []
    for _ in range(trials):
        _, info = env.reset()
        goals = [info["task"]["goal"], *(s[4]["task"]["goal"] for s in play(env, actions_of(EARLY, 999, 1)[:, 0]))]
        found.append([g.tolist() for g in goals])
    return found


def test_the_task_is_constant_within_a_trial_and_new_in_each():
    found = tasks_by_trial(Trial(gym.make(EARLY), episodes=3), 4)
    assert all(g == goals[0] for goals in found for g in goals)
    assert len({tuple(goals[0]) for goals in found}) == 4


def test_a_pinned_task_stays_over_trials_until_resampled():
    env = Trial(gym.make("kshot/PointGoal-v0"), episodes=2)
    pinned = {"goal": [0.5, -0.25]}
    assert env.reset(seed=0, options={"task": pinned})[1]["task"]["goal"].tolist() == [0.5, -0.25]
    assert all(g == [0.5, -0.25] for goals in tasks_by_trial(env, 2) for g in goals)
    assert env.reset(options={"task": "resample"})[1]["task"]["goal"].tolist() != [0.5, -0.25]
    made = Trial(gym.make("kshot/PointGoal-v0", task=pinned), episodes=2)
    assert all(g == [0.5, -0.25] for goals in tasks_by_trial(made, 2) for g in goals)


def test_a_trial_cut_short_by_reset_draws_a_new_task_too():
    env = Trial(gym.make("kshot/PointGoal-v0"), episodes=3)
    goals = set()
    for _ in range(5):
        goals.add(tuple(env.reset()[1]["task"]["goal"]))
        play(env, actions_of("kshot/PointGoal-v0", 25, 1)[:, 0])
    assert len(goals) == 5


def test_a_seed_fixes_the_whole_sequence_of_trials():
    runs = []
    for _ in range(2):
        env = Trial(gym.make("kshot/Bandit-k5n10-v0"), episodes=2)
        env.reset(seed=11)
        first = play(env, actions_of("kshot/Bandit-k5n10-v0", 20, 1)[:, 0])
        runs.append((first, env.reset(), play(env, actions_of("kshot/Bandit-k5n10-v0", 20, 1)[:, 0])))
    assert all(
        equal(x, y) for a, b in zip(*(r[0] + r[2] for r in runs), strict=True) for x, y in zip(a, b, strict=True)
    )
    assert equal(runs[0][1][1], runs[1][1][1])
    other = Trial(gym.make("kshot/Bandit-k5n10-v0"), episodes=2)
    assert not equal(other.reset(seed=12)[1], env.reset(seed=11)[1])


@pytest.mark.parametrize("mode", MODES)
def test_reset_mask_starts_new_trials_in_those_rows_and_leaves_the_others(mode):
    env = VectorTrial(batch("kshot/PointGoal-v0", 4, mode), episodes=3)
    env.reset(seed=0)
    for action in actions_of("kshot/PointGoal-v0", 25, 4):
        before, *_, infos = env.step(action)
    mask = np.array([True, False, True, False])
    after, begun = env.reset(options={"reset_mask": mask})
    assert np.array_equal(after[~mask], before[~mask])
    assert not after[mask][:, 2:].any()
    assert begun["_episode_index"].tolist() == mask.tolist()
    goals = begun["task"]["goal"][mask]
    assert not (goals == infos["task"]["goal"][mask]).any()
    *_, infos = env.step(action)
    assert infos["episode_index"].tolist() == [0, 1, 0, 1]
    assert np.array_equal(infos["task"]["goal"][mask], goals)


# --- a batch row is the single env ------------------------------------------------------------------------


def single_rows(make: Callable[[], gym.Env[Any, Any]], actions: np.ndarray, seed: int) -> list[list[tuple[Any, ...]]]:
    """Run each row alone, resetting where it ends: [row][step] of (observation, reward, flags, info, start)."""
    rows = []
    for i in range(actions.shape[1]):
        env = make()
        steps: list[tuple[Any, ...]] = [env.reset(seed=seed + i)]
        for action in actions[:, i]:
            step = env.step(action)
            start = env.reset() if step[2] or step[3] else None
            steps.append((*step, start))
        rows.append(steps)
    return rows


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("shown", [False, True])
def test_a_batch_row_is_the_single_trial_bit_for_bit(env_id, mode, shown):
    n, limit = 3, min(kshot.variant(env_id).horizon, 12)
    kwargs = {"max_episode_steps": None if kshot.variant(env_id).horizon_terminates else limit}
    actions = actions_of(env_id, 5 * limit, n)
    if shown:  # over the trial here, under it below
        vector: Any = VectorTaskInObservation(VectorTrial(batch(env_id, n, mode, **kwargs), episodes=2))
        rows = single_rows(lambda: TaskInObservation(Trial(gym.make(env_id, **kwargs), episodes=2)), actions, 7)
    else:
        vector = VectorTrial(batch(env_id, n, mode, **kwargs), episodes=2)
        rows = single_rows(lambda: Trial(gym.make(env_id, **kwargs), episodes=2), actions, 7)
    compare(vector, rows, actions, mode)


@pytest.mark.parametrize("mode", MODES)
def test_rows_whose_inner_episodes_end_at_different_times_are_the_single_trials(mode):
    n, steps = 8, 120
    rng = np.random.default_rng(0)
    actions = np.stack([towards_goal(rng, n) for _ in range(steps)])
    kwargs = {"task": EARLY_TASK, "max_episode_steps": 5}
    vector = VectorTrial(VectorTaskInObservation(batch(EARLY, n, mode, **kwargs)), episodes=3)
    rows = single_rows(lambda: Trial(TaskInObservation(gym.make(EARLY, **kwargs)), episodes=3), actions, 7)
    lengths = [np.flatnonzero([s[-1] is not None for s in row[1:]]).tolist() for row in rows]
    assert len({tuple(x) for x in lengths}) > 4  # they do end at different times
    assert {s[2] for row in rows for s in row[1:]} == {True, False}
    assert {s[3] for row in rows for s in row[1:]} == {True, False}
    compare(vector, rows, actions, mode)


def compare(
    vector: VectorEnv[Any, Any, Any], rows: list[list[tuple[Any, ...]]], actions: np.ndarray, mode: str
) -> None:
    """Step a batch beside recorded single envs and compare everything that it returns."""
    n = actions.shape[1]
    observation, infos = vector.reset(seed=7)
    for i in range(n):
        assert equal(observation[i], rows[i][0][0])
        assert equal(row_info(infos, i), rows[i][0][1])
    for t, action in enumerate(actions):
        observation, reward, terminated, truncated, infos = vector.step(action)
        done = terminated | truncated
        fresh, begun = observation, infos
        if mode == "disabled" and done.any():
            fresh, begun = vector.reset(options={"reset_mask": done})
        assert "final_obs" not in infos or (mode == "same_step" and np.array_equal(infos["_final_obs"], done))
        for i in range(n):
            last, single_reward, *flags, info, start = rows[i][t + 1]
            assert reward[i] == single_reward
            assert [terminated[i], truncated[i]] == flags
            ended = mode == "same_step" and start is not None
            assert equal(infos["final_obs"][i] if ended else observation[i], last)
            assert equal(row_info(infos["final_info"] if ended else infos, i), info)
            if start is not None:
                assert equal(fresh[i], start[0])
                assert equal(row_info(begun, i), start[1])


def test_sync_vector_env_of_trials_gives_what_the_batch_of_trials_gives():
    n = 3
    kwargs = {"task": EARLY_TASK, "max_episode_steps": 5}
    sync = SyncVectorEnv(
        [lambda: Trial(gym.make(EARLY, **kwargs), episodes=2)] * n, autoreset_mode=AutoresetMode.SAME_STEP
    )
    native = VectorTrial(batch(EARLY, n, "same_step", **kwargs), episodes=2)
    assert native.observation_space == sync.observation_space
    assert native.single_observation_space == sync.single_observation_space
    assert equal(native.reset(seed=3)[0], sync.reset(seed=3)[0])
    rng = np.random.default_rng(1)
    for _ in range(60):
        action = towards_goal(rng, n)
        ours, theirs = native.step(action), sync.step(action)
        assert all(equal(a, b) for a, b in zip(ours[:4], theirs[:4], strict=True))
        assert equal(ours[4]["episode_index"], theirs[4]["episode_index"])
        assert equal(ours[4].get("final_obs"), theirs[4].get("final_obs"))
    native.close()
    sync.close()


def test_a_trial_that_has_ended_waits_for_its_reset_where_autoreset_is_disabled():
    env = VectorTrial(batch("kshot/Bandit-k5n10-v0", 2, "disabled"), episodes=2)
    env.reset(seed=0)
    for action in actions_of("kshot/Bandit-k5n10-v0", 20, 2):
        *_, terminated, _, _ = env.step(action)
    assert terminated.all()
    with pytest.raises(gym.error.ResetNeeded, match="reset_mask"):
        env.step(action)


def test_a_restored_batch_of_trials_goes_on_as_it_would_have():
    actions = actions_of(EARLY, 60, 3)
    env = VectorTrial(batch(EARLY, 3, "same_step", max_episode_steps=9), episodes=2)
    env.reset(seed=0)
    for action in actions[:12]:
        env.step(action)
    state = env.get_state()
    future = [env.step(action)[:4] for action in actions[12:]]
    other = VectorTrial(batch(EARLY, 3, "same_step", max_episode_steps=9), episodes=2)
    other.reset(seed=9)
    other.set_state(state)
    again = [other.step(action)[:4] for action in actions[12:]]
    assert all(equal(a, b) for x, y in zip(future, again, strict=True) for a, b in zip(x, y, strict=True))


# --- the task in the observation --------------------------------------------------------------------------


def test_the_task_stands_after_the_observation_fields_in_order():
    env = TaskInObservation(gym.make("kshot/HalfCheetahDir-v0"))
    observation, info = env.reset(seed=0)
    values = [info["task"]["direction"], *np.ravel(info["task"]["swapped"]), info["task"]["friction"]]
    assert np.array_equal(observation[17:], values)
    assert observation in env.observation_space
    observation, *_, info = env.step(env.action_space.sample())
    assert np.array_equal(observation[17:], values)


@pytest.mark.parametrize("mode", ["next_step", *MODES])
def test_final_and_first_observations_show_their_own_tasks(mode):
    env = VectorTaskInObservation(batch("kshot/Bandit-k5n10-v0", 3, mode, episodes_per_task=1))
    observation, infos = env.reset(seed=0)
    for action in actions_of("kshot/Bandit-k5n10-v0", 35, 3):
        assert np.array_equal(observation[:, 1:], infos["task"]["means"])
        before = observation[:, 1:]
        observation, _, terminated, _, infos = env.step(action)
        if terminated.all() and mode == "same_step":
            assert np.array_equal(np.stack(infos["final_obs"])[:, 1:], before)
            assert not np.array_equal(observation[:, 1:], before)
        if terminated.all() and mode == "disabled":
            assert np.array_equal(observation[:, 1:], before)
            observation, infos = env.reset(options={"reset_mask": terminated})


# --- refusals, and the rest of Gymnasium ------------------------------------------------------------------


@pytest.mark.parametrize("episodes", [0, -1, 1.5, True, "2"])
def test_an_impossible_number_of_episodes_is_refused(episodes):
    with pytest.raises(ValueError, match="whole number from 1"):
        Trial(gym.make("kshot/PointGoal-v0"), episodes=episodes)


def test_next_step_autoreset_is_refused_with_the_fix():
    with pytest.raises(ValueError, match=r'NEXT_STEP.*autoreset_mode="same_step"'):
        VectorTrial(gym.make_vec("kshot/PointGoal-v0", num_envs=2))


def test_an_env_that_changes_its_task_within_a_trial_is_refused():
    with pytest.raises(ValueError, match=r"every 5 episodes.*make a new env"):
        Trial(gym.make("kshot/PointGoal-v0", episodes_per_task=5), episodes=2)
    with pytest.raises(ValueError, match="every 2 episodes"):
        Trial(Trial(gym.make("kshot/PointGoal-v0"), episodes=2), episodes=2)


def test_environments_of_others_and_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="KshotEnv"):
        Trial(gym.make("CartPole-v1"), episodes=2)
    with pytest.raises(TypeError, match="SyncVectorEnv"):
        VectorTrial(SyncVectorEnv([lambda: gym.make("kshot/PointGoal-v0")]), episodes=2)
    with pytest.raises(TypeError, match="KshotEnv"):
        TaskInObservation(gym.make("CartPole-v1"))


def test_a_bad_reset_mask_is_refused_as_without_the_wrapper():
    env = VectorTrial(batch("kshot/PointGoal-v0", 3, "same_step"), episodes=2)
    env.reset(seed=0)
    for mask in (np.ones(2, bool), [True, False, True], np.zeros(3, bool)):
        with pytest.raises(ValueError, match="reset_mask"):
            env.reset(options={"reset_mask": mask})


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_checker_passes(env_id):
    for wrapped in (Trial(gym.make(env_id), episodes=2), TaskInObservation(Trial(gym.make(env_id), episodes=2))):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
            check_env(wrapped, skip_render_check=True)


def test_a_wrapped_env_is_made_again_from_its_spec():
    env = TaskInObservation(Trial(gym.make("kshot/PointGoal-v0"), episodes=3))
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, TaskInObservation)
    assert again.env.episodes == 3
    assert np.array_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])


def test_the_wrappers_import_no_torch():
    code = "import sys, kshot, kshot.wrappers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
