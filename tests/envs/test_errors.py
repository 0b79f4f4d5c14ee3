"""What is refused: by an exception of a fixed type that names what was given, what was expected, and the fix."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, NameNotFound, ResetNeeded, VersionNotFound

import kshot
from kshot import tasks
from kshot.engine import ActionError
from kshot.single import KshotEnv
from kshot.tasks import TaskError

NAN, INF = float("nan"), float("inf")


def single(name: str, **kwargs: Any) -> Any:
    """A single env without Gymnasium's wrappers, so that our own checks are met."""
    return KshotEnv(f"kshot/{name}-v0", **kwargs)


def batch(name: str, n: int = 3, **kwargs: Any) -> Any:
    return gym.make_vec(f"kshot/{name}-v0", n, **kwargs)


def begun(name: str, n: int = 0, **kwargs: Any) -> Any:
    env = batch(name, n, **kwargs) if n else single(name, **kwargs)
    env.reset(seed=0)
    return env


def refuses(kind: Any, call: Any, *words: str) -> None:
    """Assert that the call raises exactly this kind of exception, with these words in its message."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert all(word in message for word in words), message


# --- actions ----------------------------------------------------------------------------------------------

BAD_ACTIONS = (
    ("PointGoal", [1.0, 2.0, 3.0], ("(3,)", "(2,)")),
    ("PointGoal", 0.5, ("()", "(2,)")),
    ("PointGoal", [[0.1, 0.2]], ("(1, 2)", "(2,)")),
    ("PointGoal", None, ("expected",)),
    ("PointGoal", "left", ("left", "numbers")),
    ("PointGoal", ["0.1", "0.2"], ("0.1", "numbers")),
    ("PointGoal", [[0.1], [0.2, 0.3]], ("[0.1]", "expected")),
    ("PointGoal", {"x": 1}, ("'x'", "numbers")),
    ("PointGoal", [NAN, 0.0], ("NaN", "nan")),
    ("PointGoal", [0.0, INF], ("infinity", "inf")),
    ("HalfCheetahVel", [0.0] * 5 + [NAN], ("NaN", "nan")),
    ("GridNav", 5, ("5", "0 … 4")),
    ("GridNav", -1, ("-1", "0 … 4")),
    ("GridNav", 1.0, ("float64", "whole numbers", "0 … 4")),
    ("GridNav", True, ("bool", "whole numbers")),
    ("GridNav", "up", ("<U2", "whole numbers")),
    ("GridNav", None, ("object", "whole numbers")),
    ("GridNav", 2**70, ("whole numbers",)),
    ("GridNav", [1], ("(1,)", "()")),
    ("GridNav", [[1], [2, 3]], ("[2, 3]", "expected")),
)
BAD_BATCHES = (
    ("PointGoal", np.zeros((2, 2)), ("(2, 2)", "(3, 2)")),
    ("PointGoal", np.zeros(2), ("(2,)", "(3, 2)")),
    ("PointGoal", np.zeros((3, 2, 1)), ("(3, 2, 1)", "(3, 2)")),
    ("PointGoal", [[1, 2], [3]], ("[[1, 2], [3]]", "numbers")),
    ("PointGoal", np.full((3, 2), "a"), ("'a'", "numbers")),
    ("PointGoal", [[0, 0], [0, NAN], [INF, 0]], ("NaN or infinity", "row 1", "nan")),
    ("AntDir", np.full((3, 8), INF), ("NaN or infinity", "row 0", "inf")),
    ("GridNav", [0, 1], ("(2,)", "(3,)")),
    ("GridNav", [0, 5, 1], ("5", "0 … 4")),
    ("GridNav", [0, -1, 1], ("-1", "0 … 4")),
    ("GridNav", [0.0, 1.0, 2.0], ("float64", "whole numbers")),
    ("GridNav", ["a", "b", "c"], ("<U1", "whole numbers")),
    ("GridNav", [[1], [2, 3], [4]], ("[2, 3]", "expected")),
)


@pytest.mark.parametrize(("name", "action", "words"), BAD_ACTIONS)
def test_a_bad_action_is_refused_and_changes_nothing(name, action, words):
    env, twin = begun(name), begun(name)
    refuses(ActionError, lambda: env.step(action), env.variant.id, *words)
    good = env.action_space.sample()
    assert (env.step(good)[0] == twin.step(good)[0]).all()


@pytest.mark.parametrize(("name", "actions", "words"), BAD_BATCHES)
def test_a_bad_batch_of_actions_is_refused_and_changes_nothing(name, actions, words):
    env, twin = begun(name, 3), begun(name, 3)
    refuses(ActionError, lambda: env.step(actions), env.variant.id, *words)
    good = env.action_space.sample()
    assert (env.step(good)[0] == twin.step(good)[0]).all()


@pytest.mark.parametrize("huge", [1.5, 1e30, 1e39, 1e300])
def test_finite_actions_are_clipped_however_large(huge):
    env, twin = begun("PointGoal", 2), begun("PointGoal", 2)
    want = twin.step(np.array([[1.0, -1.0], [0.5, 0.5]]))
    assert (env.step(np.array([[huge, -huge], [0.5, 0.5]]))[0] == want[0]).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.int8, "O"])
def test_any_real_type_of_box_action_will_do(dtype):
    env, twin = begun("PointGoal", 2), begun("PointGoal", 2)
    actions = np.array([[1, 0], [0, -1]])
    assert (env.step(actions.astype(dtype))[0] == twin.step(actions.astype(np.float32))[0]).all()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_any_whole_type_of_discrete_action_will_do(dtype):
    env, twin = begun("GridNav", 2), begun("GridNav", 2)
    assert (env.step(np.array([1, 2], dtype))[0] == twin.step(np.array([1, 2]))[0]).all()
    one = begun("GridNav")
    one.step(dtype(1))
    one.step(np.array(1, dtype))


# --- tasks ------------------------------------------------------------------------------------------------

BAD_TASKS = (
    ("PointGoal", {"goal": [11.0, 0.0]}, ("'goal'", "11", "[-10, 10]", "m")),
    ("PointGoal", {"goal": [NAN, 0.0]}, ("'goal'", "nan", "[-10, 10]")),
    ("PointGoal", {"goal": [INF, 0.0]}, ("'goal'", "inf", "[-10, 10]")),
    ("PointGoal", {"goal": [0.0]}, ("'goal'", "(1,)", "(2,)")),
    ("PointGoal", {"goal": 0.0}, ("'goal'", "()", "(2,)")),
    ("PointGoal", {"goal": "there"}, ("'goal'", "'there'", "(2,)")),
    ("PointGoal", {"goal": None}, ("'goal'",)),
    ("PointGoal", {"goal": [[0.1], [0.2, 0.3]]}, ("'goal'", "(2,)")),
    ("PointGoal", {"gaol": [0.0, 0.0]}, ("fields", "goal", "gaol", "missing")),
    ("PointGoal", {}, ("fields", "goal", "missing")),
    ("PointGoal", {"goal": [0.0, 0.0], "speed": 1}, ("fields", "goal", "speed")),
    ("PointGoal", 3, ("mapping", "goal", "3")),
    ("AntDir", {"angle": 1.0}, ("angle, friction", "friction is missing")),
    ("AntDir", {"angle": 1.0, "friction": 0.0}, ("'friction'", "0", "[0.01, 10]")),
    ("HalfCheetahDir", {"direction": 0.5, "swapped": 0, "friction": 1}, ("'direction'", "0.5", "1 or -1")),
    ("HalfCheetahVel", {"velocity": -11}, ("'velocity'", "-11", "[-10, 10]", "m/s")),
    ("GridNav", {"goal": [1.5, 0]}, ("'goal'", "1.5", "whole")),
    ("GridNav", {"goal": [0, 10]}, ("'goal'", "10", "[0, 4]")),
    ("GridNav", {"goal": [4, 7]}, ("'goal'", "7", "4")),  # off this variant's grid of 5 × 5
    ("Bandit-k5n10", {"means": [0.1] * 4}, ("'means'", "(4,)", "(5,)")),
    ("Bandit-k5n10", {"means": [7.0, 0, 0, 0, 0]}, ("'means'", "7", "1")),  # a Bernoulli arm's probability
    (
        "TabularMDP-n10",
        {"transitions": np.full((10, 5, 10), 0.2), "rewards": np.zeros((10, 5))},
        ("'transitions'", "2.", "sum to 1"),
    ),
    (
        "TabularMDP-n10",
        {"transitions": np.full((10, 5, 10), -0.1), "rewards": np.zeros((10, 5))},
        ("'transitions'", "-0.1", "[0, 1]"),
    ),
)


@pytest.mark.parametrize(("name", "task", "words"), BAD_TASKS)
@pytest.mark.parametrize("where", ["make", "reset", "make_vec", "reset batch", "tasks"])
def test_a_task_outside_the_task_space_is_refused(name, task, words, where):
    call = {
        "make": lambda: single(name, task=task),
        "reset": lambda: begun(name).reset(options={"task": task}),
        "make_vec": lambda: batch(name, task=task),
        "reset batch": lambda: begun(name, 3).reset(options={"task": task}),
        "tasks": lambda: single(name, tasks=[task]),
    }[where]
    refuses(TaskError, call, f"kshot/{name}-v0", *words)
    assert issubclass(TaskError, ValueError)


def test_a_batch_of_tasks_of_the_wrong_length_is_refused():
    env, one = begun("PointGoal", 3), {"goal": [0.0, 0.0]}
    refuses(TaskError, lambda: env.reset(options={"task": [one] * 2}), "2 tasks", "3 rows", "one task a row")
    refuses(TaskError, lambda: env.reset(options={"task": {"goal": np.zeros((2, 2))}}), "(2, 2)", "(3, 2)", "a row")
    refuses(TaskError, lambda: env.reset(options={"task": [one, one, {"gaol": 1}]}), "gaol", "missing")
    refuses(TaskError, lambda: begun("PointGoal").reset(options={"task": [one] * 2}), "2 tasks", "1 rows")


@pytest.mark.parametrize("n", [0, 3], ids=["single", "batch"])
def test_a_refused_reset_changes_nothing(n):
    env, twin = begun("PointGoal-pearl", n), begun("PointGoal-pearl", n)
    for options in ({"task": {"gaol": [0, 0]}}, {"task": {"goal": [99, 0]}}, {"task": "redraw"}, {"tusk": 1}):
        refuses(ValueError, lambda o=options: env.reset(seed=7, options=o))
    action = env.action_space.sample()
    got, want = env.step(action), twin.step(action)
    assert (got[0] == want[0]).all()
    assert np.all(got[1] == want[1])
    assert (env.reset()[0] == twin.reset()[0]).all()


def test_tasks_that_cannot_be_read_are_refused(tmp_path):
    variant, other = kshot.variant("PointGoal-v0"), kshot.variant("PointGoal-pearl-v0")
    good, foreign, damaged, text, odd = (tmp_path / f"{x}.json" for x in ("good", "foreign", "damaged", "text", "odd"))
    pool = tasks.sample(variant, "test", 4)
    tasks.save(good, variant, pool)
    tasks.save(foreign, other, pool)
    data = json.loads(good.read_text())
    data["tasks"][1]["goal"][0] += 1e-9
    damaged.write_text(json.dumps(data))
    text.write_text("goal = 1")
    odd.write_text('{"goals": []}')
    assert len(single("PointGoal", tasks=good).engine.pool[0]) == 4

    def of(given: Any) -> Any:
        return lambda: single("PointGoal", tasks=given)

    refuses(TaskError, of(tmp_path / "nowhere.json"), "nowhere.json", "cannot read")
    refuses(TaskError, of(str(tmp_path)), str(tmp_path), "cannot read")
    refuses(TaskError, of(foreign), "foreign.json", "kshot/PointGoal-pearl-v0", "kshot/PointGoal-v0")
    refuses(TaskError, of(damaged), "damaged.json", "SHA-256", "drop 'sha256'")
    refuses(TaskError, of(text), "text.json", "cannot read")
    refuses(TaskError, of(odd), "odd.json", "'tasks'", "list of tasks")
    for empty in ([], {}, 3, np.zeros((2, 2))):
        refuses(TaskError, of(empty), "non-empty list", "JSON file")


# --- resets -----------------------------------------------------------------------------------------------


def test_bad_masks_are_refused():
    env, who = begun("PointGoal", 3), "kshot/PointGoal-v0"

    def masked(mask: Any) -> Any:
        return lambda: env.reset(options={"reset_mask": mask})

    for mask in (np.ones(2, bool), np.ones((3, 1), bool), np.ones(3, int), [True, False, True]):
        refuses(ValueError, masked(mask), who, "'reset_mask'", "3 bools", repr(mask))
    refuses(ValueError, masked(np.zeros(3, bool)), who, "'reset_mask'", "names no row", "at least one True")
    fresh = batch("PointGoal")
    refuses(ResetNeeded, lambda: fresh.reset(options={"reset_mask": np.array([True, False, True])}), "first reset")


def test_unknown_options_are_refused():
    for env, others in ((begun("PointGoal"), ()), (begun("PointGoal", 3), ("'reset_mask'",))):
        refuses(ValueError, lambda e=env: e.reset(options={"taks": 1}), "'taks'", "'task'", *others)
        refuses(ValueError, lambda e=env: e.reset(options={"task": "redraw"}), "'redraw'", "resample")
    refuses(ValueError, lambda: begun("PointGoal").reset(options={"reset_mask": np.ones(1, bool)}), "'reset_mask'")


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        ([1, 2], ("2 seeds", "3 rows", "one a row")),
        ([1, 2, 3, 4], ("4 seeds", "3 rows")),
        ([1, 2.5, 3], ("2.5",)),
        ([1, "2", 3], ("2", "str")),
        (1.5, ("1.5",)),
        (-1, ("-1",)),
        ([0, -5, 1], ("-5",)),
    ],
)
def test_bad_seeds_are_refused(seed, words):
    # Gymnasium's own error for what is no seed, as the single env raises; ours for a wrong number of them.
    kind = ValueError if "rows" in " ".join(words) else gym.error.Error
    refuses(kind, lambda: batch("PointGoal").reset(seed=seed), *words)


def test_seeds_of_numpy_are_taken():
    want = batch("PointGoal").reset(seed=[4, 5, 6])[1]["task"]["goal"]
    assert (batch("PointGoal").reset(seed=np.array([4, 5, 6]))[1]["task"]["goal"] == want).all()
    assert (batch("PointGoal").reset(seed=np.int64(4))[1]["task"]["goal"] == want).all()


# --- order of calls ---------------------------------------------------------------------------------------


def test_a_step_needs_a_reset():
    refuses(ResetNeeded, lambda: single("PointGoal").step([0, 0]), "before the first reset", "reset()")
    refuses(ResetNeeded, lambda: batch("PointGoal").step(np.zeros((3, 2))), "before reset", "reset()")
    env = begun("GridNav")
    assert any(env.step(0)[2] for _ in range(15))
    refuses(ResetNeeded, lambda: env.step(0), "after the end", "reset()")
    env.reset()
    env.step(0)
    made = gym.make("kshot/PointGoal-v0")
    refuses(ResetNeeded, lambda: made.step(made.action_space.sample()))  # Gymnasium's wrapper says it first


def test_disabled_autoreset_refuses_to_step_over_an_end():
    env = begun("PointGoal-maml", 3, autoreset_mode="DISABLED")
    env.reset(options={"task": {"goal": [[0.05, 0], [0.5, 0.5], [0.05, 0]]}})
    _, _, terminated, _, _ = env.step(np.tile([0.05, 0.0], (3, 1)))
    assert terminated.tolist() == [True, False, True]
    refuses(ResetNeeded, lambda: env.step(np.zeros((3, 2))), "[0, 2]", "reset_mask")
    env.reset(options={"reset_mask": np.array([True, False, False])})
    refuses(ResetNeeded, lambda: env.step(np.zeros((3, 2))), "[2]", "reset_mask")
    env.reset(options={"reset_mask": np.array([False, False, True])})
    env.step(np.zeros((3, 2)))


def test_a_closed_env_is_refused():
    for env, action in ((begun("PointGoal"), np.zeros(2)), (begun("PointGoal", 3), np.zeros((3, 2)))):
        env.close()
        refuses(ClosedEnvironmentError, lambda e=env, a=action: e.step(a), "after close", "new environment")
        refuses(ClosedEnvironmentError, lambda e=env: e.reset(), "after close", "new environment")


# --- making -----------------------------------------------------------------------------------------------


def test_unknown_ids_come_with_a_suggestion():
    refuses(NameNotFound, lambda: gym.make("kshot/PointGaol-v0"), "PointGaol", "Did you mean", "PointGoal")
    refuses(VersionNotFound, lambda: gym.make("kshot/PointGoal-v9"), "v9", "v0")
    refuses(KeyError, lambda: kshot.variant("PointGaol-v0"), "PointGaol-v0", "did you mean", "kshot/PointGoal-v0")
    refuses(KeyError, lambda: kshot.variant("Xyzzy"), "Xyzzy", "kshot list")
    refuses(AttributeError, lambda: kshot.Enviroment, "kshot", "Enviroment")


@pytest.mark.parametrize("make", [single, batch])
def test_unknown_settings_are_refused_by_name(make):
    refuses(ValueError, lambda: make("PointGoal", split="ood-fra"), "'ood-fra'", "train, val, test, ood-far")
    refuses(ValueError, lambda: make("PointGoal", render_mode="ansi"), "'ansi'", "human, rgb_array")
    for count in (0, -1, 1.5, "2"):
        refuses(ValueError, lambda c=count: make("PointGoal", episodes_per_task=c), repr(count), "whole number from 1")


@pytest.mark.parametrize("mode", ["later", "", 3, None])
def test_an_unknown_autoreset_mode_is_refused(mode):
    refuses(ValueError, lambda: batch("PointGoal", autoreset_mode=mode), repr(mode), "NEXT_STEP, SAME_STEP, DISABLED")


@pytest.mark.parametrize("name", ["PointGoal", "HalfCheetahVel"])
@pytest.mark.parametrize("n", [0, -2])
def test_no_rows_are_refused(name, n):
    refuses(ValueError, lambda: batch(name, n), f"kshot/{name}-v0", "at least one row", str(n))


@pytest.mark.parametrize("limit", [0, -2])
def test_a_time_limit_without_a_step_is_refused_as_by_gymnasium(limit):
    with pytest.raises(ValueError):
        gym.make("kshot/PointGoal-v0", max_episode_steps=limit)
    refuses(ValueError, lambda: batch("PointGoal", max_episode_steps=limit), "max_episode_steps", str(limit))


def test_a_state_of_another_size_is_refused():
    env, twin = begun("PointGoal", 2), begun("PointGoal", 2)
    refuses(ValueError, lambda: env.set_state(begun("PointGoal", 3).get_state()), "3 rows", "2")
    action = np.ones((2, 2))
    assert (env.step(action)[1] == twin.step(action)[1]).all()


# --- divergence -------------------------------------------------------------------------------------------

BODIES = ("HalfCheetahVel", "HalfCheetahVel-maml", "HalfCheetahDir-pearl", "AntDir", "AntDir-maml", "AntGoal-promp")
UNSOUND = (1e6, 1e9, 1e12, 1e200, INF, NAN)


def kick(env: Any, row: int, speed: float) -> None:
    """Give one simulation an absurd velocity, behind the engine's back."""
    state = env.engine.state
    env.engine.physics().reset(np.array([row]), state.qpos[row : row + 1], np.full_like(state.qvel[:1], speed))


def finite(x: Any) -> bool:
    """Tell whether a nest holds only finite numbers."""
    if isinstance(x, dict):
        return all(map(finite, x.values()))
    if isinstance(x, (tuple, list)) or (isinstance(x, np.ndarray) and x.dtype == object):
        return all(map(finite, x))
    return x is None or bool(np.isfinite(x).all())


def rows_equal(a: Any, b: Any, rows: list[int]) -> bool:
    """Tell whether rows of two steps are the same, bit for bit."""
    if isinstance(a, dict):
        return all(rows_equal(a[k], b[k], rows) for k in set(a) & set(b) if "final" not in k)
    return np.asarray(a)[rows].tobytes() == np.asarray(b)[rows].tobytes()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs divergences in the working directory


@pytest.mark.parametrize("speed", UNSOUND)
@pytest.mark.parametrize("name", BODIES)
def test_a_diverged_row_ends_alone(name, speed):
    env, twin = (begun(name, 3, autoreset_mode="DISABLED", threads=t) for t in (1, 2))
    actions = np.random.default_rng(0).uniform(-1, 1, (12, *env.action_space.shape)).astype(np.float32)
    for action in actions[:3]:
        env.step(action)
        twin.step(action)
    kick(env, 1, speed)
    before = env.engine.observe()[1]
    got, want = env.step(actions[3]), twin.step(actions[3])
    assert finite(got)
    assert got[4]["diverged"].tolist() == got[3].tolist() == [False, True, False]
    assert not got[2].any()
    assert all(rows_equal(a, b, [0, 2]) for a, b in zip(got, want, strict=True))
    if env.variant.body.readouts == ():
        assert (got[0][1] == before).all()  # the last sound state
    only = {"reset_mask": np.array([False, True, False])}
    assert rows_equal(env.reset(options=only)[0], twin.reset(options=only)[0], [0, 1, 2])
    for action in actions[4:]:  # nothing is left of it
        got, want = env.step(action), twin.step(action)
        assert all(rows_equal(a, b, [0, 1, 2]) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
@pytest.mark.parametrize("name", BODIES)
def test_a_diverged_row_restarts_by_itself(name, mode):
    env, twin = (begun(name, 3, autoreset_mode=mode, episodes_per_task=1) for _ in range(2))
    actions = np.random.default_rng(0).uniform(-1, 1, (8, *env.action_space.shape)).astype(np.float32)
    kick(env, 1, 1e11)
    seen = [(env.step(action), twin.step(action)) for action in actions]
    for got, want in seen:
        assert finite(got)
        assert all(rows_equal(a, b, [0, 2]) for a, b in zip(got, want, strict=True))
    first = seen[0][0]
    assert first[3].tolist() == [False, True, False]
    shown = first[4]["final_info"] if mode == "SAME_STEP" else first[4]
    assert shown["diverged"].tolist() == [False, True, False]
    assert not any(got[3].any() for got, _ in seen[1:])
    assert env.engine.episode.tolist() == [0, 1, 0]


@pytest.mark.parametrize("speed", [1e12, NAN])
def test_a_diverged_single_env_ends_and_starts_again(speed):
    env = begun("HalfCheetahVel")
    kick(env, 0, speed)
    obs, reward, terminated, truncated, info = env.step(np.zeros(6))
    assert finite([obs, reward])
    assert (terminated, truncated, info["diverged"]) == (False, True, True)
    refuses(ResetNeeded, lambda: env.step(np.zeros(6)), "after the end")
    env.reset()
    assert env.step(np.zeros(6))[4]["diverged"] is False


def test_kicks_of_all_sizes_never_show_a_number_that_is_not_finite():
    """Also those that MuJoCo lets pass for a few steps: with RK4 only the first stage of a step is checked."""
    for name in ("HalfCheetahVel-maml", "AntDir-maml", "AntGoal-promp"):
        env, rng = begun(name, 16, autoreset_mode="SAME_STEP"), np.random.default_rng(0)
        for _ in range(25):
            for row in np.flatnonzero(rng.uniform(size=16) < 0.3):
                kick(env, row, rng.choice([-1, 1]) * 10 ** rng.uniform(1, 6))
            assert finite(env.step(rng.uniform(-1, 1, env.action_space.shape)))


def test_a_divergence_leaves_no_log_and_no_noise(tmp_path):
    code = (
        "import gymnasium as gym, numpy as np, kshot\n"
        "env = gym.make_vec('kshot/HalfCheetahVel-v0', 3, threads=2); env.reset(seed=0)\n"
        "state = env.unwrapped.engine.state\n"
        "env.unwrapped.engine.physics().reset(np.array([1]), state.qpos[:1], np.full((1, 9), 1e12))\n"
        "print(env.step(np.zeros((3, 6), np.float32))[3])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert list(tmp_path.iterdir()) == []  # no MUJOCO_LOG.TXT
    assert (done.stdout, done.stderr) == ("[False  True False]\n", "")
