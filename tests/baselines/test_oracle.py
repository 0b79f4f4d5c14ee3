"""Oracles: what they are trained on, that they learn, and that a file holds them."""

import numpy as np
import pytest

import kshot
from kshot import tasks
from kshot.references import oracle_path

oracle = pytest.importorskip("kshot_baselines.oracle")


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
    config = oracle.Config(steps=60_000, rows=32, hidden=(32, 32), tasks=500)
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
