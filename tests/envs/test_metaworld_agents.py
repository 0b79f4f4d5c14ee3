"""Meta-World's agents under our protocol: exploration apart from scored episodes, updates a step and an episode."""

import numpy as np
import pytest

import kshot
from kshot.agents.metaworld import MetaWorldAgent, Timestep

ID = "kshot/Bandit-k5n10-v0"


META_WORLDS = ("observation", "action", "reward", "terminated", "truncated", "aux_policy_outputs")


class ArmCounter:
    """Tries arms in turn, then pulls the one of highest mean; methods return the agent, as Meta-World's do."""

    def __init__(self):
        self.log, self.best = [], None

    def init(self):
        fresh = ArmCounter()
        fresh.log = self.log
        fresh.pulls = fresh.sums = None
        self.log.append("init")
        return fresh

    def adapt_action(self, observations):
        n = len(observations)
        if self.pulls is None:
            self.pulls, self.sums = np.zeros((n, 5)), np.zeros((n, 5))
        return self, self.pulls.sum(1).astype(int) % 5, {"mean": self.sums}

    def step(self, timestep):
        assert isinstance(timestep, Timestep)
        assert timestep.aux_policy_outputs["mean"] is self.sums
        assert timestep.active.all()  # all pull ten times
        assert timestep._fields[:6] == Timestep._fields[:6] == META_WORLDS
        rows = np.arange(len(timestep.action))
        self.pulls[rows, timestep.action] += 1
        self.sums[rows, timestep.action] += timestep.reward
        return self

    def adapt(self):
        self.log.append("adapt")
        self.best = (self.sums / self.pulls).argmax(1)
        return self

    def eval_action(self, observations):
        self.log.append("eval")
        return self.best


def test_exploration_is_apart_from_what_is_scored():
    agent = ArmCounter()
    who = MetaWorldAgent(agent, adaptation_episodes=2, adaptation_steps=2, name="counter")
    result = kshot.evaluate(who, ID, episodes=5, num_tasks=500)
    assert agent.log == ["init", "adapt", "adapt", *["eval"] * 10]
    assert result.agent.first_update == 4
    returns = np.array(result.returns).mean(0)
    assert (abs(returns[:4] - 5) < 0.4).all()  # all arms alike
    assert returns[4] > 6.5
    assert result.score(4) == returns[4]
    with pytest.raises(ValueError, match="n/a"):
        result.score(3)


def test_counts_below_one_are_refused():
    with pytest.raises(ValueError, match="adaptation_episodes is 0"):
        MetaWorldAgent(ArmCounter(), 0)
