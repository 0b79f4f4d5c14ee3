"""Agents that run a policy of each task for a round of episodes, learn from the round, and go on with what it made."""

from __future__ import annotations

import numpy as np
import torch

from kshot.agents import Experience
from kshot.agents.torch import Draws, going_on
from kshot.family import Variant
from kshot_baselines.episodes import Episodes
from kshot_baselines.policies import Outputs, Shape, action_map, distribution


class RoundAgent:
    """What such agents share: drawing actions, and keeping what they did until the round is over."""

    def __init__(self, variant: Variant, shape: Shape, episodes: int, seed: int, device: torch.device) -> None:
        """Take the policy's shape and the episodes of a round."""
        self.round = self.first_update = episodes
        self.shape, self.device = shape, device
        self._to_env = action_map(variant.action_space, device)
        self._draws = Draws(seed)

    def begin(self, n: int) -> None:
        """Give each of n tasks what it starts with."""
        raise NotImplementedError

    def outputs(self, x: torch.Tensor) -> Outputs:
        """Return what each task's policy says of observations, (n, round, k), with the noise of a latent at the end."""
        raise NotImplementedError

    def learn(self, found: Episodes) -> None:
        """Learn from a round of all tasks."""
        raise NotImplementedError

    def reset(self, n: int) -> None:
        """Start on n tasks, knowing nothing of them."""
        self._draws.restart()
        self._n = n
        self.begin(n)
        self._forget()

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> np.ndarray:
        """Draw actions of each task's policy."""
        x = torch.tensor(np.asarray(observation, np.float32), device=self.device).reshape(self._n, self.round, -1)
        self._out = self.outputs(torch.cat([x, self._noise], -1))
        with self._draws.own(self.device):
            action = distribution(self.shape, self._out).sample()
        self._acted.append((x, self._out.y, action))
        found: np.ndarray = self._to_env(action).flatten(0, 1).cpu().numpy()
        return found

    def observe(self, experience: Experience) -> None:
        """Keep the step."""
        e = experience
        rows = [np.asarray(x, np.float32) for x in (e.reward * e.active, e.active, going_on(e))]
        self._seen.append(torch.tensor(np.stack(rows), device=self.device).reshape(3, self._n, self.round))

    def end_episode(self) -> None:
        """Learn from the round."""
        observation, y, action = (torch.stack(kept) for kept in zip(*self._acted, strict=True))
        reward, mask, going = torch.stack(self._seen, 1)
        self.learn(Episodes(observation, y, self._out.log_std, action, reward, mask, going, self._noise))
        self._forget()

    def _forget(self) -> None:
        self._acted: list[tuple[torch.Tensor, ...]] = []
        self._seen: list[torch.Tensor] = []
        with self._draws.own(self.device):
            self._noise = torch.randn(self._n, self.round, self.shape.latent, device=self.device)
