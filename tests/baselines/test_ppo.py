"""PPO: its loss and its advantages on numbers worked out by hand, and that it improves."""

import pytest

torch = pytest.importorskip("torch")
from dataclasses import replace  # noqa: E402

import kshot  # noqa: E402
from kshot_baselines import multitask, ppo  # noqa: E402
from kshot_baselines.rollout import Rollout, Stream, collect, mean_return  # noqa: E402

CONFIG = multitask.Config(hidden=(16,), rows=64, epochs=4, minibatches=4, learning_rate=3e-3)


def test_the_clip_holds_back_gains_and_not_losses():
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantage = torch.tensor([2.0, -2.0, 2.0, -2.0, 1.0])
    found = ppo.clipped_surrogate(ratio.log(), advantage, 0.2)
    torch.testing.assert_close(found, torch.tensor([2.4, -3.0, 1.0, -1.6, 1.1]))


def rollout_of(reward, value, value_tp1, follows, continues):
    x = torch.zeros(len(reward), 1)
    columns = (torch.tensor(a)[:, None] for a in (reward, follows, continues, value_tp1))
    reward, follows, continues, value_tp1 = columns
    value = torch.tensor(value)[:, None]
    return Rollout(x, x, x, x, x, value, reward, follows, continues, value_tp1, continues == 0)


def test_advantages_go_on_through_inner_episodes_and_stop_at_ends():
    """Two trials in a row; by hand with γ = 0.5 and λ = 0.5: δ = r + γ v' − v, A = δ + 0.25 A'."""
    r = rollout_of([1.0, 2.0, 4.0], [1.0, 2.0, 3.0], [2.0, 9.0, 6.0], [1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    delta = [1 + 1 - 1, 2 - 2, 4 + 3 - 3]
    expected = [delta[0] + 0.25 * delta[1], delta[1], delta[2]]
    torch.testing.assert_close(ppo.advantages(r, 0.5, 0.5)[:, 0], torch.tensor([float(a) for a in expected]))


def test_a_time_limit_cuts_the_sum_and_keeps_the_value():
    r = rollout_of([1.0, 2.0], [1.0, 2.0], [8.0, 6.0], [1.0, 1.0], [0.0, 1.0])
    torch.testing.assert_close(ppo.advantages(r, 0.5, 1.0)[:, 0], torch.tensor([1 + 4 - 1.0, 2 + 3 - 2.0]))


@pytest.mark.parametrize(("value_lambda", "expected"), [(None, [3.25, 2.0]), (1.0, [4.0, 2.0]), (0.0, [3.0, 2.0])])
def test_the_value_is_fitted_to_returns_of_its_own_lambda(value_lambda, expected):
    """By hand, with γ = 1: λ-returns of rewards 2, 2 and values 9, 1; the advantages keep λ = 0.25 all the same."""
    r = rollout_of([2.0, 2.0], [9.0, 1.0], [1.0, 7.0], [1.0, 0.0], [1.0, 0.0])
    model = multitask.network(kshot.variant("PointGoal-v0"), CONFIG)
    memory = torch.zeros(1, 1, 0)
    c = replace(CONFIG, discount=1.0, gae_lambda=0.25, value_lambda=value_lambda)
    sequences, _ = ppo.sequences(model, r._replace(memory_t=memory), c)
    targets = model.values.restore(sequences.target)[:, 0]
    torch.testing.assert_close(targets, torch.tensor(expected))
    torch.testing.assert_close(sequences.advantage[:, 0], ppo.standardised(torch.tensor([-5.75, 1.0])))


def test_the_learning_rate_falls_to_zero_over_the_budget_where_it_shall():
    optimiser = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    c = replace(CONFIG, steps=100, learning_rate=0.5)
    for steps, expected in ((0, 0.5), (50, 0.25), (100, 0.0), (120, 0.0)):
        ppo.anneal(optimiser, c, steps)
        assert optimiser.param_groups[0]["lr"] == expected
    ppo.anneal(optimiser, replace(c, anneal=False), 50)
    assert optimiser.param_groups[0]["lr"] == 0.5


def test_updates_raise_the_return_and_lower_the_error_of_the_value():
    v = kshot.variant("PointGoal-v0")
    torch.manual_seed(0)
    net = multitask.network(v, CONFIG, sees_task=True)
    stream = Stream(kshot.make_torch(v.id, CONFIG.rows, episodes_per_task=1), 1, tail=False, sees_task=True)
    stream.begin(0)
    optimiser = torch.optim.Adam(net.parameters(), lr=CONFIG.learning_rate)
    seen = []
    for _ in range(25):
        r, _ = collect(stream, net, net.initial_memory(CONFIG.rows), v.horizon, 1)
        found = ppo.update(net, optimiser, r, CONFIG)
        seen.append((float(mean_return(r, v)), float(found["value_loss"]), float(found["kl"])))
    assert seen[-1][0] > seen[0][0] + 5  # from about −20
    assert seen[-1][1] < 0.5 * seen[0][1]
    assert all(0 < kl < 0.1 for _, _, kl in seen)
