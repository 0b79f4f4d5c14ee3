"""The scoring path: who is asked what, and that every number lands where it belongs."""

import json
import math

import gymnasium as gym
import numpy as np
import pytest

import kshot
from kshot import evaluation, tasks
from kshot.agents import Agent, FunctionAgent, Memoryless, PrivilegedAgent, make_agent
from kshot.engine import ActionError
from kshot.results import Result, ResultError

EVALUATE = {"episodes": 2, "num_tasks": 8}


def _without_times(result):
    return {k: v for k, v in json.loads(result.model_dump_json()).items() if k not in ("created", "seconds")}


def _straight_return(goal, steps=20):
    """Walk 0.1 m an axis a step from the origin and add up the distances, in plain Python."""
    x = y = total = 0.0
    for _ in range(steps):
        x += 0.1 * max(-1.0, min(1.0, float(np.float32((goal[0] - x) / 0.1))))
        y += 0.1 * max(-1.0, min(1.0, float(np.float32((goal[1] - y) / 0.1))))
        total -= math.hypot(goal[0] - x, goal[1] - y)
    return total


def test_the_expert_walks_as_plain_python_does():
    frozen = tasks.frozen(kshot.variant("PointGoal-v0"), "ood-far")
    result = kshot.evaluate("expert", "kshot/PointGoal-v0", split="ood-far", **EVALUATE)
    expected = [_straight_return(goal) for goal in frozen.goal[:8]]
    np.testing.assert_allclose(result.returns, np.repeat(np.array(expected)[:, None], 2, 1), rtol=5e-6)
    assert result.tasks.sha256 == tasks.digest(tasks.take(frozen, slice(0, 8)))
    assert result.agent.privileged


def test_the_best_of_five_arms_pays_five_sixths():
    # E[max of 5 uniforms] = 5/6, 10 pulls; a pull has variance E[p(1-p)] + var(p) <= 1/4.
    result = kshot.evaluate("expert", "kshot/Bandit-k5n10-v0")
    assert abs(result.score() - 10 * 5 / 6) < 4 * math.sqrt(10 / 4 / 10_000 + 10**2 * 0.0198 / 10_000)
    assert len(result.within) == 10
    assert abs(sum(result.within) - result.score()) < 1e-9


def test_random_mdps_pay_as_published():
    # RL² table 2: random 100.1 a trial of 10 episodes; known-MDP optimum 21.84 an episode (papers' re-simulation).
    random = kshot.evaluate("random", "kshot/TabularMDP-n10-v0", num_tasks=2000)
    optimum = kshot.evaluate("expert", "kshot/TabularMDP-n10-v0", num_tasks=2000)
    assert abs(random.score() - 100.1) < 2
    assert abs(optimum.score() - 218.4) < 2.5


def test_shortest_paths_on_the_grid():
    # Goal at Manhattan distance d: d steps, the last of which pays 1: -0.1 (d - 1) + 1 (15 - d + 1).
    frozen = tasks.frozen(kshot.variant("GridNav-v0"), "test")
    result = kshot.evaluate("expert", "kshot/GridNav-v0", episodes=1)
    distance = frozen.goal.sum(-1)
    np.testing.assert_allclose(np.array(result.returns)[:, 0], 16 - distance - 0.1 * (distance - 1))
    assert np.all(result.successes)


@pytest.mark.parametrize(
    "id", ["PointRotated-v0", "PointSparse-v0", "PointGoal-maml-v0", "PointRotated-norml-sparse-v0"]
)
def test_experts_reach_their_goals_on_every_split(id):
    v = kshot.variant(id)
    for split in v.splits:
        result = kshot.evaluate("expert", id, split=split, episodes=1, num_tasks=50)
        assert np.all(result.successes), split


class Spy(Memoryless):
    """Writes down what it is asked and shown."""

    name = "spy"

    def __init__(self, size=1):
        self.round, self.log, self.seen = size, [], []

    def reset(self, n):
        self.log.append(("reset", n))

    def act(self, observation):
        self.log.append(("act", observation.copy()))
        return np.clip(-observation, -0.1, 0.1)

    def observe(self, experience):
        self.seen.append(experience)

    def end_episode(self):
        self.log.append(("end", None))


def test_an_agent_is_asked_in_the_promised_order():
    spy = Spy()
    assert isinstance(spy, Agent)
    kshot.evaluate(spy, "kshot/PointGoal-v0", episodes=2, num_tasks=3)
    assert [name for name, _ in spy.log] == ["reset", *(["act"] * 20 + ["end"]) * 2]
    assert spy.log[0] == ("reset", 3)


def test_a_round_is_parallel_rows_with_those_of_a_task_side_by_side():
    spy = Spy(size=3)
    result = kshot.evaluate(spy, "kshot/PointGoal-pearl-v0", episodes=4, num_tasks=5)
    assert result.episodes == 6  # rounded up to whole rounds
    assert spy.log[0] == ("reset", 5)
    assert [len(x) for name, x in spy.log if name == "act"] == [15] * 40
    # Random starts: each episode of a task has its own, the same whatever the round.
    one = Spy()
    kshot.evaluate(one, "kshot/PointGoal-pearl-v0", episodes=6, num_tasks=5)
    starts = [x for name, x in one.log if name == "act"][::20]
    both = np.stack(starts, 1)  # (tasks, episodes, 2)
    first = spy.log[1][1].reshape(5, 3, 2)
    assert (first == both[:, :3]).all()
    assert len(np.unique(both[..., 0])) == 30


def test_the_round_does_not_change_what_a_fixed_policy_earns():
    tables = [
        kshot.evaluate(Spy(size), "kshot/PointGoal-pearl-v0", episodes=6, num_tasks=10).returns for size in (1, 2, 6)
    ]
    assert tables[0] == tables[1] == tables[2]


def test_rows_that_end_wait_and_earn_nothing():
    spy = Spy()
    v = kshot.variant("PointGoal-maml-v0")
    result = kshot.evaluate(spy, v.id, episodes=1, num_tasks=4, split="test")
    assert result.lengths == [[100]] * 4  # it stays at the origin
    expert = kshot.evaluate("expert", v.id, episodes=1, num_tasks=40)
    goals = tasks.frozen(v, "test").goal[:40]
    steps = np.ceil(np.round((np.abs(goals).max(-1) - 0.01) / 0.1, 6)).clip(1, None)  # within 0.01 an axis ends it
    assert (np.array(expert.lengths)[:, 0] == steps).all()
    for goal, length, total in zip(goals, expert.lengths, expert.returns, strict=True):
        np.testing.assert_allclose(total[0], _straight_return(goal, length[0]), rtol=5e-6, atol=1e-8)


def test_inactive_rows_are_marked():
    class Greedy(Spy):
        def act(self, observation):
            return np.full_like(observation, 0.1)  # up and to the right: some goals are met, at different times

    spy = Greedy()
    task = [{"goal": [0.1 * k, 0.1 * k]} for k in (1, 2, 3)]
    v = kshot.variant("PointGoal-maml-v0")
    batch = tasks.check(v, task, 3)
    played = evaluation.run(spy, v, "test", batch, np.arange(3, dtype=np.uint64), 1, 1, 0, None)
    assert played[0].lengths.tolist() == [1, 2, 3]
    assert [e.active.tolist() for e in spy.seen] == [[True] * 3, [False, True, True], [False, False, True]]
    assert [e.terminated.tolist() for e in spy.seen] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    # Frozen rows keep their last state and earn nothing.
    assert all((e.reward[~e.active] == 0).all() for e in spy.seen)
    assert (spy.seen[2].next_observation[0] == spy.seen[0].next_observation[0]).all()


# --- a task alone scores as among others ------------------------------------------------------------------------

MAML = kshot.variant("PointGoal-maml-v0")  # episodes end at the goal


def _torch_agent():
    import torch

    class GRU(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = torch.nn.GRUCell(2, 8), torch.nn.Linear(8, 2)

        def initial_state(self, n):
            return torch.ones(n, 8)

        def forward(self, x, state):
            state = self.cell(x, state)
            return 0.1 * torch.tanh(self.head(state)), state

    torch.manual_seed(0)
    return make_agent(GRU(), MAML)


def _sb3_agent(**kwargs):
    from sb3_contrib import RecurrentPPO

    from kshot.agents.sb3 import RecurrentAgent
    from kshot.sb3 import as_sb3_vecenv
    from kshot.wrappers import VectorTrial

    envs = gym.make_vec(MAML.id, num_envs=1, autoreset_mode="same_step")
    envs = as_sb3_vecenv(VectorTrial(envs, episodes=2) if kwargs.get("trial") else envs)
    model = RecurrentPPO(
        "MlpLstmPolicy", envs, n_steps=16, batch_size=16, device="cpu", seed=3, policy_kwargs={"n_lstm_layers": 2}
    )
    model.policy.action_net.weight.data *= 20  # as made, its actions are nearly none
    return RecurrentAgent(model, **kwargs)


def _fine_tuned_agent():
    from stable_baselines3 import PPO

    from kshot.agents.sb3 import FineTunedAgent

    settings = {"n_steps": 150, "batch_size": 50, "n_epochs": 2, "learning_rate": 0.03, "device": "cpu"}
    return FineTunedAgent(lambda env: PPO("MlpPolicy", env, **settings), MAML)


class Walker:
    """A Meta-World agent that turns a little with every step of its rows that was one."""

    def init(self):
        fresh = Walker()
        fresh.steps = None
        return fresh

    def adapt_action(self, observations):
        self.steps = np.zeros(len(observations)) if self.steps is None else self.steps
        return self, self.eval_action(observations), {}

    def step(self, timestep):
        self.steps += timestep.active
        return self

    def adapt(self):
        return self

    def eval_action(self, observations):
        return 0.05 * np.stack([np.cos(self.steps / 9), np.sin(self.steps / 9)], 1)


def _meta_world_agent():
    from kshot.agents.metaworld import MetaWorldAgent

    return MetaWorldAgent(Walker(), adaptation_episodes=2)


def _played(agent, goals, rounds, seen=None):
    """Return returns and lengths, (tasks, rounds), of tasks side by side; `seen` gets all observations."""
    act = agent.act

    def spy(observation):
        if seen is not None:
            seen.append(observation)
        return act(observation)

    agent.act = spy
    task, seeds = MAML.family.task(np.array(goals)), np.arange(len(goals), dtype=np.uint64)
    played = evaluation.run(agent, MAML, "test", task, seeds, 1, rounds, 1, None)
    if hasattr(agent, "close"):
        agent.close()
    return np.stack([r.returns for r in played], 1), np.stack([r.lengths for r in played], 1)


@pytest.mark.parametrize(
    "make",
    [_torch_agent, _sb3_agent, lambda: _sb3_agent(trial=True), _fine_tuned_agent, _meta_world_agent],
    ids=["torch", "sb3", "sb3-trial", "sb3-fine-tuned", "metaworld"],
)
def test_a_task_alone_scores_as_among_others(make):
    # The goal is where the agent is after 20 steps, so that its first episode ends then or before, and others wait for.
    far, seen = [[9.95, 3.33], [-9.95, 3.33]], []
    near = far[0]
    for _ in range(8):  # where it sees rewards, another goal is another way
        seen.clear()
        _played(make(), [near], 1, seen)
        if len(seen) <= 20:
            break
        near = seen[20][0].tolist()
    alone = _played(make(), [near], 3)
    among = _played(make(), [near, *far], 3)
    assert alone[1][0, 0] <= 20
    assert (among[1][1:] == MAML.horizon).all()
    assert (alone[1][0] == among[1][0]).all()
    np.testing.assert_allclose(alone[0][0], among[0][0], rtol=1e-4)


def test_an_agent_is_closed_at_the_end_also_after_an_error():
    class Closes(Spy):
        def close(self):
            self.log.append("closed")

    agent = Closes()
    for _ in range(2):  # again
        agent.log.clear()
        kshot.evaluate(agent, "kshot/PointGoal-v0", **EVALUATE)
        assert agent.log[0] == ("reset", 8)
        assert [i for i, entry in enumerate(agent.log) if entry == "closed"] == [len(agent.log) - 1]
    with pytest.raises(ValueError, match="num_tasks is 0"):
        kshot.evaluate(agent, "kshot/PointGoal-v0", num_tasks=0)
    assert agent.log[-2:] == ["closed", "closed"]
    agent.act = lambda observation: 1 / 0
    with pytest.raises(ZeroDivisionError):
        kshot.evaluate(agent, "kshot/PointGoal-v0", **EVALUATE)
    assert agent.log[-1] == "closed"


def test_the_task_is_not_shown():
    spy = Spy()
    kshot.evaluate(spy, "kshot/PointGoal-v0", episodes=1, num_tasks=30)
    goals = tasks.frozen(kshot.variant("PointGoal-v0"), "test").goal[:30].ravel()
    numbers = {x for e in spy.seen for field in e for x in np.asarray(field, float).ravel().tolist()}
    assert not numbers & set(goals.tolist())
    assert not hasattr(spy, "see")


def test_an_agent_may_write_into_what_it_is_given():
    class Vandal(Spy):
        def act(self, observation):
            action = super().act(observation)
            observation[:] = 99.0
            return action

        def observe(self, experience):
            for x in experience:
                if x.flags.writeable:
                    x[:] = 0

    for id in ("kshot/PointGoal-v0", "kshot/PointGoal-maml-v0"):
        played = [kshot.evaluate(agent, id, episodes=2, num_tasks=5) for agent in (Spy(), Vandal())]
        assert played[0].returns == played[1].returns
        assert played[0].lengths == played[1].lengths


def test_the_order_of_rows_tells_nothing_and_results_are_in_task_order():
    a, b = (kshot.evaluate("expert", "kshot/PointGoal-v0", seed=seed, **EVALUATE) for seed in (0, 1))
    assert a.returns == b.returns  # no noise in this family: only the order of rows could differ
    orders = [np.random.default_rng(seed).permutation(8).tolist() for seed in (0, 1)]
    assert orders[0] != orders[1]


def test_evaluating_in_turns_changes_nothing(monkeypatch):
    whole = kshot.evaluate(Spy(2), "kshot/PointGoal-pearl-v0", episodes=4, num_tasks=9)
    monkeypatch.setattr(evaluation, "MAX_ROWS", 4)
    parts = Spy(2)
    assert kshot.evaluate(parts, "kshot/PointGoal-pearl-v0", episodes=4, num_tasks=9).returns == whole.returns
    assert [n for name, n in parts.log if name == "reset"] == [2, 2, 2, 2, 1]


def test_fewer_tasks_are_the_first_of_more():
    few = kshot.evaluate(Spy(), "kshot/PointGoal-pearl-v0", episodes=2, num_tasks=3)
    many = kshot.evaluate(Spy(), "kshot/PointGoal-pearl-v0", episodes=2, num_tasks=7)
    assert few.returns == many.returns[:3]


def test_the_same_evaluation_gives_the_same_file_on_one_and_two_threads():
    runs = [kshot.evaluate("random", "kshot/HalfCheetahVel-v0", episodes=1, num_tasks=4, threads=k) for k in (1, 2, 2)]
    assert _without_times(runs[0]) == _without_times(runs[1]) == _without_times(runs[2])
    other = kshot.evaluate("random", "kshot/HalfCheetahVel-v0", episodes=1, num_tasks=4, seed=1)
    assert other.returns != runs[0].returns


def test_the_gait_runs_at_the_goal_velocity():
    gait = kshot.evaluate("gait", "kshot/HalfCheetahVel-v0", episodes=1)
    random = kshot.evaluate("random", "kshot/HalfCheetahVel-v0", episodes=1)
    assert gait.score() > -60
    assert random.score() < -250


def test_scores_by_budget():
    returns = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]]
    base = kshot.evaluate(Spy(), "kshot/PointGoal-v0", episodes=6, num_tasks=2)

    def of(size, **changes):
        card = base.agent.model_copy(update={"round": size})
        return base.model_copy(update={"returns": returns, "agent": card, **changes})

    assert [of(1).score(b) for b in (0, 1, 5)] == [2.0, 3.0, 7.0]
    assert [of(3).score(b) for b in (0, 2, 3, 5)] == [3.0, 3.0, 6.0, 6.0]  # the mean over the round that holds b
    with pytest.raises(ValueError, match="too few for a budget of 6"):
        of(1).score(6)
    with pytest.raises(ValueError, match="budget of -1"):
        of(1).score(-1)
    # Where trials are scored, a trial of TabularMDP-n10 is 10 episodes: 10 + 10 of them make two trials.
    trials = base.model_copy(update={"variant": "kshot/TabularMDP-n10-v0", "returns": [[1.0] * 10 + [2.0] * 10]})
    assert [trials.score(b) for b in (0, 1)] == [10.0, 20.0]


def test_an_agent_that_does_not_adapt_has_one_score():
    result = kshot.evaluate("random", "kshot/PointGoal-v0", num_tasks=200)
    assert result.episodes == 2  # 400 episodes over all tasks
    assert not result.agent.adapts
    mean = np.mean(result.returns)
    assert [result.score(b) for b in (0, 1, 40)] == pytest.approx([mean] * 3)
    np.testing.assert_allclose(result.task_scores(40), np.mean(result.returns, 1))
    assert kshot.evaluate(Spy(), "kshot/PointGoal-v0", num_tasks=2).episodes == 41  # one that may
    with pytest.raises(ValueError, match="budget of -1"):
        result.score(-1)


@pytest.mark.parametrize(
    ("id", "size", "episodes"),
    [("Bandit-k5n10-v0", 1, 1), ("Bandit-k5n10-v0", 20, 40), ("TabularMDP-n10-v0", 5, 10), ("PointGoal-v0", 20, 60)],
)
def test_what_adapts_gets_as_many_episodes_as_show_it(id, size, episodes):
    """A trial where that is scored, but where rounds are longer than it the budgets' trials."""

    class Still(Spy):
        def act(self, observation):
            self.log.append(("act", None))
            n = len(observation)
            return np.zeros(n, np.int64) if id != "PointGoal-v0" else np.zeros((n, 2))

    assert kshot.evaluate(Still(size), id, num_tasks=2).episodes == episodes


def test_large_sets_are_cut_to_what_a_file_can_hold():
    sizes = {
        (id, split): evaluation.default_tasks(v, split, len(tasks.frozen(v, split)[0]))
        for id, split in (
            ("Bandit-k5n10-v0", "test"),
            ("Bandit-k5n10-v0", "ood-normal"),
            ("TabularMDP-n100-v0", "test"),
            ("PointGoal-v0", "test"),
            ("PointGoal-v0", "ood-far"),
            ("HalfCheetahVel-v0", "ood-faster"),
            ("GridNav-v0", "test"),
        )
        for v in [kshot.variant(id)]
    }
    assert list(sizes.values()) == [10_000, 2_000, 500, 1_000, 243, 40, 21]
    assert kshot.evaluate("random", "kshot/Bandit-k5n10-v0").tasks.n == 10_000


def test_rounds_of_trials_are_counted_in_trials():
    # TabularMDP-n10, trials of 10 episodes; rounds of 20 episodes hold two trials: 1 + 2, 3 + 4 a step.
    base = kshot.evaluate("psrl", "kshot/TabularMDP-n10-v0", episodes=10, num_tasks=1)
    card = base.agent.model_copy(update={"round": 20})
    returns = [[1.0] * 10 + [2.0] * 10 + [3.0] * 10 + [4.0] * 10]
    result = base.model_copy(update={"agent": card, "returns": returns})
    assert [result.score(b) for b in (0, 1, 2, 3)] == [15.0, 15.0, 35.0, 35.0]
    with pytest.raises(ValueError, match="too few"):
        result.score(4)
    with pytest.raises(ValueError, match="one must divide the other"):
        kshot.evaluate(Spy(3), "kshot/TabularMDP-n10-v0")


def test_an_agent_that_cannot_be_written_down_is_refused_before_it_runs():
    for name, value in (("name", None), ("config", {"x": np.zeros(2)}), ("config", 3), ("round", 1.5)):
        agent = Spy()
        setattr(agent, name, value)
        with pytest.raises(ValueError, match=r"cannot be written as JSON|agent\.round is 1\.5"):
            kshot.evaluate(agent, "kshot/PointGoal-v0")
        assert agent.log == []
    for bad in ({"seed": None}, {"seed": -1}, {"episodes": 1.5}, {"num_tasks": 1.5}):
        if bad != {"seed": None}:
            with pytest.raises(ValueError, match=next(iter(bad))):
                kshot.evaluate("random", "kshot/PointGoal-v0", **bad)


def test_results_survive_a_file(tmp_path):
    result = kshot.evaluate("random", "kshot/PointGoal-v0", **EVALUATE)
    result.save(tmp_path / "deep" / "result.json")
    assert Result.load(tmp_path / "deep" / "result.json") == result
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["result.json"]  # nothing partial is left


def test_files_are_compact(tmp_path):
    result = kshot.evaluate("random", "kshot/Bandit-k5n10-v0", num_tasks=500)
    result.save(tmp_path / "result.json")
    assert (tmp_path / "result.json").stat().st_size < 500 * 8 + 2_000
    data = json.loads((tmp_path / "result.json").read_text())
    assert data["lengths"] == 10  # one number, as they are all alike
    assert Result.load(tmp_path / "result.json").lengths == [[10]] * 500
    walks = kshot.evaluate("expert", "kshot/GridNav-v0", episodes=1)
    walks.save(tmp_path / "walks.json")
    data = json.loads((tmp_path / "walks.json").read_text())
    assert data["successes"] == [[1]] * 21
    assert Result.load(tmp_path / "walks.json") == walks
    assert all(float(f"{x:.6g}") == x for row in walks.returns for x in row)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(format=2), "format 2"),
        (lambda d: d.update(returns=[[1.0]]), "returns must be 8 tasks × 2 episodes"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d.pop("seed"), "seed"),
        (lambda d: d.update(steps="many"), "steps"),
        (lambda d: d["tasks"].update(sha256="abc"), "sha256"),
    ],
)
def test_a_file_that_is_not_a_result_is_refused_with_the_reason(tmp_path, change, reason):
    path = tmp_path / "result.json"
    kshot.evaluate("random", "kshot/PointGoal-v0", **EVALUATE).save(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ResultError, match=reason):
        Result.load(path)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"format": 1}', "NaN", "\x00"])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ResultError, match=r"result\.json"):
        Result.load(tmp_path / "result.json")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ResultError, match="cannot read"):
        Result.load(tmp_path / "none.json")


def test_agents_that_do_not_fit_are_refused():
    with pytest.raises(ActionError, match=r"shape \(8, 3\); expected \(8, 2\)"):
        kshot.evaluate(lambda observation: np.zeros((len(observation), 3)), "kshot/PointGoal-v0", **EVALUATE)
    with pytest.raises(ValueError, match="no agent 'nobody'; expected one of random"):
        kshot.evaluate("nobody", "kshot/PointGoal-v0")
    with pytest.raises(ValueError, match="cannot find the agent 'kshot:nobody'"):
        kshot.evaluate("kshot:nobody", "kshot/PointGoal-v0")
    with pytest.raises(ValueError, match="no closed-form expert"):
        kshot.evaluate("expert", "kshot/AntDir-v0")
    with pytest.raises(ValueError, match=r"steps of 0\.05 s"):
        kshot.evaluate("gait", "kshot/HalfCheetahVel-maml-v0")
    with pytest.raises(ValueError, match="Spy is a class; give an agent"):
        kshot.evaluate(Spy, "kshot/PointGoal-v0")
    with pytest.raises(ValueError, match=r"does not take \(variant, seed\)"):
        kshot.evaluate("kshot.agents:FunctionAgent", "kshot/PointGoal-v0")
    with pytest.raises(ValueError, match="is not an agent"):
        kshot.evaluate(3, "kshot/PointGoal-v0")
    with pytest.raises(ValueError, match="num_tasks is 1001; expected from 1 to 1000"):
        kshot.evaluate("random", "kshot/PointGoal-v0", num_tasks=1001)
    with pytest.raises(ValueError, match="episodes is 0; expected at least 1"):
        kshot.evaluate("random", "kshot/PointGoal-v0", episodes=0)
    with pytest.raises(ValueError, match=r"round is 0"):
        kshot.evaluate(Spy(0), "kshot/PointGoal-v0")


def test_functions_classes_and_named_objects_are_agents():
    v = kshot.variant("PointGoal-v0")
    assert isinstance(make_agent(lambda x: x, v), FunctionAgent)
    assert make_agent("kshot.agents:RandomAgent", v).name == "random"
    assert isinstance(make_agent("expert", v), PrivilegedAgent)
    still = kshot.evaluate("constant", v.id, **EVALUATE)
    goals = tasks.frozen(v, "test").goal[:8]
    np.testing.assert_allclose(np.array(still.returns)[:, 0], -20 * np.hypot(*goals.T), rtol=5e-6)


def test_progress_reaches_the_end_and_never_falls():
    seen = []
    kshot.evaluate(Spy(2), "kshot/PointGoal-v0", episodes=4, num_tasks=3, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
