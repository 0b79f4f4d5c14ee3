"""Episodes of many tasks at once, each under its own policy, and batches of their steps for policy gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from kshot.torch_env import TorchEnv
from kshot_baselines.baseline import fitted_values
from kshot_baselines.policies import Outputs, Params, Shape, distribution, outputs
from kshot_baselines.returns import discounted_returns, gae


class Episodes(NamedTuple):
    """Episodes of every task, time first; what lies after an episode's end is masked."""

    observation_t: torch.Tensor  # (T, tasks, episodes, k)
    y_t: torch.Tensor  # (T, tasks, episodes, out), of the policy that acted
    log_std: torch.Tensor  # (tasks, action), of the policy that acted
    action_t: torch.Tensor  # (T, tasks, episodes, …), as the policy drew it
    reward_tp1: torch.Tensor  # (T, tasks, episodes), 0 after the end
    mask_t: torch.Tensor  # (T, tasks, episodes), 1 where the step was taken in the episode, 0 after its end
    continues_tp1: torch.Tensor  # (T, tasks, episodes), 1 where the episode went on after the step
    noise: torch.Tensor | None = None  # (tasks, episodes, latent), of which the policy's latent was made, if it has one


class Batch(NamedTuple):
    """Steps of episodes, those of a task in a row: a task's episodes one after the other, each T steps long."""

    observation: torch.Tensor  # (tasks, n, k), with the noise of a latent at its end
    action: torch.Tensor  # (tasks, n, …)
    old: Outputs  # of the policy that acted
    advantage: torch.Tensor  # (tasks, n)
    weight: torch.Tensor  # (tasks, n), of the mean over a task's steps: 0 after an episode's end
    episode: int  # T


@torch.no_grad()
def sample(
    env: TorchEnv,
    shape: Shape,
    params: Params,
    episodes: int,
    to_env: Callable[[torch.Tensor], torch.Tensor],
    seeds: np.ndarray | None = None,
) -> Episodes:
    """Run one episode in every row of an env; nothing leaves the device.

    Args:
        env: its rows are tasks × episodes, those of a task side by side.
        shape: of the policy.
        params: of each task.
        episodes: a task.
        to_env: from the policy's actions to the environment's.
        seeds: of the rows, (rows,) uint64; None for the next episodes of the same streams.
    """
    rows = (env.num_envs // episodes, episodes)
    observation = env.reset(seeds).reshape(*rows, -1)
    going = torch.ones(rows, dtype=torch.bool, device=env.device)
    noise = torch.randn(*rows, shape.latent, device=env.device)
    steps: list[tuple[torch.Tensor, ...]] = []
    for _ in range(env.variant.horizon):
        out = outputs(shape, params, torch.cat([observation, noise], -1))
        action = distribution(shape, out).sample()
        following, reward, terminated, truncated, _ = env.step(to_env(action).flatten(0, 1))
        mask, going = going, going & ~(terminated | truncated).reshape(rows)
        steps.append((observation, out.y, action, reward.reshape(rows) * mask, mask, going))
        observation = following.reshape(*rows, -1)
    observation_t, y_t, action_t, reward, mask, went_on = (torch.stack(x) for x in zip(*steps, strict=True))
    return Episodes(observation_t, y_t, params["log_std"], action_t, reward, mask.to(reward), went_on.to(reward), noise)


def advantages(e: Episodes, discount: float, lambda_: float) -> torch.Tensor:
    """Return each step's advantage, (T, tasks, episodes): mean 0 and deviation 1 over a task's steps, 0 after an end.

    The value is a linear feature baseline, fitted to each task's returns. It is 0 where an episode has ended, also by
    a time limit, as in rllab: the baseline sees the time, and what is scored ends there.
    """
    discount_tp1 = discount * e.continues_tp1
    zero = torch.zeros_like(e.reward_tp1[0])
    value = fitted_values(e.observation_t, discounted_returns(e.reward_tp1, discount_tp1, zero), e.mask_t)
    value_tp1 = torch.cat([value[1:], zero[None]])
    found = gae(e.reward_tp1, discount_tp1, value, value_tp1, e.continues_tp1, lambda_) * e.mask_t
    count = e.mask_t.sum((0, 2), keepdim=True)
    centred = (found - found.sum((0, 2), keepdim=True) / count) * e.mask_t
    return centred / ((centred.square().sum((0, 2), keepdim=True) / count).sqrt() + 1e-8)


def batch(e: Episodes, discount: float, lambda_: float) -> Batch:
    """Return the steps of episodes with their advantages."""

    def by_task(x: torch.Tensor) -> torch.Tensor:
        return x.movedim(0, 2).flatten(1, 2)

    mask, given = by_task(e.mask_t), e.observation_t
    if e.noise is not None:
        given = torch.cat([given, e.noise.expand(len(given), *e.noise.shape)], -1)
    return Batch(
        by_task(given),
        by_task(e.action_t),
        Outputs(by_task(e.y_t), e.log_std),
        by_task(advantages(e, discount, lambda_)),
        mask / mask.sum(1, keepdim=True),
        len(e.reward_tp1),
    )


def of_tasks(e: Episodes, some: slice) -> Episodes:
    """Return the episodes of some tasks."""
    tasks_first: dict[str, Any] = {"log_std": e.log_std[some], "noise": None if e.noise is None else e.noise[some]}
    return e._replace(**{name: x[:, some] for name, x in e._asdict().items() if name not in tasks_first}, **tasks_first)


def first_episodes(b: Batch, fraction: float) -> Batch:
    """Return the first part of each task's episodes, at least one."""
    n = max(1, round(fraction * b.weight.shape[1] / b.episode)) * b.episode
    weight = b.weight[:, :n]
    old = Outputs(b.old.y[:, :n], b.old.log_std)
    weight = weight / weight.sum(1, keepdim=True)
    return Batch(b.observation[:, :n], b.action[:, :n], old, b.advantage[:, :n], weight, b.episode)
