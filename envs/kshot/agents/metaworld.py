"""Agents written for Meta-World's meta-learning protocol, scored by ours."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kshot.agents import Experience, Memoryless


class Timestep(NamedTuple):
    """What a `MetaLearningAgent` is given after each step, as Meta-World's class of that name; N rows."""

    observation: np.ndarray  # (N, k)
    action: np.ndarray  # (N, …)
    reward: np.ndarray  # (N,), 0 in rows whose episode has ended before
    terminated: np.ndarray  # (N,) bool
    truncated: np.ndarray  # (N,) bool
    aux_policy_outputs: dict[str, np.ndarray]
    # Not in Meta-World, and so the last: (N,) bool. Where it is False, the row's episode had ended before this step and
    # waits for the others: nothing of it happened. An agent with a recurrent state keeps that of such rows.
    active: np.ndarray


class MetaWorldAgent(Memoryless):
    """A Meta-World `MetaLearningAgent`: it explores for some episodes, adapts, and is then scored by `eval_action`.

    Its methods return the agent that goes on, as in Meta-World (metaworld/evaluation.py): `init`, `adapt_action`,
    `step`, `adapt`, `eval_action`. Budgets within exploration are no score, for it has not adapted.

    Rows whose episodes end early wait for the others, and are shown to `adapt_action` and `step` with their last
    observation: `Timestep.active` tells them, and those that ended at the last step are `terminated` or `truncated`.
    What is learnt of them would depend on which other tasks run beside.
    """

    def __init__(self, agent: Any, adaptation_episodes: int, adaptation_steps: int = 1, name: str = "") -> None:
        """Take an agent, and how often it explores for how many episodes before it adapts; ValueError below 1."""
        if adaptation_episodes < 1 or adaptation_steps < 1:
            raise ValueError(
                f"adaptation_episodes is {adaptation_episodes} and adaptation_steps {adaptation_steps}; "
                "expected at least 1 of each"
            )
        self._given, self.name = agent, name or type(agent).__name__
        self._each, self.first_update = adaptation_episodes, adaptation_episodes * adaptation_steps
        self.config = {"adaptation_episodes": adaptation_episodes, "adaptation_steps": adaptation_steps}

    def reset(self, n: int) -> None:
        """Begin anew."""
        self._agent, self._episode = self._given.init(), 0

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Explore, or act by what was learnt."""
        if self._episode >= self.first_update:
            return np.asarray(self._agent.eval_action(observation))
        self._agent, action, self._aux = self._agent.adapt_action(observation)
        return np.asarray(action)

    def observe(self, experience: Experience) -> None:
        """Show a step of exploration."""
        if self._episode < self.first_update:
            self._agent = self._agent.step(Timestep(*experience[:5], self._aux, experience.active))

    def end_episode(self) -> None:
        """Adapt where an exploration is over."""
        self._episode += 1
        if self._episode <= self.first_update and self._episode % self._each == 0:
            self._agent = self._agent.adapt()
