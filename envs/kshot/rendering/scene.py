"""What a family shows beside its body, in world coordinates (metres, or cells): data, no drawing.

A scene is drawn flat for analytic families, and into the three-dimensional picture (at floor height) for
MuJoCo families, where its view is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Role = Literal["agent", "goal", "reach", "guide", "actual", "faint"]  # what a mark is: the palette chooses its colour


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
    """Marks in drawing order, the part of the plane to show, and a caption that names the task."""

    marks: tuple[Mark, ...]
    caption: str
    view: tuple[float, float, float, float] = (-1.0, 1.0, -1.0, 1.0)  # x_min, x_max, y_min, y_max
