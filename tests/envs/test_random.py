"""The counter-based generator and the functions that must be equal on every machine."""

import math

import numpy as np
import pytest
import torch

from kshot import VARIANTS, random, tasks

# Known answers of Philox 4x32-10, as published with Random123 (kat_vectors).
KNOWN = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(
    "make", [lambda w: np.array([w], np.uint64), lambda w: torch.tensor([w])], ids=["numpy", "torch"]
)
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(make, counter, key, answer):
    block = random.philox(tuple(map(make, counter)), tuple(map(make, key)))
    assert tuple(int(word[0]) for word in block) == answer


def _streams(n=50):
    return random.row_seeds(3, n), np.arange(n) % 4, np.arange(n) * 7


def test_a_step_does_not_depend_on_how_many_are_drawn_at_once():
    seed, episode, step = _streams()
    together = random.uniform(seed, episode, step, 3, random.TRANSITION, steps=9)
    apart = np.stack([random.uniform(seed, episode, step + t, 3, random.TRANSITION) for t in range(9)], 1)
    assert (together == apart).all()


def test_a_row_does_not_depend_on_the_others():
    seed, episode, step = _streams()
    whole = random.uniform(seed, episode, step, 5, random.INITIAL_STATE)
    for i in (0, 17, 49):
        assert (
            whole[i] == random.uniform(seed[i : i + 1], episode[i : i + 1], step[i : i + 1], 5, random.INITIAL_STATE)
        ).all()


def test_torch_draws_the_same_numbers():
    seed, episode, step = _streams()
    expected = random.uniform(seed, episode, step, 6, random.TRANSITION, steps=4)
    got = random.uniform(
        torch.from_numpy(seed.astype(np.int64)),
        torch.from_numpy(episode),
        torch.from_numpy(step),
        6,
        random.TRANSITION,
        steps=4,
    )
    assert (got.numpy() == expected).all()
    u, v = expected[..., 0], expected[..., 1]
    normal = random.normal(torch.from_numpy(u), torch.from_numpy(v)).numpy()
    np.testing.assert_allclose(normal, random.normal(u, v), rtol=1e-14)  # torch's sqrt is not rounded exactly


def test_seed_episode_step_lane_and_purpose_all_matter():
    one, zero = np.ones(1, np.int64), np.zeros(1, np.int64)
    seed = random.row_seeds(0, 2)
    draws = [
        random.uniform(seed[:1], zero, zero, 4, random.TRANSITION),
        random.uniform(seed[1:], zero, zero, 4, random.TRANSITION),
        random.uniform(seed[:1], one, zero, 4, random.TRANSITION),
        random.uniform(seed[:1], zero, one, 4, random.TRANSITION),
        random.uniform(seed[:1], zero, zero, 4, random.INITIAL_STATE),
        random.uniform(seed[:1], zero, zero, 4, tasks.purpose(random.EPISODE_TASKS, "train")),
    ]
    assert len({x for draw in draws for x in draw.ravel().tolist()}) == 4 * len(draws)


def test_high_words_of_seed_and_step_matter():
    base = np.array([5], np.uint64)
    zero = np.zeros(1, np.int64)
    far = random.uniform(base + np.uint64(2**40), zero, zero, 2, random.TRANSITION)
    assert (far != random.uniform(base, zero, zero, 2, random.TRANSITION)).all()
    late = random.uniform(base, zero, zero + 2**34, 4, random.TRANSITION)
    assert (late != random.uniform(base, zero, zero, 4, random.TRANSITION)).all()


def test_uniforms_are_uniform():
    u = random.uniform(random.row_seeds(1, 20_000), np.zeros(20_000, int), np.zeros(20_000, int), 5, random.TRANSITION)
    assert u.min() > 0
    assert u.max() < 1
    # Mean 1/2 and variance 1/12 of 100,000 numbers, within five standard errors.
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / 1e5)
    assert abs(u.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / 1e5)
    assert abs(np.corrcoef(u.T)[np.triu_indices(5, 1)]).max() < 5 / math.sqrt(20_000)


def test_normals_are_normal():
    u = random.uniform(
        random.row_seeds(2, 100_000), np.zeros(100_000, int), np.zeros(100_000, int), 2, random.TRANSITION
    )
    z = random.normal(u[:, 0], u[:, 1])
    assert abs(z.mean()) < 5 / math.sqrt(1e5)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / 1e5)
    assert abs((z > 1.959964).mean() - 0.025) < 5 * math.sqrt(0.025 / 1e5)


def test_logarithm_and_waves_are_accurate():
    x = np.concatenate(
        [np.random.default_rng(0).uniform(0, 1, 10_000), [2.0**-33, 1 - 2.0**-33, 1.0, 3.7, 1e-300, 1e300]]
    )
    np.testing.assert_allclose(random.log(x), np.log(x), rtol=4e-16, atol=2e-16)
    turn = np.linspace(0, 1, 10_001)
    np.testing.assert_allclose(random.cos_turn(turn), np.cos(2 * np.pi * turn), atol=1e-15)
    np.testing.assert_allclose(random.sin_turn(turn), np.sin(2 * np.pi * turn), atol=1e-15)


LOGARITHMS = ["-0x1.26bb1bbb55515p+1", "-0x1.62e42fefa39efp+0", "-0x1.193ea7aad030ap+0", "-0x1.af8e8210a415bp-4"]
COSINES = ["0x1.9e3779b97f4a8p-1", "-0x0.0p+0", "-0x1.ffffffffffffdp-2", "0x1.9e3779b97f4a8p-1"]


def test_logarithm_and_waves_are_those_of_every_machine():
    # Their bits, as first computed; only a change of the formulas may change them.
    u = np.array([0.1, 0.25, 1 / 3, 0.9])
    assert [x.hex() for x in random.log(u)] == LOGARITHMS
    assert [x.hex() for x in random.cos_turn(u)] == COSINES


def test_neighbouring_run_seeds_share_no_row_seed():
    rows = [set(random.row_seeds(seed, 1000).tolist()) for seed in range(5)]
    assert len(set.union(*rows)) == 5000


def test_streams_of_all_splits_are_apart():
    for variant in VARIANTS.values():
        words = [
            tasks.purpose(use, split) for split in variant.splits for use in (random.FROZEN_TASKS, random.EPISODE_TASKS)
        ]
        assert len(set(words)) == len(words), variant.id
        assert not {random.INITIAL_STATE, random.TRANSITION} & set(words)
