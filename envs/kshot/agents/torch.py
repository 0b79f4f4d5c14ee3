"""A torch.nn.Module as an agent: a policy of observations, with memory where the module has one."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import distributions, nn

from kshot.agents import Experience, Memoryless
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
    Its state starts anew with every task and lasts over the task's episodes: tensors, also in tuples, lists and dicts,
    of which one axis each is as long as there are rows. A row whose episode has ended keeps its state until the next
    begins. No module is told the task.
    """

    def __init__(
        self, module: nn.Module, variant: Variant, seed: int = 0, deterministic: bool = True, name: str | None = None
    ) -> None:
        """Take a module.

        Args:
            module: as the class says; it runs in eval mode, without gradients, and is left in the mode it was in.
            variant: what it acts in.
            seed: of the draws, which start anew with every `reset`.
            deterministic: take the mode of a distribution and the largest logit; False draws.
            name: by default that of the module's class.

        Raises:
            ValueError: where it is no module, or nothing of it can be called.
        """
        if not isinstance(module, nn.Module):
            raise ValueError(f"expected a torch.nn.Module, got {module!r}")
        self.name = name or type(module).__name__
        self._module, self._space, self._id = module, variant.action_space, variant.id
        self._deterministic, self._draws = deterministic, Draws(seed)
        self._recurrent = callable(getattr(module, "initial_state", None))
        self._state: Any = None
        self._axes: Any = None  # of the rows, where the state has its tensors
        self._live = np.ones(0, bool)  # rows whose episode goes on
        self._call: Callable[..., Any] = module
        if not self._recurrent:
            self._call, deterministic = _entry(module, deterministic)
        self.adapts = self._recurrent
        self.config = {"deterministic": deterministic, "checkpoint_sha256": digest(module)}

    def reset(self, n: int) -> None:
        """Start from the module's initial state; ValueError where it has no axis that is as long as there are rows."""
        self._draws.restart()
        if self._recurrent:
            initial: Callable[[int], Any] = self._module.initial_state  # type: ignore[assignment]  # a method
            with self._quiet():
                self._state = initial(n)
                self._axes = _row_axes(self._state, initial(n + 1), self.name)
            self._live = np.ones(n, bool)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Run the module for all rows; ValueError where what it gives is no action."""
        x = torch.tensor(np.asarray(observation, np.float32), device=_device(self._module))
        with self._quiet():
            waits = self._recurrent and not self._live.all()
            before = _mapped(torch.clone, self._state) if waits else None  # the module may write into its state
            try:
                output = self._call(*((x, self._state) if self._recurrent else (x,)))
            except Exception as error:
                error.add_note(f"{self.name} was called with observations of {self._id}, float32 {tuple(x.shape)}")
                raise
            if self._recurrent:
                if not isinstance(output, tuple) or len(output) != 2:
                    raise self._refusal(output, "(output, state), as it has initial_state")
                output, self._state = output
                if waits:
                    self._state = _held(before, self._state, self._axes, self._live, self.name)
            return self._action(output, len(observation))

    def observe(self, experience: Experience) -> None:
        """See which rows wait from now on."""
        self._live = going_on(experience)

    def end_episode(self) -> None:
        """Let all rows go on."""
        self._live = np.ones(len(self._live), bool)

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
        training = [m for m in self._module.modules() if m.training]
        with torch.no_grad(), self._draws.own(_device(self._module)):
            try:
                if training:
                    self._module.eval()
                yield
            finally:
                for m in training:
                    m.training = True


class Draws:
    """A stream of random numbers of one's own, for code that draws from global generators.

    Within `own`, the global generators of torch, NumPy and Python are at this stream's place; outside, nobody can tell
    that anything was drawn.
    """

    def __init__(self, seed: int) -> None:
        """Take a seed, from 0."""
        self._seed = seed
        self._place: _Place | None = None  # None: not begun

    def restart(self) -> None:
        """Begin anew."""
        self._place = None

    @contextmanager
    def own(self, device: torch.device) -> Iterator[None]:
        """Draw from this stream, on the CPU and on a device; it goes on where it was left."""
        theirs = _place(device)
        try:
            if self._place is None:
                _seed(self._seed, device)
            else:
                _go_to(self._place, device)
            yield
        finally:
            self._place = _place(device)
            _go_to(theirs, device)


class _Place(NamedTuple):
    """Where the global generators are in their streams."""

    python: tuple[Any, ...]
    numpy: Any
    torch: torch.Tensor
    cuda: torch.Tensor | None


def _seed(seed: int, device: torch.device) -> None:
    """Seed the global generators; not by torch.manual_seed, which seeds all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _place(device: torch.device) -> _Place:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return _Place(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)


def _go_to(place: _Place, device: torch.device) -> None:
    random.setstate(place.python)
    np.random.set_state(place.numpy)
    torch.set_rng_state(place.torch)
    if place.cuda is not None:
        torch.cuda.set_rng_state(place.cuda, device)


def digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's state: the names, types, shapes and bytes of its tensors, in order of names."""
    found = hashlib.sha256()
    for name, x in sorted(module.state_dict().items()):
        if isinstance(x, torch.Tensor):
            data = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # NumPy has no bfloat16
            found.update(f"{name} {x.dtype} {tuple(x.shape)}\n".encode())
            found.update(data.numpy().tobytes())
        else:  # what get_extra_state of a module gives
            found.update(f"{name} {x!r}\n".encode())
    return found.hexdigest()


def going_on(experience: Experience) -> np.ndarray:
    """Return which rows' episodes go on after a step, (rows,) bool."""
    alive: np.ndarray = experience.active & ~(experience.terminated | experience.truncated)
    return alive


def _mapped(function: Callable[..., Any], *states: Any) -> Any:
    """Apply a function to the tensors at each place of states that are built alike; ValueError where they are not."""
    first = states[0]
    if isinstance(first, (tuple, list, dict)) and not all(type(s) is type(first) for s in states):
        raise ValueError(f"{' and '.join(_described(s) for s in states)} are not built alike")
    if isinstance(first, dict):
        if any(s.keys() != first.keys() for s in states):
            raise ValueError("dicts of different keys are not built alike")
        return {k: _mapped(function, *(s[k] for s in states)) for k in first}
    if isinstance(first, (tuple, list)):
        if any(len(s) != len(first) for s in states):
            raise ValueError(f"{' and '.join(_described(s) for s in states)} are not built alike")
        parts = [_mapped(function, *at) for at in zip(*states, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    if all(s is None for s in states):
        return None
    if not all(isinstance(s, torch.Tensor) for s in states):
        raise ValueError(f"expected tensors, also in tuples, lists and dicts, got {_described(first)}")
    return function(*states)


def _row_axes(state: Any, longer: Any, name: str) -> Any:
    """Return the axis of the rows, as integer tensors in the places of the state's tensors.

    Args:
        state: for n rows.
        longer: for n + 1.
        name: of the agent, for the error.

    Raises:
        ValueError: where a tensor has no such axis, or several.
    """

    def axis(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        found = [i for i, (k, m) in enumerate(zip(a.shape, b.shape, strict=False)) if k != m]
        if a.ndim != b.ndim or len(found) != 1 or b.shape[found[0]] != a.shape[found[0]] + 1:
            raise ValueError(f"{_described(a)} for n rows and {_described(b)} for n + 1 have not one axis that follows")
        return torch.tensor(found[0])

    try:
        return _mapped(axis, state, longer)
    except ValueError as error:
        raise ValueError(
            f"{name}.initial_state(n): {error}; each tensor of a state needs one axis that is n long, for a row keeps "
            "its state while it waits for others"
        ) from error


def _held(before: Any, after: Any, axes: Any, live: np.ndarray, name: str) -> Any:
    """Return the state after a step, and that before it in rows which wait; ValueError where their shapes differ."""

    def kept(old: torch.Tensor, new: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
        if old.shape != new.shape:
            raise ValueError(f"{_described(old)} became {_described(new)}")
        shape = [-1 if i == int(axis) else 1 for i in range(new.ndim)]
        return torch.where(torch.tensor(live, device=new.device).reshape(shape), new, old)

    try:
        return _mapped(kept, before, after, axes)
    except ValueError as error:
        raise ValueError(f"{name} cannot keep the state of rows that wait for others: {error}") from error


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
