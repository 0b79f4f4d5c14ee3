"""Functional policies: a multilayer perceptron whose parameters are a dict of tensors, shared or one set a task.

Parameters are `{"0.weight": (inputs, outputs), "0.bias": (outputs,), …, "log_std": (action,)}`, the last empty where
actions are discrete; with a leading axis of tasks, each task has its own. Every function runs on all tasks at once.

A policy may have a latent of d numbers (MAESN, Gupta et al. 2018, arXiv 1802.07245): then what it is given ends with d
columns of standard normal noise ε, held for an episode, in whose place the network sees z = μ + σ ∘ ε, with the
parameters `"latent_mean": (d,)`, μ, and `"latent_log_std": (d,)`, log σ, of which every task always has its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from gymnasium import spaces

from kshot.family import Variant

Params: TypeAlias = dict[str, torch.Tensor]
MIN_LOG_STD = math.log(1e-6)  # as MAML's published policy
OWN = ("latent_mean", "latent_log_std")  # parameters of which each task has its own
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


class Shape(NamedTuple):
    """What a policy's network looks like."""

    sizes: tuple[int, ...]  # of the layers: observation and latent, hidden …, action or number of actions
    activation: str
    discrete: bool
    latent: int = 0  # how many of the inputs it is


class Outputs(NamedTuple):
    """What the parameters and observations of all tasks say of the actions."""

    y: torch.Tensor  # (tasks, n, out), means or logits
    log_std: torch.Tensor  # (tasks, action), without the floor; (tasks, 0) where actions are discrete


class Gaussian(NamedTuple):
    """Independent normal distributions of the numbers of an action."""

    mean: torch.Tensor  # (tasks, n, action)
    log_std: torch.Tensor  # (tasks, 1, action)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Return the log-density of actions, (tasks, n)."""
        z = (action - self.mean) * (-self.log_std).exp()
        return -(0.5 * z * z + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self) -> torch.Tensor:
        """Draw actions, (tasks, n, action)."""
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean)

    def entropy(self) -> torch.Tensor:
        """Return the differential entropy, (tasks, n)."""
        return (self.log_std.expand_as(self.mean) + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, new: Gaussian) -> torch.Tensor:
        """Return KL(self ‖ new), (tasks, n)."""
        spread = ((self.log_std - new.log_std) * 2).exp()
        shift = (self.mean - new.mean) * (-new.log_std).exp()
        return (new.log_std - self.log_std + 0.5 * (spread + shift * shift - 1)).sum(-1)


class Categorical(NamedTuple):
    """Distributions over whole numbers."""

    logits: torch.Tensor  # (tasks, n, actions)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Return the log-probability of actions, (tasks, n)."""
        return self.logits.log_softmax(-1).gather(-1, action[..., None]).squeeze(-1)

    def sample(self) -> torch.Tensor:
        """Draw actions, (tasks, n): the largest of the logits plus Gumbel noise."""
        noise = torch.empty_like(self.logits).exponential_().log()
        return (self.logits - noise).argmax(-1)

    def entropy(self) -> torch.Tensor:
        """Return the entropy, (tasks, n)."""
        log_p = self.logits.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)

    def kl(self, new: Categorical) -> torch.Tensor:
        """Return KL(self ‖ new), (tasks, n)."""
        log_p = self.logits.log_softmax(-1)
        return (log_p.exp() * (log_p - new.logits.log_softmax(-1))).sum(-1)


Distribution: TypeAlias = Gaussian | Categorical


def shape_of(variant: Variant, hidden: tuple[int, ...], activation: str, latent: int = 0) -> Shape:
    """Return the shape of a policy for a variant.

    Raises:
        ValueError: for an activation other than tanh and relu.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; expected one of {', '.join(ACTIVATIONS)}")
    space = variant.action_space
    discrete = isinstance(space, spaces.Discrete)
    outputs = int(space.n) if isinstance(space, spaces.Discrete) else math.prod(space.shape or ())
    return Shape((variant.observation_space.shape[0] + latent, *hidden, outputs), activation, discrete, latent)


def shapes_of_params(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (a, b) in enumerate(zip(shape.sizes[:-1], shape.sizes[1:], strict=True)):
        shapes |= {f"{i}.weight": (a, b), f"{i}.bias": (b,)}
    shapes["log_std"] = (0 if shape.discrete else shape.sizes[-1],)
    return shapes | dict.fromkeys(OWN, (shape.latent,)) if shape.latent else shapes


def initial(shape: Shape) -> Params:
    """Draw shared parameters as MAML's published policy: weights by Xavier's uniform law, biases and log_std 0."""
    params = {name: torch.zeros(size) for name, size in shapes_of_params(shape).items() if name not in OWN}
    for name, x in params.items():
        if name.endswith("weight"):
            torch.nn.init.xavier_uniform_(x)
    return params


def prior(shape: Shape, tasks: int) -> Params:
    """Return the latent parameters of tasks of which nothing is known, those of N(0, I); none without a latent."""
    return {name: torch.zeros(tasks, shape.latent) for name in OWN} if shape.latent else {}


def for_tasks(params: Mapping[str, torch.Tensor], tasks: int) -> Params:
    """Return shared parameters, and those that each task has its own of, as those of each task, without a copy."""
    return {name: x if name in OWN else x.expand(tasks, *x.shape) for name, x in params.items()}


def network_input(params: Mapping[str, torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what the first layer sees of what a policy is given, (tasks, n, k), and σ ∘ ε where there is a latent."""
    if OWN[0] not in params:
        return x, None
    mean, log_std = (params[name].unsqueeze(-2) for name in OWN)
    spread = log_std.exp() * x[..., -mean.shape[-1] :]
    return torch.cat([x[..., : -mean.shape[-1]], mean + spread], -1), spread


def outputs(shape: Shape, params: Mapping[str, torch.Tensor], observation: torch.Tensor) -> Outputs:
    """Run the network.

    Args:
        shape: of the policy.
        params: of each task, with a leading axis of tasks, or shared by all.
        observation: (tasks, n, k), with the noise of a latent at its end.
    """
    (x, _), last = network_input(params, observation), len(shape.sizes) - 2
    for i in range(last + 1):
        x = x @ params[f"{i}.weight"] + params[f"{i}.bias"].unsqueeze(-2)
        x = ACTIVATIONS[shape.activation](x) if i < last else x
    return Outputs(x, params["log_std"].expand(len(x), -1))


def distribution(shape: Shape, out: Outputs) -> Distribution:
    """Return the distributions of actions that outputs mean."""
    if shape.discrete:
        return Categorical(out.y)
    return Gaussian(out.y, out.log_std.clamp(min=MIN_LOG_STD).unsqueeze(-2))


def action_map(space: spaces.Space[Any], device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the map from a policy's actions to those that the environment takes.

    Where the space is a box with bounds, a policy acts in [-1, 1], which is stretched to the box (rllab's `normalize`);
    the environment clips what lies outside.
    """
    if not isinstance(space, spaces.Box) or not space.is_bounded():
        return lambda action: action
    low, high = (torch.as_tensor(x, dtype=torch.float32, device=device) for x in (space.low, space.high))
    centre, reach = 0.5 * (high + low), 0.5 * (high - low)
    return lambda action: torch.addcmul(centre, reach, action)
