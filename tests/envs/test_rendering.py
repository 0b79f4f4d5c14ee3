"""Pictures: one of every family, the errors where they cannot be drawn, windows and videos."""

import os
import platform
import subprocess
import sys

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import pytest

import kshot
from kshot import tasks
from kshot.engine import Engine
from kshot.rendering import Renderer, RenderError, canvas, gl, renderer, video
from kshot.single import KshotEnv

DEFAULTS = list({v.family.name: v for v in reversed(kshot.VARIANTS.values())}.values())
FLAT = [v for v in DEFAULTS if v.body is None]
BODIES = [v for v in DEFAULTS if v.body is not None]
CHEETAH = "kshot/HalfCheetahVel-v0"


@pytest.fixture(scope="session")
def opengl():
    """Skip where this machine cannot draw MuJoCo bodies at all."""
    try:
        gl.check(gl.backend(os.environ.get("MUJOCO_GL", ""), platform.system()))
    except RenderError as error:
        pytest.skip(f"no MuJoCo pictures here: {error}")


@pytest.fixture
def fresh_probe():
    """Forget what the probe found, before and after."""
    gl.probe.cache_clear()
    yield
    gl.probe.cache_clear()


def begun(variant, n=1, device=None):
    engine = Engine(variant, "train", n, device=device)
    engine.reseed(None, np.arange(n, dtype=np.uint64))
    engine.begin()
    return engine


def step(engine, seed=0):
    engine.variant.action_space.seed(seed)
    engine.step(engine.asarray(engine.prepare(np.stack([engine.variant.action_space.sample()] * engine.n))))


def marks(engine):
    return renderer.scene_of(engine, 0).marks


def check_pictures(variant):
    engine, twin = begun(variant), begun(variant)
    drawer, other = Renderer(engine), Renderer(twin)
    first = drawer.picture(0)
    assert first.shape == (renderer.SIZE, renderer.SIZE, 3)
    assert first.dtype == np.uint8
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 10  # not blank
    assert (first == drawer.picture(0)).all()
    assert (first == other.picture(0)).all()
    before = marks(engine)
    for i in range(20):  # a law may draw the same task twice
        if marks(engine) != before:
            break
        engine.pin(None, tasks.sample(variant, "train", 1, seed=i))
    below = slice(canvas.STRIP, None)  # the caption is no proof
    assert (first[below] != drawer.picture(0)[below]).any(), "the task is not to be seen"
    seen = False
    for i in range(5):  # one action may change nothing
        step(twin, seed=i)
        seen = seen or (first[below] != other.picture(0)[below]).any()
    assert seen, "a step is not to be seen"
    for r in (drawer, other):
        r.close()
        r.close()
    assert (drawer.picture(0).shape) == first.shape  # closing frees, it does not break
    drawer.close()


@pytest.mark.parametrize("variant", FLAT, ids=lambda v: v.family.name)
def test_flat_pictures(variant):
    check_pictures(variant)


@pytest.mark.parametrize("variant", BODIES, ids=lambda v: v.family.name)
def test_body_pictures(variant, opengl):
    check_pictures(variant)


def test_all_variants_have_a_scene():
    for variant in kshot.VARIANTS.values():
        scene = renderer.scene_of(begun(variant), 0)
        assert scene.caption, variant.id
        assert scene.marks, variant.id


def test_rows_are_those_of_their_own_engines():
    engine, one = begun(FLAT[0], 3), begun(FLAT[0])
    one.reseed(None, np.array([2], np.uint64))
    one.begin()
    assert (Renderer(engine).picture(2) == Renderer(one).picture(0)).all()
    assert (Renderer(engine).picture(1) != Renderer(one).picture(0)).any()


def test_bodies_of_a_batch_have_their_own_pictures(opengl):
    engine = begun(kshot.variant("AntGoal-v0"), 2)
    drawer = Renderer(engine)
    assert (drawer.picture(0) != drawer.picture(1)).any()
    drawer.close()


def test_torch_engines_draw_the_same():
    torch = pytest.importorskip("torch")
    variant = kshot.variant("PointGoal-v0")
    expected = Renderer(begun(variant)).picture(0).astype(int)
    drawn = Renderer(begun(variant, device=torch.device("cpu"))).picture(0)
    assert abs(expected - drawn).mean() < 0.5  # float32


def test_goals_far_away_are_in_sight(opengl):
    variant = kshot.variant("AntGoal-v0")
    engine = begun(variant)
    drawer = Renderer(engine)
    for goal in ((-4, 0), (0, -4), (0, 4), (14, -14), (20, 20)):
        engine.pin(None, tasks.check(variant, {"goal": goal}, 1))
        colours = drawer.picture(0)[canvas.STRIP :].astype(int)
        green = (colours[..., 1] > colours[..., 0] + 60).sum()
        assert green > 50, goal
    drawer.close()


def test_environments_draw():
    env = gym.make("kshot/PointGoal-v0", render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    env.step(env.action_space.sample())
    assert (env.render() != first).any()
    env.close()
    envs = gym.make_vec("kshot/PointGoal-v0", 2, render_mode="rgb_array")
    envs.reset(seed=0)
    assert [p.shape for p in envs.render()] == [first.shape] * 2
    envs.close()


def test_importing_kshot_imports_no_graphics():
    code = "import kshot, sys; print([m for m in ('pygame', 'OpenGL', 'imageio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_unclosed_renderers_die_quietly(opengl):
    code = (
        "from kshot.single import KshotEnv\n"
        f"env = KshotEnv('{CHEETAH}', render_mode='rgb_array')\nenv.reset(seed=0)\nenv.render()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


@pytest.mark.parametrize(
    ("asked", "system", "expected"),
    [
        ("", "Linux", "egl"),
        ("on", "Linux", "egl"),
        ("glfw", "Linux", "glfw"),
        ("glx", "Linux", "glfw"),
        ("osmesa", "Linux", "osmesa"),
        ("", "Darwin", "cgl"),
        ("", "Windows", "glfw"),
    ],
)
def test_backends(asked, system, expected):
    assert gl.backend(asked, system) == expected


@pytest.mark.parametrize(("asked", "system"), [("off", "Linux"), ("vulkan", "Linux"), ("osmesa", "Windows")])
def test_backends_that_are_refused(asked, system):
    with pytest.raises(RenderError, match=f"MUJOCO_GL is '{asked}'"):
        gl.backend(asked, system)


def test_missing_library(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(gl.platform, "system", lambda: "Linux")
    monkeypatch.setattr(gl, "has_library", lambda name: False)
    env = KshotEnv(CHEETAH, render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(RenderError, match=r"libEGL\.so\.1.*apt-get install libegl1"):
        env.render()
    env.step(env.action_space.sample())  # all but pictures goes on
    env.close()


def test_broken_driver(monkeypatch, fresh_probe):
    monkeypatch.setattr(gl, "has_library", lambda name: True)
    monkeypatch.setattr(gl, "_PROBE", "import os; os.abort()")
    with pytest.raises(RenderError, match="cannot draw with egl: the process died with status -6"):
        gl.check("egl")


def test_no_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    if gl.has_display():
        pytest.skip("this system always has a display")
    with pytest.raises(RenderError, match="GLFW, but there is no display"):
        gl.check("glfw")
    env = KshotEnv("kshot/PointGoal-v0", render_mode="human")
    with pytest.raises(RenderError, match=r"no display.*DISPLAY.*rgb_array"):
        env.reset(seed=0)
    env.close()


def test_windows(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    engine = begun(kshot.variant("PointGoal-v0"))
    first, second = Renderer(engine), Renderer(engine)
    for _ in range(2):
        first.show(0, 1000)
        second.show(0, 1000)
    import pygame

    assert first._window._window.title == "kshot/PointGoal-v0"
    shown = canvas.to_array(first._window._window.get_surface())
    assert (shown == first.picture(0)).all()
    pygame.event.post(pygame.event.Event(pygame.WINDOWCLOSE, window=first._window._window))
    second.show(0, 1000)  # whoever sees the event closes the window it is about
    assert not first._window.is_open
    assert second._window.is_open
    first.show(0, 1000)
    first.close()
    second.close()
    second.close()


# imageio's reader, which only this test uses, leaves the pipes of its ffmpeg to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["video.mp4", "video.gif"])
def test_videos_read_back(name, tmp_path):
    engine = begun(kshot.variant("PointGoal-v0"))
    drawer = Renderer(engine, 161, 121)
    frames = [drawer.picture(0)]
    for _ in range(4):
        step(engine)
        frames.append(drawer.picture(0))
    path = tmp_path / name
    path.write_bytes(b"old")
    video.write_video(path, iter(frames), 10)
    with imageio.get_reader(path) as reader:
        read = [np.asarray(frame)[..., :3] for frame in reader]
    assert len(read) == 5
    height, width = (121, 161) if name.endswith("gif") else (122, 162)
    assert {frame.shape for frame in read} == {(height, width, 3)}
    assert abs(read[2][:121, :161].astype(int) - frames[2]).mean() < 6
    assert os.listdir(tmp_path) == [name]


def test_videos_that_are_refused(tmp_path):
    frame = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match=r"'a\.avi'.*\.mp4 or \.gif"):
        video.write_video(tmp_path / "a.avi", [frame], 10)
    with pytest.raises(ValueError, match="fps is 0"):
        video.write_video(tmp_path / "a.gif", [frame], 0)
    with pytest.raises(ValueError, match="frame 1 is uint8 of shape"):
        video.write_video(tmp_path / "a.gif", [frame, frame[:10]], 10)
    with pytest.raises(ValueError, match="no frames"):
        video.write_video(tmp_path / "a.mp4", [], 10)
    assert os.listdir(tmp_path) == []
