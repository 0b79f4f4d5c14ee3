"""Oracles: a policy that sees the task, trained on all laws of a variant, for families without a closed-form expert.

PPO (Schulman et al. 2017, arXiv 1707.06347) by Stable-Baselines3 on the native batch, through
`VectorTaskInObservation`, an episode a task. Tasks come in equal parts from the training law and from the law of each
out-of-distribution split, under the constants of training. An oracle is a ceiling only where nothing beats it: the
leaderboard marks the others *not converged*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

from kshot import tasks
from kshot.agents.sb3 import export_policy
from kshot.family import Variant
from kshot.leaderboard import ORACLE
from kshot.sb3 import as_sb3_vecenv
from kshot.wrappers import VectorTaskInObservation


@dataclass(frozen=True)
class Config:
    """PPO's settings; one rollout is an episode of every row."""

    steps: int = 8_000_000
    rows: int = 64
    epochs: int = 10
    minibatches: int = 8
    learning_rate: float = 1e-3  # falls to 0 in a straight line
    discount: float = 0.99
    gae_lambda: float = 0.95
    hidden: tuple[int, ...] = (128, 128)  # tanh
    log_std: float = -0.5  # at the start
    tasks: int = 5_000  # a law, to train on


def fit(variant: Variant, config: Config, seed: int, progress: Callable[[float], None] | None = None) -> PPO:
    """Train an oracle; its env, a `VecNormalize`, holds the normalisation of observations."""
    torch.manual_seed(seed)
    envs = gym.make_vec(
        variant.id, num_envs=config.rows, autoreset_mode="same_step", tasks=union(variant, config.tasks, seed)
    )
    model = PPO(
        "MlpPolicy",
        VecNormalize(as_sb3_vecenv(VectorTaskInObservation(envs)), gamma=config.discount),
        n_steps=variant.horizon,
        batch_size=config.rows * variant.horizon // config.minibatches,
        n_epochs=config.epochs,
        learning_rate=lambda remaining: config.learning_rate * remaining,
        gamma=config.discount,
        gae_lambda=config.gae_lambda,
        policy_kwargs={
            "net_arch": list(config.hidden),
            "activation_fn": torch.nn.Tanh,
            "log_std_init": config.log_std,
        },
        seed=seed,
        device="cpu",
    )
    return model.learn(config.steps, callback=_Report(config.steps, progress))


def train(
    variant: Variant,
    path: Path,
    config: Config | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Train a variant's oracle and write it as a policy file; the same seed gives the same file on one machine."""
    torch.set_num_threads(1)  # small networks; the physics has its own threads
    config = config or Config()
    write(fit(variant, config, seed, progress), variant, path, config, seed)
    return path


def write(model: PPO, variant: Variant, path: Path, config: Config, seed: int) -> None:
    """Write a trained oracle as a policy file, with its settings."""
    settings = {"algorithm": "PPO", **asdict(config), "seed": seed}
    export_policy(model, path, variant.id, name=ORACLE, sees_task=True, config=settings)


def union(variant: Variant, n: int, seed: int) -> Any:
    """Return n tasks of the training law and n of each out-of-distribution split's."""
    drawn = [tasks.sample(variant, split, n, seed + 1) for split in ("train", *variant.ood)]  # frozen sets have seed 0
    return type(drawn[0])(*(np.concatenate(field) for field in zip(*drawn, strict=True)))


class _Report(BaseCallback):
    """Tells how far training is."""

    def __init__(self, steps: int, progress: Callable[[float], None] | None) -> None:
        super().__init__()
        self._steps, self._progress = steps, progress

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self._progress is not None:
            self._progress(min(1.0, self.num_timesteps / self._steps))
