"""The evaluation protocol: consecutive episodes of each frozen task, in parallel, returns of every one."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from kshot import random, tasks
from kshot.agents import Agent, Experience, PrivilegedAgent, make_agent
from kshot.engine import Engine
from kshot.family import Variant
from kshot.registry import variant as find_variant
from kshot.results import AgentCard, Result, TaskSet, provenance, rounded

MAX_ROWS = 20_000  # more are evaluated in turns, to bound memory
LEVEL_EPISODES = 400  # over all tasks, at least, of an agent that does not adapt
# Episodes of an evaluation if nobody says, by which large frozen sets are cut to their first tasks: enough for
# intervals that are narrow beside what differs between methods and seeds, and few enough to keep as a file.
TEST_EPISODES, OTHER_EPISODES, OTHER_TASKS = 50_000, 10_000, 2_000


class _Round(NamedTuple):
    """What one round of parallel episodes gave, (rows,) each."""

    returns: np.ndarray
    successes: np.ndarray | None
    lengths: np.ndarray
    diverged: np.ndarray
    rewards: list[float]  # sum over rows of each step's reward


def evaluate(
    agent: Any,
    id: str,
    *,
    split: str = "test",
    episodes: int | None = None,
    seed: int = 0,
    num_tasks: int | None = None,
    threads: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Result:
    """Score an agent on the frozen tasks of a variant's split.

    Every task gets the same number of consecutive episodes; all tasks run in parallel, in an order that
    depends on the seed. The agent's memory is cleared between tasks and kept between a task's episodes. It
    sees observations and rewards, never the task or `info`. Noise is a function of (seed, task, episode):
    the same for every agent and for every `round`. At the end, an agent with a `close()` is closed.

    Args:
        agent: an `Agent`, a function of observations, or a name that `make_agent` knows.
        id: of the variant.
        split: which frozen task set.
        episodes: a task; rounded up to whole rounds of the agent. None: see `default_episodes`.
        seed: of the evaluation.
        num_tasks: the first so many tasks of the set; None for `default_tasks`.
        threads: physics threads, 0 for one a core; the result does not depend on it.
        progress: called with the fraction done.

    Returns:
        The result; `Result.score(b)` is the mean return after b episodes.

    Raises:
        ValueError: for an unknown agent or split, or counts that make no sense.
        ActionError: where the agent's actions do not fit the action space.
    """
    begun = time.perf_counter()
    v = find_variant(id)
    seed = _count("seed", seed, 0, None, least=0)
    who = make_agent(agent, v, seed)
    with closing(who):
        card = _card(who, v)
        task = tasks.frozen(v, split)
        n = _count("num_tasks", num_tasks, default_tasks(v, split, len(task[0])), len(task[0]))
        task = tasks.take(task, slice(0, n))
        rounds = math.ceil(_count("episodes", episodes, default_episodes(v, n, card), None) / card.round)
        order = np.random.default_rng(seed).permutation(n)
        seeds = random.row_seeds(seed, n)
        turns = np.array_split(order, math.ceil(n * card.round / MAX_ROWS))
        done: list[tuple[np.ndarray, list[_Round]]] = []
        updates: list[int | None] = []
        for i, turn in enumerate(turns):
            report = None if progress is None else part(progress, i, len(turns))
            chosen = tasks.take(task, turn)
            done.append((turn, run(who, v, split, chosen, seeds[turn], card.round, rounds, threads, report)))
            updates.append(getattr(who, "first_update", 0))
        updated = None if None in updates else max(u for u in updates if u is not None)
        found = _tables(done, n, card.round, v)
        return Result(
            variant=v.id,
            split=split,
            agent=card.model_copy(update={"first_update": updated}),
            seed=seed,
            tasks=TaskSet(n=n, sha256=tasks.digest(task)),
            episodes=rounds * card.round,
            **found,
            **provenance(),
            seconds=time.perf_counter() - begun,
        )


@contextmanager
def closing(agent: Agent) -> Iterator[None]:
    """Call an agent's `close` at the end, also after an error, where it has one."""
    try:
        yield
    finally:
        close = getattr(agent, "close", None)
        if callable(close):
            close()


def _card(agent: Agent, variant: Variant) -> AgentCard:
    """Return what the result says of the agent; ValueError, before anything is run, where that cannot be written."""
    config: Any = getattr(agent, "config", {})
    config = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config  # type: ignore[arg-type]
    size = getattr(agent, "round", 1)
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"agent.round is {size!r}; expected a whole number from 1")
    if variant.scored_by_trial and size % variant.trial and variant.trial % size:
        raise ValueError(
            f"agent.round is {size}; {variant.id} has trials of {variant.trial} episodes: one must divide the other"
        )
    try:
        json.dumps(config)
        return AgentCard(
            name=getattr(agent, "name", type(agent).__name__),
            round=int(size),
            privileged=isinstance(agent, PrivilegedAgent),
            adapts=bool(getattr(agent, "adapts", True)),
            first_update=getattr(agent, "first_update", 0),
            config=dict(config),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"the agent's name or config cannot be written as JSON: {error}") from error


def _tables(done: list[tuple[np.ndarray, list[_Round]]], n: int, size: int, variant: Variant) -> dict[str, Any]:
    """Return the fields of the result that hold what was measured."""
    lengths = table(done, n, size, "lengths")
    first = [rounds[0].rewards for _, rounds in done]
    has_success = done[0][1][0].successes is not None
    one_step_trials = variant.scored_by_trial and variant.trial == 1
    return {
        "returns": rounded(table(done, n, size, "returns")),
        "successes": table(done, n, size, "successes").tolist() if has_success else None,
        "lengths": lengths.tolist(),
        "within": rounded(np.sum(first, 0) / (n * size)) if one_step_trials else None,
        "steps": int(lengths.sum()),
        "diverged": int(table(done, n, size, "diverged").sum()),
    }


def default_tasks(variant: Variant, split: str, size: int) -> int:
    """Return how many tasks of a frozen set of some size are scored if nobody says."""
    episodes = variant.trial if variant.scored_by_trial else _all_budgets(variant)
    most = TEST_EPISODES // episodes if split == "test" else min(OTHER_TASKS, OTHER_EPISODES // episodes)
    return min(size, most)


def default_episodes(variant: Variant, tasks: int, agent: AgentCard) -> int:
    """Return how many episodes a task gets if nobody says: enough for all budgets where the agent adapts.

    Where trials are scored it is one trial, except for agents that adapt in longer rounds: one says nothing of those.
    """
    if variant.scored_by_trial:
        one = agent.round <= variant.trial or not agent.adapts
        return variant.trial * (1 if one else _all_budgets(variant))
    return _all_budgets(variant) if agent.adapts else math.ceil(LEVEL_EPISODES / tasks)


def _all_budgets(variant: Variant) -> int:
    """Return how many units (episodes, or trials where those are scored) it takes to score all budgets."""
    return max(variant.budgets) + 1


def run(
    agent: Agent,
    variant: Variant,
    split: str,
    task: Any,
    seeds: np.ndarray,
    size: int,
    rounds: int,
    threads: int,
    progress: Callable[[float], None] | None,
) -> list[_Round]:
    """Run all rounds of some tasks; rows are tasks × round, those of a task side by side."""
    n = len(seeds)
    engine = Engine(variant, split, n * size, threads=threads, limit=variant.time_limit)
    row_task, row_seeds = tasks.take(task, np.repeat(np.arange(n), size)), np.repeat(seeds, size)
    slot = np.tile(np.arange(size), n)
    agent.reset(n)
    done = []
    for k in range(rounds):
        engine.seat(row_seeds, k * size + slot, row_task)
        if k == 0 and isinstance(agent, PrivilegedAgent):
            agent.see(engine)
        report = None if progress is None else part(progress, k, rounds)
        done.append(_finish(play(agent, engine), report))
        agent.end_episode()
    return done


def play(agent: Agent, engine: Engine) -> Generator[float, None, _Round]:
    """Run one episode of every row; rows that end wait for the others.

    Yields:
        The fraction done, at the start and after each step.

    Returns:
        What the episodes gave.
    """
    engine.begin()
    n, horizon = engine.n, engine.variant.horizon
    returns, lengths, rewards = np.zeros(n), np.zeros(n, np.int64), []
    successes, diverged, active = np.zeros(n, bool), np.zeros(n, bool), np.ones(n, bool)
    has_success, everyone = False, True
    observation = engine.observe()
    yield 0.0
    for t in range(horizon):
        action = engine.prepare(agent.act(observation))
        out = engine.step(action, None if everyone else active)
        reward = out.reward if everyone else np.where(active, out.reward, 0.0)
        returns += reward
        lengths += active
        rewards.append(float(reward.sum()))
        diverged |= out.diverged & active
        if "success" in out.metrics:
            has_success = True
            successes |= out.metrics["success"] & active
        terminated, truncated = out.terminated & active, out.truncated & active
        next_observation = engine.observe()
        following = next_observation.copy()
        # What the agent is given is its own: nothing that it writes reaches the protocol.
        agent.observe(
            Experience(
                observation, action, reward, terminated.copy(), truncated.copy(), next_observation, active.copy()
            )
        )
        active = active & ~(terminated | truncated)
        everyone = bool(active.all())
        observation = following
        yield (t + 1) / horizon
        if not active.any():
            break
    return _Round(returns, successes if has_success else None, lengths, diverged, rewards)


def _finish(game: Generator[float, None, _Round], progress: Callable[[float], None] | None) -> _Round:
    """Run episodes to their end, telling how far they are."""
    while True:
        try:
            fraction = next(game)
        except StopIteration as end:
            found: _Round = end.value
            return found
        if progress is not None:
            progress(fraction)


def table(done: list[tuple[np.ndarray, list[_Round]]], n: int, size: int, field: str) -> np.ndarray:
    """Put a field of all rounds back in task order, (tasks, episodes)."""
    rounds = len(done[0][1])
    table = np.zeros((n, rounds * size), np.asarray(getattr(done[0][1][0], field)).dtype)
    for turn, played in done:
        for k, one in enumerate(played):
            table[turn, k * size : (k + 1) * size] = getattr(one, field).reshape(len(turn), size)
    return table


def part(progress: Callable[[float], None], i: int, n: int) -> Callable[[float], None]:
    """Return the progress of part i of n."""
    return lambda fraction: progress((i + fraction) / n)


def _count(name: str, value: int | None, default: int, most: int | None, least: int = 1) -> int:
    """Check a count that the user may leave out."""
    count = default if value is None else value
    whole = isinstance(count, (int, np.integer)) and not isinstance(count, bool)
    if not whole or count < least or (most is not None and count > most):
        bound = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {count!r}; expected {bound}")
    return int(count)
