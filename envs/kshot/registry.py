"""The table of variants, and the loop that registers their Gymnasium ids."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

import gymnasium

from kshot.families import (
    ant_dir,
    ant_goal,
    bandit,
    grid_nav,
    half_cheetah_dir,
    half_cheetah_vel,
    point_goal,
    point_rotated,
    point_sparse,
    tabular_mdp,
)
from kshot.family import Variant, register_names

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    register_names(
        (
            *bandit.VARIANTS,
            *tabular_mdp.VARIANTS,
            *grid_nav.VARIANTS,
            *point_goal.VARIANTS,
            *point_sparse.VARIANTS,
            *point_rotated.VARIANTS,
            *half_cheetah_vel.VARIANTS,
            *half_cheetah_dir.VARIANTS,
            *ant_dir.VARIANTS,
            *ant_goal.VARIANTS,
        )
    )
)


def variant(id: str) -> Variant:
    """Return the variant of a Gymnasium id, with or without the namespace.

    Raises:
        KeyError: naming the closest ids.
    """
    name = id.removeprefix("kshot:")
    name = name if name.startswith("kshot/") else f"kshot/{name}"
    if name not in VARIANTS:
        close = difflib.get_close_matches(name, VARIANTS, 3)
        raise KeyError(
            f"no variant {id!r}; "
            + (f"did you mean {', '.join(close)}?" if close else "`kshot list` shows all of them")
        )
    return VARIANTS[name]


def register() -> None:
    """Register every variant with Gymnasium, as plain data."""
    for name, v in VARIANTS.items():
        gymnasium.register(
            name,
            entry_point="kshot.single:KshotEnv",
            vector_entry_point="kshot.vector:KshotVectorEnv",
            # Where the horizon is part of the problem the env terminates itself: no time limit.
            max_episode_steps=v.time_limit,
            kwargs={"variant": name},
        )
