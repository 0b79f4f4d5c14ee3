"""A method for tests of training: hill climbing of a linear policy on the mean return of an episode of all rows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from kshot.agents import Memoryless
from kshot.torch_env import TorchEnv


@dataclass(frozen=True)
class Config:
    steps: int = 20_000
    rows: int = 16
    scale: float = 0.3
    normal: bool = True  # draws, not uniform ones
    hidden: tuple[int, ...] = ()
    outer: str = "climb"
    fail_at: int = -1  # iteration whose loss is none
    pause: float = 0.0  # seconds an iteration


def extended(observation):
    """Return observations with a 1 for the bias."""
    return torch.cat([observation, torch.ones(len(observation), 1)], 1)


class Toy:
    def __init__(self, variant, config, seed, device):
        torch.manual_seed(seed)
        self.config, self.steps, self.iteration = config, 0, 0
        self.env = TorchEnv(variant.id, config.rows, device)
        self.observation = self.env.reset(seed=seed)
        shape = variant.action_space.shape[0], variant.observation_space.shape[0] + 1
        self.weight, self.score = torch.ones(shape), -np.inf  # far off: away from the goals as fast as can be

    def iterate(self):
        draw = torch.randn if self.config.normal else torch.rand
        candidate = self.weight + self.config.scale * draw(self.weight.shape)
        total = torch.zeros(self.config.rows)
        for _ in range(self.env.variant.horizon):
            self.observation, reward, *_ = self.env.step((extended(self.observation) @ candidate.T).clamp(-1, 1))
            total += reward
        self.steps += self.config.rows * self.env.variant.horizon
        self.iteration += 1
        if (score := float(total.mean())) > self.score:
            self.score = score
            self.weight.copy_(candidate)  # in place, as optimisers do
        if self.config.pause:
            import time

            time.sleep(self.config.pause)
        loss = float("nan") if self.iteration == self.config.fail_at else -score
        return {"return": score, "loss": loss}

    def weights(self):
        return {"weight": self.weight}

    def get_state(self):
        return {
            "weight": self.weight.clone(), "score": self.score, "steps": self.steps, "iteration": self.iteration,
            "env": self.env.get_state(), "observation": self.observation, "random": torch.get_rng_state(),
        }  # fmt: skip

    def set_state(self, state):
        for name in ("weight", "score", "steps", "iteration", "observation"):
            setattr(self, name, state[name])
        self.env.set_state(state["env"])
        torch.set_rng_state(state["random"])


class ToyAgent(Memoryless):
    name = "toy"
    adapts = False

    def __init__(self, variant, config, weights, seed):
        low, high = variant.action_space.low, variant.action_space.high
        self.config, self.bounds = dataclasses.asdict(config), (low, high)
        self.weight = torch.nn.Linear(*reversed(weights["weight"].shape), bias=False)  # draws numbers, as networks do
        self.weight.load_state_dict({"weight": weights["weight"]})
        if self.weight.in_features != variant.observation_space.shape[0] + 1:
            raise ValueError(f"takes {self.weight.in_features} numbers")

    def act(self, observation):
        with torch.no_grad():
            action = self.weight(extended(torch.as_tensor(observation, dtype=torch.float32))).numpy()
        return action.clip(*self.bounds)


def learner(variant, config, seed, device="cpu"):
    return Toy(variant, config, seed, device)


def agent(variant, config, weights, seed, device="cpu"):
    return ToyAgent(variant, config, weights, seed)
