"""Measure RL²'s floors of speed: beside sb3-contrib's RecurrentPPO, beside its own network, beside the physics.

    python benchmarks/rl2.py [--json PATH] [--only WORD] [--repeats N] [--clock wall|processor] [--threads N]

Settings are those that `kshot train` takes, but where a line says otherwise. Every line is a ratio taken within one
run on two cores, one value a repeat; both sides of a repeat run alternately, and the median counts. On a machine with
other work, `--clock processor` counts the seconds that all cores spent on this process, which that work disturbs less.
Exit status 1 where a floor is missed. Where there is a GPU, its steps/s and peak memory are shown, without a floor
(`--only gpu`).
"""

from __future__ import annotations

import json
import statistics
import time
import unittest.mock
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from mujoco.batch import Batch
from rich.console import Console
from rich.table import Table
from speed import CORES, Line, Side, ratios, two_cores
from torch import nn

import kshot
from kshot_baselines import maml, recurrent_ppo, rl2
from kshot_baselines.hparams import config_for
from kshot_baselines.learner import Learner
from kshot_baselines.rollout import input_size

GRID = kshot.variant("GridNav-v0")
BANDIT = kshot.variant("Bandit-k5n10-v0")
CHEETAH = kshot.variant("HalfCheetahVel-v0")
VARIBAD = (
    590.0  # steps/s end to end, the most of its code's RL² and VariBAD on two such cores: measured once, by others
)
TURNS = 3  # a repeat of the bandits, which are over soon


class Clock(Enum):
    """What seconds are."""

    wall = "wall"
    processor = "processor"

    def now(self) -> float:
        """Return them, since some time."""
        return time.perf_counter() if self is Clock.wall else time.process_time()


def settings(variant: kshot.Variant, **changes: Any) -> rl2.Config:
    """Return RL²'s settings on a variant, with a GRU of 64."""
    config: rl2.Config = config_for("rl2", variant, {"memory": 64, **changes})
    return config


def per_step(learner: Learner, clock: Clock) -> Side:
    """Return the side that samples and updates once, and gives the seconds a step of the environment."""

    def side() -> float:
        steps, begun = learner.steps, clock.now()
        learner.iterate()
        return (clock.now() - begun) / (learner.steps - steps)

    return side


def recurrent_ppo_ratio(clock: Clock, repeats: int, alike: bool) -> list[float]:
    """Measure RecurrentPPO against RL² on the same trials, by its own settings or with those of RL² that it has.

    Its minibatches are eight times those that the library has by default, with which it is several times slower.
    """
    c, theirs = settings(GRID), config_for("recurrent-ppo", GRID, {"memory": 64})
    if alike:
        steps = c.rows * GRID.horizon * GRID.trial
        theirs = replace(theirs, rows=c.rows, batch=steps // c.minibatches, epochs=c.epochs, hidden=())
    sides = rl2.learner(GRID, c, 0, "cpu"), recurrent_ppo.learner(GRID, theirs, 0, "cpu")
    return ratios(*(per_step(side, clock) for side in sides), repeats, 1)


def varibad_ratio(clock: Clock, repeats: int) -> list[float]:
    """Return RL²'s steps/s over the number that VariBAD's code had on a machine of this kind."""
    side = per_step(rl2.learner(GRID, settings(GRID), 0, "cpu"), clock)
    side()  # warm-up
    return [1 / side() / VARIBAD for _ in range(repeats)]


def bare_gru(c: rl2.Config, clock: Clock) -> Side:
    """Return the side that runs a GRU and its heads as often and on as much as an iteration on bandits does.

    Forward a step at a time for sampling, forward and backward through whole minibatches for the update; no
    environment, no actions, no loss, no optimiser.
    """
    size, steps, outputs = input_size(BANDIT), BANDIT.horizon * BANDIT.trial, int(BANDIT.action_space.n) + 1  # type: ignore[attr-defined]
    gru, heads = nn.GRU(size, c.memory), nn.Linear(c.memory, outputs)
    x, gradient = torch.randn(steps, c.rows, size), torch.randn(steps, c.rows, outputs)
    parts = [
        (a.contiguous(), b.contiguous())
        for a, b in zip(*(y.chunk(c.minibatches, 1) for y in (x, gradient)), strict=True)
    ]

    def side() -> float:
        begun = clock.now()
        memory = torch.zeros(c.rows, c.memory)
        with torch.no_grad():
            for t in range(steps + 1):  # one more, for the value after the last
                memory = torch.gru_cell(x[t % steps], memory, *gru.all_weights[0])
                heads(memory)
        for _ in range(c.epochs):
            for part, of_loss in parts:
                heads(gru(part)[0]).backward(of_loss)
        return clock.now() - begun

    return side


def network_share(c: rl2.Config, clock: Clock, repeats: int) -> list[float]:
    """Return the share of an iteration on bandits that its network takes alone."""
    learner = rl2.learner(BANDIT, c, 0, "cpu")
    whole = per_step(learner, clock)
    steps = c.rows * BANDIT.horizon * BANDIT.trial
    return ratios(lambda: steps * whole(), bare_gru(c, clock), repeats, TURNS)


def physics_share(make: Callable[[], Learner], clock: Clock, repeats: int) -> list[float]:
    """Return the share of an iteration inside `mujoco.batch`.

    A `Batch` that is timed takes the place of the real one. An iteration takes seconds, so that none is a warm-up.
    """
    inside = 0.0

    class Timed(Batch):  # type: ignore[misc]
        def step(self, *arguments: Any) -> None:
            nonlocal inside
            begun = clock.now()
            super().step(*arguments)
            inside += clock.now() - begun

    def share(learner: Learner) -> float:
        nonlocal inside
        inside, begun = 0.0, clock.now()
        learner.iterate()
        return inside / (clock.now() - begun)

    with unittest.mock.patch("kshot.physics.cpu.Batch", Timed):
        learner = make()
        return [share(learner) for _ in range(repeats)]


def measure(only: str, repeats: int, clock: Clock) -> Iterator[Line]:
    """Yield one line after the other."""

    def on_cheetahs(method: str, **changes: Any) -> list[float]:
        config = config_for(method, CHEETAH, changes)
        make = {"rl2": rl2.learner, "maml": maml.learner}[method]
        return physics_share(lambda: make(CHEETAH, config, 0, "cpu"), clock, repeats)

    def bandits(floor: float, **changes: Any) -> tuple[Line, Callable[[], list[float]]]:
        c = settings(BANDIT, **changes)
        name = f"{c.rows} bandits in {c.minibatches} minibatches: share of the GRU alone"
        return Line(name, [], floor), lambda: network_share(c, clock, repeats)

    plan: list[tuple[Line, Callable[[], list[float]]]] = [
        (Line("GridNav: steps/s / RecurrentPPO", [], 10.0), lambda: recurrent_ppo_ratio(clock, repeats, False)),
        (
            Line("GridNav: steps/s / RecurrentPPO with RL²'s rows, epochs, minibatches", [], 2.0),
            lambda: recurrent_ppo_ratio(clock, repeats, True),
        ),
        (Line(f"GridNav: steps/s / {VARIBAD:g}, VariBAD's code", [], 50.0), lambda: varibad_ratio(clock, repeats)),
        bandits(0.7, rows=4000, minibatches=8),
        bandits(0.6),
        (Line("HalfCheetahVel, RL²: share of mujoco.batch", [], 0.7), lambda: on_cheetahs("rl2", memory=64)),
        (Line("HalfCheetahVel, MAML: share of mujoco.batch", [], 0.6), lambda: on_cheetahs("maml")),
        (
            Line("HalfCheetahVel, MAML with exact Fisher products: share of mujoco.batch", [], 0.0),
            lambda: on_cheetahs("maml", fisher_samples=1.0),
        ),
    ]
    for line, run in plan:
        if only.lower() in line.name.lower():
            line.values = run()
            yield line


def on_gpu(repeats: int) -> dict[str, dict[str, float]]:
    """Return steps/s and the most GPU memory, MiB, of iterations on a GPU."""
    found = {}
    for variant in (GRID, BANDIT):
        torch.cuda.reset_peak_memory_stats()
        side = per_step(rl2.learner(variant, settings(variant), 0, "cuda"), Clock.wall)
        side()  # warm-up
        rates = [1 / side() for _ in range(repeats)]  # an iteration ends with its metrics on the CPU
        memory = torch.cuda.max_memory_allocated() / 2**20
        found[variant.label] = {"steps_per_second": statistics.median(rates), "peak_MiB": memory}
    return found


def main(
    path: Annotated[Path | None, typer.Option("--json", help="Write the measurements there too.")] = None,
    only: Annotated[str, typer.Option(help="Measure only lines whose name holds this word.")] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Values a line.")] = 5,
    clock: Annotated[Clock, typer.Option(help="Seconds of the clock, or of processors on this process.")] = Clock.wall,
    threads: Annotated[int, typer.Option(min=1, help="Of torch; physics has a thread a core.")] = 1,
) -> None:
    """Measure, print a table, and exit with 1 where a floor is missed."""
    lines, title = [], f"kshot {kshot.__version__}, {CORES} cores, torch on {threads}, {clock.value} time"
    table = Table("what", "median", "min – max", "floor", "", title=title)
    with two_cores():
        torch.set_num_threads(threads)
        for line in measure(only, repeats, clock):
            lines.append(line)
            spread = f"{min(line.values):.2f} – {max(line.values):.2f}"
            table.add_row(
                line.name, f"{line.median:.2f}", spread, f"≥ {line.floor:g}", "ok" if line.met else "[red]MISSED"
            )
    Console(width=110).print(table)
    gpu = on_gpu(repeats) if torch.cuda.is_available() and only.lower() in "gpu" else {}
    for name, figures in gpu.items():
        print(f"{name} on {torch.cuda.get_device_name()}: " + ", ".join(f"{k} {x:,.0f}" for k, x in figures.items()))
    if path is not None:
        measured = [{**asdict(line), "median": line.median, "met": line.met} for line in lines]
        whole = {"cores": CORES, "threads": threads, "clock": clock.value, "lines": measured, "gpu": gpu}
        path.write_text(json.dumps(whole, indent=1) + "\n")
    raise typer.Exit(not all(line.met for line in lines))


if __name__ == "__main__":
    typer.run(main)
