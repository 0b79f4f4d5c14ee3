"""Files of training: what a checkpoint holds comes back, what is none is refused, a state is exact."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load as tensors_of  # noqa: E402
from safetensors.torch import save as bytes_of  # noqa: E402

import kshot  # noqa: E402
from kshot import leaderboard, verification  # noqa: E402
from kshot.agents import make_agent  # noqa: E402
from kshot.agents import policy as policy_files  # noqa: E402
from kshot.agents.policy import PolicyError  # noqa: E402
from kshot_baselines import checkpoint, methods  # noqa: E402

V = kshot.variant("PointGoal-v0")
WEIGHTS = {"weight": torch.tensor([[-0.5, 0.1, 0.3], [0.2, -0.4, -0.6]])}


def header(toy, **changes):
    made = checkpoint.header_of(
        "toy", V, toy.Config(scale=0.25, hidden=(8, 4)), 3, training_steps=640, command="kshot train toy", device="cpu",
        seconds=1.5, curve=[(0, -20.0), (640, -15.5)], metrics=[{}, {"return": -16.0}],
    )  # fmt: skip
    return made.model_copy(update=changes)


def written(toy, path, weights=None, **changes):
    path.write_bytes(checkpoint.encode(header(toy, **changes), weights or WEIGHTS))
    return path


def with_header(path, edit):
    """Rewrite the header of a checkpoint as anybody could."""
    data = path.read_bytes()
    text = json.loads(policy_files.metadata_of(data)[checkpoint.KEY])
    edit(text)
    path.write_bytes(bytes_of(tensors_of(data), {checkpoint.KEY: json.dumps(text)}))
    return path


def test_a_checkpoint_comes_back_as_it_was_written(toy, tmp_path):
    path = written(toy, tmp_path / "a.safetensors")
    found = checkpoint.load(path)
    assert found.header == header(toy)
    assert found.header.curve == [(0, -20.0), (640, -15.5)]
    assert found.config == toy.Config(scale=0.25, hidden=(8, 4))
    assert torch.equal(found.weights["weight"], WEIGHTS["weight"])
    assert found.sha256 == leaderboard.sha256_of(path)
    assert set(found.header.versions) >= {"kshot", "torch", "numpy"}
    assert checkpoint.encode(header(toy), WEIGHTS) == path.read_bytes()


def test_weights_of_any_layout_are_written(toy, tmp_path):
    shared = torch.arange(6.0).reshape(3, 2)
    path = written(toy, tmp_path / "a.safetensors", {"weight": shared.T, "again": shared, "part": shared[:, 0]})
    found = checkpoint.load(path).weights
    assert found["weight"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert found["part"].tolist() == [0, 2, 4]


def test_the_suite_runs_a_checkpoint_as_the_agent_that_training_had(toy, tmp_path):
    path = written(toy, tmp_path / "a.safetensors")
    ours = kshot.evaluate(toy.agent(V, toy.Config(), WEIGHTS, 7), V.id, num_tasks=20, seed=7)
    theirs = kshot.evaluate(path, V.id, num_tasks=20, seed=7)
    assert theirs.returns == ours.returns
    assert theirs.agent.name == "toy"
    assert theirs.agent.config == {
        "steps": 20_000, "rows": 16, "scale": 0.25, "normal": True, "hidden": [8, 4], "outer": "climb", "fail_at": -1,
        "pause": 0.0, "seed": 3, "training_steps": 640, "checkpoint": "a.safetensors",
        "checkpoint_sha256": leaderboard.sha256_of(path),
    }  # fmt: skip


def test_a_preset_has_its_own_name(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(methods.PRESETS, "toy-wide", ("toy", {"hidden": [64]}))
    agent = make_agent(str(written(toy, tmp_path / "a.safetensors", method="toy-wide")), V)
    assert agent.name == "toy-wide"


def test_another_variant_is_named_or_refused(toy, tmp_path):
    path = written(toy, tmp_path / "a.safetensors")
    assert make_agent(path, kshot.variant("PointGoal-pearl-v0")).config["trained_on"] == V.id
    with pytest.raises(PolicyError, match=r"'toy', trained on kshot/PointGoal-v0, does not fit kshot/HalfCheetahVel"):
        make_agent(path, kshot.variant("HalfCheetahVel-v0"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h: h.update(format=2), "format"),
        (lambda h: h.update(method="sorcery"), "no method 'sorcery'; expected one of rl2, maml"),
        (lambda h: h.update(more=1), "more: Extra inputs"),
        (lambda h: h.update(seed="3"), "seed: Input should be a valid integer"),
        (lambda h: h.update(curve=[[0, math.nan]]), "curve"),
        (lambda h: h["config"].update(momentum=0.9), "no setting 'momentum'; expected one of steps, rows"),
        (lambda h: h["config"].update(rows=16.5), "rows is 16.5; expected a whole number"),
        (lambda h: h["config"].update(hidden=["a"]), r"hidden is \['a'\]; expected whole numbers"),
        (lambda h: h.pop("command"), "command: Field required"),
    ],
)
def test_a_header_that_this_version_does_not_know_is_refused(toy, tmp_path, edit, message):
    path = with_header(written(toy, tmp_path / "a.safetensors"), edit)
    with pytest.raises(PolicyError, match=message) as caught:
        make_agent(str(path), V)
    assert "a.safetensors" in str(caught.value)


def test_a_field_that_is_younger_than_the_file_has_its_default_and_is_not_recorded(toy, tmp_path):
    path = with_header(written(toy, tmp_path / "a.safetensors"), lambda h: h["config"].pop("outer"))
    assert checkpoint.load(path).config.outer == "climb"
    assert "outer" not in make_agent(path, V).config


def test_damaged_and_foreign_files_are_refused(toy, tmp_path, monkeypatch):
    path = written(toy, tmp_path / "a.safetensors")
    data = path.read_bytes()
    for cut in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(PolicyError, match="not a safetensors file, or is damaged"):
            checkpoint.load(path)
    path.write_bytes(bytes_of(WEIGHTS, {"other": "1"}))
    with pytest.raises(PolicyError, match="no metadata 'kshot_baselines'"):
        checkpoint.load(path)
    path.write_bytes(bytes_of(WEIGHTS, {checkpoint.KEY: "no json"}))
    with pytest.raises(PolicyError, match="no header that this kshot reads"):
        checkpoint.load(path)
    torch.save(WEIGHTS, path)
    with pytest.raises(PolicyError, match="not a safetensors file"):
        checkpoint.load(path)
    with pytest.raises(PolicyError, match="cannot read"):
        checkpoint.load(tmp_path / "none.safetensors")
    path.write_bytes(data)
    monkeypatch.setattr(policy_files, "MAX_BYTES", len(data) - 1)
    with pytest.raises(PolicyError, match="has at most"):
        checkpoint.load(path)


def test_weights_that_are_no_numbers_or_of_another_network_are_refused(toy, tmp_path):
    bad = {"weight": WEIGHTS["weight"].clone().index_fill(1, torch.tensor([1]), math.inf)}
    with pytest.raises(PolicyError, match="weight holds NaN or infinity"):
        checkpoint.load(written(toy, tmp_path / "a.safetensors", bad))
    with pytest.raises(PolicyError, match="does not fit kshot/PointGoal-v0: 'weight'"):
        make_agent(written(toy, tmp_path / "b.safetensors", {"bias": torch.zeros(2)}), V)


def test_a_checkpoint_takes_no_settings(toy, tmp_path):
    with pytest.raises(ValueError, match="takes no settings"):
        make_agent(str(written(toy, tmp_path / "a.safetensors")), V, scale=1)


def test_without_the_baselines_the_error_names_the_extra(toy, tmp_path, monkeypatch):
    path = written(toy, tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, "kshot_baselines.checkpoint", None)  # as where torch is missing
    with pytest.raises(ImportError, match=r"pip install 'kshot\[baselines\]'"):
        make_agent(path, V)


def test_a_policy_file_needs_no_torch(tmp_path):
    path = tmp_path / "a.safetensors"
    net = {"0.weight": np.zeros((2, 2)), "0.bias": np.zeros(2)}
    told = policy_files.Header(name="mine", variant=V.id, activation="tanh", output="action", training_steps=0)
    policy_files.save_policy(path, told, net)
    code = (
        "import sys, kshot; from kshot.agents import make_agent; "
        f"assert make_agent({str(path)!r}, kshot.variant('PointGoal-v0')).name == 'mine'; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def scored(toy, tmp_path):
    """Return the path of a result whose checkpoint lies beside it."""
    (tmp_path / "toy").mkdir()
    path = written(toy, tmp_path / "toy" / "a.safetensors")
    result = kshot.evaluate(path, V.id, num_tasks=100, seed=3)
    result.save(tmp_path / "toy" / leaderboard.file_name(result))
    return tmp_path / "toy" / leaderboard.file_name(result)


def edited(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def test_verify_runs_the_checkpoint_beside_a_result(scored):
    verdict = verification.verify(scored, fresh_seed=1)
    assert verdict.again == "bit for bit"
    assert verdict.ok


def tipped(tasks):
    def change(data):
        for row in data["returns"][:tasks]:
            row[0] -= 1.0

    return change


@pytest.mark.parametrize(("tasks", "outcome"), [(1, "within tolerance"), (2, "differs")])
def test_verify_allows_few_tasks_that_went_another_way(scored, tasks, outcome):
    """Of 100 tasks 1 % is one."""
    verdict = verification.verify(edited(scored, tipped(tasks)), fresh_seed=1)
    assert verdict.again == outcome
    assert f"{tasks} of 100 tasks" in verdict.detail


@pytest.mark.parametrize(
    ("first", "by", "differs"),
    [(4, 0.5, False), (3, 0.5, True), (4, 6.0, True)],
    ids=["late and without a mean", "before the second update", "late and large"],
)
def test_verify_compares_a_learner_after_its_second_update_as_chaotic_bodies(toy, first, by, differs):
    """Half of the tasks are off, in turn up and down, from an episode on; the agent updates after every second."""
    new = kshot.evaluate("random", V.id, num_tasks=100, episodes=12)
    new = new.model_copy(update={"agent": new.agent.model_copy(update={"round": 2, "first_update": 2})})
    returns = np.array(new.returns)
    off = returns.copy()
    off[:50, first:] += by * np.where(np.arange(50) % 2, 1, -1)[:, None]
    old = new.model_copy(update={"returns": off.tolist()})
    assert verification._by_number(old, new, "checkpoint", None)[0] is differs
    assert verification._by_number(old, new, "checkpoint", 1e-4)[0] is True  # a tolerance holds for every episode
    still = new.model_copy(update={"agent": new.agent.model_copy(update={"round": 1, "first_update": 0})})
    assert verification._by_number(old.model_copy(update={"agent": still.agent}), still, "checkpoint", None)[0] is True


def test_verify_sees_lengths_that_differ(scored):
    def change(data):
        data["lengths"] = [[19] * 4] * 3 + [[20] * 4] * 97
        data["steps"] -= 3 * 4

    assert verification.verify(edited(scored, change), fresh_seed=1).again == "differs"


def test_verify_compares_what_a_bandit_earns_within_a_trial(toy):
    v = kshot.variant("Bandit-k5n10-v0")
    old = kshot.evaluate("random", v.id, num_tasks=200)
    far = old.model_copy(update={"within": [x + 0.1 for x in old.within]})
    assert verification._by_most_tasks(old, old, 1e-4)[0] is False
    assert verification._by_most_tasks(far, old, 1e-4)[0] is True


def test_verify_compares_the_config_with_the_checkpoint(scored):
    def change(data):
        data["agent"]["config"]["scale"] = 0.5

    verdict = verification.verify(edited(scored, change), fresh_seed=1)
    assert verdict.again == "differs"
    assert "'scale' was 0.5, now 0.25" in verdict.detail


def test_submit_takes_the_checkpoint_along_and_compares_the_config(scored, tmp_path):
    placed = leaderboard.submit(scored, tmp_path / "board")
    assert placed == tmp_path / "board" / "toy" / "PointGoal-v0-test-seed3.json"
    sha = leaderboard.sha256_of(scored.parent / "a.safetensors")
    assert (placed.parent / f"{sha[:12]}.safetensors").read_bytes() == (scored.parent / "a.safetensors").read_bytes()
    assert verification.verify(placed, fresh_seed=1).ok

    def change(data):
        data["agent"]["config"]["training_steps"] = 1

    with pytest.raises(ValueError, match=r"config 'training_steps' is 1; in the policy file .* it is 640"):
        leaderboard.submit(edited(scored, change), tmp_path / "other")


STATE = {
    "float32": torch.tensor([1.0, -0.0, math.nan, math.inf]),
    "float64": np.array([[0.1, 1e300]]),
    "uint64": np.array([2**64 - 1, 0], np.uint64),
    "random": torch.arange(5, dtype=torch.uint8),
    "bfloat16": torch.ones(3, dtype=torch.bfloat16),
    "bool": np.array([True, False]),
    "empty": np.empty((0, 3), np.float32),
    "zero-dimensional": torch.tensor(3),
    "scalar": np.float32(0.1),
    "turned": torch.arange(6).reshape(2, 3).T,
    "big": 2**100,
    "tiny": 5e-324,
    "nan": math.nan,
    "none": None,
    "true": True,
    "text": "a/b ✓",
    "alike": {0: torch.zeros(1), "0": torch.ones(1), "a/b": torch.ones(2), "a": {"b": torch.zeros(2)}},
    "nest": {"a": {}, "b": [], 0: (0.9, 0.999), "0": [{"x": None}]},
}


def same(a, b):
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))
    if isinstance(a, (np.ndarray, np.generic)):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and (a == b or (a != a and b != b))


def bits(x):
    return x.contiguous().reshape(-1).view(torch.uint8)


def test_a_state_comes_back_exactly(tmp_path):
    checkpoint.save_state(tmp_path / "s.safetensors", STATE)
    found = checkpoint.load_state(tmp_path / "s.safetensors")
    assert list(found) == list(STATE)
    for name in STATE:
        assert same(STATE[name], found[name]), name
    assert not same(STATE, {**STATE, "tiny": 0.0})


def test_a_generator_goes_on_from_its_state(tmp_path):
    torch.manual_seed(0)
    torch.randn(3)
    checkpoint.save_state(tmp_path / "s.safetensors", {"random": torch.get_rng_state()})
    expected = torch.randn(5)
    torch.set_rng_state(checkpoint.load_state(tmp_path / "s.safetensors")["random"])
    assert torch.equal(torch.randn(5), expected)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [({1, 2}, "deep/0 is of type set"), (np.array(["a"]), "deep/0 is an array of <U1"), (Path("x"), "PosixPath")],
)
def test_what_is_no_state_is_refused_by_name_and_the_old_file_stays(tmp_path, leaf, message):
    path = tmp_path / "s.safetensors"
    checkpoint.save_state(path, {"a": 1})
    with pytest.raises(TypeError, match=message):
        checkpoint.save_state(path, {"deep": [leaf]})
    assert checkpoint.load_state(path) == {"a": 1}


def test_a_state_that_is_damaged_or_foreign_is_refused(toy, tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(PolicyError, match="cannot read a state"):
        checkpoint.load_state(path)
    checkpoint.save_state(path, STATE)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PolicyError, match="damaged"):
        checkpoint.load_state(path)
    written(toy, path)
    with pytest.raises(PolicyError, match="no state of a training run"):
        checkpoint.load_state(path)
    path.write_bytes(bytes_of({}, {"kshot_state": json.dumps({"format": 2, "tree": ["dict", []]})}))
    with pytest.raises(PolicyError, match="expected a state of format 1, got 2"):
        checkpoint.load_state(path)
