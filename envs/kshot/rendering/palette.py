"""The colours of pictures, after Okabe and Ito: told apart by colour-blind eyes too."""

from __future__ import annotations

from typing import TypeAlias

from kshot.rendering.scene import Role

Colour: TypeAlias = tuple[int, int, int]

PAPER: Colour = (252, 252, 250)
GRID: Colour = (228, 230, 233)
STRIP: Colour = (34, 40, 49)
STRIP_TEXT: Colour = (245, 246, 248)
ROLES: dict[Role, Colour] = {
    "agent": (0, 114, 178),
    "goal": (0, 158, 115),
    "reach": (190, 231, 217),
    "guide": (160, 72, 150),
    "actual": (224, 108, 0),
    "faint": (196, 202, 210),
    "ink": (34, 40, 49),
}
