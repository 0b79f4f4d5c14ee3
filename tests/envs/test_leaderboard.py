"""The leaderboard: its numbers by hand, what it refuses, running a result again, and its pictures."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

import kshot
from kshot import leaderboard, page, plots, tasks, verification
from kshot.agents import Memoryless
from kshot.agents.policy import Header, save_policy
from kshot.results import AgentCard, Result, ResultError

POINT, BANDIT, MDP, CHEETAH = (
    "kshot/PointGoal-v0",
    "kshot/Bandit-k5n10-v0",
    "kshot/TabularMDP-n10-v0",
    "HalfCheetahVel-v0",
)
TASKS, EPISODES = 4, 3


@pytest.fixture(scope="module")
def base():
    return kshot.evaluate("random", POINT, episodes=EPISODES, num_tasks=TASKS)


@pytest.fixture
def make(base):
    """Return a result of chosen returns: a number for all, a number an episode, or the whole table."""

    def result(returns, name="mine", seed=0, result=base, round=1, privileged=False, first_update=0, **config):
        n = result.tasks.n
        table = np.broadcast_to(
            np.asarray(returns, float), (n, np.shape(returns)[-1] if np.ndim(returns) else EPISODES)
        )
        card = AgentCard(name=name, round=round, privileged=privileged, first_update=first_update, config=config)
        lengths = np.full(table.shape, 5)
        changes = {"agent": card, "seed": seed, "returns": table.tolist(), "episodes": table.shape[1], "within": None}
        changes |= {"lengths": lengths.tolist(), "steps": int(lengths.sum()), "command": f"train {name}"}
        return result.model_copy(update=changes | {"successes": None})

    return result


@pytest.fixture
def references(make):
    return [make(-10, "random"), make(0, "expert", privileged=True)]


def _row(results, name="mine", split="test"):
    (row,) = [r for r in leaderboard.rows(results) if r.agent.name == name and r.split == split]
    return row


def _saved(result, path):
    result.save(path)
    return path


# Numbers


def test_scores_by_hand(make, references):
    # Three seeds of -8, -6, -2 an episode, the third 6 better: 12 cells, of which the IQM drops 3 at either end.
    mine = [make(np.array([-8.0, -6, -2]) + plus, seed=seed, lr=1) for seed, plus in enumerate((0, 0, 6))]
    row = _row([*mine, *references])
    assert row.seeds == (0, 1, 2)
    assert row.tasks == TASKS
    for budget, score in ((0, -8), (1, -6), (2, -2)):
        cell = row.cells[budget]
        assert cell.mean.value == pytest.approx(score + 2)
        assert cell.iqm.value == pytest.approx(score + 1)
        assert cell.normalised == pytest.approx((score + 2 + 10) / 10)
        assert cell.mean.low < cell.mean.value < cell.mean.high
    assert row.cells[20] == row.cells[40] == ""


def test_no_scale_without_both_references_or_a_gap(make, references):
    mine, (random, oracle) = make(-5), references
    for beside in ([], [random], [oracle], [random, make(-10, "expert", privileged=True)]):
        assert _row([mine, *beside]).cells[0].normalised is None
    low = make(-20, "gait", privileged=True)
    assert _row([mine, random, oracle, low]).cells[0].normalised == pytest.approx(0.5)  # the best oracle is the ceiling


def test_rounds_and_trials(make):
    row = _row([make([1.0, 3, 10, 20], round=2)])
    assert [row.cells[b].mean.value for b in (0, 1, 2)] == [2, 2, 15]
    trials = kshot.evaluate("psrl", MDP, episodes=25, num_tasks=3)
    scores = leaderboard.scores([trials], 0)
    np.testing.assert_allclose(scores[0], np.array(trials.returns)[:, :10].sum(1))
    assert trials.units().shape == (3, 2)
    assert leaderboard.scores([trials], 20) == ""


def test_scores_are_those_of_results(make):
    rng = np.random.default_rng(0)
    trials = kshot.evaluate("random", MDP, episodes=60, num_tasks=3)
    results = [make(rng.normal(size=(TASKS, 6)), round=size) for size in (1, 2, 3)]
    results += [make(rng.normal(size=(3, 60)), round=size, result=trials) for size in (1, 5, 10, 20)]
    for result in results:
        for budget in (0, 1, 2, 4):
            assert leaderboard.scores([result], budget).mean() == pytest.approx(result.score(budget))


def test_budgets_before_the_first_update_are_no_score(make):
    late, never = _row([make(-5, first_update=2)]), _row([make(-5, first_update=None)])
    assert [isinstance(late.cells[b], leaderboard.Cell) for b in (0, 1, 2)] == [True, False, True]
    assert (late.cells[1], never.cells[1], never.cells[40]) == ("n/a",) * 3
    assert "| n/a |" in page.markdown([make(-5, first_update=None)])


def test_one_agent_is_one_row_whatever_differs_between_its_runs(make):
    runs = [make(-5, seed=s, lr=1, checkpoint=f"{s}", checkpoint_sha256=f"{s}", training_steps=7 + s) for s in range(3)]
    row = _row(runs)
    assert (row.seeds, row.training_steps, row.provisional) == ((0, 1, 2), 9, False)
    assert len(leaderboard.rows([*runs, make(-5, seed=3, lr=2)])) == 2


def test_provisional(make):
    three = [make(-5, seed=s, checkpoint_sha256=str(s)) for s in range(3)]
    assert _row(three[:2]).provisional
    assert not _row(three).provisional
    assert _row([make(-5, seed=s, checkpoint_sha256="same") for s in range(3)]).provisional  # one training run
    assert _row([make(-5, seed=s) for s in range(3)]).provisional  # maybe one
    assert _row([make(-5, training_steps=0)]).provisional
    assert not _row([make(-5, "random")], "random").provisional
    assert _row([make(-5, "random", training_steps=9)], "random").provisional


def test_an_oracle_that_is_beaten_is_not_converged(make, references):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(TASKS, EPISODES))
    rivals = {gain: [make(gain + noise / 100, seed=s) for s in range(3)] for gain in (-1.0, 1.0)}
    assert not _row([*rivals[-1.0], *references], "expert").not_converged
    assert _row([*rivals[1.0], *references], "expert").not_converged
    unsure = [make(np.array([[9.0], [-8], [9], [-8]]) + np.zeros(EPISODES), seed=s) for s in range(3)]
    assert not _row([*unsure, *references], "expert").not_converged  # above on average, by chance
    assert not _row([*rivals[1.0], *references]).not_converged  # a competitor never is


# The page


def test_page(make, references):
    results = [*(make([-8.0, -6, -2], seed=s) for s in range(2)), make(-9.0, "other", lr=3), *references]
    text = page.markdown(results)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0] == "| # | agent | test, after 0 episodes | test, after 2 episodes | seeds | training steps |"
    note = f"*first {TASKS} tasks*"
    assert lines[2:] == [
        f"| 1 | `expert`, *sees the task*, {note} | 0.00 [0.00, 0.00] (1.00) | 0.00 [0.00, 0.00] (1.00) | 1 | – |",
        f"| 2 | `mine`, *provisional*, {note} | -8.00 [-8.00, -8.00] (0.20) | -2.00 [-2.00, -2.00] (0.80) | 2 | – |",
        f"| 3 | `other`, *provisional*, {note} | -9.00 [-9.00, -9.00] (0.10) | -9.00 [-9.00, -9.00] (0.10) | 1 | – |",
        f"| 4 | `random`, {note} | -10.00 [-10.00, -10.00] (0.00) | -10.00 [-10.00, -10.00] (0.00) | 1 | – |",
    ]
    assert "2. `mine`: `train mine`, and seeds 1\n3. `other`, `lr = 3`: `train other`\n" in text
    assert text == page.markdown(results[::-1])


def test_rows_are_ranked_by_the_last_budget_shown(make):
    rows = [make([-9.0, -8, -7], "long"), make([-1.0], "short"), make([-9.0, -8, -6], "better")]
    lines = [line for line in page.markdown(rows).splitlines() if line.startswith("| ")]
    assert [name in line for name, line in zip(("better", "long", "short"), lines[2:], strict=True)] == [True] * 3


def test_rows_of_trials_are_ranked_by_the_first(make):
    """Most agents have no more than one."""
    bandits = {n: kshot.evaluate("random", "Bandit-k5n10-v0", episodes=n, num_tasks=4) for n in (1, 21)}
    rows = [make(5.0, "once", result=bandits[1]), make([4.0, *[9.0] * 20], "often", result=bandits[21])]
    lines = [line for line in page.markdown(rows).splitlines() if line.startswith("| ")]
    assert "test, after 20 trials" in lines[0]
    assert [name in line for name, line in zip(("once", "often"), lines[2:], strict=True)] == [True] * 2


def test_the_scale_is_that_of_the_tasks_scored(make, references):
    """References of more tasks count by those that were scored, references of fewer not at all."""
    fewer, mine = kshot.evaluate("random", POINT, episodes=EPISODES, num_tasks=2), make(-5)
    halves = {"returns": [[-5.0] * EPISODES] * 2 + [[0.0] * EPISODES] * 2}
    random = make(-5, "random").model_copy(update=halves)
    oracle = make(0, "expert", privileged=True)
    rows = leaderboard.rows([make(-2.5, result=fewer), make(-2.5, "whole"), random, oracle])
    found = {row.agent.name: row.cells[0].normalised for row in rows}
    assert found["mine"] == pytest.approx(0.5)  # random: -5 on these two
    assert found["whole"] == pytest.approx(0.0)  # and -2.5 on all four
    short = make(-10, "random", result=fewer), make(0, "expert", privileged=True, result=fewer)
    assert _row([mine, *short]).cells[0].normalised is None


def test_a_part_of_a_finite_set_is_a_sample():
    assert not leaderboard.is_sample("kshot/GridNav-v0", "test", 21)
    assert leaderboard.is_sample("kshot/GridNav-v0", "test", 5)
    result = kshot.evaluate("random", "GridNav-v0", num_tasks=5)
    assert not np.isnan(leaderboard.rows([result])[0].cells[0].mean.low)
    assert verification.verify(result, fresh_seed=1).fresh == "same"


def test_adapting_or_not_makes_two_agents(make):
    one, other = make(-5), make(-5, seed=1)
    level = other.model_copy(update={"agent": other.agent.model_copy(update={"adapts": False})})
    assert len(leaderboard.rows([one, level])) == 2


def test_less_than_a_trial_is_no_score():
    short, *others = (
        kshot.evaluate(a, MDP, num_tasks=3, episodes=n) for a, n in (("expert", 5), ("psrl", 10), ("random", 10))
    )
    text = page.markdown([short, *others])
    assert "nan" not in text
    assert all(row.cells[0] == "" or row.cells[0].normalised is None for row in leaderboard.rows([short, *others]))


def test_page_without_results():
    text = page.markdown([])
    assert text.startswith(page.INTRO)
    assert "No results yet." in text


def test_a_complete_finite_set_of_one_seed_has_no_interval():
    result = kshot.evaluate("expert", "GridNav-v0", episodes=1)
    text = page.markdown([result])
    assert f"| `expert`, *sees the task* | {result.score():.2f} | 1 |" in text


def test_a_strangers_text_cannot_break_the_page(make):
    text = page.markdown([make(-5, "a|b`<script># c", note="`|\n# c" + "x" * 500)])
    assert r"`a\|b'<script># c`" in text
    assert "\n# c" not in text
    assert max(map(len, text.splitlines())) < 600


# What is refused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"variant": "kshot/PointGoal-v7"}, "another version of kshot"),
        ({"variant": "PointGoal-v0"}, "expected 'kshot/PointGoal-v0'"),
        ({"split": "ood-none"}, "no split 'ood-none'"),
        ({"tasks": {"n": TASKS, "sha256": "0" * 64}}, "another frozen set"),
        ({"steps": 1}, "sum to steps"),
        ({"lengths": [[21] * EPISODES] * TASKS, "steps": 21 * EPISODES * TASKS}, "lengths must be 1 to 20"),
        ({"format": 2}, "format 2"),
        ({"returns": [[1.0]]}, "returns must be"),
        ({"returns": [[1e13] * EPISODES] * TASKS}, r"returns\.0\.0: .* less than or equal to"),
        ({"within": [1.0] * 20}, "within must be null"),
        ({"diverged": 99}, "diverged is 99"),
        ({"agent": {"name": "x", "round": 2, "privileged": False}}, "whole rounds of 2"),
        ({"agent": {"name": "", "round": 1, "privileged": False}}, r"agent\.name"),
        ({"agent": {"name": " ", "round": 1, "privileged": False}}, "printable"),
        ({"agent": {"name": "a\nb", "round": 1, "privileged": False}}, "printable"),
        ({"agent": {"name": "x" * 81, "round": 1, "privileged": False}}, r"agent\.name"),
    ],
)
def test_foreign_results(base, tmp_path, change, reason):
    data = json.loads(base.model_dump_json()) | change
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "bad.json").write_text(json.dumps(data))
    with pytest.raises(ResultError, match=reason) as caught:
        leaderboard.load_all(tmp_path)
    assert "bad.json" in str(caught.value)
    with pytest.raises(ResultError, match=r"bad\.json"):
        leaderboard.submit(tmp_path / "deep" / "bad.json", tmp_path / "place", reference=True)
    assert not (tmp_path / "place").exists()


def test_a_bandits_curve_has_a_number_a_step(tmp_path):
    result = kshot.evaluate("constant", BANDIT, num_tasks=4)
    for within, fits in ((result.within, True), (None, True), ([1.0], False)):
        path = _saved(result.model_copy(update={"within": within}), tmp_path / "x.json")
        if fits:
            assert leaderboard.load(path).within == within
        else:
            with pytest.raises(ResultError, match=r"x\.json: within has 1 numbers; expected 10"):
                leaderboard.load(path)


def test_damaged_files_and_folders(base, tmp_path):
    with pytest.raises(ResultError, match="not a folder"):
        leaderboard.load_all(tmp_path / "none")
    assert leaderboard.load_all(tmp_path) == []
    text = base.model_dump_json()
    for damaged in (text[: len(text) // 2], "", "[]", "null"):
        (tmp_path / "half.json").write_text(damaged)
        with pytest.raises(ResultError, match=r"half\.json"):
            leaderboard.load_all(tmp_path)


def test_a_seed_that_is_there_twice(make, tmp_path):
    _saved(make(-5), tmp_path / "a.json")
    _saved(make(-6, seed=1), tmp_path / "b.json")
    assert len(leaderboard.load_all(tmp_path)) == 2
    _saved(make(-6), tmp_path / "c.json")
    with pytest.raises(ResultError, match=r"c\.json and .*a\.json are the same"):
        leaderboard.load_all(tmp_path)


def test_submit(make, tmp_path):
    path, place = tmp_path / "x.json", tmp_path / "results"
    mine = _saved(make(-5, "my agent/3", seed=2), path)
    put = leaderboard.submit(mine, place)
    assert put == place / "my-agent-3" / "PointGoal-v0-test-seed2.json"
    assert put.read_text() == path.read_text()
    again = make(-5, "my agent/3", seed=2).model_copy(update={"created": "later", "seconds": 99.0})
    before = put.read_bytes()
    assert leaderboard.submit(_saved(again, path), place) == put
    assert put.read_bytes() == before
    with pytest.raises(ResultError, match="another result"):
        leaderboard.submit(_saved(make(-4, "my agent/3", seed=2), path), place)
    assert put.read_bytes() == before
    assert [p.name for p in put.parent.iterdir()] == [put.name]
    assert leaderboard.load_all(place) == [Result.load(put)]


def test_submit_stays_in_its_folder(make, tmp_path):
    put = leaderboard.submit(_saved(make(-5, "../../etc/x"), tmp_path / "x.json"), tmp_path / "results")
    assert put.parent.parent == tmp_path / "results"
    assert ".." not in put.parent.name.split("-")[0]
    with pytest.raises(ResultError, match="no letter or digit"):
        leaderboard.submit(_saved(make(-5, "../.."), tmp_path / "x.json"), tmp_path / "results")


def test_names_that_share_a_folder(make, tmp_path):
    place = tmp_path / "results"
    leaderboard.submit(_saved(make(-5, "a b"), tmp_path / "x.json"), place)
    for name in ("a-b", "a/b", "A b"):
        with pytest.raises(ResultError, match="would share the folder"):
            leaderboard.submit(_saved(make(-5, name, seed=7), tmp_path / "x.json"), place)
    assert leaderboard.submit(_saved(make(-5, "a b", seed=7), tmp_path / "x.json"), place).exists()


def _policy(path, size=1, name="mine", **config):
    rng, widths = np.random.default_rng(0), [2, *[size, size] * (size > 1), 2]
    tensors = {f"{i}.weight": rng.normal(size=(b, a)) for i, (a, b) in enumerate(itertools.pairwise(widths))}
    tensors |= {f"{i}.bias": rng.normal(size=b) for i, b in enumerate(widths[1:])}
    header = Header(name=name, variant=POINT, activation="tanh", output="action", training_steps=9, config=config)
    save_policy(path, header, tensors)
    return path


def test_weights_are_submitted_or_missed(tmp_path):
    weights = _policy(tmp_path / "p.safetensors", lr=1)
    result = kshot.evaluate(weights, POINT, episodes=1, num_tasks=3)
    path, place = _saved(result, tmp_path / "x.json"), tmp_path / "results"
    (tmp_path / "a.safetensors").mkdir()  # no file
    put = leaderboard.submit(path, place)
    assert leaderboard.checkpoint(result, put.parent).read_bytes() == weights.read_bytes()
    weights.unlink()
    assert leaderboard.submit(path, place) == put  # there already
    with pytest.raises(ResultError, match="put the file beside the result"):
        leaderboard.submit(path, tmp_path / "new")
    _policy(weights, size=400)
    assert weights.stat().st_size > leaderboard.MAX_CHECKPOINT
    big = result.agent.config | {"checkpoint_sha256": leaderboard.sha256_of(weights)}
    card = result.agent.model_copy(update={"config": big})
    with pytest.raises(ResultError, match="smaller network"):
        leaderboard.submit(_saved(result.model_copy(update={"agent": card}), path), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_config_that_is_not_the_policy_files(tmp_path):
    result = kshot.evaluate(_policy(tmp_path / "p.safetensors", lr=1), POINT, episodes=1, num_tasks=3)
    (tmp_path / "p.safetensors").rename(tmp_path / "renamed.safetensors")
    path = tmp_path / "x.json"
    for change in ({"lr": 2}, {"training_steps": 0}, {"more": None}):
        card = result.agent.model_copy(update={"config": result.agent.config | change})
        _saved(result.model_copy(update={"agent": card}), path)
        with pytest.raises(ResultError, match=f"config '{next(iter(change))}'"):
            leaderboard.submit(path, tmp_path / "results")
        verdict = verification.verify(path)
        assert verdict.again == "differs"
        assert f"agent.config '{next(iter(change))}'" in verdict.detail
    assert verification.verify(_saved(result, path)).again == "bit for bit"
    assert leaderboard.submit(path, tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("name", "privileged"),
    [
        ("mine", True),
        *[
            (name, False)
            for name in ("random", "constant", "gittins", "oracle", "Oracle", "psrl-prior0", "psrl/prior0")
        ],
    ],
)
def test_references_are_no_competitors(make, tmp_path, name, privileged):
    path = _saved(make(-5, name, privileged=privileged), tmp_path / "x.json")
    with pytest.raises(ResultError, match="no competitor"):
        leaderboard.submit(path, tmp_path / "results")
    assert leaderboard.submit(path, tmp_path / "results", reference=True).exists()


# Running again


class Cheat(Memoryless):
    """Has the goals of the frozen tasks by heart, and in which order they come."""

    name = "cheat"

    def reset(self, n):
        goals = tasks.frozen(kshot.variant(POINT), "test").goal[:n]
        self._goals = goals[np.random.default_rng(0).permutation(n)]

    def act(self, observation):
        return (self._goals - observation) / 0.1


def still(observation):
    return np.zeros((len(observation), 2), np.float32)


def test_verify_says_same(base, tmp_path):
    done = []
    verdict = verification.verify(_saved(base, tmp_path / "x.json"), progress=done.append)
    assert (verdict.again, verdict.fresh, verdict.ok) == ("bit for bit", "same", True)
    assert done == sorted(done)
    assert done[-1] == 1
    assert "fresh tasks: same" in str(verdict)


def test_verify_a_users_own_agent(tmp_path, monkeypatch):
    (tmp_path / "their_agent.py").write_text("def still(x):\n    return 0 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = kshot.evaluate("their_agent:still", POINT, episodes=1, num_tasks=30)
    assert verification.verify(result, "their_agent:still").ok
    with pytest.raises(ValueError, match="does not ship with kshot"):
        verification.verify(result)
    with pytest.raises(ValueError, match="the agent is 'random'"):
        verification.verify(result, "random")


def test_verify_imports_nothing_that_a_file_names(make):
    with pytest.raises(ValueError, match="does not ship with kshot"):
        verification.verify(make(-5, "this:d"))
    assert "this" not in sys.modules


def test_verify_says_differs(base):
    returns = np.array(base.returns)
    returns[2, 1] += 1e-12  # exact for analytic families
    verdict = verification.verify(base.model_copy(update={"returns": returns.tolist()}))
    assert (verdict.again, verdict.ok) == ("differs", False)
    assert "task 2, episode 1" in verdict.detail
    assert verification.verify(base.model_copy(update={"returns": returns.tolist()}), tolerance=0.01).ok
    lengths = [[n - 1 for n in row] for row in base.lengths]
    assert verification.verify(base.model_copy(update={"lengths": lengths})).again == "differs"


def test_verify_finds_an_oracle_in_disguise():
    result = kshot.evaluate("expert", POINT, episodes=1, num_tasks=5)
    card = result.agent.model_copy(update={"privileged": False})
    verdict = verification.verify(result.model_copy(update={"agent": card}))
    assert verdict.again == "differs"
    assert "privileged was False, now True" in verdict.detail


def test_verify_tolerates_another_processor_with_mujoco_only():
    result = kshot.evaluate("random", CHEETAH, episodes=1, num_tasks=6)
    returns = np.array(result.returns)
    near, far = (result.model_copy(update={"returns": (returns + off).tolist()}) for off in (1e-7, 9e3))
    assert verification.verify(near).again == "within tolerance"
    assert verification.verify(far).again == "differs"
    assert verification.verify(near, tolerance=1e-15).again == "differs"


def _altered(result, **changes):
    return result.model_copy(update={k: np.asarray(x).tolist() for k, x in changes.items()})


def test_verify_compares_every_return_of_a_policy_file(tmp_path):
    result = kshot.evaluate(_policy(tmp_path / "p.safetensors"), POINT, episodes=2, num_tasks=20)
    returns = np.array(result.returns)
    order = np.random.default_rng(0).permutation(20)

    def again(**changes):
        path = _saved(_altered(result, **changes), tmp_path / "x.json")
        return verification.verify(path, fresh_seed=1).again

    assert again(returns=returns + 1e-6 * np.abs(returns).max()) == "within tolerance"
    raised = returns + 2.9 * returns.std(ddof=1) / 20**0.5
    for forged in (raised, returns[order], returns + 3e-5 * np.abs(returns).max()):
        assert again(returns=forged) == "differs"
    lengths = np.array(result.lengths)
    lengths[0, 0] -= 1
    assert again(lengths=lengths, steps=lengths.sum()) == "differs"


def test_verify_compares_successes_and_curves():
    sparse = kshot.evaluate(still, "PointSparse-v0", episodes=1, num_tasks=20)
    forged = _altered(sparse, successes=np.logical_not(sparse.successes))
    assert "successes" in verification.verify(forged, still).detail
    bandit = kshot.evaluate("constant", BANDIT, num_tasks=20)
    assert "step " in verification.verify(_altered(bandit, within=np.array(bandit.within) + 0.1)).detail


def _again(old, new):
    return verification._compare_runs(old, new, "ships", None)[0]


def test_on_mujoco_tasks_are_compared_in_pairs():
    new = kshot.evaluate("random", CHEETAH, episodes=1, num_tasks=12)
    rng, n, k = np.random.default_rng(0), 12, 10
    level = rng.normal(-300, 60, (n, 1))
    table, lengths = level + rng.normal(0, 5, (n, k)), np.full((n, k), 200)
    new = _altered(new, returns=table, lengths=lengths).model_copy(update={"episodes": k})
    chaos = np.where(rng.random((n, k)) < 0.2, level + rng.normal(0, 5, (n, k)), table)
    assert _again(_altered(new, returns=chaos), new) == "within tolerance"
    assert _again(_altered(new, returns=level + rng.normal(0, 5, (n, k))), new) == "within tolerance"
    spread = level.std(ddof=1) / n**0.5
    for forged in (
        table + 2.9 * spread,  # within the errors of unpaired means
        table[rng.permutation(n)],
        np.broadcast_to(table.mean(), (n, k)),
        table + np.where(np.arange(n)[:, None] < 2, 900, 0),  # which widens the paired errors
    ):
        assert _again(_altered(new, returns=forged), new) == "differs"
    assert _again(_altered(new, returns=chaos, lengths=lengths - 1), new) == "differs"


def test_on_mujoco_noise_is_no_disagreement():
    # Two runs of a body so chaotic that they share nothing but their law, on tasks that hardly matter.
    base = kshot.evaluate("random", CHEETAH, episodes=1, num_tasks=40)
    rng, size = np.random.default_rng(0), (40, 10)
    base = _altered(base, lengths=np.full(size, 200)).model_copy(update={"episodes": 10})
    runs = [_altered(base, returns=rng.normal(-50, 40, size)) for _ in range(200)]
    found = [_again(*pair) for pair in zip(runs[::2], runs[1::2], strict=True)]
    assert found.count("differs") <= 3  # 1 % and a little


class Memoriser(Cheat):
    """Has the tasks of the next seed by heart as well."""

    def __init__(self):
        self._runs = 0

    def reset(self, n):
        super().reset(n)
        if self._runs:
            self._goals = tasks.sample(kshot.variant(POINT), "test", n, 1).goal
        self._runs += 1


def test_nobody_knows_the_fresh_tasks():
    result = kshot.evaluate(Memoriser(), POINT, episodes=1, num_tasks=40)
    agent, other = Memoriser(), Memoriser()
    assert verification.verify(result, agent).fresh == "differs"
    assert verification.verify(result, other, fresh_seed=1).fresh == "same"
    seeds = {verification.verify(result, Memoriser()).fresh_detail.split(":")[0] for _ in range(2)}
    assert len(seeds) == 2


def test_a_fresh_seed_repeats_a_verdict(base):
    first = verification.verify(base)
    seed = int(first.fresh_detail.split(":")[0].removeprefix("seed "))
    assert verification.verify(base, fresh_seed=seed) == first
    for bad in (0, -1, 2**63):
        with pytest.raises(ValueError, match="fresh_seed"):
            verification.verify(base, fresh_seed=bad)


def test_verify_finds_an_agent_fitted_to_the_frozen_tasks():
    verdict = verification.verify(kshot.evaluate(Cheat(), POINT, episodes=1, num_tasks=40), Cheat())
    assert (verdict.again, verdict.fresh, verdict.ok) == ("bit for bit", "differs", False)


def test_an_honest_agent_differs_from_two_draws_one_time_in_a_thousand():
    result = kshot.evaluate(still, POINT, episodes=1, num_tasks=20)
    found = [verification.verify(result, still, fresh_seed=1 + 10 * s) for s in range(300)]
    once = [verdict for verdict in found if verdict.fresh_detail.count("seed") == 2]
    assert once  # one draw differs where two do not
    assert sum(verdict.fresh == "differs" for verdict in found) < len(once)
    assert len({verdict.fresh_detail for verdict in found}) == 300  # each draws tasks of its own


def test_a_finite_law_has_no_fresh_tasks():
    verdict = verification.verify(kshot.evaluate("expert", "GridNav-v0", episodes=1))
    assert (verdict.fresh, verdict.ok) == ("not drawn", True)


# Pictures


@pytest.fixture
def two_splits(make, references):
    other = kshot.evaluate("random", POINT, split="ood-far", episodes=EPISODES, num_tasks=TASKS)
    mine = [
        make(np.array([-8.0, -6, -2]) - 2 * (where is other), seed=seed, result=where)
        for seed in range(3)
        for where in (references[0], other)
    ]
    far = [make(-12, "random", result=other), make(-1, "expert", result=other, privileged=True)]
    return [*mine, make(-7, "$lone_", first_update=None), make([-9.0, -3, -8, -1], "maml", round=2), *references, *far]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_pictures(two_splits, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    written = plots.draw_all(two_splits, tmp_path / "new", suffix=suffix)
    names = ["PointGoal-v0-ood-far-adaptation", "PointGoal-v0-test-adaptation", "PointGoal-v0-gaps", "aggregate-test"]
    assert [p.name for p in written] == [name + suffix for name in names]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in written)
    before = [p.read_bytes() for p in written]
    assert all(len(data) > 3_000 and data.startswith((b"\x89PNG", b"<?xml")) for data in before)
    assert [p.read_bytes() for p in plots.draw_all(two_splits, tmp_path / "new", suffix=suffix)] == before


def test_pictures_show_what_was_scored(two_splits, tmp_path):
    pytest.importorskip("matplotlib")
    text = plots.aggregate(two_splits, tmp_path / "a.svg").read_text()
    assert ">0.80<" in text  # -2 between -10 and 0
    assert "IQM over 1 variant<" in text
    assert "random<" not in text  # references are the ends of the scale
    curves = plots.adaptation_curves(two_splits, tmp_path / "c.svg", variant=POINT).read_text()
    assert all(f">{name}<" in curves for name in ("mine", "maml", "random", "expert (sees the task)"))


def test_an_agent_is_numbered_where_one_variant_has_several_of_its_configs(make, references, tmp_path):
    """A method's settings differ between variants: that makes it no other agent."""
    pytest.importorskip("matplotlib")
    other = "kshot/PointGoal-pearl-v0"

    def there(result):
        return result.model_copy(update={"variant": other})

    one = [*references, *map(there, references), make(-5, lr=1), there(make(-1, lr=2))]
    text = plots.aggregate(one, tmp_path / "one.svg").read_text()
    assert ">0.70<" in text  # the mean of 0.5 and 0.9
    assert "mine #2<" not in text
    two = [*one, make(-9, lr=2), there(make(-3, lr=1))]
    for variant in (POINT, other):
        text = plots.adaptation_curves(two, tmp_path / "two.svg", variant=variant).read_text()
        assert all(f">{name}<" in text for name in ("mine", "mine #2"))
        assert ">mine #3<" not in text


def test_bandits_show_the_curve_within_the_trial(tmp_path):
    pytest.importorskip("matplotlib")
    results = [kshot.evaluate("constant", BANDIT, num_tasks=20, seed=s) for s in range(3)]
    text = plots.adaptation_curves(results, tmp_path / "b.svg", variant=BANDIT).read_text()
    assert "pulls already spent in the trial" in text


def test_pictures_that_cannot_be_drawn(two_splits, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        plots.aggregate(two_splits, tmp_path / "a.pdf")
    with pytest.raises(ValueError, match="no results of"):
        plots.adaptation_curves(two_splits, tmp_path / "a.png", variant=BANDIT)
    with pytest.raises(ValueError, match="no results of"):
        plots.gaps(two_splits, tmp_path / "a.png", variant=BANDIT)
    with pytest.raises(ValueError, match="normalised"):
        plots.aggregate(two_splits[:1], tmp_path / "a.png")
    assert plots.draw_all([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_matplotlib_is_named_where_it_is_missing(two_splits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"kshot\[plots\]"):
        plots.aggregate(two_splits, tmp_path / "a.png")


def test_matplotlib_is_imported_late():
    code = "import sys, kshot.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
