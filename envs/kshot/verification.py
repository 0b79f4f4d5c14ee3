"""A result run again: on the tasks it was taken on, and on a fresh draw of their law."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from kshot import evaluation, random, statistics, tasks
from kshot.agents import Agent, make_agent
from kshot.family import Variant
from kshot.leaderboard import UNTRAINED, checkpoint, is_sample, load
from kshot.registry import variant as find_variant
from kshot.results import Result

ALPHA = 0.01  # of the test between the frozen tasks and a fresh draw
TOLERANCE = 0.01  # of the mean return, between processors, where the last digits depend on them
Outcome: TypeAlias = Literal["bit for bit", "within tolerance", "differs"]
Fresh: TypeAlias = Literal["same", "differs", "not drawn"]


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


def verify(
    result: Result | str | os.PathLike[str],
    agent: Any = None,
    *,
    tolerance: float | None = None,
    threads: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Verdict:
    """Evaluate a result's agent again, on the same tasks and on fresh ones of the same law.

    Args:
        result: or its path.
        agent: what `make_agent` takes; None for the policy file beside the result whose SHA-256 it names, or for the
            agent that ships under the recorded name, with the recorded config.
        tolerance: how far a score may be off, as a fraction of it. None: 0 for agents that ship, on analytic families,
            so only bit for bit will do; else 1 % or 3 standard errors over tasks, for the last digits of MuJoCo and
            of neural networks depend on the processor.
        threads: of physics.
        progress: called with the fraction done.

    Raises:
        ResultError: where the file is no result on today's tasks.
        ValueError: where the agent is unknown, or another than the result's.
    """
    old = result if isinstance(result, Result) else load(result)
    v, make = find_variant(old.variant), _maker(old, None if isinstance(result, Result) else Path(result), agent)
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
    exact = v.body is None and old.agent.name in UNTRAINED
    second = None if progress is None else evaluation.part(progress, 1, 2)
    return Verdict(*_compare_runs(old, new, exact, tolerance), *_compare_fresh(old, make, v, threads, second))


def _maker(old: Result, path: Path | None, agent: Any) -> Callable[[int], Agent]:
    """Return how to make the agent with a seed."""
    v = find_variant(old.variant)
    if agent is not None:
        return lambda seed: make_agent(agent, v, seed)
    weights = None if path is None else checkpoint(old, path.parent)
    if weights is not None:
        return lambda seed: make_agent(weights, v, seed)
    if old.agent.name in UNTRAINED:
        return lambda seed: make_agent(old.agent.name, v, seed, **old.agent.config)
    name = old.agent.config.get("checkpoint")
    beside = f"put its policy file {name} beside the result, or " if name else ""
    raise ValueError(
        f"{old.agent.name!r} does not ship with kshot: {beside}name the agent to run again, as module:attribute"
    )


def _units(result: Result) -> np.ndarray:
    """Return what is scored; of less than a trial, the returns of its episodes."""
    units = result.units()
    return units if units.shape[1] else np.asarray(result.returns)


def _compare_runs(old: Result, new: Result, exact: bool, tolerance: float | None) -> tuple[Outcome, str]:
    """Say whether two runs of the same agent gave the same."""
    for name in ("privileged", "adapts", "first_update"):
        if (was := getattr(old.agent, name)) != (now := getattr(new.agent, name)):
            return "differs", f"agent.{name} was {was}, now {now}"
    if all(getattr(old, name) == getattr(new, name) for name in ("returns", "successes", "lengths", "within")):
        return "bit for bit", f"{old.tasks.n} tasks × {old.episodes} episodes"
    a, b = _units(old), _units(new)
    fraction = (0.0 if exact else TOLERANCE) if tolerance is None else tolerance
    error = 3 * b.std(0, ddof=1) / math.sqrt(len(b)) if not exact and tolerance is None and len(b) > 1 else 0.0
    off, allowed = np.abs(a.mean(0) - b.mean(0)), np.maximum(fraction * np.abs(b.mean(0)), error)
    at = int((off - allowed).argmax())
    detail = f"episode {at}: mean {a[:, at].mean():.6g}, now {b[:, at].mean():.6g}, allowed ± {allowed[at]:.2g}"
    lost = "" if old.versions == new.versions else f"; versions then {old.versions}, now {new.versions}"
    return "differs" if (fraction == 0 and exact) or off[at] > allowed[at] else "within tolerance", detail + lost


def _compare_fresh(
    old: Result, make: Callable[[int], Agent], variant: Variant, threads: int, progress: Callable[[float], None] | None
) -> tuple[Fresh, str]:
    """Say whether tasks that nobody has seen score otherwise, by Welch's test on task means."""
    if not is_sample(old.variant, old.split):
        return "not drawn", "the frozen set is every task of a finite law"
    if old.tasks.n < 2:
        return "not drawn", "one task tells nothing of its law"
    a, b = _units(old).mean(1), _units(_fresh(old, make, variant, threads, progress)).mean(1)
    parts = np.array([a.var(ddof=1), b.var(ddof=1)]) / len(a)
    difference, error = float(b.mean() - a.mean()), math.sqrt(parts.sum())
    freedom = parts.sum() ** 2 / (parts**2).sum() * (len(a) - 1) if error else 1.0
    bound = statistics._t_quantile(1 - ALPHA / 2, float(freedom)) * error
    detail = f"mean {b.mean():.6g}, on the frozen ones {a.mean():.6g}: {difference:+.2g}, by chance up to ± {bound:.2g}"
    return ("differs" if abs(difference) > bound else "same"), detail


def _fresh(
    old: Result, make: Callable[[int], Agent], variant: Variant, threads: int, progress: Callable[[float], None] | None
) -> Result:
    """Evaluate on as many tasks of the split's law, in a stream that is not the frozen set's, with other noise."""
    n, size, seed = old.tasks.n, old.agent.round, old.seed + 1  # frozen sets are drawn with 0
    task, seeds, who = (
        tasks.sample(variant, old.split, n, seed),
        random.row_seeds(seed, n),
        make(seed),
    )
    turns = np.array_split(np.arange(n), math.ceil(n * size / evaluation.MAX_ROWS))
    done = []
    for i, turn in enumerate(turns):
        report = None if progress is None else evaluation.part(progress, i, len(turns))
        chosen, rounds = tasks.take(task, turn), old.episodes // size
        done.append((turn, evaluation.run(who, variant, old.split, chosen, seeds[turn], size, rounds, threads, report)))
    return old.model_copy(update={"returns": evaluation.table(done, n, size, "returns").tolist()})
