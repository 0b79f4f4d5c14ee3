"""Oracles: what they are trained on, that they learn, and that a file holds them."""

from pathlib import Path

import numpy as np
import pytest

import kshot
from kshot import tasks
from kshot.agents.policy import load_policy
from kshot.references import oracle_path

RESULTS = Path(__file__).parents[2] / "baselines" / "results"
oracle = pytest.importorskip("kshot_baselines.oracle")
from kshot_baselines.carry import carry, columns  # noqa: E402


def test_tasks_come_in_equal_parts_from_every_law():
    v = kshot.variant("PointGoal-v0")
    pool = oracle.union(v, 50, seed=0)
    distance = abs(pool.goal).max(1)
    assert len(distance) == 100
    assert (distance[:50] <= 1).all()
    assert (distance[50:] > 1).any()  # ood-far
    frozen = {tuple(x) for name in v.splits for x in tasks.frozen(v, name).goal}
    assert not frozen & {tuple(x) for x in pool.goal}  # none that it will be scored on


def test_an_oracle_learns_and_is_written_down(tmp_path):
    v = kshot.variant("PointGoal-v0")
    config = oracle.Config(steps=60_000, rows=32, hidden=(32, 32), minibatches=4, learning_rate=3e-3)
    seen = []
    path = oracle.train(v, oracle_path(v, tmp_path), config, seed=0, progress=seen.append)
    assert seen[-1] == 1
    assert seen == sorted(seen)
    result = kshot.evaluate(path, v.id, num_tasks=200)
    random, expert = (kshot.evaluate(name, v.id, num_tasks=200).score() for name in ("random", "expert"))
    assert (result.score() - random) / (expert - random) > 0.8
    assert result.agent.privileged
    assert result.agent.config["steps"] == 60_000
    assert result.agent.config["algorithm"] == "PPO"
    again = oracle.train(v, tmp_path / "again.safetensors", config, seed=0)
    assert again.read_bytes() == path.read_bytes()
    far = kshot.evaluate(path, v.id, split="ood-far", num_tasks=50)
    assert np.mean(far.returns) > np.mean(kshot.evaluate("random", v.id, split="ood-far", num_tasks=50).returns) + 5


def test_a_carried_policy_acts_as_it_did_where_it_was_trained():
    """HyperX's variant shows the torso first; the policy of ours must act alike on one state and task in both."""
    ours, theirs = kshot.variant("HalfCheetahDir-v0"), kshot.variant("HalfCheetahDir-hyperx-sparse-v0")
    where = columns(ours, theirs)
    state = theirs.example_state()
    state = state._replace(qpos=np.arange(9.0)[None] / 9, qvel=np.arange(9.0)[None] / 5, torso=np.full((1, 3), 7.0))
    np.testing.assert_array_equal(theirs.observe(state)[:, where], ours.observe(state))


def test_carrying_writes_a_file_that_gives_the_same_actions(tmp_path):
    source, target = kshot.variant("HalfCheetahVel-v0"), kshot.variant("HalfCheetahVel-pearl-v0")
    old, path = load_policy(oracle_path(source, RESULTS)), tmp_path / "carried.safetensors"
    new = load_policy(carry(oracle_path(source, RESULTS), source, target, path))
    x = np.random.default_rng(0).normal(size=(5, 18))  # 17 numbers of joints and a velocity
    torso = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_allclose(new.forward(np.hstack([x[:, :17], torso, x[:, 17:]])), old.forward(x), rtol=1e-12)
    assert new.header.variant == source.id  # where it was trained
    result = kshot.evaluate(path, target.id, episodes=1, num_tasks=8)
    assert result.agent.config["trained_on"] == source.id
    assert result.score() > kshot.evaluate("random", target.id, episodes=1, num_tasks=8).score() + 100


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("HalfCheetahVel-v0", "HalfCheetahDir-pearl-v0", "not of one family"),
        ("AntGoal-v0", "AntGoal-pearl-v0", None),
        ("AntGoal-pearl-v0", "AntGoal-v0", "does not show number 29"),
    ],
)
def test_only_what_shows_as_much_can_take_a_policy(source, target, message):
    source, target = kshot.variant(source), kshot.variant(target)
    if message is None:
        assert (columns(source, target) == np.arange(29)).all()
    elif "family" in message:
        with pytest.raises(ValueError, match=message):
            carry(oracle_path(source, RESULTS), source, target, oracle_path(target, RESULTS))
    else:
        with pytest.raises(ValueError, match=message):
            columns(source, target)
