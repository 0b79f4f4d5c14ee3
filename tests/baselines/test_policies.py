"""Functional policies: distributions, parameters a task, the map to the environment's actions."""

import math

import numpy as np
import pytest
from gymnasium import spaces

import kshot

torch = pytest.importorskip("torch")
from kshot_baselines import policies  # noqa: E402
from kshot_baselines.policies import Categorical, Gaussian, Outputs, Shape  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def gaussians():
    return [Gaussian(torch.randn(3, 5, 2), 0.5 * torch.randn(3, 1, 2)) for _ in range(2)]


def theirs(d):
    if isinstance(d, Categorical):
        return torch.distributions.Categorical(logits=d.logits)
    return torch.distributions.Independent(torch.distributions.Normal(d.mean, d.log_std.exp().expand_as(d.mean)), 1)


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_distributions_agree_with_torch(kind):
    old, new = gaussians() if kind == "gaussian" else [Categorical(torch.randn(3, 5, 4)) for _ in range(2)]
    action = old.sample()
    assert action.shape == ((3, 5, 2) if kind == "gaussian" else (3, 5))
    torch.testing.assert_close(new.log_prob(action), theirs(new).log_prob(action))
    torch.testing.assert_close(old.entropy(), theirs(old).entropy())
    torch.testing.assert_close(old.kl(new), torch.distributions.kl_divergence(theirs(old), theirs(new)))


def test_samples_follow_the_distribution():
    d = Gaussian(torch.tensor([[[1.0, -2.0]]]).expand(1, 50_000, 2), torch.tensor([[[0.0, -1.0]]]))
    x = d.sample()[0]
    torch.testing.assert_close(x.mean(0), torch.tensor([1.0, -2.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(x.std(0), torch.tensor([1.0, math.exp(-1)]), atol=0.02, rtol=0)
    p = torch.tensor([0.1, 0.6, 0.3])
    drawn = Categorical(p.log().expand(1, 50_000, 3)).sample()[0]
    torch.testing.assert_close(torch.bincount(drawn, minlength=3) / 50_000, p, atol=0.01, rtol=0)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_each_task_has_its_own_parameters(activation):
    shape = Shape((3, 8, 8, 2), activation, False)
    sets = [policies.initial(shape) for _ in range(4)]
    for one in sets:
        one["0.bias"] += torch.randn(8)
    observation = torch.randn(4, 5, 3)
    together = policies.outputs(shape, {k: torch.stack([one[k] for one in sets]) for k in sets[0]}, observation)
    for i, one in enumerate(sets):
        shared = policies.outputs(shape, one, observation[i : i + 1])
        torch.testing.assert_close(together.y[i], shared.y[0])
    act = torch.tanh if activation == "tanh" else torch.relu
    hidden = act(act(observation[0] @ sets[0]["0.weight"] + sets[0]["0.bias"]) @ sets[0]["1.weight"])
    torch.testing.assert_close(together.y[0], hidden @ sets[0]["2.weight"])
    everyone = policies.outputs(shape, policies.for_tasks(sets[0], 4), observation)
    torch.testing.assert_close(everyone.y, policies.outputs(shape, sets[0], observation).y)


def test_the_deviation_has_a_floor():
    shape = Shape((1, 2), "tanh", False)
    d = policies.distribution(shape, Outputs(torch.zeros(1, 4, 2), torch.tensor([[-50.0, -1.0]])))
    torch.testing.assert_close(d.log_std[0, 0], torch.tensor([math.log(1e-6), -1.0]))


def test_parameters_start_as_published():
    shape = policies.shape_of(kshot.variant("PointGoal-maml-v0"), (100, 100), "relu")
    assert shape == Shape((2, 100, 100, 2), "relu", False)
    params = policies.initial(shape)
    assert {k: tuple(x.shape) for k, x in params.items()} == {
        "0.weight": (2, 100), "0.bias": (100,), "1.weight": (100, 100), "1.bias": (100,),
        "2.weight": (100, 2), "2.bias": (2,), "log_std": (2,),
    }  # fmt: skip
    for i, fans in enumerate((102, 200, 102)):
        bound = math.sqrt(6 / fans)  # Xavier's
        assert 0.9 * bound < params[f"{i}.weight"].abs().max() <= bound
        assert (params[f"{i}.bias"] == 0).all()
    assert (params["log_std"] == 0).all()


def test_discrete_actions_have_logits_and_no_deviation():
    shape = policies.shape_of(kshot.variant("GridNav-v0"), (8,), "tanh")
    assert shape == Shape((2, 8, 5), "tanh", True)
    params = policies.initial(shape)
    assert params["log_std"].shape == (0,)
    d = policies.distribution(shape, policies.outputs(shape, params, torch.randn(3, 4, 2)))
    assert isinstance(d, Categorical)
    assert d.logits.shape == (3, 4, 5)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation is 'elu'; expected one of tanh, relu"):
        policies.shape_of(kshot.variant("PointGoal-v0"), (8,), "elu")


def test_a_policy_acts_between_minus_one_and_one():
    box = policies.action_map(spaces.Box(np.array([-0.1, 0.0]), np.array([0.1, 4.0]), dtype=np.float64), CPU)
    found = box(torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([[-0.1, 0.0], [0.0, 2.0], [0.1, 6.0]]))
    x = torch.tensor([[3.0]])
    assert policies.action_map(spaces.Box(-np.inf, np.inf, (1,)), CPU)(x) is x
    n = torch.tensor([2])
    assert policies.action_map(spaces.Discrete(3), CPU)(n) is n
