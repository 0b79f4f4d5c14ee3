"""Derivatives of a policy's network along directions, of all tasks at once.

The passes are written out, where automatic differentiation would do, because a product with a second derivative then
costs six products of matrices a layer and few walks through memory: a product with the Fisher information through
MAML's inner update takes about a third of the time of differentiating twice (`benchmarks/maml.py`). What depends on the
outputs alone (log-probabilities, losses, KL) is left to autograd: it is small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch

from kshot_baselines.policies import OWN, Outputs, Params, Shape, network_input

Loss: TypeAlias = Callable[[Outputs], torch.Tensor]  # a number, the sum over tasks
HessianProduct: TypeAlias = Callable[[Params], Params]
NARROW = 16  # columns, below which a product is taken by transposes


class Pass(NamedTuple):
    """One run of the network, kept for its derivatives; tuples hold one tensor a layer."""

    weights: tuple[torch.Tensor, ...]  # (tasks, in, out)
    inputs: tuple[torch.Tensor, ...]  # (tasks, n, in), the observation first
    slopes: tuple[torch.Tensor, ...]  # (tasks, n, out) of the hidden layers, φ'
    spread: torch.Tensor | None  # (tasks, n, latent), σ ∘ ε, of a policy with a latent
    out: Outputs


def run(shape: Shape, params: Params, observation: torch.Tensor) -> Pass:
    """Run the network of each task's parameters on its observations, (tasks, n, k)."""
    layers = len(shape.sizes) - 1
    weights = tuple(params[f"{i}.weight"] for i in range(layers))
    x, spread = network_input(params, observation)
    inputs, slopes = [x], []
    for i, weight in enumerate(weights):
        x = _product(inputs[-1], weight).add_(params[f"{i}.bias"].unsqueeze(-2))
        if i == layers - 1:
            break
        if shape.activation == "tanh":
            x.mul_(2).sigmoid_().mul_(2).sub_(1)  # tanh, to rounding: torch's own takes four times as long on a CPU
            slopes.append(torch.addcmul(x.new_ones(()), x, x, value=-1))
        else:
            slopes.append((x > 0).to(x))
            x.relu_()
        inputs.append(x)
    return Pass(weights, tuple(inputs), tuple(slopes), spread, Outputs(x, params["log_std"]))


def tangent(p: Pass, v: Params) -> tuple[Outputs, list[torch.Tensor | None]]:
    """Return how the outputs change where the parameters change along v (forward mode), and how each layer's inputs do.

    The first layer's are the latent's alone, None where there is none.
    """
    inputs: list[torch.Tensor | None] = [None]
    if p.spread is not None:
        mean, log_std = (v[name].unsqueeze(-2) for name in OWN)
        inputs = [mean + log_std * p.spread]
    for i, (weight, x) in enumerate(zip(p.weights, p.inputs, strict=True)):
        change, before = _product(x, v[f"{i}.weight"]), inputs[-1]
        if before is not None:
            _product(before, weight[:, -before.shape[-1] :], add_to=change)
        change.add_(v[f"{i}.bias"].unsqueeze(-2))
        if i < len(p.slopes):
            inputs.append(change.mul_(p.slopes[i]))
    return Outputs(change, v["log_std"]), inputs


def cotangent(p: Pass, u: Outputs) -> Params:
    """Return the gradient of ⟨u, outputs⟩ in each task's parameters (reverse mode)."""
    return _gradient(p, u)[0]


def gradient(shape: Shape, params: Params, observation: torch.Tensor, loss: Loss) -> Params:
    """Return the gradient of a loss of the outputs in each task's parameters."""
    p = run(shape, params, observation)
    return cotangent(p, outputs_gradient(loss, p.out))


def gradient_and_hessian(shape: Shape, p: Pass, loss: Loss) -> tuple[Params, HessianProduct]:
    """Return the gradient of a loss of the outputs in each task's parameters, and the product with its Hessian.

    The product is Pearlmutter's (1994): the change of the gradient's own forward and backward pass along v.
    """
    u, product = outputs_hessian(loss, p.out)
    found, deltas, sums, latent = _gradient(p, u)
    # φ'' = −2 φ φ' for tanh, 0 for relu.
    curves = [-2 * g * h for g, h in zip(sums, p.inputs[1:], strict=True)] if shape.activation == "tanh" else []

    def hessian(v: Params) -> Params:
        out, changes = tangent(p, v)
        du = product(out)
        delta, change = du.y, {"log_std": du.log_std}
        for i in reversed(range(len(p.weights))):
            weight = change[f"{i}.weight"] = _product(p.inputs[i].mT, delta)
            change[f"{i}.bias"] = delta.sum(1)
            moved = changes[i]
            if moved is None:
                break
            rows = slice(-moved.shape[-1], None)  # of the weights: all, but in the first layer the latent's
            _product(moved.mT, deltas[i], add_to=weight[:, rows])
            delta = _product(delta, p.weights[i][:, rows].mT)
            delta = _product(deltas[i], v[f"{i}.weight"][:, rows].mT, add_to=delta)
            if i:
                delta.mul_(p.slopes[i - 1])
                if curves:
                    delta.addcmul_(curves[i - 1], moved)
            elif latent is not None and p.spread is not None:
                mean, log_std = OWN
                change[mean] = delta.sum(1)
                change[log_std] = ((delta + latent * v[log_std].unsqueeze(-2)) * p.spread).sum(1)
        return change

    return found, hessian


def _gradient(p: Pass, u: Outputs) -> tuple[Params, list[torch.Tensor], list[torch.Tensor], torch.Tensor | None]:
    """Return the gradient of ⟨u, outputs⟩ in the parameters, each layer's sums, the hidden layers, and the latent."""
    found, delta = {"log_std": u.log_std}, u.y
    deltas, below = [delta], []
    for i in reversed(range(len(p.weights))):
        found[f"{i}.weight"], found[f"{i}.bias"] = _product(p.inputs[i].mT, delta), delta.sum(1)
        if i:
            below.append(_product(delta, p.weights[i].mT))
            delta = below[-1] * p.slopes[i - 1]
            deltas.append(delta)
    latent = None
    if p.spread is not None:
        latent = _product(delta, p.weights[0][:, -p.spread.shape[-1] :].mT)
        found |= dict(zip(OWN, (latent.sum(1), (latent * p.spread).sum(1)), strict=True))
    return found, deltas[::-1], below[::-1], latent


def _product(x: torch.Tensor, y: torch.Tensor, add_to: torch.Tensor | None = None) -> torch.Tensor:
    """Return x y of all tasks, added in place to something where that is given."""
    if y.shape[-1] >= NARROW:
        return torch.bmm(x, y) if add_to is None else add_to.baddbmm_(x, y)
    product = torch.bmm(y.mT.contiguous(), x.mT).mT  # several times faster on a CPU than as it stands
    return product if add_to is None else add_to.add_(product)


def outputs_gradient(loss: Loss, out: Outputs) -> Outputs:
    """Return the gradient of a loss in the outputs."""
    leaves = Outputs(*(x.detach().requires_grad_() for x in out))
    with torch.enable_grad():
        return Outputs(*torch.autograd.grad(loss(leaves), leaves, materialize_grads=True))


def outputs_hessian(loss: Loss, out: Outputs) -> tuple[Outputs, Callable[[Outputs], Outputs]]:
    """Return the gradient of a loss in the outputs, and the product with its Hessian in them."""
    leaves = Outputs(*(x.detach().requires_grad_() for x in out))
    with torch.enable_grad():
        first = torch.autograd.grad(loss(leaves), leaves, create_graph=True, materialize_grads=True)

    def product(v: Outputs) -> Outputs:
        moving = [(g, x) for g, x in zip(first, v, strict=True) if g.requires_grad]
        if not moving:
            return Outputs(*(torch.zeros_like(x) for x in leaves))
        grads, directions = zip(*moving, strict=True)
        return Outputs(*torch.autograd.grad(grads, leaves, directions, retain_graph=True, materialize_grads=True))

    return Outputs(*(g.detach() for g in first)), product
