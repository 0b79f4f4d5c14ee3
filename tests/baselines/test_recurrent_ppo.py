"""RecurrentPPO on trials: that its runs resume, that its weights are what is evaluated, and what it reports."""

import copy
import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sb3_contrib")

import kshot  # noqa: E402
from kshot_baselines import checkpoint, recurrent_ppo  # noqa: E402

SMALL = recurrent_ppo.Config(rows=4, memory=8, hidden=(8,), epochs=2, batch=128, deterministic=False)
VARIANTS = ["GridNav-v0", "PointGoal-maml-v0", "HalfCheetahVel-v0"]


def started(id="GridNav-v0", seed=0, config=SMALL):
    v = kshot.variant(id)
    return v, recurrent_ppo.learner(v, config, seed, "cpu")


def evaluated(v, weights, seed=0, **settings):
    agent = recurrent_ppo.agent(v, SMALL, weights, seed)
    return kshot.evaluate(agent, v.id, split="val", num_tasks=6, **{"episodes": 3, **settings})


@pytest.mark.parametrize("id", VARIANTS)
def test_a_run_goes_on_to_the_same_curve(id, tmp_path):
    c = replace(SMALL, length=60 if id == "GridNav-v0" else 50)  # ends with a trial; ends inside one
    _, one = started(id, 3, c)
    one.iterate()
    path = tmp_path / "state.safetensors"
    checkpoint.save_state(path, one.get_state())
    expected = [one.iterate() for _ in range(2)]
    _, other = started(id, 5, c)
    other.iterate()
    other.model._last_episode_starts = np.zeros(4, bool)  # as inside a trial
    other.set_state(checkpoint.load_state(path))
    assert [other.iterate() for _ in range(2)] == expected
    assert other.steps == one.steps == 3 * 4 * c.length
    for k, x in one.weights().items():
        assert torch.equal(other.weights()[k], x), k


def test_a_run_resumes_from_its_very_start():
    _, one = started(seed=3)
    state = copy.deepcopy(one.get_state())
    expected = one.iterate()
    _, other = started(seed=5)
    other.set_state(state)
    assert other.iterate() == expected


def test_a_run_is_a_function_of_its_seed():
    curves = []
    for seed in (0, 0, 1):
        _, run = started(seed=seed)
        curves.append([run.iterate() for _ in range(2)])
    assert curves[0] == curves[1]
    assert curves[0][0]["return"] != curves[2][0]["return"]


@pytest.mark.parametrize("id", ["GridNav-v0", "PointGoal-v0"])
def test_what_is_evaluated_is_what_was_trained(id):
    v, run = started(id)
    before = run.weights()
    run.iterate()
    after = run.weights()
    run.iterate()  # weights are a copy
    assert any(not torch.equal(before[k], x) for k, x in after.items())
    assert any(not torch.equal(run.weights()[k], x) for k, x in after.items())
    agent = recurrent_ppo.agent(v, SMALL, after, 0)
    assert all(torch.equal(x, after[k]) for k, x in agent._model.policy.state_dict().items())
    assert agent._layout is not None  # it sees what a trial shows
    found = evaluated(v, after)
    assert (found.agent.name, found.agent.adapts, found.agent.round) == ("recurrent-ppo", True, 1)
    assert found.agent.config["memory"] == 8
    assert np.isfinite(found.returns).all()
    assert evaluated(v, after).returns == found.returns != evaluated(v, after, seed=1).returns


def test_actions_are_drawn_where_the_settings_say_so():
    v, run = started("PointGoal-v0")
    for deterministic in (False, True):
        agent = recurrent_ppo.agent(v, replace(SMALL, deterministic=deterministic), run.weights(), 0)
        agent.reset(50)
        same = np.ptp(agent.act(np.zeros((50, 2))), axis=0).max() < 1e-6
        assert same == deterministic


@pytest.mark.parametrize("id", ["GridNav-v0", "TabularMDP-n10-v0", "PointGoal-esmaml-v0"])
def test_the_return_is_the_mean_of_the_episodes_or_of_the_trials_that_are_scored(id):
    v = kshot.variant(id)
    _, run = started(id, config=replace(SMALL, length=2 * v.horizon * v.trial))
    sampled, step = [], run.model.env.step_wait

    def spy():
        found = step()
        sampled.append((found[1].copy(), found[2].copy()))
        return found

    run.model.env.step_wait = spy
    metrics = run.iterate()
    rewards, dones = (np.stack(x) for x in zip(*sampled, strict=True))
    trials = dones.sum()
    assert trials >= 8
    expected = rewards.sum() / trials if v.scored_by_trial else rewards.sum() / (trials * v.trial)
    assert metrics["return"] == pytest.approx(expected, rel=1e-5)
    assert set(metrics) == {"return", "loss", "value_loss", "entropy", "kl", "clipped"}
    assert all(np.isfinite(list(metrics.values())))
    assert metrics["entropy"] > 0


def test_settings_reach_the_library():
    c = recurrent_ppo.Config(
        rows=3, length=7, memory=5, hidden=(6, 4), discount=0.9, gae_lambda=0.8, learning_rate=2e-3, epochs=4, batch=11,
        clip=0.3, value_cost=0.7, entropy_cost=0.01, max_grad_norm=0.4,
    )  # fmt: skip
    model = started(config=c)[1].model
    assert (model.n_envs, model.n_steps, model.batch_size, model.n_epochs) == (3, 7, 11, 4)
    assert (model.gamma, model.gae_lambda, model.vf_coef, model.ent_coef) == (0.9, 0.8, 0.7, 0.01)
    assert (model.max_grad_norm, model.clip_range(1.0), model.lr_schedule(1.0)) == (0.4, 0.3, 2e-3)
    policy = model.policy
    assert policy.lstm_actor.hidden_size == policy.lstm_critic.hidden_size == 5
    assert started()[1].model.n_steps == 4 * 15  # a trial of GridNav
    assert [x.out_features for x in policy.mlp_extractor.policy_net if hasattr(x, "out_features")] == [6, 4]


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    monkeypatch.delitem(sys.modules, "kshot_baselines.recurrent_ppo")
    with pytest.raises(ImportError, match="pip install 'sb3-contrib"):
        importlib.import_module("kshot_baselines.recurrent_ppo")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.cuda
def test_it_runs_on_cuda():
    v = kshot.variant("PointGoal-v0")
    run = recurrent_ppo.learner(v, SMALL, 0, "cuda")
    run.iterate()
    state = copy.deepcopy(run.get_state())
    expected = run.iterate()
    run.set_state(state)
    assert run.iterate() == pytest.approx(expected, rel=1e-3)
    agent = recurrent_ppo.agent(v, SMALL, run.weights(), 0, "cuda")
    assert np.isfinite(kshot.evaluate(agent, v.id, split="val", num_tasks=4, episodes=2).returns).all()
