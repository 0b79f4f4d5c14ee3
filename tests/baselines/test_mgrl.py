"""Meta-gradient RL: its returns, its meta-gradient, its run, its agent."""

import dataclasses
import itertools

import numpy as np
import pytest

import kshot

torch = pytest.importorskip("torch")
from kshot_baselines import mgrl, policies, returns  # noqa: E402

SMALL = mgrl.Config(rows=6, hidden=(8,), embedding=3, episodes=2)
OPTIONS = {
    "default": {},
    "discount alone": {"learn_lambda": False},
    "lambda alone": {"learn_discount": False},
    "nothing learned": {"learn_discount": False, "learn_lambda": False},
    "everything": {
        "learn_entropy_cost": True, "learn_value_cost": True, "learn_learning_rate": True, "entropy_cost": 0.01,
    },
    "no outer critic": {"outer_critic": False},
    "no embedding": {"embedding": 0},
    "trace": {"trace": 0.9},
    "V-trace": {"vtrace": True},
    "narrow range": {"discount_low": 0.9},
    "advantages as they are": {"centre": False},
    "rewards as they are": {"scale_rewards": False},
    "plain steps": {"optimiser": "sgd", "learning_rate": 0.1},
}  # fmt: skip
VARIANTS = ["PointGoal-esmaml-v0", "GridNav-v0"]  # the first ends early
F64 = torch.float64
LATE = 10_000  # iterations, when squares are moving averages


def started(name="PointGoal-v0", seed=0, **changes):
    v = kshot.variant(name)
    config = dataclasses.replace(SMALL, **changes)
    return v, config, mgrl.learner(v, config, seed, "cpu")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_every_option_runs_resumes_to_the_same_curve_and_is_evaluated(checked, changes, variant):
    v, config = kshot.variant(variant), dataclasses.replace(SMALL, **changes)
    whole, curve, round_ = checked(mgrl, v, config, iterations=5)
    assert round_ == 2
    assert whole.steps == 5 * 6 * v.horizon
    moved = {name: len({m[name] for m in curve}) > 1 for name in mgrl.learned(config)}
    assert all(moved.values()), moved


def test_every_option_makes_a_difference():
    found = {}
    for name, changes in OPTIONS.items():
        run = started(**changes)[2]
        for _ in range(4):
            run.iterate()
        found[name] = run.weights()["1.weight"]
    pairs = itertools.combinations(OPTIONS, 2)
    # V-trace too: what acted saw η as it was before its last step.
    assert not [pair for pair in pairs if torch.allclose(*(found[k] for k in pair), rtol=1e-5, atol=1e-7)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": 0}, "rows is 0; expected at least 1"),
        ({"optimiser": "adam"}, "optimiser is 'adam'; expected one of rmsprop, sgd"),
        ({"discount_low": 0.97}, "discount is 0.95; to be learned it must start between 0.97 and 1"),
        ({"discount": 1.0}, "discount is 1; to be learned it must start between 0 and 1"),
        ({"outer_lambda": 1.5}, "outer_lambda is 1.5; expected 0 to 1"),
        ({"learn_entropy_cost": True}, "entropy_cost is 0; to be learned"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **changes)
    dataclasses.replace(SMALL, discount=1.0, learn_discount=False)


def test_weights_of_another_network_are_refused():
    v, config, run = started()
    with pytest.raises(ValueError, match=r"the parameter 0\.bias is \(8,\); this variant and config expect \(9,\)"):
        mgrl.agent(v, dataclasses.replace(config, hidden=(9,)), run.weights(), 0)


# --- returns ----------------------------------------------------------------------------------------------------------


def test_returns_by_hand():
    """Two steps and then one of another episode, in a row: 1 + 0.5 (0.25 · 4 + 0.75 (2 + 0.5 · 6)), 2 + 0.5 · 6, 3."""
    reward, continues = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[[1.0], [0.0], [0.0]]])
    value_t, value_tp1 = torch.tensor([[[9.0], [4.0], [7.0]]]), torch.tensor([[[4.0], [6.0], [0.0]]])
    half, most = torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 0.75)
    found = mgrl.returns(reward, continues, value_t, value_tp1, half, most)
    torch.testing.assert_close(found.flatten(), torch.tensor([1 + 0.5 * (1 + 0.75 * 5), 5.0, 3.0]))


def test_returns_are_those_of_generalised_advantages():
    reward, value_t, value_tp1 = torch.randn(3, 2, 7, 4)
    continues = (torch.rand(2, 7, 4) < 0.8).float()
    found = mgrl.returns(reward, continues, value_t, value_tp1, torch.tensor(0.9), torch.tensor(0.6))
    by_time = (x.transpose(0, 1) for x in (reward, torch.full_like(reward, 0.9), value_t, value_tp1, continues))
    expected = returns.gae(*by_time, 0.6).transpose(0, 1) + value_t
    torch.testing.assert_close(found, expected)
    ratio = torch.full_like(reward, 7.0)  # counts as 1
    torch.testing.assert_close(
        mgrl.returns(reward, continues, value_t, value_tp1, torch.tensor(0.9), torch.tensor(0.6), ratio), expected
    )


def test_lambda_0_needs_no_walk_through_time():
    reward, value_t, value_tp1 = torch.randn(3, 2, 7, 4)
    ratio, zero = torch.rand(2, 7, 4), torch.tensor(0.0)
    walked, at_once = (
        mgrl.returns(reward, torch.ones_like(reward), value_t, value_tp1, torch.tensor(0.9), x, ratio)
        for x in (zero, None)
    )
    torch.testing.assert_close(at_once, walked)


def test_v_trace_by_hand():
    """Equation 1 of arXiv 1802.01561: v + ρ₀ δ₀ + γ c₀ ρ₁ δ₁."""
    reward, continues = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[1.0], [0.0]]])
    value_t, value_tp1 = torch.tensor([[[3.0], [4.0]]]), torch.tensor([[[4.0], [0.0]]])
    ratio = torch.tensor([[[0.5], [0.25]]])
    found = mgrl.returns(reward, continues, value_t, value_tp1, torch.tensor(0.9), torch.tensor(1.0), ratio)
    first = 3 + 0.5 * (1 + 0.9 * 4 - 3) + 0.9 * 0.5 * 0.25 * (2 - 4)
    torch.testing.assert_close(found.flatten(), torch.tensor([first, 4 + 0.25 * (2 - 4)]))


# --- the meta-gradient ------------------------------------------------------------------------------------------------


class Setting:
    """Runs in float64, with samples that some other policy drew and whose episodes end early."""

    def __init__(self, runs=2, samples=3, **changes):
        torch.manual_seed(0)
        full = {"hidden": (5,), "embedding": 3, "entropy_cost": 0.02, "learning_rate": 0.3, "max_grad_norm": 0.8}
        self.c = dataclasses.replace(mgrl.Config(), **{**full, **changes})
        self.v = kshot.variant("PointGoal-v0")
        self.net = mgrl.net_of(self.v, self.c)
        one = mgrl.initial_params(self.net, self.c)
        self.theta = {k: x.to(F64) + 0.3 * torch.randn(runs, *x.shape, dtype=F64) for k, x in one.items()}
        self.square = {k: torch.rand_like(x) for k, x in self.theta.items()}
        self.eta = mgrl.start_of(self.c).to(F64) + 0.1 * torch.randn(runs, len(mgrl.learned(self.c)), dtype=F64)
        self.seen = mgrl.seen_of(self.c, self.eta)
        self.samples = [self.sample(runs) for _ in range(samples)]

    def sample(self, runs, horizon=4, n=3):
        normal = {"dtype": F64}
        observation = torch.randn(runs, horizon * n, self.v.observation_space.shape[0], **normal)
        clock = (torch.arange(horizon, **normal) / horizon).repeat_interleave(n).expand(runs, -1)[..., None]
        mask = torch.ones(runs, horizon, n, **normal)
        mask[0, 2:, 1] = 0
        continues = torch.cat([mask[:, 1:], torch.zeros(runs, 1, n, **normal)], 1)
        action = torch.randn(runs, horizon * n, 2, **normal)
        out = mgrl.policy_outputs(self.net, self.theta, observation, self.seen)
        log_prob = policies.distribution(self.net.policy, out).log_prob(action) + 0.3 * torch.randn(
            runs, horizon * n, **normal
        )
        reward = torch.randn(runs, horizon, n, **normal) * mask
        return mgrl.Steps(observation, clock, action, log_prob, reward, mask, continues)

    def trace(self):
        return {k: x.new_zeros(self.eta.shape[1], *x.shape) for k, x in self.theta.items()}

    def learned_from(self, eta, samples, theta=None, square=None):
        """Return θ after steps on samples, where what policies see of η stays as it is."""
        theta, square = theta or self.theta, square or self.square
        for s in samples:
            hyper = mgrl.hyper_of(self.c, eta, 0.3)
            g = mgrl.gradient(self.net, self.c, theta, hyper, s, self.seen)
            theta, square = mgrl.stepped(self.c, theta, square, g, hyper.learning_rate, LATE)
        return theta, square

    def outer_loss(self, theta):
        """Return −J' of the last sample, with the advantages of the parameters that η is at."""
        s, c = self.samples[-1], self.c
        at = self.learned_from(self.eta, self.samples[:-1])[0]
        v = mgrl.value(self.net, at, mgrl.OUTER if c.outer_critic else mgrl.INNER, s, self.seen)
        full = torch.tensor(c.outer_discount, dtype=F64)
        value_tp1 = torch.cat([v[:, 1:], 0 * v[:, :1]], 1) * s.continues
        g = mgrl.returns(s.reward, s.continues, v, value_tp1, full, torch.tensor(c.outer_lambda, dtype=F64))
        policy = policies.distribution(self.net.policy, mgrl.policy_outputs(self.net, theta, s.observation, self.seen))
        weight = s.mask / s.mask.sum((1, 2), keepdim=True)
        middle = ((g - v) * s.mask).sum((1, 2)) / s.mask.sum((1, 2)) * c.centre
        return -(policy.log_prob(s.action).reshape(weight.shape) * (g - v - middle[:, None, None]) * weight).sum()


def differences(function, x, step=1e-5):
    """Return the gradient of a number by central finite differences."""
    found = torch.zeros_like(x)
    for at in itertools.product(*map(range, x.shape)):
        d = torch.zeros_like(x)
        d[at] = step
        found[at] = (function(x + d) - function(x - d)) / (2 * step)
    return found


def relative(a, b):
    return float((a - b).norm() / b.norm())


CASES = {
    "default": {},
    "inner critic": {"outer_critic": False},
    "lambda bar": {"outer_critic": False, "outer_lambda": 0.3},
    "one step": {"learn_lambda": False, "gae_lambda": 0.0, "outer_lambda": 0.0},
    "everything": OPTIONS["everything"] | {"entropy_cost": 0.02},
    "no embedding": {"embedding": 0},
    "V-trace": {"vtrace": True},
    "relu": {"activation": "relu"},
    "advantages as they are": {"centre": False},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_meta_gradient_through_the_last_step_is_that_of_finite_differences(changes):
    s = Setting(samples=2, **changes)
    theta, _, trace = mgrl.advance(s.net, s.c, s.theta, s.square, s.eta, s.trace(), s.samples[0], 0.3, LATE)
    expected_theta = s.learned_from(s.eta, s.samples[:1])[0]
    assert all(torch.equal(theta[k], expected_theta[k]) for k in theta)
    found = mgrl.meta_gradient(s.net, s.c, theta, trace, s.samples[1], s.seen)
    expected = differences(lambda eta: s.outer_loss(s.learned_from(eta, s.samples[:1])[0]), s.eta)
    assert found.shape == expected.shape == (2, len(mgrl.learned(s.c)))
    assert relative(found, expected) < 1e-6


@pytest.mark.parametrize("changes", [CASES["default"], CASES["lambda bar"], CASES["V-trace"]], ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
def test_the_trace_is_that_of_finite_differences(decay, changes):
    """With μ = 1 it is the derivative through all plain steps; with less, earlier steps count by powers of μ."""
    s = Setting(samples=4, trace=decay, optimiser="sgd", **changes)
    theta, square, trace = s.theta, s.square, s.trace()
    for one in s.samples[:-1]:
        theta, square, trace = mgrl.advance(s.net, s.c, theta, square, s.eta, trace, one, 0.3, LATE)
    found = mgrl.meta_gradient(s.net, s.c, theta, trace, s.samples[-1], s.seen)
    expected = torch.zeros_like(s.eta)
    first = s.samples[:-1]
    for k in range(len(first)):  # η changes step k alone

        def loss(eta, k=k):
            before = s.learned_from(s.eta, first[:k])
            return s.outer_loss(
                s.learned_from(s.eta, first[k + 1 :], *s.learned_from(eta, first[k : k + 1], *before))[0]
            )

        expected += decay ** (len(first) - 1 - k) * differences(loss, s.eta)
    assert relative(found, expected) < 1e-6
    if decay == 1.0:
        whole = differences(lambda eta: s.outer_loss(s.learned_from(eta, first)[0]), s.eta)
        assert relative(found, whole) < 1e-6


def test_runs_share_nothing():
    s = Setting(samples=2)
    theta, _, trace = mgrl.advance(s.net, s.c, s.theta, s.square, s.eta, s.trace(), s.samples[0], 0.3, LATE)
    found = mgrl.meta_gradient(s.net, s.c, theta, trace, s.samples[1], s.seen)
    for i in range(2):
        own = slice(i, i + 1)
        first, second = (mgrl.Steps(*(x[own] for x in sample)) for sample in s.samples)
        parts = ({k: x[own] for k, x in t.items()} for t in (s.theta, s.square))
        zeros = {k: x[:, own] for k, x in s.trace().items()}
        one, _, z = mgrl.advance(s.net, s.c, *parts, s.eta[own], zeros, first, 0.3, LATE)
        for k in theta:
            torch.testing.assert_close(one[k], theta[k][own])
        torch.testing.assert_close(mgrl.meta_gradient(s.net, s.c, one, z, second, s.seen[own]), found[own])


def test_what_acts_is_what_learns():
    """A policy that sees η acts as one of other biases that does not."""
    s = Setting()
    x = torch.randn(2, 6, 2, dtype=F64)
    actor, shape = mgrl.acting(s.net, s.theta, s.seen)
    for a, b in zip(policies.outputs(shape, actor, x), mgrl.policy_outputs(s.net, s.theta, x, s.seen), strict=True):
        torch.testing.assert_close(a, b)
    assert relative(policies.outputs(shape, mgrl.acting(s.net, s.theta, s.seen + 1)[0], x).y,
                    policies.outputs(shape, actor, x).y) > 1e-3  # fmt: skip


def test_what_is_embedded_is_how_far_eta_is_from_its_start():
    c = dataclasses.replace(SMALL, learn_entropy_cost=True, entropy_cost=0.01)
    start = mgrl.start_of(c).expand(2, -1)
    assert (mgrl.seen_of(c, start) == 0).all()
    torch.testing.assert_close(mgrl.seen_of(c, start + 0.5), torch.full((2, 3), 0.5))


def test_rewards_are_in_units_of_the_returns_so_far(monkeypatch):
    run, kept, draw = started()[2], [], mgrl.Learner._sample
    monkeypatch.setattr(mgrl.Learner, "_sample", lambda self, seen: kept.append(draw(self, seen)) or kept[-1])
    for _ in range(3):
        run.iterate()
        squares = [float(e.reward_tp1.sum(0).square().mean()) for e in kept]
        assert float(run.weights()[mgrl.MEAN_SQUARE]) == pytest.approx(np.mean(squares), rel=1e-5)
    s = Setting().samples[0]
    scaled = mgrl.scaled(SMALL, s, torch.tensor([4.0, 0.25], dtype=F64))
    torch.testing.assert_close(scaled.reward[0], s.reward[0] / 2)
    torch.testing.assert_close(scaled.reward[1], s.reward[1] * 2)
    assert torch.isfinite(mgrl.scaled(SMALL, s._replace(reward=0 * s.reward), torch.zeros(2, dtype=F64)).reward).all()


def test_the_first_steps_are_no_longer_than_the_learning_rate():
    c, theta, g = mgrl.Config(), {"a": torch.zeros(2, 3, 4)}, {"a": torch.randn(2, 3, 4)}
    lr, nothing = torch.tensor([0.1, 0.2]), {"a": torch.zeros(2, 3, 4)}
    first, square = mgrl.stepped(c, theta, nothing, g, lr, 0)
    torch.testing.assert_close(first["a"].abs(), lr[:, None, None].expand(2, 3, 4), rtol=0.1, atol=0)
    second, _ = mgrl.stepped(c, theta, square, {"a": 3 * g["a"]}, lr, 1)  # clipped to the same norm
    torch.testing.assert_close(second["a"], first["a"])
    late, _ = mgrl.stepped(c, theta, nothing, g, lr, LATE)
    torch.testing.assert_close(late["a"], 10 * first["a"], rtol=0.1, atol=0)


def test_the_agent_takes_the_step_of_training():
    v, config, run = started("GridNav-v0")
    for _ in range(3):
        run.iterate()
    agent = mgrl.agent(v, config, run.weights(), 0)
    kshot.evaluate(agent, v.id, split="val", num_tasks=3, episodes=2)
    assert all(x.shape[0] == 3 for x in agent._theta.values())
    start = run.weights()
    assert (agent._theta["0.weight"] != start["0.weight"]).any()
    assert not torch.equal(agent._theta["0.weight"][0], agent._theta["0.weight"][1])
    still = mgrl.agent(v, dataclasses.replace(config, eval_learning_rate=0.0), run.weights(), 0)
    kshot.evaluate(still, v.id, split="val", num_tasks=3, episodes=2)
    assert torch.equal(still._theta["0.weight"], start["0.weight"].expand(3, -1, -1))


@pytest.mark.parametrize("scale", [True, False])
def test_each_step_of_the_agent_is_that_of_its_own_episodes_alone(scale):
    """Of rewards in training's units, with what it sees of η, by moments that start anew on every task."""
    v, config, run = started("GridNav-v0", scale_rewards=scale)
    run.iterate()
    weights = run.weights() | {"eta": mgrl.start_of(config) + 0.7, mgrl.MEAN_SQUARE: torch.tensor(9.0)}
    agent, kept = mgrl.agent(v, config, weights, 0), []
    learn = agent.learn
    agent.learn = lambda found: kept.append(found) or learn(found)
    for episodes in (2, 6):  # the second time, from the start
        kept.clear()
        kshot.evaluate(agent, v.id, split="val", num_tasks=3, episodes=episodes)
        assert len(kept) == episodes // 2
        theta = {k: x.expand(3, *x.shape) for k, x in weights.items() if k not in ("eta", mgrl.MEAN_SQUARE)}
        square = {k: torch.zeros_like(x) for k, x in theta.items()}
        hyper = mgrl.hyper_of(config, weights["eta"].expand(3, -1), config.eval_learning_rate)
        for i, found in enumerate(kept):
            s = mgrl.steps_of(agent.shape, found)
            s = s._replace(reward=s.reward / (3.0 if scale else 1.0))
            g = mgrl.gradient(agent._net, config, theta, hyper, s, torch.full((3, 2), 0.7))
            theta, square = mgrl.stepped(config, theta, square, g, hyper.learning_rate, i)
        for k, x in agent._theta.items():
            torch.testing.assert_close(x, theta[k])


def test_it_learns_and_goes_on_learning_on_each_task():
    """Training finds how to steer for the goal, and steps on a task how its actions are turned."""
    v = kshot.variant("PointRotated-v0")
    config = mgrl.Config(hidden=(32,), steps=200_000, learning_rate=3e-3)
    run = mgrl.learner(v, config, 0, "cpu")
    curve = [run.iterate()["return"] for _ in range(200)]
    assert np.mean(curve[-20:]) > np.mean(curve[:20]) + 3
    found = kshot.evaluate(mgrl.agent(v, config, run.weights(), 0), v.id, split="val", num_tasks=30, episodes=40)
    returns = np.array(found.returns)
    assert returns[:, -10:].mean() > returns[:, :5].mean() + 2


@pytest.mark.parametrize("anneal", [True, False])
def test_the_learning_rate_falls_to_nothing_over_the_budget(anneal):
    _, config, run = started(anneal=anneal)
    run.iterate()
    run.steps = config.steps
    before = run.weights()["0.weight"]
    run.iterate()
    assert torch.equal(run.weights()["0.weight"], before) == anneal
