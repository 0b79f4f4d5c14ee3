"""A result run again: on the tasks it was taken on, and on a fresh draw of their law."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from kshot import evaluation, random, statistics, tasks
from kshot.agents import Agent, is_checkpoint, make_agent
from kshot.leaderboard import UNTRAINED, checkpoint, is_sample, load, other_key
from kshot.registry import variant as find_variant
from kshot.results import Result

ALPHA = 0.01  # of the test between the frozen tasks and one fresh draw
# How far a return may be off on an analytic family, as a fraction of the largest. Agents that ship compute what every
# machine computes alike; policy files are float64, where only sums of BLAS differ; other agents may be float32.
FLOORS = {"ships": 0.0, "file": 1e-5, "checkpoint": 1e-4, "other": 1e-4}
# Part of the tasks whose returns may be off by more, of checkpoints: they draw actions by float32 numbers, whose last
# digit differs between processors; where it tips a draw, the rest of the task goes another way.
TIPPED = 0.01
TOLERANCE = 0.01  # of the mean return, on MuJoCo
CHANCE = 0.0027  # two-sided, of 3 standard errors of a normal
# Bounds on what a task's mean return may differ by, on MuJoCo: fractions of the spread between tasks, and of the
# standard error that noise between episodes gives a task's mean (two independent runs differ by √2 of these).
OF_SPREAD, OF_NOISE = 0.5, 2.5
Outcome: TypeAlias = Literal["bit for bit", "within tolerance", "differs"]
Fresh: TypeAlias = Literal["same", "differs", "not drawn"]
Progress: TypeAlias = Callable[[float], None] | None
Kind: TypeAlias = Literal["ships", "file", "checkpoint", "other"]  # what an agent is made from


class Verdict(NamedTuple):
    """Whether a result came out again, and holds on other tasks of its split."""

    again: Outcome
    detail: str
    fresh: Fresh
    fresh_detail: str

    @property
    def ok(self) -> bool:
        """Neither differs."""
        return "differs" not in (self.again, self.fresh)

    def __str__(self) -> str:
        return f"run again: {self.again} ({self.detail})\nfresh tasks: {self.fresh} ({self.fresh_detail})"


class _Maker(NamedTuple):
    """How to make a result's agent with a seed."""

    make: Callable[[int], Agent]
    kind: Kind


def verify(
    result: Result | str | os.PathLike[str],
    agent: Any = None,
    *,
    tolerance: float | None = None,
    fresh_seed: int | None = None,
    threads: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Verdict:
    """Evaluate a result's agent again, on the same tasks and on fresh ones of the same law.

    The config must be that of the agent made again, where it ships or is a file. On analytic families all successes
    and lengths must be the same, and every return to `FLOORS`, but for a method's checkpoint on `TIPPED` of the
    tasks; where it goes on updating, each update makes rounding's differences larger, so that this holds up to its
    second, and what follows is compared as on MuJoCo. On MuJoCo, whose last digits depend on the
    processor and whose bodies are chaotic, runs are compared task by task: the mean difference of every episode, and
    of all together, is within `TOLERANCE` of the mean or 3 paired standard errors (more where many episodes are
    compared: `CHANCE` for all together), that of successes and lengths within the latter; and what a task's mean
    differs by, as a root mean square over tasks, is within `OF_SPREAD` of the spread between tasks, or `OF_NOISE`
    standard errors of such a mean by the noise between its episodes, or `TOLERANCE` of the mean.

    The fresh tasks' seed is from the operating system, so no training run can have had them. Welch's test at level
    `ALPHA` compares their mean return with the frozen tasks'; where it differs, a second, independent draw, of the
    next seed, decides: "differs" only where both do.

    Args:
        result: or its path.
        agent: what `make_agent` takes; None for the policy file beside the result whose SHA-256 it names, or for the
            agent that ships under the recorded name, with the recorded config.
        tolerance: how far returns may be off: on analytic families each, as a fraction of the largest; on MuJoCo
            their mean, as a fraction of it. None: as above.
        fresh_seed: of the fresh tasks, from 1, as a verdict shows it, to repeat that.
        threads: of physics.
        progress: called with the fraction done.

    Raises:
        ResultError: where the file is no result on today's tasks.
        ValueError: where the agent is unknown, or another than the result's, or the seed is none.
    """
    if fresh_seed is not None and not 1 <= fresh_seed < 2**63:
        raise ValueError(f"fresh_seed is {fresh_seed}; expected 1 to 2**63 - 1: the frozen tasks are those of 0")
    old = result if isinstance(result, Result) else load(result)
    v, (make, kind) = (
        find_variant(old.variant),
        _maker(old, None if isinstance(result, Result) else Path(result), agent),
    )
    first = None if progress is None else evaluation.part(progress, 0, 2)
    new = evaluation.evaluate(
        make(old.seed), v.id, split=old.split, episodes=old.episodes, seed=old.seed, num_tasks=old.tasks.n,
        threads=threads, progress=first,
    )  # fmt: skip
    if (new.agent.name, new.agent.round) != (old.agent.name, old.agent.round):
        raise ValueError(
            f"the agent is {new.agent.name!r} of round {new.agent.round}; "
            f"the result is of {old.agent.name!r} of round {old.agent.round}"
        )
    second = None if progress is None else evaluation.part(progress, 1, 2)
    seed = 1 + secrets.randbits(62) if fresh_seed is None else fresh_seed
    draw = partial(_fresh, old, make, threads)
    return Verdict(*_compare_runs(old, new, kind, tolerance), *_compare_fresh(old, draw, seed, second))


def _maker(old: Result, path: Path | None, agent: Any) -> _Maker:
    """Return how to make the agent, from what is given, the policy file beside the result, or its name."""
    v = find_variant(old.variant)
    if agent is not None:
        return _Maker(lambda seed: make_agent(agent, v, seed), _kind(agent))
    weights = None if path is None else checkpoint(old, path.parent)
    if weights is not None:
        return _Maker(lambda seed: make_agent(weights, v, seed), _kind(weights))
    if old.agent.name in UNTRAINED:
        return _Maker(lambda seed: make_agent(old.agent.name, v, seed, **old.agent.config), "ships")
    name = old.agent.config.get("checkpoint")
    beside = f"put its policy file {name} beside the result, or " if name else ""
    raise ValueError(
        f"{old.agent.name!r} does not ship with kshot: {beside}name the agent to run again, as module:attribute"
    )


def _kind(agent: Any) -> Kind:
    """Return what `make_agent` makes an agent from."""
    if not isinstance(agent, (str, os.PathLike)):
        return "other"
    name = os.fsdecode(agent)
    if name in UNTRAINED or not name.lower().endswith(".safetensors"):
        return "ships" if name in UNTRAINED else "other"
    return "checkpoint" if is_checkpoint(name) else "file"


def _units(result: Result) -> np.ndarray:
    """Return what is scored; of less than a trial, the returns of its episodes."""
    units = result.units()
    return units if units.shape[1] else np.asarray(result.returns)


def _compare_runs(old: Result, new: Result, kind: Kind, tolerance: float | None) -> tuple[Outcome, str]:
    """Say whether two runs of the same agent gave the same."""
    for name in ("privileged", "adapts", "first_update"):
        if (was := getattr(old.agent, name)) != (now := getattr(new.agent, name)):
            return "differs", f"agent.{name} was {was}, now {now}"
    then, today = old.agent.config, new.agent.config
    if kind != "other" and (key := other_key(then, today)) is not None:
        return "differs", f"agent.config {key!r} was {then.get(key)!r}, now {today.get(key)!r}"
    if all(getattr(old, x) == getattr(new, x) for x in ("returns", "successes", "lengths", "within", "diverged")):
        return "bit for bit", f"{old.tasks.n} tasks × {old.episodes} episodes"
    for name in ("successes", "within"):
        if (getattr(old, name) is None) != (getattr(new, name) is None):
            return "differs", f"{name} are there in one run only"
    for name in ("returns", "within"):
        if (was := np.shape(getattr(old, name))) != (now := np.shape(getattr(new, name))):
            return "differs", f"{name} were of shape {was}, now {now}"
    if find_variant(old.variant).body is not None:
        found = _by_task(old, new, tolerance)
    else:
        found = _by_number(old, new, kind, tolerance)
    lost = "" if old.versions == new.versions else f"; versions then {old.versions}, now {new.versions}"
    return ("differs" if found[0] else "within tolerance"), found[1] + lost


def _by_return(old: Result, new: Result, fraction: float) -> tuple[bool, str]:
    """Say whether runs on an analytic family differ: successes and lengths exactly, numbers by more than a fraction."""
    for name in ("successes", "lengths", "diverged"):
        if getattr(old, name) != getattr(new, name):
            return True, f"{name} are not the same"
    detail = ""
    for name in ("within", "returns"):
        if getattr(old, name) is None:
            continue
        a, b = (np.asarray(getattr(r, name), float) for r in (old, new))
        off, allowed = np.abs(a - b), fraction * float(np.abs(b).max())
        at = np.unravel_index(int(off.argmax()), off.shape)
        where = "step {}" if name == "within" else "task {}, episode {}"
        detail = f"{where.format(*at)}: {a[at]:.6g}, now {b[at]:.6g}, allowed ± {allowed:.2g}"
        if off[at] > allowed or (fraction == 0 and off[at] > 0):
            return True, detail
    return False, detail


def _by_number(old: Result, new: Result, kind: Kind, tolerance: float | None) -> tuple[bool, str]:
    """Say whether runs on an analytic family differ; those of checkpoints, after two updates, as chaotic bodies do."""
    fraction = FLOORS[kind] if tolerance is None else tolerance
    if kind != "checkpoint":
        return _by_return(old, new, fraction)
    found, first = _by_most_tasks(old, new, fraction), old.agent.first_update
    if not found[0] or not first or tolerance is not None:
        return found
    found = _by_most_tasks(old, new, fraction, first + old.agent.round)
    return found if found[0] else _by_task(old, new, None)


def _by_most_tasks(old: Result, new: Result, fraction: float, episodes: int | None = None) -> tuple[bool, str]:
    """Say whether runs on an analytic family differ in more than `TIPPED` of the tasks, or by as much in `within`.

    `episodes` are how many are compared, from the first; None: all.
    """
    a, b = (np.asarray(r.returns)[:, :episodes] for r in (old, new))
    allowed = fraction * float(np.abs(b).max())
    off = (np.abs(a - b) > allowed).any(1)
    for name in ("successes", "lengths"):
        if getattr(old, name) is not None:
            x, y = (np.asarray(getattr(r, name))[:, :episodes] for r in (old, new))
            off |= (x != y).any(1)
    count, most = int(off.sum()), math.ceil(TIPPED * len(off))
    detail = f"{count} of {len(off)} tasks are off by more than {allowed:.2g}, allowed are {most}"
    if count > most or old.within is None or new.within is None:
        return count > most, detail
    x, y = np.asarray(old.within), np.asarray(new.within)
    far, bound = float(np.abs(x - y).max()), (fraction + TIPPED) * float(np.abs(y).max())
    return far > bound, f"{detail}; within is off by {far:.2g}, allowed {bound:.2g}"


def _by_task(old: Result, new: Result, tolerance: float | None) -> tuple[bool, str]:
    """Say whether runs on MuJoCo differ, task by task."""
    a, b = _units(old), _units(new)
    fraction, chance = (TOLERANCE, CHANCE) if tolerance is None else (tolerance, None)
    differs, detail = _by_mean("mean", a, b, fraction, chance)
    if differs:
        return True, detail
    for name in ("successes", "lengths"):
        if getattr(old, name) is not None:
            x, y = (np.asarray(getattr(r, name), float) for r in (old, new))
            found = _by_mean(f"mean of {name}", x, y, tolerance or 0.0, CHANCE)
            if found[0]:
                return found
    off = math.sqrt(float(((a.mean(1) - b.mean(1)) ** 2).mean()))
    allowed = max(_agreement(b), fraction * abs(float(b.mean())))
    if off > allowed:
        return True, f"returns of a task differ by {off:.6g} (root mean square), allowed {allowed:.2g}"
    return False, detail


def _by_mean(what: str, a: np.ndarray, b: np.ndarray, fraction: float, chance: float | None) -> tuple[bool, str]:
    """Say whether means over tasks of (tasks, episodes) differ, of an episode or of all, with the one furthest off.

    Allowed is a fraction of the mean, or what `chance` leaves to the paired differences, whichever is more.
    """
    a, b = (np.hstack([x, x.mean(1, keepdims=True)]) for x in (a, b))
    n, count = b.shape
    error = np.zeros(count)
    if chance is not None and n > 1:
        factor = max(3.0, statistics.t_quantile(1 - chance / 2 / count, n - 1))
        error = factor * (a - b).std(0, ddof=1) / math.sqrt(n)
    # Where every task is off by the same, the error is 0 but for rounding.
    off, allowed = np.abs((a - b).mean(0)), np.maximum(fraction * np.abs(b.mean(0)), error)
    at = int((off - allowed).argmax())
    where = "all episodes" if at == count - 1 else f"episode {at}"
    detail = f"{where}: {what} {a[:, at].mean():.6g}, now {b[:, at].mean():.6g}, allowed ± {allowed[at]:.2g}"
    return bool(off[at] > allowed[at]), detail


def _agreement(returns: np.ndarray) -> float:
    """Return how far the mean returns of a task may be apart in two runs of (tasks, episodes), in the mean square.

    Returns that were shuffled over tasks are √2 spreads apart. They pass where noise makes most of the spread, as it
    does for random actions on an ant: there a run on another processor is as far from the first. One episode does
    not tell noise.
    """
    n, k = returns.shape
    if n < 2:
        return 0.0
    means = returns.mean(1)
    noise = 0.0
    if k > 1:
        left = returns - means[:, None] - returns.mean(0) + returns.mean()  # neither of the task nor of adaptation
        noise = math.sqrt(float((left**2).sum()) / ((n - 1) * (k - 1)) / k)
    return max(OF_SPREAD * float(means.std(ddof=1)), OF_NOISE * noise)


def _compare_fresh(
    old: Result, draw: Callable[[int, Progress], Result], seed: int, progress: Progress
) -> tuple[Fresh, str]:
    """Say whether tasks that nobody has seen score otherwise, in each of two draws: `draw` takes their seed."""
    if not is_sample(old.variant, old.split, old.tasks.n):
        return "not drawn", "the tasks are all of a finite law"
    if old.tasks.n < 2:
        return "not drawn", "one task tells nothing of its law"
    differs, detail = _welch(old, draw(seed, progress), f"seed {seed}")
    if not differs:
        return "same", detail
    # An honest agent differs in a draw now and then (`ALPHA`), in two far more rarely.
    both, more = _welch(old, draw(seed + 1, None), f"seed {seed + 1}")
    return ("differs" if both else "same"), f"{detail}; {more}"


def _welch(old: Result, fresh: Result, what: str) -> tuple[bool, str]:
    """Say whether task means differ, by Welch's test."""
    a, b = _units(old).mean(1), _units(fresh).mean(1)
    parts = np.array([a.var(ddof=1), b.var(ddof=1)]) / len(a)
    difference, error = float(b.mean() - a.mean()), math.sqrt(parts.sum())
    freedom = parts.sum() ** 2 / (parts**2).sum() * (len(a) - 1) if error else 1.0
    bound = statistics.t_quantile(1 - ALPHA / 2, float(freedom)) * error
    return abs(difference) > bound, (
        f"{what}: mean {b.mean():.6g}, on the frozen ones {a.mean():.6g}: {difference:+.2g}, "
        f"by chance up to ± {bound:.2g}"
    )


def _fresh(old: Result, make: Callable[[int], Agent], threads: int, seed: int, progress: Progress) -> Result:
    """Evaluate on as many tasks of the split's law, in the stream of a seed, with noise of its own."""
    v, n, size = find_variant(old.variant), old.tasks.n, old.agent.round
    task, seeds = tasks.sample(v, old.split, n, seed), random.row_seeds(seed, n)
    who = make(seed % 2**31)  # what a user's agent seeds may take no more bits
    turns = np.array_split(np.arange(n), math.ceil(n * size / evaluation.MAX_ROWS))
    done = []
    with evaluation.closing(who):
        for i, turn in enumerate(turns):
            report = None if progress is None else evaluation.part(progress, i, len(turns))
            chosen, rounds = tasks.take(task, turn), old.episodes // size
            done.append((turn, evaluation.run(who, v, old.split, chosen, seeds[turn], size, rounds, threads, report)))
    return old.model_copy(update={"returns": evaluation.table(done, n, size, "returns").tolist()})
