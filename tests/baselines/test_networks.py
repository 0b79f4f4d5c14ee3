"""Networks: memories, normalisation, and what their distributions are of."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from gymnasium import spaces  # noqa: E402

from kshot_baselines.networks import ActorCritic, Gru, Mlp, Moments  # noqa: E402

BOX, FOUR = spaces.Box(-1, 1, (2,)), spaces.Discrete(4)


def stepped(model, x, start, memory):
    """Unroll by single steps."""
    outputs = []
    for x_t, start_t in zip(x, start, strict=True):
        out, memory = model.step(x_t, memory * ~start_t[:, None])
        outputs.append(out)
    return outputs


@pytest.mark.parametrize("bodies", ["one GRU", "two GRUs", "MLPs"])
def test_sequences_give_what_single_steps_give_also_where_memories_are_cleared(bodies):
    torch.manual_seed(0)
    made = {"one GRU": [Gru(3, 5)], "two GRUs": [Gru(3, 5), Gru(3, 5)], "MLPs": [Mlp(3, (5,)), Mlp(3, (6, 7))]}[bodies]
    model = ActorCritic(3, FOUR, made).double()
    x, start = torch.randn(9, 6, 3).double(), torch.rand(9, 6) < 0.2
    memory = torch.randn_like(model.initial_memory(6))
    out = model.unroll(x, start, memory)
    single = stepped(model, x, start, memory)
    torch.testing.assert_close(out.value, torch.stack([o.value for o in single]))
    torch.testing.assert_close(out.policy.logits, torch.stack([o.policy.logits for o in single]))
    if bodies != "MLPs":  # and the cleared memories make a difference
        without = model.unroll(x, torch.zeros_like(start), memory)
        assert not torch.allclose(out.value, without.value)


def test_a_gru_with_a_span_starts_with_memories_that_last_up_to_it():
    """An element that keeps a share z of its memory at each step keeps it for 1 / (1 − z) steps."""
    torch.manual_seed(0)
    gru, plain = Gru(3, 300, span=50), Gru(3, 300)
    for body in (gru, plain):
        for name, weight in body.gru.named_parameters():
            if name.startswith("weight"):
                torch.nn.init.zeros_(weight)
    memory, x = torch.ones(1, 300), torch.zeros(1, 3)
    times = 1 / (1 - gru.step(x, memory)[1])[0]
    assert 2 <= times.min() < 4
    assert 47 < times.max() <= 50.01
    torch.testing.assert_close(1 / (1 - plain.step(x, memory)[1]), torch.full((1, 300), 2.0))


def test_two_bodies_keep_their_memories_apart():
    model = ActorCritic(3, FOUR, [Gru(3, 5), Gru(3, 7)])
    x, memory = torch.randn(1, 3), torch.randn(1, 12)
    other = torch.cat([memory[:, :5], torch.randn(1, 7)], -1)  # only the value's differs
    (one, next_one), (two, next_two) = model.step(x, memory), model.step(x, other)
    assert torch.equal(one.policy.logits, two.policy.logits)
    assert not torch.equal(one.value, two.value)
    assert torch.equal(next_one[:, :5], next_two[:, :5])
    assert next_one.shape == (1, 12)


def test_a_policy_of_a_box_has_one_log_probability_of_all_elements():
    model = ActorCritic(3, BOX, [Mlp(3, (5,))], log_std=-0.5)
    policy = model.step(torch.randn(7, 3), model.initial_memory(7))[0].policy
    action = policy.sample()
    expected = -0.5 * ((action - policy.mean) / np.exp(-0.5)) ** 2 + 0.5 - 0.5 * np.log(2 * np.pi)
    torch.testing.assert_close(policy.log_prob(action), expected.sum(-1))


def test_inputs_are_normalised_alike_in_steps_and_sequences():
    model = ActorCritic(2, FOUR, [Mlp(2, (5,))])
    x = torch.tensor([[100.0, 1.0], [102.0, 3.0]])
    before = model.step(x, model.initial_memory(2))[0].value
    model.inputs.update(x)
    after = model.step(x, model.initial_memory(2))[0].value
    by_hand = model.unroll(x[None], torch.zeros(1, 2, dtype=torch.bool), model.initial_memory(2)).value[0]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, by_hand)
    normalised = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    torch.testing.assert_close(model.inputs.normalise(x), normalised)


def test_moments_of_batches_are_those_of_all_numbers():
    generator, moments = np.random.default_rng(0), Moments((3,))
    batches = [generator.normal(5, 2, (n, 4, 3)) for n in (1, 7, 30)]
    for batch in batches:
        moments.update(torch.tensor(batch, dtype=torch.float32))
    everything = np.concatenate([b.reshape(-1, 3) for b in batches])
    np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.scale, everything.std(0), rtol=1e-5)
    x = torch.randn(5, 3)
    torch.testing.assert_close(moments.restore(moments.normalise(x)), x)


def test_moments_of_what_never_changes_divide_by_no_zero():
    moments = Moments((1,), floor=0.1)
    torch.testing.assert_close(moments.normalise(torch.tensor([3.0])), torch.tensor([3.0]))  # nothing seen: as it is
    moments.update(torch.full((10, 1), 2.0))
    torch.testing.assert_close(moments.normalise(torch.tensor([2.1])), torch.tensor([1.0]))
