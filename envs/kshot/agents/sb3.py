"""Agents made of Stable-Baselines3 models: as they are, with recurrent memory, or fine-tuned on each task.

A model that was trained on `kshot.sb3.as_sb3_vecenv` or on `gym.make(id)` fits as it is.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from kshot.agents import Experience, Memoryless
from kshot.family import Variant


class ZeroShotAgent(Memoryless):
    """A trained model of any algorithm that does not adapt."""

    def __init__(self, model: BaseAlgorithm, deterministic: bool = True) -> None:
        """Take a model; its actions are deterministic unless told otherwise."""
        self._model, self._deterministic = model, deterministic
        self.name = type(model).__name__
        self.config = {"deterministic": deterministic, "training_steps": int(model.num_timesteps)}

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Predict for all rows."""
        return np.asarray(self._model.predict(observation, deterministic=self._deterministic)[0])


class RecurrentAgent(Memoryless):
    """A recurrent model (sb3-contrib's RecurrentPPO): its state lasts as long as the task.

    SB3's own evaluation clears the state at the end of every episode, and with it what the model has found out
    about the task.
    """

    def __init__(self, model: BaseAlgorithm, deterministic: bool = True, clear_every_episode: bool = False) -> None:
        """Take a model; `clear_every_episode` makes SB3's mistake on purpose, to measure it."""
        self._model, self._deterministic, self._clear = model, deterministic, clear_every_episode
        self.name = type(model).__name__
        self.config = {"deterministic": deterministic, "training_steps": int(model.num_timesteps)}
        self._state: Any = None
        self._start = np.ones(0, bool)

    def reset(self, n: int) -> None:
        """Clear the state."""
        self._state, self._start = None, np.ones(n, bool)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Predict for all rows and carry the state on."""
        action, self._state = self._model.predict(
            observation, state=self._state, episode_start=self._start, deterministic=self._deterministic
        )
        self._start = np.zeros(len(observation), bool)
        return np.asarray(action)

    def end_episode(self) -> None:
        """Keep the state, unless told to clear it."""
        self._start[:] = self._clear


class FineTunedAgent:
    """A copy of a model for each task, trained on by its own algorithm on what the protocol gives it.

    Each copy learns in a thread of its own from a `VecEnv` of one environment that hands its actions to the
    protocol and waits; one thread runs at a time, so a run is reproducible. The actions are those that the
    algorithm explores with. A budget within which a copy has not updated once is no score: `first_update` says
    after how many episodes all had.
    """

    def __init__(self, load: Callable[[VecEnv], BaseAlgorithm], variant: Variant, name: str = "fine-tuned") -> None:
        """Take how to make a copy of the model on an environment, as `lambda env: PPO.load(path, env=env)`."""
        self._load, self._variant, self.name = load, variant, name
        self._learners: list[_Learner] = []
        self._episodes = 0
        self.first_update: int | None = None
        self.config: dict[str, Any] = {}

    def reset(self, n: int) -> None:
        """Start from the model again, a copy a task."""
        self.close()
        self._learners = [_Learner(self._load, self._variant) for _ in range(n)]
        self._episodes, self.first_update = 0, None

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Let each copy take its next action."""
        return np.stack([learner.act(o) for learner, o in zip(self._learners, observation, strict=True)])

    def observe(self, experience: Experience) -> None:
        """Tell each copy what its action did."""
        for i, learner in enumerate(self._learners):
            if experience.active[i]:
                learner.observe(experience, i)

    def end_episode(self) -> None:
        """Count."""
        self._episodes += 1
        if self.first_update is None and all(learner.updated() for learner in self._learners):
            self.first_update = self._episodes

    def close(self) -> None:
        """Stop the threads."""
        for learner in self._learners:
            learner.stop()
        self._learners = []


class _Stop(BaseException):
    """Ends a learner's thread."""


class _Learner:
    """One copy of the model, learning in a thread that runs only while the protocol waits for its action."""

    def __init__(self, load: Callable[[VecEnv], BaseAlgorithm], variant: Variant) -> None:
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._outbox: queue.Queue[Any] = queue.Queue()
        self._pending: tuple[float, bool, bool, np.ndarray] | None = None
        self._model = load(_Handover(variant, self._inbox, self._outbox))
        self._updates = self._count()
        self._thread = threading.Thread(target=self._learn, daemon=True)
        self._thread.start()

    def _learn(self) -> None:
        try:
            self._model.learn(2**60, reset_num_timesteps=False)
        except _Stop:
            pass
        except BaseException as error:  # shown where the protocol waits
            self._outbox.put(error)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Hand over the last step's outcome and this observation; wait for the next action."""
        self._inbox.put((observation, self._pending))
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

    def stop(self) -> None:
        """End the thread."""
        self._inbox.put(_Stop())
        self._thread.join(timeout=10)


class _Handover(VecEnv):
    """One environment whose steps happen elsewhere."""

    def __init__(self, variant: Variant, inbox: queue.Queue[Any], outbox: queue.Queue[Any]) -> None:
        super().__init__(1, variant.observation_space, variant.action_space)
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
