"""Pictures of MuJoCo bodies, with a scene's marks among them."""

from __future__ import annotations

import math
import weakref
from typing import Any

import mujoco
import numpy as np

from kshot.rendering import gl, palette
from kshot.rendering.scene import Arrow, Disc, Label, Mark, Rectangle, Role, Scene

_MAX_GEOMS = 1000
_SHADOW = 2048  # pixels: software rendering is slow
_LIGHT, _AMBIENT = 0.5, 0.35  # the bodies' own lights overexpose what faces up, and leave sides dark
_FOVY = 45.0  # degrees, MuJoCo's default
_ANT = 1.2  # m, how far its feet reach
_SHARE = 0.88  # of the picture, that marks stay clear of its edges
_ELEVATION = -58.0  # degrees
_NEAREST = 5.0  # m
_SHORT = 0.05  # m: an arrow below this is drawn as a ball
_UNTURNED = np.eye(3).ravel()


class BodyPainter:
    """Draws one kind of body; holds a GL context until closed."""

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        """Open the context.

        Args:
            model: any model of the kind, its own copy: its visual settings are changed.
            width: pixels.
            height: pixels.

        Raises:
            RenderError: where this machine cannot draw.
        """
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.quality.shadowsize = _SHADOW
        soften(model)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._gl = gl.open_context(width, height)
        self._mjr = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._mjr)
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        self._option = mujoco.MjvOption()
        # The context must be current while MuJoCo frees what it made in it, also when nobody calls close.
        self.close = weakref.finalize(self, _free, self._gl, self._mjr)

    def paint(self, model: mujoco.MjModel, data: mujoco.MjData, scene: Scene) -> np.ndarray:
        """Draw a body and marks without the caption, (height, width, 3) uint8."""
        self._gl.make_current()
        torso = data.body("torso").xpos
        camera = side_camera(torso) if scene.plane == "side" else floor_camera(torso, scene, self._rect)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._option, None, camera, everything, self._scene)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
                _follow(geom, torso, model)
        for light in self._scene.lights[: self._scene.nlight]:
            light.diffuse *= _LIGHT
            if light.headlight:
                light.ambient[:] = _AMBIENT
            else:
                light.pos[:2] = torso[:2]  # shadows fall near a light only
        for mark in scene.marks:
            _add(self._scene, mark, scene.plane)
        pixels = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
        mujoco.mjr_render(self._rect, self._scene, self._mjr)
        mujoco.mjr_readPixels(pixels, None, self._rect, self._mjr)
        return np.flipud(pixels)


def _follow(geom: Any, torso: np.ndarray, model: mujoco.MjModel) -> None:
    """Move a floor below a body by whole tiles, so that it seems endless, and take its tint and mirror away."""
    geom.rgba[:], geom.reflectance = 1.0, 0.0
    geom.category = mujoco.mjtCatBit.mjCAT_DECOR  # casts no shadow: on itself it makes stains
    if geom.matid >= 0 and geom.size[:2].all():  # MuJoCo moves planes without a size itself
        tile = 2 * geom.size[:2] / model.mat_texrepeat[geom.matid]
        geom.pos[:2] += np.round((torso[:2] - geom.pos[:2]) / tile) * tile


def _free(context: Any, mjr: Any) -> None:
    with context.as_current():
        mjr.free()
    context.free()


def soften(model: mujoco.MjModel) -> None:
    """Give floor and sky quiet colours, before which bodies and marks stand out."""
    for i in range(model.ntex):
        start = model.tex_adr[i]
        pixels = model.tex_data[start : start + model.tex_height[i] * model.tex_width[i] * model.tex_nchannel[i]]
        if model.tex_type[i] == mujoco.mjtTexture.mjTEXTURE_2D:
            pixels[:] = 190 + pixels * (40 / max(1, pixels.max()))
        elif model.tex_type[i] == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            pixels[:] = 215 + pixels * (35 / max(1, pixels.max()))


def camera_at(lookat: Any, distance: float, azimuth: float, elevation: float) -> mujoco.MjvCamera:
    """Return a free camera; angles in degrees."""
    camera = mujoco.MjvCamera()
    camera.lookat[:] = lookat
    camera.distance, camera.azimuth, camera.elevation = distance, azimuth, elevation
    return camera


def side_camera(torso: np.ndarray) -> mujoco.MjvCamera:
    """Return a camera that runs along at the side of a body; its height stays, so that the ground does not shake."""
    return camera_at((torso[0], 0.0, 0.8), 4.0, 90.0, -8.0)


def floor_camera(torso: np.ndarray, scene: Scene, rect: Any) -> mujoco.MjvCamera:
    """Return a camera from above that keeps a body and all marks on the floor in sight, x to the right."""
    points = np.concatenate([_around(torso[0], torso[1], _ANT), *(_corners(m) for m in scene.marks)])
    middle = (points.min(0) + points.max(0)) / 2
    slope = math.radians(-_ELEVATION)
    offset = points - middle
    right, up, ahead = offset[:, 0], offset[:, 1] * math.sin(slope), offset[:, 1] * math.cos(slope)
    # A point is in sight where |right| and |up| are within their share of its depth, distance + ahead.
    tangent = math.tan(math.radians(_FOVY) / 2) * _SHARE
    wanted = np.maximum(abs(right) / (tangent * rect.width / rect.height), abs(up) / tangent) - ahead
    return camera_at((*middle, 0.2), max(_NEAREST, float(wanted.max())), 90.0, _ELEVATION)


def _around(x: float, y: float, radius: float) -> np.ndarray:
    return np.array(
        [(x - radius, y - radius), (x - radius, y + radius), (x + radius, y - radius), (x + radius, y + radius)]
    )


def _corners(mark: Mark) -> np.ndarray:
    """Return points that a mark on the floor spans, (k, 2)."""
    if isinstance(mark, Disc):
        return _around(mark.x, mark.y, mark.radius)
    if isinstance(mark, Arrow):
        return np.array([(mark.x, mark.y), (mark.x + mark.dx, mark.y + mark.dy)])
    if isinstance(mark, Rectangle):
        return np.array([(mark.x, mark.y), (mark.x + mark.width, mark.y + mark.height)])
    return np.array([(mark.x, mark.y)])


def _rgba(role: Role) -> np.ndarray:
    """Return a role's colour for MuJoCo; what is reached is translucent."""
    opaque = {"reach": 0.35, "faint": 0.6}.get(role, 1.0)
    colour = palette.ROLES["goal" if role == "reach" else role]
    return np.array([*(c / 255 for c in colour), opaque], np.float32)


def _add(scene: Any, mark: Mark, plane: str) -> None:
    """Add a mark to a MuJoCo scene as a geom that is drawn only."""
    if scene.ngeom >= scene.maxgeom:
        return
    geom = scene.geoms[scene.ngeom]
    scene.ngeom += 1
    lift = 0.01 if isinstance(mark, Disc | Rectangle) and mark.role == "reach" else 0.02  # flat marks do not flicker

    def at(x: float, y: float, height: float = lift) -> np.ndarray:
        return np.array((x, 0.0, y) if plane == "side" else (x, y, height))

    kind, size, where = mujoco.mjtGeom.mjGEOM_LABEL, np.zeros(3), at(mark.x, mark.y)
    if isinstance(mark, Disc):
        kind, size = mujoco.mjtGeom.mjGEOM_CYLINDER, np.array((mark.radius, 0.005, 0.0))
    elif isinstance(mark, Rectangle):
        kind, size = mujoco.mjtGeom.mjGEOM_BOX, np.array((abs(mark.width) / 2, abs(mark.height) / 2, 0.005))
        where = at(mark.x + mark.width / 2, mark.y + mark.height / 2)
    elif isinstance(mark, Arrow):
        kind, size, where = mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, _SHORT), at(mark.x, mark.y, 0.06)
    mujoco.mjv_initGeom(geom, kind, size, where, _UNTURNED, _rgba(mark.role))
    if isinstance(mark, Arrow) and math.hypot(mark.dx, mark.dy) >= _SHORT:
        tip = at(mark.x + mark.dx, mark.y + mark.dy, 0.06)
        mujoco.mjv_connector(geom, mujoco.mjtGeom.mjGEOM_ARROW, 0.045, where, tip)
    elif isinstance(mark, Label):
        geom.label = mark.text
    geom.category = mujoco.mjtCatBit.mjCAT_DECOR
    geom.emission = 0.15
