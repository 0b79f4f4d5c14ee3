"""References: which a variant has, regenerating them, and the published figures they stand beside."""

import json

import numpy as np
import pytest

import kshot
from kshot import leaderboard, page, published, references
from kshot.agents import make_agent
from kshot.agents.policy import Header, save_policy
from kshot.results import Result, ResultError

MDP = "kshot/TabularMDP-n10-v0"


def labels(id, folder):
    return [r.label for r in references.references(kshot.variant(id), folder)]


def test_a_variant_has_the_references_that_fit_it(tmp_path):
    assert labels("PointGoal-v0", tmp_path) == ["random", "expert"]
    assert labels("AntDir-v0", tmp_path) == ["random"]
    assert labels("HalfCheetahVel-v0", tmp_path) == ["random", "gait"]
    assert labels("HalfCheetahVel-maml-v0", tmp_path) == ["random"]  # other time steps
    assert "gittins" in labels("Bandit-k5n100-v0", tmp_path)
    assert "gittins" not in labels("Bandit-k5n500-v0", tmp_path)
    assert "ucb1" not in labels("Bandit-gaussian-v0", tmp_path)
    assert {"psrl", "psrl-prior0", "beb-prior0"} <= set(labels("TabularMDP-n10-v0", tmp_path))


def test_references_are_made_once_and_again_when_asked(tmp_path):
    v = kshot.variant("GridNav-v0")
    written = list(references.make(v, tmp_path))
    assert sorted(str(p.relative_to(tmp_path)) for p in written) == [
        f"{who}/GridNav-v0-{split}-seed0.json"
        for who in ("expert", "random")
        for split in ("ood-near", "test", "train")
    ]
    assert list(references.make(v, tmp_path)) == []
    assert list(references.make(v, tmp_path, again=True)) == []  # the same again: nothing is written
    data = json.loads(written[0].read_text())
    data["returns"][0][0] += 1
    written[0].write_text(json.dumps(data))
    assert list(references.make(v, tmp_path, only="random", again=True)) == [written[0]]
    assert len(leaderboard.load_all(tmp_path)) == 6
    assert Result.load(written[0]).command == "kshot references GridNav-v0 --agent random --again"
    with pytest.raises(ValueError, match="no reference 'ucb1'; expected one of random, expert"):
        list(references.make(v, tmp_path, only="ucb1"))


def test_settings_make_another_reference(tmp_path):
    v = kshot.variant("TabularMDP-n10-v0")
    one = references.Reference("psrl", {"prior": 0.0})
    result = references.evaluate_reference(one, v, "ood-rich", tmp_path, None)
    assert result.agent.config == {"prior": 0.0}
    assert one.label == "psrl-prior0"
    assert result.returns != kshot.evaluate("psrl", v.id, split="ood-rich").returns


def test_the_oracle_is_a_policy_file_among_the_results(tmp_path):
    v = kshot.variant("AntDir-v0")
    path = references.oracle_path(v, tmp_path)
    inputs = v.observation_space.shape[0] + sum(box.shape[0] if box.shape else 1 for box in v.task_space.values())
    tensors = {"0.weight": np.zeros((8, inputs), np.float32), "0.bias": np.zeros(8, np.float32)}
    header = Header(name="oracle", variant=v.id, activation="tanh", output="action", sees_task=True, training_steps=7)
    save_policy(path, header, tensors)
    assert labels("AntDir-v0", tmp_path) == ["random", "oracle"]
    reference = references.references(v, tmp_path)[1]
    short = references.evaluate(path, v.id, split="test", episodes=1, num_tasks=2)
    assert short.agent.privileged
    assert not short.agent.adapts
    assert reference.label == "oracle"


def test_a_new_oracle_makes_old_results_stale(tmp_path, monkeypatch):
    v = kshot.variant("AntDir-v0")
    path = references.oracle_path(v, tmp_path)
    short = references.evaluate
    monkeypatch.setattr(references, "evaluate", lambda *a, **k: short(*a, **k, episodes=1, num_tasks=2))

    def train(value):
        inputs = v.observation_space.shape[0] + sum(int(np.prod(law.shape)) for law in v.train.values())
        header = Header(
            name="oracle", variant=v.id, activation="tanh", output="action", sees_task=True, training_steps=7
        )
        save_policy(path, header, {"0.weight": np.zeros((8, inputs)), "0.bias": np.full(8, value)})

    train(0.0)
    assert len(list(references.make(v, tmp_path, only="oracle"))) == len(v.scored_splits)
    assert list(references.make(v, tmp_path, only="oracle")) == []
    assert len(leaderboard.load_all(tmp_path)) == len(v.scored_splits)
    train(0.1)
    with pytest.raises(ResultError, match=r"AntDir-v0-.*\.json is of an oracle whose policy file is not beside it"):
        leaderboard.load_all(tmp_path)
    assert len(list(references.make(v, tmp_path, only="oracle"))) == len(v.scored_splits)
    assert len(leaderboard.load_all(tmp_path)) == len(v.scored_splits)


def test_every_label_is_known_beforehand(tmp_path):
    some = [kshot.variant(id) for id in ("GridNav-v0", "HalfCheetahVel-v0", "Bandit-k5n10-v0", MDP)]
    made = {r.label for v in some for r in references.references(v, tmp_path)}
    assert made | {"oracle"} == references.all_labels()


def test_every_published_figure_is_of_a_variant_and_an_agent_that_exist():
    from kshot.agents import shipped_names

    for id, agent, budget in published.FIGURES:
        assert id in kshot.VARIANTS
        assert agent in shipped_names() | {"rl2", "maml", "pretrained", "untrained", "oracle"}
        assert budget % 20 == 0
    assert published.figures("kshot/Bandit-k5n10-v0", "ucb1")[0].value == 6.7
    assert published.figures("kshot/TabularMDP-n10-v0", "rl2")[0].value == 156.2
    maml = published.figures("kshot/PointGoal-maml-v0", "maml")
    assert {b: f.value for b, f in maml.items()} == {0: -40.41, 40: -11.68, 80: -3.33, 120: -3.23}
    assert published.figures("kshot/PointGoal-v0", "maml") == {}


def test_published_figures_stand_beside_rows():
    result = kshot.evaluate("ucb1", "kshot/Bandit-k5n10-v0", num_tasks=20)
    text = page.markdown([result, kshot.evaluate("constant", "kshot/Bandit-k5n10-v0", num_tasks=20)])
    assert "published, on test |" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| ") and "`ucb1`" in line]
    assert row.endswith("| 6.7: RL² (1611.02779) table 1 |")
    (other,) = [line for line in text.splitlines() if line.startswith("| ") and "`constant`" in line]
    assert other.endswith("| – |")
    prior = {p: make_agent("psrl", kshot.variant(MDP), 0, prior=p) for p in (0.0, 1.0)}
    text = page.markdown([kshot.evaluate(agent, MDP, num_tasks=20) for agent in prior.values()])
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`psrl`" in line]
    assert sorted("RL²" in row for row in rows) == [False, True]
    assert "published, on test" not in page.markdown([kshot.evaluate("expert", "GridNav-v0", episodes=1)])
