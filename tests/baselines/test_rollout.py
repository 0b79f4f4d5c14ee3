"""Sampling: what a policy sees of a stream of trials, and what a rollout holds of it."""

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from dataclasses import replace  # noqa: E402

import kshot  # noqa: E402
from kshot import random  # noqa: E402
from kshot.wrappers import VectorTaskInObservation, VectorTrial  # noqa: E402
from kshot_baselines import multitask, rl2  # noqa: E402
from kshot_baselines.rollout import Stream, collect, folded, input_size  # noqa: E402

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, cuda])]
ROWS = 12


def stream_of(id, episodes, device="cpu", **shown):
    envs = kshot.make_torch(id, ROWS, device, episodes_per_task=episodes)
    stream = Stream(envs, episodes, **shown)
    stream.begin(3)
    return stream


def model_of(id, **settings):
    torch.manual_seed(0)
    model = rl2.network(kshot.variant(id), replace(rl2.Config(memory=8), **settings))
    for p in model.parameters():  # no biases of 0, with which a memory of nothing stays one
        p.data += 0.2 * torch.randn_like(p)
    return model


def actions_of(id, steps):
    space = kshot.variant(id).action_space
    space.seed(1)
    return np.array([[space.sample() for _ in range(ROWS)] for _ in range(steps)])


@pytest.mark.parametrize(("id", "episodes"), [("PointSparse-v0", 3), ("GridNav-v0", 2), ("PointGoal-maml-v0", 2)])
def test_a_stream_shows_what_the_trial_wrapper_shows(id, episodes, monkeypatch):
    monkeypatch.setattr(random, "row_seeds", lambda seed, n: random.gymnasium_row_seeds(range(seed, seed + n)))
    v, stream = kshot.variant(id), stream_of(id, episodes)
    envs = VectorTrial(gym.make_vec(v.id, num_envs=ROWS, autoreset_mode="same_step"), episodes)
    observation, _ = envs.reset(seed=3)
    np.testing.assert_allclose(stream.x, observation, atol=1e-5)
    begun = 0
    for action in actions_of(id, v.horizon * episodes + 5):
        observation, reward, terminated, truncated, _ = envs.step(action)
        step = stream.step(torch.from_numpy(action))
        np.testing.assert_allclose(stream.x, observation, atol=1e-4)
        np.testing.assert_allclose(step.reward, reward, atol=1e-5)
        np.testing.assert_array_equal(stream.start, terminated | truncated)
        begun += int(stream.start.sum())
    assert begun == ROWS  # each row has begun another trial
    assert stream.x.shape[1] == input_size(v)


def test_a_stream_that_sees_the_task_shows_that_of_the_step_at_an_episodes_end():
    v = kshot.variant("PointGoal-v0")
    stream = stream_of(v.id, 1, tail=False, sees_task=True)
    envs = VectorTaskInObservation(gym.make_vec(v.id, num_envs=ROWS, autoreset_mode="same_step"))
    assert stream.x.shape[1] == envs.single_observation_space.shape[0] == input_size(v, tail=False, sees_task=True)
    for action in actions_of(v.id, v.horizon):
        task = torch.cat([stream.env.task.goal], -1).clone()
        step = stream.step(torch.from_numpy(action))
    torch.testing.assert_close(step.final[:, -2:], task)
    torch.testing.assert_close(stream.x[:, -2:], stream.env.task.goal)
    assert not torch.allclose(stream.x[:, -2:], task)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("id", "settings"),
    [
        ("Bandit-k5n10-v0", {}),
        ("GridNav-v0", {"truncate": 15, "shared": False}),
        ("PointSparse-v0", {"truncate": 10}),
        ("PointGoal-maml-v0", {"truncate": 20}),  # rows end when they like
    ],
)
def test_log_probabilities_at_the_update_are_those_at_sampling(id, settings, device):
    v, model = kshot.variant(id), model_of(id, **settings).to(device)
    stream = stream_of(id, v.trial, device)
    memory = model.initial_memory(ROWS)
    length = settings.get("truncate", v.horizon * v.trial)
    for _ in range(2):  # the second time, memories go on from the first
        r, memory = collect(stream, model, memory, v.horizon * v.trial, length, over_trial=True)
    out = model.unroll(folded(r.input_t, length), folded(r.start_t, length), r.memory_t.flatten(0, 1))
    found = out.policy.log_prob(folded(r.action_t, length))
    torch.testing.assert_close(found, folded(r.log_prob_t, length), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.value, folded(r.value_t, length), rtol=1e-4, atol=1e-5)


def test_memories_go_on_over_the_episodes_of_a_trial_and_not_over_trials():
    v, model = kshot.variant("GridNav-v0"), model_of("GridNav-v0")
    stream, seen = stream_of(v.id, 2), []
    step = model.step

    def spy(x, memory):
        seen.append(memory.abs().sum(-1))
        return step(x, memory)

    model.step = spy
    collect(stream, model, model.initial_memory(ROWS), 4 * v.horizon, over_trial=True)
    empty = [t for t, m in enumerate(seen[:-1]) if (m == 0).all()]
    assert empty == [0, 2 * v.horizon]


def test_value_follows_an_inner_episode_and_nothing_a_trial():
    v, model = kshot.variant("PointSparse-v0"), model_of("PointSparse-v0")
    r, _ = collect(stream_of(v.id, 2), model, model.initial_memory(ROWS), 2 * v.horizon, over_trial=True)
    ends = (r.follows_tp1[:, 0] == 0).nonzero().flatten().tolist()
    assert ends == [2 * v.horizon - 1]
    assert torch.equal(r.follows_tp1, r.continues_tp1)
    torch.testing.assert_close(r.value_tp1[:-1], r.value_t[1:])
    assert r.done_tp1[:, 0].nonzero().flatten().tolist() == [v.horizon - 1, 2 * v.horizon - 1]


def test_the_value_after_a_time_limit_is_of_the_last_state_and_after_termination_nothing_follows():
    """PointGoal-maml terminates near the goal; its horizon is a time limit."""
    v = kshot.variant("PointGoal-maml-v0")
    torch.manual_seed(0)
    model = multitask.network(v, multitask.Config(hidden=(8,), log_std=-5.0))  # small steps, near the start
    envs = kshot.make_torch(v.id, ROWS, task={"goal": [0.0, 0.02]}, episodes_per_task=1)
    stream, finals = Stream(envs, 1, tail=False), []
    step = stream.step

    def spy(action):
        found = step(action)
        finals.append(found)
        return found

    stream.step = spy
    stream.begin(0)
    r, _ = collect(stream, model, model.initial_memory(ROWS), 2 * v.horizon, length=1)
    assert (r.done_tp1 != (r.follows_tp1 == 0)).any()  # time limits
    assert (r.follows_tp1 == 0).any()  # terminations
    assert torch.equal(r.continues_tp1 == 0, r.done_tp1)
    for t, found in enumerate(finals):
        if found.done.any():
            value = model.step(found.final, r.memory_t[t])[0].value
            torch.testing.assert_close(r.value_tp1[t][found.done], value[found.done])
            assert not torch.allclose(r.value_tp1[t][found.done], r.value_t[min(t + 1, len(finals) - 1)][found.done])


def test_a_rollout_that_cannot_be_cut_into_sequences_is_refused():
    v, model = kshot.variant("GridNav-v0"), model_of("GridNav-v0")
    with pytest.raises(ValueError, match=r"60 steps cannot be cut into sequences of 7; take a divisor"):
        collect(stream_of(v.id, 4), model, model.initial_memory(ROWS), 60, 7)


@pytest.mark.cuda
@cuda
def test_no_rollout_of_an_analytic_family_asks_the_device_for_a_value():
    model, stream = model_of("PointSparse-v0").cuda(), stream_of("PointSparse-v0", 2, "cuda")
    collect(stream, model, model.initial_memory(ROWS), 20, over_trial=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        collect(stream, model, model.initial_memory(ROWS), 60, over_trial=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
