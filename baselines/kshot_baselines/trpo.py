"""Trust region policy optimisation (Schulman et al. 2015, arXiv 1502.05477) on flat vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

Product = Callable[[torch.Tensor], torch.Tensor]


class Found(NamedTuple):
    """Where a line search ended."""

    theta: torch.Tensor  # the old one where no step was accepted
    loss: float
    kl: float
    tries: int  # candidates looked at
    accepted: bool


def conjugate_gradient(
    product: Product, b: torch.Tensor, iterations: int = 10, tolerance: float = 1e-10
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x with A x ≈ b, and A x, for a symmetric positive definite A, given as a function x -> A x.

    Args:
        product: A.
        b: (n,).
        iterations: how often A is multiplied with.
        tolerance: of the squared residual, below which x stays as it is.
    """
    x, residual, direction = torch.zeros_like(b), b, b
    square = b @ b
    for _ in range(iterations):
        image = product(direction)
        going = square > tolerance
        # No branch on the residual, for a device would have to be waited for.
        step = torch.where(going, square / torch.where(going, direction @ image, 1.0), 0.0)
        x = x + step * direction
        residual = residual - step * image
        following = residual @ residual
        direction = residual + torch.where(going, following / torch.where(going, square, 1.0), 0.0) * direction
        square = torch.where(going, following, square)
    return x, b - residual


def natural_step(
    product: Product, gradient: torch.Tensor, max_kl: float, iterations: int = 10, damping: float = 1e-5
) -> torch.Tensor:
    """Return the step along the natural gradient at which the quadratic model of the KL is `max_kl`.

    Args:
        product: with the Fisher information, the Hessian of the KL.
        gradient: (n,), of the loss.
        max_kl: δ.
        iterations: of conjugate gradients.
        damping: added to the Fisher information's diagonal.
    """
    direction, image = conjugate_gradient(lambda x: product(x) + damping * x, gradient, iterations)
    return direction * (2 * max_kl / (direction @ image + 1e-8)).sqrt()


def line_search(
    evaluate: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    theta: torch.Tensor,
    step: torch.Tensor,
    before: float,
    max_kl: float,
    ratio: float = 0.8,
    tries: int = 15,
) -> Found:
    """Return the first of θ − ratioⁱ step, i = 0, 1, …, whose loss is less than before and whose KL is allowed.

    Args:
        evaluate: θ -> (loss, KL from the old policy).
        theta: (n,), the old parameters.
        step: (n,), against which to go.
        before: the loss at θ.
        max_kl: the largest KL that is allowed.
        ratio: by which a refused step is shortened.
        tries: most candidates to look at; where none is accepted, θ stays.
    """
    for i in range(tries):
        candidate = theta - ratio**i * step
        loss, kl = (float(x) for x in evaluate(candidate))
        if loss < before and kl <= max_kl:  # neither holds for NaN
            return Found(candidate, loss, kl, i + 1, True)
    return Found(theta, before, 0.0, tries, False)
