"""OpenGL contexts for off-screen pictures, checked before a call could abort the process.

MuJoCo picks its backend when it is imported, and without MUJOCO_GL that is GLFW, which needs a display. Pictures
never need a window, so on Linux ours is EGL unless MUJOCO_GL says otherwise.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import subprocess
import sys
from functools import cache
from typing import Any

PACKAGES = {
    "egl": ("libEGL.so.1", "apt-get install libegl1 libgl1 libgl1-mesa-dri"),
    "osmesa": ("libOSMesa.so.8", "apt-get install libosmesa6 libgl1"),
}
_OFF = ("disable", "disabled", "off", "false", "0")
_ANY = ("", "enable", "enabled", "on", "true", "1")
_WINDOWED = ("glfw", "glx", "wgl")
_PROBE = """
import sys, importlib, mujoco
context = importlib.import_module("mujoco." + sys.argv[1]).GLContext(16, 16)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco/>")
mjr = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, mjr)
mujoco.mjr_render(mujoco.MjrRect(0, 0, 16, 16), mujoco.MjvScene(model, 10), mjr)
mjr.free()
context.free()
"""


class RenderError(RuntimeError):
    """A picture that this machine cannot draw; everything but pictures goes on working."""


def backend(asked: str, system: str) -> str:
    """Return which of MuJoCo's backends to use.

    Args:
        asked: the value of MUJOCO_GL, empty where unset.
        system: `platform.system()`.

    Raises:
        RenderError: where MUJOCO_GL turns rendering off or names no backend of the system.
    """
    if asked in _OFF:
        raise RenderError(f"MUJOCO_GL is {asked!r}, which turns rendering off; unset it, or set MUJOCO_GL=egl")
    default = {"Linux": "egl", "Darwin": "cgl"}.get(system, "glfw")
    if asked in _ANY:
        return default
    if asked in _WINDOWED:
        return "glfw"
    if asked != default and not (system == "Linux" and asked == "osmesa"):
        raise RenderError(f"MUJOCO_GL is {asked!r}; expected nothing, glfw, {default}, or on Linux egl or osmesa")
    return asked


def has_library(name: str) -> bool:
    """Return whether a shared library can be loaded."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def has_display() -> bool:
    """Return whether windows can be opened; SDL's drivers without a screen count."""
    if platform.system() != "Linux":
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))


@cache
def probe(name: str) -> str:
    """Draw once with a backend in a process of its own, as broken drivers abort; return the error, or nothing."""
    if not sys.executable:
        return ""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE, name], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "drawing took more than 60 s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines and done.returncode > 0 else f"the process died with status {done.returncode}"


def check(name: str) -> None:
    """Make sure that a backend works here.

    Raises:
        RenderError: naming what is missing and how to install it.
    """
    library, install = PACKAGES.get(name, ("", "check the graphics driver"))
    if library and not has_library(library):
        raise RenderError(f"MuJoCo pictures need the library {library}, which was not found; install it: {install}")
    if (
        name == "glfw"
        and not any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))
        and sys.platform == "linux"
    ):
        raise RenderError("MUJOCO_GL asks for GLFW, but there is no display; unset MUJOCO_GL, or set DISPLAY")
    problem = probe(name)
    if problem:
        raise RenderError(
            f"MuJoCo cannot draw with {name}: {problem}; expected a working driver, software ones do: {install}"
        )


def open_context(width: int, height: int) -> Any:
    """Return a new GL context of the chosen backend, made current.

    Raises:
        RenderError: where there is none to be had.
    """
    name = backend(os.environ.get("MUJOCO_GL", "").lower().strip(), platform.system())
    check(name)
    try:
        context = importlib.import_module(f"mujoco.{name}").GLContext(width, height)
        context.make_current()
    except (ImportError, AttributeError, RuntimeError) as error:  # e.g. PyOpenGL was imported for another platform
        raise RenderError(f"MuJoCo cannot draw with {name}: {error}; in a new process it can") from error
    return context
