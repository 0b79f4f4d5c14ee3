"""Pictures that show what the suite holds: one of each family, with its task."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kshot import VARIANTS, random, tasks
from kshot.agents import Agent, PrivilegedAgent, make_agent
from kshot.engine import Engine
from kshot.family import Variant
from kshot.rendering import Renderer

COLUMNS, TILE = 5, 240  # pictures a row, pixels a side
_AGENTS = {"HalfCheetahVel": "gait", "HalfCheetahDir": "gait"}


def demo_picture(path: Path) -> Path:
    """Draw every family's first variant in the middle of an episode of its first test task, as one PNG.

    Raises:
        RenderError: where no picture can be drawn, naming the library to install.
    """
    import imageio.v3 as iio

    first: dict[str, Variant] = {}
    for v in VARIANTS.values():
        first.setdefault(v.family.name, v)
    tiles = [_tile(v) for v in first.values()]
    lines = [np.concatenate(tiles[i : i + COLUMNS], 1) for i in range(0, len(tiles), COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial.png")
    iio.imwrite(partial, np.concatenate(lines, 0))
    os.replace(partial, path)
    return path


def _tile(variant: Variant) -> np.ndarray:
    """Return the picture of a variant half way through an episode, (TILE, TILE, 3)."""
    family = variant.family
    agent = make_agent("expert" if family.expert else _AGENTS.get(family.name, "random"), variant)
    engine = Engine(variant, "test", 1, limit=variant.time_limit)
    engine.seat(random.row_seeds(0, 1), np.zeros(1), tasks.take(tasks.frozen(variant, "test"), slice(0, 1)))
    engine.begin()
    _act(agent, engine, variant.horizon // (4 if family.expert else 2))
    renderer = Renderer(engine)
    picture = renderer.picture(0)
    renderer.close()
    step = len(picture) // TILE
    blocks = picture[: TILE * step, : TILE * step].reshape(TILE, step, TILE, step, 3)
    return np.asarray(blocks.mean((1, 3)), np.uint8)


def _act(agent: Agent, engine: Engine, steps: int) -> None:
    """Let an agent act in one row."""
    agent.reset(1)
    if isinstance(agent, PrivilegedAgent):
        agent.see(engine)
    for _ in range(steps):
        engine.step(engine.prepare(agent.act(engine.observe())))
