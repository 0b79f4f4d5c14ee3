"""Flat pictures with pygame, on off-screen surfaces: no display needed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from kshot.rendering import palette
from kshot.rendering.scene import Arrow, Disc, Label, Mark, Rectangle, Scene

if TYPE_CHECKING:
    import pygame

STRIP = 34  # pixels of height of the caption
_FINE = 2  # supersampling
_LINE = 1.6  # pixels, of outlines
Place: TypeAlias = Callable[[float, float], tuple[float, float]]  # world to pixels


def load_pygame() -> None:
    """Import pygame without its banner; importing kshot does not."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    pygame.font.init()


def draw_flat(scene: Scene, width: int, height: int) -> np.ndarray:
    """Draw a scene's marks without its caption, (height, width, 3) uint8."""
    load_pygame()
    import pygame

    fine = pygame.Surface((width * _FINE, height * _FINE))
    fine.fill(palette.PAPER)
    place, scale = projection(scene, *fine.get_size())
    if scene.grid:
        _draw_grid(fine, scene, place)
    for mark in scene.marks:
        _draw_mark(fine, mark, place, scale)
    surface = pygame.transform.smoothscale(fine, (width, height))
    place, _ = projection(scene, width, height)
    for mark in scene.marks:  # texts are sharper at their final size, and nothing should cover them
        if isinstance(mark, Label):
            _draw_label(surface, mark, place)
    return to_array(surface)


def draw_caption(text: str, width: int) -> np.ndarray:
    """Draw a caption as a strip, (STRIP, width, 3) uint8, its letters as small as they must be."""
    load_pygame()
    import pygame

    surface = pygame.Surface((width, STRIP))
    surface.fill(palette.STRIP)
    letters = pygame.font.Font(None, 22)
    room = width - 16
    if letters.size(text)[0] > room:
        letters = pygame.font.Font(None, max(12, math.floor(22 * room / letters.size(text)[0])))
    image = letters.render(text, True, palette.STRIP_TEXT)
    surface.blit(image, image.get_rect(center=(width // 2, STRIP // 2)))
    return to_array(surface)


def to_array(surface: pygame.Surface) -> np.ndarray:
    """Return a surface's pixels, (height, width, 3) uint8."""
    import pygame

    return np.ascontiguousarray(pygame.surfarray.array3d(surface).swapaxes(0, 1))


def projection(scene: Scene, width: int, height: int) -> tuple[Place, float]:
    """Return the map of a scene's view to a picture, y down, and the pixels a unit of x."""
    x_min, x_max, y_min, y_max = scene.view
    across, up = width / (x_max - x_min), height / (y_max - y_min)
    if not scene.stretch:
        across = up = min(across, up)
    x_mid, y_mid = (x_min + x_max) / 2, (y_min + y_max) / 2

    def place(x: float, y: float) -> tuple[float, float]:
        return width / 2 + across * (x - x_mid), height / 2 - up * (y - y_mid)

    return place, across


def _draw_grid(surface: pygame.Surface, scene: Scene, place: Place) -> None:
    """Draw lines through the whole picture at the multiples of the grid's distance; the axes are darker."""
    import pygame

    width, height = surface.get_size()
    reach = math.ceil(max(map(abs, scene.view)) * max(width, height) / min(width, height) / scene.grid)
    for i in sorted(range(-reach, reach + 1), key=abs, reverse=True):
        x, y = place(i * scene.grid, i * scene.grid)
        colour = palette.GRID if i else palette.ROLES["faint"]
        pygame.draw.line(surface, colour, (x, 0), (x, height), _FINE)
        pygame.draw.line(surface, colour, (0, y), (width, y), _FINE)


def _draw_mark(surface: pygame.Surface, mark: Mark, place: Place, scale: float) -> None:
    """Draw one mark; labels come later."""
    import pygame

    colour, line = palette.ROLES[mark.role], round(_LINE * _FINE)
    if isinstance(mark, Disc):
        pygame.draw.circle(surface, colour, place(mark.x, mark.y), mark.radius * scale, line if mark.hollow else 0)
    elif isinstance(mark, Rectangle):
        (left, bottom), (right, top) = place(mark.x, mark.y), place(mark.x + mark.width, mark.y + mark.height)
        box = pygame.Rect(round(left), round(top), round(right) - round(left), round(bottom) - round(top))
        box.normalize()  # a negative height points down
        pygame.draw.rect(surface, colour, box, line if mark.hollow else 0)
    elif isinstance(mark, Arrow):
        tail, tip = place(mark.x, mark.y), place(mark.x + mark.dx, mark.y + mark.dy)
        if math.dist(tail, tip) >= 1:
            pygame.draw.polygon(surface, colour, arrow_outline(tail, tip, 2.0 * _FINE))


def arrow_outline(tail: tuple[float, float], tip: tuple[float, float], half: float) -> list[tuple[float, float]]:
    """Return the corners of an arrow whose shaft is `2 * half` wide and whose head shrinks with short arrows."""
    length = math.dist(tail, tip)
    ux, uy = (tip[0] - tail[0]) / length, (tip[1] - tail[1]) / length
    head = min(7 * half, 0.7 * length)
    neck, half = length - head, min(half, head / 4)
    corners = ((0.0, half), (neck, half), (neck, head / 2), (length, 0.0), (neck, -head / 2), (neck, -half), (0, -half))
    return [(tail[0] + ux * along - uy * aside, tail[1] + uy * along + ux * aside) for along, aside in corners]


def _draw_label(surface: pygame.Surface, label: Label, place: Place) -> None:
    """Write a text with a halo, that it can be read on any ground, moved to be inside the picture."""
    import pygame

    letters = pygame.font.Font(None, 19)
    text, halo = (letters.render(label.text, True, c) for c in (palette.ROLES[label.role], palette.PAPER))
    x, y = place(label.x, label.y)
    box = text.get_rect(center=(round(x), round(y))).clamp(surface.get_rect().inflate(-6, -6))
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            surface.blit(halo, box.move(dx, dy))
    surface.blit(text, box)
