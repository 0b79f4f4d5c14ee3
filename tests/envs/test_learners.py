"""The classical learners of bandits and tabular MDPs: cases by hand, exact Bayesian values, order, memory."""

import functools

import numpy as np
import pytest

import kshot
from kshot import tasks
from kshot.agents import Agent, Experience, make_agent
from kshot.agents.bandit_learners import (
    BANDIT_LEARNERS,
    UCB1,
    EpsilonGreedy,
    Gittins,
    Greedy,
    LikelyThompsonSampling,
    OptimisticThompsonSampling,
    ThompsonSampling,
    gittins_table,
    nearest,
    search,
    tune,
)
from kshot.agents.mdp_learners import BEB, MDP_LEARNERS, OPSRL, PSRL, UCRL2, induct, induct_optimistically
from kshot.agents.mdp_learners import EpsilonGreedy as EpsilonPlanner
from kshot.agents.mdp_learners import Greedy as Planner
from kshot.families import tabular_mdp

BANDIT, MDP = "kshot/Bandit-k5n100-v0", "kshot/TabularMDP-n10-v0"
EVERY = [(BANDIT, learner) for learner in BANDIT_LEARNERS.values()] + [(MDP, one) for one in MDP_LEARNERS.values()]
NAMES = [f"{id.split('-')[0][6:]}-{learner.name}" for id, learner in EVERY]


def feed(agent, action, reward, before=None, after=None):
    """Show an agent one step of every row."""
    n = len(action)
    before, after = (np.zeros((n, 1)) if seen is None else np.eye(10)[seen] for seen in (before, after))
    no = np.zeros(n, bool)
    agent.observe(Experience(before, np.asarray(action), np.asarray(reward, float), no, no, after, ~no))


def pulled(learner, history, n=1, **parameters):
    """Return a learner whose n rows all saw a history of (arm, payoff)."""
    agent = learner(kshot.variant(BANDIT), 0, **parameters)
    agent.reset(n)
    for arm, payoff in history:
        feed(agent, [arm] * n, [payoff] * n)
    return agent


def arms(agent, n=1):
    return agent.act(np.zeros((n, 1)))


# Bandits


def test_the_gittins_index_is_right_by_hand():
    table = gittins_table(10)
    for s, f in ((0, 0), (3, 1), (2, 7)):
        assert table[1, s, f] == pytest.approx((1 + s) / (2 + s + f), abs=1e-12)  # the last pull: the mean
    assert table[2, 0, 0] == pytest.approx(5 / 9, abs=1e-4)  # 1/2 - λ + 1/2 (2/3 - λ) = 0
    assert (np.diff(table[1:, 0, 0]) > 0).all()  # more pulls left: more worth trying


@pytest.mark.parametrize("known", [0.5, 0.55, 0.62, 0.7, 0.8])
def test_the_gittins_index_is_bayes_optimal_beside_a_known_arm(known):
    table = gittins_table(12)

    @functools.cache
    def value(left, s, f, optimal):
        if left == 0:
            return 0.0
        mean = (1 + s) / (2 + s + f)
        tried = mean * (1 + value(left - 1, s + 1, f, optimal)) + (1 - mean) * value(left - 1, s, f + 1, optimal)
        kept = known + value(left - 1, s, f, optimal)
        return max(tried, kept) if optimal else (tried if table[left, s, f] > known else kept)

    assert value(12, 0, 0, False) == pytest.approx(value(12, 0, 0, True), abs=1e-5)


def test_gittins_is_within_a_thousandth_of_the_bayes_value_of_two_arms_and_greedy_is_not():
    table = gittins_table(20)

    @functools.cache
    def value(left, state, rule):
        if left == 0:
            return 0.0
        values = []
        for i in (0, 2):
            s, f = state[i : i + 2]
            mean = (1 + s) / (2 + s + f)
            won, lost = list(state), list(state)
            won[i] += 1
            lost[i + 1] += 1
            index = table[left, s, f] if rule == "gittins" else mean
            worth = mean * (1 + value(left - 1, tuple(won), rule)) + (1 - mean) * value(left - 1, tuple(lost), rule)
            values.append((index, worth))
        return max(w for _, w in values) if rule == "bayes" else max(values, key=lambda pair: pair[0])[1]

    best = value(20, (0, 0, 0, 0), "bayes")
    assert 0.999 * best < value(20, (0, 0, 0, 0), "gittins") <= best
    assert value(20, (0, 0, 0, 0), "greedy") < 0.995 * best


def test_the_gittins_learner_looks_up_pulls_left_and_counts():
    agent = pulled(Gittins, [(0, 1), (0, 0), (1, 0)])
    np.testing.assert_array_equal(agent.indices()[0, :3], gittins_table(100)[97, [1, 0, 0], [1, 1, 0]])


def test_greedy_pulls_the_arm_of_highest_posterior_mean():
    assert arms(pulled(Greedy, [])) == [0]
    assert arms(pulled(Greedy, [(0, 0)])) == [1]  # 1/3 < 1/2
    assert arms(pulled(Greedy, [(0, 0), (3, 1)])) == [3]
    assert arms(pulled(Greedy, [(3, 1), (3, 0), (3, 1), (4, 1)])) == [4]  # 3/5 < 2/3
    np.testing.assert_allclose(pulled(Greedy, [(3, 1), (3, 0), (3, 1)]).means()[0], [0.5, 0.5, 0.5, 0.6, 0.5])


def test_ucb1_adds_its_bonus():
    history = [(0, 1), (0, 1), (1, 0)]
    expected = np.array([3 / 4, 1 / 3, 1 / 2]) + 0.7 * np.sqrt(2 * np.log(3) / np.array([4, 3, 2]))
    np.testing.assert_allclose(pulled(UCB1, history, c=0.7).indices()[0, :3], expected)
    assert arms(pulled(UCB1, history, c=0)) == [0]
    assert arms(pulled(UCB1, history, c=1)) == [2]


def test_epsilon_is_the_probability_of_a_uniform_arm():
    share = np.bincount(arms(pulled(EpsilonGreedy, [(2, 1)], 20_000, epsilon=0.3), 20_000), minlength=5) / 20_000
    np.testing.assert_allclose(share, [0.06, 0.06, 0.76, 0.06, 0.06], atol=0.015)
    assert set(arms(pulled(EpsilonGreedy, [(2, 1)], 50, epsilon=0), 50)) == {2}


def test_thompson_sampling_pulls_an_arm_as_often_as_it_is_probably_best():
    agent = pulled(ThompsonSampling, [(2, 1)], 20_000)  # Beta(2, 1) against four Beta(1, 1): ∫ 2x · x⁴ dx = 1/3
    share = np.bincount(arms(agent, 20_000), minlength=5) / 20_000
    np.testing.assert_allclose(share, [1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6], atol=0.015)


def test_optimistic_thompson_sampling_never_ranks_an_arm_below_its_mean():
    agent = pulled(OptimisticThompsonSampling, [(0, 1), (1, 0)], 500)
    indices = agent.indices()
    assert (indices >= agent.means()).all()
    assert 0.4 < (indices[:, 2] == 0.5).mean() < 0.6  # half of the draws are raised


def test_likely_thompson_sampling_is_thompson_sampling_at_one_draw_and_near_the_mode_at_many():
    history = [(i, i == 3) for i in range(5)] * 4
    plain, one = pulled(ThompsonSampling, history, 200), pulled(LikelyThompsonSampling, history, 200, samples=1)
    np.testing.assert_array_equal(plain.indices(), one.indices())
    many = pulled(LikelyThompsonSampling, history, 200, samples=300).indices()
    mode = np.array([0, 0, 0, 1, 0])
    assert abs(many - mode).mean() < 0.5 * abs(plain.indices() - mode).mean()


def test_bandit_learners_are_ordered_as_in_the_paper():
    v = kshot.variant(BANDIT)
    agents = [make_agent("random", v), *(BANDIT_LEARNERS[name](v) for name in ("greedy", "ucb1", "gittins"))]
    scores = [kshot.evaluate(agent, BANDIT, num_tasks=1000).score() for agent in agents]
    assert scores == sorted(scores)
    assert scores == pytest.approx([50, 75.5, 78.3, 78.6], abs=2)


# Tabular MDPs


def planner(learner, n=2, **parameters):
    agent = learner(kshot.variant(MDP), 0, **parameters)
    agent.reset(n)
    return agent


def mdps(n=20):
    return tasks.take(tasks.frozen(kshot.variant(MDP), "val"), slice(0, n))


def test_backward_induction_finds_the_optimal_values():
    task = mdps()
    np.testing.assert_allclose(induct(task.rewards, task.transitions), tabular_mdp.optimal_values(task), rtol=1e-10)


def test_the_posterior_is_right_by_hand():
    agent = planner(Planner)
    for reward, after in ((3, 7), (1, 7), (2, 4)):
        feed(agent, [2, 0], [reward, 5], [6, 1], [after, 0])
    assert agent.rewards()[0, 6, 2] == pytest.approx((1 + 6) / 4)
    assert agent.rewards()[0, 6, 3] == 1
    assert agent.transitions()[0, 6, 2].tolist() == pytest.approx([c / 13 for c in (1, 1, 1, 1, 2, 1, 1, 3, 1, 1)])
    np.testing.assert_allclose(agent.transitions().sum(-1), 1)
    assert planner(Planner, prior=-2).rewards().max() == -2


@pytest.mark.parametrize("learner", MDP_LEARNERS.values(), ids=MDP_LEARNERS)
def test_with_endless_data_every_plan_is_optimal(learner):
    task, visits = mdps(), 1e9
    agent = planner(learner, 20)
    agent._counts, agent._visits = visits * task.transitions, np.full(task.rewards.shape, visits)
    agent._sums = visits * task.rewards
    np.testing.assert_allclose(agent.plan(), tabular_mdp.optimal_values(task), atol=5e-3)


def test_opsrl_is_at_least_as_optimistic_as_psrl():
    psrl, one, five = planner(PSRL), planner(OPSRL, samples=1), planner(OPSRL, samples=5)
    plan = psrl.plan()
    np.testing.assert_array_equal(one.plan(), plan)
    best = five.plan()
    assert (best >= plan).all()
    assert best.mean() > plan.mean() + 0.5


def test_psrl_draws_rewards_and_transitions_from_the_posterior():
    agent = planner(PSRL, 4000)
    for _ in range(3):
        feed(agent, [2] * 4000, [5] * 4000, [6] * 4000, [7] * 4000)
    drawn = agent.plan()[-1, :, 6, 2]  # one step left: the reward, N((1 + 15) / 4, 1 / 4)
    assert (drawn.mean(), drawn.std()) == pytest.approx((4, 0.5), abs=0.03)


def test_extended_value_iteration_is_right_by_hand():
    rewards, transitions = np.array([[[0.0], [1.0]]]), np.array([[[[0.5, 0.5]], [[0.9, 0.1]]]])
    q = induct_optimistically(rewards, transitions, np.full((1, 2, 1), 0.4), 2)
    np.testing.assert_allclose(q[0, 0, :, 0], [0.7, 1.3])  # 0.2 of probability moves to state 1
    sure = induct_optimistically(rewards, transitions, np.full((1, 2, 1), 9.0), 2)
    np.testing.assert_allclose(sure[0, 0, :, 0], [1, 2])


def test_extended_value_iteration_without_width_is_plain_and_takes_from_the_lowest_states():
    task = mdps(3)
    plain = induct(task.rewards, task.transitions)
    same = induct_optimistically(task.rewards, task.transitions, np.zeros(task.rewards.shape))
    np.testing.assert_allclose(same, plain, rtol=1e-10)
    rewards = np.array([[[0.0], [1.0], [2.0]]])
    transitions = np.broadcast_to([0.1, 0.5, 0.4], (1, 3, 1, 3))
    q = induct_optimistically(rewards, transitions, np.full((1, 3, 1), 0.4), 2)
    np.testing.assert_allclose(q[0, 0, 0, 0], 0.4 * 1 + 0.6 * 2)  # all of state 0's 0.1, then 0.1 of state 1's


def test_a_bonus_is_a_higher_reward_prior():
    agents = planner(BEB, prior=0, bonus=1.5), planner(Planner, prior=1.5)
    for agent in agents:
        feed(agent, [2, 0], [1, 5], [6, 1], [0, 3])
    np.testing.assert_allclose(agents[0].plan(), agents[1].plan())


def test_ucrl2_is_optimistic_where_it_knows_little():
    agent = planner(UCRL2, scale=0.5)
    for _ in range(20):
        feed(agent, [2, 2], [1, 1], [6, 6], [0, 3])
    extra = agent.plan()[-1] - agent.rewards()
    assert (extra > 0).all()
    assert extra[0, 6, 2] < 0.3 * extra[0, 6, 1]


def test_plans_are_made_when_an_episode_begins_and_kept_until_it_ends():
    agent = planner(Planner)
    start = np.eye(10)[[0, 0]]
    feed(agent, [3, 3], [50, 50], [0, 0], [0, 0])
    agent.end_episode()
    assert agent.act(start).tolist() == [3, 3]
    feed(agent, [3, 3], [-500, -500], [0, 0], [0, 0])
    assert agent.act(start).tolist() == [3, 3]
    agent.end_episode()
    assert 3 not in agent.act(start)


def test_equal_actions_are_drawn_from_uniformly_and_anew_for_each_step():
    agent = planner(Planner, 5000)
    start = np.eye(10)[np.zeros(5000, int)]
    first = agent.act(start)
    np.testing.assert_allclose(np.bincount(first) / 5000, 0.2, atol=0.03)
    feed(agent, first, np.zeros(5000), np.zeros(5000, int), np.zeros(5000, int))
    assert (agent.act(start) == first).mean() == pytest.approx(0.2, abs=0.03)


def test_mdp_learners_are_ordered_as_in_the_paper():
    v = kshot.variant(MDP)
    agents = [make_agent("random", v), PSRL(v, prior=0), OPSRL(v, prior=0, samples=10), BEB(v, prior=0, bonus=1)]
    scores = [kshot.evaluate(agent, MDP, num_tasks=500).score() for agent in agents]
    assert scores == sorted(scores)
    assert scores == pytest.approx([100.1, 138.1, 144.1, 150.2], abs=4)  # RL², table 2


# All


@pytest.mark.parametrize(("id", "learner"), EVERY, ids=NAMES)
def test_a_result_depends_on_the_seed_alone_and_records_the_parameters(id, learner):
    v = kshot.variant(id)
    first, again, other = (
        kshot.evaluate(learner(v, seed), id, episodes=1 if id == BANDIT else 4, num_tasks=20) for seed in (1, 1, 2)
    )
    assert first.returns == again.returns
    same = learner.name in ("greedy", "ucb1", "gittins") and id == BANDIT
    assert (first.returns == other.returns) == same
    assert (first.agent.name, first.agent.privileged) == (learner.name, False)
    assert first.agent.config == learner(v).config


@pytest.mark.parametrize(("id", "learner"), EVERY, ids=NAMES)
def test_reset_clears_the_memory(id, learner):
    v = kshot.variant(id)
    used, fresh = learner(v), learner(v)
    assert isinstance(used, Agent)
    kshot.evaluate(used, id, episodes=2, num_tasks=7)
    used.reset(5)
    fresh.reset(5)
    used._generator = np.random.default_rng(3)
    fresh._generator = np.random.default_rng(3)
    for what in ("indices",) if id == BANDIT else ("plan", "rewards", "transitions"):
        np.testing.assert_array_equal(getattr(used, what)(), getattr(fresh, what)())


def test_steps_of_ended_rows_teach_nothing():
    agent = pulled(Greedy, [(0, 1)], 2)
    before = agent.means().copy()
    off, no = np.array([False, False]), np.zeros(2, bool)
    agent.observe(Experience(np.zeros((2, 1)), np.array([1, 1]), np.ones(2), no, no, np.zeros((2, 1)), off))
    np.testing.assert_array_equal(agent.means(), before)


def test_learners_refuse_what_they_cannot_learn():
    for id in (MDP, "kshot/Bandit-gaussian-v0"):
        with pytest.raises(ValueError, match="learns Bernoulli bandits only"):
            UCB1(kshot.variant(id))
    with pytest.raises(ValueError, match="learns TabularMDP only"):
        PSRL(kshot.variant(BANDIT))
    with pytest.raises(ValueError, match="up to 128 pulls"):
        Gittins(kshot.variant("kshot/Bandit-k5n500-v0"))
    with pytest.raises(ValueError, match=r"epsilon is 1\.5; expected 0 to 1"):
        EpsilonPlanner(kshot.variant(MDP), epsilon=1.5)
    with pytest.raises(ValueError, match="samples is 0; expected 1"):
        LikelyThompsonSampling(kshot.variant(BANDIT), samples=0)


def test_the_nearest_tuned_setting_is_taken():
    table = {(5, 10): 1.0, (5, 100): 2.0, (50, 100): 3.0}
    assert [nearest(table, key) for key in ((5, 100), (2, 100), (5, 500), (40, 90), (5, 12))] == [2, 2, 2, 3, 1]


def test_the_grid_is_searched_on_val_and_printed(capsys):
    scores = search(UCB1, BANDIT, "c", (0, 0.2), 50)
    direct = kshot.evaluate(UCB1(kshot.variant(BANDIT), c=0.2), BANDIT, split="val", num_tasks=50).score()
    assert scores[0.2] == direct > scores[0]
    tune({"ucb1": UCB1}, {"ucb1": ("c", (0, 0.2))}, {(5, 100): BANDIT}, 50)
    assert "ucb1 c: {(5, 100): 0.2}" in capsys.readouterr().out
