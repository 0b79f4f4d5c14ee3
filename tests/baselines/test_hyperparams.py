"""The hyperparameter files for rl-baselines3-zoo: what they name exists, and every entry trains."""

import importlib
import inspect
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml

import kshot
from kshot.single import KshotEnv
from kshot.wrappers import base_of

torch = pytest.importorskip("torch")
sb3 = pytest.importorskip("stable_baselines3")
contrib = pytest.importorskip("sb3_contrib")

from stable_baselines3.common.env_util import make_vec_env  # noqa: E402
from stable_baselines3.common.vec_env import VecNormalize  # noqa: E402

FILES = sorted((Path(__file__).parents[2] / "baselines/hyperparams").glob("*.yml"))
ALGORITHMS = {"ppo": sb3.PPO, "sac": sb3.SAC, "ppo_lstm": contrib.RecurrentPPO}  # by rl-zoo's names
ZOO = {"n_timesteps", "n_envs", "env_kwargs", "env_wrapper", "normalize"}  # rl-zoo's own keys, of which we use these
SCHEDULES = ("learning_rate", "clip_range")  # as rl-zoo reads "lin_…"
ENTRIES = [
    pytest.param(file.stem, id, entry, id=f"{file.stem}-{id.removeprefix('kshot/')}")
    for file in FILES
    for id, entry in yaml.safe_load(file.read_text()).items()
]
BODIES = {v.id for v in kshot.VARIANTS.values() if v.body is not None}
ANALYTIC = [p for p in ENTRIES if p.values[1] not in BODIES]
DEFAULTS = {v.family.name: v for v in reversed(kshot.VARIANTS.values())}


def evaluated(text):
    """Return what rl-zoo makes of a "dict(…)"."""
    return eval(text, {"nn": torch.nn})


def env_id(id):
    return "kshot/PointGoal-v0" if id == "default" else id


def make(id, entry):
    """Return one environment as rl-zoo makes it."""
    env = gym.make(env_id(id), **entry.get("env_kwargs", {}))
    if "env_wrapper" in entry:
        module, _, name = entry["env_wrapper"].rpartition(".")
        env = getattr(importlib.import_module(module), name)(env)
    return env


def arguments(entry):
    """Return what rl-zoo hands to the algorithm."""
    given = {key: value for key, value in entry.items() if key not in ZOO}
    for key in SCHEDULES:
        if isinstance(given.get(key), str):
            kind, start = given[key].split("_")
            assert kind == "lin"
            given[key] = float(start)
    return {**given, "policy_kwargs": evaluated(given["policy_kwargs"])}


def test_every_family_has_its_parameters():
    assert {file.stem for file in FILES} == set(ALGORITHMS)
    for name in ("ppo", "ppo_lstm"):
        (file,) = [f for f in FILES if f.stem == name]
        assert set(yaml.safe_load(file.read_text())) == {"default", *(v.id for v in DEFAULTS.values())}


@pytest.mark.parametrize(("algorithm", "id", "entry"), ENTRIES)
def test_every_name_exists(algorithm, id, entry):
    assert id == "default" or id in kshot.VARIANTS
    known = set(inspect.signature(ALGORITHMS[algorithm]).parameters)
    assert set(entry) - ZOO <= known - {"env", "seed", "verbose", "device", "tensorboard_log"}  # those rl-zoo gives
    assert entry["policy"] in ALGORITHMS[algorithm].policy_aliases
    policy = inspect.signature(ALGORITHMS[algorithm].policy_aliases[entry["policy"]]).parameters
    assert set(evaluated(entry["policy_kwargs"])) <= set(policy)
    if "normalize" in entry:
        assert set(evaluated(entry["normalize"])) <= set(inspect.signature(VecNormalize).parameters)
    for key in SCHEDULES:
        if isinstance(entry.get(key), float):
            assert entry[key] > 0


@pytest.mark.parametrize(("algorithm", "id", "entry"), ENTRIES)
def test_every_episode_of_the_learner_draws_a_task(algorithm, id, entry):
    env = make(id, entry)
    env.reset(seed=0)
    drawn = []
    for _ in range(5):  # of so few a finite law may give twins
        drawn.append(base_of(env, KshotEnv).engine.task)
        env.reset()
    assert any(not np.array_equal(a, b) for task in drawn[1:] for a, b in zip(drawn[0], task, strict=True))


@pytest.mark.parametrize(("algorithm", "id", "entry"), ENTRIES)
def test_batches_are_whole(algorithm, id, entry):
    if algorithm == "sac":
        assert entry["learning_starts"] < entry["n_timesteps"]
        assert entry["buffer_size"] <= entry["n_timesteps"]
    else:
        assert entry["n_envs"] * entry["n_steps"] % entry["batch_size"] == 0


@pytest.mark.parametrize(("algorithm", "id", "entry"), ANALYTIC)
def test_every_entry_trains(algorithm, id, entry):
    envs = make_vec_env(lambda: make(id, entry), 2, seed=0)
    if "normalize" in entry:
        envs = VecNormalize(envs, **evaluated(entry["normalize"]), gamma=entry["gamma"])
    small = {"n_steps": 8, "batch_size": 16, "n_epochs": 1, "learning_starts": 8, "buffer_size": 100}
    given = {**arguments(entry), **{key: value for key, value in small.items() if key in entry}}
    model = ALGORITHMS[algorithm](env=envs, seed=0, device="cpu", **given)
    before = [x.detach().clone() for x in model.policy.parameters()]
    model.learn(24)
    assert any((a != b).any() for a, b in zip(before, model.policy.parameters(), strict=True))
    assert model.num_timesteps >= 24
    envs.close()
