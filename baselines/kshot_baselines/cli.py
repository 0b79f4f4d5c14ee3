"""Commands of the baselines, which `kshot` finds by their entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import kshot
from kshot.cli import RESULTS, Id, clear_errors, progress_of
from kshot.references import oracle_path


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(oracle)


def oracle(
    id: Id,
    steps: Annotated[int | None, typer.Option(min=1, help="of the environment; by default those of the config")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    like: Annotated[str | None, typer.Option(help="carry the oracle of this variant over instead of training")] = None,
    folder: Annotated[Path, typer.Option(help="where results are kept")] = RESULTS,
) -> None:
    """Train the oracle of a variant without a closed form: PPO that sees the task, on the laws of all its splits."""
    with clear_errors():
        v = kshot.variant(id)
        if v.family.expert is not None:
            raise ValueError(f"{v.id} has an expert in closed form: `kshot references {v.label} --agent expert`")
        if like is not None:
            from kshot_baselines.carry import carry

            source = kshot.variant(like)
            print(carry(oracle_path(source, folder), source, v, oracle_path(v, folder)))
            return
        from kshot_baselines import oracle as method

        config = method.Config() if steps is None else method.Config(steps=steps)
        with progress_of(f"{v.id} oracle") as report:
            print(method.train(v, oracle_path(v, folder), config, seed, report))
