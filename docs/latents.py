"""Where a policy's noise takes it: paths of MAESN's episodes and of its ablation's, before and after adapting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.patches
import numpy as np
from matplotlib.figure import Figure

import kshot
from kshot import tasks
from kshot.family import Variant
from kshot.plots import COLOURS, GREY
from kshot_baselines.checkpoint import load_agent

VARIANT, SPLIT, TASKS = "PointSparse-maesn-v0", "ood-sparse", 3
SHOWN = {"maesn": "MAESN", "maesn-no-latent": "without latents"}


class Recorder:
    """An agent as it is, whose observations are kept."""

    def __init__(self, agent: Any) -> None:
        """Take the agent."""
        self._agent, self.seen = agent, []

    def __getattr__(self, name: str) -> Any:
        """Be the agent in everything else."""
        return getattr(self._agent, name)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Keep what is seen."""
        self.seen.append(np.array(observation))
        return self._agent.act(observation)

    def paths(self, v: Variant) -> np.ndarray:
        """Return positions, (rounds, horizon, tasks, episodes of a round, 2)."""
        seen = np.array(self.seen)[..., :2]
        return seen.reshape(-1, v.horizon, seen.shape[1] // self.round, self.round, 2)


def picture(folder: Path, path: Path, rounds: int = 3) -> None:
    """Draw the episodes of the first round and of the last, those of each task in a colour, by method."""
    v = kshot.variant(VARIANT)
    names = [name for name in SHOWN if (folder / name / f"{v.label}-seed0.safetensors").exists()]
    goals, felt = np.array(tasks.frozen(v, SPLIT).goal)[:TASKS], v.split(SPLIT).constants["radius"]
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8.4, 2.2 * len(names) + 0.4), layout="constrained")
        grid = figure.subplots(len(names), 2, squeeze=False, sharex=True, sharey=True)
        for row, name in zip(grid, names, strict=True):
            agent = Recorder(load_agent(folder / name / f"{v.label}-seed0.safetensors", v, 0))
            kshot.evaluate(agent, v.id, split=SPLIT, num_tasks=TASKS, episodes=rounds * agent.round)
            paths = agent.paths(v)
            for axes, when in zip(row, (0, rounds - 1), strict=True):
                for i in range(TASKS):
                    axes.plot(*paths[when, :, i].transpose(2, 0, 1), color=COLOURS[i], lw=0.7, alpha=0.7)
                    axes.plot(*goals[i], "*", color=COLOURS[i], markersize=11, markeredgecolor="black", zorder=3)
                    axes.add_patch(matplotlib.patches.Circle(goals[i], felt, fill=False, color=GREY, lw=0.8, ls=":"))
                axes.set_aspect("equal")
                after = f"after {when * agent.round} episodes" if when else "before adapting"
                axes.set_title(f"{SHOWN[name]}, {after}", loc="left", fontsize=9)
        grid[0, 0].set_xlim(-4, 4)
        grid[0, 0].set_ylim(-1.2, 3.2)
        figure.savefig(path, dpi=130, metadata={"Software": None})
