"""What a method is to everything around it: a module with `Config`, `learner` and `agent`.

`Config` is a frozen dataclass of numbers, strings, booleans and tuples of numbers, with `steps`, the budget of
environment steps. `learner(variant, config, seed, device)` starts a training run, a `Learner`.
`agent(variant, config, weights, seed, device)` returns the agent that evaluation calls; its class has the method's
`name`, and where it learns for many episodes `least_episodes`, of a task, by whose end weights are chosen on val.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

Weights = dict[str, torch.Tensor]


class Learner(Protocol):
    """A training run of one method on one variant's training tasks; `train` drives it."""

    steps: int  # of the environment, so far

    def iterate(self) -> dict[str, float]:
        """Sample, update, and return metrics: `return` is the mean of the episodes sampled, `loss` any total."""

    def weights(self) -> Weights:
        """Return what the agent needs, detached, on the CPU."""

    def get_state(self) -> dict[str, Any]:
        """Return all that the future of the run depends on: nested dicts of tensors, arrays, numbers, strings, None."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` of an equal learner returned, to the same curve."""


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Return a copy of the state of an optimiser's parameters, by number and name, as "0.exp_avg"."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{name}": x.clone() for i, of_one in state.items() for name, x in of_one.items()}


def set_optimiser_state(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Go on from there; the settings stay the optimiser's own."""
    whole = optimiser.state_dict()
    whole["state"] = {}
    for key, x in state.items():
        i, name = key.split(".")
        whole["state"].setdefault(int(i), {})[name] = x
    optimiser.load_state_dict(whole)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return where torch's global generators are in their streams."""
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put them back there."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
