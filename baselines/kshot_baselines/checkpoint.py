"""Files of training: weights with a header, that anybody can evaluate, and the whole state of a run.

Both are safetensors with JSON in their metadata, never pickle, and are written atomically. A checkpoint holds what
`weights` of a learner gives and, under the metadata key `kshot_baselines`, a `Header`; `kshot` finds `load_agent`
by that key. A state is any nest of dicts, lists and tuples of tensors, arrays, numbers, strings and None.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as _tensors_of
from safetensors.torch import save as _bytes_of

from kshot import tasks
from kshot.agents import Agent
from kshot.agents.policy import PolicyError, metadata_of, read_file
from kshot.family import Variant
from kshot.results import provenance
from kshot_baselines.hparams import build
from kshot_baselines.learner import Weights
from kshot_baselines.methods import method

KEY = "kshot_baselines"  # of the metadata
_STATE = "kshot_state"
_FORMAT = 1
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class CheckpointError(PolicyError):
    """A checkpoint or state that this version cannot read, or that does not fit."""


class Header(BaseModel):
    """What a checkpoint says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1] = 1
    method: str = Field(max_length=80)
    variant: str = Field(max_length=100)  # id of what it was trained on
    config: dict[str, Any]  # fields of the method's Config
    seed: int = Field(ge=0)  # of training
    training_steps: int = Field(ge=0)  # of the environment, in all
    command: str  # that trains it again
    device: str  # it was trained on
    seconds: float = Field(ge=0, allow_inf_nan=False)  # of sampling and updates
    versions: dict[str, str]
    commit: str | None  # of the git checkout that trained it
    curve: list[tuple[int, _Finite]]  # (steps, score on val) over training; the weights are those of the best score
    metrics: list[dict[str, _Finite]] = []  # of the iteration before each point of the curve; none at the start


class Checkpoint(NamedTuple):
    """A checked checkpoint and where it came from."""

    header: Header
    config: Any  # the method's Config
    weights: Weights
    file: str  # its name, without folders
    sha256: str  # of its bytes


def header_of(
    name: str, variant: Variant, config: Any, seed: int, *, training_steps: int, command: str, device: str,
    seconds: float, curve: list[tuple[int, float]], metrics: list[dict[str, float]],
) -> Header:  # fmt: skip
    """Return the header of a run's weights, with the versions and the commit that run now."""
    here = provenance()
    return Header(
        method=name, variant=variant.id, config=as_json(config), seed=seed, training_steps=training_steps,
        command=command, device=device, seconds=seconds, versions={**here["versions"], "torch": version("torch")},
        commit=here["commit"], curve=curve, metrics=metrics,
    )  # fmt: skip


def as_json(config: Any) -> dict[str, Any]:
    """Return a config as JSON has it: tuples are lists."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))
    return found


def encode(header: Header, weights: Weights) -> bytes:
    """Return the bytes of a checkpoint; the same header and weights give the same."""
    text = json.dumps(header.model_dump(), sort_keys=True, allow_nan=False)
    return _bytes_of({name: x.detach().cpu().contiguous().clone() for name, x in weights.items()}, {KEY: text})


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: where it is damaged, too large, of another format, of an unknown method, or its config is
            none of that method; a PolicyError where it cannot be read.
    """
    path, data = Path(path), read_file(path)
    weights, metadata = _decode(data, path)
    if KEY not in metadata:
        raise CheckpointError(f"{path} has no metadata {KEY!r}, so it is no checkpoint of a method of kshot")
    try:
        header = Header.model_validate_json(metadata[KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the header"
        raise CheckpointError(f"{path} has no header that this kshot reads: {where}: {first['msg']}") from error
    try:
        config = build(method(header.method).Config, header.config)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    bad = first_not_finite(weights)
    if bad is not None:
        raise CheckpointError(f"{path}: {bad} holds NaN or infinity")
    return Checkpoint(header, config, weights, path.name, hashlib.sha256(data).hexdigest())


def load_agent(path: str | os.PathLike[str], variant: Variant, seed: int) -> Agent:
    """Return the agent of a checkpoint, with what a result records of it.

    Args:
        path: of the checkpoint.
        variant: what it will act in.
        seed: of the agent's own draws.

    Raises:
        CheckpointError: as `load`, and where the weights do not fit the method, its config or the variant.
    """
    found = load(path)
    header = found.header
    try:
        agent: Any = method(header.method).agent(variant, found.config, found.weights, seed)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{path}: {header.method!r}, trained on {header.variant}, does not fit {variant.id}: {error}"
        ) from error
    elsewhere = {} if header.variant == variant.id else {"trained_on": header.variant}
    agent.name = header.method  # a preset's, not its method's
    agent.config = {
        **header.config,
        **elsewhere,
        "seed": header.seed,
        "training_steps": header.training_steps,
        "checkpoint": found.file,
        "checkpoint_sha256": found.sha256,
    }
    return agent  # type: ignore[no-any-return]


def first_not_finite(weights: Mapping[str, torch.Tensor]) -> str | None:
    """Return the name of the first tensor with NaN or infinity; None where there is none."""
    return next((k for k, x in weights.items() if x.is_floating_point() and not bool(torch.isfinite(x).all())), None)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a nest of dicts, lists and tuples, whose leaves are tensors, arrays, numbers, strings or None.

    Raises:
        TypeError: naming the leaf that is of another type.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(dict(state), "", tensors)
    text = json.dumps({"format": _FORMAT, "tree": tree})
    tasks.write_bytes(path, _bytes_of(tensors, {_STATE: text}))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, exactly; tensors are on the CPU.

    Raises:
        CheckpointError: where it cannot be read, is damaged or of another format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read a state from {path}: {error}") from error
    tensors, metadata = _decode(data, path)
    try:
        found = json.loads(metadata[_STATE])
        if found["format"] != _FORMAT:
            raise CheckpointError(f"{path}: expected a state of format {_FORMAT}, got {found['format']!r}")
        state: dict[str, Any] = _unflatten(found["tree"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is no state of a training run, or is damaged: {error!r}") from error
    return state


def _decode(data: bytes, path: Path) -> tuple[Weights, dict[str, str]]:
    """Return the tensors and metadata of a safetensors file."""
    try:
        found: Weights = _tensors_of(data)
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    return found, metadata_of(data)


def _flatten(x: Any, name: str, tensors: dict[str, torch.Tensor]) -> list[Any]:
    """Return a nest as JSON, each part as [kind, …]; tensors go aside by name."""
    if isinstance(x, dict):
        return ["dict", [[k, _flatten(v, f"{name}/{k}", tensors)] for k, v in x.items()]]
    if isinstance(x, (list, tuple)):
        kind = "list" if isinstance(x, list) else "tuple"
        return [kind, [_flatten(v, f"{name}/{i}", tensors) for i, v in enumerate(x)]]
    if isinstance(x, (torch.Tensor, np.ndarray, np.generic)):
        kind = "tensor" if isinstance(x, torch.Tensor) else "array" if isinstance(x, np.ndarray) else "scalar"
        label = f"{len(tensors)}{name}"  # 1 and "1" may both be keys
        try:
            value = x if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x))
        except TypeError as error:  # text, objects
            raise TypeError(f"{name.lstrip('/')} is an array of {x.dtype}; a state holds numbers") from error
        tensors[label] = value.detach().cpu().contiguous().clone()
        return [kind, label]
    if x is None or isinstance(x, (bool, int, float, str)):
        return ["value", x]
    raise TypeError(f"{name.lstrip('/')} is of type {type(x).__name__}; a state holds tensors, arrays, numbers, text")


def _unflatten(tree: list[Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    """Undo `_flatten`."""
    kind, x = tree
    if kind == "dict":
        return {k: _unflatten(v, tensors) for k, v in x}
    if kind in ("list", "tuple"):
        parts = [_unflatten(v, tensors) for v in x]
        return parts if kind == "list" else tuple(parts)
    if kind == "value":
        return x
    if kind == "tensor":
        return tensors[x]
    array = tensors[x].numpy()
    return array if kind == "array" else array[()]
