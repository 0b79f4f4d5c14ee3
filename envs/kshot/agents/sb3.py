"""Agents made of Stable-Baselines3 models: as they are, with recurrent memory, fine-tuned on each task, or as a file.

A model that was trained on `kshot.sb3.as_sb3_vecenv` or on `gym.make(id)` fits as it is.
"""

from __future__ import annotations

import copy
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from kshot.agents import Experience, Memoryless
from kshot.agents.policy import (
    Activation,
    Header,
    Output,
    PolicyAgent,
    PolicyError,
    PolicyFile,
    decode,
    encode,
    save_policy,
)
from kshot.agents.torch import Draws, digest, going_on
from kshot.family import Variant
from kshot.registry import variant as find_variant
from kshot.wrappers import TrialLayout

_ACTIVATIONS: dict[str, Activation] = {
    "Tanh()": "tanh",
    "ReLU()": "relu",
    "LeakyReLU(negative_slope=0.01)": "leaky_relu",
    "ELU(alpha=1.0)": "elu",
    "SiLU()": "silu",
}
_SUPPORTED = "a policy file holds the MlpPolicy of PPO, A2C, TRPO, SAC, TQC, TD3, DDPG or DQN"
_NOT_SETTINGS = {"num_timesteps", "seed", "verbose", "n_envs", "start_time", "tensorboard_log"}  # attributes of a model


class _Predicts(Memoryless):
    """What agents share that ask a model's `predict`: who it is, and random numbers of its own."""

    def __init__(self, model: BaseAlgorithm, deterministic: bool, seed: int) -> None:
        self._model, self._deterministic = model, deterministic
        self._seed, self._draws = seed, Draws(seed)
        self._space = copy.deepcopy(model.action_space)  # DQN draws from it
        self._space.seed(seed)
        self.name = type(model).__name__
        self.config: dict[str, Any] = {
            "deterministic": deterministic,
            **({} if deterministic else {"seed": seed}),
            **_identity(model),
        }

    def reset(self, n: int) -> None:
        """Draw anew."""
        self._draws.restart()
        self._space.seed(self._seed)

    def _predict(self, observation: np.ndarray, **memory: Any) -> tuple[np.ndarray, Any]:
        """Return what the model does, (rows, …), and its state."""
        model, theirs = self._model, self._model.action_space
        with self._draws.own(model.device):
            model.action_space = self._space
            try:
                action, state = model.predict(observation, deterministic=self._deterministic, **memory)
            finally:
                model.action_space = theirs
        return np.asarray(action), state


class ZeroShotAgent(_Predicts):
    """A trained model of any algorithm that does not adapt."""

    adapts = False

    def __init__(self, model: BaseAlgorithm, deterministic: bool = True, seed: int = 0) -> None:
        """Take a model, whether its actions are deterministic, and the seed of those that are drawn."""
        super().__init__(model, deterministic, seed)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Predict for all rows."""
        return self._predict(observation)[0]


class RecurrentAgent(_Predicts):
    """A recurrent model (sb3-contrib's RecurrentPPO): its state lasts as long as the task.

    A row whose episode has ended keeps its state until the next begins, however long it waits for the others.
    SB3's own evaluation clears the state at the end of every episode, and with it what the model has found out
    about the task.
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        deterministic: bool = True,
        trial: bool = False,
        clear_every_episode: bool = False,
        seed: int = 0,
    ) -> None:
        """Take a model.

        Args:
            model: of a recurrent algorithm.
            deterministic: whether its actions are.
            trial: it was trained under `kshot.wrappers.Trial`: it sees the previous action, reward and done too.
            clear_every_episode: make SB3's mistake on purpose, to measure it.
            seed: of its draws, which start anew with every `reset`.
        """
        super().__init__(model, deterministic, seed)
        self._clear = clear_every_episode
        self.config |= {"trial": trial, **({"clear_every_episode": True} if clear_every_episode else {})}
        self._layout: TrialLayout | None = None
        if trial:
            assert isinstance(model.observation_space, spaces.Box)
            tail = spaces.flatdim(model.action_space) + 2  # action, reward, done
            seen = spaces.Box(-np.inf, np.inf, (model.observation_space.shape[0] - tail,))
            self._layout = TrialLayout(seen, model.action_space)
        self.reset(0)

    def reset(self, n: int) -> None:
        """Clear the state."""
        super().reset(n)
        self._state: tuple[np.ndarray, ...] | None = None  # (layers, rows, hidden) each
        self._start, self._live = np.ones(n, bool), np.ones(n, bool)
        self._tail = np.zeros((n, 0)) if self._layout is None else self._layout.zeros(n)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Predict for all rows and carry the state on."""
        seen = observation if self._layout is None else self._layout.join(observation, self._tail)
        action, state = self._predict(seen, state=self._state, episode_start=self._start)
        if self._state is not None and not self._live.all():
            state = tuple(np.where(self._live[:, None], new, old) for new, old in zip(state, self._state, strict=True))
        self._state = state
        self._start = np.zeros(len(observation), bool)
        return action

    def observe(self, experience: Experience) -> None:
        """Keep what a trial shows of the last step; rows that wait for others keep theirs."""
        self._live = going_on(experience)
        if self._layout is not None:
            done = experience.terminated | experience.truncated
            tail = self._layout.tail(experience.action, experience.reward, done)
            self._tail = np.where(experience.active[:, None], tail, self._tail)

    def end_episode(self) -> None:
        """Keep the state, unless told to clear it."""
        self._start[:] = self._clear
        self._live[:] = True


class FineTunedAgent:
    """A copy of a model for each task, trained on by its own algorithm on what the protocol gives it.

    Each copy learns in a thread of its own from a `VecEnv` of one environment that hands its actions to the
    protocol and waits; one thread runs at a time, each with random numbers of its own, so a run is reproducible. The
    actions are those that the algorithm explores with. A copy whose episode has ended is asked for nothing until the
    next begins. A budget within which a copy has not updated once is no score: `first_update` says after how many
    episodes all had, and counts an update that comes before the next episode's first action.
    """

    def __init__(
        self,
        load: Callable[[VecEnv], BaseAlgorithm],
        variant: Variant,
        name: str = "fine-tuned",
        seed: int = 0,
    ) -> None:
        """Take how to make a copy.

        Args:
            load: makes a copy of the model on an environment, as `lambda env: PPO.load(path, env=env)`; it is called
                once now, to record what it makes, and once a task.
            variant: what it acts in.
            name: that a result records.
            seed: copy i draws by seed + i; one that `load` makes untrained has the same weights in all copies.
        """
        self._load, self._variant, self.name, self._seed = load, variant, name, seed
        self._learners: list[_Learner] = []
        self._live = np.ones(0, bool)
        self._actions: list[np.ndarray] = []  # the last of each copy
        self._episodes, self._begins = 0, True
        self.first_update: int | None = None
        self.config: dict[str, Any] = _Learner(load, variant, seed, 0).told()

    def reset(self, n: int) -> None:
        """Start from the model again, a copy a task."""
        self.close()
        self._learners = [_Learner(self._load, self._variant, self._seed, i) for i in range(n)]
        self._live, self._actions = np.ones(n, bool), [np.zeros(0)] * n
        self._episodes, self._begins, self.first_update = 0, True, None

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Let each copy take its next action; those that wait repeat their last, which does nothing."""
        for i in np.flatnonzero(self._live):
            self._actions[i] = self._learners[i].act(observation[i])
        if self._begins:  # with the observation that begins an episode, a copy learns how the last one ended
            self._notice_updates()
        self._begins = False
        return np.stack(self._actions)

    def observe(self, experience: Experience) -> None:
        """Tell each copy what its action did."""
        for i, learner in enumerate(self._learners):
            if experience.active[i]:
                learner.observe(experience, i)
        self._live = going_on(experience)

    def end_episode(self) -> None:
        """Count."""
        self._episodes += 1
        self._live[:], self._begins = True, True
        self._notice_updates()

    def _notice_updates(self) -> None:
        """Write down after how many episodes all copies had been updated."""
        if self.first_update is None and all(learner.updated() for learner in self._learners):
            self.first_update = self._episodes

    def close(self) -> None:
        """Stop the threads and let go of the copies; `reset` makes new ones."""
        for learner in self._learners:
            learner.stop()
        self._learners = []


class _Stop(BaseException):
    """Ends a learner's thread."""


class _Learner:
    """One copy of the model, learning in a thread that runs only while the protocol waits for its action."""

    def __init__(self, load: Callable[[VecEnv], BaseAlgorithm], variant: Variant, seed: int, i: int) -> None:
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._outbox: queue.Queue[Any] = queue.Queue()
        self._pending: tuple[float, bool, bool, np.ndarray] | None = None
        # Global generators are the process's: they are the learner's own as long as its thread runs.
        self._seed, self._draws = seed, Draws(seed)
        with self._draws.own(torch.device("cpu")):  # weights are initialised there
            self._model = load(_Handover(variant, self._inbox, self._outbox))
        with self._draws.own(self._model.device):
            self._model.set_random_seed(seed + i)
        self._updates = self._count()
        self._thread = threading.Thread(target=self._learn, daemon=True)  # started where it is waited for

    def _learn(self) -> None:
        try:
            self._model.learn(2**60, reset_num_timesteps=False)
        except _Stop:
            pass
        except BaseException as error:  # shown where the protocol waits
            self._outbox.put(error)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Hand over the last step's outcome and this observation; wait for the next action."""
        with self._draws.own(self._model.device):
            self._inbox.put((observation, self._pending))
            if self._thread.ident is None:
                self._thread.start()
            answer = self._outbox.get()
        if isinstance(answer, BaseException):
            raise answer
        return np.asarray(answer)

    def observe(self, experience: Experience, i: int) -> None:
        """Remember the outcome until the next observation is there: after an end, that of the next episode."""
        flags = bool(experience.terminated[i]), bool(experience.truncated[i])
        self._pending = (float(experience.reward[i]), *flags, experience.next_observation[i])

    def updated(self) -> bool:
        """Tell whether the algorithm has updated the model."""
        return self._count() > self._updates

    def _count(self) -> int:
        return int(getattr(self._model, "_n_updates", 0))

    def told(self) -> dict[str, Any]:
        """Return what a result records of the model."""
        model = self._model
        plain = {k: v for k, v in vars(model).items() if not k.startswith("_") and k not in _NOT_SETTINGS}
        settings = {k: v for k, v in sorted(plain.items()) if _is_plain(v)}
        return {"algorithm": type(model).__name__, "seed": self._seed, **_identity(model), "hyperparameters": settings}

    def stop(self) -> None:
        """End the thread."""
        self._inbox.put(_Stop())
        if self._thread.ident is not None:
            self._thread.join(timeout=10)


def _identity(model: BaseAlgorithm) -> dict[str, Any]:
    """Return what tells a model from others, as it is now."""
    return {"training_steps": int(model.num_timesteps), "checkpoint_sha256": digest(model.policy)}


def _is_plain(x: Any) -> bool:
    """Tell whether this is a number or a text that JSON can hold."""
    return isinstance(x, (bool, int, str)) or (isinstance(x, float) and math.isfinite(x))


class _Handover(VecEnv):
    """One environment whose steps happen elsewhere."""

    def __init__(self, variant: Variant, inbox: queue.Queue[Any], outbox: queue.Queue[Any]) -> None:
        # The copies draw random actions from their spaces: each has its own.
        super().__init__(1, variant.observation_space, copy.deepcopy(variant.action_space))
        self._inbox, self._outbox = inbox, outbox

    def _receive(self) -> tuple[np.ndarray, tuple[float, bool, bool, np.ndarray] | None]:
        message = self._inbox.get()
        if isinstance(message, _Stop):
            raise message
        return message  # type: ignore[no-any-return]

    def reset(self) -> np.ndarray:
        return self._receive()[0][None]

    def step_async(self, actions: np.ndarray) -> None:
        self._outbox.put(actions[0])

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observation, outcome = self._receive()
        assert outcome is not None
        reward, terminated, truncated, last = outcome
        done = terminated or truncated
        info = {"terminal_observation": last, "TimeLimit.truncated": truncated and not terminated} if done else {}
        return observation[None], np.array([reward], np.float32), np.array([done]), [info]

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> Sequence[bool]:  # type: ignore[override]
        return [False]


def export_policy(
    model: BaseAlgorithm,
    path: str | os.PathLike[str],
    variant_id: str,
    *,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    sees_task: bool = False,
    normalize: VecNormalize | Literal[False] | None = None,
) -> None:
    """Write a model's deterministic actions as a policy file, which anybody can run without pickle or torch.

    Args:
        model: with an `MlpPolicy`, of PPO, A2C, TRPO, SAC, TQC, TD3, DDPG or DQN.
        path: of the file, ending in .safetensors.
        variant_id: of what it was trained on.
        name: of the agent; by default the algorithm's.
        config: settings that tell it from others, as JSON; a result records them.
        sees_task: it was trained under `TaskInObservation` or its twin for the batch.
        normalize: the `VecNormalize` it was trained under, or False for none; by default that of the model's env.

    Raises:
        PolicyError: where the policy is no MLP that a file can hold, or does not fit the variant; where the model
            has no env that tells whether its observations are normalised; where the file would act otherwise.
    """
    v = find_variant(variant_id)
    modules, output = _network(model)
    layers, activation = _chained(modules)
    statistics = _normalisation(model) if normalize is None else normalize or None
    norm = None if statistics is None or not statistics.norm_obs else statistics
    tensors = {f"{i}.{k}": x for i, layer in enumerate(layers) for k, x in _weights(layer).items()}
    if norm is not None:
        assert not isinstance(norm.obs_rms, dict)  # of Dict observations, which no MlpPolicy takes
        tensors |= {
            "observation.mean": norm.obs_rms.mean,
            "observation.scale": np.sqrt(norm.obs_rms.var + norm.epsilon),
        }
    header = Header(
        name=name or type(model).__name__,
        variant=v.id,
        activation=activation,
        output=output,
        clip=None if norm is None else float(norm.clip_obs),
        sees_task=sees_task,
        training_steps=int(model.num_timesteps),
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        config=dict(config or {}),
    )
    policy = decode(encode(header, tensors), Path(path))
    PolicyAgent(policy, v)  # fits
    _must_act_alike(policy, model, v, norm)
    save_policy(path, header, tensors)


def _network(model: BaseAlgorithm) -> tuple[list[nn.Module], Output]:
    """Return the modules from observation to action, and what comes after them."""
    policy: Any = model.policy
    who = f"a {type(model).__name__} with {type(policy).__name__}"
    modules: list[nn.Module]
    output: Output = "tanh"
    if hasattr(policy, "lstm_actor"):
        raise PolicyError(f"{who} is recurrent: it has a memory, and {_SUPPORTED}")
    if hasattr(policy, "mlp_extractor"):
        modules, extractor = [*policy.mlp_extractor.policy_net, policy.action_net], policy.pi_features_extractor
        if not policy.squash_output:
            output = "logits" if isinstance(model.action_space, spaces.Discrete) else "action"
    elif hasattr(policy, "q_net"):
        modules, extractor, output = [*policy.q_net.q_net], policy.q_net.features_extractor, "logits"
    elif hasattr(policy, "actor"):
        actor, extractor = policy.actor, policy.actor.features_extractor
        modules = [*actor.latent_pi, actor.mu] if hasattr(actor, "latent_pi") else [*actor.mu][:-1]  # all but its tanh
    else:
        raise PolicyError(f"{who} cannot be exported: {_SUPPORTED}")
    if type(extractor) is not FlattenExtractor:
        raise PolicyError(f"{who} has a {type(extractor).__name__}, which cannot be exported: {_SUPPORTED}")
    return modules, output


def _chained(modules: Sequence[nn.Module]) -> tuple[list[nn.Linear], Activation]:
    """Return the layers, and the activation after all but the last."""
    linear = [type(m) is nn.Linear for m in modules]
    if len(modules) % 2 == 0 or not all(linear[::2]) or any(linear[1::2]):
        raise PolicyError(
            f"expected Linear layers with an activation between each two, got {[type(m).__name__ for m in modules]}: "
            + _SUPPORTED
        )
    between = {_activation(m) for m in modules[1::2]} or {"tanh"}
    if len(between) > 1:
        raise PolicyError(f"a policy file has one activation for all layers, got {', '.join(sorted(between))}")
    return [layer for layer in modules if isinstance(layer, nn.Linear)], between.pop()


def _activation(module: nn.Module) -> Activation:
    """Return the name of an activation."""
    # As torch writes them, with their settings: an ELU of another alpha is another function.
    name = _ACTIVATIONS.get(str(module).replace(", inplace=True", "").replace("inplace=True", ""))
    if name is None:
        raise PolicyError(f"the activation {module} cannot be exported; a policy file has {', '.join(_ACTIVATIONS)}")
    return name


def _weights(layer: nn.Linear) -> dict[str, np.ndarray]:
    """Return a layer's tensors."""
    weight = layer.weight.detach().cpu().numpy()
    bias = np.zeros(len(weight), np.float32) if layer.bias is None else layer.bias.detach().cpu().numpy()
    return {"weight": weight, "bias": bias}


def _normalisation(model: BaseAlgorithm) -> VecNormalize | None:
    """Return the normalisation of the env that a model has; PolicyError where it has none."""
    if model.get_env() is None:
        raise PolicyError(
            "the model has no env, so whether it was trained on normalised observations cannot be told; give "
            "normalize=, the VecNormalize it was trained under, or normalize=False"
        )
    return model.get_vec_normalize_env()


def _must_act_alike(policy: PolicyFile, model: BaseAlgorithm, variant: Variant, norm: VecNormalize | None) -> None:
    """Raise PolicyError where the file would not do as the model does, as with a policy class that overrides more."""
    space, generator = variant.action_space, np.random.default_rng(0)
    if model.action_space != space:
        raise PolicyError(f"the model's actions are {model.action_space}; those of {variant.id} are {space}")
    x = generator.standard_normal((256, policy.inputs))
    if norm is not None:
        x = policy.tensors["observation.mean"] + x * policy.tensors["observation.scale"]
    x = x.clip(model.observation_space.low, model.observation_space.high)  # type: ignore[attr-defined]  # a Box
    ours = policy.act(x, space, generator)
    theirs = model.predict(x if norm is None else np.asarray(norm.normalize_obs(x)), deterministic=True)[0]
    # float32 against float64: two logits may be so close that the larger one differs.
    alike = (ours == theirs).mean() > 0.98 if isinstance(space, spaces.Discrete) else np.allclose(ours, theirs, 0, 1e-3)
    if not alike:
        raise PolicyError(f"{type(model.policy).__name__} acts otherwise than its layers do: {_SUPPORTED}")
