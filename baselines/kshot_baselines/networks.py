"""Networks with a memory or without, their action distributions, and running moments."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import distributions, nn

Distribution = distributions.Distribution


class Output(NamedTuple):
    """What an actor-critic says of inputs, (…, inputs)."""

    policy: Distribution  # of actions, (…, action)
    value: torch.Tensor  # (…), normalised by the model's `values`


class Body(nn.Module):
    """What maps inputs and a memory to features and the next memory."""

    def __init__(self, features: int, memory_size: int) -> None:
        super().__init__()
        self.features, self.memory_size = features, memory_size

    def step(self, x: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features, (rows, features), and the next memory, (rows, memory)."""
        raise NotImplementedError

    def unroll(self, x: torch.Tensor, start: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Return features of sequences, (steps, rows, features): see `ActorCritic.unroll`."""
        raise NotImplementedError


class ActorCritic(nn.Module):
    """A policy and a value on top of bodies that map inputs and a memory to features and the next memory.

    The two heads have a body each, or share one; a body is a GRU, or an MLP, whose memory has size 0. Inputs are
    normalised by the moments `inputs`, and values are to be restored by the moments `values`; who trains updates both.
    """

    def __init__(self, inputs: int, action_space: spaces.Space[Any], bodies: list[Body], log_std: float = 0.0) -> None:
        """Take one body, or two: the policy's and the value's."""
        super().__init__()
        self.bodies = nn.ModuleList(bodies)
        self._bodies = tuple(bodies)  # with their type
        self.memory_sizes = [body.memory_size for body in bodies]
        self.inputs, self.values = Moments((inputs,)), Moments()
        self.discrete = isinstance(action_space, spaces.Discrete)
        outputs = (
            int(action_space.n) if isinstance(action_space, spaces.Discrete) else math.prod(action_space.shape or ())
        )
        self.policy = linear(bodies[0].features, outputs, gain=0.01)
        self.value = linear(bodies[-1].features, 1, gain=1.0)
        if not self.discrete:
            self.log_std = nn.Parameter(torch.full((outputs,), float(log_std)))

    def initial_memory(self, n: int) -> torch.Tensor:
        """Return the memory of n rows that have seen nothing, (n, memory)."""
        return self.policy.weight.new_zeros(n, sum(self.memory_sizes))

    def step(self, x: torch.Tensor, memory: torch.Tensor) -> tuple[Output, torch.Tensor]:
        """Return what it says of inputs, (rows, inputs), and the next memory, (rows, memory)."""
        x, parts = self.inputs.normalise(x), torch.split(memory, self.memory_sizes, -1)
        found = [body.step(x, part) for body, part in zip(self._bodies, parts, strict=True)]
        return self._output([f for f, _ in found]), torch.cat([m for _, m in found], -1)

    def unroll(self, x: torch.Tensor, start: torch.Tensor, memory: torch.Tensor) -> Output:
        """Return what it says of sequences.

        Args:
            x: (steps, rows, inputs).
            start: (steps, rows) bool; the memory is cleared before these steps.
            memory: (rows, memory), before the first step.
        """
        x, parts = self.inputs.normalise(x), torch.split(memory, self.memory_sizes, -1)
        return self._output([body.unroll(x, start, part) for body, part in zip(self._bodies, parts, strict=True)])

    def unroll_value(self, x: torch.Tensor, start: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Return the value alone, (steps, rows), of what `unroll` takes."""
        part = torch.split(memory, self.memory_sizes, -1)[-1]
        value: torch.Tensor = self.value(self._bodies[-1].unroll(self.inputs.normalise(x), start, part)).squeeze(-1)
        return value

    def _output(self, features: list[torch.Tensor]) -> Output:
        y = self.policy(features[0])
        return Output(self.distribution(y), self.value(features[-1]).squeeze(-1))

    def distribution(self, y: torch.Tensor) -> Distribution:
        """Return the distribution of actions that outputs of the policy mean."""
        if self.discrete:
            return distributions.Categorical(logits=y, validate_args=False)
        normal = distributions.Normal(y, self.log_std.exp().expand_as(y), validate_args=False)
        return distributions.Independent(normal, 1, validate_args=False)


class Gru(Body):
    """A GRU (Cho et al. 2014): orthogonal from memory to memory, Xavier elsewhere, as RL² initialises it.

    With biases of 0, half of a memory is lost at every step before training. With a span, the update gates start such
    that the elements keep theirs for times spread up to it (chrono initialisation, Tallec and Ollivier 2018,
    arXiv 1804.11188, equation 16).
    """

    def __init__(self, inputs: int, size: int, span: int = 0) -> None:
        super().__init__(features=size, memory_size=size)
        self.gru = nn.GRU(inputs, size)
        weights: list[nn.Parameter] = self.gru.all_weights[0]  # of input and memory to the gates, and their biases
        for to_gate in weights[0].chunk(3):
            nn.init.xavier_uniform_(to_gate.data)
        for to_gate in weights[1].chunk(3):
            nn.init.orthogonal_(to_gate.data)
        for bias in weights[2:]:
            nn.init.zeros_(bias)
        if span > 2:
            _, keep, _ = weights[2].data.chunk(3)  # of the gates r, z, n; z keeps
            keep.uniform_(1, span - 1).log_()

    def step(self, x: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next memory, as features as well."""
        memory = torch.gru_cell(x, memory, *self.gru.all_weights[0])
        return memory, memory

    def unroll(self, x: torch.Tensor, start: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Return the memories after each step."""
        # One call of the library from each step at which some row's memory is cleared to the next such step.
        cuts = start.any(1)
        cuts[0] = True
        features = []
        for begin, end in pairwise([*cuts.nonzero().flatten().tolist(), len(x)]):
            y, last = self.gru(x[begin:end], (memory * ~start[begin, :, None])[None])
            memory = last[0]
            features.append(y)
        return torch.cat(features)


class Mlp(Body):
    """Layers of tanh, and no memory."""

    def __init__(self, inputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__(features=hidden[-1], memory_size=0)
        layers = [linear(a, b, gain=math.sqrt(2)) for a, b in pairwise((inputs, *hidden))]
        self.layers = nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))

    def step(self, x: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features, and the memory, which is empty."""
        return self.layers(x), memory

    def unroll(self, x: torch.Tensor, start: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Return features of sequences."""
        features: torch.Tensor = self.layers(x)
        return features


def action_size(space: spaces.Space[Any]) -> int:
    """Return how many numbers a policy gives: logits of a Discrete, or the mean of a Box."""
    return int(space.n) if isinstance(space, spaces.Discrete) else math.prod(space.shape or ())


def linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """Return a layer with orthogonal weights times a gain, and no bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def detached(policy: Distribution) -> Distribution:
    """Return a policy that no gradient goes into."""
    if isinstance(policy, distributions.Categorical):
        return distributions.Categorical(logits=policy.logits.detach(), validate_args=False)
    normal = distributions.Normal(policy.mean.detach(), policy.stddev.detach(), validate_args=False)
    return distributions.Independent(normal, 1, validate_args=False)


class Moments(nn.Module):
    """Running mean and deviation of each number of batches, by the parallel formula of Chan et al. (1979).

    The deviation has a floor, so that what is constant stays near 0 also where it changes later.
    """

    mean: torch.Tensor
    square: torch.Tensor
    count: torch.Tensor

    def __init__(self, shape: tuple[int, ...] = (), floor: float = 1e-2) -> None:
        super().__init__()
        self._floor = floor
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("square", torch.zeros(shape))  # sum of squared distances from the mean
        self.register_buffer("count", torch.zeros(()))

    @property
    def scale(self) -> torch.Tensor:
        """The deviation, 1 before anything was seen."""
        seen = (self.square / self.count.clamp(min=1)).sqrt().clamp(min=self._floor)
        return torch.where(self.count > 0, seen, torch.ones_like(seen))

    @torch.no_grad()
    def update(self, x: torch.Tensor) -> None:
        """Take in numbers, (…, *shape)."""
        x = x.reshape(-1, *self.mean.shape)
        n, mean = len(x), x.mean(0)
        total = self.count + n
        delta = mean - self.mean
        self.square += ((x - mean) ** 2).sum(0) + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.count.copy_(total)

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        """Return numbers in units of the deviation from the mean."""
        return (x - self.mean) / self.scale

    def restore(self, y: torch.Tensor) -> torch.Tensor:
        """Return what was normalised as it was."""
        return y * self.scale + self.mean
