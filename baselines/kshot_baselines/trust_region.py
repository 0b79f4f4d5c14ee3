"""TRPO (Schulman et al. 2015, arXiv 1502.05477) of policies with a memory, as RL² was first trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.distributions import kl_divergence
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from kshot_baselines import ppo
from kshot_baselines.networks import ActorCritic, Distribution, detached
from kshot_baselines.rollout import Rollout
from kshot_baselines.trpo import line_search, natural_step


@dataclass(frozen=True)
class Settings(ppo.Settings):
    """What a method's Config has of TRPO, beside what the value's epochs take of PPO."""

    max_kl: float
    cg_iterations: int
    damping: float


def update(
    model: ActorCritic, optimiser: torch.optim.Optimizer, rollout: Rollout, c: Settings
) -> dict[str, torch.Tensor]:
    """Improve the policy by one natural-gradient step within the KL bound, and then the value by epochs.

    Args:
        model: what sampled the rollout, with a body for the policy and another for the value.
        optimiser: of its parameters; here of the value's only.
        rollout: the steps.
        c: the settings.

    Returns:
        `loss` and `kl` after the step, `entropy` before it, `accepted` (1 or 0) and `value_loss`.

    Raises:
        ValueError: where policy and value share a body: a step for one would move the other.
    """
    if len(model.bodies) < 2:
        raise ValueError("TRPO needs a policy and a value that share nothing; set shared=false, or update=ppo")
    batch, memory = ppo.sequences(model, rollout, c)
    # cuDNN's recurrent networks cannot be differentiated twice.
    with torch.backends.cudnn.flags(enabled=False):
        metrics = _policy_step(model, batch, memory, c)
    return {**metrics, "value_loss": _value_epochs(model, optimiser, batch, memory, c)}


def _policy_step(model: ActorCritic, b: ppo.Sequences, memory: torch.Tensor, c: Settings) -> dict[str, torch.Tensor]:
    """Take the step, over all sequences."""
    parameters = [*model.bodies[0].parameters(), *model.policy.parameters()]
    parameters += [] if model.discrete else [model.log_std]

    def surrogate(policy: Distribution) -> torch.Tensor:
        return -((policy.log_prob(b.action) - b.log_prob).exp() * b.advantage).mean()

    policy = model.unroll(b.x, b.start, memory).policy
    old = detached(policy)

    @torch.no_grad()
    def evaluate(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vector_to_parameters(theta, parameters)
        new = model.unroll(b.x, b.start, memory).policy
        return surrogate(new), kl_divergence(old, new).mean()

    loss = surrogate(policy)
    gradient = _flat_gradient(loss, parameters)
    kl_gradient = _flat_gradient(kl_divergence(old, policy).mean(), parameters, create_graph=True)
    step = natural_step(
        lambda x: _flat_gradient(kl_gradient @ x, parameters),
        gradient,
        c.max_kl,
        c.cg_iterations,
        c.damping,
    )
    theta = parameters_to_vector(parameters).detach()
    found = line_search(evaluate, theta, step, float(loss.detach()), c.max_kl)
    vector_to_parameters(found.theta, parameters)
    numbers = {"loss": found.loss, "kl": found.kl, "accepted": float(found.accepted)}
    return {**{k: torch.tensor(x) for k, x in numbers.items()}, "entropy": old.entropy().mean()}


def _value_epochs(
    model: ActorCritic, optimiser: torch.optim.Optimizer, b: ppo.Sequences, memory: torch.Tensor, c: Settings
) -> torch.Tensor:
    """Fit the value, and return the mean loss."""
    losses = []
    for _ in range(c.epochs):
        for chosen in torch.randperm(len(memory), device=memory.device).chunk(c.minibatches):
            value = model.unroll_value(b.x[:, chosen], b.start[:, chosen], memory[chosen])
            loss = (value - b.target[:, chosen]).square().mean()
            optimiser.zero_grad(set_to_none=True)  # the policy's stay None: the optimiser leaves it alone
            loss.backward()  # type: ignore[no-untyped-call]  # its stub has no types
            nn.utils.clip_grad_norm_(model.parameters(), c.max_grad_norm)
            optimiser.step()
            losses.append(loss.detach())
    return torch.stack(losses).mean()


def _flat_gradient(x: torch.Tensor, parameters: list[nn.Parameter], create_graph: bool = False) -> torch.Tensor:
    """Return the gradient of a number as one vector; its graph is kept."""
    gradient = torch.autograd.grad(x, parameters, retain_graph=True, create_graph=create_graph)
    return torch.cat([g.reshape(-1) for g in gradient])
