"""Bit-identity: single env, native batch row, SyncVectorEnv row, any N, any threads, any process, and after set_state.

No tolerance anywhere: arrays are compared by their bytes, so that even the sign of a zero counts.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import kshot
from kshot import tasks

MODES = ("NEXT_STEP", "SAME_STEP", "DISABLED")
LIMIT = {"max_episode_steps": 7}  # short episodes: several autoresets in a few steps
NEAR = {"tasks": [{"goal": [0.02 * i, 0.0]} for i in (2, 3, 4, 5)], "episodes_per_task": 2}  # reached in 2 … 5 steps
TURNED = {"tasks": [{"angle": a, "mirrored": m} for a, m in ((0.0, 0), (0.05, 1), (0.3, 0))], "episodes_per_task": 1}

# (name, arguments of make_vec, steps): at least one of every family, and every way to end.
RUNS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("Bandit-k5n10", {"episodes_per_task": 2}, 35),
    ("Bandit-gaussian", {}, 205),
    ("TabularMDP-n10", {"episodes_per_task": 1}, 35),
    ("GridNav", {"split": "ood-near"}, 35),
    ("PointGoal", {}, 45),
    ("PointGoal-maml", {**NEAR, "max_episode_steps": 4}, 40),
    ("PointSparse-pb", LIMIT, 25),
    ("PointSparse-metacure-noise", {}, 70),
    ("PointRotated-norml-sparse", {**TURNED, "max_episode_steps": 9}, 40),
    ("HalfCheetahVel", {**LIMIT, "episodes_per_task": 2}, 25),
    ("HalfCheetahVel-maml", LIMIT, 18),
    ("HalfCheetahDir", {**LIMIT, "split": "ood-slippery", "episodes_per_task": 1}, 25),
    ("HalfCheetahDir-hyperx-sparse", {**LIMIT, "split": "ood-swapped"}, 18),
    ("AntDir", {}, 110),
    ("AntDir-l2l", {**LIMIT, "split": "ood-slippery", "episodes_per_task": 1}, 18),
    ("AntGoal-maml", LIMIT, 18),
    ("AntGoal-metacure-sparse", {}, 40),
)
EARLY = ("PointGoal-maml", "PointRotated-norml-sparse", "AntDir")  # rows end at different times
runs = pytest.mark.parametrize(("name", "kwargs", "steps"), RUNS, ids=[name for name, *_ in RUNS])
every_mode = pytest.mark.parametrize("mode", MODES)
ANALYTIC = ("Bandit-k5n10", "Bandit-gaussian", "TabularMDP-n25", "GridNav", "PointGoal", "PointSparse-pb")


def batch(name: str, n: int, mode: str = "SAME_STEP", **kwargs: Any) -> Any:
    return gym.make_vec(f"kshot/{name}-v0", n, autoreset_mode=mode, **kwargs)


def sync(name: str, n: int, mode: str = "SAME_STEP", **kwargs: Any) -> Any:
    mode_of = {"autoreset_mode": AutoresetMode[mode]}
    return gym.make_vec(f"kshot/{name}-v0", n, vectorization_mode="sync", vector_kwargs=mode_of, **kwargs)


def single(name: str, **kwargs: Any) -> Any:
    return gym.make(f"kshot/{name}-v0", **kwargs)


def actions_of(name: str, steps: int, n: int, seed: int = 0) -> np.ndarray:
    """Actions (steps, n, …) that end early-ending variants early; those of a row do not depend on n."""
    space = kshot.variant(f"{name}-v0").action_space
    streams = [np.random.default_rng([seed, i]) for i in range(n)]
    if isinstance(space, gym.spaces.Discrete):
        return np.stack([rng.integers(space.n, size=steps) for rng in streams], 1)
    u = np.stack([rng.uniform(-1, 1, (steps, *space.shape)) for rng in streams], 1)
    if name == "PointGoal-maml":
        u = np.broadcast_to([0.2, 0.0], u.shape)  # 0.02 m to the right
    elif name.startswith("PointRotated-norml"):
        u = np.broadcast_to([0.25, 0.0], u.shape)
    elif name.startswith("Ant"):
        u = np.sign(u)
    return (u * space.high).astype(np.float32)


def same(a: Any, b: Any, where: str = "") -> None:
    """Assert that two nests of dicts, tuples, arrays and scalars are equal in type and bits."""
    if isinstance(a, dict):
        assert isinstance(b, dict), where
        assert set(a) == set(b), where
        for key in a:
            same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, (tuple, list)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    elif isinstance(a, np.ndarray) and a.dtype == object:
        assert b.dtype == object, where
        same(list(a), list(b), where)
    elif isinstance(a, np.ndarray):
        assert isinstance(b, np.ndarray), where
        assert (a.dtype, a.shape) == (b.dtype, b.shape), where
        assert a.tobytes() == b.tobytes(), f"{where}: {a} is not {b}"
    else:
        assert type(a) is type(b), where
        assert a is None or np.asarray(a).tobytes() == np.asarray(b).tobytes(), f"{where}: {a} is not {b}"


def row_of(x: Any, i: int) -> Any:
    """Return row i of a batch's nest, what the row does not show left out."""
    if not isinstance(x, dict):
        return x[i]
    return {k: row_of(v, i) for k, v in x.items() if not k.startswith("_") and x[f"_{k}"][i]}


def numbers(x: Any) -> Any:
    """Return a nest with every NumPy scalar and array as an array: what a row and a single env have in common."""
    return {k: numbers(v) for k, v in x.items()} if isinstance(x, dict) else np.asarray(x)


def rollout(env: Any, mode: str, actions: np.ndarray, seed: int | None = 3) -> list[Any]:
    """Return everything that a batch gives along these actions."""
    seen = [] if seed is None else [env.reset(seed=seed)]
    for action in actions:
        seen.append(env.step(action))
        done = seen[-1][2] | seen[-1][3]
        if mode == "DISABLED" and done.any():
            seen.append(env.reset(options={"reset_mask": done}))
    return seen


def digest(seen: list[Any]) -> str:
    """Return the SHA-256 of a rollout."""
    sha = hashlib.sha256()

    def feed(x: Any) -> None:
        if isinstance(x, dict):
            for key in sorted(x):
                sha.update(key.encode())
                feed(x[key])
        elif isinstance(x, (tuple, list)) or (isinstance(x, np.ndarray) and x.dtype == object):
            for item in x:
                feed(item)
        else:
            sha.update(repr(x).encode() if x is None else np.asarray(x).tobytes())

    feed(seen)
    return sha.hexdigest()


# --- batch, SyncVectorEnv, single -------------------------------------------------------------------------


@every_mode
@runs
def test_the_native_batch_is_sync_vector_env_bit_for_bit(name, kwargs, steps, mode):
    actions = actions_of(name, steps, 3)
    native = rollout(batch(name, 3, mode, **kwargs), mode, actions)
    same(native, rollout(sync(name, 3, mode, **kwargs), mode, actions))
    ends = np.array([x[2] | x[3] for x in native if len(x) == 5])
    assert ends.any()
    if name in EARLY:
        assert any(x[2].any() for x in native if len(x) == 5)
        assert (ends.any(1) & ~ends.all(1)).any()


@every_mode
def test_the_native_batch_is_sync_vector_env_without_any_info_of_a_step(mode):
    # One row: after NEXT_STEP's ghost step no row has any reward term to show.
    actions = actions_of("Bandit-k5n10", 25, 1)
    native = rollout(batch("Bandit-k5n10", 1, mode), mode, actions)
    same(native, rollout(sync("Bandit-k5n10", 1, mode), mode, actions))


@pytest.mark.parametrize("id", kshot.VARIANTS)
def test_a_row_of_every_variant_is_the_single_env(id):
    name = id.removeprefix("kshot/").removesuffix("-v0")
    terminates = kshot.VARIANTS[id].horizon_terminates
    steps = min(kshot.VARIANTS[id].horizon, 100) + 2 if terminates else 5
    limit = {} if terminates else {"max_episode_steps": 3}
    actions = actions_of(name, steps, 2)
    envs, env = batch(name, 2, **limit), single(name, **limit)
    (seen, infos), (obs, info) = envs.reset(seed=11), env.reset(seed=12)
    for action in actions:
        same(seen[1], obs)
        same(numbers(row_of({k: v for k, v in infos.items() if "final" not in k}, 1)), numbers(info))
        seen, rewards, terminated, truncated, infos = envs.step(action)
        obs, reward, over, cut, info = env.step(action[1])
        assert (rewards[1], terminated[1], truncated[1]) == (reward, over, cut)
        if over or cut:
            same(infos["final_obs"][1], obs)
            same(numbers(row_of(infos["final_info"], 1)), numbers(info))
            obs, info = env.reset()


@runs
def test_a_row_does_not_depend_on_the_number_of_rows(name, kwargs, steps):
    steps = min(steps, 40)
    actions = actions_of(name, steps, 7)
    seven = rollout(batch(name, 7, **kwargs), "SAME_STEP", actions, seed=5)
    for n in (1, 3):
        few = rollout(batch(name, n, **kwargs), "SAME_STEP", actions[:, :n], seed=5)
        for some, all_rows in zip(few, seven, strict=True):
            for i in range(n):
                same([row_of(x, i) for x in some], [row_of(x, i) for x in all_rows])


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("HalfCheetahVel", LIMIT),
        ("HalfCheetahDir", {**LIMIT, "split": "ood-slippery"}),
        ("AntDir-maml", LIMIT),
        ("PointGoal", {}),
    ],
)
def test_threads_change_nothing(name, kwargs):
    actions = actions_of(name, 20, 7)
    one, two = (rollout(batch(name, 7, threads=t, **kwargs), "SAME_STEP", actions) for t in (1, 2))
    same(one, two)


def _digests() -> list[str]:
    return [
        digest(rollout(batch(name, 3, **kwargs), "SAME_STEP", actions_of(name, 30, 3)))
        for name, kwargs in (("Bandit-gaussian", {}), ("TabularMDP-n10", {}), ("AntDir-l2l", LIMIT))
    ]


def test_another_process_gives_the_same_bits():
    code = f"import runpy; print(*runpy.run_path({__file__!r})['_digests']())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (_digests(), "")


def test_seeds_differ_and_repeat():
    actions = actions_of("PointSparse-pb", 10, 3)
    a, b, c = (rollout(batch("PointSparse-pb", 3), "SAME_STEP", actions, seed) for seed in (5, 5, 6))
    same(a, b)
    assert digest(a) != digest(c)
    # Row i + 1 of seed s is row i of seed s + 1.
    moved = rollout(batch("PointSparse-pb", 3), "SAME_STEP", np.roll(actions, -1, 1), seed=6)
    for one, other in zip(a, moved, strict=True):
        same([row_of(x, 1) for x in one], [row_of(x, 0) for x in other])


@pytest.mark.parametrize("name", ["Bandit-gaussian", "PointSparse-pb", "HalfCheetahVel", "AntDir-l2l", "AntGoal-promp"])
def test_a_seed_starts_anew_whatever_came_before(name):
    """Nothing of an old episode lives on: no noise, no clock, no warm start of the physics."""
    actions = actions_of(name, 30, 3)
    fresh = rollout(batch(name, 3), "SAME_STEP", actions)
    env = batch(name, 3)
    rollout(env, "SAME_STEP", actions_of(name, 37, 3, seed=1), seed=8)
    task = {k: x[0] for k, x in tasks.sample(env.variant, "train", 1)._asdict().items()}
    env.reset(options={"task": task})
    env.step(actions[5])
    env.reset(options={"task": "resample"})
    same(rollout(env, "SAME_STEP", actions), fresh)


def test_the_time_of_day_does_not_seed_a_seeded_env_and_does_seed_another():
    assert digest([batch("PointSparse-pb", 3).reset()]) != digest([batch("PointSparse-pb", 3).reset()])
    assert digest([single("PointSparse-pb").reset()]) != digest([single("PointSparse-pb").reset()])


# --- partial resets, pinned tasks -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "field"), [("PointSparse-pb", "goal"), ("HalfCheetahVel", "velocity")])
def test_a_task_a_row_is_that_task_in_each_single_env(name, field):
    values = {"goal": [[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]], "velocity": [0.5, 1.0, 2.5]}[field]
    envs, actions = batch(name, 3, "DISABLED"), actions_of(name, 8, 3)
    envs.reset(seed=1)
    got = [envs.reset(seed=4, options={"task": {field: np.array(values)}})] + [envs.step(a) for a in actions]
    for i, value in enumerate(values):
        env = single(name)
        env.reset(seed=1)
        want = [env.reset(seed=4 + i, options={"task": {field: value}})] + [env.step(a[i]) for a in actions]
        for batched, alone in zip(got, want, strict=True):
            same([numbers(row_of(x, i)) for x in batched], [numbers(x) for x in alone])


def test_the_three_spellings_of_a_task_a_row_are_one():
    goals = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    variant = kshot.variant("PointGoal-v0")
    spellings = ({"goal": goals}, variant.family.task(goal=goals), [{"goal": goal.tolist()} for goal in goals])
    first, *others = (batch("PointGoal", 3).reset(seed=0, options={"task": task}) for task in spellings)
    for other in others:
        same(first, other)
    same(first[1]["task"]["goal"], goals)


def _ops(seed: int, count: int, n: int) -> list[tuple[Any, ...]]:
    """Return a random history of steps and resets: (kind, …)."""
    rng = np.random.default_rng(seed)
    ops: list[tuple[Any, ...]] = []
    for _ in range(count):
        if rng.uniform() < 0.7:
            ops.append(("step",))
            continue
        kind = rng.integers(4)
        asked = [None, None, "resample", {"goal": rng.uniform(-1, 1, 2).round(1).tolist()}][rng.integers(4)]
        seeds = [None, int(rng.integers(100)), [int(x) if x % 2 else None for x in rng.integers(100, size=n)]]
        mask = rng.uniform(size=n) < 0.5
        mask[rng.integers(n)] = True
        ops.append(("reset", seeds[rng.integers(3)], asked, mask if kind < 2 else None))
    return ops


def _play(env: Any, ops: list[tuple[Any, ...]], n: int, mode: str) -> list[Any]:
    rng = np.random.default_rng(0)
    seen, done = [env.reset(seed=0)], np.zeros(n, bool)
    for kind, *what in ops:
        if kind == "reset":
            seed, task, mask = what
            options = ({} if task is None else {"task": task}) | ({} if mask is None else {"reset_mask": mask.copy()})
            seen.append(env.reset(seed=seed, options=options))
            done = done & (False if mask is None else ~mask)
        if mode == "DISABLED" and done.any():
            seen.append(env.reset(options={"reset_mask": done.copy()}))
        seen.append(env.step(rng.uniform(-1, 1, (n, 2)).astype(np.float32)))
        done = seen[-1][2] | seen[-1][3]
    return seen


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 4),
    mode=st.sampled_from(MODES),
    limit=st.integers(1, 6),
    per_task=st.sampled_from([None, 1, 2, 3]),
    pool=st.sampled_from([None, [{"goal": [0.1, 0.1]}, {"goal": [0.2, -0.5]}, {"goal": [1.0, 1.0]}]]),
)
def test_any_history_of_resets_is_the_same_in_sync_vector_env(seed, n, mode, limit, per_task, pool):
    kwargs = {"max_episode_steps": limit, "episodes_per_task": per_task, "tasks": pool}
    ops = _ops(seed, 25, n)
    native = _play(batch("PointSparse-pb", n, mode, **kwargs), ops, n, mode)
    same(native, _play(sync("PointSparse-pb", n, mode, **kwargs), ops, n, mode))


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(ANALYTIC),
    seed=st.integers(0, 2**62),
    n=st.integers(1, 5),
    steps=st.integers(1, 40),
    mode=st.sampled_from(MODES),
)
def test_any_seed_size_and_length_is_the_same_in_sync_vector_env(name, seed, n, steps, mode):
    actions = actions_of(name, steps, n)
    native = rollout(batch(name, n, mode), mode, actions, seed)
    same(native, rollout(sync(name, n, mode), mode, actions, seed))


def test_a_partial_reset_leaves_the_other_rows_alone():
    actions = actions_of("Bandit-gaussian", 80, 3)
    env, twin = (batch("Bandit-gaussian", 3, "DISABLED") for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    for t, action in enumerate(actions):
        got, want = env.step(action), twin.step(action)
        same([row_of(x, 1) for x in got], [row_of(x, 1) for x in want])
        if t % 9 == 8:
            env.reset(seed=t, options={"reset_mask": np.array([True, False, t % 2 == 0]), "task": "resample"})


# --- state ------------------------------------------------------------------------------------------------


@every_mode
@runs
def test_a_batch_goes_on_from_its_state_as_it_did(name, kwargs, steps, mode):
    actions = actions_of(name, 24, 3)
    env = batch(name, 3, mode, **kwargs)
    rollout(env, mode, actions[:9])
    state = env.get_state()
    kept = copy.deepcopy(state)
    first = rollout(env, mode, actions[9:], seed=None)
    for again in (env, batch(name, 3, mode, **kwargs)):  # the second has never been reset
        again.set_state(state)
        same(rollout(again, mode, actions[9:], seed=None), first)
    same(state, kept)  # neither steps nor set_state wrote to it
    env.set_state(pickle.loads(pickle.dumps(state)))
    same(rollout(env, mode, actions[9:], seed=None), first)
    same(env.get_state(), again.get_state())


@runs
def test_a_single_env_goes_on_from_its_state_as_it_did(name, kwargs, steps):
    options = {k: v for k, v in kwargs.items() if k != "max_episode_steps"}
    actions = actions_of(name, 24, 1)[:, 0]

    def play(env: Any) -> list[Any]:
        seen = []
        for action in actions[9:]:
            seen.append(env.step(action))
            if seen[-1][2]:
                seen.append(env.reset())
        return [*seen, env.reset(), env.step(actions[0]), env.reset(options={"task": "resample"})]

    env = single(name, **options).unwrapped
    env.reset(seed=2)
    for action in actions[:9]:
        if env.step(action)[2]:
            env.reset()
    state = env.get_state()
    first = play(env)
    for again in (env, single(name, **options).unwrapped):
        again.set_state(state)
        same(play(again), first)


def test_a_state_holds_tasks_and_what_pins_them():
    env, other = batch("AntDir-l2l", 2), batch("AntDir-l2l", 2)
    env.reset(seed=0, options={"task": {"angle": [1.0, 2.0], "friction": [0.2, 3.0]}})
    other.reset(seed=9, options={"task": {"angle": 0.5, "friction": 0.1}})
    other.set_state(env.get_state())
    same(other.engine.task._asdict(), env.engine.task._asdict())
    actions = actions_of("AntDir-l2l", 6, 2)
    same([env.step(a) for a in actions], [other.step(a) for a in actions])
    same(env.reset(seed=1), other.reset(seed=1))  # still pinned
    assert other.engine.task.angle.tolist() == [1.0, 2.0]


def test_a_row_that_waits_for_its_reset_still_waits_after_set_state():
    actions = actions_of("PointGoal-maml", 8, 3)
    env, other = (batch("PointGoal-maml", 3, "NEXT_STEP", **NEAR) for _ in range(2))
    env.reset(seed=3)
    for t, action in enumerate(actions[:5]):
        _, _, terminated, _, _ = env.step(action)
        if terminated.any():
            other.set_state(env.get_state())
            same([env.step(a) for a in actions[t:]], [other.step(a) for a in actions[t:]])
            return
    raise AssertionError("no row ended")


# --- tasks over episodes ----------------------------------------------------------------------------------


def test_a_task_stays_until_asked():
    env = single("PointGoal")
    first = env.reset(seed=0)[1]["task"]["goal"]
    assert all((env.reset()[1]["task"]["goal"] == first).all() for _ in range(5))
    assert (env.step(env.action_space.sample())[4]["task"]["goal"] == first).all()
    second = env.reset(seed=1)[1]["task"]["goal"]
    assert (second != first).any()
    assert (env.reset()[1]["task"]["goal"] == second).all()
    third = env.reset(options={"task": "resample"})[1]["task"]["goal"]
    assert (third != second).any()
    assert (env.reset()[1]["task"]["goal"] == third).all()
    assert (env.reset(seed=0)[1]["task"]["goal"] == first).all()


@pytest.mark.parametrize("by", ["make", "reset"])
def test_a_pinned_task_survives_seeds_until_resampled(by):
    task = {"goal": [0.25, -0.5]}
    env = single("PointGoal", task=task, episodes_per_task=1) if by == "make" else single("PointGoal")
    env.reset(seed=0, options=None if by == "make" else {"task": task})
    for seed in (None, 1, 2, None):
        assert env.reset(seed=seed)[1]["task"]["goal"].tolist() == task["goal"]
    assert env.reset(options={"task": "resample"})[1]["task"]["goal"].tolist() != task["goal"]
    # Unpinned for good: the seed's own task again.
    drawn = single("PointGoal").reset(seed=7)[1]["task"]["goal"]
    assert (env.reset(seed=7)[1]["task"]["goal"] == drawn).all()


def test_pinning_does_not_change_the_rest_of_a_seed():
    drawn = single("PointGoal-pearl").reset(seed=5)
    pinned = single("PointGoal-pearl", task={"goal": [0.5, 0.5]}).reset(seed=5)
    same(drawn[0], pinned[0])  # the start is random


def test_rows_are_pinned_and_resampled_one_by_one():
    env = batch("PointGoal", 3, "DISABLED")
    before = env.reset(seed=0)[1]["task"]["goal"]
    mask = np.array([False, True, False])
    infos = env.reset(options={"task": {"goal": [0.5, 0.5]}, "reset_mask": mask})[1]
    assert infos["_task"].tolist() == infos["task"]["_goal"].tolist() == mask.tolist()
    env.reset(seed=0)
    after = env.reset()[1]["task"]["goal"]
    assert after[1].tolist() == [0.5, 0.5]
    assert (after[[0, 2]] == before[[0, 2]]).all()
    resampled = env.reset(options={"task": "resample", "reset_mask": np.array([True, False, False])})
    assert resampled[1]["task"]["goal"][1:].tolist() == [[0, 0], [0, 0]]  # of rows that are not shown
    goals = env.reset()[1]["task"]["goal"]
    assert (goals[0] != before[0]).any()
    assert goals[1].tolist() == [0.5, 0.5]
    env.reset(options={"task": "resample"})
    assert (env.reset(seed=0)[1]["task"]["goal"] == before).all()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_task_lasts_k_episodes_in_rows_as_in_single_envs(k):
    env, envs = single("PointGoal", episodes_per_task=k), batch("PointGoal", 3, "SAME_STEP", episodes_per_task=k)
    goals = [env.reset(seed=4)[1]["task"]["goal"]] + [env.reset()[1]["task"]["goal"] for _ in range(8)]
    for e in range(1, 9):
        assert (goals[e] == goals[e - 1]).all() == (e % k != 0)
    rows = [envs.reset(seed=3)[1]["task"]["goal"][1]]
    while len(rows) < 9:
        _, _, _, truncated, infos = envs.step(np.zeros((3, 2), np.float32))
        rows += [infos["task"]["goal"][1]] if truncated[1] else []
    same(goals, rows)


def test_episodes_are_counted_a_row_at_a_time():
    env = batch("PointGoal", 2, "DISABLED", episodes_per_task=2)
    first = env.reset(seed=0)[1]["task"]["goal"].copy()
    only_0 = np.array([True, False])
    env.reset(options={"reset_mask": only_0})
    assert (env.engine.task.goal == first).all()
    env.reset(options={"reset_mask": only_0})
    assert (env.engine.task.goal[0] != first[0]).any()
    assert (env.engine.task.goal[1] == first[1]).all()


def test_a_pinned_task_counts_from_where_it_is_freed():
    env = single("PointGoal", episodes_per_task=2)
    env.reset(seed=0)
    env.reset(options={"task": {"goal": [1.0, 1.0]}})
    assert all(env.reset()[1]["task"]["goal"].tolist() == [1.0, 1.0] for _ in range(4))
    one = env.reset(options={"task": "resample"})[1]["task"]["goal"]
    two = env.reset()[1]["task"]["goal"]
    three = env.reset()[1]["task"]["goal"]
    assert (one == two).all()
    assert (three != one).any()


def test_tasks_restrict_what_is_drawn(tmp_path):
    pool = [{"goal": [0.1, 0.2]}, {"goal": [0.3, 0.4]}, {"goal": [-0.5, 0.6]}]
    file = tmp_path / "pool.json"
    file.write_text(str(pool).replace("'", '"'))
    given_as = (pool, str(file), file, kshot.variant("PointGoal-v0").family.task(np.array([t["goal"] for t in pool])))
    first, *others = (batch("PointGoal", 60, tasks=given).reset(seed=0) for given in given_as)
    for other in others:
        same(first, other)
    drawn = {tuple(goal) for goal in first[1]["task"]["goal"]}
    assert drawn == {tuple(task["goal"]) for task in pool}
    env = single("PointGoal", tasks=pool, episodes_per_task=1)
    assert all(tuple(env.reset()[1]["task"]["goal"]) in drawn for _ in range(10))
    # A task outside the pool may still be pinned.
    assert env.reset(options={"task": {"goal": [1.0, 1.0]}})[1]["task"]["goal"].tolist() == [1.0, 1.0]


def test_splits_of_one_law_give_other_tasks_and_the_same_episode_otherwise():
    train, test = (batch("PointGoal-pearl", 3, split=split).reset(seed=0) for split in ("train", "test"))
    assert (train[1]["task"]["goal"] != test[1]["task"]["goal"]).any(1).all()
    same(train[0], test[0])


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_a_time_limit_at_the_horizon_of_the_problem_ends_the_episode_once(mode):
    env = gym.make_vec("kshot/Bandit-k5n10-v0", num_envs=4, max_episode_steps=10, autoreset_mode=mode)
    env.reset(seed=0)
    ends = [bool(env.step(np.zeros(4, np.int64))[2].all()) for _ in range(32)]
    period = 11 if mode == "next_step" else 10
    assert [i + 1 for i, over in enumerate(ends) if over] == list(range(10, 33, period))
