"""The linear feature baseline, against hand computation and a plain solve a task."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from kshot_baselines.baseline import RIDGE, features, fitted_values  # noqa: E402

T, TASKS, EPISODES, K = 12, 3, 4, 2


@pytest.fixture
def data():
    torch.manual_seed(0)
    observation = 3 * torch.randn(T, TASKS, EPISODES, K)
    return observation, torch.randn(T, TASKS, EPISODES)


def test_features_are_those_of_rllab():
    found = features(torch.tensor([[[1.0, -20.0]], [[0.5, 2.0]]]))
    expected = [[[1, -10, 1, 100, 0, 0, 0, 1]], [[0.5, 2, 0.25, 4, 0.01, 0.0001, 0.000001, 1]]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_it_solves_the_ridge_regression_of_each_task(data):
    observation, returns = data
    found = fitted_values(observation, returns, torch.ones_like(returns))
    phi = features(observation).numpy()
    for task in range(TASKS):
        x, y = phi[:, task].reshape(-1, phi.shape[-1]), returns[:, task].double().numpy().reshape(-1)
        w = np.linalg.lstsq(
            np.concatenate([x, np.sqrt(RIDGE) * np.eye(x.shape[1])]), np.append(y, np.zeros(x.shape[1])), rcond=None
        )[0]
        np.testing.assert_allclose(found[:, task].reshape(-1), x @ w, rtol=1e-4, atol=1e-5)


def test_returns_that_are_linear_in_the_features_are_met(data):
    observation, _ = data
    returns = (features(observation) @ torch.linspace(-1, 1, 2 * K + 4, dtype=torch.float64)).float()
    torch.testing.assert_close(
        fitted_values(observation, returns, torch.ones_like(returns)), returns, atol=1e-3, rtol=0
    )


def test_steps_after_an_end_do_not_count(data):
    observation, returns = data
    mask = torch.ones_like(returns)
    mask[5:, 1, 2:] = 0
    clean = fitted_values(observation, returns, mask)
    spoilt = fitted_values(observation, torch.where(mask > 0, returns, 1e6), mask)
    torch.testing.assert_close(clean, spoilt)
    assert (clean - fitted_values(observation, returns, torch.ones_like(mask)))[:, 1].abs().max() > 1e-3


def test_constant_observations_are_no_trouble():
    """A bandit shows nothing: the features are not independent, and the ridge alone makes the solution unique."""
    returns = torch.arange(10.0)[:, None, None].expand(10, 2, 3)
    found = fitted_values(torch.ones(10, 2, 3, 1), returns, torch.ones(10, 2, 3))
    torch.testing.assert_close(found, returns, atol=0.05, rtol=0)
