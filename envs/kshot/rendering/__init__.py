"""Pictures: what a family shows (`scene.py`), drawn in two dimensions or into a MuJoCo scene."""

class Renderer:
    def __init__(self, engine): ...
