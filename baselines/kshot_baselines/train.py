"""Training: the loop around any method, with selection on val, state that can be resumed, and the final scores.

The score that selects is the mean return on the first tasks of `val` after adaptation: of the last episode of a
trial; where whole trials are scored, of a trial; of the second round, the first after an update, where an agent runs
several episodes before one. `test`, `train` and the out-of-distribution splits are read once, by the finished run,
with the weights of the best score.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from kshot import tasks
from kshot.agents import Agent
from kshot.agents.torch import Draws
from kshot.evaluation import evaluate
from kshot.family import Variant
from kshot.leaderboard import file_name
from kshot.results import Result
from kshot_baselines.checkpoint import encode, first_not_finite, header_of, load_agent, load_state, save_state
from kshot_baselines.learner import Learner, Weights
from kshot_baselines.logs import Log, open_log
from kshot_baselines.methods import method
from kshot_baselines.runs import Run, check_settings, held_result, is_done, locked
from kshot_baselines.signals import Stop, Stopped, stop_at_signals

EVALUATIONS = 20  # on val, over training, beside one at the start
SHARE = 0.1  # at most, of the budget's steps, that evaluations on val take; they cost a fraction of training's
TASKS = (20, 1000)  # of val, at least and at most
SAVE_EVERY = 180.0  # seconds between states
LOG_POINTS = 2000  # of a curve in TensorBoard, about


class DivergedError(RuntimeError):
    """Training gave a number that is none."""


class Selection(NamedTuple):
    """How weights are scored on val."""

    evaluations: int  # over training
    tasks: int
    episodes: int  # a task


class Status(NamedTuple):
    """How far a run is, for whoever looks."""

    what: str  # it is doing
    fraction: float  # of that
    returns: float  # mean of the episodes sampled last; nan where not known
    score: float  # the last on val
    rate: float  # steps/s of sampling and updates, since the start or the resumption


Report = Callable[[Status], None]


@dataclass
class Progress:
    """What a run holds beside its learner."""

    iteration: int = 0
    seconds: float = 0.0  # of sampling and updates
    curve: list[tuple[int, float]] = field(default_factory=list)  # (steps, score on val)
    best: Weights = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)  # of the iteration before each point of the curve

    def get_state(self) -> dict[str, Any]:
        """Return it as a state."""
        curve = [list(point) for point in self.curve]
        return {
            "iteration": self.iteration, "seconds": self.seconds, "curve": curve, "best": dict(self.best),
            "metrics": [dict(m) for m in self.metrics],
        }  # fmt: skip

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Progress:
        """Undo `get_state`."""
        curve = [(steps, score) for steps, score in state["curve"]]
        return cls(state["iteration"], state["seconds"], curve, state["best"], state["metrics"])


def train(run: Run, *, resume: bool = False, report: Report | None = None, wandb: bool = False) -> list[Path]:
    """Train, select on val, score once, and return the paths of the results; a run that is done is not repeated.

    Args:
        run: what to train and where its files go.
        resume: go on from the state in its folder, to the same curve; without one, start.
        report: called with how far it is.
        wandb: show the curves on Weights & Biases, too.

    Raises:
        ValueError: where the folder or the results hold a run of other settings, or a begun one and not `resume`.
        RuntimeError: where another process is at work in the folder.
        DivergedError: where a metric or weight is not finite; the last good state and the best weights stay.
        Stopped: after SIGINT or SIGTERM, once the state is saved.
    """
    paths = [run.result(split) for split in run.variant.scored_splits]
    with locked(run):
        if is_done(run):
            return paths
        check_settings(run)
        if run.state.exists() and not resume:
            raise ValueError(f"{run.folder} holds a begun run; go on with --resume, or remove it")
        with ExitStack() as stack:
            stop = stack.enter_context(stop_at_signals())
            learner = method(run.method).learner(run.variant, run.config, run.seed, run.device)
            progress = _begin(run, learner)
            log = stack.enter_context(open_log(run, learner.steps, wandb))
            _learn(run, learner, progress, log, stop, report or _silent)
            write_weights(run, learner.steps, progress, run.weights)
        with stop_at_signals() as stop:
            for split in run.variant.scored_splits:
                _score(run, split, stop, _scoring(report or _silent, split))
    return paths


def selection(variant: Variant, steps: int, round_: int, adapts: bool, least_episodes: int = 1) -> Selection:
    """Return how weights are scored on val, so that it stays a small share of a budget of steps."""
    trial = variant.trial if adapts or variant.scored_by_trial else 1
    episodes = max(trial, 2 * round_ if adapts and round_ > 1 else round_)
    if not variant.scored_by_trial:
        episodes = max(episodes, least_episodes)
    affordable = SHARE * steps / (episodes * variant.horizon)  # tasks, of all evaluations
    least = min(TASKS[0], tasks.frozen_size(variant, "val"))
    most = min(TASKS[1], tasks.frozen_size(variant, "val"))
    evaluations = max(1, min(EVALUATIONS, int(affordable / least)))
    return Selection(evaluations, max(least, min(most, int(affordable / evaluations))), episodes)


def score_of(result: Result, variant: Variant) -> float:
    """Return the mean return of the last round of episodes or quarter of them, or of all for what does not adapt."""
    units = result.units()
    last = max(1, result.agent.round // (variant.trial if variant.scored_by_trial else 1), units.shape[1] // 4)
    return float(units[:, -last:].mean() if result.agent.adapts else units.mean())


def write_weights(run: Run, steps: int, progress: Progress, path: Path) -> None:
    """Write the best weights so far as a checkpoint."""
    header = header_of(
        run.method, run.variant, run.config, run.seed, training_steps=steps, command=run.command, device=run.device,
        seconds=progress.seconds, curve=progress.curve, metrics=progress.metrics,
    )  # fmt: skip
    tasks.write_bytes(path, encode(header, progress.best))


def _begin(run: Run, learner: Learner) -> Progress:
    """Go on from the state in the folder, where there is one."""
    if not run.state.exists():
        return Progress()
    state = load_state(run.state)
    learner.set_state(state["learner"])
    return Progress.of_state(state["progress"])


def _save(run: Run, learner: Learner, progress: Progress) -> None:
    save_state(run.state, {"learner": learner.get_state(), "progress": progress.get_state()})


def _learn(run: Run, learner: Learner, progress: Progress, log: Log, stop: Stop, report: Report) -> None:
    """Iterate up to the budget, and leave the state of the end."""
    if not run.state.exists():
        _save(run, learner, progress)
    budget, saved, plan = run.config.steps, time.monotonic(), _plan(run, learner)
    first, begun = learner.steps, progress.seconds
    metrics: dict[str, float] = {}
    while True:
        if _is_due(progress.curve, learner.steps, budget, plan.evaluations):
            _evaluate(run, learner, progress, plan, log, metrics)
        if learner.steps >= budget:
            break
        if stop.asked or time.monotonic() - saved > SAVE_EVERY:
            _save(run, learner, progress)
            saved = time.monotonic()
        if stop.asked:
            raise Stopped(f"stopped at {learner.steps} of {budget} steps; {run.state} is saved")
        before, clock = learner.steps, time.perf_counter()
        metrics = learner.iterate()
        spent = time.perf_counter() - clock
        progress.iteration, progress.seconds = progress.iteration + 1, progress.seconds + spent
        _refuse_not_finite(run, learner, metrics, progress)
        if _passes(before, learner.steps, budget, LOG_POINTS):
            log({**metrics, "steps/s": (learner.steps - before) / spent}, learner.steps)
        done, rate = min(1.0, learner.steps / budget), (learner.steps - first) / (progress.seconds - begun)
        report(Status("train", done, metrics.get("return", math.nan), _last(progress), rate))
    _save(run, learner, progress)


def _plan(run: Run, learner: Learner) -> Selection:
    agent = _agent(run, learner.weights())
    return selection(
        run.variant, run.config.steps, getattr(agent, "round", 1), getattr(agent, "adapts", True),
        getattr(agent, "least_episodes", 1),
    )  # fmt: skip


def _agent(run: Run, weights: Weights) -> Agent:
    with Draws(run.seed).own(torch.device("cpu")):  # building networks draws numbers that are none of the learner's
        return method(run.method).agent(run.variant, run.config, weights, run.seed)


def _evaluate(
    run: Run, learner: Learner, progress: Progress, plan: Selection, log: Log, metrics: dict[str, float]
) -> None:
    """Score the weights on val, and keep them where they are the best, and the metrics of the last iteration."""
    weights = {name: x.clone() for name, x in learner.weights().items()}
    with Draws(run.seed).own(torch.device(run.device)):
        result = evaluate(
            _agent(run, weights), run.variant.id, split="val", episodes=plan.episodes, num_tasks=plan.tasks,
            seed=run.seed,
        )  # fmt: skip
    score = score_of(result, run.variant)
    is_best = not progress.curve or score > max(old for _, old in progress.curve)
    progress.curve.append((learner.steps, score))
    progress.metrics.append(metrics)
    log({"val": score}, learner.steps)
    if is_best:
        progress.best = weights
        write_weights(run, learner.steps, progress, run.best)


def _is_due(curve: list[tuple[int, float]], steps: int, budget: int, evaluations: int) -> bool:
    """Return whether an evaluation is due: at the start, where a part of the budget is spent, and at the end."""
    return not curve or _passes(curve[-1][0], steps, budget, evaluations)


def _passes(before: int, after: int, budget: int, parts: int) -> bool:
    """Return whether steps pass a border between equal parts of a budget."""
    return budget > 0 and after * parts // budget > before * parts // budget


def _refuse_not_finite(run: Run, learner: Learner, metrics: dict[str, float], progress: Progress) -> None:
    """Raise DivergedError where a metric or a weight is not finite."""
    bad = next((f"the metric {name!r} is {x}" for name, x in metrics.items() if not np.isfinite(x)), None)
    name = None if bad else first_not_finite(learner.weights())
    if name is not None:
        bad = f"the weight {name!r} is not finite"
    if bad:
        raise DivergedError(
            f"{bad} in iteration {progress.iteration}, after {learner.steps} steps; the last good state is in "
            f"{run.state}, the best weights in {run.best}; try a smaller learning rate, or another seed"
        )


def _score(run: Run, split: str, stop: Stop, progress: Callable[[float], None]) -> None:
    """Evaluate the finished run on a split and put the result in place, with the command that makes it again."""
    agent = load_agent(run.weights, run.variant, run.seed)
    held = held_result(run, split)
    if held is not None and held.agent.config["checkpoint_sha256"] == agent.config["checkpoint_sha256"]:  # type: ignore[attr-defined]
        return

    def watch(fraction: float) -> None:
        if stop.asked:
            raise Stopped(f"stopped while scoring {split}; {run.state} is saved")
        progress(fraction)

    result = evaluate(agent, run.variant.id, split=split, seed=run.seed, progress=watch)
    result = result.model_copy(update={"command": run.command})
    assert run.result(split).name == file_name(result)
    result.save(run.result(split))


def _scoring(report: Report, split: str) -> Callable[[float], None]:
    return lambda fraction: report(Status(f"score {split}", fraction, math.nan, math.nan, math.nan))


def _last(progress: Progress) -> float:
    return progress.curve[-1][1] if progress.curve else math.nan


def _silent(status: Status) -> None:
    """Tell nobody."""
