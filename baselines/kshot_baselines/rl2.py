"""RL²: a recurrent policy learns to learn within a trial.

Duan et al. 2016, arXiv 1611.02779; Wang et al. 2016, arXiv 1611.05763. A trial, K episodes of one task, is one long
episode: the policy sees observation, previous action, reward and done flag, its memory is cleared only between
trials, and what it is trained for is the return of the whole trial. At test the memory is all that adapts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from kshot.agents import Experience
from kshot.agents.torch import Draws, going_on
from kshot.family import Variant
from kshot.torch_env import TorchEnv
from kshot_baselines import ppo, trust_region
from kshot_baselines.learner import Weights, optimiser_state, random_state, set_optimiser_state, set_random_state
from kshot_baselines.networks import ActorCritic, Gru
from kshot_baselines.rollout import Stream, collect, input_size, mean_return, tail


@dataclass(frozen=True)
class Config(trust_region.Settings):
    """Settings; the source is the paper's bandits (their code's mab-17) but where a comment says otherwise."""

    steps: int = 20_000_000  # of the environment; the paper: 250,000 a batch, hundreds of batches
    rows: int = 1000  # trials at a time
    memory: int = 64  # size of the GRU; the paper: 256
    chrono: bool = False  # the GRU starts with memories that last up to a trial, see `Gru`; the paper: False
    shared: bool = True  # one GRU under policy and value; the paper: False, a GRU each
    normalise: bool = False  # inputs, by running moments
    discount: float = 0.99
    gae_lambda: float = 0.3
    value_lambda: float | None = None  # the paper: 1.0
    learning_rate: float = 3e-3  # theirs: 1e-3
    anneal: bool = True  # the learning rate falls to 0 in a straight line; the paper: False
    epochs: int = 5
    minibatches: int = 4  # theirs: 8
    clip: float = 0.1
    value_cost: float = 0.5  # no paper value: theirs is another network
    entropy_cost: float = 0.0
    max_grad_norm: float = 1.0  # theirs: 40
    update: Literal["ppo", "trpo"] = "ppo"  # trpo, as in the paper, wants shared=False
    max_kl: float = 0.01  # of TRPO
    cg_iterations: int = 10
    damping: float = 1e-5
    truncate: int = 0  # steps of back-propagation; 0: through the whole trial
    log_std: float = 0.0  # at the start, of continuous actions


def network(variant: Variant, c: Config) -> ActorCritic:
    """Return the networks before training."""
    size, span = input_size(variant), variant.horizon * variant.trial if c.chrono else 0
    return ActorCritic(size, variant.action_space, [Gru(size, c.memory, span) for _ in range(2 - c.shared)], c.log_std)


class Learner:
    """A run of RL²."""

    def __init__(self, variant: Variant, config: Config, seed: int, device: str | torch.device) -> None:
        """Build network and rows."""
        torch.manual_seed(seed)
        self.config, self.steps, self._variant = config, 0, variant
        env = TorchEnv(variant.id, config.rows, device, episodes_per_task=variant.trial)
        self._stream = Stream(env, variant.trial)
        self._stream.begin(seed)
        self.net = network(variant, config).to(device)
        self._memory = self.net.initial_memory(config.rows)
        self._optimiser = torch.optim.Adam(self.net.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)

    def iterate(self) -> dict[str, float]:
        """Sample as many steps of each row as a trial has, and improve on them."""
        c, v, net = self.config, self._variant, self.net
        ppo.anneal(self._optimiser, c, self.steps)
        length = v.horizon * v.trial
        rollout, self._memory = collect(self._stream, net, self._memory, length, c.truncate, over_trial=True)
        self.steps += length * c.rows
        update = ppo.update if c.update == "ppo" else trust_region.update
        metrics = update(net, self._optimiser, rollout, c)
        if c.normalise:
            net.inputs.update(rollout.input_t)
        metrics["return"] = mean_return(rollout, v)
        return {k: float(x) for k, x in metrics.items()}

    def weights(self) -> Weights:
        """Return the network's."""
        return {k: x.detach().cpu().clone() for k, x in self.net.state_dict().items()}

    def get_state(self) -> dict[str, Any]:
        """Return networks, optimiser, memories, rows and random numbers."""
        return {
            "steps": self.steps,
            "net": self.net.state_dict(),
            "optimiser": optimiser_state(self._optimiser),
            "memory": self._memory,
            "stream": self._stream.get_state(),
            "random": random_state(self._memory.device),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps = state["steps"]
        self.net.load_state_dict(state["net"])
        set_optimiser_state(self._optimiser, state["optimiser"])
        self._memory = state["memory"].to(self._memory.device)
        self._stream.set_state(state["stream"])
        set_random_state(state["random"], self._memory.device)


class Agent:
    """RL² at test: its memory goes on through the episodes of a task.

    After as many episodes as a trial of training has, every further one starts from the memory with which the last of
    them began: the policy has never seen a longer trial.
    """

    name = "rl2"

    def __init__(
        self, variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device
    ) -> None:
        """Take what was trained."""
        self.config: dict[str, Any] = asdict(config)
        self._net = network(variant, config).to(device).eval()
        self._net.load_state_dict(weights)
        self._space, self._episodes, self._device = variant.action_space, variant.trial, torch.device(device)
        self._tail_size = input_size(variant) - input_size(variant, tail=False)
        self._draws = Draws(seed)

    def reset(self, n: int) -> None:
        """Forget everything."""
        self._draws.restart()
        self._memory = self._net.initial_memory(n).detach()
        self._tail = torch.zeros(n, self._tail_size, device=self._device)
        self._live = torch.ones(n, 1, dtype=torch.bool, device=self._device)
        self._done = 0  # episodes
        self._last = self._memory, self._tail  # with which the last episode of a trial began

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> np.ndarray:
        """Draw actions; rows that wait for others keep their memory."""
        x = torch.cat([self._tensor(observation), self._tail], -1)
        out, memory = self._net.step(x, self._memory)
        self._memory = torch.where(self._live, memory, self._memory)
        with self._draws.own(self._device):
            action: np.ndarray = out.policy.sample().cpu().numpy()
        return action

    def observe(self, experience: Experience) -> None:
        """See what the actions did."""
        e = experience
        action = torch.as_tensor(e.action, device=self._device)
        action = action if action.is_floating_point() else action.long()
        done = torch.as_tensor(e.terminated | e.truncated, device=self._device)
        seen = tail(self._space, action.float() if action.is_floating_point() else action, self._tensor(e.reward), done)
        self._tail = torch.where(torch.as_tensor(e.active, device=self._device)[:, None], seen, self._tail)
        self._live = torch.as_tensor(going_on(e), device=self._device)[:, None]

    def end_episode(self) -> None:
        """Go on with the same tasks."""
        self._done += 1
        self._live = torch.ones_like(self._live)
        if self._done == self._episodes - 1:
            self._last = self._memory, self._tail
        elif self._done >= self._episodes:
            self._memory, self._tail = self._last

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(x, dtype=torch.float32, device=self._device)


def learner(variant: Variant, config: Config, seed: int, device: str | torch.device) -> Learner:
    """Start a run."""
    return Learner(variant, config, seed, device)


def agent(variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device = "cpu") -> Agent:
    """Return what was trained, to be evaluated."""
    return Agent(variant, config, weights, seed, device)
