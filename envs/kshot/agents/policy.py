"""Policy files: a trained network that anybody can send and anybody can run, without pickle and without torch.

A safetensors file with the layers of an MLP, `0.weight` (out, in), `0.bias` (out,), `1.weight`, …, optionally
`observation.mean` and `observation.scale` (in,), and `log_std` (out,) where actions are drawn. Its metadata has one
key, `kshot`, a JSON `Header`. Loading one reads numbers and runs nothing. Everything is computed in float64, so
that machines differ by less than the digits that a result keeps.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from gymnasium import spaces
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kshot import tasks
from kshot.agents import Memoryless, PrivilegedAgent
from kshot.family import Variant
from kshot.wrappers import with_task

SUFFIX = ".safetensors"
MAX_BYTES = 64 * 2**20
MAX_WIDTH = 4096  # of a layer: 20,000 rows of it are 0.7 GB
MAX_LAYERS = 32
MAX_LOG_STD = 20.0
_KEY = "kshot"  # of the metadata
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
Activation: TypeAlias = Literal["tanh", "relu", "leaky_relu", "elu", "silu"]
Output: TypeAlias = Literal["action", "tanh", "logits"]
_ACTIVATIONS: dict[Activation, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "silu": lambda x: x * 0.5 * (1 + np.tanh(0.5 * x)),
}
Layer = tuple[np.ndarray, np.ndarray]  # weight (out, in), bias (out,)


class PolicyError(ValueError):
    """A policy file that this version cannot read, or that does not fit the variant."""


class Header(BaseModel):
    """What a policy file says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1] = 1
    name: str = Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$")  # of the agent
    variant: str = Field(max_length=100)  # id of what it was trained on
    activation: Activation  # after every layer but the last
    output: Output  # clipped to the Box; from [-1, 1] to the Box; one a Discrete action
    deterministic: bool = True  # False: actions are drawn, with `log_std` before the tanh, or by the logits
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # of the observation, once normalised
    sees_task: bool = False  # its input is the observation and then the task: an oracle
    training_steps: int = Field(ge=0)
    command: str = ""  # that trained it
    config: dict[str, Any] = {}

    @field_validator("config")
    @classmethod
    def _is_json(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Refuse what a result could not be written with; values are what JSON makes of them."""
        try:
            return json.loads(json.dumps(config, allow_nan=False))  # type: ignore[no-any-return]
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"it cannot be written as JSON: {error}") from error


@dataclass(frozen=True)
class PolicyFile:
    """A checked policy and where it came from."""

    header: Header
    tensors: Mapping[str, np.ndarray]
    file: str  # its name, without folders
    sha256: str  # of its bytes

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The network, float64."""
        return _layers(self.tensors)

    @property
    def inputs(self) -> int:
        """How many numbers it takes."""
        return int(self.layers[0][0].shape[1])

    @property
    def outputs(self) -> int:
        """How many numbers it gives."""
        return len(self.layers[-1][1])

    def act(self, x: np.ndarray, space: spaces.Space[Any], generator: np.random.Generator) -> np.ndarray:
        """Return actions of a space that fits, (rows, inputs) -> (rows, …).

        Args:
            x: observations, and the tasks after them where it sees those.
            space: the Box or Discrete of actions.
            generator: draws, where the policy is not deterministic.

        Raises:
            PolicyError: where the network gives NaN or infinity.
        """
        y = self.forward(x)
        if not self.header.deterministic:
            y = y + self._noise(y.shape, generator)
        if isinstance(space, spaces.Discrete):
            action: np.ndarray = y.argmax(1) + int(space.start)
            return action
        assert isinstance(space, spaces.Box)
        low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
        y = y.reshape(len(y), *low.shape)
        return low + 0.5 * (np.tanh(y) + 1) * (high - low) if self.header.output == "tanh" else y.clip(low, high)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return what the last layer gives, (rows, inputs) -> (rows, outputs), with the errors of `act`."""
        with np.errstate(all="ignore"):  # what overflows is refused below
            y = self._normalised(np.asarray(x, np.float64))
            for i, (weight, bias) in enumerate(self.layers):
                y = (y if i == 0 else _ACTIVATIONS[self.header.activation](y)) @ weight.T + bias
        if not np.isfinite(y).all():
            raise PolicyError(f"{self.file}: the network of {self.header.name!r} gives NaN or infinity")
        return y

    def _normalised(self, x: np.ndarray) -> np.ndarray:
        """Return what the first layer takes."""
        if "observation.mean" in self.tensors:
            x = (x - self.tensors["observation.mean"]) / self.tensors["observation.scale"]
        return x if self.header.clip is None else x.clip(-self.header.clip, self.header.clip)

    def _noise(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        """Return what makes a mean a normal draw, or the largest logit a draw by softmax."""
        if self.header.output == "logits":
            return generator.gumbel(size=shape)
        return np.exp(self.tensors["log_std"].astype(np.float64)) * generator.standard_normal(shape)


class PolicyAgent(Memoryless):
    """The policy of a file. One that sees the task becomes a `PrivilegedAgent`, so that no result can hide it."""

    adapts = False

    def __new__(cls, policy: PolicyFile, variant: Variant, seed: int = 0) -> PolicyAgent:
        """Choose the class by what the file says."""
        return super().__new__(_Oracle if policy.header.sees_task else cls)

    def __init__(self, policy: PolicyFile, variant: Variant, seed: int = 0) -> None:
        """Take a policy, the variant it acts in, and the seed of its draws; PolicyError where they do not fit."""
        _must_fit(policy, variant)
        header = policy.header
        self.policy, self.name = policy, header.name
        self._space, self._generator = variant.action_space, np.random.default_rng(seed)
        elsewhere = {} if header.variant == variant.id else {"trained_on": header.variant}
        self.config = {
            **header.config,
            **elsewhere,
            "training_steps": header.training_steps,
            "checkpoint": policy.file,
            "checkpoint_sha256": policy.sha256,
        }

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Run the network for all rows."""
        return self.policy.act(observation, self._space, self._generator)


class _Oracle(PolicyAgent, PrivilegedAgent):
    """A policy whose input is the observation and then the task."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Run the network for all rows, with their tasks."""
        return super().act(with_task(observation, self._engine))


def load_policy(path: str | os.PathLike[str]) -> PolicyFile:
    """Read a policy file.

    Raises:
        PolicyError: where it cannot be read, is damaged, too large, of another format, or no policy.
    """
    return decode(read_file(path), Path(path))


def save_policy(path: str | os.PathLike[str], header: Header, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a policy file, atomically; the same policy gives the same bytes.

    Raises:
        PolicyError: where `load_policy` would not read it, or its name does not end in .safetensors.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise PolicyError(f"{path}: the name of a policy file ends in {SUFFIX}")
    data = encode(header, tensors)
    decode(data, path)
    tasks.write_bytes(path, data)


def encode(header: Header, tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of a policy file; PolicyError for tensors of a type that none has."""
    from safetensors.numpy import save

    for name, x in tensors.items():
        if np.asarray(x).dtype.kind not in "biuf":
            raise PolicyError(f"{name} is of type {np.asarray(x).dtype}; expected floating point numbers")
    text = json.dumps(header.model_dump(), sort_keys=True, allow_nan=False)
    return save({name: np.ascontiguousarray(x) for name, x in tensors.items()}, {_KEY: text})


def decode(data: bytes, path: Path) -> PolicyFile:
    """Return the policy that bytes hold; `path` is for errors, of which there are those of `load_policy`."""
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(data)  # type: ignore[no-untyped-call]  # its stub has no types
        metadata = metadata_of(data)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise PolicyError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    header = _header(metadata, path)
    tensors = {name: _tensor(name, entry, path) for name, entry in found}
    problem = _problem(header, tensors)
    if problem:
        raise PolicyError(f"{path}: {problem}")
    return PolicyFile(header, tensors, path.name, hashlib.sha256(data).hexdigest())


def metadata_of(data: bytes) -> dict[str, str]:
    """Return the metadata of what may be a safetensors file; empty where it has none, or is no such file."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__")
    except (AttributeError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of what may be a policy file, unchecked.

    Raises:
        PolicyError: where it is no regular file, larger than a policy may be, or cannot be read.
    """
    path = Path(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe or a device could last for ever
            raise PolicyError(f"cannot read a policy from {path}: it is not a file")
        if found.st_size > MAX_BYTES:
            raise PolicyError(f"{path} has {found.st_size} bytes; a policy file has at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(f"cannot read a policy from {path}: {error}") from error
    except ValueError as error:
        raise error if isinstance(error, PolicyError) else PolicyError(f"cannot read {path}: {error}") from error


def _header(metadata: Mapping[str, str], path: Path) -> Header:
    """Return the checked header."""
    if _KEY not in metadata:
        raise PolicyError(
            f"{path} has no metadata {_KEY!r}, so it is no policy of kshot; write one with "
            "kshot.agents.policy.save_policy or kshot.agents.sb3.export_policy"
        )
    try:
        return Header.model_validate_json(metadata[_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the header"
        raise PolicyError(f"{path} has no header that this kshot reads: {where}: {first['msg']}") from error


def _tensor(name: str, entry: Mapping[str, Any], path: Path) -> np.ndarray:
    """Return a tensor of the file as an array, read-only."""
    if entry["dtype"] not in _DTYPES:
        raise PolicyError(f"{path}: {name} is of type {entry['dtype']}; expected one of {', '.join(_DTYPES)}")
    return np.frombuffer(bytes(entry["data"]), _DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _problem(header: Header, tensors: Mapping[str, np.ndarray]) -> str:
    """Return what is wrong with the tensors, empty where nothing is."""
    depth = sum(name.endswith(".weight") for name in tensors)
    if not 1 <= depth <= MAX_LAYERS:
        return f"it has {depth} layers; expected 0.weight, 0.bias, 1.weight, …, from 1 to {MAX_LAYERS}"
    shapes = _expected_shapes(header, tensors, depth)
    unknown, missing = set(tensors) - set(shapes), set(shapes) - set(tensors)
    if unknown or missing:
        what, names = ("unknown tensor", unknown) if unknown else ("no tensor", missing)
        return f"it has {what} {min(names)!r}; expected {', '.join(shapes)}"
    for name, shape in shapes.items():
        x = tensors[name]
        if x.shape != shape:
            return f"{name} has shape {x.shape}; expected {shape}, so that the layers chain"
        if x.size == 0 or (name.endswith(".bias") and len(x) > MAX_WIDTH):
            return f"{name} has {x.size} numbers; a layer has 1 to {MAX_WIDTH}"
        if not np.isfinite(x).all():
            return f"{name} holds NaN or infinity"
    if "observation.scale" in tensors and not (tensors["observation.scale"] > 0).all():
        return "observation.scale holds numbers that are not above 0"
    if "log_std" in tensors and (tensors["log_std"] > MAX_LOG_STD).any():
        return f"log_std holds numbers above {MAX_LOG_STD:g}"
    return ""


def _expected_shapes(header: Header, tensors: Mapping[str, np.ndarray], depth: int) -> dict[str, tuple[int | str, ...]]:
    """Return the shapes that fit each other, by name, in order."""
    # A dimension that cannot be told because its tensor is missing or not of that rank equals no number.
    first = tensors["0.weight"].shape[-1] if "0.weight" in tensors and tensors["0.weight"].ndim else "in"
    shapes: dict[str, tuple[int | str, ...]] = {}
    width: int | str = first
    for i in range(depth):
        weight = tensors.get(f"{i}.weight")
        out: int | str = weight.shape[0] if weight is not None and weight.ndim == 2 else "out"
        shapes |= {f"{i}.weight": (out, width), f"{i}.bias": (out,)}
        width = out
    if "observation.mean" in tensors or "observation.scale" in tensors:
        shapes |= {"observation.mean": (first,), "observation.scale": (first,)}
    if not header.deterministic and header.output != "logits":
        shapes |= {"log_std": (width,)}
    return shapes


def _layers(tensors: Mapping[str, np.ndarray]) -> tuple[Layer, ...]:
    """Return weights and biases in order, float64."""
    depth = sum(name.endswith(".weight") for name in tensors)
    named = ((tensors[f"{i}.weight"], tensors[f"{i}.bias"]) for i in range(depth))
    return tuple((weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in named)


def _must_fit(policy: PolicyFile, variant: Variant) -> None:
    """Raise PolicyError where a policy's input or output is not that of a variant."""
    header, space = policy.header, variant.action_space
    observation = variant.observation_space.shape[0]
    task = sum(int(np.prod(law.shape)) for law in variant.train.values()) if header.sees_task else 0
    who = f"{policy.file}: {header.name!r}, trained on {header.variant},"
    if policy.inputs != observation + task:
        parts = f"observation of {observation}" + (f" and a task of {task}" if header.sees_task else "")
        raise PolicyError(f"{who} takes {policy.inputs} numbers; {variant.id} gives an {parts}")
    if (header.output == "logits") != isinstance(space, spaces.Discrete):
        raise PolicyError(f"{who} has the output {header.output!r}, which does not fit {variant.id}'s actions, {space}")
    size = int(space.n) if isinstance(space, spaces.Discrete) else int(np.prod(space.shape or ()))
    if policy.outputs != size:
        raise PolicyError(f"{who} gives {policy.outputs} numbers; {variant.id} takes {size}, of {space}")
