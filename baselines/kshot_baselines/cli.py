"""Commands of the baselines, which `kshot` finds by their entry point; torch is imported by those that need it."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import kshot
from kshot.cli import RESULTS, Id, clear_errors, errors, progress_of
from kshot.references import oracle_path

if TYPE_CHECKING:
    from kshot_baselines.runs import Run
    from kshot_baselines.train import Status

RUNS = Path("runs")
QUEUE = Path("baselines/queue.toml")
LINE_EVERY = 30.0  # seconds between lines of progress where there is no terminal
STOPPED = 130  # exit status of a run that was asked to stop, as shells have it

MethodName = Annotated[str, typer.Argument(metavar="METHOD", help="rl2, maml, multitask, …")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default cuda where there is one")]
Folder = Annotated[Path, typer.Option(help="of runs: states and curves, under METHOD/VARIANT-seedN")]
Results = Annotated[
    Path | None,
    typer.Option(help="where results and weights are put; by default baselines/results, or the run's folder where "
                 "--budget or --set make it another than the leaderboard's"),
]  # fmt: skip
Budget = Annotated[int | None, typer.Option(min=0, help="steps of the environment; by default those of the config")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key=value of the method's Config; repeat")]
Threads = Annotated[int, typer.Option(min=1, help="of torch on the CPU; more pay for large networks only")]
Wandb = Annotated[bool, typer.Option("--wandb", help="show the curves on Weights & Biases")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (oracle, train, reproduce, queue):
        app.command()(command)


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


def train(
    method: MethodName,
    id: Id,
    seed: Annotated[int, typer.Option(min=0, help="of training, and of the scores at its end")] = 0,
    device: Device = None,
    budget: Budget = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a run that was stopped")] = False,
    folder: Folder = RUNS,
    results: Results = None,
    threads: Threads = 1,
    wandb: Wandb = False,
) -> None:
    """Train a method on a variant, select on val, and score the best weights once on all other splits."""
    with _stoppable(), clear_errors():
        from kshot_baselines.runs import make

        run = make(method, id, seed, device, budget, settings or [], folder, results)
        _train(replace(run, threads=threads), resume, wandb)


def reproduce(
    method: MethodName,
    id: Id,
    seeds: Annotated[int, typer.Option(min=1, help="0 to this many, less one")] = 5,
    device: Device = None,
    folder: Folder = RUNS,
    results: Annotated[Path, typer.Option(help="where results and weights are put")] = RESULTS,
) -> None:
    """Train all seeds of a row of the leaderboard: what is done is skipped, what is begun is gone on with."""
    with _stoppable(), clear_errors():
        from kshot_baselines.runs import make

        for seed in range(seeds):
            _train(make(method, id, seed, device, None, [], folder, results), True, False)


def queue(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="the list of runs, TOML")] = QUEUE,
    jobs: Annotated[int, typer.Option(min=1, help="runs at once")] = 1,
    device: Device = None,
    folder: Folder = RUNS,
    results: Results = None,
) -> None:
    """Work through a list of runs in order, one a process; again, it goes on where it was stopped."""
    from kshot_baselines import queue as q

    with _stoppable(), clear_errors():
        failed = q.work(q.read(file), q.Options(device, folder, results), jobs)
    for line in failed:
        errors.print(f"failed: {line}", highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(1 if failed else 0)


def _train(run: Run, resume: bool, wandb: bool) -> None:
    """Train with a line of progress, and print the paths of the results."""
    import torch

    from kshot_baselines.runs import is_done
    from kshot_baselines.train import train

    what = f"{run.method} {run.name}"
    if is_done(run):
        print(f"{what} is done: {run.result('test')}; give --results another folder to train it again")
        return
    torch.set_num_threads(run.threads)
    with _lines_of(what) as report:
        paths = train(run, resume=resume, report=report, wandb=wandb)
    print(*paths, sep="\n")


@contextmanager
def _stoppable() -> Iterator[None]:
    """Say how to go on with what was stopped by a signal, and exit with the status that shells have for it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        words = ["kshot", *sys.argv[1:], *(["--resume"] if "train" in sys.argv and "--resume" not in sys.argv else [])]
        why = str(stop) or "stopped at once"
        errors.print(f"{why}; go on with: {shlex.join(words)}", highlight=False, soft_wrap=True, markup=False)
        raise typer.Exit(STOPPED) from None


@contextmanager
def _lines_of(what: str) -> Iterator[Callable[[Status], None]]:
    """Show a bar with return, score and steps/s on a terminal, plain lines on anything else."""
    if errors.is_terminal:
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[numbers]}"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=errors, transient=True) as bar:
            row = bar.add_task(what, total=1.0, numbers="")
            yield lambda s: bar.update(row, completed=s.fraction, description=f"{what} {s.what}", numbers=_numbers(s))
        return
    shown = time.monotonic() - LINE_EVERY

    def report(status: Status) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= LINE_EVERY or status.fraction == 1:
            shown = now
            line = f"{what} {status.what}: {100 * status.fraction:.0f} %, {_numbers(status)}"
            print(line.rstrip(", "), file=sys.stderr, flush=True)

    yield report


def _numbers(status: Status) -> str:
    """Return the numbers of a status that are known."""
    shown = (("return", status.returns, ".4g"), ("val", status.score, ".4g"), ("steps/s", status.rate, ",.0f"))
    return ", ".join(f"{name} {x:{form}}" for name, x, form in shown if not math.isnan(x))
