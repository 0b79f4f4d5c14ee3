"""The methods by name; a module is imported when its method is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from kshot.agents import Agent

if TYPE_CHECKING:
    from kshot_baselines.learner import Learner  # imports torch

METHODS = {
    "rl2": "kshot_baselines.rl2",
    "maml": "kshot_baselines.maml",
    "maesn": "kshot_baselines.maesn",
    "mgrl": "kshot_baselines.mgrl",
    "multitask": "kshot_baselines.multitask",
    "scratch": "kshot_baselines.scratch",
    "recurrent-ppo": "kshot_baselines.recurrent_ppo",
}
# A method under another name, with other settings: a row of its own on the leaderboard.
PRESETS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "pretrained": ("maml", {"inner_steps": 0}),  # one policy on all tasks, which adapts at test as MAML's does
    "untrained": ("maml", {"steps": 0}),  # a random one, likewise
    "maesn-no-latent": ("maesn", {"latent": 0, "adapt_policy": True}),  # MAML with learned step sizes
    "maesn-no-kl": ("maesn", {"latent_kl": 0.0}),
    "maesn-conditioning": ("maesn", {"inner_steps": 0}),  # latents trained without an inner update
    "mgrl-fixed": ("mgrl", {"learn_discount": False, "learn_lambda": False}),  # γ and λ stay as they are
}


class Method(NamedTuple):
    """What `kshot_baselines.learner` says that a method is."""

    name: str
    base: str  # the name of the method whose settings it changes; its own where it is no preset
    changes: Mapping[str, Any]  # from the defaults of Config
    Config: type[Any]
    learner: Callable[..., Learner]
    agent: Callable[..., Agent]


def method(name: str) -> Method:
    """Return a method or preset; ValueError, listing the known names, for another."""
    if name not in known():
        raise ValueError(f"no method {name!r}; expected one of {', '.join(known())}")
    base, changes = PRESETS.get(name, (name, {}))
    module = importlib.import_module(METHODS[base])
    return Method(name, base, changes, module.Config, module.learner, module.agent)


def known() -> list[str]:
    """Return the names of all methods and presets."""
    return [*METHODS, *PRESETS]
