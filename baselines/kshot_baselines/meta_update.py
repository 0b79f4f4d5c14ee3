"""MAML's outer updates: TRPO on the adapted policies, with exact Fisher-vector products, and ProMP's clipped steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch

from kshot_baselines.adaptation import (
    Adaptation,
    Inner,
    adapt,
    adapted,
    flat,
    learned_steps,
    on_parts,
    pull,
    push,
    unflat,
)
from kshot_baselines.derivatives import Loss, Pass, cotangent, outputs_gradient, outputs_hessian, run, tangent
from kshot_baselines.episodes import Batch, first_episodes
from kshot_baselines.policies import Outputs, Params, Shape, distribution
from kshot_baselines.trpo import line_search, natural_step

Product: TypeAlias = Callable[[Params], Params]
Penalty: TypeAlias = Callable[[Params], torch.Tensor]  # of meta: a number


class Trust(NamedTuple):
    """Settings of the TRPO step."""

    max_kl: float
    iterations: int  # of conjugate gradients
    damping: float
    fisher_samples: float  # part of each task's episodes that the Fisher-vector product sees; 1 is exact


class Clipped(NamedTuple):
    """Settings of the ProMP steps."""

    epochs: int
    clip: float
    kl_penalty: float


def surrogate(shape: Shape, b: Batch, clip: float | None = None) -> Loss:
    """Return −ρ A, clipped where asked, as a function of outputs: means over each task's steps, and over tasks."""

    def loss(out: Outputs) -> torch.Tensor:
        change = distribution(shape, out).log_prob(b.action) - distribution(shape, b.old).log_prob(b.action)
        ratio = change.exp()
        gain = ratio * b.advantage
        if clip is not None:
            gain = torch.minimum(gain, ratio.clip(1 - clip, 1 + clip) * b.advantage)
        return -(gain * b.weight).sum() / len(b.weight)

    return loss


def divergence(shape: Shape, b: Batch, old: Outputs | None = None) -> Loss:
    """Return KL(old ‖ new) as a function of the new outputs: the mean over each task's steps, and over tasks."""
    before = distribution(shape, b.old if old is None else old)

    def kl(out: Outputs) -> torch.Tensor:
        return (before.kl(distribution(shape, out)) * b.weight).sum() / len(b.weight)  # type: ignore[arg-type]

    return kl


def meta_gradient(
    a: Adaptation, post: Pass, loss: Loss, at: Sequence[Outputs] = (), learned: Sequence[str] = ()
) -> Params:
    """Return the gradient in meta of a loss of the adapted policies' outputs."""
    return pull(a, cotangent(post, outputs_gradient(loss, post.out)), at, learned)


def fisher_product(shape: Shape, a: Adaptation, p: Pass, post: Batch, learned: Sequence[str] = ()) -> Product:
    """Return the product of a direction in meta with the Hessian, at meta, of the adapted policies' mean KL.

    KL(old ‖ new) has no gradient at new = old, so that its Hessian is Jᵀ F J without a remainder: F is its Hessian in
    the outputs, and J the outputs' derivative through the adaptation, first forwards, then backwards.

    Args:
        shape: of the policy.
        a: the adaptation.
        p: the adapted policies on the batch.
        post: the batch.
        learned: the parameters whose step sizes meta holds.
    """
    _, metric = outputs_hessian(divergence(shape, post, old=p.out), p.out)

    def product(direction: Params) -> Params:
        change, _ = tangent(p, push(a, direction))
        return pull(a, cotangent(p, metric(change)), learned=learned)

    return product


def trust_region_step(
    inner: Inner, meta: Params, a: Adaptation, post: Batch, trust: Trust, penalty: Penalty | None = None
) -> tuple[Params, dict[str, float]]:
    """Return meta after a TRPO step whose constraint is the mean over tasks of KL(old adapted ‖ new adapted).

    Args:
        inner: the inner update.
        meta: what is learned.
        a: the adaptation that was sampled from.
        post: what the adapted policies did.
        trust: settings of the step.
        penalty: what is added to the loss, a function of meta alone.
    """
    tasks, shape, learned = len(post.weight), inner.shape, learned_steps(meta)
    loss, kl = surrogate(shape, post), divergence(shape, post)
    p = run(shape, a.path[-1], post.observation)
    gradient, before = meta_gradient(a, p, loss, learned=learned), loss(p.out)
    if penalty is not None:
        leaves = {name: x.detach().requires_grad_() for name, x in meta.items()}
        value = penalty(leaves)
        more = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        gradient = {name: gradient[name] + g for name, g in zip(leaves, more, strict=True)}
        before = before + value.detach()
    if trust.fisher_samples < 1:
        part = first_episodes(post, trust.fisher_samples)
        seen = run(shape, a.path[-1], part.observation)
        product = fisher_product(shape, on_parts(inner, a, trust.fisher_samples), seen, part, learned)
    else:
        product = fisher_product(shape, a, p, post, learned)

    def evaluate(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        new = unflat(theta, meta)
        out = run(shape, adapted(inner, new, a.batches, tasks), post.observation).out
        return loss(out) + (0.0 if penalty is None else penalty(new)), kl(out)

    step = natural_step(
        lambda x: flat(product(unflat(x, meta))), flat(gradient), trust.max_kl, trust.iterations, trust.damping
    )
    found = line_search(evaluate, flat(meta), step, float(before), trust.max_kl)
    return unflat(found.theta, meta), {"loss": found.loss, "kl": found.kl, "accepted": float(found.accepted)}


def clipped_steps(
    inner: Inner,
    meta: Params,
    a: Adaptation,
    post: Batch,
    settings: Clipped,
    optimiser: torch.optim.Adam,
    theta: torch.Tensor,
) -> tuple[Params, dict[str, float]]:
    """Return meta after some steps on ProMP's objective (Rothfuss et al. 2018, arXiv 1810.06784, equation 14).

    The penalty is the KL from the policies that sampled before each inner step to those of the new meta there, its
    mean over inner steps.

    Args:
        inner: the inner update.
        meta: what is learned.
        a: the adaptation that was sampled from.
        post: what the adapted policies did.
        settings: of the steps.
        optimiser: of theta.
        theta: a flat leaf, which is set to meta first.
    """
    tasks, batches = len(post.weight), a.batches
    with torch.no_grad():
        theta.copy_(flat(meta))
    for epoch in range(settings.epochs):
        a = adapt(inner, unflat(theta.detach(), meta), batches, tasks) if epoch else a
        theta.grad = flat(clipped_gradient(inner.shape, a, post, settings, learned_steps(meta)))
        optimiser.step()
    new = unflat(theta.detach().clone(), meta)
    out = run(inner.shape, adapted(inner, new, batches, tasks), post.observation).out
    loss, kl = surrogate(inner.shape, post, settings.clip)(out), divergence(inner.shape, post)(out)
    return new, {"loss": float(loss), "kl": float(kl)}


def clipped_gradient(
    shape: Shape, a: Adaptation, post: Batch, settings: Clipped, learned: Sequence[str] = ()
) -> Params:
    """Return the gradient of ProMP's objective in meta, at an adaptation on old batches."""
    p, loss = run(shape, a.path[-1], post.observation), surrogate(shape, post, settings.clip)
    penalty = settings.kl_penalty / max(1, len(a.batches))
    kls = [outputs_gradient(divergence(shape, b), q.out) for b, q in zip(a.batches, a.passes, strict=True)]
    return meta_gradient(a, p, loss, [Outputs(*(penalty * x for x in kl)) for kl in kls], learned)
