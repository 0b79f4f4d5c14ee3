"""What the documentation says of a variant, generated from the variant: no fact is written twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium import spaces

from kshot import tasks
from kshot.family import Split, Variant
from kshot.laws import joint_values

_SHIFT_TASKS = 1000  # drawn to state a shift as a number


def card(variant: Variant) -> str:
    """Return everything about a variant, as Markdown."""
    family = variant.family
    end = "terminated" if variant.horizon_terminates else "truncated"
    facts = {
        "hidden": family.hidden,
        "reward": f"the sum of: {family.formula}",
        "constants": _constants(variant.constants) or "none",
        "ends early": _first_line(family.terminated) if family.terminated else "never",
        "horizon": f"{variant.horizon} steps, then {end}",
        "time step": f"{variant.dt:g} s ({variant.frame_skip} physics steps)" if variant.body else "",
        "start": str(variant.reset_noise)
        if variant.body
        else _first_line(family.analytic.initial if family.analytic else None),
        "read-outs": _readouts(variant),
        "observation": f"{space(variant.observation_space)}: {_first_line(variant.observe)}",
        "action": space(variant.action_space),
        "task": "; ".join(
            f"`{k}` {f.meaning} [{f.low:.4g}, {f.high:.4g}] {f.unit}".rstrip()
            for k, f in ((k, variant.task_field(k)) for k in variant.train)
        ),
        "trial": f"{variant.trial} episode" + "s" * (variant.trial > 1),
        "scored": ("total of a trial" if variant.scored_by_trial else "return of an episode")
        + f", after {', '.join(map(str, variant.budgets))} "
        + ("extra trials" if variant.scored_by_trial else "episodes")
        + " on the task",
        "source": variant.source,
        "note": variant.note,
    }
    lines = [f"# {variant.id}", "", family.summary, ""]
    lines += [f"- **{name}**: {value}" for name, value in facts.items() if value]
    lines += ["", "| split | kind | law | frozen tasks | about |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| `{name}` | {split.kind} | {law(split)} | {frozen_size(variant, name)} | {about(variant, name, split)} |"
        for name, split in variant.splits.items()
    ]
    return "\n".join(lines) + "\n"


def table(variants: Iterable[Variant]) -> list[list[str]]:
    """Return a header and a row a variant: id, hidden, training law, ood splits, horizon, source."""
    rows = [["id", "hidden", "training law", "out of distribution", "horizon", "source"]]
    for v in variants:
        ood = ", ".join(f"{name} ({split.kind})" for name, split in v.ood.items())
        rows.append([v.id, v.family.hidden, law(Split(v.train, "train")), ood, str(v.horizon), v.source])
    return rows


def markdown_table(rows: list[list[str]]) -> str:
    """Return rows, the first of them the header, as a Markdown table."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) + "\n"


def law(split: Split) -> str:
    """Return a split's law, leaving out parameters of one value unless all are."""
    varying = {k: x for k, x in split.law.items() if x.values is None or len(x.values) > 1}
    fixed = {k: x for k, x in split.law.items() if k not in varying and x.values not in ((0,), (1.0,), (0.0,))}
    return ", ".join(
        f"{name} ~ {x}" if name in varying else f"{name} = {x}"
        for name, x in ({**varying, **fixed} or split.law).items()
    )


def frozen_size(variant: Variant, split: str) -> str:
    """Return how many tasks the frozen set holds, and whether these are all."""
    complete = joint_values(variant.split(split).law) is not None
    return f"{tasks.frozen_size(variant, split)}{' (all)' * complete}"


def about(variant: Variant, name: str, split: Split) -> str:
    """Return what is special about a split; for a shift or another reward, the difference as numbers."""
    if split.kind == "train":
        return {"train": "", "val": "for selection", "test": "read once, by the finished run"}[name]
    parts = [split.about]
    if split.kind == "shift":
        parts += [f"{what}: {a:.2f} → {b:.2f}" for what, (a, b) in shift(variant, name).items()]
    base = variant.constants._asdict() if hasattr(variant.constants, "_asdict") else {}
    parts += [f"{k}: {base[k]} → {v}" for k, v in split.constants.items()]
    return "; ".join(parts)


def shift(variant: Variant, name: str) -> dict[str, tuple[float, float]]:
    """Return the mean of each statistic of the family under the training law and under another split's."""
    a, b = (tasks.sample(variant, split, _SHIFT_TASKS) for split in ("train", name))
    return {what: (float(np.mean(f(a))), float(np.mean(f(b)))) for what, f in variant.family.statistics.items()}


def space(s: spaces.Space[Any]) -> str:
    """Return a space in few characters."""
    if isinstance(s, spaces.Discrete):
        return f"Discrete({s.n})"
    assert isinstance(s, spaces.Box)
    return f"Box[{s.low.min():g}, {s.high.max():g}]^{s.shape[0]}"


def _readouts(variant: Variant) -> str:
    if variant.body is None or not variant.body.readouts:
        return ""
    when = "computed at the new state" if variant.body.current else "as `mj_step` leaves them, one substep behind"
    if "contact" in variant.body.readouts and not variant.body.current:
        when += " (contact: of the first RK4 stage)"
    return f"{', '.join(variant.body.readouts)}: {when}"


def _constants(constants: Any) -> str:
    return ", ".join(f"{k} = {v}" for k, v in constants._asdict().items()) if hasattr(constants, "_asdict") else ""


def _first_line(function: Any) -> str:
    text = (getattr(function, "__doc__", None) or "").strip().splitlines()
    return text[0].rstrip(".").removeprefix("Return ") if text else ""
