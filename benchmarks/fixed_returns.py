"""Which fixed (γ, λ) does meta-gradient RL's learner best with, on training tasks: what `mgrl-fixed` has.

    python benchmarks/fixed_returns.py PointGoal-v0 PointSparse-v0

Each pair of the grid is trained with the variant's settings on one seed, and scored on the frozen set `train` by the
return of the last episodes of the budget.
"""

from __future__ import annotations

import itertools
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import kshot
from kshot_baselines import mgrl
from kshot_baselines.hparams import config_for

DISCOUNTS, LAMBDAS = (0.8, 0.9, 0.95, 0.99), (0.8, 0.95)
LAST = 10  # episodes


def score(id: str, discount: float, lambda_: float, steps: int | None, tasks: int) -> float:
    """Return the mean of the last episodes of the budget on training tasks."""
    v = kshot.variant(id)
    changes = {"discount": discount, "gae_lambda": lambda_} | ({} if steps is None else {"steps": steps})
    config = config_for("mgrl-fixed", v, changes)
    run = mgrl.learner(v, config, 0, "cpu")
    while run.steps < config.steps:
        run.iterate()
    found = kshot.evaluate(mgrl.agent(v, config, run.weights(), 0), id, split="train", num_tasks=tasks)
    return float(np.array(found.returns)[:, -LAST:].mean())


def main(
    ids: Annotated[list[str], typer.Argument(help="variants")],
    steps: Annotated[int | None, typer.Option(help="of each run, for a try; by default those of the settings")] = None,
    tasks: Annotated[int, typer.Option(help="to be scored on")] = 100,
) -> None:
    """Print the table of scores, the best of each variant marked."""
    torch.set_num_threads(1)
    for id in ids:
        grid = list(itertools.product(DISCOUNTS, LAMBDAS))
        found = {pair: score(id, *pair, steps, tasks) for pair in track(grid, id, console=Console(stderr=True))}
        best = max(found, key=lambda pair: found[pair])
        table = Table("γ", *(f"λ = {x:g}" for x in LAMBDAS), title=id)
        for g in DISCOUNTS:
            table.add_row(f"{g:g}", *(f"{found[g, x]:.2f}{' *' if (g, x) == best else ''}" for x in LAMBDAS))
        Console(width=60).print(table)


if __name__ == "__main__":
    typer.run(main)
