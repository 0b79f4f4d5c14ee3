"""What the methods scored and how they learned: tables and a picture for docs/baselines.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from kshot import leaderboard, published
from kshot.cards import markdown_table
from kshot.family import Variant
from kshot.leaderboard import Cell, Row
from kshot.registry import VARIANTS, variant
from kshot.results import Result
from kshot_baselines import methods
from kshot_baselines.checkpoint import Checkpoint, load

WIDE = 3  # pictures in a line


def scores_table(folder: Path) -> str:
    """Return a row a method and variant: return on test before and after each update, and what was published."""
    rows = [["variant", "agent", "return on `test`", "published", "seeds", "steps a seed", "minutes a seed"]]
    for v, peers in _variants(folder):
        for row in (row for row in peers if row.split == "test"):
            figures = published.figures(v.id, row.agent.name, row.agent.config)
            theirs = _joined({b: f"{figures[b].value:g}" for b in v.budgets if b in figures})
            runs = [c for c in _checkpoints(folder) if (c.header.method, c.header.variant) == (row.agent.name, v.id)]
            minutes = f"{statistics.median(c.header.seconds for c in runs) / 60:.0f}" if runs else "–"
            steps = f"{row.training_steps:,}" if row.training_steps else "–"
            seeds = f"{len(row.seeds)}{', provisional' if row.provisional else ''}"
            rows.append([v.label, f"`{row.agent.name}`", _path(row), theirs, seeds, steps, minutes])
    return markdown_table(rows)


def gaps_table(folder: Path) -> str:
    """Return a row a method and variant: its last score on every split, where random has 0 and the ceiling 1."""
    rows = [["variant", "agent", "`train`", "`test`", "out of distribution"]]
    for v, peers in _variants(folder):
        for name in dict.fromkeys(row.agent.name for row in peers if row.agent.name in methods.known()):
            found = {row.split: _normalised(row) for row in peers if row.agent.name == name}
            ood = ", ".join(
                f"{split.removeprefix('ood-')} {x}" for split, x in found.items() if split.startswith("ood-")
            )
            rows.append([v.label, f"`{name}`", found.get("train", "–"), found.get("test", "–"), ood])
    return markdown_table(rows)


def curves_picture(folder: Path, path: Path) -> None:
    """Draw the score on val of every run over its training."""
    order = [v.id for v in VARIANTS.values()]
    runs = sorted(_checkpoints(folder), key=lambda c: (order.index(c.header.variant), c.header.method, c.header.seed))
    runs = [c for c in runs if len(c.header.curve) > 1]
    panels = [(id, list(found)) for id, found in groupby(runs, key=lambda c: c.header.variant)]
    colours = dict(zip(sorted({c.header.method for c in runs}), matplotlib.colormaps["tab20"].colors, strict=False))
    high = -(-len(panels) // WIDE)
    with matplotlib.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.4 * WIDE, 2.3 * high), layout="constrained")
        grid = figure.subplots(high, WIDE, squeeze=False).ravel()
        for axes, (id, found) in zip(grid, panels, strict=False):
            for name, of_method in groupby(found, key=lambda c: c.header.method):
                for i, c in enumerate(of_method):
                    steps, score = np.array(c.header.curve).T
                    axes.plot(steps / 1e6, score, color=colours[name], lw=1, label=None if i else name)
            axes.set_title(id.removeprefix("kshot/"), loc="left", fontsize=8)
            axes.legend(frameon=False, fontsize=7)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel("million steps of the environment")
        figure.supylabel("mean return on val")
        figure.savefig(path, dpi=130, metadata={"Software": None})


def _path(row: Row) -> str:
    """Return the means at all budgets, or the level of what does not adapt, and the interval of the last."""
    means = {budget: cell.mean for budget, cell in row.cells.items() if isinstance(cell, Cell)}
    if not means:
        return "–"
    last = list(means.values())[-1]
    ends = "" if np.isnan(last.low) else f" [{_number(last.low)}, {_number(last.high)}]"
    return (
        _joined({b: _number(x.value) for b, x in means.items()} if row.agent.adapts else {0: _number(last.value)})
        + ends
    )


def _joined(shown: Mapping[int, str]) -> str:
    """Return numbers with their budgets, where there are several."""
    if len(shown) < 2:
        return next(iter(shown.values()), "–")
    return ", ".join(f"{b}: {x}" for b, x in shown.items())


def _normalised(row: Row) -> str:
    cells = [cell for cell in row.cells.values() if isinstance(cell, Cell)]
    return f"{cells[-1].normalised:.2f}" if cells and cells[-1].normalised is not None else "–"


def _number(x: float) -> str:
    return f"{x:.0f}" if abs(x) >= 1000 else f"{x:.1f}" if abs(x) >= 20 else f"{x:.2f}"


def _variants(folder: Path) -> Iterator[tuple[Variant, list[Row]]]:
    """Yield the variants that a method was trained on, with the rows of methods, their floor and their ceiling."""
    shown = {"random", "expert", "oracle", *methods.known()}
    for id in VARIANTS:
        if any((c.header.variant) == id for c in _checkpoints(folder)):
            yield variant(id), [row for row in _rows(folder, variant(id).label) if row.agent.name in shown]


@cache
def _rows(folder: Path, label: str) -> list[Row]:
    results = [Result.load(path) for path in sorted(folder.glob(f"*/{label}-*-seed*.json"))]
    found = leaderboard.rows(results, iqm=False)
    return sorted(
        found, key=lambda row: (row.split, not row.agent.privileged, row.agent.name != "random", row.agent.name)
    )


@cache
def _checkpoints(folder: Path) -> list[Checkpoint]:
    paths = (path for name in methods.known() for path in sorted((folder / name).glob("*.safetensors")))
    return [load(path) for path in paths]
