"""Hyperparameters: what a method's config is on a variant, written as differences from the method's defaults."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kshot.family import Variant
from kshot_baselines.methods import method

# By method and the variant's label, or a pattern of labels; later lines go before earlier ones.
TABLE: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("rl2", "Bandit-*n10-*"): {"steps": 6_000_000},
    ("rl2", "Bandit-*n100-*"): {"rows": 500, "gae_lambda": 0.7, "value_lambda": 1.0},
    ("rl2", "GridNav-*"): {"steps": 4_000_000, "rows": 500, "gae_lambda": 0.9},
    ("rl2", "Point*"): {"steps": 4_000_000, "rows": 500, "gae_lambda": 0.9},
    ("rl2", "PointSparse-maesn-*"): {"rows": 50, "truncate": 100},
    ("rl2", "TabularMDP-*"): {
        "rows": 250,
        "memory": 128,
        "gae_lambda": 0.5,
        "value_lambda": 1.0,
        "learning_rate": 5e-3,
        "epochs": 4,
        "minibatches": 10,
        "entropy_cost": 0.02,
    },
    ("rl2", "HalfCheetah*"): {
        "rows": 100,
        "truncate": 100,
        "epochs": 1,
        "minibatches": 20,
        "learning_rate": 1e-3,
        "normalise": True,
        "gae_lambda": 0.95,
        "clip": 0.2,
    },
    ("rl2", "AntGoal-maesn-*"): {
        "steps": 4_000_000,
        "rows": 40,
        "truncate": 100,
        "minibatches": 10,
        "learning_rate": 1e-3,
        "normalise": True,
        "gae_lambda": 0.95,
        "clip": 0.2,
        "log_std": -0.5,
    },
    ("maml", "PointGoal-maml-*"): {"inner_lr": 0.5, "eval_episodes": 40, "later_lr": 0.3},
    ("maml", "PointGoal-v0"): {
        "steps": 4_000_000,
        "hidden": (64, 64),
        "activation": "tanh",
        "inner_lr": 0.5,
        "later_lr": 0.2,
    },
    ("maml", "GridNav-*"): {
        "steps": 4_000_000,
        "hidden": (64, 64),
        "activation": "tanh",
        "inner_lr": 2.0,
        "later_lr": 0.1,
        "tasks": 40,
    },
    ("maml", "PointSparse-*"): {"steps": 4_000_000, "hidden": (64, 64), "activation": "tanh", "inner_lr": 0.5},
    ("maml", "PointSparse-maesn-*"): {
        "steps": 16_000_000,
        "episodes": 10,
        "discount": 0.9,
        "inner_lr": 0.03,
        "later_lr": 0.1,
        "fisher_samples": 0.1,
    },
    ("maml", "PointRotated-*"): {
        "steps": 4_000_000,
        "hidden": (64, 64),
        "activation": "tanh",
        "inner_lr": 0.5,
        "later_lr": 0.1,
    },
    ("maml", "HalfCheetah*"): {
        "steps": 40_000_000,
        "tasks": 40,
        "hidden": (64, 64),
        "activation": "tanh",
        "fisher_samples": 0.1,
    },
    ("maml", "AntGoal-maesn-*"): {
        "steps": 4_000_000,
        "episodes": 10,
        "hidden": (64, 64),
        "activation": "tanh",
        "inner_lr": 0.3,
        "later_lr": 0.2,
        "fisher_samples": 0.1,
    },
    ("maml", "Bandit-*"): {"steps": 1_000_000, "tasks": 40, "hidden": (32, 32), "activation": "tanh", "inner_lr": 1.0},
    ("maml", "TabularMDP-*"): {
        "steps": 2_000_000,
        "tasks": 100,
        "episodes": 5,
        "hidden": (32, 32),
        "activation": "tanh",
        "inner_lr": 1.0,
    },
    ("maesn", "*"): {
        "steps": 4_000_000,
        "hidden": (64, 64),
        "activation": "tanh",
        "inner_lr": 1.0,
        "later_lr": 0.2,
        "adapt_policy": True,
    },
    ("maesn", "Bandit-*"): {"steps": 1_000_000, "tasks": 40},
    ("maesn", "TabularMDP-*"): {"steps": 2_000_000, "tasks": 50, "episodes": 5},
    ("maesn", "GridNav-*"): {"train_tasks": 40},
    ("maesn", "PointSparse-*"): {"inner_lr": 2.0, "discount": 0.9, "adapt_policy": False},
    ("maesn", "PointSparse-maesn-*"): {
        "steps": 16_000_000,
        "episodes": 10,
        "discount": 0.8,
        "inner_lr": 20.0,
        "later_lr": 0.5,
        "fisher_samples": 0.1,
    },
    ("maesn", "AntGoal-maesn-*"): {"episodes": 10, "inner_lr": 0.1, "fisher_samples": 0.1},
    ("mgrl", "Bandit-*"): {"steps": 250_000, "hidden": (32, 32), "episodes": 20, "eval_learning_rate": 0.1},
    ("mgrl", "TabularMDP-*"): {"steps": 250_000, "hidden": (32, 32), "episodes": 1, "eval_learning_rate": 0.03},
    ("mgrl", "GridNav-*"): {"rows": 200, "learning_rate": 2e-3, "entropy_cost": 0.01},
    ("mgrl", "PointSparse-*"): {"rows": 200, "learning_rate": 2e-3, "eval_learning_rate": 1e-3},
    ("mgrl", "PointRotated-*"): {"rows": 20, "log_std": -0.5, "learning_rate": 3e-3, "eval_learning_rate": 1e-3},
    ("mgrl", "HalfCheetah*"): {  # γ and λ as benchmarks/fixed_returns.py says: fixed, or where learning starts
        "rows": 10,
        "log_std": -0.5,
        "discount": 0.99,
        "gae_lambda": 0.95,
        "outer_lambda": 0.95,
        "learning_rate": 3e-3,
        "eval_learning_rate": 3e-4,
    },
    ("mgrl-fixed", "PointGoal-v0"): {"discount": 0.8, "gae_lambda": 0.8},  # as benchmarks/fixed_returns.py says
    ("mgrl-fixed", "PointSparse-v0"): {"discount": 0.9, "gae_lambda": 0.8},
    ("maesn-no-latent", "PointSparse-maesn-*"): {"discount": 0.9, "inner_lr": 0.1, "later_lr": 0.1},
    **{
        ("multitask", pattern): {
            "steps": 2_000_000,
            "rows": 500,
            "epochs": 4,
            "minibatches": 4,
            "deterministic": False,  # without the task in sight, the best policy is often a mixture
        }
        for pattern in ("GridNav-*", "Point*")
    },
}

_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def config_for(name: str, variant: Variant, overrides: Mapping[str, Any] | None = None) -> Any:
    """Return a method's config on a variant: its defaults, the table's differences, a preset's, then overrides.

    Raises:
        ValueError: for an unknown method, or a field that the method has not or that is of another type.
    """
    found = method(name)
    values = {**_of_table(found.base, variant), **found.changes}
    if found.base != name:
        values |= _of_table(name, variant)
    return build(found.Config, {**values, **(overrides or {})})


def _of_table(name: str, variant: Variant) -> dict[str, Any]:
    """Return the table's differences for a name."""
    values: dict[str, Any] = {}
    for (who, pattern), changes in TABLE.items():
        if who == name and fnmatchcase(variant.label, pattern):
            values |= changes
    return values


def build(config: type[Any], values: Mapping[str, Any]) -> Any:
    """Return a config of values as Python or JSON has them; fields that are left out have their defaults.

    Raises:
        ValueError: naming the field that there is none of, or the value that is of another type.
    """
    types = _types(config)
    return config(**{key: _checked(key, value, _type_of(key, types)) for key, value in values.items()})


def parse(config: type[Any], pairs: Iterable[str]) -> dict[str, Any]:
    """Return key=value pairs of a command line as values of a config's fields.

    Raises:
        ValueError: for what is no pair, and as `build`.
    """
    found, types = {}, _types(config)
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--set {pair}: expected key=value, as --set learning_rate=0.001")
        found[key] = _read(key, text, _type_of(key, types))
    return found


def text_of(value: Any) -> str:
    """Return a value as `parse` reads it."""
    if isinstance(value, str):
        return value
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else json.dumps(value)


def _types(config: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in fields(config)}


def _type_of(key: str, types: Mapping[str, Any]) -> Any:
    if key not in types:
        raise ValueError(f"no setting {key!r}; expected one of {', '.join(types)}")
    return types[key]


def _read(key: str, text: str, hint: Any) -> Any:
    """Return what text means for a type: JSON, a list without its brackets, or the text itself."""
    for candidate in (text, f"[{text}]", json.dumps(text)):
        try:
            value = json.loads(candidate)
            return _checked(key, value, hint)
        except ValueError:
            continue
    raise ValueError(f"{key} is {text!r}; expected {_expected(hint)}")


def _checked(key: str, value: Any, hint: Any) -> Any:
    """Return a value of a type, strictly: no text for a number, no 1.0 for a whole one, no NaN; lists as tuples."""
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value, allow_nan=False), strict=True)
    except (ValidationError, TypeError, ValueError) as error:
        raise ValueError(f"{key} is {value!r}; expected {_expected(hint)}") from error


def _expected(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        return "whole numbers, as 64,64"
    if type(None) in typing.get_args(hint):
        return f"{_expected(next(x for x in typing.get_args(hint) if x is not type(None)))}, or null"
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    return _EXPECTED.get(hint, str(hint))
