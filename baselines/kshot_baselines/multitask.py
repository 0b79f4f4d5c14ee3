"""Multi-task PPO: one policy for all training tasks, which does not adapt. With the task in sight, the oracle.

Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), a task an episode. What every method that adapts
should be above; and, where the policy sees the task, what it should come near.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from kshot.agents import Memoryless
from kshot.agents.torch import Draws
from kshot.family import Variant
from kshot.torch_env import TorchEnv
from kshot_baselines import ppo
from kshot_baselines.learner import Weights, optimiser_state, random_state, set_optimiser_state, set_random_state
from kshot_baselines.networks import ActorCritic, Mlp
from kshot_baselines.rollout import Stream, collect, input_size, mean_return


@dataclass(frozen=True)
class Config(ppo.Settings):
    """Settings; rl-zoo's of PPO on MuJoCo, with more rows and larger networks."""

    steps: int = 8_000_000  # of the environment
    rows: int = 64  # one rollout is as many steps of each as an episode has
    hidden: tuple[int, ...] = (128, 128)  # tanh, for policy and value each
    discount: float = 0.99
    gae_lambda: float = 0.95
    value_lambda: float | None = None
    learning_rate: float = 1e-3
    anneal: bool = True  # the learning rate falls to 0 in a straight line
    epochs: int = 10
    minibatches: int = 8
    clip: float = 0.2
    value_cost: float = 0.5
    entropy_cost: float = 0.0
    max_grad_norm: float = 0.5
    log_std: float = -0.5  # at the start
    deterministic: bool = True  # at test: the mean, or the most likely action


class Learner:
    """A run of PPO on tasks of the training law, or on given ones."""

    def __init__(
        self,
        variant: Variant,
        config: Config,
        seed: int,
        device: str | torch.device,
        tasks: Any = None,
        sees_task: bool = False,
    ) -> None:
        """Build networks and rows.

        Args:
            variant: whose tasks.
            config: the settings.
            seed: of the run.
            device: of networks and rows.
            tasks: to draw from, in place of the training law.
            sees_task: the policy's input is the observation and then the task.
        """
        torch.manual_seed(seed)
        self.config, self.steps, self._variant = config, 0, variant
        env = TorchEnv(variant.id, config.rows, device, tasks=tasks, episodes_per_task=1)
        self._stream = Stream(env, 1, tail=False, sees_task=sees_task)
        self._stream.begin(seed)
        self.net = network(variant, config, sees_task).to(device)
        self._memory = self.net.initial_memory(config.rows)
        self._optimiser = torch.optim.Adam(self.net.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)

    def iterate(self) -> dict[str, float]:
        """Sample as many steps of each row as an episode has, and improve on them."""
        c, v, net = self.config, self._variant, self.net
        ppo.anneal(self._optimiser, c, self.steps)
        rollout, _ = collect(self._stream, net, self._memory, v.horizon, length=1)
        self.steps += v.horizon * c.rows
        metrics = ppo.update(net, self._optimiser, rollout, c)
        net.inputs.update(rollout.input_t)
        metrics["return"] = mean_return(rollout, v)
        return {k: float(x) for k, x in metrics.items()}

    def weights(self) -> Weights:
        """Return the networks'."""
        return {k: x.detach().cpu().clone() for k, x in self.net.state_dict().items()}

    def get_state(self) -> dict[str, Any]:
        """Return networks, optimiser, rows and random numbers."""
        return {
            "steps": self.steps,
            "net": self.net.state_dict(),
            "optimiser": optimiser_state(self._optimiser),
            "stream": self._stream.get_state(),
            "random": random_state(self._memory.device),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps = state["steps"]
        self.net.load_state_dict(state["net"])
        set_optimiser_state(self._optimiser, state["optimiser"])
        self._stream.set_state(state["stream"])
        set_random_state(state["random"], self._memory.device)


class Agent(Memoryless):
    """The policy as it was trained."""

    name = "multitask"
    adapts = False

    def __init__(
        self, variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device
    ) -> None:
        """Take what was trained."""
        self.config: dict[str, Any] = asdict(config)
        self._net = network(variant, config).to(device).eval()
        self._net.load_state_dict(weights)
        self._deterministic, self._device, self._draws = config.deterministic, torch.device(device), Draws(seed)

    def reset(self, n: int) -> None:
        """Begin the stream of draws anew."""
        self._draws.restart()

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the most likely actions, or draw."""
        x = torch.as_tensor(observation, dtype=torch.float32, device=self._device)
        policy = self._net.step(x, self._net.initial_memory(len(x)))[0].policy
        with self._draws.own(self._device):
            action = policy.mode if self._deterministic else policy.sample()
        found: np.ndarray = action.cpu().numpy()
        return found


def network(variant: Variant, c: Config, sees_task: bool = False) -> ActorCritic:
    """Return the networks before training."""
    size = input_size(variant, tail=False, sees_task=sees_task)
    return ActorCritic(size, variant.action_space, [Mlp(size, c.hidden) for _ in range(2)], c.log_std)


def learner(variant: Variant, config: Config, seed: int, device: str | torch.device) -> Learner:
    """Start a run."""
    return Learner(variant, config, seed, device)


def agent(variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device = "cpu") -> Agent:
    """Return what was trained, to be evaluated."""
    return Agent(variant, config, weights, seed, device)
