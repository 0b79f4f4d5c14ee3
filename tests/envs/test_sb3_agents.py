"""Stable-Baselines3 models under the protocol: as they are, recurrent, and fine-tuned on each task."""

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC

import kshot
from kshot.agents.sb3 import FineTunedAgent, RecurrentAgent, ZeroShotAgent
from kshot.sb3 import as_sb3_vecenv
from kshot.wrappers import VectorTrial

ID = "kshot/PointGoal-v0"
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
    assert runs[0].agent.first_update == 2  # 20 steps fill its buffer; it updates when the next episode starts
    models = [learner._model.policy.state_dict()["action_net.weight"] for learner in agent._learners]
    assert not np.array_equal(models[0], models[1])
    agent.close()


def test_a_budget_too_small_for_an_update_is_no_score(saved):
    agent = fine_tuned(saved)
    result = kshot.evaluate(agent, ID, episodes=3, num_tasks=2)
    agent.close()
    assert np.isfinite(result.score(0))
    with pytest.raises(ValueError, match=r"only after 2 episodes: a budget of 1 is n/a"):
        result.score(1)
    assert np.isfinite(result.score(2))
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
