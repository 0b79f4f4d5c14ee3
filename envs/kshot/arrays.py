"""The few array helpers that NumPy and torch spell differently.

Family functions are written once for both libraries. Operators, slicing, `abs(x)`, `x.sum(-1)` and
`x.clip(a, b)` mean the same in both; everything else goes through `namespace(x)`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any  # np.ndarray or torch.Tensor, batch first; shapes stand in comments and docstrings


def namespace(x: Array) -> Any:
    """Return `torch` for a tensor and `numpy` for anything else, without importing torch."""
    if type(x) is np.ndarray:  # nearly always; this is called often
        return np
    torch: ModuleType | None = sys.modules.get("torch")
    return torch if torch is not None and isinstance(x, torch.Tensor) else np


def norm(x: Array) -> Array:
    """Return the Euclidean length of 2-vectors, (N, 2) -> (N,).

    Written over columns: NumPy reduces a last axis of two elements five times slower.
    """
    square = x * x
    return namespace(x).sqrt(square[:, 0] + square[:, 1])


def squared_norm(x: Array) -> Array:
    """Return the squared Euclidean length of row vectors, (N, k) -> (N,)."""
    xp = namespace(x)
    return np.vecdot(x, x) if xp is np else xp.linalg.vecdot(x, x)  # a row at a time: the same for any N


def unit(angle: Array) -> Array:
    """Return the unit vectors at these angles in radians, (N,) -> (N, 2)."""
    xp = namespace(angle)
    return xp.stack([xp.cos(angle), xp.sin(angle)], -1)


def rotate(x: Array, angle: Array) -> Array:
    """Rotate 2-vectors counter-clockwise by one angle a row, (N, 2), (N,) -> (N, 2)."""
    xp = namespace(x)
    cos, sin = xp.cos(angle), xp.sin(angle)
    return xp.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], -1)


def rows(x: Array) -> Array:
    """Return the row numbers 0 … N-1 of a batch, on its device."""
    xp = namespace(x)
    return np.arange(len(x)) if xp is np else xp.arange(len(x), device=x.device)


def as_index(x: Array) -> Array:
    """Return whole numbers held as floats as int64."""
    return x.astype(np.int64) if namespace(x) is np else x.long()


def as_float(x: Array, like: Array) -> Array:
    """Return `x` in the floating type and on the device of `like`."""
    return x.astype(like.dtype) if namespace(x) is np else x.to(like)


def constant(value: Any, like: Array) -> Array:
    """Return a small table as an array of the type and on the device of `like`."""
    xp = namespace(like)
    return np.asarray(value, like.dtype) if xp is np else xp.as_tensor(value, dtype=like.dtype, device=like.device)


def one_hot(index: Array, size: int, like: Array) -> Array:
    """Return one-hot rows in the floating type of `like`, (N,) -> (N, size)."""
    xp = namespace(index)
    return as_float(index[:, None] == (np.arange(size) if xp is np else xp.arange(size, device=index.device)), like)


def at(x: Array, *index: Array) -> Array:
    """Return one element a row, (N, a, b, …), (N,) a leading axis after the first -> (N, …).

    NumPy takes along one axis four times faster than it indexes several.
    """
    flat = rows(x)
    for axis, i in enumerate(index, 1):
        flat = flat * x.shape[axis] + i
    x = x.reshape(-1, *x.shape[1 + len(index) :])
    return x.take(flat, 0) if namespace(x) is np else x[flat]


def pick(x: Array, chosen: Array) -> Array:
    """Return what to compute with: the chosen rows in NumPy, all rows in torch (no host sync).

    Rows are chosen by their numbers or `slice(None)` in NumPy, where all rows are a view; by a mask in torch.
    """
    return x[chosen] if namespace(x) is np else x


def place(old: Array, chosen: Array, new: Array) -> Array:
    """Return `old` with the chosen rows replaced by what was computed for `pick`ed ones; NumPy writes in place."""
    if namespace(old) is np:
        old[chosen] = new
        return old
    return namespace(old).where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old)


def to_numpy(x: Array) -> np.ndarray:
    """Return a NumPy array of the same values."""
    return np.asarray(x) if namespace(x) is np else x.detach().cpu().numpy()
