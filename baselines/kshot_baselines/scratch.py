"""PPO from scratch on each test task, within the budget of adaptation: what meta-training is worth.

Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) with a linear feature baseline. Nothing is trained
before the test: every task starts from the same random policy and has parameters and an optimiser of its own, and all
tasks learn at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from kshot.family import Variant
from kshot_baselines.episodes import Batch, Episodes, batch, of_tasks
from kshot_baselines.learner import Weights
from kshot_baselines.policies import (
    Outputs,
    Params,
    Shape,
    distribution,
    for_tasks,
    initial,
    outputs,
    shape_of,
    shapes_of_params,
)
from kshot_baselines.ppo import clipped_surrogate
from kshot_baselines.rounds import RoundAgent

BLOCK = 60_000  # steps whose gradient is taken at once, to bound memory


@dataclass(frozen=True)
class Config:
    """Settings; found by a short search on the val tasks of PointGoal and PointSparse."""

    steps: int = 0  # before the test: none
    episodes: int = 5  # a round: under one policy, then an update
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"  # or relu
    log_std: float = 0.0  # at the start, of actions in [-1, 1]
    discount: float = 0.99
    gae_lambda: float = 0.9
    learning_rate: float = 1e-2
    epochs: int = 20  # steps of Adam a round, each on the whole of it
    clip: float = 0.3
    max_grad_norm: float = 0.5  # of each task's gradient

    def __post_init__(self) -> None:
        if self.steps:
            raise ValueError(f"steps is {self.steps}; expected 0: nothing is trained before the test")
        for name in ("episodes", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")


class Learner:
    """A random policy, which stays as it is."""

    def __init__(self, variant: Variant, config: Config, seed: int) -> None:
        """Draw the policy; seeds torch's generator."""
        torch.manual_seed(seed)
        self.steps = 0
        shape = shape_of(variant, config.hidden, config.activation)
        self._params = initial(shape)
        self._params["log_std"] += config.log_std

    def iterate(self) -> dict[str, float]:
        """Refuse: RuntimeError."""
        raise RuntimeError("scratch has a budget of 0 steps: nothing is trained before the test")

    def weights(self) -> Weights:
        """Return the policy's parameters."""
        return {name: x.clone() for name, x in self._params.items()}

    def get_state(self) -> dict[str, Any]:
        """Return the policy."""
        return self.weights()

    def set_state(self, state: dict[str, Any]) -> None:
        """Take it."""
        self._params = dict(state)


class Learning(NamedTuple):
    """Policies that learn, each on its task."""

    params: Params  # (tasks, …), leaves
    optimiser: torch.optim.Adam  # elementwise: one for all tasks is one for each


def learning(params: Mapping[str, torch.Tensor], learning_rate: float) -> Learning:
    """Return a copy of parameters that learns, with a fresh optimiser."""
    leaves = {
        name: x.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for name, x in params.items()
    }
    return Learning(leaves, torch.optim.Adam(leaves.values(), lr=learning_rate, eps=1e-5))


def update(shape: Shape, of: Learning, b: Batch, c: Config) -> None:
    """Improve each task's policy on its steps, in place; no task sees another."""
    for _ in range(c.epochs):
        of.optimiser.zero_grad(set_to_none=True)
        # A sum over tasks: each has the gradient of its own mean over steps.
        loss(shape, of.params, b, c).sum().backward()  # type: ignore[no-untyped-call]  # its stub has no types
        clip_each(of.params, c.max_grad_norm)
        of.optimiser.step()


def loss(shape: Shape, params: Params, b: Batch, c: Config) -> torch.Tensor:
    """Return the negative of each task's mean clipped surrogate, (tasks,)."""
    policy = distribution(shape, outputs(shape, params, b.observation))
    log_ratio = policy.log_prob(b.action) - distribution(shape, b.old).log_prob(b.action)
    return -(clipped_surrogate(log_ratio, b.advantage, c.clip) * b.weight).sum(1)


def clip_each(params: Params, most: float) -> None:
    """Shrink each task's gradient to a norm of at most so much, in place."""
    gradients = [x.grad for x in params.values() if x.grad is not None]
    norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    factor = (most / (norm + 1e-6)).clip(max=1.0)
    for g in gradients:
        g *= factor.reshape(-1, *[1] * (g.ndim - 1))


class Agent(RoundAgent):
    """Learns each task from the same random policy, by an update after every round of episodes."""

    name = "scratch"

    def __init__(
        self, variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device
    ) -> None:
        """Take a random policy; ValueError where it does not fit the variant and config."""
        shape = shape_of(variant, config.hidden, config.activation)
        super().__init__(variant, shape, config.episodes, seed, torch.device(device))
        self.config: dict[str, Any] = asdict(config)
        self._settings = config
        self._start = {name: x.to(device) for name, x in _fitting(weights, shape).items()}
        self._size = max(1, BLOCK // (config.episodes * variant.horizon))  # tasks a block

    def begin(self, n: int) -> None:
        """Give each task the random policy and a fresh optimiser."""
        self._sizes = [min(self._size, n - i) for i in range(0, n, self._size)]
        self._blocks = [learning(for_tasks(self._start, m), self._settings.learning_rate) for m in self._sizes]

    def outputs(self, x: torch.Tensor) -> Outputs:
        """Return what each task's policy says."""
        parts = zip(self._blocks, torch.split(x, self._sizes), strict=True)
        found = [outputs(self.shape, block.params, part) for block, part in parts]
        return Outputs(torch.cat([o.y for o in found]), torch.cat([o.log_std for o in found]))

    def learn(self, found: Episodes) -> None:
        """Update every task's policy on its round, a block of tasks after the other."""
        c = self._settings
        for i, block in enumerate(self._blocks):
            some = of_tasks(found, slice(i * self._size, (i + 1) * self._size))
            update(self.shape, block, batch(some, c.discount, c.gae_lambda), c)


def learner(variant: Variant, config: Config, seed: int, device: str | torch.device) -> Learner:
    """Draw the random policy."""
    return Learner(variant, config, seed)


def agent(variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device = "cpu") -> Agent:
    """Return what learns each task from there."""
    return Agent(variant, config, weights, seed, device)


def _fitting(weights: Weights, shape: Shape) -> Weights:
    """Return weights; ValueError where they are not those of the policy."""
    found, expected = {name: tuple(x.shape) for name, x in weights.items()}, shapes_of_params(shape)
    if found != expected:
        raise ValueError(f"the parameters are {found}; this variant and config expect {expected}")
    return weights
