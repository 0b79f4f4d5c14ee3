"""The leaderboard: results gathered, compared and put in place; `kshot.page` shows them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from kshot import evaluation, statistics, tasks
from kshot.agents import agent_of_file, shipped_names
from kshot.agents.policy import PolicyError, read_file
from kshot.family import Variant
from kshot.laws import joint_values
from kshot.registry import variant as find_variant
from kshot.results import AgentCard, NotUpdatedError, Result, ResultError
from kshot.statistics import Floats, Interval

# Agents that ship with kshot and need no training: one seed is enough.
UNTRAINED = shipped_names()
ORACLE = "oracle"  # what trained policies that see the task are called, among the references
PER_RUN = ("seed", "checkpoint", "checkpoint_sha256", "training_steps")  # config that differs between a row's seeds
MAX_CHECKPOINT = 2**20  # bytes of a policy file that is kept with a result
MIN_SEEDS = 3  # fewer are provisional
MANY_CELLS = 3_000  # seeds × tasks above which 500 resamples do
Score: TypeAlias = "Floats | Literal['n/a', '']"  # (seeds, tasks), or why there is none: '' where not evaluated
Group: TypeAlias = list[Result]  # the seeds of one agent on one split
SplitKey: TypeAlias = tuple[str, str]  # variant, split


class Cell(NamedTuple):
    """What a row scored at a budget; ends of intervals are nan where nothing can be resampled."""

    mean: Interval
    iqm: Interval | None
    normalised: float | None  # the mean; None without random and oracle rows on these tasks, and a gap between them


class Row(NamedTuple):
    """All seeds of one agent on one split."""

    agent: AgentCard  # of its first seed
    variant: str
    split: str
    tasks: int
    seeds: tuple[int, ...]
    provisional: bool  # too few training runs, of an agent that does not ship
    not_converged: bool
    training_steps: int | None  # the most of a seed
    commands: tuple[str, ...]  # one a seed
    cells: dict[int, Cell | Literal["n/a", ""]]  # by budget


def load_all(folder: str | os.PathLike[str]) -> list[Result]:
    """Read every result under a folder.

    Raises:
        ResultError: naming the file that is damaged, foreign, of other tasks, there twice, or of an oracle that is
            not the one beside it; or where no folder is.
    """
    if not Path(folder).is_dir():
        raise ResultError(f"{folder} is not a folder of results")
    seen: dict[tuple[Any, ...], Path] = {}
    found = []
    for path in sorted(Path(folder).rglob("*.json")):
        result = load(path)
        key = (result.variant, result.split, result.tasks.n, identity_of(result.agent), result.seed)
        if key in seen:
            raise ResultError(f"{path} and {seen[key]} are the same agent, config, split and seed; remove one")
        if result.agent.name == ORACLE and checkpoint(result, path.parent) is None:
            raise ResultError(
                f"{path} is of an oracle whose policy file is not beside it; run `kshot references` again"
            )
        seen[key] = path
        found.append(result)
    return found


def load(path: str | os.PathLike[str]) -> Result:
    """Read a result of the variants and frozen tasks of this version; ResultError, naming the file, for others."""
    result = Result.load(path)
    try:
        v = find_variant(result.variant)
        v.split(result.split)
    except (KeyError, ValueError) as error:
        raise ResultError(f"{path} is of another version of kshot: {error.args[0]}") from error
    whole = tasks.frozen_size(v, result.split)
    if v.id != result.variant:
        raise ResultError(f"{path}: variant is {result.variant!r}; expected {v.id!r}")
    if result.tasks.n > whole:
        raise ResultError(f"{path} has {result.tasks.n} tasks; the frozen set of {v.id} {result.split} has {whole}")
    if result.tasks.sha256 != _digest(v.id, result.split, result.tasks.n):
        raise ResultError(
            f"{path} was taken on another frozen set: its SHA-256 is not that of the first {result.tasks.n} tasks "
            f"of {v.id} {result.split}; evaluate again"
        )
    lengths = np.asarray(result.lengths)
    if lengths.min() < 1 or lengths.max() > v.horizon or lengths.sum() != result.steps:
        raise ResultError(f"{path}: lengths must be 1 to {v.horizon} steps and sum to steps, {result.steps}")
    if result.within is not None and not (v.scored_by_trial and v.trial == 1):
        raise ResultError(f"{path}: within must be null: {v.id} is no bandit of one-episode trials")
    if result.within is not None and len(result.within) != v.horizon:
        raise ResultError(f"{path}: within has {len(result.within)} numbers; expected {v.horizon}, one a step")
    return result


def submit(path: str | os.PathLike[str], folder: str | os.PathLike[str], *, reference: bool = False) -> Path:
    """Check a result and put it in place, folder/agent/variant-split-seed.json; again is no harm.

    The policy file beside the result whose SHA-256 it names goes with it.

    Args:
        path: of the result.
        folder: of the leaderboard, as baselines/results.
        reference: it is a reference of the suite: it may see the task and have a reference's name.

    Raises:
        ResultError: where it is refused: damaged, of other tasks, privileged, under a name that is taken, without the
            policy file that it names, with a config that is not that file's or weights above a megabyte, or where
            another result is there.
    """
    result = load(path)
    agent = result.agent
    name = safe_name(agent.name)
    if not name:
        raise ResultError(f"{path}: the agent's name {agent.name!r} has no letter or digit; name it")
    if not reference and (agent.privileged or name.lower() in _reserved()):
        why = "sees the task" if agent.privileged else "has the name of a reference"
        raise ResultError(f"{path}: {agent.name!r} {why}, so it is no competitor; submit it as a reference")
    _refuse_shared(Path(path), agent.name, Path(folder), name)
    target = Path(folder) / name / file_name(result)
    if target.exists() and evidence(Result.load(target)) != evidence(result):
        raise ResultError(f"{target} holds another result; remove it first, or submit under another name or seed")
    data = _weights(result, Path(path), target.parent)
    if data is not None and checkpoint(result, target.parent) is None:
        tasks.write_bytes(target.parent / f"{agent.config['checkpoint_sha256'][:12]}.safetensors", data)
    if not target.exists():
        result.save(target)
    return target


@cache
def _reserved() -> frozenset[str]:
    """Return the names that no competitor may have, in lower case: those that ship, and all labels of references."""
    from kshot.references import all_labels  # which stands on this module

    return frozenset(name.lower() for name in UNTRAINED | all_labels())


def _refuse_shared(path: Path, agent: str, folder: Path, name: str) -> None:
    """Raise ResultError where an agent's folder holds results of another name, as those of "a b" and "a-b" would."""
    # Lower case: some file systems do not tell "A" from "a".
    places = [place for place in folder.glob("*") if place.name.lower() == name.lower()]
    for held in sorted(found for place in places for found in place.glob("*.json")):
        if (other := Result.load(held).agent.name) != agent:
            raise ResultError(
                f"{path}: {agent!r} would share the folder {held.parent} with {other!r}; rename the agent"
            )


def _weights(result: Result, path: Path, place: Path) -> bytes | None:
    """Return the policy file that a result names, beside it or in its place already; None where it names none.

    Raises:
        ResultError: where the file is missing, too large, or its config is not the result's.
    """
    config, file = result.agent.config, checkpoint(result, path.parent) or checkpoint(result, place)
    if file is None:
        if "checkpoint" not in config:  # a model that was never a file
            return None
        raise ResultError(
            f"{path} names the policy file {config['checkpoint']!r}, but no .safetensors file beside it has the "
            "checkpoint_sha256 that it names; put the file beside the result, or leave `checkpoint` out of the agent's "
            "config and evaluate again"
        )
    data = read_file(file)
    if len(data) > MAX_CHECKPOINT:
        raise ResultError(
            f"{file} has {len(data)} bytes; the leaderboard keeps {MAX_CHECKPOINT}: save a smaller network, or its "
            "weights as float16, and evaluate again"
        )
    made = _policy_config(result, file)
    if made is not None and (key := other_key(config, made)) is not None:
        raise ResultError(
            f"{path}: config {key!r} is {config.get(key)!r}; in the policy file {file} it is {made.get(key)!r}"
        )
    return data


def _policy_config(result: Result, file: Path) -> dict[str, Any] | None:
    """Return the config of the agent that a policy file makes; None where the result's agent is not that one.

    An agent of the user's own may keep its weights in a format of its own, or adapt a policy under another name.
    """
    try:
        agent: Any = agent_of_file(file, find_variant(result.variant), result.seed)
    except PolicyError:
        return None
    return agent.config if agent.name == result.agent.name else None


def other_key(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first key in which two configs differ, None where none does; a policy file may be renamed."""
    differ = (
        k for k in sorted({*one, *other} - {"checkpoint"}) if (k in one, one.get(k)) != (k in other, other.get(k))
    )
    return next(differ, None)


def safe_name(name: str) -> str:
    """Return a name without what a file's may not hold: letters and digits of ASCII, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")


def file_name(result: Result) -> str:
    """Return what a result's file is called among those of its agent."""
    return f"{result.variant.removeprefix('kshot/')}-{result.split}-seed{result.seed}.json"


def checkpoint(result: Result, folder: Path) -> Path | None:
    """Return the policy file in a folder that a result names by its SHA-256; None where there is none."""
    named, likely = (result.agent.config.get(key) for key in ("checkpoint_sha256", "checkpoint"))
    files = folder.glob("*.safetensors") if isinstance(named, str) else ()
    ordered = sorted(files, key=lambda path: (path.name != likely, path))  # reading all of them takes long
    return next((path for path in ordered if sha256_of(path) == named), None)


def sha256_of(path: Path) -> str | None:
    """Return the SHA-256 of a policy file; None of what is no file, or too large for one."""
    try:
        return hashlib.sha256(read_file(path)).hexdigest()
    except PolicyError:
        return None


def scored_size(variant: Variant, split: str) -> int:
    """Return how many tasks of a frozen set are scored if nobody says."""
    return evaluation.default_tasks(variant, split, tasks.frozen_size(variant, split))


def is_sample(variant: str, split: str, n: int) -> bool:
    """Return whether the first n frozen tasks are a sample of their law, not all of it."""
    v = find_variant(variant)
    return joint_values(v.split(split).law) is None or n < tasks.frozen_size(v, split)


def groups(results: Sequence[Result]) -> dict[SplitKey, dict[str, Group]]:
    """Return the seeds of every agent and config, in order, by (variant, split) and identity."""
    found: dict[SplitKey, dict[str, Group]] = {}
    for r in sorted(results, key=lambda r: (r.variant, r.split, identity_of(r.agent), r.tasks.n, r.seed)):
        found.setdefault((r.variant, r.split), {}).setdefault(f"{identity_of(r.agent)} {r.tasks.n}", []).append(r)
    return found


def scores(group: Group, budget: int) -> Score:
    """Return the score of every seed and task at a budget, (seeds, tasks), or why there is none."""
    try:
        return np.stack([r.task_scores(budget) for r in group])
    except NotUpdatedError:
        return "n/a"
    except ValueError:
        return ""


def last_scores(group: Group) -> tuple[int, Floats] | None:
    """Return the last budget that a group covers and its scores there, (seeds, tasks); None where it covers none."""
    found = ((b, scores(group, b)) for b in reversed(find_variant(group[0].variant).budgets))
    return next(((b, x) for b, x in found if not isinstance(x, str)), None)


def reference_means(peers: Mapping[str, Group], n: int) -> tuple[float, float] | None:
    """Return the mean return of random and of the best privileged agent on the first n tasks of a split.

    None where one is missing, or has fewer tasks: a difference of tasks would pass for one of agents.
    """
    levels = [(g[0].agent, _levels(g)[:, :n]) for g in peers.values() if g[0].tasks.n >= n]
    random_ = [float(x.mean()) for who, x in levels if who.name == "random" and not who.privileged and x.size]
    oracles = [float(x.mean()) for who, x in levels if who.privileged and x.size]
    if not random_ or not oracles:
        return None
    bottom, top = max(random_), max(oracles)
    return (bottom, top) if top > bottom else None


def summary(cells: Floats, key: object, statistic: statistics.Statistic, sample: bool) -> Interval:
    """Return a statistic of (seeds, tasks) with its interval; its random numbers depend on the key alone."""
    if len(cells) == 1 and (not sample or cells.shape[1] == 1):  # nothing to resample
        value = statistics.iqm(cells) if statistic == "iqm" else statistics.mean(cells)
        return Interval(value, math.nan, math.nan)
    rng = np.random.default_rng(zlib.crc32(repr(key).encode()))
    return statistics.interval(
        cells, rng, tasks_are_a_sample=sample, statistic=statistic, resamples=_resamples(cells.size)
    )


def rows(results: Sequence[Result], *, iqm: bool = True) -> list[Row]:
    """Return a row an agent, config, variant and split; `iqm` takes most of the time."""
    return [
        _row(group, identity, peers, reference_means(peers, group[0].tasks.n), iqm)
        for peers in groups(results).values()
        for identity, group in peers.items()
    ]


def _row(group: Group, key: str, peers: Mapping[str, Group], ends: tuple[float, float] | None, iqm: bool) -> Row:
    """Return the row of a group."""
    first = group[0]
    cells: dict[int, Cell | Literal["n/a", ""]] = {}
    for budget in find_variant(first.variant).budgets:
        found = scores(group, budget)
        cells[budget] = (
            found if isinstance(found, str) else _cell(found, first, (key, budget * first.agent.adapts), ends, iqm)
        )
    configs = [r.agent.config for r in group]
    steps = [int(c["training_steps"]) for c in configs if isinstance(c.get("training_steps"), int)]
    # Training runs, not evaluations: those that name no checkpoint may be one and the same.
    runs = {str(c.get("checkpoint_sha256")) for c in configs}
    untrained = first.agent.name in UNTRAINED and max(steps, default=0) == 0
    return Row(
        first.agent, first.variant, first.split, first.tasks.n, tuple(r.seed for r in group),
        provisional=not untrained and len(runs) < MIN_SEEDS,
        not_converged=first.agent.privileged and any(_beats(g, group, k) for k, g in peers.items() if g is not group),
        training_steps=max(steps, default=None), commands=tuple(r.command for r in group), cells=cells,
    )  # fmt: skip


def _cell(found: Floats, first: Result, key: object, ends: tuple[float, float] | None, iqm: bool) -> Cell:
    where, sample = (first.variant, first.split, key), is_sample(first.variant, first.split, first.tasks.n)
    mean = summary(found, where, "mean", sample)
    normalised = None if ends is None else float(statistics.normalised(mean.value, *ends))
    return Cell(mean, summary(found, where, "iqm", sample) if iqm else None, normalised)


def _beats(rival: Group, oracle: Group, key: str) -> bool:
    """Return whether a row's score at any budget is above an oracle's mean return, significantly, on the same tasks."""
    first, y = oracle[0], _levels(oracle)
    if not y.size:  # less than a trial
        return False
    sample = is_sample(first.variant, first.split, first.tasks.n)
    for budget in find_variant(first.variant).budgets:
        x = scores(rival, budget)
        if isinstance(x, str) or x.shape[1] != y.shape[1] or x.mean() <= y.mean():
            continue
        if len(x) == len(y) == 1 and (not sample or y.shape[1] == 1):
            continue  # nothing to resample: nothing is significant
        rng, resamples = np.random.default_rng(zlib.crc32(key.encode())), _resamples(len(x) * y.size)
        if statistics.compare(x, y, rng, tasks_are_a_sample=sample, resamples=resamples).difference.low > 0:
            return True
    return False


def identity_of(card: AgentCard) -> str:
    """Return what all seeds of an agent share, as text."""
    config = {k: v for k, v in card.config.items() if k not in PER_RUN}
    return json.dumps([card.name, card.round, card.privileged, card.adapts, config], sort_keys=True)


def _levels(group: Group) -> Floats:
    """Return the mean return of every seed and task over all episodes (trials), (seeds, tasks).

    Seeds with less than a trial are left out: they have no score. (0, tasks) where all are.
    """
    units = [units for units in (r.units() for r in group) if units.shape[1]]
    return np.stack([x.mean(1) for x in units]) if units else np.empty((0, group[0].tasks.n))


def _resamples(cells: int) -> int:
    return statistics.RESAMPLES if cells <= MANY_CELLS else 500


def evidence(result: Result) -> dict[str, Any]:
    """Return a result without what may differ between two runs of the same."""
    return result.model_dump(exclude={"created", "seconds", "command", "commit", "versions"})


@cache
def _digest(id: str, split: str, n: int) -> str:
    """Return the SHA-256 of the first n frozen tasks, drawing no more of them than that."""
    v = find_variant(id)
    if v.body is None and joint_values(v.split(split).law) is None:
        return tasks.digest(tasks.sample(v, split, n))
    return tasks.digest(tasks.take(tasks.frozen(v, split), slice(0, n)))
