"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) of policies with a memory or without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from kshot_baselines.networks import ActorCritic
from kshot_baselines.returns import gae
from kshot_baselines.rollout import Rollout, folded


@dataclass(frozen=True)
class Settings:
    """What a method's Config has of PPO."""

    steps: int
    discount: float
    gae_lambda: float
    value_lambda: float | None  # of the returns that the value is fitted to; None: that of the advantages
    learning_rate: float
    anneal: bool
    epochs: int
    minibatches: int
    clip: float
    value_cost: float
    entropy_cost: float
    max_grad_norm: float


def clipped_surrogate(log_ratio: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """Return min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) of every step (equation 7), to be made large."""
    ratio = log_ratio.exp()
    return torch.minimum(ratio * advantage, ratio.clip(1 - clip, 1 + clip) * advantage)


def anneal(optimiser: torch.optim.Optimizer, c: Settings, steps: int) -> None:
    """Set the learning rate: by option, it falls to 0 over the budget in a straight line."""
    for group in optimiser.param_groups:
        group["lr"] = c.learning_rate * (max(0.0, 1 - steps / c.steps) if c.anneal else 1.0)


def advantages(rollout: Rollout, discount: float, lambda_: float) -> torch.Tensor:
    """Return the advantage of every step of a rollout, (T, N), in units of reward."""
    r = rollout
    return gae(r.reward_tp1, discount * r.follows_tp1, r.value_t, r.value_tp1, r.continues_tp1, lambda_)


def update(
    model: ActorCritic, optimiser: torch.optim.Optimizer, rollout: Rollout, c: Settings
) -> dict[str, torch.Tensor]:
    """Improve policy and value by epochs over minibatches of whole sequences.

    Args:
        model: what sampled the rollout; the moments of its values take in the returns first.
        optimiser: of its parameters.
        rollout: the steps.
        c: the settings.

    Returns:
        Means over all minibatches: `loss`, `value_loss`, `entropy`, `kl` (by the estimator ρ − 1 − log ρ) and
        `clipped`, the share of steps outside the clip.
    """
    batch, memory = sequences(model, rollout, c)
    metrics: list[torch.Tensor] = []
    for _ in range(c.epochs):
        for chosen in torch.randperm(len(memory), device=memory.device).chunk(c.minibatches):
            some = Sequences(*(x.index_select(1, chosen) for x in batch))  # several times as fast as x[:, chosen]
            loss, found = _loss(model, some, memory[chosen], c)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # its stub has no types
            nn.utils.clip_grad_norm_(model.parameters(), c.max_grad_norm)
            optimiser.step()
            metrics.append(found)
    names = ("loss", "value_loss", "entropy", "kl", "clipped")
    return dict(zip(names, torch.stack(metrics).mean(0), strict=True))


class Sequences(NamedTuple):
    """Sequences to train on, (L, n, …)."""

    x: torch.Tensor
    start: torch.Tensor
    action: torch.Tensor
    log_prob: torch.Tensor
    advantage: torch.Tensor
    target: torch.Tensor


def sequences(model: ActorCritic, rollout: Rollout, c: Settings) -> tuple[Sequences, torch.Tensor]:
    """Return a rollout cut into its sequences and the memories they start with, (n, memory).

    Advantages are standardised over all steps; the targets are λ-returns, normalised by the model's moments of values,
    which take these in first.
    """
    advantage = advantages(rollout, c.discount, c.gae_lambda)
    beyond = advantage if c.value_lambda is None else advantages(rollout, c.discount, c.value_lambda)
    returns = beyond + rollout.value_t
    model.values.update(returns)
    r, target = rollout, model.values.normalise(returns)
    parts = (r.input_t, r.start_t, r.action_t, r.log_prob_t, standardised(advantage), target)
    length = len(advantage) // len(r.memory_t)
    return Sequences(*(folded(x, length) for x in parts)), r.memory_t.flatten(0, 1)


def _loss(model: ActorCritic, b: Sequences, memory: torch.Tensor, c: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of some sequences, and metrics."""
    out = model.unroll(b.x, b.start, memory)
    log_ratio = out.policy.log_prob(b.action) - b.log_prob
    entropy = out.policy.entropy().mean()
    value_loss = (out.value - b.target).square().mean()
    gain = clipped_surrogate(log_ratio, b.advantage, c.clip).mean()
    loss = -gain + c.value_cost * value_loss
    if c.entropy_cost:  # else no backward pass through the entropy
        loss = loss - c.entropy_cost * entropy
    with torch.no_grad():
        excess = log_ratio.expm1()
        kl, clipped = (excess - log_ratio).mean(), (excess.abs() > c.clip).to(loss).mean()
    return loss, torch.stack([loss.detach(), value_loss.detach(), entropy.detach(), kl, clipped])


def standardised(x: torch.Tensor) -> torch.Tensor:
    """Return numbers with mean 0 and deviation 1."""
    return (x - x.mean()) / (x.std() + 1e-8)
