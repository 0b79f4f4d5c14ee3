"""Returns and advantages, on arrays computed by hand."""

import pytest

torch = pytest.importorskip("torch")
from kshot_baselines.returns import discounted_returns, gae  # noqa: E402


def column(*x):
    return torch.tensor(x, dtype=torch.float64)[:, None]


def test_returns_add_the_discounted_rest():
    found = discounted_returns(column(1, 2, 3), column(0.5, 0.5, 0.5), torch.tensor([8.0], dtype=torch.float64))
    torch.testing.assert_close(found, column(1 + 0.5 * (2 + 0.5 * 7), 2 + 0.5 * 7, 3 + 0.5 * 8))


def test_nothing_flows_over_an_end():
    found = discounted_returns(column(1, 2, 3), column(0.5, 0, 0.5), torch.tensor([8.0], dtype=torch.float64))
    torch.testing.assert_close(found, column(2, 2, 7))


def test_rows_do_not_mix():
    reward = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = discounted_returns(reward, torch.full((2, 2), 0.5), torch.zeros(2))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))


def test_advantages_of_an_episode_that_goes_on():
    """δ = r + γ v' − v = (1 + 5 − 2, 2 + 3 − 10, 3 + 4 − 6) = (4, −5, 1); A_t = δ_t + γ λ A_{t+1}, γ λ = 1/8."""
    value, after = column(2, 10, 6), column(10, 6, 8)
    found = gae(column(1, 2, 3), column(0.5, 0.5, 0.5), value, after, column(1, 1, 1), 0.25)
    torch.testing.assert_close(found, column(4 + (-5 + 1 / 8) / 8, -5 + 1 / 8, 1))


def test_nothing_follows_a_termination():
    """The second step terminates: neither the value after it nor what the row does next counts."""
    value, after = column(2, 10, 6), column(10, 1000, 8)
    found = gae(column(1, 2, 3), column(0.5, 0, 0.5), value, after, column(1, 0, 1), 0.25)
    torch.testing.assert_close(found, column(4 + (2 - 10) / 8, 2 - 10, 1))


def test_a_truncated_step_counts_the_value_after_it_and_nothing_of_the_next_episode():
    value, after = column(2, 10, 6), column(10, 6, 8)
    found = gae(column(1, 2, 3), column(0.5, 0.5, 0.5), value, after, column(1, 0, 1), 0.25)
    torch.testing.assert_close(found, column(4 + -5 / 8, -5, 1))


def test_a_trial_that_goes_on_over_an_inner_end_counts_what_comes():
    """A restart inside a trial: the value after the step is that of the next episode's start, and γ and λ go on."""
    value, after = column(2, 10, 6), column(10, 6, 8)
    found = gae(column(1, 2, 3), column(0.5, 0.5, 0.5), value, after, column(1, 1, 1), 1.0)
    returns = discounted_returns(column(1, 2, 3), column(0.5, 0.5, 0.5), after[-1])
    torch.testing.assert_close(found, returns - value)  # λ = 1 telescopes


def test_lambda_0_is_the_one_step_error():
    value, after = column(2, 10, 6), column(10, 6, 8)
    found = gae(column(1, 2, 3), column(0.5, 0.5, 0.5), value, after, column(1, 1, 1), 0.0)
    torch.testing.assert_close(found, column(4, -5, 1))
