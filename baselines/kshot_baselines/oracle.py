"""Oracles: multi-task PPO that sees the task, for families without a closed-form expert.

Tasks come in equal parts from the training law and from the law of each out-of-distribution split, under the constants
of training. An oracle is a ceiling only where nothing beats it: the leaderboard marks the others *not converged*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot import tasks
from kshot.agents.policy import Header, save_policy
from kshot.family import Variant
from kshot.leaderboard import ORACLE
from kshot_baselines.multitask import Config as Config
from kshot_baselines.multitask import Learner
from kshot_baselines.networks import ActorCritic

TASKS = 5_000  # a law, to train on


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
    learner = Learner(variant, config, seed, "cpu", union(variant, TASKS, seed), sees_task=True)
    while learner.steps < config.steps:
        found = learner.iterate()
        if not math.isfinite(found["loss"]):
            raise FloatingPointError(f"{variant.id}: the oracle's loss is {found['loss']} after {learner.steps} steps")
        if progress is not None:
            progress(min(1.0, learner.steps / config.steps))
    write(learner.net, variant, path, config, seed, learner.steps)
    return path


def write(net: ActorCritic, variant: Variant, path: Path, config: Config, seed: int, steps: int) -> None:
    """Write a trained policy as a policy file that sees the task, with its settings."""
    layers = [m for m in net.bodies[0].modules() if isinstance(m, torch.nn.Linear)] + [net.policy]
    tensors = {f"{i}.{k}": x for i, layer in enumerate(layers) for k, x in layer.named_parameters()}
    moments = {"observation.mean": net.inputs.mean, "observation.scale": net.inputs.scale}
    header = Header(
        name=ORACLE,
        variant=variant.id,
        activation="tanh",
        output="action",
        sees_task=True,
        training_steps=steps,
        command=f"kshot oracle {variant.label} --steps {config.steps} --seed {seed}",
        config={"algorithm": "PPO", **asdict(config), "tasks": TASKS, "seed": seed},
    )
    save_policy(path, header, {name: x.detach().cpu().numpy() for name, x in {**tensors, **moments}.items()})


def union(variant: Variant, n: int, seed: int) -> Any:
    """Return n tasks of the training law and n of each out-of-distribution split's."""
    drawn = [tasks.sample(variant, split, n, seed + 1) for split in ("train", *variant.ood)]  # frozen sets have seed 0
    return type(drawn[0])(*(np.concatenate(field) for field in zip(*drawn, strict=True)))
