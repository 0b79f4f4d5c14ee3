"""torch.nn.Module as an agent: what it may give, what CleanRL's agents are, memory, and what is refused."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import distributions, nn

import kshot
from kshot.agents import Agent, Experience, PrivilegedAgent, make_agent
from kshot.agents.torch import Draws, TorchAgent, digest

POINT, GRID = kshot.variant("PointGoal-v0"), kshot.variant("GridNav-v0")
CELLS = GRID.observation_space.shape[0]
X = np.random.default_rng(0).uniform(-1, 1, (6, 2))


class Gives(nn.Module):
    """A module that gives what a function makes of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def acts(function, variant=POINT, x=X, **kwargs):
    return TorchAgent(Gives(function), variant, **kwargs).act(x)


# --- what a module may give ---------------------------------------------------------------------------------


def test_actions_are_clipped_to_the_box():
    got = acts(lambda x: 3 * x)
    np.testing.assert_allclose(got, np.clip(3 * X, -1, 1), rtol=1e-6)
    assert (abs(got) == 1).any()


def test_logits_and_whole_numbers_are_discrete_actions():
    x = np.zeros((3, CELLS))
    logits = torch.tensor([[0.0, 1, 0, 0, 0], [0, 0, 0, 0, 2], [9, 1, 0, 0, 0]])
    assert acts(lambda _: logits, GRID, x).tolist() == [1, 4, 0]
    for dtype in (torch.int64, torch.int32, torch.uint8):
        assert acts(lambda _, d=dtype: torch.tensor([3, 0, 4], dtype=d), GRID, x).tolist() == [3, 0, 4]


def test_a_distribution_gives_its_mode():
    normal, tanh = distributions.Normal, distributions.TanhTransform()
    np.testing.assert_allclose(acts(lambda x: normal(x, 0.5)), X, rtol=1e-6)
    np.testing.assert_allclose(acts(lambda x: distributions.Independent(normal(x, 0.5), 1)), X, rtol=1e-6)
    np.testing.assert_allclose(
        acts(lambda x: distributions.TransformedDistribution(normal(x, 1.0), tanh)), np.tanh(X), rtol=1e-5
    )
    soft = distributions.TransformedDistribution(normal(torch.tensor(X), 1.0), [tanh])
    np.testing.assert_allclose(acts(lambda _: distributions.Independent(soft, 1)), np.tanh(X), rtol=1e-5)
    np.testing.assert_allclose(acts(lambda x: distributions.Gumbel(x, 1.0)), X, rtol=1e-5)
    logits = torch.tensor([[0.0, 1, 0, 0, 0], [0, 0, 0, 0, 2]])
    for kind in (distributions.Categorical, distributions.OneHotCategorical):
        assert acts(lambda _, k=kind: k(logits=logits), GRID, np.zeros((2, CELLS))).tolist() == [1, 4]


def test_drawn_actions_follow_the_distribution_and_the_seed():
    x = np.tile([0.3, -0.3], (20_000, 1))
    drawn = acts(lambda x: distributions.Normal(x, 0.1), x=x, deterministic=False)
    np.testing.assert_allclose(drawn.mean(0), [0.3, -0.3], atol=0.004)
    np.testing.assert_allclose(drawn.std(0), 0.1, rtol=0.03)
    logits = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4, 1e-9])).expand(20_000, 5)
    drawn = acts(lambda _: logits, GRID, np.zeros((20_000, CELLS)), deterministic=False)
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 20_000, [0.1, 0.2, 0.3, 0.4, 0], atol=0.015)


def test_draws_are_the_agents_own():
    def two(seed):
        agent = TorchAgent(Gives(lambda x: distributions.Normal(x / 4, 0.1)), POINT, seed, deterministic=False)
        return [agent.act(X), agent.act(X)]

    torch.manual_seed(0)
    before = torch.get_rng_state()
    (a, b), (c, d), (e, _) = two(1), two(1), two(2)
    assert (torch.get_rng_state() == before).all()
    assert (a == c).all()
    assert (b == d).all()
    assert not (a == b).any()
    assert not (a == e).any()


def test_a_module_runs_as_in_evaluation_and_is_left_as_it_was():
    seen = []

    def look(x):
        seen.append((x.dtype, torch.is_grad_enabled(), net.training, net[1].training, net[2].training))
        return x

    net = nn.Sequential(Gives(look), nn.Dropout(0.9), nn.BatchNorm1d(2))
    net.train()
    net[2].eval()
    agent = TorchAgent(net, POINT)
    agent.reset(6)
    got = agent.act(X)
    np.testing.assert_allclose(got, X, rtol=1e-4)  # no dropout, and a fresh BatchNorm's running statistics
    assert seen == [(torch.float32, False, False, False, False)]
    assert (net.training, net[1].training, net[2].training) == (True, True, False)
    broken = Gives(lambda x: x[:, :, :, 0]).train()
    with pytest.raises(IndexError):
        TorchAgent(broken, POINT).act(X)
    assert broken.training
    assert torch.is_grad_enabled()


def test_a_module_scores_what_the_same_function_does():
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(-torch.eye(2))
        net.bias.zero_()
    result = kshot.evaluate(net, POINT.id, num_tasks=5, episodes=2, seed=3)
    want = kshot.evaluate(lambda x: np.clip(-x.astype(np.float32), -1, 1), POINT.id, num_tasks=5, episodes=2, seed=3)
    assert result.returns == want.returns
    assert (result.agent.name, result.agent.privileged, result.agent.adapts) == ("Linear", False, False)
    assert result.agent.config == {"deterministic": True, "checkpoint_sha256": digest(net)}
    assert isinstance(make_agent(net, POINT), TorchAgent)
    assert not isinstance(make_agent(net, POINT), PrivilegedAgent)


def test_a_module_that_is_an_agent_already_stays_one():
    class Both(nn.Module):
        def reset(self, n): ...
        def act(self, observation): ...
        def observe(self, experience): ...
        def end_episode(self): ...

    both = Both()
    assert isinstance(both, Agent)
    assert make_agent(both, POINT) is both


def test_make_agent_imports_no_torch():
    code = (
        "import sys, kshot\nfrom kshot.agents import make_agent\n"
        "make_agent(lambda x: x, kshot.variant('PointGoal-v0'))\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("False\n", "")


# --- CleanRL ------------------------------------------------------------------------------------------------


class Continuous(nn.Module):
    """As in ppo_continuous_action.py: no forward."""

    def __init__(self):
        super().__init__()
        self.critic = nn.Linear(2, 1)
        self.actor_mean = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        self.actor_logstd = nn.Parameter(torch.full((1, 2), -2.0))

    def get_action_and_value(self, x, action=None):
        mean = self.actor_mean(x)
        probs = distributions.Normal(mean, self.actor_logstd.expand_as(mean).exp())
        action = probs.sample() if action is None else action
        return action, probs.log_prob(action).sum(1), probs.entropy().sum(1), self.critic(x)


class Categorical(nn.Module):
    """As in ppo.py."""

    def __init__(self):
        super().__init__()
        self.critic, self.actor = nn.Linear(CELLS, 1), nn.Linear(CELLS, 5)

    def get_action_and_value(self, x, action=None):
        probs = distributions.Categorical(logits=self.actor(x))
        action = probs.sample() if action is None else action
        return action, probs.log_prob(action), probs.entropy(), self.critic(x)


class Pixels(Categorical):
    """As in ppo_atari.py: the actor takes what the network makes of the observation."""

    def __init__(self):
        super().__init__()
        self.network, self.actor = nn.Linear(CELLS, CELLS), nn.Linear(CELLS, 5)


class QNetwork(nn.Module):
    """As in dqn.py."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(CELLS, 5)

    def forward(self, x):
        return self.network(x)


class Soft(nn.Module):
    """As in sac_continuous_action.py: forward gives the normal's mean and log standard deviation."""

    def __init__(self):
        super().__init__()
        self.fc_mean, self.fc_logstd = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.fc_mean(x), self.fc_logstd(x)

    def get_action(self, x):
        mean, log_std = self(x)
        drawn = distributions.Normal(mean, log_std.exp()).rsample()
        return torch.tanh(drawn), torch.zeros(len(x), 1), torch.tanh(mean)


@pytest.mark.parametrize(
    ("kind", "variant", "greedy"),
    [
        (Continuous, POINT, lambda m, x: m.actor_mean(x).clamp(-1, 1)),
        (Categorical, GRID, lambda m, x: m.actor(x).argmax(1)),
        (QNetwork, GRID, lambda m, x: m.network(x).argmax(1)),
        (Soft, POINT, lambda m, x: torch.tanh(m.fc_mean(x))),
    ],
)
def test_agents_of_cleanrl_fit_as_they_are(kind, variant, greedy):
    torch.manual_seed(3)
    module, x = kind(), np.random.default_rng(0).normal(size=(64, variant.observation_space.shape[0]))
    want = greedy(module, torch.tensor(x, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(make_agent(module, variant).act(x), want, rtol=1e-5, atol=1e-6)
    drawn = TorchAgent(module, variant, seed=1, deterministic=False)
    if kind is QNetwork:
        assert (drawn.act(x) != want).any()
        return
    a, b = drawn.act(x), drawn.act(x)
    assert (a != b).any()
    assert a.shape == want.shape


def test_a_module_that_can_only_draw_draws_and_says_so():
    torch.manual_seed(0)
    agent = make_agent(Pixels(), GRID)
    drawn = [agent.act(np.ones((300, CELLS))) for _ in range(2)]
    assert (drawn[0] != drawn[1]).any()
    assert agent.config["deterministic"] is False


# --- memory -------------------------------------------------------------------------------------------------


class Counter(nn.Module):
    """Acts by how often it was called since its state began."""

    def __init__(self):
        super().__init__()
        self.begun = []

    def initial_state(self, n):
        assert not torch.is_grad_enabled()
        self.begun.append(n)
        return torch.zeros(n, 1)

    def forward(self, x, state):
        return 0.01 * state.expand(-1, 2), state + 1


def test_a_recurrent_state_lasts_over_the_episodes_of_a_task():
    net = Counter()
    agent = make_agent(net, POINT)
    for _ in range(2):
        agent.reset(6)
        agent.act(X)
        agent.end_episode()
        np.testing.assert_allclose(agent.act(X), 0.01)
    assert net.begun == [6, 7, 6, 7]  # one more tells which axis is the rows'
    result = kshot.evaluate(net, POINT.id, num_tasks=4, episodes=2)
    assert result.agent.adapts
    first, second = np.array(result.returns).T
    assert (first != second).all()  # the same start in both: only memory tells them apart


def test_a_recurrent_module_of_torch_fits():
    class GRU(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRUCell(2, 8), nn.Linear(8, 2)

        def initial_state(self, n):
            return torch.zeros(n, 8)

        def forward(self, x, state):
            state = self.cell(x, state)
            return distributions.Normal(self.head(state), 1.0), state

    torch.manual_seed(0)
    net = GRU()
    agent = make_agent(net, POINT)
    agent.reset(6)
    got = [agent.act(X), agent.act(X)]
    x, state = torch.tensor(X, dtype=torch.float32), torch.zeros(6, 8)
    for actions in got:
        state = net.cell(x, state)
        np.testing.assert_allclose(actions, net.head(state).detach().clamp(-1, 1), rtol=1e-5, atol=1e-6)


class Nested(nn.Module):
    """Counts its steps in tensors of several shapes, and writes into the state that it is given."""

    def initial_state(self, n):
        return {"a": torch.zeros(2, n, 3), "b": (torch.zeros(n), [torch.zeros(4, n, dtype=torch.int64)]), "c": None}

    def forward(self, x, state):
        state["a"] += 1
        b, (c,) = state["b"]
        return 0.01 * state["a"][1, :, :2], {"a": state["a"], "b": (b + 1, [c + 1]), "c": None}


@pytest.mark.parametrize("n", [1, 2, 3])  # as many rows as another axis is long, too
def test_rows_that_wait_keep_their_state(n):
    agent, rows = make_agent(Nested(), POINT), np.arange(n)
    agent.reset(n)
    over = rows == 0
    no, x = np.zeros(n, bool), np.zeros((n, 2))
    agent.act(x)
    agent.observe(Experience(x, x, no, over, no, x, ~no))
    for _ in range(3):
        agent.act(x)
        agent.observe(Experience(x, x, no, no, no, x, ~over))
    lived = np.where(over, 1, 4)
    state = agent._state
    assert (state["a"].numpy() == lived[:, None]).all()
    assert (state["b"][0].numpy() == lived).all()
    assert (state["b"][1][0].numpy() == lived).all()
    agent.end_episode()
    np.testing.assert_allclose(agent.act(x)[:, 0], 0.01 * (lived + 1))


@pytest.mark.parametrize(
    ("initial", "words"),
    [
        (lambda n: torch.zeros(1, 8), r"float32 \(1, 8\) for n rows"),
        (lambda n: (torch.zeros(n, 2), torch.zeros(())), r"float32 \(\) for n rows"),
        (lambda n: torch.zeros(n, n), r"float32 \(6, 6\) for n rows"),
        (lambda n: [torch.zeros(2)] * n, r"a list of 6 and a list of 7"),
        (lambda n: 0, r"expected tensors, .* got a int"),
    ],
)
def test_a_state_whose_rows_cannot_be_told_is_refused(initial, words):
    class Odd(Counter):
        def initial_state(self, n):
            return initial(n)

    with pytest.raises(ValueError, match=rf"Odd\.initial_state\(n\): {words}.* one axis that is n long"):
        make_agent(Odd(), POINT).reset(6)


def test_a_state_that_grows_cannot_be_kept_by_rows_that_wait():
    class Grows(Counter):
        def forward(self, x, state):
            return x, torch.cat([state, state], 1)

    agent = make_agent(Grows(), POINT)
    agent.reset(6)
    agent.act(X)
    agent.end_episode()
    agent.act(X)  # as long as none waits
    yes = np.ones(6, bool)
    agent.observe(Experience(X, X, 0 * yes, yes, ~yes, X, yes))
    with pytest.raises(ValueError, match=r"Grows cannot keep the state .* float32 \(6, 4\) became float32 \(6, 8\)"):
        agent.act(X)


# --- who it is, and its random numbers ----------------------------------------------------------------------


def test_a_digest_is_of_names_types_shapes_and_numbers():
    class Holds(nn.Module):
        def __init__(self, **tensors):
            super().__init__()
            for name, x in tensors.items():
                self.register_buffer(name, x)

    one = torch.arange(6.0)
    same = digest(Holds(x=one, y=one[0]))
    assert same == digest(Holds(y=one[0].clone(), x=torch.stack([one, one], 1)[:, 0]))  # in any order and layout
    others = [
        Holds(x=one, z=one[0]),
        Holds(x=one.double(), y=one[0]),
        Holds(x=one.reshape(2, 3), y=one[0]),
        Holds(x=one + 1, y=one[0]),
        Holds(x=one.bfloat16(), y=one[0]),
        Holds(x=one),
        Holds(),
    ]
    assert len({same, *map(digest, others)}) == 8


def test_two_modules_are_told_apart_and_one_is_one():
    torch.manual_seed(0)
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    configs = [kshot.evaluate(m, POINT.id, num_tasks=1, episodes=1, seed=s).agent.config for m, s in ((a, 0), (a, 1))]
    assert configs[0] == configs[1]
    assert configs[0] != make_agent(b, POINT).config


def test_own_draws_start_anew_and_touch_nobody_elses():
    def drawn(draws):
        with draws.own(torch.device("cpu")):
            return random.random(), np.random.random(), float(torch.rand(()))

    def outside():
        return random.random(), np.random.random(), float(torch.rand(()))

    draws, other = Draws(3), Draws(4)
    first = drawn(draws)
    places = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    second, third = drawn(draws), drawn(other)
    assert places == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    outside()
    draws.restart()
    assert [drawn(draws), drawn(draws)] == [first, second]
    assert len({first, second, third}) == 3
    agent = TorchAgent(Gives(lambda x: distributions.Normal(x, 0.1)), POINT, deterministic=False)
    agent.reset(6)
    before = agent.act(X)
    agent.reset(6)
    assert (agent.act(X) == before).all()


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "variant", "words"),
    [
        (lambda x: x[:, :1], POINT, ("float32 (6, 1)", "actions (6, 2)")),
        (lambda x: x[:3], POINT, ("(3, 2)", "(6, 2)")),
        (lambda x: x.sum(), POINT, ("()", "(6, 2)")),
        (lambda x: x.long(), POINT, ("int64", "actions")),
        (lambda x: (x, x, x), POINT, ("a tuple of 3", "actions")),
        (lambda x: x.numpy(), POINT, ("a ndarray", "actions")),
        (lambda x: None, POINT, ("a NoneType",)),
        (lambda x: distributions.Normal(x[:, :1], 1.0), POINT, ("(6, 1)", "(6, 2)")),
        (lambda x: x[:, :4], GRID, ("(6, 4)", "logits (6, 5)", "whole numbers (6,)")),
        (lambda x: x[:, 0], GRID, ("float32 (6,)", "logits (6, 5)")),
        (lambda x: x[:, 0] > 0, GRID, ("bool (6,)", "logits")),
        (lambda x: x[:, :1].long(), GRID, ("int64 (6, 1)", "(6,)")),
    ],
)
def test_what_is_no_action_is_refused_by_name(function, variant, words):
    x = np.zeros((6, variant.observation_space.shape[0] if variant is POINT else 5))
    with pytest.raises(ValueError) as caught:
        acts(function, variant, x)
    assert all(word in str(caught.value) for word in ("Gives gave", variant.id, *words)), caught.value


def test_modules_that_cannot_be_called_are_refused_when_the_agent_is_made():
    with pytest.raises(ValueError, match=r"ModuleList has no forward .* actor_mean, actor"):
        make_agent(nn.ModuleList([nn.Linear(2, 2)]), POINT)
    with pytest.raises(ValueError, match=r"expected a torch.nn.Module, got 3"):
        TorchAgent(3, POINT)
    with pytest.raises(ValueError, match=r"Linear is a class; give an agent"):
        make_agent(nn.Linear, POINT)


def test_a_modules_own_error_says_what_it_was_called_with():
    with pytest.raises(RuntimeError) as caught:
        TorchAgent(nn.Linear(3, 2), POINT).act(X)
    assert caught.value.__notes__ == [f"Linear was called with observations of {POINT.id}, float32 (6, 2)"]


def test_a_recurrent_module_must_return_its_state():
    class Forgets(Counter):
        def forward(self, x, state):
            return x

    agent = make_agent(Forgets(), POINT)
    agent.reset(6)
    with pytest.raises(ValueError, match=r"Forgets gave float32 \(6, 2\) .* \(output, state\), as it has"):
        agent.act(X)


def test_a_distribution_without_a_mode_or_mean_is_refused():
    class Odd(distributions.Distribution):
        arg_constraints = {}  # noqa: RUF012  # as torch has it

    with pytest.raises(ValueError, match=r"Gives gave a Odd, which has no mode and no mean"):
        acts(lambda x: Odd())
