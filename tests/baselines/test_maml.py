"""MAML: its run, its agent, and that it learns to be adapted."""

import dataclasses
import itertools

import numpy as np
import pytest

import kshot
from kshot.agents import Experience

torch = pytest.importorskip("torch")
from kshot_baselines import maml, policies  # noqa: E402

SMALL = maml.Config(tasks=3, episodes=4, hidden=(8,), activation="tanh", inner_lr=0.1)
OPTIONS = {
    "default": {},
    "lvc": {"inner": "lvc"},
    "dice": {"inner": "dice"},
    "two steps": {"inner_steps": 2},
    "pre-training": {"inner_steps": 0},
    "first order": {"first_order": True},
    "learned steps": {"learn_steps": True},
    "part of the episodes": {"fisher_samples": 0.5},
    "promp": {"outer": "ppo", "inner": "lvc", "inner_steps": 2, "learn_steps": True},
    "ppo on all tasks": {"outer": "ppo", "inner_steps": 0},
}
VARIANTS = ["PointGoal-pearl-v0", "GridNav-v0"]  # the first starts anywhere


def started(name="PointGoal-v0", seed=0, **changes):
    v = kshot.variant(name)
    config = dataclasses.replace(SMALL, **changes)
    return v, config, maml.learner(v, config, seed, "cpu")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_every_option_runs_resumes_to_the_same_curve_and_is_evaluated(checked, changes, variant):
    v, config = kshot.variant(variant), dataclasses.replace(SMALL, **changes)
    whole, _, round_ = checked(maml, v, config)
    assert round_ == 4
    assert whole.steps == 4 * (config.inner_steps + 1) * 12 * v.horizon
    start = started(variant, **changes)[2].weights()
    assert any(not torch.equal(start[k], whole.weights()[k]) for k in start)


def test_every_option_makes_a_difference():
    found = {}
    for name, changes in OPTIONS.items():
        run = started(**changes)[2]
        run.iterate()
        found[name] = run.weights()["0.weight"]
    same = [(a, b) for a, b in itertools.combinations(OPTIONS, 2) if torch.equal(found[a], found[b])]
    assert not same


def test_a_run_is_a_function_of_its_seed():
    curves = []
    for seed in (0, 0, 1):
        run = started(seed=seed)[2]
        curves.append([run.iterate()["return"] for _ in range(2)])
    assert curves[0] == curves[1]
    assert not set(curves[0]) & set(curves[2])


def test_no_two_iterations_and_no_two_seeds_meet_the_same_tasks():
    goals = []
    for seed in (0, 1):
        run = started(seed=seed)[2]
        for _ in range(3):
            run.iterate()
            goals.append(run._env.task.goal.reshape(3, 4, 2))
    for goal in goals:
        assert (goal == goal[:, :1]).all()  # a task's episodes side by side
    assert len({tuple(g.tolist()) for goal in goals for g in goal[:, 0]}) == 2 * 3 * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inner": "pg"}, "inner is 'pg'; expected one of vpg, lvc, dice"),
        ({"outer": "sgd"}, "outer is 'sgd'; expected one of trpo, ppo"),
        ({"fisher_samples": 0.0}, "fisher_samples is 0.0; expected more than 0 and at most 1"),
        ({"inner_steps": -1}, "inner_steps is -1; expected at least 0"),
        ({"tasks": 0}, "tasks is 0; expected at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **changes)


def test_weights_of_another_policy_are_refused():
    v, config, run = started()
    with pytest.raises(ValueError, match=r"the parameter 0.bias is \(8,\); this variant and config expect \(9,\)"):
        maml.agent(v, dataclasses.replace(config, hidden=(9,)), run.weights(), 0)
    with pytest.raises(ValueError, match=r"the parameter step.0.bias is None"):
        maml.agent(v, dataclasses.replace(config, learn_steps=True), run.weights(), 0)


def test_metrics_say_what_happened():
    v, _, run = started(max_kl=0.02)
    a, post, metrics = run.sample()
    run.iteration, run.steps = 0, 0
    again = started(max_kl=0.02)[2]
    found = again.iterate()
    assert {k: found[k] for k in metrics} == metrics
    assert found["accepted"] == 1
    assert 0 < found["kl"] <= 0.02
    assert found["loss"] < 0  # less than at the old parameters, where it is 0: advantages are centred
    assert found["entropy"] == pytest.approx(2 * 0.5 * np.log(2 * np.pi * np.e), abs=0.2)
    assert len(a.path) == 2
    assert post.observation.shape == (3, 4 * v.horizon, 2)


# --- the agent --------------------------------------------------------------------------------------------------------


class Spy:
    """Passes everything on, and keeps what the agent knew of each round and the parameters after it."""

    def __init__(self, inner):
        self.inner, self.round, self.rounds, self.now = inner, inner.round, [], []

    def reset(self, n):
        self.n = n
        self.inner.reset(n)
        self.params = [self.inner._params]

    def act(self, observation):
        self.observation = observation
        action = self.inner.act(observation)
        self.drawn = self.inner._acted[-1][2]
        return action

    def observe(self, e: Experience):
        self.now.append((self.observation.copy(), self.drawn, e))
        self.inner.observe(e)

    def end_episode(self):
        self.inner.end_episode()
        self.rounds.append(self.now)
        self.params.append(self.inner._params)
        self.now = []


def plain_step(shape, params, played, lr, config):
    """Return a task's parameters after a step, written as a loop over episodes, with autograd."""
    from kshot_baselines.baseline import RIDGE

    rows, targets, data = [], [], []
    for episode in played:
        ret, returns = 0.0, []
        for _, _, reward in reversed(episode):
            ret = reward + config.discount * ret
            returns.append(ret)
        for t, ((observation, action, _), ret) in enumerate(zip(episode, reversed(returns), strict=True)):
            o = np.clip(observation, -10, 10)
            rows.append([*o, *o**2, t / 100, (t / 100) ** 2, (t / 100) ** 3, 1])
            targets.append(ret)
            data.append((observation, action))
    x, y = np.array(rows, np.float64), np.array(targets)
    advantage = y - x @ np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)  # λ = 1
    advantage = torch.tensor((advantage - advantage.mean()) / advantage.std(), dtype=torch.float32)
    leaves = {k: p.detach().clone().requires_grad_() for k, p in params.items()}
    observation = torch.tensor(np.array([o for o, _ in data]), dtype=torch.float32)[None]
    action = torch.stack([a for _, a in data])[None]
    log_prob = policies.distribution(shape, policies.outputs(shape, leaves, observation)).log_prob(action)
    (-(log_prob[0] * advantage).mean()).backward()
    return {k: p.detach() - lr * p.grad if p.numel() else p.detach() for k, p in leaves.items()}


@pytest.mark.parametrize("variant", ["PointGoal-esmaml-v0", "GridNav-v0"])  # the first ends early
def test_the_agent_adapts_by_the_training_step_on_each_round(variant):
    """Step sizes α, α, α/2: training took two steps."""
    v, config, run = started(variant, inner_steps=2, inner_lr=0.5)
    spy = Spy(maml.agent(v, config, run.weights(), 0))
    kshot.evaluate(spy, v.id, split="val", num_tasks=6, episodes=12)
    shape = policies.shape_of(v, config.hidden, config.activation)
    ended = False
    for k, (played, lr) in enumerate(zip(spy.rounds, (0.5, 0.5, 0.25), strict=True)):
        for task in range(6):
            by_episode = []
            for row in range(4 * task, 4 * task + 4):
                steps = [(o[row], drawn[task, row % 4], e.reward[row]) for o, drawn, e in played if e.active[row]]
                ended |= len(steps) < v.horizon
                by_episode.append(steps)
            before = {name: x[task] for name, x in spy.params[k].items()}
            expected = plain_step(shape, before, by_episode, lr, config)
            for name, x in expected.items():
                torch.testing.assert_close(spy.params[k + 1][name][task], x, atol=1e-4, rtol=1e-3)
    assert ended == (variant == "PointGoal-esmaml-v0")


def test_learned_step_sizes_are_the_agents():
    v, config, run = started(learn_steps=True)
    weights = run.weights()
    weights["step.0.weight"] = torch.zeros_like(weights["step.0.weight"])
    spy = Spy(maml.agent(v, config, weights, 0))
    kshot.evaluate(spy, v.id, split="val", num_tasks=3, episodes=4)
    before, after = spy.params
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["0.bias"], after["0.bias"])


def test_blocks_of_tasks_change_nothing(monkeypatch):
    v, config, run = started()
    agent = maml.agent(v, config, run.weights(), 0)
    whole = kshot.evaluate(agent, v.id, split="val", num_tasks=10, episodes=12)
    monkeypatch.setattr(maml, "BLOCK", 3 * 4 * v.horizon)  # three tasks
    parts = kshot.evaluate(agent, v.id, split="val", num_tasks=10, episodes=12)
    np.testing.assert_allclose(parts.returns, whole.returns, atol=1e-2)


def test_an_evaluation_is_a_function_of_its_seed_and_draws_nothing_of_others():
    v, config, run = started(eval_episodes=6)
    state = torch.get_rng_state()
    results = [
        kshot.evaluate(maml.agent(v, config, run.weights(), seed), v.id, split="val", num_tasks=5, episodes=12)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert results[0].returns == results[1].returns != results[2].returns
    agent = maml.agent(v, config, run.weights(), 0)
    twice = [kshot.evaluate(agent, v.id, split="val", num_tasks=5, episodes=12) for _ in range(2)]
    assert twice[0].returns == twice[1].returns == results[0].returns
    assert results[0].agent.round == 6
    assert results[0].agent.config["eval_episodes"] == 6
    assert results[0].agent.config["inner_lr"] == config.inner_lr


def test_actions_are_stretched_to_the_box():
    """In PointGoal-maml an action of 1 is a tenth of a metre: its draws go beyond."""
    v, config, run = started("PointGoal-maml-v0")
    agent = maml.agent(v, config, run.weights(), 0)
    agent.reset(500)
    action = agent.act(np.zeros((2000, 2)))
    assert action.shape == (2000, 2)
    assert action.std() == pytest.approx(0.1, rel=0.05)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_it_learns_to_be_adapted():
    """A step of the inner update must make much of the way to the goal; before it, no goal is known."""
    _, _, run = started("PointGoal-v0", tasks=10, episodes=10, hidden=(32, 32), inner_lr=0.3, max_kl=0.03)
    curve = [run.iterate() for _ in range(40)]
    start = curve[0]["return_before"]
    before, after = (np.mean([m[k] for m in curve[-5:]]) for k in ("return_before", "return"))
    assert after > start + 4
    assert after > before + 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.cuda
def test_it_runs_on_cuda():
    v = kshot.variant("PointGoal-v0")
    run = maml.learner(v, SMALL, 0, "cuda")
    assert all(np.isfinite(list(run.iterate().values())).all() for _ in range(2))
    kshot.evaluate(maml.agent(v, SMALL, run.weights(), 0, "cuda"), v.id, split="val", num_tasks=4, episodes=8)
