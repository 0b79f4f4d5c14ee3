"""Pictures of results: adaptation curves, an aggregate over variants, the gap between splits.

They need Matplotlib, which is imported when a picture is drawn. Colours are Okabe and Ito's, told apart by markers too.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from kshot import statistics, tasks
from kshot.leaderboard import MIN_SEEDS, Group, groups, is_sample, last_scores, reference_means, summary
from kshot.registry import variant as find_variant
from kshot.results import Result
from kshot.statistics import Floats, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#6b6b6b"
MANY_POINTS = 30  # on a curve above which markers are thinned out
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "kshot",  # the same file for the same results
    "svg.fonttype": "none",
}


class _Agent(NamedTuple):
    """How an agent looks in every picture of the same results."""

    label: str
    colour: str
    marker: str


def adaptation_curves(
    results: Sequence[Result], path: str | os.PathLike[str], *, variant: str, split: str = "test"
) -> Path:
    """Draw return against episodes on the task, a curve an agent with its 95 % interval; bandits: against pulls.

    Random and the agents that see the task do not adapt: each is a level.

    Args:
        results: of any variants and splits.
        path: of the picture, .png or .svg.
        variant: its id.
        split: of the variant.

    Returns:
        The path.

    Raises:
        ImportError: without Matplotlib.
        ValueError: where no result is of this variant and split, or for another suffix.
    """
    v = find_variant(variant)
    peers = groups(results).get((v.id, split))
    if not peers:
        raise ValueError(f"no results of {v.id} {split}")
    looks, labels = _looks(results), _labels(results)
    figure, axes = _figure(path, 7.2, 4.2)
    pulls = v.scored_by_trial and v.trial == 1
    for identity, group in peers.items():
        look, level = looks[labels[v.id, _short(identity)]], _is_level(group)
        x, curve = _within(group) if pulls else _curve(group, identity)
        if not level and len(x):
            _draw_curve(axes, x, curve, look, group[0].agent.round)
        elif len(x):
            mean = float(np.mean([c.value for c in curve]))
            line = (0, (1, 2)) if group[0].agent.name == "random" else (0, (6, 3))
            axes.axhline(mean, color=GREY, linestyle=line, linewidth=1.5, label=look.label, zorder=1)
    axes.set_xlabel("pulls already spent in the trial" if pulls else "episodes already spent on the task")
    axes.set_ylabel("reward of a pull" if pulls else "return of an episode")
    axes.set_title(f"{v.id}, {split}", loc="left", fontsize=11)
    axes.locator_params(axis="x", integer=True)
    _legend(axes)
    return _write(figure, path)


def aggregate(results: Sequence[Result], path: str | os.PathLike[str], *, split: str = "test") -> Path:
    """Draw each agent's IQM over variants of its normalised score at the last budget it covers, with 95 % intervals.

    Only variants with a random and an oracle row count. All agents shown have the same variants: those of one agent,
    chosen for the most variants × agents that have them all; the picture names the agents that lack some. The interval
    speaks for other seeds on these variants, so agents of one seed have none.

    Raises:
        ImportError: without Matplotlib.
        ValueError: where nothing can be normalised.
    """
    found = _normalised(results, split)
    if not found:
        raise ValueError(f"no results on {split} beside a random and an oracle row: nothing can be normalised")
    common = _common(found)
    summaries, looks = {}, _looks(results)
    for label, per_variant in ((k, found[k]) for k in found if common <= set(found[k])):
        seeds = min(len(per_variant[v]) for v in common)
        cells = np.stack([per_variant[v][:seeds] for v in sorted(common)], 1)  # (seeds, variants)
        summaries[label] = summary(cells, (label, split), "iqm", sample=False)
    ordered = sorted(summaries, key=lambda label: summaries[label].value)
    figure, axes = _figure(path, 7.2, 1.5 + 0.42 * len(ordered))
    for y, label in enumerate(ordered):
        one, look = summaries[label], looks[label]
        axes.barh(y, one.value, color=look.colour, height=0.62, alpha=0.85)
        if not math.isnan(one.low):
            axes.errorbar(one.value, y, xerr=_ends([one]), color="black", capsize=3, linewidth=1.3)
        end = max(one.value, 0.0) if math.isnan(one.high) else max(one.high, 0.0)
        axes.annotate(f"{one.value:.2f}", (end, y), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(ordered)), [looks[label].label for label in ordered])
    for x in (0.0, 1.0):
        axes.axvline(x, color=GREY, linewidth=1.2, linestyle="-" if x == 0 else (0, (6, 3)), zorder=0)
    axes.set_xlim(min(-0.05, axes.get_xlim()[0]), max(1.12, axes.get_xlim()[1] * 1.08))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"normalised score (random 0, oracle 1), IQM over {len(common)} variant{'s'[: len(common) > 1]}")
    axes.set_title(
        f"{', '.join(sorted(v.removeprefix('kshot/') for v in common)[:4])}{', …'[: 3 * (len(common) > 4)]}, {split}",
        loc="left",
        fontsize=11,
    )
    if left := sorted(looks[k].label for k in found if k not in summaries):
        figure.supxlabel(
            f"without some of these variants: {', '.join(left)}", fontsize=8, color=GREY, x=0.01, ha="left"
        )
    return _write(figure, path)


def gaps(results: Sequence[Result], path: str | os.PathLike[str], *, variant: str) -> Path:
    """Draw each agent's score on the splits train, test and ood, at the last budget it covers, with 95 % intervals.

    Scores are normalised where every agent has a random and an oracle row on the same tasks of each of its splits
    (those of another split may be harder for anyone), else raw.

    Raises:
        ImportError: without Matplotlib.
        ValueError: where no result is of this variant.
    """
    v = find_variant(variant)
    by_split = {s: g for (name, s), g in groups(results).items() if name == v.id and s != "val"}
    splits = [s for s in v.splits if s in by_split]
    if not splits:
        raise ValueError(f"no results of {v.id} on train, test or ood splits")
    keys = [(s, identity) for s in splits for identity, group in by_split[s].items() if not _is_level(group)]
    ends = {(s, identity): reference_means(by_split[s], by_split[s][identity][0].tasks.n) for s, identity in keys}
    raw, labels = not keys or None in ends.values(), _labels(results)
    points: dict[str, dict[str, Interval]] = {}
    for s in splits:
        for identity, group in by_split[s].items():
            if (raw or not _is_level(group)) and (last := last_scores(group)) is not None:
                scale = None if raw else ends[s, identity]
                cells = last[1] if scale is None else statistics.normalised(last[1], *scale)
                one = summary(cells, (v.id, s, identity), "mean", is_sample(v.id, s, group[0].tasks.n))
                label = labels[v.id, _short(identity)]
                points.setdefault(label, {})[s] = one
    figure, axes = _figure(path, max(5.0, 2.0 + 1.6 * len(splits)), 4.2)
    _draw_points(axes, splits, points, _looks(results))
    if not raw:
        for y, dash in ((0.0, (0, (1, 2))), (1.0, (0, (6, 3)))):
            axes.axhline(y, color=GREY, linewidth=1.2, linestyle=dash, zorder=0)
    kinds = {"train": "train", "test": "test"} | {s: f"{s}\n({split.kind})" for s, split in v.ood.items()}
    axes.set_xticks(range(len(splits)), [kinds[s] for s in splits])
    axes.set_xlim(-0.5, len(splits) - 0.5)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("mean return" if raw else "normalised score (random 0, oracle 1)")
    axes.set_title(v.id, loc="left", fontsize=11)
    _legend(axes)
    return _write(figure, path)


def draw_all(results: Sequence[Result], folder: str | os.PathLike[str], *, suffix: str = ".svg") -> list[Path]:
    """Draw every picture that the results allow: curves, gaps where there are two splits, aggregates.

    Raises:
        ImportError: without Matplotlib.
        ValueError: for another suffix than .png and .svg.
    """
    place, keys, written = Path(folder), list(groups(results)), []
    for id in sorted({v for v, _ in keys}):
        name, splits = id.removeprefix("kshot/"), [s for v, s in keys if v == id and s != "val"]
        written += [
            adaptation_curves(results, place / f"{name}-{s}-adaptation{suffix}", variant=id, split=s) for s in splits
        ]
        rivals = any(not _is_level(g) for (v, _), by in groups(results).items() if v == id for g in by.values())
        if len(splits) > 1 and rivals:
            written.append(gaps(results, place / f"{name}-gaps{suffix}", variant=id))
    if _normalised(results, "test"):
        written.append(aggregate(results, place / f"aggregate-test{suffix}"))
    return written


def _curve(group: Group, key: str) -> tuple[list[int], list[Interval]]:
    """Return the episode that begins each round, and the mean return of the round; a level where nothing adapts."""
    first, size = group[0], group[0].agent.round
    sample, where = is_sample(first.variant, first.split, first.tasks.n), (first.variant, first.split, key)
    if not first.agent.adapts:
        level = np.stack([np.mean(r.returns, 1) for r in group])  # (seeds, tasks)
        v = find_variant(first.variant)
        last = v.trial - 1 if v.scored_by_trial else max(v.budgets)
        return [0, last], [summary(level, where, "mean", sample)] * 2
    count = min(r.episodes for r in group) // size
    returns = np.stack([np.asarray(r.returns)[:, : count * size] for r in group])  # (seeds, tasks, episodes)
    rounds = returns.reshape(*returns.shape[:2], count, size).mean(-1)
    return [k * size for k in range(count)], [
        summary(rounds[:, :, k], (where, k), "mean", sample) for k in range(count)
    ]


def _within(group: Group) -> tuple[list[int], list[Interval]]:
    """Return the pulls of a bandit and the mean reward of each; its interval is over seeds (3 or more), not tasks.

    Only the mean over tasks is recorded; bands of two seeds would be wider than the picture.
    """
    curves = [r.within for r in group if r.within is not None]
    if not curves:
        return [], []
    table = np.array(curves)
    if len(table) < MIN_SEEDS:
        table = table.mean(0, keepdims=True)
    pulls = range(table.shape[1])
    return list(pulls), [summary(table[:, t : t + 1], ("within", t), "mean", sample=False) for t in pulls]


def _normalised(results: Sequence[Result], split: str) -> dict[str, dict[str, Floats]]:
    """Return normalised scores of every seed, by label and variant, of agents that are no references."""
    labels = _labels(results)
    found: dict[str, dict[str, Floats]] = {}
    for (variant, name), peers in groups(results).items():
        for identity, group in peers.items() if name == split else ():
            ends, last = reference_means(peers, group[0].tasks.n), last_scores(group)
            if last is not None and ends is not None and not _is_level(group):
                scaled = statistics.normalised(last[1].mean(1), *ends)
                found.setdefault(labels[variant, _short(identity)], {})[variant] = scaled
    return found


def _common(found: Mapping[str, Mapping[str, Floats]]) -> set[str]:
    """Return the variants of one agent, with the most variants × agents that have them all."""
    choices = [set(per_variant) for per_variant in found.values()]
    return max(choices, key=lambda some: (len(some) * sum(some <= other for other in choices), sorted(some)))


def _is_level(group: Group) -> bool:
    """Return whether this is a reference that does not adapt."""
    return group[0].agent.privileged or group[0].agent.name == "random"


def _short(identity: str) -> str:
    """Return an identity without its number of tasks: the same agent on all splits."""
    return identity.rsplit(" ", 1)[0]


def _labels(results: Sequence[Result]) -> dict[tuple[str, str], str]:
    """Return the label of each agent by variant and identity.

    It is the agent's name, and a number only where agents of that name have several configs on that very variant: the
    settings of a method usually differ between variants, and it is the same method all the same.
    """
    labels: dict[tuple[str, str], str] = {}
    counts: dict[tuple[str, str], int] = {}
    agents = {(v, _short(key)): g[0].agent for (v, _), peers in groups(results).items() for key, g in peers.items()}
    for variant, identity in sorted(agents):
        card = agents[variant, identity]
        plain = card.name.replace("$", r"\$").lstrip("_")[:32] or "agent"
        number = counts[variant, plain] = counts.get((variant, plain), 0) + 1
        labels[variant, identity] = plain + f" #{number}" * (number > 1) + " (sees the task)" * card.privileged
    return labels


def _looks(results: Sequence[Result]) -> dict[str, _Agent]:
    """Return how each label looks."""
    labels, levels = _labels(results), {}
    for (variant, _), peers in groups(results).items():
        for key, group in peers.items():
            levels[labels[variant, _short(key)]] = group[0].agent if _is_level(group) else None
    looks: dict[str, _Agent] = {}
    adaptive = 0
    for label in sorted(levels):
        if (card := levels[label]) is not None:
            looks[label] = _Agent(label, GREY, "*" if card.privileged else "x")
            continue
        turn, at = divmod(adaptive, len(COLOURS))
        looks[label] = _Agent(label, COLOURS[at], MARKERS[(at + turn) % len(MARKERS)])
        adaptive += 1
    return looks


def _draw_curve(axes: Axes, x: list[int], curve: list[Interval], look: _Agent, size: int) -> None:
    """Draw a line with a band, and whiskers where there is one point only; a round of one policy is a step."""
    steps: Literal["post"] | None = "post" if size > 1 else None
    if steps:
        x, curve = [*x, x[-1] + size - 1], [*curve, curve[-1]]
    y, low, high = (np.array(part) for part in zip(*curve, strict=True))
    every = max(1, len(x) // 10) if len(x) > MANY_POINTS else 1
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markersize": 5, "markevery": every}
    axes.plot(x, y, label=look.label, linewidth=1.8, drawstyle="steps-post" if steps else "default", **style)
    if len(x) > 1:
        axes.fill_between(x, low, high, color=look.colour, alpha=0.16, linewidth=0, step=steps)
    elif np.isfinite(low).all():
        axes.errorbar(x, y, yerr=_ends(curve), color=look.colour, capsize=3)


def _draw_points(
    axes: Axes, splits: list[str], points: Mapping[str, Mapping[str, Interval]], looks: Mapping[str, _Agent]
) -> None:
    """Draw a point with whiskers an agent and split, agents side by side, those of one agent joined."""
    width = min(0.12, 0.6 / max(1, len(points)))
    for i, (identity, found) in enumerate(points.items()):
        look = looks[identity]
        here = [s for s in splits if s in found]
        x = [splits.index(s) + (i - (len(points) - 1) / 2) * width for s in here]
        some, y = [found[s] for s in here], [found[s].value for s in here]
        axes.plot(x, y, color=look.colour, alpha=0.35, linewidth=1.2)
        axes.errorbar(
            x, y, yerr=_ends(some), color=look.colour, marker=look.marker, markersize=6, linestyle="none",
            capsize=3, label=look.label,
        )  # fmt: skip


def _ends(some: Sequence[Interval]) -> Floats:
    """Return how far whiskers reach down and up, (2, n); 0 where there is no interval."""
    return np.nan_to_num([[one.value - one.low for one in some], [one.high - one.value for one in some]])


def _legend(axes: Axes) -> None:
    """Put the legend beside the axes, where it covers nothing, in the order in which curves end."""
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    ends = {
        label: np.asarray(h.get_ydata())[-1] for h, label in zip(handles, labels, strict=True) if isinstance(h, Line2D)
    }
    order = sorted(range(len(labels)), key=lambda i: -ends.get(labels[i], 0.0))
    axes.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        fontsize=9,
        frameon=False,
    )


def _figure(path: str | os.PathLike[str], width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure; ImportError without Matplotlib, ValueError where it cannot be written."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need Matplotlib: pip install 'kshot[plots]'") from error
    if Path(path).suffix not in (".png", ".svg"):
        raise ValueError(f"cannot write {path}: expected a name that ends in .png or .svg")
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def _write(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a picture, atomically, without the time of day."""
    import matplotlib as mpl

    target, data = Path(path), io.BytesIO()
    kind = target.suffix[1:]
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure.savefig(data, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else {"Software": None})
    tasks.write_bytes(target, data.getvalue())
    return target
