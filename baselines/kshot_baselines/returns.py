"""Returns and advantages of batches of steps, time first: every array is (steps, …)."""

from __future__ import annotations

import torch


def discounted_returns(reward_tp1: torch.Tensor, discount_tp1: torch.Tensor, value_last: torch.Tensor) -> torch.Tensor:
    """Return G_t = r_{t+1} + γ_{t+1} G_{t+1}, with G_T = v_last.

    Args:
        reward_tp1: (T, …), the reward of the step from t to t + 1.
        discount_tp1: (T, …), γ, or 0 where that step ended what is summed over.
        value_last: (…), of where the last step led.

    Returns:
        (T, …).
    """
    returns = torch.empty_like(reward_tp1)
    following = value_last
    for t in reversed(range(len(reward_tp1))):
        following = torch.addcmul(reward_tp1[t], discount_tp1[t], following)
        returns[t] = following
    return returns


def gae(
    reward_tp1: torch.Tensor,
    discount_tp1: torch.Tensor,
    value_t: torch.Tensor,
    value_tp1: torch.Tensor,
    continues_tp1: torch.Tensor,
    lambda_: float,
) -> torch.Tensor:
    """Return generalised advantage estimates (Schulman et al. 2016, arXiv 1506.02438, equation 16).

    A_t = δ_t + γ_{t+1} λ A_{t+1} within what a row does in one go, δ_t = r_{t+1} + γ_{t+1} v(s_{t+1}) − v(s_t).

    Args:
        reward_tp1: (T, …).
        discount_tp1: (T, …), γ, or 0 where the step *terminated*: nothing follows. A *truncated* step keeps γ.
        value_t: (T, …), v(s_t).
        value_tp1: (T, …), v(s_{t+1}), of the state that the step led to, before any reset.
        continues_tp1: (T, …), 1 where step t + 1 goes on from s_{t+1}, 0 where the row started anew, for whatever
            reason.
        lambda_: λ.

    Returns:
        (T, …).
    """
    delta = reward_tp1 + discount_tp1 * value_tp1 - value_t
    return discounted_returns(delta, lambda_ * discount_tp1 * continues_tp1, torch.zeros_like(delta[0]))
