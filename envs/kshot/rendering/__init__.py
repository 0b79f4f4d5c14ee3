"""Pictures: what a family shows (`scene.py`), drawn in two dimensions or into a MuJoCo scene.

Importing this imports no graphics library; the first picture does.
"""

from kshot.rendering.gl import RenderError
from kshot.rendering.renderer import Renderer

__all__ = ["RenderError", "Renderer"]
