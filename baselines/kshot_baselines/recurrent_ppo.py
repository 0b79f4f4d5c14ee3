"""RL² by another's hand: sb3-contrib's RecurrentPPO on trials, a reference for learning and speed.

What the policy sees is what RL² sees (`kshot.wrappers.Trial`), a trial is one episode to it, and at test its memory
lasts as long as the task. Everything else is the library's: an LSTM each for policy and value, PPO on padded sequences.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from kshot.agents.sb3 import RecurrentAgent
from kshot.family import Variant
from kshot.sb3 import as_sb3_vecenv
from kshot.wrappers import VectorTrial
from kshot_baselines.learner import Weights, optimiser_state, random_state, set_optimiser_state, set_random_state

try:
    from sb3_contrib import RecurrentPPO
    from sb3_contrib.common.recurrent.type_aliases import RNNStates
except ImportError as error:
    raise ImportError("recurrent-ppo is sb3-contrib's: pip install 'sb3-contrib>=2.9,<3'") from error

# From RL²'s names of metrics to the library's, and their signs.
_METRICS = {"loss": ("loss", 1), "value_loss": ("value_loss", 1), "entropy": ("entropy_loss", -1),
            "kl": ("approx_kl", 1), "clipped": ("clip_fraction", 1)}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Settings; the library's defaults but where a comment says otherwise."""

    steps: int = 1_000_000  # of the environment
    rows: int = 64  # trials at a time; theirs: 1
    length: int = 0  # steps of each row in a rollout; 0: as many as a trial has; theirs: 128
    memory: int = 64  # size of each LSTM, as of RL²'s GRU; theirs: 256
    hidden: tuple[int, ...] = (64, 64)  # tanh, after the LSTM, for policy and value each
    discount: float = 0.99
    gae_lambda: float = 0.95
    learning_rate: float = 1e-3  # theirs, with their batch: 3e-4
    epochs: int = 10
    batch: int = 1024  # steps of a minibatch; theirs: 128
    clip: float = 0.2
    value_cost: float = 0.5
    entropy_cost: float = 0.0
    max_grad_norm: float = 0.5
    deterministic: bool = True  # at test: the mean, or the most likely action, as the library evaluates


class Learner:
    """A run of RecurrentPPO; it draws from the global generators of torch and NumPy."""

    def __init__(self, variant: Variant, config: Config, seed: int, device: str | torch.device) -> None:
        """Build model and rows; seeds the global generators."""
        torch.manual_seed(seed)
        np.random.seed(seed)
        self.steps, self._variant, self._trials = 0, variant, trials_of(variant, config.rows)
        self.model = model_of(self._trials, variant, config, device)
        self.model.env.seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))  # row i: this + i
        # As `learn` begins, so that there is a state before it.
        self.model._last_obs = self.model.env.reset()
        self.model._last_episode_starts = np.ones(config.rows, bool)

    def iterate(self) -> dict[str, float]:
        """Let the library sample one rollout and improve on it."""
        model, sampled = self.model, _Sampled()
        model.learn(model.n_steps * model.n_envs, sampled, log_interval=None, reset_num_timesteps=False)
        self.steps, logged = int(model.num_timesteps), model.logger.name_to_value
        metrics = {name: sign * float(logged[f"train/{theirs}"]) for name, (theirs, sign) in _METRICS.items()}
        trial = sampled.reward / max(1, sampled.trials)
        return {**metrics, "return": trial if self._variant.scored_by_trial else trial / self._variant.trial}

    def weights(self) -> Weights:
        """Return the policy's."""
        return {k: x.detach().cpu().clone() for k, x in self.model.policy.state_dict().items()}

    def get_state(self) -> dict[str, Any]:
        """Return policy, optimiser, memories, rows and random numbers."""
        model, memory = self.model, self.model._last_lstm_states
        return {
            "steps": self.steps,
            "policy": model.policy.state_dict(),
            "optimiser": optimiser_state(model.policy.optimizer),
            "memory": {"policy": memory.pi, "value": memory.vf},
            "env": self._trials.get_state(),
            "observation": model._last_obs,
            "start": model._last_episode_starts,
            "random": random_state(model.device),
            "numpy": np.random.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        model = self.model
        self.steps = model.num_timesteps = state["steps"]
        model.policy.load_state_dict(state["policy"])
        set_optimiser_state(model.policy.optimizer, state["optimiser"])
        memory = {name: tuple(x.to(model.device) for x in pair) for name, pair in state["memory"].items()}
        model._last_lstm_states = RNNStates(memory["policy"], memory["value"])
        self._trials.set_state(state["env"])
        model._last_obs, model._last_episode_starts = state["observation"], state["start"]
        set_random_state(state["random"], model.device)
        np.random.set_state(state["numpy"])


class _Sampled(BaseCallback):
    """Sums what a rollout gave."""

    reward, trials = 0.0, 0

    def _on_step(self) -> bool:
        """Add a step of all rows, before the library adds values to rewards."""
        self.reward += float(self.locals["rewards"].sum(dtype=np.float64))
        self.trials += int(self.locals["dones"].sum())
        return True


def trials_of(variant: Variant, rows: int) -> VectorTrial:
    """Return rows of trials of a variant."""
    return VectorTrial(gym.make_vec(variant.id, rows, autoreset_mode="same_step"))


def model_of(trials: VectorTrial, variant: Variant, c: Config, device: str | torch.device) -> Any:
    """Return the library's model on trials of a variant, before training; Any: its stubs know no memory."""
    model = RecurrentPPO(
        "MlpLstmPolicy",
        as_sb3_vecenv(trials),
        learning_rate=c.learning_rate,
        n_steps=c.length or variant.horizon * variant.trial,
        batch_size=c.batch,
        n_epochs=c.epochs,
        gamma=c.discount,
        gae_lambda=c.gae_lambda,
        clip_range=c.clip,
        ent_coef=c.entropy_cost,
        vf_coef=c.value_cost,
        max_grad_norm=c.max_grad_norm,
        policy_kwargs={"lstm_hidden_size": c.memory, "net_arch": list(c.hidden)},
        device=device,
    )
    model.set_logger(Logger(None, []))
    return model


def learner(variant: Variant, config: Config, seed: int, device: str | torch.device) -> Learner:
    """Start a run."""
    return Learner(variant, config, seed, device)


def agent(
    variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device = "cpu"
) -> RecurrentAgent:
    """Return what was trained, to be evaluated."""
    model = model_of(trials_of(variant, 1), variant, config, device)
    model.policy.load_state_dict(weights)
    found = RecurrentAgent(model, config.deterministic, trial=True, seed=seed)
    found.name, found.config = "recurrent-ppo", asdict(config)
    return found
