"""Measure the speed floors: how fast kshot steps beside the loops and libraries that it replaces.

    python benchmarks/speed.py [--json PATH] [--only WORD] [--repeats N]

Every line is a ratio taken within one run, on two cores: a repeat lets both sides run many short turns alternately,
from like states with the same actions, and divides their time by ours; the median over the repeats counts. Short
turns, because on a shared machine the speed changes from one tenth of a second to the next. Exit status 1 where a
floor is missed.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import unittest.mock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import loops
import mujoco
import numpy as np
import typer
from mujoco.batch import Batch
from rich.console import Console
from rich.table import Table

import kshot
from kshot import tasks
from kshot.engine import Engine

CORES = 2
ROWS = 256  # of the MuJoCo families
MANY = 4096  # rows of the analytic families
EPISODE = 200  # steps of HalfCheetahVel
CHEETAH = "kshot/HalfCheetahVel-v0"
Side = Callable[[], float]  # runs one turn and returns the seconds that count


@dataclass
class Line:
    """What was measured, one value a repeat, and what is asked of the median."""

    name: str
    values: list[float]
    floor: float
    most: bool = False  # the bound is from above
    unit: str = ""

    @property
    def median(self) -> float:
        """The value that counts."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        """Whether the bound holds."""
        return self.median <= self.floor if self.most else self.median >= self.floor


def ratios(ours: Side, theirs: Side, repeats: int, turns: int) -> list[float]:
    """Return their time over our time, one value a repeat; who goes first alternates."""
    ours(), theirs()  # warm-up
    values = []
    for _ in range(repeats):
        mine = other = 0.0
        for turn in range(turns):
            if turn % 2:
                other += theirs()
                mine += ours()
            else:
                mine += ours()
                other += theirs()
        values.append(other / mine)
    return values


def timed(steps: Callable[[], Any]) -> float:
    """Return how many seconds a call took."""
    begun = time.perf_counter()
    steps()
    return time.perf_counter() - begun


def actions(n: int, steps: int) -> np.ndarray:
    """Return random HalfCheetah actions, (steps, n, 6) float32."""
    return np.random.default_rng(0).uniform(-1, 1, (steps, n, 6)).astype(np.float32)


def episodes(env: Any, plan: Any, turn: int) -> Side:
    """Return the side that steps an env through a plan of actions, some steps a turn, with uncounted resets."""
    env.reset()
    position = 0

    def side() -> float:
        nonlocal position
        if position == len(plan):
            env.reset()
            position = 0
        part, position = plan[position : position + turn], position + turn
        return timed(lambda: [env.step(action) for action in part])

    return side


def ours_256() -> Any:
    return gym.make_vec(CHEETAH, ROWS, threads=CORES)


def physics_alone(repeats: int) -> list[float]:
    """Measure the batch against `mujoco.batch` alone: same model, states and controls, 2 threads."""
    env, plan = ours_256(), actions(ROWS, 40)
    env.reset(seed=0)
    batch = Batch(env.unwrapped.variant.body.compile(), ROWS, CORES)
    start = env.unwrapped.engine.physics().get_state()

    class Bare:
        ctrl = batch.bind("ctrl")

        def reset(self) -> None:
            batch.state[:] = start

        def step(self, action: np.ndarray) -> None:
            self.ctrl[:] = action
            batch.step(None, 5)

    return ratios(episodes(env, plan, 2), episodes(Bare(), plan, 2), repeats, 10)


def envpool_256() -> Any:
    import envpool

    return envpool.make("HalfCheetah-v5", env_type="gymnasium", num_envs=ROWS, batch_size=ROWS, num_threads=CORES)


def single(repeats: int) -> list[float]:
    """Measure a single env against Gymnasium's, in episodes of 200 steps without their resets."""
    plan = list(actions(1, EPISODE)[:, 0])
    sides = (episodes(gym.make(id), plan, EPISODE // 4) for id in (CHEETAH, "HalfCheetah-v5"))
    return ratios(*sides, repeats, 60)


def setting_tasks(id: str, split: str, repeats: int) -> list[float]:
    """Measure a step of 256 rows over the pinning of 256 new tasks."""
    env = gym.make_vec(id, ROWS, split=split, threads=CORES)
    engine: Engine = env.unwrapped.engine
    drawn = itertools.cycle([tasks.sample(engine.variant, split, ROWS, seed) for seed in range(20)])

    def pin() -> float:
        task = next(drawn)
        return timed(lambda: engine.pin(None, task))

    return ratios(pin, episodes(env, actions(ROWS, 20), 1), repeats, 20)


def analytic(id: str, loop: type[loops.Loop], repeats: int) -> list[float]:
    """Measure a family in closed form against the same arithmetic as bare NumPy, which is checked to be the same."""
    env = gym.make_vec(id, MANY)
    env.reset(seed=0)
    engine: Engine = env.unwrapped.engine
    bare = loop(engine.seed.copy(), engine.task, engine.variant.horizon)
    space, rng = engine.variant.action_space, np.random.default_rng(0)
    count = engine.variant.horizon + 1
    plan = [
        rng.uniform(-1, 1, (MANY, 2)).astype(np.float32)
        if isinstance(space, gym.spaces.Box)
        else rng.integers(0, space.n, MANY)
        for _ in range(count)
    ]
    for action in 2 * plan:
        for mine, theirs in zip(env.step(action)[:4], bare.step(action), strict=True):
            assert np.array_equal(mine, theirs), f"{id}: the bare loop computes something else"
    return ratios(
        lambda: timed(lambda: [env.step(action) for action in plan]),
        lambda: timed(lambda: [bare.step(action) for action in plan]),
        repeats,
        max(4, 1000 // count),
    )


def scoring_share(repeats: int) -> list[float]:
    """Return the share of its wall time that scoring a random agent on 40 cheetahs spends inside `mujoco.batch`.

    20 episodes of each task; a `Batch` whose `step` is timed takes the place of the real one.
    """
    inside = 0.0

    class Timed(Batch):  # type: ignore[misc]
        def step(self, *arguments: Any) -> None:
            nonlocal inside
            inside += timed(lambda: super(Timed, self).step(*arguments))

    def share() -> float:
        nonlocal inside
        inside = 0.0
        wall = timed(lambda: kshot.evaluate("random", CHEETAH, episodes=20, threads=CORES))
        return inside / wall

    with unittest.mock.patch("kshot.physics.cpu.Batch", Timed):
        share()
        return [share() for _ in range(repeats)]


def ucb1_seconds(repeats: int) -> list[float]:
    """Return how long UCB1 takes on 10,000 bandits of 10 arms and 100 pulls."""
    tasks.frozen(kshot.variant("Bandit-k10n100-v0"), "test")  # drawn once a process
    return [timed(lambda: kshot.evaluate("ucb1", "kshot/Bandit-k10n100-v0")) for _ in range(repeats)]


def import_seconds(repeats: int) -> list[float]:
    """Return what `import kshot` adds to the import of Gymnasium, in new processes."""

    def run(code: str) -> float:
        return timed(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    plain, more = "import gymnasium", "import gymnasium, kshot"
    run(plain), run(more)
    return [-run(plain) + run(more) for _ in range(repeats)]


def measure(only: str, repeats: int) -> Iterator[Line]:
    """Yield one line after the other."""

    def against(make: Callable[[], Any], turns: int) -> list[float]:
        plan = actions(ROWS, 40)
        return ratios(episodes(ours_256(), plan, 2), episodes(make(), plan, 2), repeats, turns)

    def gymnasium_256() -> Any:
        return gym.make_vec("HalfCheetah-v5", ROWS, vectorization_mode="sync")

    slippery = "kshot/HalfCheetahDir-v0", "ood-slippery"
    plan: list[tuple[Line, Callable[[], list[float]]]] = [
        (Line("HalfCheetahVel × 256 / mujoco.batch alone", [], 0.95), lambda: physics_alone(repeats)),
        (Line("HalfCheetahVel × 256 / EnvPool", [], 1.3), lambda: against(envpool_256, 8)),
        (Line("HalfCheetahVel × 256 / SyncVectorEnv", [], 1.8), lambda: against(gymnasium_256, 6)),
        (Line("PointGoal × 4096 / bare NumPy", [], 0.6), lambda: analytic("kshot/PointGoal-v0", loops.Point, repeats)),
        *(
            (
                Line(f"Bandit-{name} × 4096 / bare NumPy", [], 0.6),
                lambda name=name: analytic(f"kshot/Bandit-{name}-v0", loops.Bandit, repeats),  # type: ignore[misc]
            )
            for name in ("k5n10", "k5n100")
        ),
        (
            Line("TabularMDP-n10 × 4096 / bare NumPy", [], 0.6),
            lambda: analytic("kshot/TabularMDP-n10-v0", loops.TabularMDP, repeats),
        ),
        (Line("HalfCheetahVel single / Gymnasium's HalfCheetah", [], 0.85), lambda: single(repeats)),
        (Line("step × 256 / setting 256 velocities", [], 1.0), lambda: setting_tasks(CHEETAH, "train", repeats)),
        (Line("step × 256 / setting 256 frictions", [], 1.0), lambda: setting_tasks(*slippery, repeats)),
        (Line("evaluate, 40 cheetahs × 20 episodes: share of mujoco.batch", [], 0.85), lambda: scoring_share(repeats)),
        (
            Line("evaluate, UCB1 on 10,000 bandits k10n100", [], 10.0, most=True, unit=" s"),
            lambda: ucb1_seconds(repeats),
        ),
        (Line("import kshot after gymnasium", [], 0.5, most=True, unit=" s"), lambda: import_seconds(repeats)),
    ]
    for line, run in plan:
        if only.lower() in line.name.lower():
            line.values = run()
            yield line


@contextmanager
def two_cores() -> Iterator[None]:
    """Keep this process, its threads and its children on two cores."""
    if hasattr(os, "sched_setaffinity"):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(before)[:CORES])
        yield
        os.sched_setaffinity(0, before)
    else:
        yield


def main(
    path: Annotated[Path | None, typer.Option("--json", help="Write the measurements there too.")] = None,
    only: Annotated[str, typer.Option(help="Measure only lines whose name holds this word.")] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Pairs of runs a line.")] = 9,
) -> None:
    """Measure, print a table, and exit with 1 where a floor is missed."""
    # Gymnasium's HalfCheetah warns at every compilation.
    mujoco.set_mju_user_warning(lambda message: None)
    lines = []
    table = Table("what", "median", "min – max", "floor", "", title=f"kshot {kshot.__version__}, {CORES} cores")
    with two_cores():
        for line in measure(only, repeats):
            lines.append(line)
            spread = f"{min(line.values):.2f} – {max(line.values):.2f}"
            bound = f"{'≤' if line.most else '≥'} {line.floor:g}{line.unit}"
            table.add_row(
                line.name, f"{line.median:.2f}{line.unit}", spread, bound, "ok" if line.met else "[red]MISSED"
            )
    Console(width=110).print(table)
    if path is not None:
        measured = [{**asdict(line), "median": line.median, "met": line.met} for line in lines]
        path.write_text(json.dumps({"cores": CORES, "lines": measured}, indent=1) + "\n")
    raise typer.Exit(not all(line.met for line in lines))


if __name__ == "__main__":
    typer.run(main)
