"""Pictures of an engine's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kshot.arrays import to_numpy
from kshot.rendering import canvas
from kshot.rendering.scene import Scene

if TYPE_CHECKING:
    from kshot.engine import Engine
    from kshot.rendering.body import BodyPainter
    from kshot.rendering.window import Window

SIZE = 480  # pixels


class Renderer:
    """Draws rows of one engine; opens what it needs at the first picture."""

    def __init__(self, engine: Engine, width: int = SIZE, height: int = SIZE) -> None:
        """Remember whose pictures to draw.

        Args:
            engine: the rows.
            width: pixels.
            height: pixels, of which a strip on top holds the caption.
        """
        self._engine, self._width, self._height = engine, width, height
        self._painter: BodyPainter | None = None
        self._window: Window | None = None

    def picture(self, row: int) -> np.ndarray:
        """Draw a row's state and task, (height, width, 3) uint8 RGB.

        Raises:
            RenderError: where this machine cannot draw MuJoCo bodies.
        """
        scene = scene_of(self._engine, row)
        height = self._height - canvas.STRIP
        physics = self._engine.physics()
        if physics is None:
            below = canvas.draw_flat(scene, self._width, height)
        else:
            model, data = physics.mj_data(row)
            if self._painter is None:
                from kshot.rendering.body import BodyPainter

                self._painter = BodyPainter(model, self._width, height)
            below = self._painter.paint(model, data, scene)
        return np.concatenate([canvas.draw_caption(scene.caption, self._width), below])

    def show(self, row: int, fps: float) -> None:
        """Show a row in a window, waiting so that calls come `fps` times a second.

        Does nothing once the user has closed the window.

        Raises:
            RenderError: where there is no display, or this machine cannot draw MuJoCo bodies.
        """
        if self._window is None:
            from kshot.rendering.window import Window

            self._window = Window(self._engine.variant.id, self._width, self._height)
        if self._window.is_open:
            self._window.show(self.picture(row), fps)

    def close(self) -> None:
        """Free the context and the window; further calls do nothing."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None
        if self._window is not None:
            self._window.close()
            self._window = None


def scene_of(engine: Engine, row: int) -> Scene:
    """Return what a row's picture shows beside the body; an empty scene where the family shows nothing."""
    family = engine.variant.family
    if family.scene is None:
        return Scene((), engine.variant.id)
    scene: Scene = family.scene(_one_row(engine.state, row), _one_row(engine.task, row), engine.constants)
    return scene


def _one_row(fields: Any, row: int) -> Any:
    """Return a NamedTuple of arrays of one row, as NumPy; what is no array stays."""
    return type(fields)(*(to_numpy(x[row : row + 1]) if hasattr(x, "shape") else x for x in fields))
