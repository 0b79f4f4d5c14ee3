"""The analytic families as bare NumPy loops: what a good NumPy programmer would write by hand for one of them.

No checks, no infos, no rows out of step; rows end together at the horizon, and the step after an end is spent on
the reset, as in Gymnasium's NEXT_STEP mode. Random numbers are drawn from `kshot.random` in blocks of steps.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from kshot import random

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # observation, reward, terminated, truncated


class Loop(Protocol):
    """N rows of one family."""

    def __init__(self, seed: np.ndarray, task: Any, horizon: int) -> None:
        """Start episode 0 of all rows."""

    def step(self, action: np.ndarray) -> Step:
        """Move all rows, or reset them."""


class Point:
    """PointGoal-v0."""

    def __init__(self, seed: np.ndarray, task: Any, horizon: int) -> None:
        """Start at the origin."""
        self.goal, self.horizon = task.goal, horizon
        self.never = np.zeros(len(seed), bool)
        self.reset()

    def reset(self) -> Step:
        """Start at the origin."""
        self.t, self.position = 0, np.zeros_like(self.goal)
        return self.position.copy(), np.zeros(len(self.goal)), self.never.copy(), self.never.copy()

    def step(self, action: np.ndarray) -> Step:
        """Move by a tenth of the action, pay the distance."""
        if self.t == self.horizon:
            return self.reset()
        self.t += 1
        self.position = self.position + 0.1 * action.clip(-1.0, 1.0).astype(np.float64)
        offset = self.position - self.goal
        square = offset * offset
        distance = np.sqrt(square[:, 0] + square[:, 1])
        self.success = distance < 0.1
        ended = np.full(len(distance), self.t == self.horizon)
        return self.position.copy(), -distance, self.never.copy(), ended


class Bandit:
    """A Bernoulli bandit."""

    def __init__(self, seed: np.ndarray, task: Any, horizon: int) -> None:
        """Start episode 0."""
        self.seed, self.means, self.horizon = seed, task.means, horizon
        self.rows, self.never = np.arange(len(seed)), np.zeros(len(seed), bool)
        self.steps = min(64, horizon)
        self.t, self.episode = 0, np.zeros(len(seed), np.int64)

    def step(self, action: np.ndarray) -> Step:
        """Pull an arm."""
        n = len(self.rows)
        if self.t == self.horizon:
            self.t, self.episode = 0, self.episode + 1
            return np.zeros((n, 1)), np.zeros(n), self.never.copy(), self.never.copy()
        column = self.t % self.steps
        if column == 0:
            start = np.full(n, self.t)
            self.u = random.lanes(self.seed, self.episode, start, 1, random.TRANSITION, self.steps)
        self.t += 1
        reward = (self.u[column] < self.means.take(self.rows * self.means.shape[1] + action)).astype(np.float64)
        return np.zeros((n, 1)), reward, np.full(n, self.t == self.horizon), self.never.copy()


class TabularMDP:
    """Random MDPs of 10 states and 5 actions."""

    def __init__(self, seed: np.ndarray, task: Any, horizon: int) -> None:
        """Start episode 0 in state 0."""
        self.seed, self.task, self.horizon = seed, task, horizon
        self.rows, self.never = np.arange(len(seed)), np.zeros(len(seed), bool)
        self.states, self.transitions = np.arange(10), task.transitions.reshape(-1, 10)
        self.node = np.zeros(len(seed), np.int64)
        self.t, self.episode = 0, np.zeros(len(seed), np.int64)

    def step(self, action: np.ndarray) -> Step:
        """Draw the next state and the reward."""
        n = len(self.rows)
        if self.t == self.horizon:
            self.t, self.episode, self.node = 0, self.episode + 1, np.zeros(n, np.int64)
            return self.observe(), np.zeros(n), self.never.copy(), self.never.copy()
        if self.t == 0:
            start = np.zeros(n, np.int64)
            self.u = random.lanes(self.seed, self.episode, start, 3, random.TRANSITION, self.horizon)
        choice, first, second = self.u[3 * self.t : 3 * self.t + 3]
        self.t += 1
        index = (self.rows * 10 + self.node) * 5 + action
        reached = self.transitions.take(index, 0).cumsum(-1)[:, :-1]
        reward = self.task.rewards.take(index) + random.normal(first, second)
        self.node = (choice[:, None] > reached).sum(-1)
        return self.observe(), reward, np.full(n, self.t == self.horizon), self.never.copy()

    def observe(self) -> np.ndarray:
        """Return the state as a one-hot row."""
        return (self.node[:, None] == self.states).astype(np.float64)
