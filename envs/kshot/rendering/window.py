"""A window that shows pictures in real time."""

from __future__ import annotations

from typing import Any

import numpy as np

from kshot.rendering.canvas import load_pygame
from kshot.rendering.gl import RenderError, has_display

_open: dict[int, Window] = {}  # by pygame's number: one queue of events serves all windows


class Window:
    """A window; once the user has closed it, it stays closed and takes no time."""

    def __init__(self, title: str, width: int, height: int) -> None:
        """Open it.

        Raises:
            RenderError: where there is no display.
        """
        if not has_display():
            raise RenderError("no display to open a window on: set DISPLAY, or use render_mode='rgb_array'")
        load_pygame()
        import pygame

        try:
            pygame.display.init()
            self._window: Any = pygame.Window(title, (width, height))
        except pygame.error as error:
            raise RenderError(f"cannot open a window: {error}; set DISPLAY, or use render_mode='rgb_array'") from error
        self._clock = pygame.time.Clock()
        _open[self._window.id] = self

    @property
    def is_open(self) -> bool:
        """Whether it is still there."""
        return self._window is not None

    def show(self, picture: np.ndarray, fps: float) -> None:
        """Show a picture, (height, width, 3) uint8, waiting so that calls come `fps` times a second."""
        import pygame

        if not self.is_open:
            return
        pygame.surfarray.blit_array(self._window.get_surface(), picture.swapaxes(0, 1))
        self._window.flip()
        handle_events()
        self._clock.tick(fps)

    def close(self) -> None:
        """Close it; further calls do nothing."""
        if self._window is not None:
            _open.pop(self._window.id, None)
            self._window.destroy()
            self._window = None


def handle_events() -> None:
    """Close the windows that the user has asked to close."""
    import pygame

    for event in pygame.event.get():
        if event.type == pygame.WINDOWCLOSE and event.window is not None and event.window.id in _open:
            _open[event.window.id].close()
        elif event.type == pygame.QUIT:
            for window in list(_open.values()):
                window.close()
