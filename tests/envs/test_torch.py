"""The torch face: the NumPy batch as float32 tensors on a device, to 1e-5 a step."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded

import kshot
from kshot.engine import ActionError
from kshot.tasks import TaskError

ALL = list(kshot.VARIANTS)
ANALYTIC = [id for id, v in kshot.VARIANTS.items() if v.body is None]
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, cuda])]
every_id = pytest.mark.parametrize("id", ALL)
SOME = [f"kshot/{name}-v0" for name in ("Bandit-k5n10", "TabularMDP-n10", "PointGoal-maml", "HalfCheetahVel", "AntDir")]


def numpy_batch(id: str, n: int, **kwargs: Any) -> Any:
    return gym.make_vec(id, n, autoreset_mode="SAME_STEP", **kwargs)


def actions_of(id: str, steps: int, n: int, seed: int = 0) -> np.ndarray:
    space, rng = kshot.VARIANTS[id].action_space, np.random.default_rng(seed)
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.n, size=(steps, n))
    return (1.2 * space.high * rng.uniform(-1, 1, (steps, n, *space.shape))).astype(np.float32)  # clipped


def close(tensor: torch.Tensor, x: np.ndarray, scale: float = 1.0) -> None:
    """Assert agreement to 1e-5, relative where numbers are large."""
    np.testing.assert_allclose(tensor.cpu().numpy(), x, rtol=1e-5 * scale, atol=1e-5 * scale)


def shown(infos: dict[str, Any], name: str) -> np.ndarray:
    """Return what a SAME_STEP batch shows of a step, also in the rows that it reset."""
    if "final_info" not in infos:
        return infos[name]
    last = infos["final_info"]
    return infos[name] + last[name] if infos[name].dtype != bool else infos[name] | last[name]


# --- agreement --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@every_id
def test_both_faces_agree_to_a_hundred_thousandth_a_step(id, device):
    n, variant = 3, kshot.VARIANTS[id]
    steps = 6 if variant.body is not None else min(variant.horizon, 60) + 3
    env, envs = numpy_batch(id, n), kshot.make_torch(id, n, device)
    obs, first = envs.reset(seed=5), env.reset(seed=5)
    close(obs, first[0])
    for name, x in first[1]["task"].items():
        if not name.startswith("_"):
            close(getattr(envs.task, name), x)
    for action in actions_of(id, steps, n):
        if variant.body is not None:  # chaos: start each step from the same state
            envs.engine.set_state(env.engine.get_state())
        got, want = envs.step(torch.from_numpy(action).to(device)), env.step(action)
        # A velocity is a difference of two float32 positions over dt.
        scale = 1.0 if variant.body is None else 2.0 / min(variant.dt, 1.0)
        close(got[0], want[0])
        close(got[1], want[1], scale)
        assert (got[2].tolist(), got[3].tolist()) == (want[2].tolist(), want[3].tolist())
        for name in (k for k in want[4] if k.startswith("reward_")):
            close(got[4][name], shown(want[4], name), scale)
        if "success" in want[4]:
            assert got[4]["success"].tolist() == shown(want[4], "success").tolist()
        for i in np.flatnonzero(want[2] | want[3]):
            close(got[4]["final_obs"][i], want[4]["final_obs"][i])


@pytest.mark.parametrize("device", DEVICES)
@every_id
def test_everything_is_a_float32_tensor_on_the_device(id, device):
    envs = kshot.make_torch(id, 2, device)

    def check(x: Any, dtype: torch.dtype, *shape: int) -> None:
        assert isinstance(x, torch.Tensor)
        assert (x.dtype, x.device.type, tuple(x.shape)) == (dtype, device, shape)

    size = kshot.VARIANTS[id].observation_space.shape[0]
    check(envs.reset(seed=0), torch.float32, 2, size)
    for x in envs.task:
        assert isinstance(x, torch.Tensor)
        assert (x.dtype, x.device.type, len(x)) == (torch.float32, device, 2)
    action = torch.from_numpy(actions_of(id, 1, 2)[0]).to(device)
    obs, reward, terminated, truncated, info = envs.step(action)
    check(obs, torch.float32, 2, size)
    check(reward, torch.float32, 2)
    check(terminated, torch.bool, 2)
    check(truncated, torch.bool, 2)
    for name, x in info.items():
        flag = name in ("success", "diverged")
        check(x, torch.bool if flag else torch.float32, 2, *(size,) * (name == "final_obs"))
    assert not any(x.requires_grad for x in (obs, reward))
    terms = sum(x for name, x in info.items() if name.startswith("reward_"))
    torch.testing.assert_close(reward, terms, rtol=1e-6, atol=1e-6)


@every_id
def test_functions_of_a_family_return_tensors_for_tensors(id):
    """np.cos of a CPU tensor works, and gives an array: every result must be a tensor."""
    variant = kshot.VARIANTS[id]
    family, c = variant.family, variant.constants
    envs = kshot.make_torch(id, 3)
    envs.reset(seed=0)
    before, task = envs.engine.state, envs.task
    action = torch.from_numpy(actions_of(id, 1, 3)[0])
    envs.step(action)
    after, results = envs.engine.state, {"observe": variant.observe(before)}
    results.update(family.reward_terms(before, action, after, task, c))
    if family.terminated is not None:
        results["terminated"] = family.terminated(after, task, c)
    if family.metrics is not None:
        results.update(family.metrics(before, after, task, c))
    if family.actuate is not None:
        results["actuate"] = family.actuate(action, task, c)
    if family.analytic is not None:
        u = torch.rand(3, max(1, family.analytic.initial_noise, family.analytic.noise))
        for name, state in (
            ("initial", family.analytic.initial(u, task, c)),
            ("transition", family.analytic.transition(before, action, u, task, c)),
        ):
            results.update({f"{name}.{k}": x for k, x in state._asdict().items()})
    for name, x in results.items():
        assert isinstance(x, torch.Tensor), name
        assert len(x) == 3, name
        assert x.dtype != torch.float64, name


@pytest.mark.parametrize("id", ANALYTIC)
def test_experts_act_on_tensors(id):
    variant = kshot.VARIANTS[id]
    if "TabularMDP" in id:
        pytest.skip("backward induction is written for NumPy")
    envs = kshot.make_torch(id, 3)
    envs.reset(seed=0)
    action = variant.family.expert(envs.task, variant.constants)(envs.engine.state, envs.engine.clock)
    assert isinstance(action, torch.Tensor)
    envs.step(action)


@pytest.mark.parametrize("id", SOME)
def test_a_row_does_not_depend_on_the_number_of_rows(id):
    few, many = kshot.make_torch(id, 2), kshot.make_torch(id, 5)
    close(few.reset(seed=3), many.reset(seed=3)[:2].numpy())
    for action in actions_of(id, 4, 5):
        a, b = few.step(torch.from_numpy(action[:2])), many.step(torch.from_numpy(action))
        close(a[1], b[1][:2].numpy(), 10.0)


# --- episodes and tasks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("id", ["kshot/PointGoal-v0", "kshot/Bandit-k5n10-v0", "kshot/TabularMDP-n10-v0"])
def test_rows_in_step_end_together_and_restart_at_once(id, device):
    variant, envs = kshot.VARIANTS[id], kshot.make_torch(id, 3, device, episodes_per_task=1)
    start = envs.reset(seed=0)
    tasks = [x.clone() for x in envs.task]
    for t in range(1, 2 * variant.horizon + 2):
        obs, _, terminated, truncated, info = envs.step(torch.from_numpy(actions_of(id, 1, 3, t)[0]).to(device))
        over = t % variant.horizon == 0
        assert (terminated if variant.horizon_terminates else truncated).tolist() == [over] * 3
        assert not (truncated if variant.horizon_terminates else terminated).any()
        assert not over or "final_obs" in info
        if over:
            torch.testing.assert_close(obs, start)
            assert (envs.engine.clock == 0).all()
            assert any((x != y).any() for x, y in zip(envs.task, tasks, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_rows_that_end_early_restart_alone(device):
    envs = kshot.make_torch("kshot/PointGoal-maml-v0", 3, device)
    envs.set_task({"goal": [[0.1, 0.0], [0.3, 0.0], [0.5, 0.5]]})
    envs.reset(seed=0)
    right = torch.tensor([[0.1, 0.0]] * 3, device=device)
    ends = []
    for _ in range(6):
        obs, _, terminated, truncated, info = envs.step(right)
        assert not truncated.any()
        ends.append(terminated.tolist())
        for i in terminated.nonzero()[:, 0].tolist():
            assert obs[i].tolist() == [0, 0]
            close(info["final_obs"][i], envs.task.goal[i].cpu().numpy(), 1000.0)  # within the tolerance of 0.01
    assert ends == [[True, False, False], [True, False, False], [True, True, False]] * 2
    assert envs.engine.episode.tolist() == [6, 2, 0]


@pytest.mark.parametrize("device", DEVICES)
def test_tasks_are_pinned_against_seeds_and_episodes(device):
    envs = kshot.make_torch("kshot/PointGoal-v0", 2, device, task={"goal": [0.5, 0.5]}, episodes_per_task=1)
    envs.reset(seed=0)
    assert envs.task.goal.tolist() == [[0.5, 0.5]] * 2
    envs.set_task({"goal": np.array([[0.25, 0.0], [0.0, -0.25]])})
    envs.reset(seed=1)
    for _ in range(45):
        reward = envs.step(torch.zeros(2, 2, device=device))[1]
    assert envs.task.goal.tolist() == [[0.25, 0.0], [0.0, -0.25]]
    close(reward, np.array([-0.25, -0.25]))


def test_tasks_are_restricted_and_drawn_as_in_numpy():
    pool = [{"goal": [0.25, 0.5]}, {"goal": [-0.5, 0.75]}]
    kwargs = {"tasks": pool, "episodes_per_task": 1, "split": "test"}
    env, envs = numpy_batch("kshot/PointGoal-v0", 8, **kwargs), kshot.make_torch("kshot/PointGoal-v0", 8, **kwargs)
    goals = env.reset(seed=0)[1]["task"]["goal"]
    envs.reset(seed=0)
    assert envs.task.goal.tolist() == goals.tolist()
    for _ in range(20):
        _, _, _, _, infos = env.step(np.zeros((8, 2)))
        envs.step(torch.zeros(8, 2))
    assert envs.task.goal.tolist() == infos["task"]["goal"].tolist() != goals.tolist()


def test_a_seed_repeats_and_no_seed_does_not():
    envs = kshot.make_torch("kshot/PointSparse-pb-v0", 4)
    first, later = envs.reset(seed=1), envs.reset()
    assert not torch.equal(first, later)  # the next episode
    assert torch.equal(envs.reset(seed=1), first)
    assert not torch.equal(kshot.make_torch("kshot/PointSparse-pb-v0", 4).reset(), envs.reset(seed=1))
    torch.manual_seed(0)
    assert torch.equal(envs.reset(seed=1), first)


@pytest.mark.parametrize("id", SOME)
def test_it_goes_on_from_its_state_as_it_did(id):
    envs = kshot.make_torch(id, 3, episodes_per_task=1)
    envs.reset(seed=0)
    actions = [torch.from_numpy(a) for a in actions_of(id, 25, 3)]

    def play(env: Any) -> list[torch.Tensor]:
        seen = []
        for action in actions[7:]:
            obs, reward, terminated, truncated, info = env.step(action)
            seen += [obs, reward, terminated, truncated, *(info[k] for k in sorted(info))]
        return [*seen, env.reset()]

    for action in actions[:7]:
        envs.step(action)
    state = envs.get_state()
    kept = copy.deepcopy(state)
    first = play(envs)
    for again in (envs, kshot.make_torch(id, 3, episodes_per_task=1)):
        again.set_state(state)
        for x, y in zip(play(again), first, strict=True):
            # A float32 copy of a body's state is exact where the engine keeps its own in float64.
            assert torch.equal(x, y)
    np.testing.assert_equal(state, kept)


@pytest.mark.parametrize("id", [*SOME, "kshot/PointGoal-v0", "kshot/AntDir-maml-v0"])
def test_writing_to_what_was_returned_changes_no_future(id):
    """`done = terminated; done |= truncated` is how loops are written: it must reach nothing but the caller's."""
    envs, twin = kshot.make_torch(id, 3), kshot.make_torch(id, 3)
    got, want = envs.reset(seed=0), twin.reset(seed=0)
    actions = actions_of(id, kshot.VARIANTS[id].horizon + 2 if "maml" not in id else 30, 3)
    for action in actions[:40]:
        for x in (got,) if isinstance(got, torch.Tensor) else (*got[:4], *got[4].values()):
            x.fill_(True if x.dtype == torch.bool else -7.0)
        given = torch.from_numpy(action.copy())
        got, want = envs.step(given), twin.step(torch.from_numpy(action))
        given.zero_()
        for x, y in zip(got[:4], want[:4], strict=True):
            assert torch.equal(x, y)
        assert all(torch.equal(got[4][k], want[4][k]) for k in want[4])


def test_what_was_returned_stays_as_it_was():
    for id in SOME:
        envs = kshot.make_torch(id, 3)
        kept = [(envs.reset(seed=0),)]
        copies = [(kept[0][0].clone(),)]
        for action in actions_of(id, 12, 3):
            obs, reward, terminated, truncated, info = envs.step(torch.from_numpy(action))
            kept.append((obs, reward, terminated, truncated, *info.values()))
            copies.append(tuple(x.clone() for x in kept[-1]))
        envs.reset(seed=1)
        for step, copied in zip(kept, copies, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(step, copied, strict=True)), id


# --- refusals ---------------------------------------------------------------------------------------------


def refuses(kind: Any, call: Any, *words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_bad_calls_are_refused():
    make, id = kshot.make_torch, "kshot/PointGoal-v0"
    fresh, envs = make(id, 3), make(id, 3)
    refuses(ResetNeeded, lambda: fresh.step(torch.zeros(3, 2)), id, "before reset", "reset()")
    envs.reset(seed=0)
    refuses(ActionError, lambda: envs.step(torch.zeros(2, 2)), id, "(2, 2)", "(3, 2)")
    refuses(ActionError, lambda: envs.step(torch.zeros(3)), id, "(3,)", "(3, 2)")
    refuses(TaskError, lambda: envs.set_task({"goal": [11, 0]}), id, "'goal'", "11", "[-10, 10]")
    refuses(TaskError, lambda: envs.set_task({"goal": np.zeros((2, 2))}), id, "(2, 2)", "(3, 2)")
    refuses(TaskError, lambda: make(id, 3, task={"gaol": [1, 0]}), "gaol", "goal is missing")
    refuses(ValueError, lambda: make(id, 3, split="ood-fra"), "'ood-fra'", "ood-far")
    refuses(ValueError, lambda: make(id, 3, episodes_per_task=0), "0", "whole number from 1")
    refuses(ValueError, lambda: make(id, 0), "at least one row", "0")
    refuses(KeyError, lambda: make("kshot/PointGaol-v0", 3), "PointGaol", "kshot/PointGoal-v0")
    refuses(ValueError, lambda: envs.set_state(make(id, 2).get_state()), "2 rows", "3")


def test_actions_that_are_no_tensors_are_refused():
    envs = kshot.make_torch("kshot/PointGoal-v0", 3)
    envs.reset(seed=0)
    refuses(ActionError, lambda: envs.step(np.zeros((3, 2))), "ndarray", "tensor")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_discrete_actions_are_whole_numbers(dtype):
    envs = kshot.make_torch("kshot/GridNav-v0", 3)
    envs.reset(seed=0)
    refuses(ActionError, lambda: envs.step(torch.zeros(3, dtype=dtype)), str(dtype), "whole numbers")


@pytest.mark.parametrize("action", [5, -1])
@pytest.mark.parametrize("id", ["kshot/GridNav-v0", "kshot/Bandit-k5n10-v0"])
def test_on_the_cpu_where_asking_is_free_actions_out_of_range_are_refused(id, action):
    envs = kshot.make_torch(id, 3)
    envs.reset(seed=0)
    refuses(ActionError, lambda: envs.step(torch.tensor([0, action, 0])), str(action), "0 … 4")


@pytest.mark.parametrize("id", ["kshot/PointGoal-v0", "kshot/HalfCheetahVel-v0"])
def test_on_the_cpu_where_asking_is_free_actions_that_are_not_finite_are_refused(id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs controls that are not finite
    envs = kshot.make_torch(id, 3)
    envs.reset(seed=0)
    action = torch.zeros(3, *envs.single_action_space.shape)
    action[1, 0] = torch.nan
    refuses(ActionError, lambda: envs.step(action), "NaN", "row 1")


def test_a_divergence_ends_its_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs divergences
    envs, twin = (kshot.make_torch("kshot/HalfCheetahVel-v0", 3) for _ in range(2))
    envs.reset(seed=0)
    twin.reset(seed=0)
    model = envs.engine.physics().model
    envs.engine.physics().reset(np.array([1]), np.zeros((1, model.nq)), np.full((1, model.nv), 1e12))
    for t in range(4):
        got, want = envs.step(torch.zeros(3, 6)), twin.step(torch.zeros(3, 6))
        assert all(torch.isfinite(x).all() for x in (*got[:2], *got[4].values()))
        assert got[4]["diverged"].tolist() == got[3].tolist() == [False, t == 0, False]
        assert not got[2].any()
        assert torch.equal(got[0][::2], want[0][::2])


# --- CUDA -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_sync() -> Iterator[None]:
    """Make every wait of the host for the device an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@cuda
@pytest.mark.parametrize("id", ANALYTIC)
def test_analytic_families_never_wait_for_the_device(id):
    envs = kshot.make_torch(id, 64, "cuda", episodes_per_task=2)
    envs.reset(seed=0)
    actions = torch.from_numpy(actions_of(id, 1, 64)[0]).cuda()
    envs.step(actions)  # the first call may compile and allocate
    torch.cuda.synchronize()
    with no_sync():
        for _ in range(min(envs.variant.horizon, 120) + 2):
            envs.step(actions)


@pytest.mark.cuda
@cuda
@pytest.mark.parametrize("id", [id for id in SOME if id in ANALYTIC])
def test_the_device_gives_what_the_cpu_gives(id):
    one, other = kshot.make_torch(id, 8, "cpu"), kshot.make_torch(id, 8, "cuda")
    close(other.reset(seed=0), one.reset(seed=0).numpy())
    for action in actions_of(id, 25, 8):
        a, b = one.step(torch.from_numpy(action)), other.step(torch.from_numpy(action).cuda())
        for x, y in zip(a[:2], b[:2], strict=True):
            close(y, x.numpy())
        assert a[2].tolist() == b[2].tolist()
    state = other.get_state()
    first = other.step(torch.from_numpy(action).cuda())[1]
    other.set_state(state)
    assert torch.equal(other.step(torch.from_numpy(action).cuda())[1], first)
