"""PPO from scratch: the tasks of a batch learn apart, each by the steps that it would take alone; and they learn."""

import dataclasses

import numpy as np
import pytest

import kshot

torch = pytest.importorskip("torch")
from kshot.agents import Experience  # noqa: E402
from kshot_baselines import checkpoint, episodes, policies, scratch, train  # noqa: E402
from kshot_baselines.episodes import Episodes  # noqa: E402
from kshot_baselines.runs import Run, is_done  # noqa: E402

SMALL = scratch.Config(episodes=4, hidden=(8,), epochs=3)
SHAPES = {"continuous": policies.Shape((3, 8, 2), "tanh", False), "discrete": policies.Shape((3, 8, 4), "relu", True)}


def random_episodes(shape, tasks=3, n=4, horizon=6):
    """Steps of no environment, float64, of a policy a task; some episodes end early."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    params = {k: 0.5 * normal(tasks, *size) for k, size in policies.shapes_of_params(shape).items()}
    observation = normal(horizon, tasks, n, 3)
    out = policies.outputs(shape, params, observation.movedim(0, 1).flatten(1, 2))
    y = out.y.unflatten(1, (horizon, n)).movedim(1, 0)
    length = torch.randint(2, horizon + 1, (tasks, n), generator=generator)
    t = torch.arange(horizon)[:, None, None]
    mask, going = (t < length).double(), (t < length - 1).double()
    if shape.discrete:
        action = torch.randint(shape.sizes[-1], (horizon, tasks, n), generator=generator)
    else:
        action = y + normal(*y.shape)
    return params, Episodes(observation, y, params["log_std"], action, normal(horizon, tasks, n) * mask, mask, going)


def alone(shape, params, played, c, rounds):
    """Return a task's parameters after updates, written with torch's own Adam, clipping and minimum, over a loop."""
    leaves = {k: x.clone().requires_grad_() for k, x in params.items()}
    optimiser, norms = torch.optim.Adam(leaves.values(), lr=c.learning_rate, eps=1e-5), []
    for e in played[:rounds]:
        advantage = episodes.advantages(e, c.discount, c.gae_lambda)[:, 0]  # (T, n)
        for _ in range(c.epochs):
            total, steps = 0.0, 0
            for t, k in e.mask_t[:, 0].nonzero().tolist():
                x = leaves, e.observation_t[t, :, k][None]
                new, old = policies.outputs(shape, x[0], x[1]), policies.Outputs(e.y_t[t, :, k][None], e.log_std)
                action = e.action_t[t, :, k][None]
                new, old = (policies.distribution(shape, o).log_prob(action) for o in (new, old))
                ratio = (new - old).exp().squeeze()
                total = total + torch.min(ratio * advantage[t, k], ratio.clip(1 - c.clip, 1 + c.clip) * advantage[t, k])
                steps += 1
            optimiser.zero_grad()
            (-total / steps).backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(leaves.values(), c.max_grad_norm)))
            optimiser.step()
    return leaves, norms


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_batch_of_tasks_learns_as_each_would_alone(shape):
    c = dataclasses.replace(SMALL, learning_rate=0.03, max_grad_norm=0.3)
    params, e = random_episodes(shape)
    of = scratch.learning(params, c.learning_rate)
    for _ in range(2):  # rounds: the state of Adam goes on
        scratch.update(shape, of, episodes.batch(e, c.discount, c.gae_lambda), c)
    norms = []
    for i in range(3):
        part = Episodes(
            *(x[i : i + 1] if k == "log_std" else x[:, i : i + 1] for k, x in e._asdict().items() if k != "noise")
        )
        expected, found = alone(shape, {k: x[i] for k, x in params.items()}, [part, part], c, 2)
        norms += found
        for k, x in expected.items():
            torch.testing.assert_close(of.params[k][i], x, rtol=1e-9, atol=1e-11)
            assert x.numel() == 0 or not torch.allclose(x, params[k][i], atol=1e-3)
    assert min(norms) < c.max_grad_norm < max(norms)  # some gradients are clipped, and some are not


def experience(generator, n):
    """Return what n tasks' rows may have seen of a step of PointGoal, a function of the row."""
    observation, rows = generator.normal(size=(n, 2)), n
    flags = np.zeros(rows, bool)
    action = generator.normal(size=(rows, 2)).astype(np.float32)
    return observation, Experience(observation, action, generator.normal(size=rows), flags, flags, observation, ~flags)


def test_a_task_learns_the_same_whoever_shares_the_batch(monkeypatch):
    """Five tasks, in blocks of two, beside the last two of them: the same draws, observations and rewards."""
    v = kshot.variant("PointGoal-v0")
    monkeypatch.setattr(scratch, "BLOCK", 2 * SMALL.episodes * v.horizon)
    weights, found = scratch.learner(v, SMALL, 0, "cpu").weights(), []
    for tasks in (range(5), range(3, 5)):
        agent, generator = scratch.agent(v, SMALL, weights, 0), np.random.default_rng(0)
        rows = np.arange(20).reshape(5, 4)[list(tasks)].ravel()
        agent.reset(len(tasks))
        for _ in range(2):
            for _ in range(v.horizon):
                observation, e = experience(generator, 20)
                agent.act(observation[rows])
                x, y, _ = agent._acted[-1]
                agent._acted[-1] = x, y, torch.tensor(e.action[rows]).reshape(-1, 4, 2)
                agent.observe(Experience(*(part[rows] for part in e)))
            agent.end_episode()
        assert [len(block.params["log_std"]) for block in agent._blocks] == ([2, 2, 1] if len(tasks) == 5 else [2])
        found.append({k: torch.cat([b.params[k] for b in agent._blocks]) for k in weights})
    for k, x in found[0].items():
        torch.testing.assert_close(x[3:], found[1][k], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(x[3], x[4], atol=1e-3)
        assert not torch.allclose(x[3], weights[k], atol=1e-3)


def test_what_follows_an_early_end_counts_for_nothing(monkeypatch):
    seen, batch = [], scratch.batch
    monkeypatch.setattr(scratch, "batch", lambda e, *settings: (seen.append(e), batch(e, *settings))[1])
    v = kshot.variant("PointGoal-esmaml-v0")  # ends near the goal
    agent = scratch.agent(v, SMALL, scratch.learner(v, SMALL, 0, "cpu").weights(), 0)
    result = kshot.evaluate(agent, v.id, split="val", num_tasks=8, episodes=8)
    lengths = np.sort(np.concatenate([e.mask_t.sum(0).numpy() for e in seen], 1).ravel())
    np.testing.assert_array_equal(lengths, np.sort(np.array(result.lengths).ravel()))
    assert lengths[0] < v.horizon
    for e in seen:
        assert torch.equal(e.continues_tp1[:-1], e.mask_t[1:])
        assert (e.continues_tp1[-1] == 0).all()
        assert (e.reward_tp1[e.mask_t == 0] == 0).all()


@pytest.mark.parametrize("id", ["PointGoal-v0", "GridNav-v0"])
def test_it_learns_each_task_from_scratch(id):
    v, c = kshot.variant(id), scratch.Config()
    result = kshot.evaluate(
        scratch.agent(v, c, scratch.learner(v, c, 0, "cpu").weights(), 0), v.id, split="val", num_tasks=20, episodes=45
    )
    rounds = np.array(result.returns).mean(0).reshape(9, 5).mean(1)
    print(rounds)
    assert result.agent.round == result.agent.first_update == 5
    assert result.agent.adapts
    assert rounds[-1] > rounds[0] + (8 if id == "PointGoal-v0" else 2)


def test_an_evaluation_is_a_function_of_its_seed_and_draws_nothing_of_others():
    v = kshot.variant("PointGoal-v0")
    weights, state = scratch.learner(v, SMALL, 0, "cpu").weights(), torch.get_rng_state()
    agents = [scratch.agent(v, SMALL, weights, seed) for seed in (0, 0, 1)]
    found = [kshot.evaluate(a, v.id, split="val", num_tasks=5, episodes=12).returns for a in (agents[0], *agents)]
    assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[1] == found[2] != found[3]  # and an agent forgets what it learned before


def test_every_task_begins_with_the_random_policy_of_the_run():
    v = kshot.variant("PointGoal-v0")
    one, same, other = (scratch.learner(v, SMALL, seed, "cpu").weights() for seed in (0, 0, 1))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])
    agent = scratch.agent(v, SMALL, one, 0)
    agent.reset(3)
    assert all(torch.equal(agent._blocks[0].params[k], one[k].expand(3, *one[k].shape)) for k in one)
    assert (scratch.learner(v, dataclasses.replace(SMALL, log_std=-0.5), 0, "cpu").weights()["log_std"] == -0.5).all()


def test_a_run_is_scored_at_once(tmp_path):
    v = kshot.variant("GridNav-v0")
    run = Run("scratch", v, SMALL, 1, "cpu", tmp_path / "run", tmp_path / "results")
    train.train(run)
    assert is_done(run)
    found = checkpoint.load(run.weights)
    assert found.header.training_steps == 0
    assert [steps for steps, _ in found.header.curve] == [0]
    expected = scratch.learner(v, SMALL, 1, "cpu").weights()
    assert all(torch.equal(found.weights[k], x) for k, x in expected.items())


def test_a_state_goes_on_and_nothing_is_trained_before_the_test():
    v = kshot.variant("PointGoal-v0")
    one, other = (scratch.learner(v, SMALL, seed, "cpu") for seed in (0, 1))
    other.set_state(one.get_state())
    assert all(torch.equal(other.weights()[k], x) for k, x in one.weights().items())
    assert one.steps == 0
    with pytest.raises(RuntimeError, match="budget of 0 steps"):
        one.iterate()
    with pytest.raises(ValueError, match="steps is 100; expected 0"):
        dataclasses.replace(SMALL, steps=100)


@pytest.mark.parametrize("name", ["episodes", "epochs"])
def test_settings_that_make_no_sense_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0; expected at least 1"):
        dataclasses.replace(SMALL, **{name: 0})


def test_weights_of_another_policy_are_refused():
    v = kshot.variant("PointGoal-v0")
    weights = scratch.learner(v, SMALL, 0, "cpu").weights()
    with pytest.raises(ValueError, match=r"'0.bias': \(8,\).*expect.*'0.bias': \(9,\)"):
        scratch.agent(v, dataclasses.replace(SMALL, hidden=(9,)), weights, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.cuda
@pytest.mark.parametrize("id", ["PointGoal-v0", "GridNav-v0"])
def test_it_runs_on_cuda(id):
    v = kshot.variant(id)
    agent = scratch.agent(v, SMALL, scratch.learner(v, SMALL, 0, "cuda").weights(), 0, "cuda")
    assert np.isfinite(kshot.evaluate(agent, v.id, split="val", num_tasks=4, episodes=12).returns).all()
