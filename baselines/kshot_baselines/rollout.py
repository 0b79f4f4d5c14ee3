"""Sampling: a stream of trials as inputs of a policy, and steps of it collected on the device."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from gymnasium import spaces

from kshot import random
from kshot.family import Variant
from kshot.torch_env import TorchEnv
from kshot_baselines.networks import ActorCritic, action_size


class Rollout(NamedTuple):
    """T steps of N rows, time first."""

    input_t: torch.Tensor  # (T, N, inputs)
    start_t: torch.Tensor  # (T, N) bool, the memory is cleared before this step
    memory_t: torch.Tensor  # (T / L, N, memory), before steps 0, L, 2 L, …
    action_t: torch.Tensor  # (T, N, …)
    log_prob_t: torch.Tensor  # (T, N)
    value_t: torch.Tensor  # (T, N)
    reward_tp1: torch.Tensor  # (T, N)
    follows_tp1: torch.Tensor  # (T, N), 1 where what was led to has a value, 0 where nothing follows
    continues_tp1: torch.Tensor  # (T, N), 1 where the next step goes on from there, 0 where something new began
    value_tp1: torch.Tensor  # (T, N), of what the step led to
    done_tp1: torch.Tensor  # (T, N) bool, an episode ended


class Step(NamedTuple):
    """What a step of a stream gave, (N,) each."""

    reward: torch.Tensor
    done: torch.Tensor  # its episode ended
    terminated: torch.Tensor  # and not by a time limit
    final: torch.Tensor | None  # (N, inputs), what it led to, in a step in which some row may have ended


class Stream:
    """Trials without end: each row has a task for K episodes, and then another.

    What a policy sees of a row is its observation and, with `tail`, its previous action, reward and done flag, zeros
    where a trial starts (RL², arXiv 1611.02779, section 2.2); with `sees_task`, the task as well.
    """

    def __init__(self, env: TorchEnv, episodes: int, tail: bool = True, sees_task: bool = False) -> None:
        """Take an env that draws a task every `episodes` episodes."""
        self.env, self._episodes, self._has_tail, self._sees_task = env, episodes, tail, sees_task
        self._done = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)  # episodes of the trial
        self.start = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)  # of a trial
        self.x = torch.empty(0)  # (N, inputs)

    def begin(self, seed: int) -> None:
        """Start trials in all rows, whose seeds are of a run's."""
        observation = self.env.reset(random.row_seeds(seed, self.env.num_envs))
        size = input_size(self.env.variant, tail=self._has_tail) - observation.shape[1]
        self.x = self._shown(observation, observation.new_zeros(self.env.num_envs, size), self._task())

    def step(self, action: torch.Tensor) -> Step:
        """Move all rows."""
        task = [x.clone() for x in self._task()]  # the env may draw new ones
        observation, reward, terminated, truncated, info = self.env.step(action)
        done = terminated | truncated
        shown = tail(self.env.single_action_space, action, reward, done)[:, : None if self._has_tail else 0]
        final = self._shown(info["final_obs"], shown, task) if "final_obs" in info else None
        self._done += done
        self.start = self._done == self._episodes
        self._done = torch.where(self.start, 0, self._done)
        self.x = self._shown(observation, shown * ~self.start[:, None], self._task())
        return Step(reward, done, terminated, final)

    def _task(self) -> list[torch.Tensor]:
        """Return the fields of the rows' tasks that are shown."""
        return list(self.env.task) if self._sees_task else []

    def _shown(self, observation: torch.Tensor, tail: torch.Tensor, task: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([observation, tail, *(x.flatten(1) if x.ndim > 1 else x[:, None] for x in task)], -1)

    def get_state(self) -> dict[str, Any]:
        """Return all that the stream's future depends on."""
        return {"env": self.env.get_state(), "done": self._done, "start": self.start, "x": self.x}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.env.set_state(state["env"])
        self._done, self.start, self.x = (state[k].to(self.env.device) for k in ("done", "start", "x"))


def input_size(variant: Variant, tail: bool = True, sees_task: bool = False) -> int:
    """Return how many numbers a policy sees of a row."""
    observation, task = variant.observation_space.shape[0], sum(math.prod(law.shape) for law in variant.train.values())
    return int(observation) + (action_size(variant.action_space) + 2) * tail + task * sees_task


def tail(space: spaces.Space[Any], action: torch.Tensor, reward: torch.Tensor, done: torch.Tensor) -> torch.Tensor:
    """Return previous action (one-hot where discrete), reward and done as a policy sees them, (rows, size)."""
    if isinstance(space, spaces.Discrete):
        shown = torch.nn.functional.one_hot(action, int(space.n)).to(reward)
    else:
        assert isinstance(space, spaces.Box)
        low, high = (torch.as_tensor(bound, device=action.device) for bound in (space.low, space.high))
        shown = action.clip(low, high)
    return torch.cat([shown, reward[:, None], done[:, None].to(reward)], -1)


@torch.no_grad()
def collect(
    stream: Stream, model: ActorCritic, memory: torch.Tensor, steps: int, length: int = 0, over_trial: bool = False
) -> tuple[Rollout, torch.Tensor]:
    """Sample T steps of all rows; nothing leaves the device.

    Args:
        stream: of trials.
        model: the policy.
        memory: (N, memory), of the rows.
        steps: T.
        length: L, of the sequences that will be propagated back through; 0 for T.
        over_trial: value is that of the whole trial: what follows an inner episode is the next one, and nothing follows
            the last, also where a time limit ended it. Otherwise value is that of an episode, and a time limit is not
            part of the problem.

    Returns:
        The rollout, and the memory after it.

    Raises:
        ValueError: where T is not a multiple of L.
    """
    length = length or steps
    if steps % length:
        raise ValueError(f"a rollout of {steps} steps cannot be cut into sequences of {length}; take a divisor")
    taken: list[tuple[torch.Tensor, ...]] = []
    memories, led_to = [], list[torch.Tensor | None]()
    for t in range(steps):
        if t % length == 0:
            memories.append(memory)
        x, start = stream.x, stream.start
        out, memory = model.step(x, memory * ~start[:, None])
        action = out.policy.sample()
        step = stream.step(action)
        log_prob = out.policy.log_prob(action)
        taken.append((x, start, action, log_prob, out.value, step.reward, step.done, step.terminated, stream.start))
        led_to.append(None if over_trial or step.final is None else model.step(step.final, memory)[0].value)
    x, start, action, log_prob, value, reward, done, terminated, new = map(torch.stack, zip(*taken, strict=True))
    last = model.step(stream.x, memory * ~stream.start[:, None])[0].value
    following = torch.cat([value[1:], last[None]])
    for t, v in enumerate(led_to):
        if v is not None:
            following[t] = torch.where(done[t], v, following[t])
    rollout = Rollout(
        input_t=x,
        start_t=start,
        memory_t=torch.stack(memories),
        action_t=action,
        log_prob_t=log_prob,
        value_t=model.values.restore(value),
        reward_tp1=reward,
        follows_tp1=(~(new if over_trial else terminated)).to(reward),
        continues_tp1=(~(new if over_trial else done)).to(reward),
        value_tp1=model.values.restore(following),
        done_tp1=done,
    )
    return rollout, memory


def mean_return(rollout: Rollout, variant: Variant) -> torch.Tensor:
    """Return the mean return of the episodes, or trials where the variant's score is a trial's, that ended."""
    episodes = rollout.reward_tp1.sum() / rollout.done_tp1.sum().clamp(min=1)
    return episodes * (variant.trial if variant.scored_by_trial else 1)


def folded(x: torch.Tensor, length: int) -> torch.Tensor:
    """Return (T, N, …) as sequences of L steps, (L, T / L · N, …); those of a row stand N apart."""
    return x.reshape(-1, length, *x.shape[1:]).transpose(0, 1).flatten(1, 2)
