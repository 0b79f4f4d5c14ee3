"""Films of an agent on one frozen task: its consecutive episodes, or the first beside the last."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from kshot import random, tasks
from kshot.agents import Agent, Experience, Memoryless, PrivilegedAgent
from kshot.engine import Engine
from kshot.evaluation import play
from kshot.family import Variant
from kshot.rendering import Renderer, canvas, palette

GAP = 4  # pixels between two pictures side by side
Report: TypeAlias = Callable[[float], None]
_Shot: TypeAlias = tuple[dict[str, Any], float]  # the engine's state, and the return so far


def film(
    agent: Agent, v: Variant, split: str, task: int, rounds: int, seed: int, report: Report
) -> Iterator[np.ndarray]:
    """Yield the pictures of a task's consecutive episodes as `evaluate` runs them.

    Args:
        agent: who acts.
        v: the variant.
        split: whose frozen tasks.
        task: its number in the set.
        rounds: how many episodes; of an agent with `round` how many rounds, whose first episodes are filmed.
        seed: of the evaluation.
        report: called with the fraction done.
    """
    engine = Engine(v, split, _round(agent), limit=v.time_limit)
    renderer = Renderer(engine)
    for k in _turns(agent, engine, task, rounds, seed):
        for fraction in play(agent, engine):
            yield renderer.picture(0)
            report((k + fraction) / rounds)
    renderer.close()


def first_and_last(
    agent: Agent, v: Variant, split: str, task: int, episodes: int, seed: int, report: Report
) -> Iterator[np.ndarray]:
    """Yield the first and the last of a task's consecutive episodes side by side; the shorter holds its last picture.

    Those between are run, not drawn. Above each half stands its episode's number and its return so far.

    Args:
        agent: who acts.
        v: the variant.
        split: whose frozen tasks.
        task: its number in the set.
        episodes: how many, rounded up to whole rounds of the agent; of a round the first one is filmed.
        seed: of the evaluation.
        report: called with the fraction done.

    Raises:
        ValueError: where the first episode is the last.
    """
    size = _round(agent)
    last = math.ceil(episodes / size) - 1
    if last == 0:
        what = f"a round of {size} episodes before the agent updates" if size > 1 else "a single episode"
        raise ValueError(f"the first and the last are the same in {what}: ask for {size + 1} episodes or more")
    engine = Engine(v, split, size, limit=v.time_limit)
    shots: dict[int, list[_Shot]] = {0: [], last: []}
    for k in _turns(agent, engine, task, last + 1, seed):
        tally = _Tally(agent)
        for fraction in play(tally, engine):
            if k in shots:  # a state is small, a picture is not
                shots[k].append((engine.get_state(), tally.total))
            report((k + fraction) / (last + 1) / 2)
    renderer = Renderer(engine)
    left = right = np.empty(0, np.uint8)
    pairs = list(itertools.zip_longest(shots[0], shots[last]))
    for i, (before, after) in enumerate(pairs):
        left = left if before is None else _half(renderer, engine, before, 1)
        right = right if after is None else _half(renderer, engine, after, last * size + 1)
        gap = np.broadcast_to(np.array(palette.STRIP, np.uint8), (len(left), GAP, 3))
        yield np.concatenate([left, gap, right], axis=1)
        report((1 + (i + 1) / len(pairs)) / 2)
    renderer.close()


class _Tally(Memoryless):
    """An agent in one episode, with the return of its first row."""

    def __init__(self, agent: Agent) -> None:
        self._agent, self.total = agent, 0.0

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Act as the agent does."""
        return self._agent.act(observation)

    def observe(self, experience: Experience) -> None:
        """Count the reward, and pass everything on."""
        self.total += float(experience.reward[0])
        self._agent.observe(experience)


def _round(agent: Agent) -> int:
    """Return how many episodes an agent runs before it updates."""
    return int(getattr(agent, "round", 1))


def _turns(agent: Agent, engine: Engine, task: int, rounds: int, seed: int) -> Iterator[int]:
    """Seat a frozen task in all rows as `evaluate` does, and yield each round's number when it is to be played."""
    one = tasks.take(tasks.frozen(engine.variant, engine.split), np.full(engine.n, task))
    seeds = random.row_seeds(seed, task + 1)[[task] * engine.n]
    agent.reset(1)
    for k in range(rounds):
        engine.seat(seeds, k * engine.n + np.arange(engine.n), one)
        if k == 0 and isinstance(agent, PrivilegedAgent):
            agent.see(engine)
        yield k
        agent.end_episode()


def _half(renderer: Renderer, engine: Engine, shot: _Shot, episode: int) -> np.ndarray:
    """Draw a state that was, under the number of its episode and the return until then."""
    state, total = shot
    engine.set_state(state)
    picture = renderer.picture(0)
    label = canvas.draw_caption(f"episode {episode}, return {total:z.2f}", picture.shape[1])
    return np.concatenate([label, picture])
