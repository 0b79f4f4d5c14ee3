"""Policy files: what a stranger may send, run by NumPy alone, and what is refused."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.numpy import save
from sb3_contrib import QRDQN, TQC, TRPO, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

import kshot
from kshot.agents import PrivilegedAgent, make_agent
from kshot.agents.policy import MAX_BYTES, Header, PolicyAgent, PolicyError, load_policy, read_file, save_policy
from kshot.agents.sb3 import ZeroShotAgent, export_policy
from kshot.sb3 import as_sb3_vecenv
from kshot.wrappers import VectorTaskInObservation

POINT, GRID = kshot.variant("PointGoal-v0"), kshot.variant("GridNav-v0")
RNG = np.random.default_rng(0)


def header(**fields):
    told = {"name": "mine", "variant": POINT.id, "activation": "tanh", "output": "action", "training_steps": 7}
    return Header(**{**told, **fields})


def mlp(*widths, seed=0):
    rng = np.random.default_rng(seed)
    tensors = {}
    for i, (k, n) in enumerate(pairwise(widths)):
        tensors[f"{i}.weight"] = rng.normal(0, 1, (n, k)).astype(np.float32)
        tensors[f"{i}.bias"] = rng.normal(0, 1, n).astype(np.float32)
    return tensors


def written(path, tensors=None, **fields):
    save_policy(path, header(**fields), mlp(2, 8, 2) if tensors is None else tensors)
    return path


def raw(path, tensors, **fields):
    """Write a file without the checks of `save_policy`."""
    text = json.dumps({**header().model_dump(), **fields})
    path.write_bytes(save(tensors, {"kshot": text}))
    return path


def refuses(call, *words, kind=PolicyError):
    with pytest.raises(kind) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


# --- what a file computes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tanh", nn.Tanh()),
        ("relu", nn.ReLU()),
        ("leaky_relu", nn.LeakyReLU()),
        ("elu", nn.ELU()),
        ("silu", nn.SiLU()),
    ],
)
def test_a_network_computes_what_torch_does_in_float64(tmp_path, name, module):
    tensors = mlp(2, 5, 6, 2)
    layers = [nn.Linear(2, 5), module, nn.Linear(5, 6), module, nn.Linear(6, 2)]
    for i, layer in enumerate(layers[::2]):
        layer.load_state_dict({k: torch.tensor(tensors[f"{i}.{k}"]) for k in ("weight", "bias")})
    x = RNG.normal(0, 20, (50, 2))
    want = nn.Sequential(*layers).double()(torch.tensor(x)).detach().numpy()
    got = load_policy(written(tmp_path / "p.safetensors", tensors, activation=name)).forward(x)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_observations_are_normalised_and_clipped(tmp_path):
    tensors = {"0.weight": np.eye(2), "0.bias": np.zeros(2)}
    tensors |= {"observation.mean": np.array([1.0, -2.0]), "observation.scale": np.array([0.5, 4.0])}
    policy = load_policy(written(tmp_path / "p.safetensors", tensors, clip=1.5))
    assert policy.forward(np.array([[1.25, 2.0], [9.0, -99.0]])).tolist() == [[0.5, 1.0], [1.5, -1.5]]


def test_outputs_become_actions(tmp_path):
    box = spaces.Box(np.float32([-1, 0]), np.float32([3, 10]))
    path, x, rng = tmp_path / "p.safetensors", np.array([[0.0, 0.5], [-8.0, 8.0]]), np.random.default_rng(0)
    identity = {"0.weight": np.eye(2), "0.bias": np.zeros(2)}
    assert load_policy(written(path, identity)).act(x, box, rng).tolist() == [[0, 0.5], [-1, 8]]
    squashed = load_policy(written(path, identity, output="tanh")).act(x, box, rng)
    np.testing.assert_allclose(squashed[0], [1, 5 + 5 * np.tanh(0.5)])
    np.testing.assert_allclose(squashed[1], [-1, 10], atol=1e-5)
    assert load_policy(written(path, identity, output="logits")).act(x, spaces.Discrete(2), rng).tolist() == [1, 1]


def test_drawn_actions_follow_the_policys_distribution_and_the_seed(tmp_path):
    path, x = tmp_path / "p.safetensors", np.zeros((40_000, 2))
    tensors = {"0.weight": np.eye(2), "0.bias": np.log([0.2, 0.8])}
    written(path, tensors, output="logits", deterministic=False)
    drawn = load_policy(path).act(x, spaces.Discrete(2), np.random.default_rng(0))
    assert abs(drawn.mean() - 0.8) < 0.01
    tensors = {"0.weight": np.eye(2), "0.bias": np.array([0.5, -0.5]), "log_std": np.log([0.1, 0.2])}
    written(path, tensors, deterministic=False)
    one, again, other = (make_agent(path, POINT, seed).act(x[:, :2]) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).mean() > 0.99
    # PointGoal's actions end at ±1: five standard deviations and two and a half from the means.
    np.testing.assert_allclose(one.mean(0), [0.5, -0.5], atol=0.005)
    np.testing.assert_allclose(one.std(0), [0.1, 0.2], rtol=0.02)


def test_an_agent_scores_what_its_network_earns_and_says_where_it_is_from(tmp_path):
    tensors = {"0.weight": -np.eye(2), "0.bias": np.zeros(2)}
    path = written(tmp_path / "back.safetensors", tensors, name="back", config={"lr": 0.1, "checkpoint": "forged"})
    result = kshot.evaluate(str(path), POINT.id, num_tasks=5, episodes=1)
    want = kshot.evaluate(lambda x: np.clip(-x, -1, 1), POINT.id, num_tasks=5, episodes=1)
    assert result.returns == want.returns
    assert (result.agent.name, result.agent.privileged, result.agent.adapts) == ("back", False, False)
    assert result.agent.config == {
        "lr": 0.1,
        "training_steps": 7,
        "checkpoint": "back.safetensors",
        "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_a_policy_acts_in_any_variant_that_it_fits_and_says_so(tmp_path):
    agent = make_agent(written(tmp_path / "p.safetensors"), kshot.variant("PointGoal-pearl-v0"))
    assert agent.config["trained_on"] == POINT.id
    assert "trained_on" not in make_agent(tmp_path / "p.safetensors", POINT).config


def test_a_policy_that_sees_the_task_is_privileged_and_is_shown_it(tmp_path):
    # (observation, goal) -> goal - observation.
    tensors = {"0.weight": np.array([[-1.0, 0, 1, 0], [0, -1, 0, 1]]), "0.bias": np.zeros(2)}
    path = written(tmp_path / "oracle.safetensors", tensors, sees_task=True)
    agent = make_agent(path, POINT)
    assert isinstance(agent, PrivilegedAgent)
    assert isinstance(agent, PolicyAgent)
    result = kshot.evaluate(path, POINT.id, num_tasks=20, episodes=1)
    assert result.agent.privileged
    goals = kshot.tasks.frozen(POINT, "test").goal[:20]
    seen = kshot.evaluate(Towards(goals), POINT.id, num_tasks=20, episodes=1)
    assert result.returns == seen.returns
    assert not isinstance(make_agent(written(tmp_path / "p.safetensors"), POINT), PrivilegedAgent)


class Towards:
    """Straight to goals that it is told here, in the order in which the protocol takes them for seed 0."""

    def __init__(self, goals):
        self.goals = goals[np.random.default_rng(0).permutation(len(goals))]

    def reset(self, n):
        assert n == len(self.goals)

    def act(self, observation):
        return np.clip(self.goals - observation, -1, 1)

    def observe(self, experience):
        pass

    def end_episode(self):
        pass


def test_the_same_policy_gives_the_same_bytes_and_nothing_else_is_left(tmp_path):
    a, b = mlp(2, 8, 2), mlp(2, 8, 2)
    written(tmp_path / "a.safetensors", a, config={"x": 1, "y": 2})
    written(tmp_path / "b.safetensors", dict(reversed(b.items())), config={"y": 2, "x": 1})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]
    loaded = load_policy(tmp_path / "a.safetensors")
    assert loaded.header == header(config={"x": 1, "y": 2})
    assert all((loaded.tensors[name] == x).all() for name, x in a.items())


def test_a_policy_is_written_as_everything_else_is(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(kshot.tasks, "write_bytes", lambda path, data: seen.append((path, data)))
    written(tmp_path / "new" / "p.safetensors")
    ((path, data),) = seen
    assert path == tmp_path / "new" / "p.safetensors"
    path.parent.mkdir()
    path.write_bytes(data)
    assert load_policy(path).header == header()


def test_bytes_are_read_of_regular_files_of_a_policys_size_only(tmp_path):
    (tmp_path / "a").write_bytes(b"anything")
    assert read_file(tmp_path / "a") == read_file(str(tmp_path / "a")) == b"anything"
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    refuses(lambda: read_file(tmp_path / "pipe"), "pipe", "is not a file")
    refuses(lambda: read_file(tmp_path), "is not a file")
    refuses(lambda: read_file(tmp_path / "huge"), str(MAX_BYTES + 1), "at most")
    refuses(lambda: read_file(tmp_path / "none"), "none", "No such file")
    refuses(lambda: read_file("\0"), "cannot read")


def test_no_torch_is_needed_and_import_kshot_reads_no_file_format(tmp_path):
    path = written(tmp_path / "p.safetensors")
    code = (
        "import sys, kshot, kshot.agents\n"
        "assert 'safetensors' not in sys.modules\n"
        "sys.modules['torch'] = sys.modules['stable_baselines3'] = None\n"
        f"r = kshot.evaluate({str(path)!r}, {POINT.id!r}, num_tasks=2, episodes=1)\n"
        "print(r.agent.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("mine\n", "")


# --- what is refused ----------------------------------------------------------------------------------------


def test_files_that_are_no_policies_are_refused(tmp_path):
    p = tmp_path / "p.safetensors"

    def load():
        return load_policy(p)

    refuses(load, "cannot read", "p.safetensors")
    p.write_bytes(b"goal")
    refuses(load, "p.safetensors", "not a safetensors file")
    p.write_bytes(save(mlp(2, 2)))
    refuses(load, "p.safetensors", "no metadata 'kshot'", "export_policy")
    whole = written(p).read_bytes()
    for n in (0, 7, 8, 100, len(whole) - 1):
        p.write_bytes(whole[:n])
        refuses(load, "p.safetensors", "damaged")
    p.write_bytes(whole + b"\0")
    refuses(load, "p.safetensors", "damaged")
    refuses(lambda: load_policy(tmp_path), "not a file")
    refuses(lambda: load_policy("/dev/null"), "not a file")
    refuses(lambda: load_policy("a\0b.safetensors"), "cannot read")
    os.mkfifo(tmp_path / "pipe.safetensors")
    refuses(lambda: load_policy(tmp_path / "pipe.safetensors"), "not a file")
    with open(tmp_path / "large.safetensors", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    refuses(lambda: load_policy(tmp_path / "large.safetensors"), str(MAX_BYTES + 1), str(MAX_BYTES))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": 2, "rnn": "gru"}, ("format", "1")),
        ({"format": "1"}, ("format",)),
        ({"extra": 1}, ("extra", "not permitted")),
        ({"activation": "__import__"}, ("activation", "'tanh'")),
        ({"output": "argmax"}, ("output", "'logits'")),
        ({"training_steps": -1}, ("training_steps",)),
        ({"training_steps": "7"}, ("training_steps",)),
        ({"sees_task": 1}, ("sees_task",)),
        ({"name": ""}, ("name",)),
        ({"name": "a\nb"}, ("name",)),
        ({"name": "a" * 81}, ("name",)),
        ({"clip": 0}, ("clip",)),
        ({"clip": float("nan")}, ("clip",)),
        ({"clip": float("inf")}, ("clip",)),
        ({"config": {"a": float("nan")}}, ("config", "JSON")),
        ({"config": [1]}, ("config",)),
    ],
)
def test_headers_that_say_something_else_are_refused(tmp_path, fields, words):
    refuses(lambda: load_policy(raw(tmp_path / "p.safetensors", mlp(2, 2), **fields)), "p.safetensors", *words)


def test_settings_that_json_cannot_hold_are_refused():
    deep = {}
    for _ in range(10_000):
        deep = {"a": deep}
    for config in ({"a": {1, 2}}, {"a": np.zeros(2)}, {"a": float("inf")}, deep):
        refuses(lambda c=config: header(config=c), "config", "JSON", kind=ValueError)


def without(tensors, name):
    return {k: x for k, x in tensors.items() if k != name}


GOOD = mlp(2, 8, 2)
BAD_TENSORS = (
    ({}, {}, ("0 layers",)),
    (without(GOOD, "0.bias"), {}, ("no tensor '0.bias'",)),
    (without(GOOD, "0.weight"), {}, ("'1.bias'",)),
    (without(GOOD, "1.weight"), {}, ("unknown tensor '1.bias'",)),
    ({**GOOD, "2.bias": np.zeros(2, np.float32)}, {}, ("unknown tensor '2.bias'", "0.weight")),
    ({**GOOD, "1.weight": np.zeros((2, 9), np.float32)}, {}, ("1.weight", "(2, 9)", "(2, 8)", "chain")),
    ({**GOOD, "0.weight": np.zeros(16, np.float32)}, {}, ("0.weight", "(16,)")),
    ({**GOOD, "0.weight": np.float32(1)}, {}, ("0.weight", "chain")),
    ({**GOOD, "0.bias": np.zeros((8, 1), np.float32)}, {}, ("0.bias", "(8, 1)", "(8,)")),
    ({**GOOD, "0.weight": np.zeros((8, 2), np.int32)}, {}, ("0.weight", "I32", "F32")),
    ({**GOOD, "0.weight": np.zeros((8, 2), bool)}, {}, ("0.weight", "BOOL")),
    ({**GOOD, "1.bias": np.array([0, np.nan], np.float32)}, {}, ("1.bias", "NaN")),
    ({**GOOD, "1.bias": np.array([0, np.inf], np.float32)}, {}, ("1.bias", "infinity")),
    (mlp(2, 0, 2), {}, ("0.weight", "0 numbers")),
    (mlp(0, 2), {}, ("0.weight", "0 numbers")),
    (mlp(1, 5000, 2), {}, ("0.bias", "5000", "4096")),
    (mlp(*[1] * 34), {}, ("33 layers", "32")),
    ({**GOOD, "observation.mean": np.zeros(2)}, {}, ("no tensor 'observation.scale'",)),
    ({**GOOD, "observation.mean": np.zeros(2), "observation.scale": np.zeros(2)}, {}, ("above 0",)),
    ({**GOOD, "observation.mean": np.zeros(3), "observation.scale": np.ones(3)}, {}, ("(3,)", "(2,)")),
    ({**GOOD, "log_std": np.zeros(2)}, {}, ("unknown tensor 'log_std'",)),
    (GOOD, {"deterministic": False}, ("no tensor 'log_std'",)),
    ({**GOOD, "log_std": np.zeros(3)}, {"deterministic": False}, ("log_std", "(3,)", "(2,)")),
    ({**GOOD, "log_std": np.full(2, 1e3)}, {"deterministic": False}, ("log_std", "above 20")),
)


@pytest.mark.parametrize(("tensors", "fields", "words"), BAD_TENSORS)
def test_tensors_that_are_no_network_are_refused_when_read_and_when_written(tmp_path, tensors, fields, words):
    path = raw(tmp_path / "p.safetensors", {k: np.asarray(x) for k, x in tensors.items()}, **fields)
    refuses(lambda: load_policy(path), "p.safetensors", *words)
    refuses(lambda: save_policy(tmp_path / "new.safetensors", header(**fields), tensors), *words)
    assert not (tmp_path / "new.safetensors").exists()


def test_a_policy_that_does_not_fit_is_refused_when_the_agent_is_made(tmp_path):
    p = tmp_path / "p.safetensors"

    def fits(variant, tensors, **fields):
        return lambda: make_agent(written(p, tensors, **fields), variant)

    refuses(fits(POINT, mlp(3, 2)), "p.safetensors", "3 numbers", POINT.id, "observation of 2")
    refuses(fits(POINT, mlp(2, 3)), "3 numbers", "takes 2")
    refuses(fits(POINT, mlp(2, 2), sees_task=True), "2 numbers", "observation of 2 and a task of 2")
    refuses(fits(POINT, mlp(4, 2)), "4 numbers")
    refuses(fits(POINT, mlp(2, 2), output="logits"), "'logits'", "Box")
    k = GRID.observation_space.shape[0]
    refuses(fits(GRID, mlp(k, 5)), "'action'", "Discrete")
    refuses(fits(GRID, mlp(k, 4), output="logits"), "4 numbers", "takes 5")
    fits(GRID, mlp(k, 5), output="logits")()
    fits(POINT, mlp(4, 2), sees_task=True)()


def test_a_network_that_overflows_is_refused_where_it_does(tmp_path):
    big = {"0.weight": np.full((2, 2), 1e308), "0.bias": np.zeros(2)}
    agent = make_agent(written(tmp_path / "p.safetensors", big), POINT)
    refuses(lambda: agent.act(np.full((1, 2), 9.0)), "p.safetensors", "'mine'", "NaN or infinity")


def test_files_that_run_code_are_refused_with_the_way_out(tmp_path):
    for name in ("model.zip", "model.pt", "model.PTH", "model.pkl", "model.pickle", "ppo.cleanrl_model"):
        (tmp_path / name).write_bytes(b"")
        refuses(lambda p=tmp_path / name: make_agent(p, POINT), name, "run code", "export_policy", kind=ValueError)
        refuses(lambda p=tmp_path / name: make_agent(str(p), POINT), name, "run code", kind=ValueError)


def test_a_policy_file_is_called_what_make_agent_knows_it_by(tmp_path):
    refuses(lambda: save_policy(tmp_path / "p.npz", header(), GOOD), "p.npz", ".safetensors")


def test_tensors_of_strange_types_are_refused(tmp_path):
    for x in ("a", None, 1j):
        tensors = {**GOOD, "0.bias": np.full(8, x)}
        refuses(lambda t=tensors: save_policy(tmp_path / "p.safetensors", header(), t), "0.bias", "floating")


# --- Python files -------------------------------------------------------------------------------------------

AGENT = """
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Still:
    variant: object
    seed: int
    name: str = "still"

    def reset(self, n): pass
    def act(self, observation): return np.zeros((len(observation), 2))
    def observe(self, experience): pass
    def end_episode(self): pass


def middle(observation):
    return -observation.clip(-1, 1)
"""


def test_a_python_file_is_found_by_its_path(tmp_path):
    folder = tmp_path / "my files: 2"
    folder.mkdir()
    (folder / "mine.py").write_text(AGENT)
    still = make_agent(f"{folder}/mine.py:Still", POINT, 3)
    assert (still.name, still.seed) == ("still", 3)
    assert make_agent(f"{folder}/mine.py:middle", POINT).name == "middle"
    (tmp_path / "mine.py").write_text(AGENT.replace('"still"', '"other"'))
    other = make_agent(f"{tmp_path}/mine.py:Still", POINT)
    assert other.name == "other"
    assert sys.modules[type(other).__module__] is not sys.modules[type(still).__module__]
    assert make_agent(f"{folder}/mine.py:Still", POINT).name == "still"
    (folder / "mine.py").write_text(AGENT.replace('"still"', '"edited"') + " ")
    assert make_agent(f"{folder}/mine.py:Still", POINT).name == "edited"


SETTINGS = """
from dataclasses import dataclass

import numpy as np
from torch import nn


class Plain:
    def __init__(self, variant, seed, rate=0, **more): pass
    def reset(self, n): pass
    def act(self, observation): return np.zeros((len(observation), 2))
    def observe(self, experience): pass
    def end_episode(self): pass


class Says(Plain):
    def __init__(self, variant, seed, rate=0, width=0):
        self.config = {"rate": 10 * rate, "kind": "x"}


@dataclass(frozen=True)
class Config:
    kind: str
    rate: float = 1.0


class Records(Plain):
    def __init__(self, variant, seed, rate=0, width=0):
        self.config = Config("x", 10 * rate)

    def act(self, observation):
        assert isinstance(self.config, Config)
        return np.full((len(observation), 2), self.config.rate)


class Property(Plain):
    config = property(lambda self: {"rate": 7})


class Net(nn.Module):
    def __init__(self, variant, seed, width):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)
"""


def test_settings_of_a_class_are_recorded_unless_it_does_so_itself(tmp_path):
    (tmp_path / "mine.py").write_text(SETTINGS)

    def recorded(name, **settings):
        agent = make_agent(f"{tmp_path}/mine.py:{name}", POINT, **settings)
        return kshot.evaluate(agent, POINT.id, num_tasks=1, episodes=1).agent.config

    assert recorded("Plain") == {}
    assert recorded("Plain", rate=0.1, words=["a"]) == {"rate": 0.1, "words": ["a"]}
    assert recorded("Says", rate=0.02, width=8) == {"rate": 0.2, "kind": "x", "width": 8}
    assert recorded("Records", rate=0.02, width=[8]) == {"rate": 0.2, "kind": "x", "width": [8]}
    assert recorded("Records", rate=0.02) == {"rate": 0.2, "kind": "x"}
    assert recorded("Property", rate=0.02) == {"rate": 7}
    assert recorded("Net", width=8)["width"] == 8
    agent = f"{tmp_path}/mine.py:Property"
    refuses(lambda: make_agent(agent, POINT, width=8), "width", "Property", "let its config hold", kind=ValueError)
    assert make_agent("constant", POINT, action=0.5).config == {"action": 0.5}


def test_a_python_file_without_the_agent_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(AGENT)
    (tmp_path / "broken.py").write_text("raise ZeroDivisionError('of mine')")
    refuses(lambda: make_agent(f"{tmp_path}/mine.py:Moving", POINT), "mine.py:Moving", "Moving", kind=ValueError)
    refuses(lambda: make_agent(f"{tmp_path}/none.py:A", POINT), "none.py", "no file", kind=ValueError)
    refuses(lambda: make_agent(f"{tmp_path}/mine.py", POINT), "file.py:attribute", kind=ValueError)
    before = set(sys.modules)
    refuses(lambda: make_agent(f"{tmp_path}/broken.py:A", POINT), "of mine", kind=ZeroDivisionError)
    assert set(sys.modules) == before


# --- Stable-Baselines3 --------------------------------------------------------------------------------------

QUICK = {"device": "cpu", "seed": 0}
OFF = {**QUICK, "learning_starts": 10, "buffer_size": 500}
BOX_MODELS = {
    "PPO": lambda e: PPO("MlpPolicy", e, n_steps=10, batch_size=20, **QUICK),
    "PPO-elu": lambda e: PPO("MlpPolicy", e, policy_kwargs={"activation_fn": nn.ELU, "net_arch": [9, 7]}, **QUICK),
    "PPO-linear": lambda e: PPO("MlpPolicy", e, policy_kwargs={"net_arch": []}, **QUICK),
    "PPO-unshared": lambda e: PPO("MlpPolicy", e, policy_kwargs={"share_features_extractor": False}, **QUICK),
    "PPO-sde": lambda e: PPO("MlpPolicy", e, use_sde=True, policy_kwargs={"squash_output": True}, **QUICK),
    "A2C": lambda e: A2C("MlpPolicy", e, **QUICK),
    "TRPO": lambda e: TRPO("MlpPolicy", e, n_steps=10, batch_size=20, **QUICK),
    "SAC": lambda e: SAC("MlpPolicy", e, **OFF),
    "SAC-silu": lambda e: SAC("MlpPolicy", e, policy_kwargs={"activation_fn": nn.SiLU, "net_arch": [16]}, **OFF),
    "TQC": lambda e: TQC("MlpPolicy", e, **OFF),
    "TD3": lambda e: TD3("MlpPolicy", e, **OFF),
    "DDPG": lambda e: DDPG("MlpPolicy", e, policy_kwargs={"net_arch": [16, 16]}, **OFF),
}
DISCRETE_MODELS = {
    "PPO": lambda e: PPO("MlpPolicy", e, n_steps=10, batch_size=20, **QUICK),
    "A2C": lambda e: A2C("MlpPolicy", e, **QUICK),
    "DQN": lambda e: DQN("MlpPolicy", e, **OFF),
}


def batch(id, task=False):
    envs = gym.make_vec(id, num_envs=4, autoreset_mode="same_step")
    return as_sb3_vecenv(VectorTaskInObservation(envs) if task else envs)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def shaken(model):
    """Move all weights, so that no part of the network is negligible."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.policy.parameters():
            p += 0.8 * torch.randn_like(p) / p.shape[-1] ** 0.5
    return model


def exported(model, path, variant, **kwargs):
    export_policy(model, path, variant.id, **kwargs)
    return load_policy(path)


@pytest.mark.parametrize("name", BOX_MODELS)
def test_an_exported_model_acts_as_the_model_does(tmp_path, name):
    model = shaken(BOX_MODELS[name](batch(POINT.id)))
    policy = exported(model, tmp_path / "p.safetensors", POINT)
    x = RNG.normal(0, 1, (500, 2))
    want = model.predict(x, deterministic=True)[0]
    assert want.std(0).min() > 0.05
    np.testing.assert_allclose(PolicyAgent(policy, POINT).act(x), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", DISCRETE_MODELS)
def test_an_exported_model_chooses_as_the_model_does(tmp_path, name):
    model = shaken(DISCRETE_MODELS[name](batch(GRID.id)))
    policy = exported(model, tmp_path / "p.safetensors", GRID)
    x = RNG.normal(0, 2, (500, GRID.observation_space.shape[0]))
    want = model.predict(x, deterministic=True)[0]
    assert len(set(want.tolist())) > 1
    assert (PolicyAgent(policy, GRID).act(x) == want).mean() > 0.995  # float32 may see a tie otherwise


def test_a_trained_model_and_its_file_score_the_same(tmp_path):
    model = PPO("MlpPolicy", batch(POINT.id), n_steps=20, batch_size=40, **QUICK).learn(400)
    path = tmp_path / "ppo.safetensors"
    export_policy(model, path, "PointGoal-v0", name="my-ppo", config={"n_steps": 20})
    ours = kshot.evaluate(path, POINT.id, num_tasks=20, episodes=1)
    theirs = kshot.evaluate(ZeroShotAgent(model), POINT.id, num_tasks=20, episodes=1)
    np.testing.assert_allclose(ours.returns, theirs.returns, rtol=1e-4)
    assert ours.agent.name == "my-ppo"
    assert ours.agent.config["n_steps"] == 20
    assert ours.agent.config["training_steps"] == model.num_timesteps == 400
    assert load_policy(path).header.variant == POINT.id
    assert load_policy(path).header.command


def normalised(seed=0):
    env = VecNormalize(batch(POINT.id), clip_obs=1.5)
    env.obs_rms.mean, env.obs_rms.var = np.array([0.3, -0.2]), np.array([0.5, 2.0])
    return env


def test_normalised_observations_go_into_the_file(tmp_path):
    env, path = normalised(), tmp_path / "p.safetensors"
    model, x = shaken(PPO("MlpPolicy", env, **QUICK)), RNG.normal(0, 3, (500, 2))
    want = model.predict(env.normalize_obs(x), deterministic=True)[0]
    np.testing.assert_allclose(PolicyAgent(exported(model, path, POINT), POINT).act(x), want, rtol=0, atol=1e-5)
    model.save(tmp_path / "model")
    bare = PPO.load(tmp_path / "model", device="cpu")  # whose env nobody knows
    refuses(lambda: export_policy(bare, path, POINT.id), "no env", "normalize=False")
    given = exported(bare, path, POINT, normalize=env)
    np.testing.assert_allclose(PolicyAgent(given, POINT).act(x), want, rtol=0, atol=1e-5)
    plain = exported(bare, path, POINT, normalize=False)
    assert "observation.mean" not in plain.tensors
    assert plain.header.clip is None
    env.norm_obs = False
    assert "observation.mean" not in exported(model, path, POINT).tensors


def test_a_model_that_saw_the_task_is_exported_as_an_oracle(tmp_path):
    model, path = shaken(PPO("MlpPolicy", batch(POINT.id, task=True), **QUICK)), tmp_path / "p.safetensors"
    refuses(lambda: export_policy(model, path, POINT.id), "4 numbers", "observation of 2")
    assert not path.exists()
    export_policy(model, path, POINT.id, sees_task=True)
    result = kshot.evaluate(path, POINT.id, num_tasks=3, episodes=1)
    assert result.agent.privileged
    env = VectorTaskInObservation(gym.make_vec(POINT.id, num_envs=3, autoreset_mode="disabled"))
    goals = kshot.tasks.frozen(POINT, "test").goal[:3]
    observation, _ = env.reset(seed=0, options={"task": {"goal": goals}})
    earned = np.zeros(3)
    for _ in range(POINT.horizon):
        observation, reward, *_ = env.step(model.predict(observation, deterministic=True)[0])
        earned += reward
    np.testing.assert_allclose(np.ravel(result.returns), earned, rtol=1e-4)


class Halved(PPO):
    def predict(self, *args, **kwargs):
        action, state = super().predict(*args, **kwargs)
        return action / 2, state


def test_models_that_no_file_can_hold_are_refused(tmp_path):
    path, env = tmp_path / "p.safetensors", batch(POINT.id)

    def export(model):
        return lambda: export_policy(model, path, POINT.id)

    class Extractor(type(PPO("MlpPolicy", env, **QUICK).policy.features_extractor)):
        pass

    odd = {"features_extractor_class": Extractor}
    refuses(export(RecurrentPPO("MlpLstmPolicy", env, **QUICK)), "recurrent", "memory")
    refuses(export(PPO("MlpPolicy", env, policy_kwargs=odd, **QUICK)), "Extractor", "MlpPolicy of PPO")
    refuses(export(PPO("MlpPolicy", env, policy_kwargs={"activation_fn": nn.GELU}, **QUICK)), "GELU", "SiLU")
    refuses(export(SAC("MlpPolicy", env, use_sde=True, **OFF)), "Sequential")
    refuses(export(shaken(Halved("MlpPolicy", env, **QUICK))), "acts otherwise")
    refuses(lambda: export_policy(QRDQN("MlpPolicy", batch(GRID.id), **OFF), path, GRID.id), "QRDQN")
    sliced = shaken(PPO("MlpPolicy", env, **QUICK))
    sliced.policy.mlp_extractor.policy_net.append(nn.LayerNorm(64))
    refuses(export(sliced), "LayerNorm")
    assert not path.exists()


def test_a_model_of_other_actions_is_refused(tmp_path):
    env = gym.wrappers.RescaleAction(gym.make(POINT.id), np.float32(-2), np.float32(2))
    model = PPO("MlpPolicy", env, **QUICK)
    refuses(lambda: export_policy(model, tmp_path / "p.safetensors", POINT.id), "actions are", "2.0")
