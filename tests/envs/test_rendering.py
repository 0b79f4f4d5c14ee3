"""Pictures: one of every family, the errors where they cannot be drawn, windows and videos."""

import itertools
import os
import platform
import subprocess
import sys
from dataclasses import replace

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import pytest
from typer.testing import CliRunner

import kshot
from kshot import tasks
from kshot.agents import ConstantAgent, make_agent
from kshot.cli import app
from kshot.engine import Engine
from kshot.rendering import Renderer, RenderError, canvas, film, gl, renderer, video
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


class Growing:
    """Acts in episode k as k says, so that every episode is another; it may collect rounds."""

    def __init__(self, size=1):
        self.round = size

    def reset(self, n):
        self._rounds = 0

    def act(self, observation):
        return np.full((len(observation), 6 if observation.shape[1] > 2 else 2), 0.3 * self._rounds - 0.5)

    def observe(self, experience):
        pass

    def end_episode(self):
        self._rounds += 1


def shoot(how, agent, id, episodes, task=1):
    v = kshot.variant(id)
    v = v if v.body is None else replace(v, horizon=8)  # such pictures take long
    return list(how(make_agent(agent, v, 0), v, "test", task, episodes, 0, lambda fraction: None))


def halves(frame):
    """Return the halves of a picture without the strips above: as large as a plain picture."""
    assert frame.shape == (renderer.SIZE + canvas.STRIP, 2 * renderer.SIZE + film.GAP, 3)
    return frame[canvas.STRIP :, : renderer.SIZE], frame[canvas.STRIP :, -renderer.SIZE :]


def check_first_and_last(agent, id, episodes):
    plain = shoot(film.film, agent, id, episodes)
    length = len(plain) // episodes
    pairs = [halves(frame) for frame in shoot(film.first_and_last, agent, id, episodes)]
    assert len(pairs) == length
    for (left, right), first, last in zip(pairs, plain[:length], plain[-length:], strict=True):
        assert (left == first).all()
        assert (right == last).all()
    assert any((left != right).any() for left, right in pairs)


@pytest.mark.parametrize(
    ("agent", "id", "episodes"),
    [
        (Growing(), "PointGoal-v0", 3),
        ("ucb1", "Bandit-k5n10-v0", 3),
        ("psrl", "TabularMDP-n10-v0", 4),
        ("random", "GridNav-v0", 2),
    ],
)
def test_the_first_and_the_last_episode_side_by_side(agent, id, episodes):
    check_first_and_last(agent, id, episodes)


def test_the_first_and_the_last_episode_of_a_body(opengl):
    check_first_and_last(Growing(), CHEETAH, 3)


def test_returns_stand_above_the_first_and_the_last_episode():
    v = kshot.variant("PointGoal-v0")
    scored = kshot.evaluate(Growing(), v.id, episodes=4, num_tasks=2).returns[1]
    start, *_, end = shoot(film.first_and_last, Growing(), v.id, 4)
    for frame, first, last in ((start, 0, 0), (end, scored[0], scored[-1])):
        for episode, total, strip in ((1, first, slice(renderer.SIZE)), (4, last, slice(-renderer.SIZE, None))):
            label = canvas.draw_caption(f"episode {episode}, return {total:.2f}", renderer.SIZE)
            assert (frame[: canvas.STRIP, strip] == label).all()


def test_the_first_and_the_last_round_side_by_side():
    plain = shoot(film.film, Growing(3), "PointGoal-pearl-v0", 3)  # random starts; the first episode of each round
    frames = shoot(film.first_and_last, Growing(3), "PointGoal-pearl-v0", 7)  # three rounds
    for frame, first, last in zip(frames, plain[:21], plain[-21:], strict=True):
        assert (halves(frame)[0] == first).all()
        assert (halves(frame)[1] == last).all()
    label = canvas.draw_caption("episode 7, return 0.00", renderer.SIZE)
    assert (frames[0][: canvas.STRIP, -renderer.SIZE :] == label).all()


@pytest.mark.parametrize("early", [0, 1])
def test_the_shorter_episode_holds_its_last_picture(early):
    """Of two episodes the early one ends when the point has gone far; the other stands still."""

    class Once(ConstantAgent):
        def reset(self, n):
            self._action = np.full(2, 1.0 if early == 0 else 0.0)

        def end_episode(self):
            self._action = np.full(2, 1.0 if early == 1 else 0.0)

    v = kshot.variant("PointGoal-v0")
    family = replace(v.family, terminated=lambda state, task, c: state.position[:, 0] > 0.45)
    ending = replace(v, family=family)
    frames = list(film.first_and_last(Once(ending), ending, "test", 0, 2, 0, lambda fraction: None))
    assert len(frames) == v.horizon + 1
    moving = [halves(frame)[early] for frame in frames]
    changes = [(a != b).any() for a, b in itertools.pairwise(moving)]
    ended = changes.index(False)
    assert 0 < ended < v.horizon
    assert all(changes[:ended])
    assert not any(changes[ended:])
    assert (moving[-1] != halves(frames[-1])[1 - early]).any()  # its own picture, not the other's


@pytest.mark.parametrize(("size", "episodes"), [(1, 1), (3, 3)])
def test_one_episode_or_round_has_no_last(size, episodes):
    with pytest.raises(ValueError, match=f"ask for {size + 1} episodes or more"):
        shoot(film.first_and_last, Growing(size), "PointGoal-v0", episodes)


def test_episodes_between_are_not_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(film.Renderer, "picture", lambda self, row: drawn.append(0) or np.zeros((4, 6, 3), np.uint8))
    progress = []
    v = kshot.variant("PointGoal-v0")
    list(film.first_and_last(Growing(), v, "test", 0, 9, 0, progress.append))
    assert len(drawn) == 2 * (v.horizon + 1)
    assert progress == sorted(progress)
    assert progress[-1] == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
@pytest.mark.parametrize("name", ["both.mp4", "both.gif"])
def test_watch_films_the_first_and_the_last_episode(name, tmp_path):
    path = tmp_path / name
    words = ["watch", "Bandit-k5n10-v0", "--agent", "ucb1", "--first-last", "--output", str(path)]
    done = CliRunner().invoke(app, [*words, "--episodes", "5"])
    assert done.exit_code == 0, done.output
    with imageio.get_reader(path) as reader:
        read = [np.asarray(frame)[..., :3] for frame in reader]
    drawn = shoot(film.first_and_last, "ucb1", "Bandit-k5n10-v0", 5, task=0)
    assert len(read) == len(drawn)
    assert abs(read[-1].astype(int) - drawn[-1]).mean() < 3
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "ask for 2 episodes or more" in refused.output
