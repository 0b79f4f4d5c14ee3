"""A torch.nn.Module as an agent: a policy of observations, with memory where the module has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import distributions, nn

from kshot.agents import Memoryless
from kshot.family import Variant


class TorchAgent(Memoryless):
    """A module that is a policy.

    It maps float32 observations (rows, k), on its own device, to one of:

    - for a Box: actions (rows, …), which are clipped to it;
    - for Discrete: logits (rows, n), or actions (rows,) of an integer type;
    - a torch.distributions.Distribution over either.

    CleanRL's agents fit as they are. A module without `forward` is called by its `actor_mean` or `actor`, or by its
    `get_action_and_value` where actions are drawn or it has neither; one with `get_action` (SAC) by that.

    A module with `initial_state(n)` is recurrent: forward takes (observation, state) and returns (output, state).
    Its state starts anew with every task and lasts over the task's episodes. No module is told the task.
    """

    def __init__(
        self, module: nn.Module, variant: Variant, seed: int = 0, deterministic: bool = True, name: str | None = None
    ) -> None:
        """Take a module.

        Args:
            module: as the class says; it runs in eval mode, without gradients, and is left in the mode it was in.
            variant: what it acts in.
            seed: of the draws.
            deterministic: take the mode of a distribution and the largest logit; False draws.
            name: by default that of the module's class.

        Raises:
            ValueError: where it is no module, or nothing of it can be called.
        """
        if not isinstance(module, nn.Module):
            raise ValueError(f"expected a torch.nn.Module, got {module!r}")
        self.name = name or type(module).__name__
        self._module, self._space, self._id = module, variant.action_space, variant.id
        self._deterministic, self._seeds = deterministic, np.random.default_rng(seed)
        self._recurrent = callable(getattr(module, "initial_state", None))
        self._state: Any = None
        self._call: Callable[..., Any] = module
        if not self._recurrent:
            self._call, deterministic = _entry(module, deterministic)
        self.adapts = self._recurrent
        self.config = {"deterministic": deterministic}

    def reset(self, n: int) -> None:
        """Start from the module's initial state."""
        if self._recurrent:
            with self._quiet():
                self._state = self._module.initial_state(n)  # type: ignore[operator]  # a method

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Run the module for all rows; ValueError where what it gives is no action."""
        x = torch.tensor(np.asarray(observation, np.float32), device=_device(self._module))
        with self._quiet():
            try:
                output = self._call(*((x, self._state) if self._recurrent else (x,)))
            except Exception as error:
                error.add_note(f"{self.name} was called with observations of {self._id}, float32 {tuple(x.shape)}")
                raise
            if self._recurrent:
                if not isinstance(output, tuple) or len(output) != 2:
                    raise self._refusal(output, "(output, state), as it has initial_state")
                output, self._state = output
            return self._action(output, len(observation))

    def _action(self, output: Any, rows: int) -> np.ndarray:
        """Return actions of an output, (rows, …)."""
        if isinstance(output, distributions.Distribution):
            output = _mode(output, self.name) if self._deterministic else _draw(output)
        space = self._space
        if isinstance(space, spaces.Discrete):
            expected = f"logits ({rows}, {space.n}) or whole numbers ({rows},)"
        else:
            assert isinstance(space, spaces.Box)
            expected = f"actions {(rows, *space.shape)}"
        if not isinstance(output, torch.Tensor):
            raise self._refusal(output, expected)
        shape, real = tuple(output.shape), output.is_floating_point()
        if isinstance(space, spaces.Box):
            if shape != (rows, *space.shape) or not real:
                raise self._refusal(output, expected)
            return np.asarray(np.clip(_array(output.float()), space.low, space.high))
        if real and shape == (rows, int(space.n)):
            output = output.argmax(1) if self._deterministic else _draw(distributions.Categorical(logits=output))
        elif real or output.dtype == torch.bool or output.is_complex() or shape != (rows,):
            raise self._refusal(output, expected)
        return _array(output)

    def _refusal(self, output: Any, expected: str) -> ValueError:
        """Return the error of an output that is no action."""
        return ValueError(
            f"{self.name} gave {_described(output)} for {self._id}; expected {expected}, or a "
            "torch.distributions.Distribution of those"
        )

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Run without gradients, in eval mode, with random numbers of our own; put everything back after."""
        device, seed = _device(self._module), int(self._seeds.integers(2**63))
        training = [m for m in self._module.modules() if m.training]
        cuda = [device] if device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(cuda):
            torch.default_generator.manual_seed(seed)
            for one in cuda:  # not torch.manual_seed, which seeds all devices
                with torch.cuda.device(one):
                    torch.cuda.manual_seed(seed)
            try:
                if training:
                    self._module.eval()
                yield
            finally:
                for m in training:
                    m.training = True


def _entry(module: nn.Module, deterministic: bool) -> tuple[Callable[[torch.Tensor], Any], bool]:
    """Return what is called with observations, and whether its actions are not drawn; ValueError if there is none."""
    sac, ppo = getattr(module, "get_action", None), getattr(module, "get_action_and_value", None)
    if callable(sac):  # (action, log-probability, mean of the action); its forward gives no action
        return lambda x: _part(sac(x), 2 if deterministic else 0), deterministic
    if getattr(module.forward, "__func__", module.forward) is not nn.Module.forward:
        return module, deterministic
    # CleanRL's agents for pictures give `actor` what `network` makes of the observation, each in its own way.
    names = () if hasattr(module, "network") else ("actor_mean", "actor")
    actors = [actor for name in names if isinstance(actor := getattr(module, name, None), nn.Module)]
    if callable(ppo) and not (deterministic and actors):
        return lambda x: _part(ppo(x), 0), False
    if actors:
        return actors[0], deterministic
    raise ValueError(
        f"{type(module).__name__} has no forward that maps observations (rows, k) to actions, nor CleanRL's "
        "actor_mean, actor, get_action or get_action_and_value"
    )


def _draw(distribution: Any) -> torch.Tensor:
    sample: torch.Tensor = distribution.sample()
    return sample


def _array(x: torch.Tensor) -> np.ndarray:
    array: np.ndarray = x.cpu().numpy()
    return array


def _part(output: Any, i: int) -> Any:
    """Return an element of a tuple of three or more, anything else as it is."""
    return output[i] if isinstance(output, tuple) and len(output) > 2 else output


def _mode(distribution: Any, name: str) -> torch.Tensor:
    """Return a distribution's mode, else its mean, else the same of its base through its transforms."""
    for one in ("mode", "mean"):
        try:
            return getattr(distribution, one)  # type: ignore[no-any-return]
        except NotImplementedError:
            continue
    if isinstance(distribution, distributions.Independent):
        return _mode(distribution.base_dist, name)
    if isinstance(distribution, distributions.TransformedDistribution):  # as SAC's: the tanh of the normal's mode
        x = _mode(distribution.base_dist, name)
        for transform in distribution.transforms:
            x = transform(x)
        return x
    raise ValueError(f"{name} gave a {type(distribution).__name__}, which has no mode and no mean: draw actions of it")


def _device(module: nn.Module) -> torch.device:
    """Return where a module is: its first parameter or buffer, or the CPU."""
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def _described(x: Any) -> str:
    """Return what something is, for an error."""
    if isinstance(x, torch.Tensor):
        return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
    if isinstance(x, (tuple, list)):
        return f"a {type(x).__name__} of {len(x)}"
    return f"a {type(x).__name__}"
