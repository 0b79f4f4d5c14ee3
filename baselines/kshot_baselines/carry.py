"""Carrying a policy that sees the task to another variant of its family, whose observation shows more.

Variants that differ in what they show, in the horizon, or in a law that lies within what the policy was trained on
need no training of their own: the network reads its numbers where the other variant shows them, and takes the rest
with weight 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kshot.agents.policy import PolicyError, load_policy, save_policy
from kshot.family import Variant


def carry(path: Path, source: Variant, target: Variant, to: Path) -> Path:
    """Write the policy file of one variant as one of another of the same family.

    Args:
        path: of the policy, whose input is the observation of `source` and then the task.
        source: what it was trained on.
        target: what it will act in.
        to: where to write it.

    Raises:
        PolicyError: where it is not a policy that sees the task of `source`.
        ValueError: where the families or actions differ, or `target` does not show all that `source` does.
    """
    policy = load_policy(path)
    if source.family is not target.family or source.action_space != target.action_space:
        raise ValueError(f"{source.id} and {target.id} are not of one family with the same actions")
    if not policy.header.sees_task or policy.header.variant != source.id:
        raise PolicyError(f"{path} is of {policy.header.variant}; expected a policy that sees the task of {source.id}")
    places, shown = columns(source, target), target.observation_space.shape[0]
    size = policy.inputs - len(places)  # of the task
    places = np.concatenate([places, shown + np.arange(size)])
    tensors = dict(policy.tensors)
    for name, rest in (("0.weight", 0.0), ("observation.mean", 0.0), ("observation.scale", 1.0)):
        if name in tensors:
            old = tensors[name]
            tensors[name] = np.full((*old.shape[:-1], shown + size), rest, old.dtype)
            tensors[name][..., places] = old
    save_policy(to, policy.header, tensors)
    return to


def columns(source: Variant, target: Variant) -> np.ndarray:
    """Return where each number of one variant's observation stands in another's, (inputs,) int.

    Raises:
        ValueError: where one of them does not stand there.
    """
    old, new = (v.observe(_numbered(v.example_state()))[0] for v in (source, target))
    same = old[:, None] == new
    if not same.any(1).all():
        raise ValueError(f"{target.id} does not show number {same.any(1).argmin()} of the observation of {source.id}")
    found: np.ndarray = same.argmax(1)
    return found


def _numbered(state: Any) -> Any:
    """Return a state of different numbers in [-1, 1], where nothing is clipped; a field has the same in any variant."""
    fields = enumerate(state)
    return type(state)(*(x if x is None else np.random.default_rng(i).uniform(-1, 1, np.shape(x)) for i, x in fields))
