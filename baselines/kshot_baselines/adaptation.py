"""MAML's inner update of all tasks at once, and derivatives of what it leads to.

The adapted parameters of a task are θ_K, with θ_{k+1} = θ_k − α ∘ g_k(θ_k), where g_k is the gradient of the inner
objective on batch k and α the step size, one number or learned for each parameter (Meta-SGD, Li et al. 2017,
arXiv 1707.09835). What is learned, θ_0 and perhaps α, is called meta. The derivative of θ_K is a product of I − α H_k;
both directions of it are exact, with the Hessians H_k known by their products alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from kshot_baselines.derivatives import (
    HessianProduct,
    Loss,
    Pass,
    cotangent,
    gradient,
    gradient_and_hessian,
    run,
)
from kshot_baselines.episodes import Batch, first_episodes
from kshot_baselines.policies import OWN, Outputs, Params, Shape, distribution, for_tasks, shapes_of_params

OBJECTIVES = ("vpg", "lvc", "dice")
STEP = "step."  # before the name of a parameter: its learned step size


class Inner(NamedTuple):
    """What the inner update is."""

    shape: Shape
    objective: str  # one of OBJECTIVES
    lr: float  # the step size where it is not learned
    discount: float
    first_order: bool  # its gradient counts as a constant
    only: tuple[str, ...] = ()  # parameters that it changes; none: all


class Adaptation(NamedTuple):
    """An adaptation at some meta, with what its derivative is made of; tuples hold one entry a step."""

    path: tuple[Params, ...]  # each task's θ_0 … θ_K
    batches: tuple[Batch, ...]
    passes: tuple[Pass, ...]  # of θ_0 … θ_{K−1} on their batches
    gradients: tuple[Params, ...]
    hessians: tuple[HessianProduct | None, ...]  # None where the gradient counts as a constant
    sizes: Params  # of the steps, α


def inner_loss(inner: Inner, b: Batch) -> Loss:
    """Return the inner objective on a batch, to be made small, as a function of outputs.

    - `vpg`: −log π(a_t) A_t, as MAML's code. Its gradient is that of the expected return, its Hessian is biased.
    - `lvc`: −π(a_t) / π_old(a_t) A_t, the low-variance curvature of ProMP (Rothfuss et al. 2018, arXiv 1810.06784,
      equation 12): it leaves out the dependence between steps of an episode.
    - `dice`: −γᵗ (ρ_{1…t} − ρ_{1…t−1}) A_t, where ρ_{1…t} is the likelihood ratio of the episode's first t actions:
      DiCE (Foerster et al. 2018, arXiv 1802.05098) in the form for advantages (Farquhar et al. 2019, arXiv 1909.10549),
      whose derivatives of every order are unbiased and profit from the baseline.

    All are means over a task's steps, and have the same gradient where π = π_old, but for the γᵗ of `dice`.
    """

    def loss(out: Outputs) -> torch.Tensor:
        new = distribution(inner.shape, out).log_prob(b.action)
        if inner.objective == "vpg":
            return -(new * b.advantage * b.weight).sum()
        change = new - distribution(inner.shape, b.old).log_prob(b.action)
        if inner.objective == "lvc":
            return -(change.exp() * b.advantage * b.weight).sum()
        change = change.reshape(len(change), -1, b.episode)
        total = change.cumsum(-1)
        time = torch.arange(b.episode, device=change.device, dtype=change.dtype)
        gain: torch.Tensor = inner.discount**time * (total.exp() - (total - change).exp())
        return -(gain.flatten(1) * b.advantage * b.weight).sum()

    return loss


def policy_of(meta: Params) -> Params:
    """Return the parameters of the policy among those that are learned."""
    return {name: x for name, x in meta.items() if not name.startswith(STEP)}


def learned_steps(meta: Params) -> tuple[str, ...]:
    """Return the names of the parameters whose step sizes are learned."""
    return tuple(name for name in policy_of(meta) if STEP + name in meta)


def learned_step_shapes(inner: Inner) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the step sizes of all that the inner update changes: those of the parameters."""
    shapes = shapes_of_params(inner.shape)
    return {STEP + name: shapes[name] for name in inner.only or shapes}


def step_sizes(inner: Inner, meta: Params) -> Params:
    """Return each parameter's step size, learned or the one number; 0 for those that the inner update leaves alone."""
    sizes = {name: meta.get(STEP + name, x.new_tensor(inner.lr)) for name, x in policy_of(meta).items()}
    return {name: x if not inner.only or name in inner.only else x.new_zeros(()) for name, x in sizes.items()}


def step(params: Params, sizes: Params, g: Params) -> Params:
    """Return parameters after a step against a gradient."""
    return {name: x - sizes[name] * g[name] for name, x in params.items()}


def inner_gradient(inner: Inner, params: Params, b: Batch) -> Params:
    """Return the gradient of the inner objective in each task's parameters."""
    return gradient(inner.shape, params, b.observation, inner_loss(inner, b))


def start(inner: Inner, meta: Params, tasks: int) -> Adaptation:
    """Return the adaptation of no step yet."""
    return Adaptation((for_tasks(policy_of(meta), tasks),), (), (), (), (), step_sizes(inner, meta))


def advance(inner: Inner, a: Adaptation, b: Batch) -> Adaptation:
    """Return an adaptation with one more step, on a batch that the policies of its end gave."""
    p = run(inner.shape, a.path[-1], b.observation)
    g, hessian = gradient_and_hessian(inner.shape, p, inner_loss(inner, b))
    return Adaptation(
        (*a.path, step(a.path[-1], a.sizes, g)),
        (*a.batches, b),
        (*a.passes, p),
        (*a.gradients, g),
        (*a.hessians, None if inner.first_order else hessian),
        a.sizes,
    )


def adapt(inner: Inner, meta: Params, batches: Sequence[Batch], tasks: int) -> Adaptation:
    """Return the adaptation of a meta on batches."""
    return functools.reduce(functools.partial(advance, inner), batches, start(inner, meta, tasks))


def adapted(inner: Inner, meta: Params, batches: Sequence[Batch], tasks: int) -> Params:
    """Return each task's θ_K alone."""
    sizes, params = step_sizes(inner, meta), for_tasks(policy_of(meta), tasks)
    for b in batches:
        params = step(params, sizes, inner_gradient(inner, params, b))
    return params


def on_parts(inner: Inner, a: Adaptation, fraction: float) -> Adaptation:
    """Return the same θ_0 … θ_K with derivatives of part of the episodes: an approximation."""
    part = a._replace(batches=(), passes=(), gradients=(), hessians=())
    for params, b in zip(a.path, a.batches, strict=False):
        part = advance(inner, part._replace(path=(params,)), first_episodes(b, fraction))
    return part._replace(path=a.path)


def push(a: Adaptation, direction: Params) -> Params:
    """Return how each task's θ_K changes where meta changes along a direction (forward mode)."""
    v = for_tasks(policy_of(direction), len(a.path[0]["log_std"]))
    for g, hessian in zip(a.gradients, a.hessians, strict=True):
        if hessian is not None:
            bend = hessian(v)
            v = {name: x - a.sizes[name] * bend[name] for name, x in v.items()}
        learned = {name: v[name] - direction[STEP + name] * g[name] for name in learned_steps(direction)}
        v = {**v, **learned}
    return v


def pull(a: Adaptation, w: Params, at: Sequence[Outputs] = (), learned: Sequence[str] = ()) -> Params:
    """Return the gradient in meta of what has a gradient w in each task's θ_K (reverse mode).

    Args:
        a: the adaptation.
        w: with a leading axis of tasks.
        at: gradients in the outputs of θ_0 … θ_{K−1} on their batches, where it depends on them as well.
        learned: the parameters whose step sizes meta holds.
    """
    steps = {name: torch.zeros_like(w[name][0]) for name in learned}
    for k in reversed(range(len(a.gradients))):
        g, hessian = a.gradients[k], a.hessians[k]
        steps = {name: x - (g[name] * w[name]).sum(0) for name, x in steps.items()}
        if hessian is not None:
            bend = hessian({name: a.sizes[name] * x for name, x in w.items()})
            w = {name: x - bend[name] for name, x in w.items()}
        if at:
            more = cotangent(a.passes[k], at[k])
            w = {name: x + more[name] for name, x in w.items()}
    found = {name: x if name in OWN else x.sum(0) for name, x in w.items()}
    return {**found, **{STEP + name: x for name, x in steps.items()}}


def flat(params: Params) -> torch.Tensor:
    """Return parameters as one vector, in order of names."""
    return torch.cat([params[name].reshape(-1) for name in sorted(params)])


def unflat(vector: torch.Tensor, like: Params) -> Params:
    """Return a vector as parameters of given names and shapes."""
    names = sorted(like)
    parts = torch.split(vector, [like[name].numel() for name in names])
    return {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}
