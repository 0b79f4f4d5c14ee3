"""The linear feature baseline (Duan et al. 2016, arXiv 1604.06778), of all tasks at once, by a closed-form solve."""

from __future__ import annotations

import torch

RIDGE = 1e-5  # as rllab's


def features(observation: torch.Tensor) -> torch.Tensor:
    """Return what the value is linear in, float64.

    Args:
        observation: (T, …, k) of the steps of episodes, time first.

    Returns:
        (T, …, 2 k + 4): the observation clipped to ±10, its square, t / 100 to the powers 1, 2 and 3, and 1.
    """
    o = observation.double().clip(-10.0, 10.0)
    t = torch.arange(len(o), dtype=o.dtype, device=o.device) / 100
    clock = torch.stack([t, t**2, t**3, torch.ones_like(t)], -1)
    clock = clock.reshape(len(o), *[1] * (o.ndim - 2), 4).expand(*o.shape[:-1], 4)
    return torch.cat([o, o**2, clock], -1)


def fitted_values(observation: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Fit a baseline to each task's returns, and return its values at the same steps.

    Args:
        observation: (T, tasks, episodes, k).
        returns: (T, tasks, episodes).
        mask: (T, tasks, episodes), 1 where a step counts, 0 where its episode had ended.

    Returns:
        (T, tasks, episodes), of the returns' type; the least squares with a ridge of 1e-5, solved in float64, where
        rllab's remedy for a solution that is not finite (a larger ridge) is not needed.
    """
    phi = features(observation)
    x = phi.movedim(0, 2).flatten(1, 2)  # (tasks, n, f)
    weight, y = (z.movedim(0, 2).flatten(1)[..., None].to(x) for z in (mask, returns))
    weighted = (x * weight).mT
    gram = weighted @ x + RIDGE * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    coefficients: torch.Tensor = torch.linalg.solve(gram, weighted @ y)  # (tasks, f, 1)
    tasks, episodes = observation.shape[1:3]
    values = (x @ coefficients).reshape(tasks, episodes, -1).movedim(-1, 0)
    return values.to(returns)
