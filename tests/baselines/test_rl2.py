"""RL²: what its agent remembers, that its runs resume, and that it learns to learn."""

import copy
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import kshot  # noqa: E402
from kshot.agents import Experience  # noqa: E402
from kshot_baselines import rl2  # noqa: E402
from kshot_baselines.rollout import Stream  # noqa: E402

SMALL = rl2.Config(memory=8, rows=16, minibatches=2, epochs=2)


def agent_of(id, config=SMALL, seed=0):
    """An agent of a network that was perturbed, so that its actions depend on all that it sees."""
    v = kshot.variant(id)
    torch.manual_seed(0)
    net = rl2.network(v, config)
    weights = {
        k: x + torch.randn_like(x) * (not k.startswith(("inputs", "values"))) for k, x in net.state_dict().items()
    }
    return rl2.agent(v, config, weights, seed)


def experience_of(observation, action, reward, active, ended=None):
    n = len(reward)
    ended = np.zeros(n, bool) if ended is None else ended
    return Experience(observation, action, reward, ended, np.zeros(n, bool), observation, active)


def test_at_test_it_sees_what_it_saw_in_training():
    """The same tasks, seeds and actions: the inputs of the agent's network are those of the training stream."""
    v, seen = kshot.variant("GridNav-v0"), []
    agent = agent_of(v.id)
    envs = kshot.make_torch(v.id, 8, episodes_per_task=2)
    stream = Stream(envs, 2)
    stream.begin(0)
    step = agent._net.step

    def spy(x, memory):
        seen.append(x.clone())
        return step(x, memory)

    agent._net.step = spy
    agent.reset(8)
    for t in range(2 * v.horizon):
        observation = stream.x[:, : v.observation_space.shape[0]].double().numpy()
        expected = stream.x.clone()
        action = agent.act(observation)
        torch.testing.assert_close(seen[-1], expected)
        found = stream.step(torch.from_numpy(action))
        done = found.done.numpy()
        agent.observe(experience_of(observation, action, found.reward.double().numpy(), np.ones(8, bool), done))
        if t == v.horizon - 1:
            agent.end_episode()


def test_rows_that_wait_remember_as_if_they_were_alone():
    agent = agent_of("PointSparse-v0")
    observation, reward = np.random.default_rng(0).normal(size=(4, 2)), np.arange(4.0)
    agent.reset(4)
    action = agent.act(observation)
    ended = np.array([True, False, False, False])
    agent.observe(experience_of(observation, action, reward, np.ones(4, bool), ended))
    memory, tail = agent._memory.clone(), agent._tail.clone()
    for _ in range(3):  # row 0 waits
        action = agent.act(observation)
        agent.observe(experience_of(observation, action, reward + 5, ~ended))
    assert torch.equal(agent._memory[0], memory[0])
    assert torch.equal(agent._tail[0], tail[0])
    assert not torch.equal(agent._memory[1], memory[1])
    agent.end_episode()
    agent.act(observation)
    assert not torch.equal(agent._memory[0], memory[0])  # and goes on


def test_after_a_trial_every_episode_starts_with_the_memory_of_its_last():
    v, started = kshot.variant("PointSparse-v0"), []
    agent = agent_of(v.id)
    generator = np.random.default_rng(0)
    agent.reset(3)
    for _ in range(v.trial + 3):
        started.append((agent._memory.clone(), agent._tail.clone()))
        for _ in range(4):
            observation = generator.normal(size=(3, 2))
            action = agent.act(observation)
            agent.observe(experience_of(observation, action, generator.normal(size=3), np.ones(3, bool)))
        agent.end_episode()
    for i, (memory, tail) in enumerate(started):
        same = torch.equal(memory, started[v.trial - 1][0]) and torch.equal(tail, started[v.trial - 1][1])
        assert same == (i >= v.trial - 1)


def test_a_score_is_a_function_of_the_seed():
    scores = [
        kshot.evaluate(agent_of("PointSparse-v0", seed=s), "PointSparse-v0", num_tasks=30).score() for s in (0, 0, 1)
    ]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize("id", ["GridNav-v0", "PointGoal-maml-v0", "HalfCheetahVel-v0"])
def test_a_run_goes_on_to_the_same_curve(id):
    v, c = kshot.variant(id), replace(SMALL, truncate=5 if id == "GridNav-v0" else 0, normalise=True)
    one = rl2.learner(v, c, 3, "cpu")
    one.iterate()
    state = copy.deepcopy(one.get_state())
    expected = [one.iterate() for _ in range(2)]
    other = rl2.learner(v, c, 5, "cpu")
    other.iterate()
    other.set_state(state)
    assert [other.iterate() for _ in range(2)] == expected
    for k, x in one.weights().items():
        assert torch.equal(other.weights()[k], x), k


@pytest.mark.parametrize("id", ["Bandit-k5n10-v0", "PointSparse-v0"])
def test_trpo_moves_the_policy_within_its_bound_and_improves_it(id):
    v = kshot.variant(id)
    c = replace(SMALL, update="trpo", shared=False, rows=200, epochs=1)
    run = rl2.learner(v, c, 0, "cpu")
    for _ in range(3):
        before = copy.deepcopy(run.net)
        metrics = run.iterate()
        assert metrics["accepted"] == 1
        assert 0.002 < metrics["kl"] <= c.max_kl
        assert metrics["loss"] < 0  # the surrogate of the old policy is 0: advantages have mean 0
        for name, x in run.net.named_parameters():
            assert not torch.equal(x, before.get_parameter(name)), name


def test_trpo_of_a_shared_body_is_refused():
    run = rl2.learner(kshot.variant("Bandit-k5n10-v0"), replace(SMALL, update="trpo"), 0, "cpu")
    with pytest.raises(ValueError, match="set shared=false, or update=ppo"):
        run.iterate()


def test_two_seeds_are_two_runs():
    v = kshot.variant("GridNav-v0")
    one, other = (rl2.learner(v, SMALL, seed, "cpu").iterate()["return"] for seed in (0, 1))
    assert one != other


def test_it_learns_to_find_the_better_arms():
    """A policy that forgets, or that is trained backwards, pulls 10 arms for 5.0 on average."""
    v = kshot.variant("Bandit-k5n10-v0")
    c = rl2.Config(steps=300_000, rows=500, minibatches=4, learning_rate=4e-3, memory=32)
    run = rl2.learner(v, c, 0, "cpu")
    while run.steps < c.steps:
        run.iterate()
    result = kshot.evaluate(rl2.agent(v, c, run.weights(), 0), v.id, split="val", num_tasks=2000)
    assert result.score() > 5.7  # 2,000 tasks: a standard error of 0.05
