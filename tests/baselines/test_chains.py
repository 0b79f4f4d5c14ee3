"""The chains: what they pay, and what is learned on them."""

import pytest

torch = pytest.importorskip("torch")
from kshot_baselines import chains, mgrl  # noqa: E402
from kshot_baselines.policies import Shape  # noqa: E402


def test_the_signal_chain_pays_a_signal_at_every_other_step():
    chain = chains.signal_chain()
    reward = chain.rewards(5_000)
    assert reward.shape == (5_000, 10)
    signal = torch.tensor([kind == "signal" for kind in chain.kinds])
    assert (reward[:, signal] == 0.1).all()
    torch.testing.assert_close(reward[:, ~signal].mean(0), torch.zeros(5), atol=0.06, rtol=0)
    torch.testing.assert_close(reward[:, ~signal].std(0), torch.ones(5), atol=0.05, rtol=0)


def test_the_aliased_chain_takes_back_what_it_pays():
    chain = chains.aliased_chain()
    reward = chain.rewards(5_000)
    assert torch.equal(reward[:, 1::2], -reward[:, :-1:2])
    torch.testing.assert_close(reward[:, ::2].std(0), torch.ones(5), atol=0.05, rtol=0)
    assert chain.looks.tolist() == [0, 5, 1, 5, 2, 5, 3, 5, 4]
    assert chain.kinds[5] == chain.states[5] == "aliased"


def test_gamma_tells_signal_from_noise():
    chain = chains.signal_chain()
    late = chains.predict(chain, runs=3, episodes=600)[-60:].mean((0, 1))
    signal = torch.tensor([kind == "signal" for kind in chain.kinds])
    signal[0] = False  # nothing leads to the first state, nor on from the last
    inside = torch.arange(10) % 9 > 0
    assert late[signal & inside].min() > late[~signal & inside].max() + 0.15


def test_lambda_is_high_where_states_look_alike():
    chain = chains.aliased_chain()
    late = chains.predict(chain, runs=5, episodes=1_000)[-200:].mean((0, 1))
    assert late[5] > 0.6
    assert late[1:4].max() < 0.5


def test_a_run_is_a_function_of_its_seed():
    one, same, other = (chains.predict(chains.signal_chain(), 2, seed=s, episodes=3) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_discounting_chain_pays_what_the_first_action_chose():
    net = mgrl.Net(Shape((7, 5), "tanh", True), Shape((8, 1), "tanh", True), 0)
    zeros = {"0.weight": torch.zeros(1, 7, 5), "0.bias": torch.zeros(1, 5), "log_std": torch.zeros(1, 0)}
    torch.manual_seed(0)
    s = chains._episodes(net, zeros, 1, 50)
    chosen = s.action[0, :50]
    assert set(chosen.tolist()) == set(range(5))
    for i, c in enumerate(chosen.tolist()):
        paid = s.reward[0, :, i]
        assert paid.nonzero().flatten().tolist() == [chains.DELAYS[c] - 1]
        assert float(paid.sum()) == pytest.approx(1.1 if c == chains.BEST else 1.0)
    states = s.observation.reshape(100, 50, 7).argmax(-1)
    assert (states[0] == 0).all()
    for i, c in enumerate(chosen.tolist()):  # the chain until it has paid, then nothing more
        delay = chains.DELAYS[c]
        assert (states[1:delay, i] == c + 1).all()
        assert (states[max(1, delay) :, i] == 6).all()


@pytest.mark.parametrize("critic", [False, True])
def test_the_discounting_chain_learns_gamma_within_its_range(critic):
    returns, gamma = chains.discount(critic, runs=2, updates=12, batch=4)
    assert returns.shape == gamma.shape == (12, 2)
    assert ((returns >= 1) & (returns <= 1.1 + 1e-6)).all()
    torch.testing.assert_close(gamma[0], torch.full((2,), 0.95))  # no sample has been learned from
    assert ((gamma > 0.9) & (gamma < 1)).all()
    assert (gamma[1] != gamma[0]).all()
    again = chains.discount(critic, runs=2, updates=12, batch=4)[1]
    assert torch.equal(gamma, again)
    assert not torch.equal(gamma, chains.discount(not critic, runs=2, updates=12, batch=4)[1])
