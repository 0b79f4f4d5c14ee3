"""MAESN: exploration structured by a latent (Gupta et al. 2018, arXiv 1802.07245).

The policy is given z = μ + σ ∘ ε with one ε ~ N(0, I) an episode, so that its noise is the same plan from an episode's
first step to its last. Each of a fixed list of training tasks keeps its own (μ, σ) through training; the inner update
is a policy-gradient step on them, with learned step sizes, and the outer update improves what they lead to: policy,
step sizes and the (μ, σ) of the iteration's tasks, which a penalty holds near N(0, I). There every new task starts.

Its ablations are options: `latent=0`, `adapt_policy=true` is MAML with learned step sizes; `latent_kl=0` lets the
latents of training go where they like; `inner_steps=0` trains them without an inner update (the paper's LSPG).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kshot import tasks
from kshot.family import Variant
from kshot_baselines import maml
from kshot_baselines.adaptation import Inner
from kshot_baselines.learner import Weights
from kshot_baselines.policies import OWN, Params, shape_of


@dataclass(frozen=True)
class Config(maml.Config):
    """Settings: MAML's, and what follows; the source is the paper's code unless a comment says otherwise."""

    latent: int = 2  # numbers
    latent_kl: float = 0.1  # cost of KL(N(μ, σ²) ‖ N(0, I)) before the inner update; the paper: 0.1 or 0.5
    adapt_policy: bool = False  # the inner update changes the policy's parameters as well
    train_tasks: int = 100
    inner_lr: float = 0.5  # at the start; the paper: 0.5 or 1
    learn_steps: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outer != "trpo":
            raise ValueError(f"outer is {self.outer!r}; MAESN has 'trpo' alone")
        if not self.latent and not self.adapt_policy:
            raise ValueError("latent is 0 and adapt_policy is false: nothing adapts; set adapt_policy=true")
        if self.latent < 0 or self.latent_kl < 0:
            raise ValueError(f"latent is {self.latent}, latent_kl {self.latent_kl:g}; expected at least 0")
        if self.train_tasks < self.tasks:
            raise ValueError(f"train_tasks is {self.train_tasks}; expected at least the {self.tasks} of an iteration")


def learner(variant: Variant, config: Config, seed: int, device: str | torch.device) -> MaesnLearner:
    """Start a training run."""
    return MaesnLearner(variant, config, inner_of(variant, config), seed, torch.device(device))


def agent(
    variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device = "cpu"
) -> MaesnAgent:
    """Return the agent of trained weights."""
    return MaesnAgent(variant, config, inner_of(variant, config), weights, seed, torch.device(device))


def inner_of(variant: Variant, c: Config) -> Inner:
    """Return the inner update that a config means."""
    shape = shape_of(variant, c.hidden, c.activation, c.latent)
    return Inner(shape, c.inner, c.inner_lr, c.discount, c.first_order, () if c.adapt_policy else OWN)


def divergence(mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Return KL(N(μ, σ²) ‖ N(0, I)) of rows of latents, (rows,)."""
    return 0.5 * ((2 * log_std).exp() + mean.square() - 1 - 2 * log_std).sum(-1)


class MaesnLearner(maml.MamlLearner):
    """A training run on a fixed list of tasks, each with its own latent."""

    def __init__(self, variant: Variant, config: Config, inner: Inner, seed: int, device: torch.device) -> None:
        """Draw policy, tasks and latents."""
        super().__init__(variant, config, inner, seed, device)
        self._latent_kl = config.latent_kl
        self.penalty = self._cost if config.latent else None
        self.known = tasks.sample(variant, "train", config.train_tasks, seed)
        size = (config.train_tasks, config.latent)
        start = (torch.randn(size), torch.zeros(size))  # as the paper's code
        self.latents = {name: x.to(device) for name, x in zip(OWN, start, strict=True)} if config.latent else {}
        self._chosen = torch.arange(config.tasks)

    def draw_tasks(self, seed: int) -> Any:
        """Return some of the known tasks, none twice, and let their latents take part in the iteration."""
        n, k = len(self.known[0]), self._config.tasks
        chosen = np.random.default_rng(seed).choice(n, k, replace=False)
        self._chosen = torch.as_tensor(chosen, device=self._device)
        self.meta |= {name: x[self._chosen] for name, x in self.latents.items()}
        return tasks.take(self.known, chosen)

    def iterate(self) -> dict[str, float]:
        """Run one meta-iteration; beside MAML's metrics, the `latent_kl` and `latent_entropy` of all known tasks."""
        metrics = super().iterate()
        if not self.latents:
            return metrics
        for name, x in self.latents.items():
            x[self._chosen] = self.meta.pop(name)
        mean, log_std = (self.latents[name] for name in OWN)
        entropy = (log_std + 0.5 * np.log(2 * np.pi * np.e)).sum(-1)
        return {
            **metrics,
            "latent_kl": float(divergence(mean, log_std).mean()),
            "latent_entropy": float(entropy.mean()),
        }

    def _cost(self, meta: Params) -> torch.Tensor:
        """Return what the latents of the iteration's tasks cost, the mean over tasks."""
        mean, log_std = (meta[name] for name in OWN)
        return self._latent_kl * divergence(mean, log_std).mean()

    def get_state(self) -> dict[str, Any]:
        """Return all that the future of the run depends on."""
        return {**super().get_state(), "latents": {name: x.cpu().clone() for name, x in self.latents.items()}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().set_state(state)
        self.latents = {name: x.to(self._device, copy=True) for name, x in state["latents"].items()}


class MaesnAgent(maml.MamlAgent):
    """Adapts the latent of each task, from the prior on, after every round of episodes."""

    name = "maesn"
