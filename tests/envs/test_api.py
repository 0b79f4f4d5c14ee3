"""The face that Gymnasium, Stable-Baselines3 and their wrappers see."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics
from stable_baselines3.common.env_checker import check_env as check_sb3

import kshot

ALL = list(kshot.VARIANTS)
SPLITS = [(id, split) for id, v in kshot.VARIANTS.items() for split in v.splits]
every_id = pytest.mark.parametrize("id", ALL)
# One of every family and body, with every kind of state that an array could share memory with.
SOME = tuple(
    f"kshot/{name}-v0"
    for name in (
        "Bandit-k5n10",
        "TabularMDP-n10",
        "GridNav",
        "PointGoal",
        "PointSparse-metacure-noise",
        "PointRotated",
        "HalfCheetahVel",
        "HalfCheetahVel-maml",
        "HalfCheetahDir-pearl",
        "AntDir",
        "AntDir-maml",
        "AntGoal-promp",
    )
)


def fresh(code: str) -> str:
    """Run code in a new process, where warnings are errors, and return what it prints."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kind(x: Any) -> Any:
    """Return the structure of a nest: keys, types, shapes."""
    if isinstance(x, dict):
        return {k: kind(v) for k, v in x.items()}
    return (type(x), x.dtype, x.shape) if isinstance(x, np.ndarray) else type(x)


# --- checkers, registration -------------------------------------------------------------------------------


# Some papers' actions lie in ±0.1; SB3 advises ±1.
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box action space:UserWarning")
@pytest.mark.parametrize(("id", "split"), SPLITS)
def test_the_checkers_of_gymnasium_and_sb3_pass(id, split):
    env = gym.make(id, split=split).unwrapped
    check_env(env, skip_render_check=True)
    check_sb3(gym.make(id, split=split), skip_render_check=True)


def test_gymnasiums_own_prefix_imports_kshot():
    code = "import gymnasium as gym; e = gym.make('kshot:kshot/PointGoal-v0'); e.reset(seed=0); print(e.spec.id)"
    assert fresh(code) == "kshot/PointGoal-v0\n"
    code = "import gymnasium as gym; print(gym.make_vec('kshot:kshot/PointGoal-v0', 3).reset(seed=0)[0].shape)"
    assert fresh(code) == "(3, 2)\n"


def test_importing_kshot_is_light_and_silent():
    heavy = ("torch", "stable_baselines3", "pygame", "OpenGL", "pydantic", "imageio", "typer", "rich")
    code = f"import kshot, sys; print([m for m in {heavy} if m in sys.modules], 'kshot_baselines' in sys.modules)"
    assert fresh(code) == "[] False\n"
    # Nor does running an environment.
    code = (
        "import kshot, sys, gymnasium as gym\n"
        "for id in ('PointGoal', 'AntDir'):\n"
        "    envs = gym.make_vec(f'kshot/{id}-v0', 2); envs.reset(seed=0); envs.step(envs.action_space.sample())\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    assert fresh(code) == "[]\n"


def test_importing_kshot_leaves_the_global_generators_alone():
    code = (
        "import random, numpy as np\n"
        "random.seed(1); np.random.seed(1); a = random.getstate(), np.random.get_state()[1].tolist()\n"
        "import kshot, gymnasium as gym; e = gym.make('kshot/AntDir-v0'); e.reset(seed=3); e.step([0] * 8)\n"
        "print(a == (random.getstate(), np.random.get_state()[1].tolist()))"
    )
    assert fresh(code) == "True\n"


@every_id
def test_specs_are_json_and_make_what_they_say(id):
    variant, spec = kshot.VARIANTS[id], gym.spec(id)
    assert EnvSpec.from_json(spec.to_json()) == spec
    assert spec.max_episode_steps == (None if variant.horizon_terminates else variant.horizon)
    env = gym.make(id, split="test")
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec
    assert again.unwrapped.engine.split == "test"
    envs = gym.make_vec(id, 2, split="test", autoreset_mode="SAME_STEP")
    made = gym.make_vec(EnvSpec.from_json(envs.spec.to_json()), num_envs=2)
    assert made.num_envs == 2
    assert made.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert made.unwrapped.engine.split == "test"
    assert (made.reset(seed=0)[0] == envs.reset(seed=0)[0]).all()


def test_ids_follow_gymnasiums_grammar_and_the_registry():
    registered = {id for id in gym.registry if id.startswith("kshot/")}
    assert registered == set(ALL)
    assert all(gym.spec(id).entry_point == "kshot.single:KshotEnv" for id in ALL)
    assert all(gym.spec(id).vector_entry_point == "kshot.vector:KshotVectorEnv" for id in ALL)


@every_id
def test_episodes_have_their_horizon(id):
    variant = kshot.VARIANTS[id]
    if variant.body is not None and variant.family.terminated is not None:
        limit, kwargs = 5, {"max_episode_steps": 5}  # a body that falls ends earlier
    else:
        limit, kwargs = variant.horizon, {}
    env, envs = gym.make(id, **kwargs), gym.make_vec(id, 1, autoreset_mode="SAME_STEP", **kwargs)
    action = np.zeros(variant.action_space.shape, variant.action_space.dtype)
    env.reset(seed=0)
    envs.reset(seed=0)
    for t in range(1, limit + 1):
        _, _, over, cut, _ = env.step(action)
        _, _, terminated, truncated, _ = envs.step(action[None])
        assert (over, cut) == (terminated[0], truncated[0])
        assert (over or cut) == (t == limit)
        assert not over or variant.horizon_terminates
        assert not cut or not variant.horizon_terminates


@pytest.mark.parametrize("id", ["kshot/PointGoal-v0", "kshot/HalfCheetahVel-v0", "kshot/Bandit-k5n10-v0"])
@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_max_episode_steps_overrides_the_time_limit(id, mode):
    env, envs = gym.make(id, max_episode_steps=3), gym.make_vec(id, 2, mode, max_episode_steps=3)
    assert env.spec.max_episode_steps == 3
    env.reset(seed=0)
    envs.reset(seed=0)
    cuts = []
    for _ in range(3):
        _, _, over, cut, _ = env.step(env.action_space.sample())
        _, _, terminated, truncated, _ = envs.step(envs.action_space.sample())
        assert not over
        assert not terminated.any()
        cuts.append((cut, *truncated.tolist()))
    assert cuts == [(False,) * 3, (False,) * 3, (True,) * 3]


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_a_time_limit_of_minus_one_is_none(mode):
    # Gymnasium: "max_episode_steps=-1 will not apply the wrapper".
    envs = gym.make_vec("kshot/PointGoal-v0", 2, mode, max_episode_steps=-1)
    envs.reset(seed=0)
    assert not any(envs.step(envs.action_space.sample())[3].any() for _ in range(30))


# --- what a step returns ----------------------------------------------------------------------------------


@every_id
def test_rewards_are_sums_of_terms_and_infos_keep_their_structure(id):
    env = gym.make(id)
    env.action_space.seed(0)
    assert list(env.reset(seed=0)[1]) == ["task"]
    first = None
    for _ in range(6):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
        assert obs.dtype == np.float64
        assert env.observation_space.contains(obs)
        terms = [value for key, value in info.items() if key.startswith("reward_")]
        assert terms
        assert reward == pytest.approx(sum(terms), rel=1e-14, abs=1e-14)
        assert env.unwrapped.variant.task_space.contains(
            {k: np.asarray(v, np.float64) for k, v in info["task"].items()}
        )
        first = first or kind(info)
        assert kind(info) == first
        assert "diverged" not in info or info["diverged"] is False
        if terminated or truncated:
            assert list(env.reset()[1]) == ["task"]


@every_id
def test_batches_return_what_their_spaces_say(id):
    envs = gym.make_vec(id, 3)
    envs.action_space.seed(0)
    obs, _ = envs.reset(seed=0)
    for _ in range(3):
        assert obs.dtype == np.float64
        assert envs.observation_space.contains(obs)
        assert obs.flags.c_contiguous
        obs, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
        assert [(x.dtype, x.shape) for x in (rewards, terminated, truncated)] == [(float, (3,))] + [(bool, (3,))] * 2
        total = sum(value for key, value in infos.items() if key.startswith("reward_"))
        np.testing.assert_allclose(rewards, total, rtol=1e-14, atol=1e-14)
        assert all(f"_{key}" in infos for key in infos if not key.startswith("_"))


def _arrays(x: Any, where: str = "") -> list[tuple[str, np.ndarray]]:
    """Return all arrays of a nest."""
    if isinstance(x, dict):
        return [found for k, v in x.items() for found in _arrays(v, f"{where}.{k}")]
    if isinstance(x, (tuple, list)) or (isinstance(x, np.ndarray) and x.dtype == object):
        return [found for i, v in enumerate(x) for found in _arrays(v, f"{where}.{i}")]
    return [(where, x)] if isinstance(x, np.ndarray) else []


@pytest.mark.parametrize("id", SOME)
@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
def test_writing_to_what_was_returned_changes_no_future(id, mode):
    """A careless user scribbles over every returned array and every array given; a careful one does not."""
    kwargs = {} if kshot.VARIANTS[id].horizon_terminates else {"max_episode_steps": 5}
    env, twin = (gym.make_vec(id, 3, autoreset_mode=mode, episodes_per_task=1, **kwargs) for _ in range(2))
    env.action_space.seed(0)
    seeds, twins_seeds = [4, 5, 6], [4, 5, 6]

    def scribble(*given: Any) -> None:
        for _, x in _arrays(given):
            if x.flags.writeable:
                x[...] = 1 if x.dtype == bool else -7

    got, want = env.reset(seed=seeds), twin.reset(seed=twins_seeds)
    seeds[:] = [0, 0, 0]
    for _ in range(12):
        for (name, x), (_, y) in zip(_arrays(got), _arrays(want), strict=True):
            assert (x == y).all(), name
        ended = want[2] | want[3] if len(want) == 5 else np.zeros(3, bool)
        scribble(got)
        states = _arrays((env.get_state(), twin.get_state()))
        half = len(states) // 2
        for (name, x), (_, y) in zip(states[:half], states[half:], strict=True):
            assert (x == y).all(), f"{name} of the state was written through what a step returned"
        if mode == "DISABLED" and ended.any():
            options = {"reset_mask": ended.copy()}
            got, want = env.reset(options=options), twin.reset(options={"reset_mask": ended})
            assert list(options) == ["reset_mask"]
            scribble(options)
            continue
        action = env.action_space.sample()
        given = action.copy()
        got, want = env.step(given), twin.step(action)
        assert (given == action).all()
        scribble(given)


@pytest.mark.parametrize("id", SOME)
def test_what_was_returned_stays_as_it_was(id):
    """A rollout buffer may keep references: later steps and resets write to nothing that was handed out."""
    kwargs = {} if kshot.VARIANTS[id].horizon_terminates else {"max_episode_steps": 5}
    env = gym.make_vec(id, 3, autoreset_mode="SAME_STEP", episodes_per_task=1, **kwargs)
    env.action_space.seed(0)
    kept = [env.reset(seed=0)]
    copies = [copy.deepcopy(kept[0])]
    for _ in range(12):
        kept.append(env.step(env.action_space.sample()))
        copies.append(copy.deepcopy(kept[-1]))
    env.reset(seed=1)
    for t, (x, y) in enumerate(zip(kept, copies, strict=True)):
        for (name, a), (_, b) in zip(_arrays(x), _arrays(y), strict=True):
            assert (a == b).all(), f"{name} of step {t}"


@pytest.mark.parametrize("id", SOME)
def test_arrays_of_a_step_share_no_memory_with_each_other_or_the_state(id):
    env = gym.make_vec(id, 3, autoreset_mode="SAME_STEP")
    env.action_space.seed(0)
    env.reset(seed=0)
    state = [(f"state.{k}", x) for k, x in env.engine.state._asdict().items() if isinstance(x, np.ndarray)]
    shown = []
    for _ in range(2):
        step = [(name, x) for name, x in _arrays(env.step(env.action_space.sample())) if x.flags.writeable]
        shown += [(name, x) for name, x in step if not name.rsplit(".", 1)[-1].startswith("_")]  # masks may
        state += [(f"state.{k}", x) for k, x in env.engine.state._asdict().items() if isinstance(x, np.ndarray)]
    for i, (name, x) in enumerate(shown):
        for other, y in (*shown[i + 1 :], *state):
            assert not np.shares_memory(x, y), f"{name} and {other}"


@pytest.mark.parametrize("id", SOME)
def test_writing_to_what_a_single_env_returned_changes_no_future(id):
    env, twin = gym.make(id, episodes_per_task=1), gym.make(id, episodes_per_task=1)
    env.action_space.seed(0)
    task = twin.reset(seed=3)[1]["task"]
    got, want = env.reset(seed=3, options={"task": task}), twin.reset(seed=3, options={"task": copy.deepcopy(task)})
    for x in task.values():
        if isinstance(x, np.ndarray):
            x[...] = -7
    for _ in range(5):
        for (name, x), (_, y) in zip(_arrays(got), _arrays(want), strict=True):
            assert (x == y).all(), name
            x[...] = -7
        got[-1]["task"].clear()
        action = np.asarray(env.action_space.sample())
        given = action.copy()
        got, want = env.step(given), twin.step(action)
        given[...] = 0
        assert got[1] == want[1]


def test_options_and_tasks_given_are_not_written_to():
    goals = np.array([[0.1, 0.2], [0.3, 0.4]])
    options = {"task": {"goal": goals}, "reset_mask": np.array([True, False])}
    before = copy.deepcopy(options)
    env = gym.make_vec("kshot/PointGoal-v0", 2)
    env.reset(seed=0)
    infos = env.reset(options=options)[1]
    assert list(options) == list(before)
    assert options["reset_mask"].tolist() == [True, False]
    options["reset_mask"][:] = [False, True]
    assert infos["_task"].tolist() == [True, False]  # its own copy
    assert (goals == before["task"]["goal"]).all()
    goals[:] = 9
    assert env.engine.task.goal[0].tolist() == [0.1, 0.2]


# --- wrappers and company ---------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["kshot/PointGoal-maml-v0", "kshot/HalfCheetahVel-v0"])
def test_async_vector_env_gives_the_same(id):
    make = "vectorization_mode"
    envs, other = gym.make_vec(id, 2, **{make: "async"}, max_episode_steps=4), gym.make_vec(id, 2, max_episode_steps=4)
    assert isinstance(envs, AsyncVectorEnv)
    envs.action_space.seed(0)
    try:
        assert (envs.reset(seed=0)[0] == other.reset(seed=0)[0]).all()
        for _ in range(8):
            action = envs.action_space.sample()
            got, want = envs.step(action), other.step(action)
            for x, y in zip(got[:4], want[:4], strict=True):
                assert (x == y).all()
            assert set(got[4]) == set(want[4])
    finally:
        envs.close()


@pytest.mark.parametrize("id", ["kshot/PointGoal-v0", "kshot/HalfCheetahVel-v0", "kshot/TabularMDP-n10-v0"])
def test_gymnasiums_vector_wrappers_run(id):
    kwargs = {} if kshot.VARIANTS[id].horizon_terminates else {"max_episode_steps": 10}
    plain = gym.make_vec(id, 3, **kwargs)
    envs = RecordEpisodeStatistics(NormalizeObservation(gym.make_vec(id, 3, **kwargs)))
    envs.action_space.seed(0)
    envs.reset(seed=0)
    plain.reset(seed=0)
    total, lengths = np.zeros(3), []
    for _ in range(10):
        action = envs.action_space.sample()
        obs, _, _, _, infos = envs.step(action)
        total += plain.step(action)[1]
        assert np.isfinite(obs).all()
        if "episode" in infos:
            lengths.append(infos["episode"]["l"].tolist())
    assert lengths == [[10, 10, 10]]
    np.testing.assert_allclose(infos["episode"]["r"], total, rtol=1e-6)


def test_gymnasiums_benchmark_runs():
    from gymnasium.utils.performance import benchmark_vector_step

    assert benchmark_vector_step(gym.make_vec("kshot/PointGoal-v0", 4), target_duration=0.05, seed=0) > 0


def _make() -> gym.Env[Any, Any]:
    return gym.make("kshot/PointGoal-v0", split="test")


def test_factories_and_environments_survive_pickling():
    factory = lambda: gym.make("kshot/AntDir-v0", split="ood-quarter")  # noqa: E731
    obs = cloudpickle.loads(cloudpickle.dumps(factory))().reset(seed=0)[0]
    assert (obs == factory().reset(seed=0)[0]).all()
    made = cloudpickle.loads(cloudpickle.dumps(_make))()
    assert made.unwrapped.engine.split == "test"
    spec = pickle.loads(pickle.dumps(gym.make("kshot/AntDir-v0").spec))
    assert spec == gym.make("kshot/AntDir-v0").spec
    for id in ("kshot/PointGoal-v0", "kshot/Bandit-k5n10-v0", "kshot/AntDir-v0"):
        for env in (gym.make(id), gym.make_vec(id, 2, episodes_per_task=2)):
            env.reset(seed=0)
            for copied in (copy.deepcopy, lambda x: cloudpickle.loads(cloudpickle.dumps(x))):
                twin = copied(env)
                for _ in range(12):
                    action = env.action_space.sample()
                    ours, theirs = env.step(action), twin.step(action)
                    assert (ours[0] == theirs[0]).all()
                    assert np.all(ours[1] == theirs[1])
                    if np.ndim(ours[2]) == 0 and (ours[2] or ours[3]):
                        env.reset(), twin.reset()


def test_sync_vector_env_of_plain_factories_works():
    envs = SyncVectorEnv([_make] * 2)
    assert envs.reset(seed=0)[0].shape == (2, 2)
    assert (envs.reset(seed=0)[0] == gym.make_vec("kshot/PointGoal-v0", 2, split="test").reset(seed=0)[0]).all()


@pytest.mark.parametrize("name", ["same_step", "SAME_STEP", "SameStep", AutoresetMode.SAME_STEP])
def test_autoreset_modes_go_by_name_too(name):
    envs = gym.make_vec("kshot/PointGoal-v0", 2, autoreset_mode=name)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert gym.make_vec("kshot/PointGoal-v0", 2).metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert "autoreset_mode" not in gym.make("kshot/PointGoal-v0").metadata


@every_id
def test_the_first_observation_does_not_depend_on_global_state(id):
    np.random.seed(0)
    one = gym.make(id).reset(seed=9)[0]
    np.random.seed(1)
    assert (gym.make(id).reset(seed=9)[0] == one).all()


def test_closing_twice_is_fine_and_frees_nothing_twice():
    for env in (gym.make("kshot/PointGoal-v0"), gym.make_vec("kshot/PointGoal-v0", 2)):
        env.reset(seed=0)
        env.close()
        env.close()


def test_public_names_are_few_and_all_there():
    assert len(kshot.__all__) <= 12
    assert all(getattr(kshot, name) is not None for name in kshot.__all__)
    assert kshot.variant("kshot:kshot/PointGoal-v0") is kshot.variant("PointGoal-v0")
    with pytest.raises(TypeError):
        kshot.VARIANTS["kshot/Mine-v0"] = None  # type: ignore[index]
