"""Stable-Baselines3 models under the protocol: as they are, recurrent, and fine-tuned on each task."""

import threading

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC

import kshot
from kshot import evaluation, random
from kshot.agents.sb3 import FineTunedAgent, RecurrentAgent, ZeroShotAgent
from kshot.agents.torch import digest
from kshot.sb3 import as_sb3_vecenv
from kshot.wrappers import VectorTrial

ID = "kshot/PointGoal-v0"
POINT = kshot.variant(ID)
SMALL = {"n_steps": 20, "batch_size": 20, "n_epochs": 2, "device": "cpu", "seed": 0}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    envs = as_sb3_vecenv(gym.make_vec(ID, num_envs=4, autoreset_mode="same_step"))
    path = tmp_path_factory.mktemp("models") / "ppo"
    PPO("MlpPolicy", envs, **SMALL).learn(200).save(path)
    return path


def fine_tuned(path):
    return FineTunedAgent(lambda env: PPO.load(path, env=env, device="cpu"), kshot.variant(ID))


def test_a_model_scores_what_it_earns_in_the_environment(saved):
    model = PPO.load(saved, device="cpu")
    result = kshot.evaluate(ZeroShotAgent(model), ID, episodes=1, num_tasks=3)
    goals = kshot.tasks.frozen(kshot.variant(ID), "test").goal[:3]
    for goal, (total,) in zip(goals, result.returns, strict=True):
        env = gym.make(ID, task={"goal": goal})
        observation, _ = env.reset(seed=0)
        earned, over = 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(model.predict(observation, deterministic=True)[0])
            earned, over = earned + reward, terminated or truncated
        assert abs(earned - total) < 1e-4
    assert result.agent.config["training_steps"] == model.num_timesteps


def test_a_copy_learns_on_its_own_task_and_a_run_is_reproducible(saved):
    agent = fine_tuned(saved)
    runs = [kshot.evaluate(agent, ID, episodes=4, num_tasks=3) for _ in range(2)]
    assert runs[0].returns == runs[1].returns
    returns = np.array(runs[0].returns)
    assert len(np.unique(returns)) == returns.size
    agent.reset(2)
    alike = np.zeros((2, 2))
    assert not np.array_equal(*agent.act(alike))  # each explores by random numbers of its own
    agent.close()


def test_a_budget_of_exactly_one_update_is_a_score(saved):
    # 20 steps, an episode, fill its buffer; it updates before the next episode's first action.
    result = kshot.evaluate(fine_tuned(saved), ID, episodes=2, num_tasks=2)
    assert result.agent.first_update == 1
    assert np.isfinite([result.score(0), result.score(1)]).all()


def test_a_budget_too_small_for_an_update_is_no_score():
    agent = FineTunedAgent(
        lambda env: PPO("MlpPolicy", env, **{**SMALL, "n_steps": 40, "batch_size": 40}), kshot.variant(ID)
    )
    result = kshot.evaluate(agent, ID, episodes=3, num_tasks=2)
    assert np.isfinite(result.score(0))
    with pytest.raises(ValueError, match=r"only after 2 episodes: a budget of 1 is n/a"):
        result.score(1)
    assert np.isfinite(result.score(2))
    with pytest.raises(ValueError, match=r"never: a budget of 1 is n/a"):
        kshot.evaluate(agent, ID, episodes=2, num_tasks=2).score(1)
    steps = FineTunedAgent(lambda env: SAC("MlpPolicy", env, learning_starts=5, device="cpu"), kshot.variant(ID))
    # A step at a time, and so in the first episode.
    assert kshot.evaluate(steps, ID, episodes=1, num_tasks=2).agent.first_update == 1


def test_a_copy_that_never_updates_says_so():
    slow = FineTunedAgent(lambda env: SAC("MlpPolicy", env, learning_starts=1000, device="cpu"), kshot.variant(ID))
    never = kshot.evaluate(slow, ID, episodes=2, num_tasks=2)
    slow.close()
    with pytest.raises(ValueError, match=r"never: a budget of 1 is n/a"):
        never.score(1)


def test_a_copy_sees_episodes_end_where_they_do():
    seen = []

    class Watcher(PPO):
        def collect_rollouts(self, env, callback, rollout_buffer, n_rollout_steps):
            going_on = super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
            seen.append((rollout_buffer.episode_starts.ravel().tolist(), rollout_buffer.rewards.ravel().tolist()))
            return going_on

    agent = FineTunedAgent(
        lambda env: Watcher("MlpPolicy", env, **{**SMALL, "n_steps": 50, "batch_size": 25}), kshot.variant(ID)
    )
    result = kshot.evaluate(agent, ID, episodes=4, num_tasks=1)
    agent.close()
    starts, rewards = seen[0]
    assert [i for i, s in enumerate(starts) if s] == [0, 20, 40]
    # SB3 adds the value of the last state to the reward at a time limit; the other 19 are the environment's, and
    # the twentieth costs at most the distance to the farthest goal.
    assert 0 < sum(rewards[:19]) - result.returns[0][0] < 3


def test_an_evaluation_leaves_no_threads_and_no_copies(saved):
    before = threading.active_count()
    agent = fine_tuned(saved)
    kshot.evaluate(agent, ID, episodes=1, num_tasks=3)
    assert threading.active_count() == before
    assert agent._learners == []
    with pytest.raises(RuntimeError, match="shapes"):  # of the models, in their threads
        kshot.evaluate(agent, "kshot/Bandit-k5n10-v0", episodes=1, num_tasks=3)
    assert threading.active_count() == before


def drawing(kind, envs):
    """Return an agent that draws, made of a model without a seed."""
    v = kshot.variant(ID)
    if kind == "zero-shot":
        model = PPO("MlpPolicy", envs, device="cpu")
        return lambda seed: ZeroShotAgent(model, deterministic=False, seed=seed)
    if kind == "epsilon-greedy":  # draws from NumPy's generator and from the action space's
        model = DQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=10, exploration_initial_eps=0.5)
        model.exploration_rate = 0.5
        return lambda seed: ZeroShotAgent(model, deterministic=False, seed=seed)
    if kind == "recurrent":
        model = RecurrentPPO("MlpLstmPolicy", envs, n_steps=16, batch_size=16, device="cpu")
        return lambda seed: RecurrentAgent(model, deterministic=False, seed=seed)
    algorithm, settings = (PPO, {**SMALL, "seed": None}) if kind == "PPO" else (SAC, {"learning_starts": 5})
    return lambda seed: FineTunedAgent(
        lambda env: algorithm("MlpPolicy", env, **{"device": "cpu", **settings}), v, seed=seed
    )


@pytest.mark.parametrize("kind", ["zero-shot", "epsilon-greedy", "recurrent", "PPO", "SAC"])
def test_agents_that_draw_are_reproducible(kind):
    envs = as_sb3_vecenv(gym.make_vec(ID, num_envs=2, autoreset_mode="same_step"))
    make = drawing(kind, envs)

    def drawn(agent):
        if kind == "epsilon-greedy":  # a CartPole of ours there is none
            agent.reset(8)
            return [agent.act(np.zeros((8, 4))).tolist() for _ in range(8)]
        return kshot.evaluate(agent, ID, episodes=3, num_tasks=3).returns

    agent = make(1)
    first = drawn(agent)
    np.random.seed(5)
    torch.manual_seed(5)
    assert drawn(make(1)) == first
    place = torch.get_rng_state()
    assert drawn(agent) == first  # again
    assert drawn(make(2)) != first
    assert (torch.get_rng_state() == place).all()
    assert agent.config["seed"] == 1


@pytest.mark.parametrize("settings", [{}, {"learning_starts": 5}])
def test_a_copy_learns_as_it_does_alone(settings):
    algorithm = SAC if settings else PPO
    settings = settings or {**SMALL, "seed": None}
    agent = FineTunedAgent(lambda env: algorithm("MlpPolicy", env, **{"device": "cpu", **settings}), POINT)
    found = []
    for n in (1, 3):  # the others' updates draw random numbers, too
        chosen = kshot.tasks.take(kshot.tasks.frozen(POINT, "test"), slice(0, n))
        played = evaluation.run(agent, POINT, "test", chosen, random.row_seeds(0, n), 1, 3, 1, None)
        found.append([one.returns[0] for one in played])
    agent.close()
    assert found[0] == found[1]


def test_models_are_told_apart_by_what_results_record(saved):
    v = kshot.variant(ID)
    model = PPO.load(saved, device="cpu")
    other = PPO.load(saved, device="cpu")
    with torch.no_grad():
        other.policy.action_net.bias += 1

    def config(agent, seed=0):
        return kshot.evaluate(agent, ID, episodes=1, num_tasks=1, seed=seed).agent.config

    assert config(ZeroShotAgent(model)) == config(ZeroShotAgent(PPO.load(saved, device="cpu")), seed=1)
    assert config(ZeroShotAgent(model)) == {
        "deterministic": True,
        "training_steps": model.num_timesteps,
        "checkpoint_sha256": digest(model.policy),
    }
    assert config(ZeroShotAgent(model)) != config(ZeroShotAgent(other))
    tuned = config(fine_tuned(saved))
    assert tuned == config(fine_tuned(saved), seed=1)
    settings = tuned.pop("hyperparameters")
    assert tuned == {
        "algorithm": "PPO",
        "seed": 0,
        "training_steps": model.num_timesteps,
        "checkpoint_sha256": digest(model.policy),
    }
    assert (settings["n_steps"], settings["gamma"], settings["learning_rate"]) == (20, 0.99, 3e-4)
    assert "num_timesteps" not in settings
    fresh = FineTunedAgent(lambda env: PPO("MlpPolicy", env, device="cpu"), v)
    again = FineTunedAgent(lambda env: PPO("MlpPolicy", env, device="cpu"), v)
    assert fresh.config == again.config
    env = as_sb3_vecenv(gym.make_vec(ID, num_envs=2, autoreset_mode="same_step"))
    recurrent = [
        RecurrentAgent(RecurrentPPO("MlpLstmPolicy", env, n_steps=16, batch_size=16, device="cpu", seed=s))
        for s in (0, 0, 1)
    ]
    assert recurrent[0].config == recurrent[1].config
    assert recurrent[0].config != recurrent[2].config


def test_errors_of_a_model_reach_the_caller():
    class Broken(PPO):
        def train(self):
            raise FloatingPointError("a loss of NaN")

    agent = FineTunedAgent(lambda env: Broken("MlpPolicy", env, **SMALL), kshot.variant(ID))
    with pytest.raises(FloatingPointError, match="a loss of NaN"):
        kshot.evaluate(agent, ID, episodes=2, num_tasks=1)
    agent.close()


def test_clearing_a_recurrent_state_between_episodes_changes_the_score():
    env = as_sb3_vecenv(gym.make_vec(ID, num_envs=2, autoreset_mode="same_step"))
    model = RecurrentPPO("MlpLstmPolicy", env, n_steps=16, batch_size=16, device="cpu", seed=0)
    kept = kshot.evaluate(RecurrentAgent(model), ID, episodes=2, num_tasks=4)
    cleared = kshot.evaluate(RecurrentAgent(model, clear_every_episode=True), ID, episodes=2, num_tasks=4)
    first, second = np.array(kept.returns).T
    first_cleared, second_cleared = np.array(cleared.returns).T
    assert (first == first_cleared).all()
    assert (second != second_cleared).all()
    assert (first_cleared == second_cleared).all()  # no noise in this family: only memory tells episodes apart


@pytest.mark.parametrize("id", [ID, "kshot/PointGoal-maml-v0", "kshot/TabularMDP-n10-v0", "kshot/Bandit-k5n10-v0"])
def test_a_model_trained_on_trials_sees_what_trials_show(id):
    trials = VectorTrial(gym.make_vec(id, num_envs=1, autoreset_mode="same_step", split="test"), episodes=2)
    model = RecurrentPPO("MlpLstmPolicy", as_sb3_vecenv(trials), n_steps=16, batch_size=16, device="cpu", seed=0)
    shown = []

    class Spy(RecurrentAgent):
        def act(self, observation):
            shown.append((self._layout.join(observation, self._tail), super().act(observation)))
            return shown[-1][1]

    v = kshot.variant(id)
    kshot.evaluate(Spy(model, trial=True), id, episodes=2, num_tasks=1)
    task = kshot.tasks.take(kshot.tasks.frozen(v, "test"), [0])
    observation, _ = trials.reset(options={"task": task})
    for seen, action in shown:
        # Rewards of bandits and random MDPs are noise of another seed: all else is alike.
        np.testing.assert_allclose(np.delete(seen, -2, 1), np.delete(observation, -2, 1), atol=1e-12)
        if v.family.name.startswith("Point"):
            np.testing.assert_allclose(seen, observation, atol=1e-12)
        if v.family.name == "TabularMDP":
            break  # so are its transitions
        observation, *_ = trials.step(action)
    assert len(shown) > 1
