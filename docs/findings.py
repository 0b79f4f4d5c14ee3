"""What the four methods' results show: tables and pictures for docs/findings.md."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kshot import statistics
from kshot.cards import markdown_table
from kshot.leaderboard import Group, groups, is_sample, last_scores, reference_means, summary
from kshot.plots import COLOURS, GREY, MARKERS
from kshot.registry import VARIANTS, variant
from kshot.results import Result
from kshot.statistics import Floats, Interval
from kshot_baselines.checkpoint import load

METHODS = ("rl2", "maml", "maesn", "mgrl")
BESIDE = ("multitask", "scratch")  # no meta-learning
LOOKS = {name: (COLOURS[i], MARKERS[i]) for i, name in enumerate((*METHODS, *BESIDE))}
SPARSE = (  # variant, split, what it is
    ("PointGoal-v0", "test", "dense"),
    ("PointSparse-v0", "test", "sparse"),
    ("PointSparse-maesn-v0", "test", "dense, far"),
    ("PointSparse-maesn-v0", "ood-sparse", "trained dense,\nscored sparse"),
)
_STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}


def defaults() -> list[str]:
    """Return the first variant of every analytic family, by id."""
    first: dict[str, str] = {}
    for v in VARIANTS.values():
        if v.body is None:
            first.setdefault(v.family.name, v.id)
    return list(first.values())


def main_table(folder: Path) -> str:
    """Return a row a method: its normalised score on test of every analytic family's first variant."""
    ids = defaults()
    rows = [["agent", *(variant(id).label for id in ids)]]
    rows += [[f"`{name}`", *(_cell(folder, id, "test", name) for id in ids)] for name in (*METHODS, *BESIDE)]
    return markdown_table(rows)


def gaps_table(folder: Path) -> str:
    """Return a row a method and variant: its normalised scores on train, test and out of distribution."""
    rows = [["variant", "agent", "`train`", "`test`", "out of distribution"]]
    for id in defaults():
        v = variant(id)
        for name in METHODS:
            ood = ", ".join(f"{s.removeprefix('ood-')} {_cell(folder, id, s, name)}" for s in v.ood)
            rows.append([v.label, f"`{name}`", *(_cell(folder, id, s, name) for s in ("train", "test")), ood])
    return markdown_table(rows)


def latents_table(folder: Path) -> str:
    """Return by how much MAESN is ahead of its ablations and the others, task by task, in return."""
    names = ("maesn-no-latent", "maesn-no-kl", "maesn-conditioning", "maml", "rl2")
    splits = ("test", "ood-sparse", "ood-other-half")
    rows = [["variant", "`maesn` less", *(f"`{s}`" for s in splits), "seeds", "steps a seed"]]
    for id, name in itertools.product(("kshot/PointSparse-maesn-v0", "kshot/AntGoal-maesn-v0"), names):
        if group := _group(folder, id, "test", name):
            cells = [_ahead(folder, id, split, "maesn", name) for split in splits]
            steps = f"{group[0].agent.config['training_steps']:,}"
            rows.append([variant(id).label, f"`{name}`", *cells, str(len(group)), steps])
    return markdown_table(rows)


def returns_table(folder: Path) -> str:
    """Return by how much learned γ and λ are ahead of fixed ones, task by task, in return."""
    rows = [["`mgrl` less `mgrl-fixed`", "split", "difference", "seeds"]]
    for id in VARIANTS:
        for split in ("test", *variant(id).ood):
            fixed = _group(folder, id, split, "mgrl-fixed")
            if fixed is not None:
                rows.append(
                    [variant(id).label, split, _ahead(folder, id, split, "mgrl", "mgrl-fixed"), str(len(fixed))]
                )
    return markdown_table(rows)


def _ahead(folder: Path, id: str, split: str, one: str, other: str) -> str:
    """Return the difference of two agents at the last budget, paired by task, with its interval."""
    ours, theirs = (_scores(folder, id, split, name) for name in (one, other))
    if ours is None or theirs is None:
        return "–"
    x, y = ours[1], theirs[1]
    rng = np.random.default_rng(zlib.crc32(f"{id} {split} {one} {other}".encode()))
    found = statistics.compare(x, y, rng, tasks_are_a_sample=is_sample(id, split, x.shape[1])).difference
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def chains_table(path: Path) -> str:
    """Return what `python -m kshot_baselines.chains` printed."""
    rows = json.loads(path.read_text())["rows"]
    return markdown_table([["chain", "what", "mean over runs", "least – most"], *rows])


def pictures(folder: Path, chains: Path, place: Path) -> None:
    """Draw all pictures of the page."""
    with matplotlib.rc_context(_STYLE):
        curves(folder, place / "findings-curves.png")
        splits(folder, place / "findings-splits.png")
        sparse(folder, place / "findings-sparse.png")
        returns(folder, chains, place / "findings-returns.png")


def curves(folder: Path, path: Path) -> None:
    """Draw the normalised return of a task's episodes in order, by method."""
    figure, grid = _panels(len(defaults()), 3, "episode on the task", "normalised return")
    for axes, id in zip(grid, defaults(), strict=False):
        v, peers = variant(id), _peers(folder, id, "test")
        for name in (*METHODS, "scratch"):
            group = _group(folder, id, "test", name)
            if group is None:
                continue
            ends = reference_means(peers, group[0].tasks.n)
            size = group[0].agent.round
            count = min(r.episodes for r in group) // size
            returns = np.stack([np.asarray(r.returns)[:, : count * size].mean(0) for r in group])  # (seeds, episodes)
            rounds = returns.reshape(len(group), count, size).mean(-1)
            scale = v.trial if v.scored_by_trial else 1  # its references are those of whole trials
            y = statistics.normalised(rounds * scale, *ends)
            x = np.arange(count) * size + 1
            colour, marker = LOOKS[name]
            if size > 1:
                x, y = np.append(x, count * size), np.concatenate([y, y[:, -1:]], 1)
            step, every = ("post", 1) if size > 1 else (None, max(1, count // 8))
            axes.plot(x, y.mean(0), color=colour, marker=marker, ms=3.5, lw=1.4, label=name, markevery=every,
                      drawstyle="steps-post" if step else "default")  # fmt: skip
            axes.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.15, lw=0, step=step)
        axes.set_xscale("log")
        _ends(axes)
        axes.set_title(v.label, loc="left", fontsize=8)
    _legend(figure, grid)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def splits(folder: Path, path: Path) -> None:
    """Draw the normalised last score on each split, by method."""
    figure, grid = _panels(len(defaults()), 3, "", "normalised score at the last budget")
    for axes, id in zip(grid, defaults(), strict=False):
        v = variant(id)
        names = ["train", "test", *v.ood]
        for i, name in enumerate(METHODS):
            found = {s: one for s in names if (one := _normalised(folder, id, s, name)) is not None}
            x = [names.index(s) + (i - 1.5) * 0.12 for s in found]
            _points(axes, x, list(found.values()), name, line=True)
        axes.set_xticks(range(len(names)), [s.removeprefix("ood-") for s in names])
        axes.axvspan(1.5, len(names) - 0.5, color="#f3f3f3", zorder=-1)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(bottom=max(-1.6, axes.get_ylim()[0]))
        _ends(axes)
        axes.set_title(v.label, loc="left", fontsize=8)
    _legend(figure, grid)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def sparse(folder: Path, path: Path) -> None:
    """Draw the normalised last scores where reward is dense and where it is sparse, by method."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate((*METHODS, *BESIDE)):
        found = {
            k: one
            for k, (label, split, _) in enumerate(SPARSE)
            if (one := _normalised(folder, f"kshot/{label}", split, name)) is not None
        }
        _points(axes, [k + (i - 2.5) * 0.1 for k in found], list(found.values()), name)
    axes.set_xticks(range(len(SPARSE)), [f"{label}\n{what}" for label, _, what in SPARSE])
    axes.set_ylabel("normalised score at the last budget")
    _ends(axes)
    axes.set_xlim(-0.5, len(SPARSE) - 0.5)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=130, metadata={"Software": None})


def returns(folder: Path, chains: Path, path: Path) -> None:
    """Draw what γ and λ became: over training on the families, and on the three chains."""
    figure = Figure(figsize=(10.2, 4.4), layout="constrained")
    grid = figure.subplots(2, 3)
    for axes, name, symbol in zip(grid[0], ("discount", "gae_lambda"), ("γ", "λ"), strict=False):
        for i, id in enumerate((*defaults(), "kshot/HalfCheetahDir-v0")):  # HalfCheetahVel's runs have one point each
            runs = [load(p).header for p in sorted((folder / "mgrl").glob(f"{variant(id).label}-seed*.safetensors"))]
            for k, header in enumerate(runs):
                points = zip(header.curve, header.metrics, strict=True)
                x, y = zip(*((s / header.training_steps, m[name]) for (s, _), m in points if m), strict=True)
                axes.plot(x, y, color=COLOURS[i], lw=0.9, label=None if k else variant(id).label)
        axes.set_title(f"{symbol} over training", loc="left", fontsize=8)
        axes.set_xlabel("part of the budget")
    low, high = grid[0][0].get_ylim()
    grid[0][0].set_ylim(low - (high - low), high)  # room for the legend
    grid[0][0].legend(fontsize=7, title="a line a seed", title_fontsize=7, loc="lower left", ncols=2)
    found: Mapping[str, list[list[float]]] = json.loads(chains.read_text())["curves"]
    panels = [("discounting: return", "return"), ("signal", "γ of the states"), ("aliased", "λ of the states"),
              ("discounting: γ", "γ")]  # fmt: skip
    for axes, (start, what) in zip((grid[0][2], *grid[1]), panels, strict=True):
        for name, curve in found.items():
            if not name.startswith(start):
                continue
            y = np.array(curve)
            first = any(word in name for word in ("signal)", "known)", "with an"))
            colour = COLOURS[0 if first else 1]
            x = np.linspace(0, 1, len(y))
            axes.plot(x, y.mean(1), color=colour, lw=1.2, label=_kind(name))
            axes.fill_between(x, y.min(1), y.max(1), color=colour, alpha=0.12, lw=0)
        axes.set_title(f"{start.split(':')[0]} chain: {what}", loc="left", fontsize=8)
        axes.set_xlabel("part of the updates")
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        axes.legend(once.values(), once.keys(), fontsize=7)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _kind(name: str) -> str:
    return name.rsplit("(", 1)[1][:-1] if name.endswith(")") else name.split(" ", 2)[2]


def _panels(n: int, wide: int, x: str, y: str) -> tuple[Figure, list[Axes]]:
    high = -(-n // wide)
    figure = Figure(figsize=(3.4 * wide, 2.3 * high), layout="constrained")
    grid = list(figure.subplots(high, wide, squeeze=False).ravel())
    for axes in grid[n:]:
        axes.set_axis_off()
    figure.supxlabel(x)
    figure.supylabel(y)
    return figure, grid


def _legend(figure: Figure, grid: Sequence[Axes]) -> None:
    """Name above all panels what any of them shows."""
    found = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=len(found))


def _ends(axes: Axes) -> None:
    for y, dash in ((0.0, (0, (1, 2))), (1.0, (0, (6, 3)))):
        axes.axhline(y, color=GREY, lw=1, linestyle=dash, zorder=0)


def _points(axes: Axes, x: Sequence[float], found: Sequence[Interval], name: str, line: bool = False) -> None:
    colour, marker = LOOKS[name]
    y = np.array([one.value for one in found])
    ends = np.nan_to_num([[one.value - one.low for one in found], [one.high - one.value for one in found]])
    axes.errorbar(x, y, yerr=ends, color=colour, marker=marker, ms=4, lw=0.8 if line else 0, elinewidth=1, label=name)


def _cell(folder: Path, id: str, split: str, name: str) -> str:
    one, last = _normalised(folder, id, split, name), _scores(folder, id, split, name)
    if one is None or last is None:
        return "–"
    trials = last[0] if variant(id).scored_by_trial else 0
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]" + (f" after {trials} trials" if trials else "")


def _normalised(folder: Path, id: str, split: str, name: str) -> Interval | None:
    """Return the score at the last budget that an agent covers, where random has 0 and the ceiling 1."""
    last = _scores(folder, id, split, name)
    if last is None:
        return None
    n = last[1].shape[1]
    ends = reference_means(_peers(folder, id, split), n)
    cells = statistics.normalised(last[1], *ends)
    return summary(cells, (id, split, name), "mean", is_sample(id, split, n))


def _scores(folder: Path, id: str, split: str, name: str) -> tuple[int, Floats] | None:
    """Return the last budget that an agent covers, and its scores there, (seeds, tasks)."""
    group = _group(folder, id, split, name)
    return None if group is None else last_scores(group)


def _group(folder: Path, id: str, split: str, name: str) -> Group | None:
    """Return the seeds of an agent by its name; of several settings, those of the most seeds."""
    found = [g for g in _peers(folder, id, split).values() if g[0].agent.name == name]
    return max(found, key=len, default=None)


def _peers(folder: Path, id: str, split: str) -> Mapping[str, Group]:
    return groups(_results(folder, variant(id).label)).get((id, split), {})


@cache
def _results(folder: Path, label: str) -> list[Result]:
    return [Result.load(path) for path in sorted(folder.glob(f"*/{label}-*-seed*.json"))]
