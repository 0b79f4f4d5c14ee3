"""Episodes of many tasks: what is masked, how advantages come about, how steps are laid out."""

import numpy as np
import pytest

import kshot
from kshot import random, tasks

torch = pytest.importorskip("torch")
from kshot.torch_env import TorchEnv  # noqa: E402
from kshot_baselines import episodes, policies  # noqa: E402
from kshot_baselines.episodes import Episodes  # noqa: E402

TASKS, EPISODES = 3, 4
# Ends within 0.1 m of the goal, so that even a random walk sometimes does; 100 steps else.
ENDING = "PointGoal-esmaml-v0"
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def sampled(name=ENDING, device="cpu", seed=0):
    torch.manual_seed(seed)
    v = kshot.variant(name)
    env = TorchEnv(v.id, TASKS * EPISODES, device)
    goals = tasks.sample(v, "train", TASKS, seed)
    env.set_task(tasks.take(goals, np.repeat(np.arange(TASKS), EPISODES)))
    shape = policies.shape_of(v, (8,), "tanh")
    params = [policies.initial(shape) for _ in range(TASKS)]
    params = {k: torch.stack([one[k] for one in params]).to(device) for k in params[0]}
    to_env = policies.action_map(v.action_space, env.device)
    return v, shape, params, goals, env, to_env


@pytest.mark.parametrize("device", DEVICES)
def test_steps_after_an_end_are_masked_and_the_others_follow_from_the_actions(device):
    v, shape, params, goals, env, to_env = sampled(device=device)
    goals = goals._replace(goal=0.2 * goals.goal)  # near
    env.set_task(tasks.take(goals, np.repeat(np.arange(TASKS), EPISODES)))
    e = episodes.sample(env, shape, params, EPISODES, to_env, random.row_seeds(0, TASKS * EPISODES))
    e = Episodes(*(x.cpu() for x in e))
    assert e.observation_t.shape == (v.horizon, TASKS, EPISODES, 2)
    length = e.mask_t.sum(0)
    assert 1 <= length.min() < v.horizon  # some end early, and some not at once
    assert (length == v.horizon).any()
    for task in range(TASKS):
        goal = torch.tensor(goals.goal[task], dtype=torch.float32)
        for k in range(EPISODES):
            n = int(length[task, k])
            assert (e.mask_t[:n, task, k] == 1).all()
            assert (e.continues_tp1[: n - 1, task, k] == 1).all()
            assert (e.continues_tp1[n - 1 :, task, k] == 0).all()
            assert (e.reward_tp1[n:, task, k] == 0).all()
            position = torch.zeros(2)
            for t in range(n):
                torch.testing.assert_close(e.observation_t[t, task, k], position)
                position = (position + (0.1 * e.action_t[t, task, k]).clip(-0.1, 0.1)).clip(-1, 1)
                assert float(e.reward_tp1[t, task, k]) == pytest.approx(
                    -float((position - goal).square().sum()), rel=1e-4, abs=1e-6
                )
            assert (n == v.horizon) or float((position - goal).norm()) <= 0.1 + 1e-6


def test_what_the_policy_said_is_kept():
    _, shape, params, _, env, to_env = sampled()
    e = episodes.sample(env, shape, params, EPISODES, to_env, random.row_seeds(0, TASKS * EPISODES))
    b = episodes.batch(e, 0.99, 1.0)
    again = policies.outputs(shape, params, b.observation)
    torch.testing.assert_close(b.old.y, again.y)
    torch.testing.assert_close(b.old.log_std, again.log_std)


def test_row_seeds_and_torchs_generator_fix_the_episodes():
    def run(seed):
        _, shape, params, _, env, to_env = sampled("PointGoal-pearl-v0", seed=seed)
        first = episodes.sample(env, shape, params, EPISODES, to_env, random.row_seeds(seed, TASKS * EPISODES))
        return first, episodes.sample(env, shape, params, EPISODES, to_env)

    (first, second), (again, _), (other, _) = run(0), run(0), run(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for different in (second, other):  # the next episodes have starts of their own
        assert not torch.equal(first.observation_t[0], different.observation_t[0])
    assert len({tuple(x.tolist()) for x in first.observation_t[0].flatten(0, 1)}) == TASKS * EPISODES


def by_hand():
    """Two tasks of two episodes of three steps; the second episode of the first task ends after two."""
    reward = torch.tensor([[[1.0, 2.0], [0.0, 1.0]], [[2.0, 4.0], [1.0, 0.0]], [[3.0, 0.0], [1.0, 1.0]]])
    mask = torch.ones(3, 2, 2)
    mask[2, 0, 1] = 0
    continues = torch.cat([mask[1:], torch.zeros(1, 2, 2)])
    observation = torch.arange(24.0).reshape(3, 2, 2, 2) / 10
    action = torch.arange(12).reshape(3, 2, 2)
    return Episodes(observation, torch.randn(3, 2, 2, 5), torch.empty(2, 0), action, reward, mask, continues)


def test_advantages_are_returns_less_values_standardised_over_each_tasks_steps(monkeypatch):
    monkeypatch.setattr(episodes, "fitted_values", lambda observation, returns, mask: torch.ones_like(returns))
    found = episodes.advantages(by_hand(), 0.5, 1.0)
    # Returns 1 + (2 + 3/2)/2 = 2.75, 3.5, 3 and 2 + 4/2 = 4, 4, less 1 each, of the first task.
    raw = np.array([1.75, 2.5, 2.0, 3.0, 3.0])
    expected = (raw - raw.mean()) / raw.std()
    np.testing.assert_allclose(found[:, 0, 0], expected[:3], rtol=1e-5)
    np.testing.assert_allclose(found[:2, 0, 1], expected[3:], rtol=1e-5)
    assert found[2, 0, 1] == 0


def test_lambda_is_used_and_nothing_follows_the_end(monkeypatch):
    monkeypatch.setattr(episodes, "fitted_values", lambda observation, returns, mask: torch.ones_like(returns))
    found = episodes.advantages(by_hand(), 0.5, 0.0)
    # δ = r + 1/2 − 1 where the episode goes on, r − 1 where it ends.
    raw = np.array([0.5, 1.5, 2.0, 1.5, 3.0])
    expected = (raw - raw.mean()) / raw.std()
    np.testing.assert_allclose(found[:, 0, 0], expected[:3], rtol=1e-5)
    np.testing.assert_allclose(found[:2, 0, 1], expected[3:], rtol=1e-5)


def test_the_value_is_fitted_to_discounted_returns():
    seen = {}

    def fit(observation, returns, mask):
        seen.update(returns=returns, mask=mask)
        return torch.zeros_like(returns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(episodes, "fitted_values", fit)
        episodes.advantages(by_hand(), 0.5, 1.0)
    np.testing.assert_allclose(seen["returns"][:, 0], [[2.75, 4.0], [3.5, 4.0], [3.0, 0.0]])
    assert seen["mask"][2, 0, 1] == 0


def test_equal_rewards_have_no_advantage_and_no_nan():
    e = by_hand()
    found = episodes.advantages(e._replace(reward_tp1=torch.zeros_like(e.reward_tp1)), 0.99, 1.0)
    assert (found == 0).all()


def test_a_batch_has_a_tasks_episodes_one_after_the_other():
    e = by_hand()
    b = episodes.batch(e, 0.5, 1.0)
    assert b.episode == 3
    assert b.action.tolist() == [[0, 4, 8, 1, 5, 9], [2, 6, 10, 3, 7, 11]]
    torch.testing.assert_close(b.observation[1, 4], e.observation_t[1, 1, 1])
    torch.testing.assert_close(b.old.y[1, 4], e.y_t[1, 1, 1])
    np.testing.assert_allclose(b.weight, [[0.2] * 5 + [0.0], [1 / 6] * 6])
    torch.testing.assert_close(b.advantage[0, :3], episodes.advantages(e, 0.5, 1.0)[:, 0, 0])
