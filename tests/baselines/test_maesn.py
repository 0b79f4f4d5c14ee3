"""MAESN: its latents, its run, its agent, and that what it learns explores."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

import kshot
from kshot.agents import Experience

torch = pytest.importorskip("torch")
from kshot_baselines import maesn, methods, policies  # noqa: E402
from kshot_baselines.policies import OWN  # noqa: E402

SMALL = maesn.Config(tasks=3, episodes=4, hidden=(8,), activation="tanh", train_tasks=5)
OPTIONS = {
    "default": {},
    "without latents": {"latent": 0, "adapt_policy": True},
    "without KL": {"latent_kl": 0.0},
    "conditioning alone": {"inner_steps": 0},
    "policy as well": {"adapt_policy": True},
    "one step size": {"learn_steps": False},
    "two steps": {"inner_steps": 2},
    "three numbers": {"latent": 3},
    "part of the episodes": {"fisher_samples": 0.5},
}
VARIANTS = ["PointSparse-v0", "GridNav-v0"]


def started(name="PointSparse-pearl-v0", seed=0, **changes):
    v = kshot.variant(name)
    config = dataclasses.replace(SMALL, **changes)
    return v, config, maesn.learner(v, config, seed, "cpu")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_every_option_runs_resumes_to_the_same_curve_and_is_evaluated(checked, changes, variant):
    v, config = kshot.variant(variant), dataclasses.replace(SMALL, **changes)
    whole, _, round_ = checked(maesn, v, config)
    assert round_ == 4
    assert not set(whole.weights()) & set(OWN)


def test_every_option_makes_a_difference():
    found = {}
    for name, changes in OPTIONS.items():
        run = started(**changes)[2]
        run.iterate()
        found[name] = run.weights()["0.weight"]
    assert not [(a, b) for a, b in itertools.combinations(OPTIONS, 2) if torch.equal(found[a], found[b])]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outer": "ppo"}, "outer is 'ppo'; MAESN has 'trpo' alone"),
        ({"latent": 0}, "nothing adapts; set adapt_policy=true"),
        ({"latent": -1}, "latent is -1"),
        ({"latent_kl": -0.5}, "latent_kl -0.5"),
        ({"train_tasks": 2}, "train_tasks is 2; expected at least the 3 of an iteration"),
        ({"episodes": 0}, "episodes is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize("name", [name for name in methods.known() if name.startswith("maesn")])
def test_the_ablations_have_names(name):
    found = methods.method(name)
    assert found.base == "maesn"
    found.Config(**found.changes)


def test_the_divergence_from_the_prior_is_that_of_the_library():
    mean, log_std = torch.randn(5, 3), torch.randn(5, 3)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(maesn.divergence(mean, log_std), expected)


def test_a_latent_is_its_mean_and_scaled_noise_in_place_of_the_noise():
    mean, log_std = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, math.log(3.0)]])
    x = torch.tensor([[[7.0, 0.5, -1.0], [8.0, 0.0, 2.0]]])
    found, spread = policies.network_input(dict(zip(OWN, (mean, log_std), strict=True)), x)
    torch.testing.assert_close(found, torch.tensor([[[7.0, 1.5, -5.0], [8.0, 1.0, 4.0]]]))
    torch.testing.assert_close(spread, torch.tensor([[[0.5, -3.0], [0.0, 6.0]]]))


def test_each_known_task_keeps_its_own_latent():
    run = started()[2]
    before = {k: x.clone() for k, x in run.latents.items()}
    run.iterate()
    chosen = set(run._chosen.tolist())
    assert len(chosen) == 3
    for k in OWN:
        moved = {i for i in range(5) if not torch.equal(before[k][i], run.latents[k][i])}
        assert moved == chosen, k
    seen = set(chosen)
    for _ in range(10):
        run.iterate()
        seen |= set(run._chosen.tolist())
    assert seen == set(range(5))


def test_the_penalty_draws_the_latents_to_the_prior():
    """Where it is heavy, their divergence falls; the trust region bounds what the adapted policies change by."""
    ends = {}
    for cost in (0.0, 10.0):
        run = started(latent_kl=cost)[2]
        ends[cost] = [run.iterate()["latent_kl"] for _ in range(10)]
    assert ends[10.0][-1] < 0.7 * ends[10.0][0]
    assert ends[10.0][-1] < ends[0.0][-1]


def actions(agent, episodes, horizon, tasks=2):
    """Return what an agent draws where nothing is observed or paid, (episodes, horizon, rows, 2)."""
    agent.reset(tasks)
    rows = tasks * agent.round
    nothing = np.zeros(rows, np.float32)
    no, yes = np.zeros(rows, bool), np.ones(rows, bool)
    found = []
    for _ in range(episodes):
        for _ in range(horizon):
            observation = np.zeros((rows, 2), np.float32)
            a = agent.act(observation)
            found.append(a)
            agent.observe(Experience(observation, a, nothing, no, no, observation, yes))
        agent.end_episode()
    return np.reshape(found, (episodes, horizon, rows, 2))


def test_the_noise_of_a_latent_is_held_for_an_episode_and_drawn_anew_for_the_next():
    v, config, run = started()
    weights = run.weights()
    weights["log_std"] = torch.full_like(weights["log_std"], -20.0)
    found = actions(maesn.agent(v, config, weights, 0), 2, 3)
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1], found.shape), atol=1e-4)
    assert np.unique(found[0, 0, :, 0].round(4)).size == found.shape[2]
    assert (np.abs(found[0, 0] - found[1, 0]) > 1e-4).all()
    again = actions(maesn.agent(v, config, weights, 0), 2, 3)
    np.testing.assert_array_equal(again, found)


def test_it_learns_to_be_adapted_by_its_latent_alone():
    """Dense goals on a half circle: one step on the latent finds the task."""
    v = kshot.variant("PointSparse-pearl-v0")
    changes = {"tasks": 20, "episodes": 10, "hidden": (32,), "train_tasks": 40, "inner_lr": 1.0, "cg_damping": 1e-3}
    run = started(**changes)[2]
    curve = [run.iterate() for _ in range(60)]
    first, last = (np.mean([m["return"] for m in part]) for part in (curve[:5], curve[-5:]))
    before = np.mean([m["return_before"] for m in curve[-5:]])
    assert last > first + 5
    assert last > before + 2
    assert curve[-1]["latent_kl"] < 3
    config = dataclasses.replace(SMALL, **changes)
    result = kshot.evaluate(maesn.agent(v, config, run.weights(), 0), v.id, split="val", num_tasks=10, episodes=20)
    returns = np.array(result.returns)
    assert returns[:, 10:].mean() > returns[:, :10].mean() + 1
