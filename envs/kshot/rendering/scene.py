"""What a family shows beside its body, in world coordinates (metres, or cells): data, no drawing.

A scene is drawn flat for analytic families, and into the three-dimensional picture for MuJoCo families.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

# What a mark is: the palette chooses its colour.
Role = Literal["agent", "goal", "reach", "guide", "actual", "faint", "ink"]


@dataclass(frozen=True)
class Disc:
    """A filled circle; an outline where `hollow`."""

    x: float
    y: float
    radius: float
    role: Role
    hollow: bool = False


@dataclass(frozen=True)
class Rectangle:
    """An axis-parallel rectangle by its lower left corner and size; an outline where `hollow`."""

    x: float
    y: float
    width: float
    height: float
    role: Role
    hollow: bool = False


@dataclass(frozen=True)
class Arrow:
    """An arrow from a point along a vector."""

    x: float
    y: float
    dx: float
    dy: float
    role: Role


@dataclass(frozen=True)
class Label:
    """A short text centred at a point."""

    x: float
    y: float
    text: str
    role: Role


Mark: TypeAlias = Disc | Rectangle | Arrow | Label


@dataclass(frozen=True)
class Scene:
    """Marks in drawing order, and a caption that names the task.

    `view`, `stretch` and `grid` are of flat pictures, `plane` is of MuJoCo pictures: marks lie on the floor, or
    stand upright in the plane of x and z, where their y is a height.
    """

    marks: tuple[Mark, ...]
    caption: str
    view: tuple[float, float, float, float] = (-1.0, 1.0, -1.0, 1.0)  # x_min, x_max, y_min, y_max
    stretch: bool = False  # fill the picture: x and y have scales of their own
    grid: float = 0.0  # distance of background lines, 0 for none
    plane: Literal["floor", "side"] = "floor"
