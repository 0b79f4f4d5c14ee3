"""Counter-based randomness: every number is a pure function of (seed, episode, step, lane).

Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3") computed for
all rows at once, the same integers in NumPy and torch. There is no generator state to save, and a row's
stream depends on nothing but its seed. The float functions below use only operations that IEEE 754 rounds
correctly (+ - * / sqrt), so that in NumPy they, and the task sets drawn with them, are the same on every
machine; torch agrees to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.utils import seeding

from kshot.arrays import Array, as_float, namespace

# What a draw is for: the last word of the counter, so that no two uses share a number.
FROZEN_TASKS, EPISODE_TASKS, INITIAL_STATE, TRANSITION = range(4)

_MASK = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def philox(counter: tuple[Array, Array, Array, Array], key: tuple[Array, Array]) -> tuple[Array, Array, Array, Array]:
    """Return the Philox 4x32-10 block of each counter under each key.

    Args:
        counter: four words below 2**32, broadcastable; uint64 arrays in NumPy, int64 tensors in torch.
        key: two words below 2**32, likewise.

    Returns:
        Four random words below 2**32 of the broadcast shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # In int64 the product may wrap, but its 64 bits are those of the unsigned product.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = _high(p1) ^ c1 ^ k0, p1 & _MASK, _high(p0) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniform(seed: Array, episode: Array, step: Array, count: int, purpose: int, steps: int = 1) -> Array:
    """Return uniform numbers in (0, 1), 32 random bits each, float64.

    Lane `j` of step `t` is word `t * count + j` of the episode's stream, so the numbers of a step do not
    depend on how many steps are asked for at once.

    Args:
        seed: row seeds below 2**63, (N,); uint64 in NumPy, int64 in torch.
        episode: episode numbers, (N,).
        step: first step, (N,).
        count: numbers a step.
        purpose: what they are for; a word below 2**32.
        steps: how many consecutive steps.

    Returns:
        (N, steps, count) numbers, or (N, count) where `steps` is 1.
    """
    numbers = lanes(seed, episode, step, count, purpose, steps).T
    if namespace(seed) is np:
        numbers = np.ascontiguousarray(numbers)  # sums over a row round by the layout in memory
    return numbers if steps == 1 else numbers.reshape(len(seed), steps, count)


def lanes(seed: Array, episode: Array, step: Array, count: int, purpose: int, steps: int = 1) -> Array:
    """Return the numbers of `uniform` with the rows last, (steps * count, N): the way they are computed fastest."""
    xp = namespace(seed)
    n = len(seed)
    first = _words(step) * count  # (N,)
    offset = first % 4  # of the first word in its block
    span = steps * count
    aligned = xp is np and not offset.any()
    blocks = (span + 3) // 4 if aligned else (span + 2) // 4 + 1
    if xp is np:
        index = np.arange(blocks, dtype=np.uint64)
        last = np.full((1, 1), purpose, np.uint64)
    else:
        index = xp.arange(blocks, device=seed.device)
        last = xp.full((1, 1), purpose, dtype=xp.int64, device=seed.device)
    block = first // 4 + index[:, None]  # (blocks, N)
    four = philox((block & _MASK, block >> 32, _words(episode), last), (seed & _MASK, (seed >> 32) & _MASK))
    words = xp.stack(four, 1).reshape(4 * blocks, n)
    if aligned:
        words = words[:span]
    elif xp is np:
        words = np.take_along_axis(words, (offset + np.arange(span, dtype=np.uint64)[:, None]).astype(np.intp), 0)
    else:
        words = words.gather(0, offset + xp.arange(span, device=seed.device)[:, None])
    return ((words.astype(np.float64) if xp is np else words.double()) + 0.5) * 2.0**-32


def row_seeds(seed: int, n: int) -> np.ndarray:
    """Expand one run seed into `n` row seeds, so that runs with neighbouring seeds share nothing."""
    return np.random.SeedSequence(seed).generate_state(n, np.uint64) >> np.uint64(1)


def row_seed(generator: np.random.Generator) -> np.uint64:
    """Draw one row seed from an env's `np_random`."""
    return np.uint64(generator.integers(2**63))


def gymnasium_row_seeds(seeds: Any) -> np.ndarray:
    """Return the row seed that a single env takes after `reset(seed=s)`, for every s; (N,) uint64."""
    return np.array([row_seed(seeding.np_random(s)[0]) for s in seeds], np.uint64)


def normal(u: Array, v: Array) -> Array:
    """Return standard normal numbers from two independent uniforms (Box and Muller 1958)."""
    xp = namespace(u)
    return xp.sqrt(-2.0 * log(u)) * cos_turn(v)


def log(x: Array) -> Array:
    """Return the natural logarithm of positive finite numbers, equal on every machine (error below 2 ulp)."""
    xp = namespace(x)
    mantissa, exponent = xp.frexp(x)  # x = mantissa * 2**exponent, mantissa in [0.5, 1)
    small = mantissa < math.sqrt(0.5)
    mantissa = xp.where(small, mantissa * 2.0, mantissa)
    exponent = as_float(exponent, x) - as_float(small, x)
    s = (mantissa - 1.0) / (mantissa + 1.0)  # log m = 2 (s + s**3/3 + s**5/5 + …), |s| < 0.172
    z = s * s
    series = 1.0 / 21.0
    for k in range(19, 0, -2):
        series = series * z + 1.0 / k
    return exponent * math.log(2.0) + 2.0 * s * series


def cos_turn(u: Array) -> Array:
    """Return cos(2 pi u) for u in [0, 1], equal on every machine."""
    return _wave(u, 0)


def sin_turn(u: Array) -> Array:
    """Return sin(2 pi u) for u in [0, 1], equal on every machine."""
    return _wave(u, 3)


def _wave(u: Array, shift: int) -> Array:
    """Return cos(2 pi u + shift * pi / 2): a quarter turn by symmetry, the rest by Taylor series."""
    xp = namespace(u)
    quarter = xp.floor(4.0 * u + 0.5)
    x = (4.0 * u - quarter) * (math.pi / 2)  # in [-pi/4, pi/4]
    z = x * x
    cos = sin = 0.0
    for k in range(18, 0, -2):
        cos = 1.0 - cos * z / (k * (k - 1))
        sin = 1.0 - sin * z / (k * (k + 1))
    quarter = (quarter + float(shift)) % 4
    value = xp.where(quarter % 2 == 0, cos, sin * x)
    return xp.where((quarter == 1) | (quarter == 2), -value, value)


def _high(product: Array) -> Array:
    """Return the upper 32 bits; an int64 keeps its sign, which must go."""
    return product >> 32 if namespace(product) is np else (product >> 32) & _MASK


def _words(x: Array) -> Array:
    """Return whole numbers in the type that Philox counts in."""
    return np.asarray(x).astype(np.uint64) if namespace(x) is np else x.long()
