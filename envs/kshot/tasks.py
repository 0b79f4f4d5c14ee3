"""Tasks as data: checking what users give, drawing from a split, frozen sets with hashes, JSON in and out."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kshot import random
from kshot.family import Variant
from kshot.laws import joint_values, sample_joint, uniforms_of
from kshot.physics.bodies import ASSETS

TASK_SETS = ASSETS / "tasks"
_FORMAT = 1
_BLOCK = 2**17  # numbers
Task = Any  # a family's NamedTuple of arrays, batch first
_KEPT = 4
_kept: dict[tuple[Path, str, str], tuple[Variant | None, Task]] = {}  # frozen sets, the youngest last


class TaskError(ValueError):
    """A task, or a list of tasks, that the variant does not accept."""


def purpose(use: int, split: str) -> int:
    """Return the counter word of a use of random numbers on a split: streams of different splits never overlap."""
    return zlib.crc32(split.encode()) & ~0xF | use


def sample(variant: Variant, split: str, n: int, seed: int = 0) -> Task:
    """Draw `n` tasks of a split's law.

    Args:
        variant: which task distribution.
        split: one of `variant.splits`.
        n: how many.
        seed: of the draw; task `i` depends on (split, seed, i) and not on `n`.

    Returns:
        The tasks, arrays of n rows.
    """
    law = variant.split(split).law
    count, use = uniforms_of(law), purpose(random.FROZEN_TASKS, split)
    block = max(1, _BLOCK // count)  # as many tasks at once as fit the processor's cache
    parts = []
    for first in range(0, n, block):
        index = np.arange(first, min(n, first + block))
        u = random.uniform(np.repeat(random.row_seeds(seed, 1), len(index)), index, 0 * index, count, use)
        parts.append(sample_joint(law, u))
    return as_task(variant, {name: np.concatenate([part[name] for part in parts]) for name in law})


def as_task(variant: Variant, fields: Mapping[str, np.ndarray]) -> Task:
    """Return checked or drawn fields as the family's Task, each a contiguous float64 array."""
    return variant.family.task(**{name: np.array(fields[name], np.float64, order="C") for name in variant.train})


def check(variant: Variant, task: Any, n: int) -> Task:
    """Return a task, or one task a row, as a batch of `n`.

    Args:
        variant: whose task space it must lie in.
        task: a mapping {field: value} or a Task for all rows, the same with a leading axis of n for one
            task a row, or a sequence of n mappings.
        n: the batch size.

    Raises:
        TaskError: naming the field, the value, what was expected and the fix.
    """
    if isinstance(task, Sequence) and not isinstance(task, (str, bytes)) and not hasattr(task, "_fields"):
        if len(task) != n:
            raise TaskError(f"{variant.id}: got a list of {len(task)} tasks for {n} rows; give one task a row")
        if any(isinstance(t, (list, tuple)) and not hasattr(t, "_fields") for t in task):
            raise TaskError(f"{variant.id}: a list of tasks holds mappings, got a list in it: {_short(task)}")
        each = [check(variant, t, 1) for t in task]
        return as_task(variant, {name: np.concatenate([getattr(t, name) for t in each]) for name in variant.train})
    given = task._asdict() if hasattr(task, "_asdict") else task
    if not isinstance(given, Mapping):
        raise TaskError(
            f"{variant.id}: a task is a mapping with the fields {', '.join(variant.train)}; got {_short(task)}"
        )
    unknown, missing = set(given) - set(variant.train), set(variant.train) - set(given)
    if unknown or missing:
        raise TaskError(
            f"{variant.id}: the fields of a task are {', '.join(variant.train)}; "
            f"got {', '.join(map(str, given)) or 'none'}"
            + (f", so {', '.join(sorted(missing))} is missing" if missing else "")
        )
    return as_task(variant, {name: _field(variant, name, given[name], n) for name in variant.train})


def _field(variant: Variant, name: str, value: Any, n: int) -> np.ndarray:
    """Check one field and give it a batch axis."""
    field, shape = variant.task_field(name), variant.train[name].shape
    where = f"{variant.id}: task field {name!r} ({field.meaning})"
    try:
        if np.asarray(value).dtype.kind in "USO":
            raise TypeError("not numbers")
        x = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise TaskError(f"{where} is {_short(value)}; expected numbers of shape {shape}") from error
    if x.shape not in (shape, (n, *shape)):
        rows = "" if n == 1 else f", or {(n, *shape)} for one task a row"
        raise TaskError(f"{where} has shape {x.shape}; expected {shape}{rows}")
    inside = np.isfinite(x) & (x >= field.low) & (x <= field.high)
    if not inside.all():
        raise TaskError(
            f"{where} is {_short(x[~inside])}; expected within [{field.low:g}, {field.high:g}] {field.unit}".rstrip()
        )
    if field.values and not np.isin(x, field.values).all():
        raise TaskError(f"{where} is {_short(x)}; expected {' or '.join(f'{v:g}' for v in field.values)}")
    if field.whole and (x != np.floor(x)).any():
        raise TaskError(f"{where} is {_short(x)}; expected whole numbers")
    if field.simplex and (np.abs(x.sum(-1) - 1) > 1e-6).any():
        raise TaskError(f"{where} has rows that sum to {_short(x.sum(-1))}; each must sum to 1")
    return np.broadcast_to(x, (n, *shape))


def take(task: Task, rows: Any) -> Task:
    """Return some tasks of a batch."""
    return type(task)(*(x[rows] for x in task))


def to_list(task: Task) -> list[dict[str, Any]]:
    """Return a batch as a list of {field: number or nested list}."""
    fields = {name: x.tolist() for name, x in task._asdict().items()}
    return [{name: values[i] for name, values in fields.items()} for i in range(len(task[0]))]


def digest(task: Task) -> str:
    """Return the SHA-256 of a batch: field names, shapes and little-endian float64 bytes."""
    sha = hashlib.sha256()
    for name, x in task._asdict().items():
        sha.update(f"{name}{x.shape}".encode())
        sha.update(np.ascontiguousarray(x, "<f8").tobytes())
    return sha.hexdigest()


def save(path: Path, variant: Variant, task: Task) -> None:
    """Write tasks of a variant as JSON, atomically."""
    write_json(path, {"format": _FORMAT, "variant": variant.id, "sha256": digest(task), "tasks": to_list(task)})


def load(path: Path, variant: Variant) -> Task:
    """Read tasks that `save` wrote, or a plain JSON list of tasks.

    Raises:
        TaskError: where the file is not JSON, names another variant, holds a task outside the task space or
            does not match its SHA-256.
    """
    try:
        data = json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise TaskError(f"cannot read tasks from {path}: {error}") from error
    entries = data.get("tasks") if isinstance(data, dict) else data
    if not isinstance(entries, list) or not entries:
        raise TaskError(f"{path}: expected a JSON list of tasks, or an object with one under 'tasks'")
    if isinstance(data, dict) and data.get("variant", variant.id) != variant.id:
        raise TaskError(f"{path} holds tasks of {data['variant']}, not of {variant.id}")
    task = check(variant, entries, len(entries))
    if isinstance(data, dict) and "sha256" in data and data["sha256"] != digest(task):
        raise TaskError(
            f"{path}: the tasks do not match their SHA-256: the file is damaged or was edited "
            "(drop 'sha256' to use it as it is)"
        )
    return task


def pool(variant: Variant, tasks: Any) -> Task:
    """Return what `tasks=` names as a batch: a path to a JSON file, a list of tasks, or a batch."""
    if isinstance(tasks, (str, os.PathLike)):
        return load(Path(tasks), variant)
    if hasattr(tasks, "_fields"):
        return check(variant, tasks, len(tasks[0]))
    if not isinstance(tasks, Sequence) or not tasks:
        raise TaskError(
            f"{variant.id}: tasks= takes a non-empty list of tasks or the path of a JSON file, got {_short(tasks)}"
        )
    return check(variant, tasks, len(tasks))


def frozen(variant: Variant, split: str) -> Task:
    """Return the frozen task set of a split, what scoring uses; its arrays cannot be written to.

    The last few sets are kept: drawing 10,000 random MDPs takes seconds.

    Raises:
        TaskError: where it does not match the SHA-256 that ships with the package.
    """
    variant.split(split)
    path = TASK_SETS / f"{variant.label}.json"
    key = (path, variant.id, split)
    owner, task = _kept.pop(key, (None, None))
    if owner is not variant:
        task = _checked_frozen(variant, split, path)
        for x in task:
            x.flags.writeable = False
    _kept[key] = variant, task  # the last of the dict is the youngest
    while len(_kept) > _KEPT:
        del _kept[next(iter(_kept))]
    return task


def _checked_frozen(variant: Variant, split: str, path: Path) -> Task:
    """Read or draw a frozen set, and compare its hash."""
    try:
        entry = json.loads(path.read_text())["splits"][split]
        task = check(variant, entry["tasks"], len(entry["tasks"])) if "tasks" in entry else draw_frozen(variant, split)
        sha256 = entry["sha256"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise TaskError(f"{variant.id}, split {split}: cannot read {path.name}; reinstall kshot: {error}") from error
    if digest(task) != sha256:
        raise TaskError(
            f"{variant.id}, split {split}: the frozen tasks do not match their SHA-256 in {path.name}; reinstall kshot"
        )
    return task


def frozen_size(variant: Variant, split: str) -> int:
    """Return how many tasks a frozen set has: all of a finite law, else `variant.frozen_tasks`."""
    values = joint_values(variant.split(split).law)
    return variant.frozen_tasks if values is None else len(next(iter(values.values())))


def draw_frozen(variant: Variant, split: str) -> Task:
    """Draw a split's frozen set: every task of a finite law, else `variant.frozen_tasks` of seed 0."""
    values = joint_values(variant.split(split).law)
    if values is None:
        return sample(variant, split, variant.frozen_tasks)
    # In an order of our own, so that the first n are no corner of the law.
    seeds, n = random.row_seeds(0, 1), len(next(iter(values.values())))
    use = purpose(random.FROZEN_TASKS, split)
    order = np.argsort(random.uniform(seeds, np.zeros(1), np.zeros(1), n, use)[0], kind="stable")
    return take(as_task(variant, values), order)


def freeze(variant: Variant) -> None:
    """Write a variant's frozen sets: MuJoCo and finite ones as data, free-to-draw ones as size and hash."""
    splits: dict[str, Any] = {}
    for name, split in variant.splits.items():
        task = draw_frozen(variant, name)
        splits[name] = {"n": len(task[0]), "sha256": digest(task)}
        if variant.body is not None or joint_values(split.law) is not None:
            splits[name]["tasks"] = to_list(task)
    write_json(
        TASK_SETS / f"{variant.label}.json",
        {"format": _FORMAT, "variant": variant.id, "splits": splits},
    )


def write_json(path: Path, data: Any) -> None:
    """Write JSON, atomically."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the whole new one, never a part."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def _short(x: Any) -> str:
    """Return a value short enough for one line of an error."""
    text = np.array2string(x, threshold=6, precision=4) if isinstance(x, np.ndarray) else repr(x)
    return text if len(text) <= 80 else text[:77] + "…"
