"""Measure one meta-iteration of MAML on PointGoal-maml, its parts, and what twice differentiating would cost.

    python benchmarks/maml.py [--json PATH] [--repeats N] [--threads N]

20 tasks × 20 episodes × 100 steps before and after one inner step, a 64-64 tanh policy, TRPO with 10 iterations of
conjugate gradients on all samples. Every repeat runs all sides in turn, for the speed of a shared machine drifts; the
ratio is taken within each repeat. Seconds are those of the clock; beside them stand those that the processors spent on
this process, which other jobs disturb less. Exit status 1 where the floor is missed.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from speed import Line

import kshot
from kshot_baselines import adaptation, maml, meta_update
from kshot_baselines.adaptation import Adaptation, flat, unflat
from kshot_baselines.derivatives import run
from kshot_baselines.episodes import Batch
from kshot_baselines.policies import for_tasks, outputs

CONFIG = maml.Config(tasks=20, episodes=20, hidden=(64, 64), activation="tanh", inner_lr=0.1)
PEER = 8.8  # s, the fastest of others on two such cores: pytorch-maml-rl, the same sizes
FLOOR = 5.0  # times faster than that
TIMES = CONFIG.cg_iterations
Product = Callable[[torch.Tensor], torch.Tensor]


def plain_product(learner: maml.MamlLearner, a: Adaptation, post: Batch) -> Product:
    """Return the Fisher product as most write it: the gradient of the KL with its graph, differentiated once more."""
    shape, meta = learner.inner.shape, learner.meta
    theta = flat(meta).requires_grad_()
    params, (b,) = for_tasks(unflat(theta, meta), CONFIG.tasks), a.batches
    loss = adaptation.inner_loss(learner.inner, b)(outputs(shape, params, b.observation))
    found = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    adapted = {name: x - CONFIG.inner_lr * g for (name, x), g in zip(params.items(), found, strict=True)}
    old = run(shape, a.path[-1], post.observation).out
    kl = meta_update.divergence(shape, post, old)(outputs(shape, adapted, post.observation))
    (gradient,) = torch.autograd.grad(kl, theta, create_graph=True)
    return lambda v: torch.autograd.grad(gradient, theta, v, retain_graph=True)[0]


def our_product(learner: maml.MamlLearner, a: Adaptation, post: Batch) -> Product:
    """Return the same product as the method takes it."""
    p = run(learner.inner.shape, a.path[-1], post.observation)
    product = meta_update.fisher_product(learner.inner.shape, a, p, post)
    return lambda v: flat(product(unflat(v, learner.meta)))


def products(make: Callable[[], Product], v: torch.Tensor) -> torch.Tensor:
    """Make a product and take it as often as one step of TRPO does; return the last."""
    product = make()
    for _ in range(TIMES):
        found = product(v)
    return found


def one_repeat(learner: maml.MamlLearner) -> dict[str, tuple[float, float]]:
    """Return the seconds of an iteration, its parts and the plain Fisher products: by the clock, of processors."""
    seconds: dict[str, tuple[float, float]] = {}

    def timed(name: str, side: Callable[[], Any]) -> Any:
        begun, spent = time.perf_counter(), time.process_time()
        found = side()
        seconds[name] = time.perf_counter() - begun, time.process_time() - spent
        return found

    timed("iteration", learner.iterate)
    a, post, _ = timed("sampling and inner step", learner.sample)
    shape, meta = learner.inner.shape, learner.meta
    loss = meta_update.surrogate(shape, post)

    def meta_gradient() -> torch.Tensor:
        return flat(meta_update.meta_gradient(a, run(shape, a.path[-1], post.observation), loss))

    v = timed("meta-gradient", meta_gradient)
    ours = timed(f"{TIMES} Fisher products", lambda: products(lambda: our_product(learner, a, post), v))
    theirs = timed(f"{TIMES} plain Fisher products", lambda: products(lambda: plain_product(learner, a, post), v))
    assert torch.allclose(ours, theirs, rtol=1e-2, atol=1e-4 * float(theirs.abs().max())), "they differ"

    def look() -> float:
        adapted = adaptation.adapted(learner.inner, meta, a.batches, CONFIG.tasks)
        return float(loss(run(shape, adapted, post.observation).out))

    timed("a try of the line search", look)
    return seconds


def main(
    path: Annotated[Path | None, typer.Option("--json", help="Write the measurements there too.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 2,
) -> None:
    """Measure, print a table, and exit with 1 where the floor is missed."""
    torch.set_num_threads(threads)
    learner = maml.learner(kshot.variant("PointGoal-maml-v0"), CONFIG, 0, "cpu")
    one_repeat(learner)  # warm-up
    measured = [one_repeat(learner) for _ in range(repeats)]
    table = Table("what", "median s", "min – max", "processor s", title=f"kshot {kshot.__version__}, {threads} threads")
    for name in measured[0]:
        clock, processor = zip(*(m[name] for m in measured), strict=True)
        spread = f"{min(clock):.3f} – {max(clock):.3f}"
        table.add_row(name, f"{statistics.median(clock):.3f}", spread, f"{statistics.median(processor):.3f}")
    Console(width=100).print(table)
    lines = [
        Line(f"iteration of 80,000 steps / {PEER} s", [PEER / m["iteration"][0] for m in measured], FLOOR),
        Line(
            "Fisher products / twice differentiating",
            [m[f"{TIMES} plain Fisher products"][0] / m[f"{TIMES} Fisher products"][0] for m in measured],
            1.0,
        ),
    ]
    for line in lines:
        print(f"{line.name}: {line.median:.1f} × as fast; floor {line.floor:g}")
    if path is not None:
        whole = {"threads": threads, "seconds": measured, "lines": [asdict(line) for line in lines]}
        path.write_text(json.dumps(whole, indent=1) + "\n")
    raise typer.Exit(not all(line.met for line in lines))


if __name__ == "__main__":
    typer.run(main)
