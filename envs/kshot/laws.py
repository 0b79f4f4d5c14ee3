"""Task laws: small frozen distributions over one field of a task.

A law turns uniform numbers into parameters, row by row, the same in NumPy and torch; it knows its support,
so that a test can prove that an out-of-distribution split is one; and `str(law)` is what the documentation
shows. A split's joint law is a mapping {field: law} of independent laws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from kshot import random
from kshot.arrays import Array, as_index, constant, namespace

_SLACK = 1e-9  # of `contains`: what rounding may move a drawn parameter past its bound


class Law(Protocol):
    """A distribution over one task parameter."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one parameter."""

    @property
    def uniforms(self) -> int:
        """How many uniform numbers one draw takes."""

    @property
    def values(self) -> tuple[Any, ...] | None:
        """Every possible parameter where there are finitely many, else None."""

    def sample(self, u: Array) -> Array:
        """Turn uniforms into parameters, (n, uniforms) -> (n, *shape)."""

    def contains(self, x: np.ndarray) -> Array:
        """Tell which parameters lie in the support, (n, *shape) -> (n,) bool."""


@dataclass(frozen=True)
class Continuous:
    """What laws with infinitely many values share."""

    @property
    def values(self) -> None:
        """There are infinitely many."""
        return None


@dataclass(frozen=True)
class Choice:
    """Uniform over finitely many values: numbers or tuples of numbers."""

    options: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return np.shape(self.options[0])

    @property
    def uniforms(self) -> int:
        """One number picks the value; a single value takes none."""
        return min(len(self.options) - 1, 1)

    @property
    def values(self) -> tuple[Any, ...]:
        """All of them."""
        return self.options

    def sample(self, u: Array) -> Array:
        """Pick a value a row."""
        table = constant(self.options, u)
        if self.uniforms == 0:
            return namespace(u).broadcast_to(table[0], (len(u), *self.shape))
        return table[as_index(u[:, 0] * len(self.options)).clip(0, len(self.options) - 1)]

    def contains(self, x: np.ndarray) -> Array:
        """Tell which parameters are one of the values."""
        axes = tuple(range(2, 2 + len(self.shape)))
        return (np.abs(x[:, None] - np.asarray(self.options)) <= _SLACK).all(axes).any(1)

    def __str__(self) -> str:
        if len(self.options) == 1:
            return f"{_number(self.options[0])}"
        if len(self.options) > 8:
            return f"one of {len(self.options)} values ({_number(self.options[0])} … {_number(self.options[-1])})"
        return "one of {" + ", ".join(_number(v) for v in self.options) + "}"


def always(value: Any) -> Choice:
    """Return the law of a parameter that does not vary."""
    return Choice((value,))


@dataclass(frozen=True)
class Uniform(Continuous):
    """Uniform on [low, high], independently for each element of `shape`."""

    low: float
    high: float
    shape: tuple[int, ...] = ()

    @property
    def uniforms(self) -> int:
        """One number an element."""
        return math.prod(self.shape)

    def sample(self, u: Array) -> Array:
        """Scale the uniforms."""
        return (self.low + (self.high - self.low) * u).reshape(-1, *self.shape)

    def contains(self, x: np.ndarray) -> Array:
        """Tell which parameters lie within the bounds."""
        return ((x >= self.low - _SLACK) & (x <= self.high + _SLACK)).reshape(len(x), -1).all(1)

    def __str__(self) -> str:
        return f"U[{_number(self.low)}, {_number(self.high)}]{_power(self.shape)}"


@dataclass(frozen=True)
class Normal(Continuous):
    """Normal(mean, deviation), clipped to [low, high], independently for each element of `shape`."""

    mean: float
    deviation: float
    shape: tuple[int, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    @property
    def uniforms(self) -> int:
        """Two numbers an element."""
        return 2 * math.prod(self.shape)

    def sample(self, u: Array) -> Array:
        """Transform pairs of uniforms."""
        half = u.shape[1] // 2
        z = random.normal(u[:, :half], u[:, half:])
        return (self.mean + self.deviation * z).clip(self.low, self.high).reshape(-1, *self.shape)

    def contains(self, x: np.ndarray) -> Array:
        """Tell which parameters lie within the clipping bounds."""
        return ((x >= self.low - _SLACK) & (x <= self.high + _SLACK)).reshape(len(x), -1).all(1)

    def __str__(self) -> str:
        clipped = "" if self.low == -math.inf else f" clipped to [{_number(self.low)}, {_number(self.high)}]"
        return f"N({_number(self.mean)}, {_number(self.deviation)}²){_power(self.shape)}{clipped}"


@dataclass(frozen=True)
class Annulus(Continuous):
    """Uniform over the area (or the arc) between two radii and two angles in radians, counter-clockwise from x."""

    inner: float
    outer: float
    start: float = 0.0
    stop: float = 2 * math.pi

    shape = (2,)
    uniforms = 2

    def sample(self, u: Array) -> Array:
        """Draw the squared radius and the angle uniformly."""
        xp = namespace(u)
        radius = xp.sqrt(self.inner**2 + (self.outer**2 - self.inner**2) * u[:, 0])
        turn = (self.start + (self.stop - self.start) * u[:, 1]) / (2 * math.pi)
        turn = turn - xp.floor(turn)
        return xp.stack([radius * random.cos_turn(turn), radius * random.sin_turn(turn)], -1)

    def contains(self, x: np.ndarray) -> Array:
        """Tell which points lie between the radii and the angles."""
        radius = np.sqrt((x**2).sum(-1))
        angle = (np.arctan2(x[:, 1], x[:, 0]) - self.start + _SLACK) % (2 * math.pi) - _SLACK
        return (
            (radius >= self.inner - _SLACK)
            & (radius <= self.outer + _SLACK)
            & (angle <= self.stop - self.start + _SLACK)
        )

    def __str__(self) -> str:
        radius = (
            f"radius {_number(self.inner)}"
            if self.inner == self.outer
            else f"radius in [{_number(self.inner)}, {_number(self.outer)}] by area"
        )
        full = self.stop - self.start >= 2 * math.pi
        return radius + ("" if full else f", angle U[{_angle(self.start)}, {_angle(self.stop)}]")


@dataclass(frozen=True)
class Frame(Continuous):
    """Uniform over the square [-outer, outer]² without the square [-inner, inner]² in its middle."""

    inner: float
    outer: float

    shape = (2,)
    uniforms = 3

    def sample(self, u: Array) -> Array:
        """Draw in one of the four equal rectangles that tile the frame like a pinwheel, then turn it into place."""
        xp = namespace(u)
        x = self.inner + (self.outer - self.inner) * u[:, 0]
        y = -self.inner + (self.outer + self.inner) * u[:, 1]
        side = xp.floor(u[:, 2] * 4)
        odd, turned = side % 2 == 1, side >= 2
        point = xp.stack([xp.where(odd, -y, x), xp.where(odd, x, y)], -1)
        return xp.where(turned[:, None], -point, point)

    def contains(self, x: np.ndarray) -> Array:
        """Tell which points lie in the large square and not inside the small one."""
        reach = np.abs(x).max(-1)
        return (reach >= self.inner - _SLACK) & (reach <= self.outer + _SLACK)

    def __str__(self) -> str:
        return (
            f"[-{_number(self.outer)}, {_number(self.outer)}]² without [-{_number(self.inner)}, {_number(self.inner)}]²"
        )


@dataclass(frozen=True)
class Mixture(Continuous):
    """One of two laws of the same shape: the first with probability `weight`."""

    weight: float
    first: Law
    second: Law

    @property
    def shape(self) -> tuple[int, ...]:
        """That of its laws."""
        return self.first.shape

    @property
    def uniforms(self) -> int:
        """One to choose, and enough for either."""
        return 1 + max(self.first.uniforms, self.second.uniforms)

    def sample(self, u: Array) -> Array:
        """Draw from both and choose."""
        xp = namespace(u)
        a, b = (
            self.first.sample(u[:, 1 : 1 + self.first.uniforms]),
            self.second.sample(u[:, 1 : 1 + self.second.uniforms]),
        )
        return xp.where((u[:, 0] < self.weight).reshape(-1, *[1] * len(self.shape)), a, b)

    def contains(self, x: np.ndarray) -> Array:
        """Tell which parameters either law may give."""
        return self.first.contains(x) | self.second.contains(x)

    def __str__(self) -> str:
        return f"{_number(self.weight)}: {self.first}; {_number(1 - self.weight)}: {self.second}"


@dataclass(frozen=True)
class Dirichlet(Continuous):
    """Rows of the last axis of `shape` are symmetric Dirichlet(concentration); concentration at most 1."""

    concentration: float
    shape: tuple[int, ...]

    _TRIES = 6  # of the rejection below: each fails one time in twenty at most, and the last stands

    @property
    def uniforms(self) -> int:
        """One an element for the exponential case, else those of the gamma sampler."""
        return math.prod(self.shape) * (1 if self.concentration == 1 else 3 * self._TRIES + 1)

    def sample(self, u: Array) -> Array:
        """Normalise gamma draws."""
        g = -random.log(u) if self.concentration == 1 else self._gamma(u.reshape(len(u), -1, 3 * self._TRIES + 1))
        g = g.reshape(-1, *self.shape)
        return g / g.sum(-1)[..., None]

    def _gamma(self, u: Array) -> Array:
        """Draw Gamma(concentration), (n, k, words) -> (n, k): Marsaglia and Tsang (2000), with their boost below 1."""
        xp, d = namespace(u), self.concentration + 1 - 1 / 3
        value, left = 0.0 * u[..., 0], u
        todo: Any = None  # NumPy goes on with the rejected ones only; torch, which would have to ask, with all
        for t in range(self._TRIES):
            z = random.normal(left[..., 3 * t], left[..., 3 * t + 1])
            cube = (1 + z / math.sqrt(9 * d)).clip(1e-12, None)
            cube = cube * cube * cube
            accept = random.log(left[..., 3 * t + 2]) < 0.5 * z * z + d - d * cube + d * random.log(cube)
            if t == 0:
                value, rejected = cube, ~accept
            elif xp is np:
                value[todo] = cube
                rejected[todo] = ~accept
            else:
                value, rejected = xp.where(rejected, cube, value), rejected & ~accept
            if xp is np:
                todo = np.nonzero(rejected)
                left = u[todo]
        return (d * value).clip(1e-300, None) * _power_of(u[..., -1], 1 / self.concentration)

    def contains(self, x: np.ndarray) -> Array:
        """Tell which arrays are probability rows."""
        rows = x.reshape(len(x), -1, self.shape[-1])
        return (rows >= 0).all((1, 2)) & (np.abs(rows.sum(-1) - 1) < 1e-9).all(1)

    def __str__(self) -> str:
        return f"rows ~ Dirichlet({_number(self.concentration)})"


@dataclass(frozen=True)
class OneAmong(Continuous):
    """`k` elements: one, chosen uniformly, follows `chosen`; the others follow `others`, independently."""

    k: int
    chosen: Uniform
    others: Uniform

    @property
    def shape(self) -> tuple[int, ...]:
        """(k,)."""
        return (self.k,)

    @property
    def uniforms(self) -> int:
        """One an element, and one to choose."""
        return self.k + 1

    def sample(self, u: Array) -> Array:
        """Draw each element under both laws and choose."""
        xp = namespace(u)
        index = xp.floor(u[:, -1:] * self.k)
        here = index == constant(range(self.k), u)
        return xp.where(
            here,
            self.chosen.sample(u[:, :-1].reshape(-1)).reshape(-1, self.k),
            self.others.sample(u[:, :-1].reshape(-1)).reshape(-1, self.k),
        )

    def contains(self, x: np.ndarray) -> Array:
        """Tell which rows have one element under the first law and the rest under the second."""
        first = self.chosen.contains(x.reshape(-1)).reshape(x.shape)
        second = self.others.contains(x.reshape(-1)).reshape(x.shape)
        bad = (~second).sum(-1)
        return (bad == 0) & first.any(-1) | (bad == 1) & (first | second).all(-1)

    def __str__(self) -> str:
        return f"one of {self.k} ~ {self.chosen}, the others ~ {self.others}"


JointLaw: TypeAlias = Mapping[str, Law]


def sample_joint(law: JointLaw, u: Array) -> dict[str, Array]:
    """Draw every field, (n, uniforms_of(law)) -> {field: (n, *shape)}."""
    fields, used = {}, 0
    for name, field in law.items():
        fields[name] = field.sample(u[:, used : used + field.uniforms])
        used += field.uniforms
    return fields


def uniforms_of(law: JointLaw) -> int:
    """Return how many uniform numbers one task takes; at least one, so that the batch size is known."""
    return max(1, sum(field.uniforms for field in law.values()))


def joint_contains(law: JointLaw, fields: Mapping[str, np.ndarray]) -> Array:
    """Tell which tasks lie in the joint support, (n,) bool."""
    return np.logical_and.reduce([field.contains(np.asarray(fields[name])) for name, field in law.items()])


def joint_values(law: JointLaw) -> dict[str, np.ndarray] | None:
    """Return every task of a finite law, the last field varying fastest, else None."""
    options = [field.values for field in law.values()]
    if any(o is None for o in options):
        return None
    grid = np.meshgrid(*[np.arange(len(o)) for o in options if o is not None], indexing="ij")
    return {
        name: np.asarray(o, np.float64)[index.ravel()]
        for (name, o), index in zip(
            ((n, o) for n, o in zip(law, options, strict=True) if o is not None), grid, strict=True
        )
    }


def _power_of(u: Array, exponent: float) -> Array:
    """Return u**exponent for whole exponents, by multiplication: equal on every machine."""
    if exponent != int(exponent):
        raise ValueError(f"Dirichlet concentration must be 1 or 1/n for a whole n, got {1 / exponent}")
    value = u
    for _ in range(int(exponent) - 1):
        value = value * u
    return value


def _number(x: Any) -> str:
    """Return a number or tuple as the documentation shows it."""
    if isinstance(x, Sequence):
        return "(" + ", ".join(_number(v) for v in x) + ")"
    return f"{x:.4g}".replace("-", "−") if x < 0 else f"{x:.4g}"


def _angle(x: float) -> str:
    """Return an angle in fractions of pi."""
    part = x / math.pi
    return "0" if part == 0 else "π" if part == 1 else f"{_number(round(part, 4))}π"


def _power(shape: tuple[int, ...]) -> str:
    return "" if not shape else "^" + "×".join(str(n) for n in shape)
