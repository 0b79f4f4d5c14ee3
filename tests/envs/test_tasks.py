"""Task laws, splits, frozen sets and JSON, over the whole registry."""

import json
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot import VARIANTS, cards, laws, tasks, variant
from kshot.family import ZERO_PROBABILITY

ALL = list(VARIANTS.values())
OOD = [(v, name) for v in ALL for name in v.ood]
every = pytest.mark.parametrize("v", ALL, ids=lambda v: v.id)
every_ood = pytest.mark.parametrize(("v", "name"), OOD, ids=[f"{v.id}-{name}" for v, name in OOD])


@every
def test_splits_are_complete(v):
    assert {"train", "val", "test"} < set(v.splits)
    assert v.ood
    assert all(name.startswith("ood-") and split.kind != "train" for name, split in v.ood.items())
    assert all(set(split.law) == set(v.train) for split in v.splits.values())
    assert all(split.law[k].shape == law.shape for split in v.splits.values() for k, law in v.train.items())


@every_ood
def test_what_an_ood_split_says_is_so(v, name):
    split = v.split(name)
    frozen = tasks.sample(v, name, 200)._asdict()
    given_by_training = laws.joint_contains(v.train, frozen)
    if split.kind in ZERO_PROBABILITY:
        assert not given_by_training.any()
    elif split.kind == "shift":
        assert given_by_training.all()
        moved = cards.shift(v, name)
        assert max(abs(a - b) / (abs(a) + 1e-9) for a, b in moved.values()) > 0.05
    else:
        assert split.kind == "reward"
        assert given_by_training.all()
        assert split.constants
        assert v.constants_on(name) != v.constants_on("train")


@every
def test_every_split_lies_in_the_task_space(v):
    for name in v.splits:
        task = tasks.sample(v, name, 50)
        checked = tasks.check(v, task, 50)
        assert all((a == b).all() for a, b in zip(task, checked, strict=True))


@pytest.mark.parametrize("v", [v for v in ALL if laws.joint_values(v.train) is None], ids=lambda v: v.id)
def test_splits_of_one_law_are_other_tasks(v):
    drawn = [tasks.digest(tasks.sample(v, name, 20)) for name in ("train", "val", "test")]
    assert len(set(drawn)) == 3


@every
def test_frozen_sets_have_the_promised_size(v):
    for name, split in v.splits.items():
        values = laws.joint_values(split.law)
        if values is not None or v.body is not None:  # the others are drawn at each load
            frozen = tasks.frozen(v, name)
            assert len(frozen[0]) == (len(next(iter(values.values()))) if values else v.frozen_tasks)
            assert laws.joint_contains(split.law, frozen._asdict()).all()


@pytest.mark.parametrize(
    "id", ["Bandit-k5n10-v0", "PointGoal-v0", "TabularMDP-n10-v0", "HalfCheetahVel-v0", "GridNav-v0", "AntGoal-v0"]
)
def test_frozen_sets_are_drawn_again_bit_for_bit(id):
    v = variant(id)
    for name in ("test", *list(v.ood)[-1:]):
        assert tasks.digest(tasks.draw_frozen(v, name)) == tasks.digest(tasks.frozen(v, name))


def test_the_first_tasks_of_a_finite_set_are_no_corner_of_it():
    first = tasks.frozen(variant("HalfCheetahVel-macaw-v0"), "test").velocity[:8]
    assert first.max() - first.min() > 0.8  # of 0.075 … 1.95
    assert sorted(first.tolist()) != first.tolist()


def test_a_damaged_frozen_set_is_refused(tmp_path, monkeypatch):
    v = variant("HalfCheetahVel-v0")
    data = json.loads((tasks.TASK_SETS / "HalfCheetahVel-v0.json").read_text())
    data["splits"]["test"]["tasks"][0]["velocity"] += 1e-12
    (tmp_path / "HalfCheetahVel-v0.json").write_text(json.dumps(data))
    monkeypatch.setattr(tasks, "TASK_SETS", tmp_path)
    with pytest.raises(tasks.TaskError, match="SHA-256"):
        tasks.frozen(v, "test")


def test_a_draw_does_not_depend_on_how_many_are_drawn():
    v = variant("Bandit-k5n10-v0")
    few, many = tasks.sample(v, "train", 10), tasks.sample(v, "train", 50_000)
    assert (few.means == many.means[:10]).all()
    assert (tasks.sample(v, "train", 10, seed=1).means != few.means).any()


LAWS = [
    laws.Uniform(-1, 2, (3,)),
    laws.Normal(1, 2, (4,), -1, 3),
    laws.Choice((0.5, 1.5)),
    laws.always(2.0),
    laws.Choice(((0.0, 1.0), (2.0, 3.0))),
    laws.Annulus(1, 2, math.pi, 1.5 * math.pi),
    laws.Annulus(0, 3),
    laws.Frame(1, 2),
    laws.Mixture(0.25, laws.Uniform(0, 1), laws.Uniform(3, 4)),
    laws.Dirichlet(1, (2, 5)),
    laws.Dirichlet(0.25, (2, 5)),
    laws.OneAmong(4, laws.Uniform(0.6, 0.8), laws.Uniform(0, 0.4)),
]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_a_law_draws_within_its_support_in_both_libraries(law):
    u = np.random.default_rng(0).uniform(size=(500, law.uniforms))
    x = law.sample(u)
    assert x.shape == (500, *law.shape)
    assert law.contains(np.asarray(x)).all()
    np.testing.assert_allclose(law.sample(torch.from_numpy(u)).numpy(), x, rtol=1e-12, atol=1e-12)


def test_areas_are_uniform():
    u = np.random.default_rng(1).uniform(size=(200_000, 3))
    disc = laws.Annulus(0, 3).sample(u[:, :2])
    assert abs(((disc**2).sum(-1) < 4.5).mean() - 0.5) < 0.006  # half the area within 3/sqrt(2)
    frame = laws.Frame(1, 2).sample(u)  # area 12; the corner squares have 1 each
    assert abs((np.abs(frame).min(-1) > 1).mean() - 4 / 12) < 0.006
    assert np.abs(frame.mean(0)).max() < 0.02
    for quadrant in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        assert abs((np.sign(frame) == quadrant).all(-1).mean() - 0.25) < 0.006


def test_the_dirichlet_sampler_has_the_right_moments():
    # Dirichlet(1/4) of 10: marginals Beta(1/4, 9/4), mean 0.1, variance 0.1 * 0.9 / 3.5.
    law = laws.Dirichlet(0.25, (10,))
    x = law.sample(np.random.default_rng(2).uniform(size=(100_000, law.uniforms)))
    assert np.abs(x.mean(0) - 0.1).max() < 5 * math.sqrt(0.09 / 3.5 / 1e5)
    np.testing.assert_allclose(x.var(0), 0.09 / 3.5, rtol=0.03)
    # P(x < 0.001) of Beta(1/4, 9/4) is about 0.001**(1/4) / (B * 1/4), B = Γ(1/4)Γ(9/4)/Γ(5/2) = 3.0902.
    assert abs((x < 1e-3).mean() - 0.001**0.25 / (3.0902 / 4)) < 0.003


@settings(deadline=None)
@given(
    st.integers(0, 2**32), st.sampled_from(["PointGoal-v0", "HalfCheetahDir-v0", "Bandit-k5n10-v0", "PointRotated-v0"])
)
def test_tasks_survive_json(seed, id):
    import tempfile
    from pathlib import Path

    v = variant(id)
    task = tasks.sample(v, "train", 3, seed)
    with tempfile.TemporaryDirectory() as folder:
        tasks.save(Path(folder) / "tasks.json", v, task)
        back = tasks.load(Path(folder) / "tasks.json", v)
    assert tasks.digest(back) == tasks.digest(task)


@every
def test_every_parameter_changes_the_trajectory(v):
    """A parameter, changed alone, changes a reward or a next state (a constant task field would be a lie)."""
    names = [
        k
        for split in v.splits.values()
        for k, law in split.law.items()
        if law.values is None or len(law.values) > 1 or law.values != v.train[k].values
    ]
    for name in dict.fromkeys(names):
        a, b = tasks.sample(v, "train", 1, 5), tasks.sample(v, "train", 1, 5)
        other = next(
            getattr(t, name)
            for split in v.splits
            for seed in range(20)
            for t in [tasks.sample(v, split, 1, seed)]
            if not np.array_equal(getattr(t, name), getattr(a, name))
        )
        b = b._replace(**{name: other})
        # A start that is near the goal shows sparse rewards too: compare several starts of a short random walk.
        traces = []
        for task in (a, b):
            env = gym.make_vec(
                v.id, num_envs=64, autoreset_mode="SAME_STEP", task={k: x[0] for k, x in task._asdict().items()}
            )
            env.reset(seed=0)
            env.action_space.seed(1)
            steps = [env.step(env.action_space.sample()) for _ in range(min(v.horizon, 20 if v.body else 100))]
            traces.append((np.array([s[0] for s in steps]), np.array([s[1] for s in steps])))
            env.close()
        changed = not np.array_equal(traces[0][0], traces[1][0]) or not np.array_equal(traces[0][1], traces[1][1])
        if not changed:  # a random walk may miss a sparse reward: stand on the goal of task a
            changed = _rewards_at_the_goal_differ(v, a, b)
        assert changed, name


def _rewards_at_the_goal_differ(v, a, b):
    state, c = v.example_state(), v.constants
    if hasattr(state, "position"):
        state = state._replace(position=a.goal)
    else:  # HalfCheetahDir-hyperx-sparse: the direction is felt from 5 m on
        state = state._replace(torso=np.array([[6.0, 0, 0]]), qpos=state.qpos + np.eye(1, state.qpos.shape[1]))
    action = np.zeros((1, *v.action_space.shape))
    before = v.example_state()
    pay = [sum(v.family.reward_terms(before, action, state, t, c).values()) for t in (a, b)]
    return not np.array_equal(*pay)


@every
def test_the_observation_does_not_tell_the_task(v):
    """The same start under other tasks looks the same: nothing of the task is in the first observation."""
    task = tasks.sample(v, "train", 32)
    env = gym.make_vec(v.id, num_envs=32, task=task)
    observation, _ = env.reset(seed=[7] * 32)
    assert (observation == observation[0]).all()
    env.close()


REWARD = [(v, name) for v, name in OOD if v.split(name).kind == "reward"]


@pytest.mark.parametrize(("v", "name"), REWARD, ids=[f"{v.id}-{name}" for v, name in REWARD])
def test_another_reward_pays_otherwise(v, name):
    rewards = []
    for split in ("train", name):
        env = gym.make_vec(
            v.id, num_envs=64, split=split, task=tasks.sample(v, "train", 64), autoreset_mode="SAME_STEP"
        )
        env.reset(seed=0)
        env.action_space.seed(0)
        rewards.append([env.step(env.action_space.sample())[1] for _ in range(10)])
        env.close()
    assert not np.array_equal(*rewards)
