"""Files that a stranger may send: each loads to something valid, or raises the one error that its loader documents.

Arbitrary bytes, arbitrary JSON, and valid files with one byte or one value changed, cut short, or nested without end.
"""

import ast
import itertools
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kshot
from kshot import leaderboard, tasks
from kshot.agents.policy import Header, PolicyAgent, PolicyError, load_policy, save_policy
from kshot.results import Result, ResultError
from kshot.single import KshotEnv
from kshot.tasks import TaskError

ROOT = Path(__file__).parents[2]
POINT = kshot.variant("PointGoal-v0")
TASKS = tuple(map(kshot.variant, ("PointGoal-v0", "GridNav-v0", "HalfCheetahDir-v0", "Bandit-k5n10-v0")))
# Those that MuJoCo's families and finite laws ship with their tasks, and one that ships a hash.
FROZEN = tuple(map(kshot.variant, ("GridNav-v0", "HalfCheetahDir-v0", "PointGoal-v0")))


def fuzz(n):
    return settings(
        max_examples=n, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


# What is written as @lists N@ and @dicts N@ is nested so deep; in full it would fill the report of a failure.
DEEP = re.compile(rb"@(lists|dicts) (\d+)@")
BRACKETS = {b"lists": (b"[", b"]"), b"dicts": (b'{"a":', b"}")}


def in_full(data):
    def nest(found):
        opening, closing = (x * int(found[2]) for x in BRACKETS[found[1]])
        return opening + b"1" + closing

    return DEEP.sub(nest, data)


# Text of JSON values that are likely to be met by no check, some of them also as an object's.
BADLY = ("NaN", "-Infinity", "1e400", "9" * 400, '"\\ud800"')
ODD = (
    *("null", "true", "0", "-1", "1.5", "-0.0", '""', "[]", "{}", "[[]]", "[{}]", "[[1],[2,3]]", '{"a":1,"a":2}'),
    *("Infinity", "1e308", "9" * 30, "9" * 5000, '"1"', '"\\u0000"', '"é𝄞"', '"../../etc/passwd"'),
    *(*BADLY, *(f'{{"a":{text}}}' for text in BADLY)),
    *("@lists 50@", "@lists 240@", "@lists 900@", "@lists 20000@", "@dicts 240@", "@dicts 20000@"),
)
KEYS = st.sampled_from(
    ["format", "variant", "split", "tasks", "goal", "returns", "agent", "sha256", "splits", "n", "name", "means"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS,
    lambda x: st.lists(x, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), x, max_size=4),
    max_leaves=8,
)
TEXTS = st.sampled_from(ODD) | VALUES.map(json.dumps)


def places(data, so_far=()):
    """Return the path of every value in a JSON document, in lists only that of the first."""
    inside = data.items() if isinstance(data, dict) else enumerate(data[:1]) if isinstance(data, list) else ()
    return [so_far, *itertools.chain.from_iterable(places(x, (*so_far, key)) for key, x in inside)]


def replaced(data, place, text):
    """Return a document as text with the text of another value at a place."""
    copy = {"": json.loads(json.dumps(data))}
    inner, mark = copy, "@here@"
    for key in ("", *place)[:-1]:
        inner = inner[key]
    inner[("", *place)[-1]] = mark
    return json.dumps(copy[""]).replace(json.dumps(mark), text)


@st.composite
def spoilt_json(draw, data):
    """A JSON document, as text, with one value exchanged, lost, or there twice."""
    place, how = draw(st.sampled_from(places(data))), draw(st.sampled_from(["other", "other", "lost", "twice"]))
    if how == "twice" and isinstance(data, dict):
        key, text = draw(st.sampled_from(sorted(data))), draw(TEXTS)
        pairs = [f"{json.dumps(key)}: {text}", json.dumps(data)[1:-1]]
        return "{" + ", ".join(pairs if draw(st.booleans()) else pairs[::-1]) + "}"
    if how == "lost" and place:
        copy = json.loads(json.dumps(data))
        inner = copy
        for key in place[:-1]:
            inner = inner[key]
        del inner[place[-1]]
        return json.dumps(copy)
    return replaced(data, place, draw(TEXTS))


@st.composite
def spoilt_bytes(draw, whole):
    """Bytes with a few of them changed, lost or added, or cut short."""
    how, i = draw(st.sampled_from(["changed", "cut", "added", "lost"])), draw(st.integers(0, len(whole) - 1))
    if how == "cut":
        return whole[:i]
    some = draw(st.binary(min_size=1, max_size=4))
    return whole[:i] + (b"" if how == "lost" else some) + whole[i + (0 if how == "added" else len(some)) :]


def coded(text):
    return text.encode("utf-8", "surrogatepass")


def spoilt(whole, *documents):
    """All of these, of a valid file's bytes; `documents` are the JSON documents that it may be replaced by."""
    texts = [spoilt_json(data).map(coded) for data in documents]
    # JSON where it is met most is where most checks are.
    return st.one_of(*texts, *texts, spoilt_bytes(whole), TEXTS.map(coded), st.binary(max_size=200))


def every_odd(data):
    """Return a document with every odd value in every place, as bytes."""
    return (coded(replaced(data, place, text)) for place in places(data) for text in ODD)


def loaded(load, error, *arguments):
    """Return what a loader gives, None where it raises the error that it documents; anything else is a failure."""
    try:
        return load(*arguments)
    except error:
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def put(folder, name, data):
    path = folder / name
    path.write_bytes(in_full(data))
    return path


# --- results ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result_bytes(folder):
    path = folder / "result.json"
    kshot.evaluate("random", POINT.id, num_tasks=3, episodes=2).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("load", [Result.load, leaderboard.load], ids=["Result.load", "leaderboard.load"])
def test_a_result_file_is_valid_or_refused(folder, result_bytes, load):
    data, seen = json.loads(result_bytes), set()

    def check(content):
        result = loaded(load, ResultError, put(folder, "spoilt.json", content))
        seen.add(result is None)
        if result is None:
            return
        again = folder / "again.json"
        result.save(again)
        assert Result.load(again) == result
        if load is leaderboard.load:
            for budget in (0, 1):
                loaded(result.score, ValueError, budget)

    check(result_bytes)
    assert seen == {False}
    for content in every_odd(data) if load is Result.load else ():
        check(content)
    fuzz(80)(given(spoilt(result_bytes, data))(check))()
    assert seen == {True, False}


# --- policies -----------------------------------------------------------------------------------------------


def safetensors(header, data):
    """Return the bytes of a safetensors file of a header that is no dict, or a wrong one."""
    text = in_full(header if isinstance(header, bytes) else json.dumps(header).encode())
    return len(text).to_bytes(8, "little") + text + data


@pytest.fixture(scope="module")
def policy_bytes(folder):
    rng, path = np.random.default_rng(0), folder / "policy.safetensors"
    tensors = {"0.weight": rng.normal(size=(4, 2)), "0.bias": np.zeros(4)}
    tensors |= {"1.weight": rng.normal(size=(2, 4)).astype(np.float32), "1.bias": np.zeros(2, np.float16)}
    tensors |= {"observation.mean": np.zeros(2), "observation.scale": np.ones(2), "log_std": np.zeros(2)}
    header = Header(
        name="a", variant=POINT.id, activation="elu", output="tanh", deterministic=False, clip=5.0, training_steps=3,
        command="make", config={"lr": 0.1, "sizes": [1, 2], "nested": {"a": None}},
    )  # fmt: skip
    save_policy(path, header, tensors)
    return path.read_bytes()


def test_a_policy_file_is_valid_or_refused(folder, policy_bytes):
    size = int.from_bytes(policy_bytes[:8], "little")
    outer, data = json.loads(policy_bytes[8 : 8 + size]), policy_bytes[8 + size :]
    inner = json.loads(outer["__metadata__"]["kshot"])

    def with_inner(text):
        return safetensors({**outer, "__metadata__": {"kshot": in_full(coded(text)).decode()}}, data)

    def with_outer(text):
        return safetensors(coded(text), data)

    seen = set()

    def check(content):
        path = put(folder, "p.safetensors", content)
        policy = loaded(load_policy, PolicyError, path)
        seen.add(policy is None)
        if policy is None:
            return
        json.dumps(policy.header.model_dump(), allow_nan=False)
        agent = loaded(PolicyAgent, PolicyError, policy, POINT)
        if agent is None or policy.header.sees_task:
            return
        action = loaded(agent.act, PolicyError, np.zeros((3, 2)))
        assert action is None or (action.shape == (3, 2) and (abs(action) <= 1).all())
        save_policy(folder / "again.safetensors", policy.header, policy.tensors)
        assert load_policy(folder / "again.safetensors").header == policy.header

    check(policy_bytes)
    assert seen == {False}
    empty = {"dtype": "F32", "data_offsets": [0, 0]}
    for content in (
        b"\xff" * 8 + b"{}",
        (2**62).to_bytes(8, "little") + b"{}",
        *(safetensors({"0.weight": {**empty, "shape": n}}, b"") for n in ([2**32] * 2, [2**62, 4], [0, 2**60], [-1])),
        safetensors({**outer, "2.weight": {**empty, "shape": [0], "dtype": "BF16"}}, data),
        *map(with_inner, map(bytes.decode, every_odd(inner))),
        *map(with_outer, map(bytes.decode, every_odd({"__metadata__": {"kshot": "{}"}, "0.bias": outer["0.bias"]}))),
    ):
        check(content)
    spoilt_headers = spoilt_json(inner).map(with_inner) | spoilt_json(outer).map(with_outer)
    anything = TEXTS.map(with_inner) | TEXTS.map(with_outer) | st.binary(max_size=100)
    fuzz(150)(given(spoilt_headers | anything | spoilt_bytes(policy_bytes))(check))()
    assert seen == {True, False}


# --- tasks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", TASKS, ids=lambda v: v.label)
def test_a_file_of_tasks_is_valid_or_refused(folder, variant):
    tasks.save(folder / "tasks.json", variant, tasks.sample(variant, "test", 3))
    whole = (folder / "tasks.json").read_bytes()
    data = json.loads(whole)
    unsigned = {name: x for name, x in data.items() if name != "sha256"}
    seen = set()

    def check(content):
        task = loaded(tasks.pool, TaskError, variant, put(folder, "spoilt.json", content))
        seen.add(task is None)
        for name, x in {} if task is None else task._asdict().items():
            space = variant.task_space[name]
            assert x.dtype == np.float64
            assert all(space.contains(np.asarray(row)) for row in x)

    check(whole)
    assert seen == {False}
    for content in every_odd({"variant": variant.id, "tasks": unsigned["tasks"][:1]}):
        check(content)
    fuzz(40)(given(spoilt(whole, data, unsigned, unsigned["tasks"]))(check))()
    assert seen == {True, False}


def test_an_environment_of_a_spoilt_file_of_tasks_is_made_or_refused(folder):
    tasks.save(folder / "tasks.json", POINT, tasks.sample(POINT, "test", 3))
    data = {"tasks": json.loads((folder / "tasks.json").read_text())["tasks"]}

    def check(content):
        path = put(folder, "spoilt.json", content)
        env = loaded(lambda: KshotEnv(POINT.id, tasks=str(path)), TaskError)
        if env is not None:
            assert np.isfinite(env.reset(seed=0)[1]["task"]["goal"]).all()

    fuzz(30)(given(spoilt(json.dumps(data).encode(), data, data["tasks"]))(check))()


@pytest.mark.parametrize("variant", FROZEN, ids=lambda v: v.label)
def test_a_frozen_set_is_what_shipped_or_refused(folder, variant, monkeypatch):
    whole = (tasks.TASK_SETS / f"{variant.label}.json").read_bytes()
    want, numbers = tasks.digest(tasks.frozen(variant, "test")), itertools.count()
    data = json.loads(whole)
    data["splits"] = {"test": data["splits"]["test"]}

    def check(content):
        place = folder / f"{variant.label}-{next(numbers)}"  # a folder each: sets that were read are kept
        place.mkdir()
        monkeypatch.setattr(tasks, "TASK_SETS", place)
        put(place, f"{variant.label}.json", content)
        found = loaded(tasks.frozen, TaskError, variant, "test")
        assert found is None or tasks.digest(found) == want

    fuzz(40)(given(spoilt(json.dumps(data).encode(), data))(check))()


# --- code ---------------------------------------------------------------------------------------------------


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "ran")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_never_unpickled(tmp_path, protocol):
    bomb, mark = pickle.dumps(Bomb(tmp_path / "mark"), protocol), tmp_path / "mark"
    for name, load, error in (
        ("a.json", Result.load, ResultError),
        ("a.json", leaderboard.load, ResultError),
        ("a.json", lambda p: tasks.pool(POINT, p), TaskError),
        ("a.safetensors", load_policy, PolicyError),
    ):
        assert loaded(load, error, put(tmp_path, name, bomb)) is None
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists()


UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "builtins.eval", "builtins.exec", "__import__"}
LOADERS = {"torch.load": "weights_only", "numpy.load": "allow_pickle"}
SAFE_VALUE = {"weights_only": True, "allow_pickle": False}
ALIASES = {"np": "numpy", "th": "torch"}


def unsafe(source):
    """Return what in Python source could run code that is in a file."""
    tree, found, loads = ast.parse(source), [], {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"import {m}" for m in modules if m.split(".")[0] in UNSAFE_MODULES]
        if isinstance(node, ast.ImportFrom) and f"{node.module}.load" in LOADERS:
            loads |= {a.asname or a.name: f"{node.module}.load" for a in node.names if a.name == "load"}
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        name = ast.unparse(node.func)
        head, _, rest = name.partition(".")
        name = loads.get(name, f"{ALIASES.get(head, head)}.{rest}" if rest else name)
        word = LOADERS.get(name)
        given = {k.arg: k.value for k in node.keywords}
        if word is None:
            found += [name] if name in UNSAFE_CALLS else []
        elif None in given:  # **kwargs may say anything
            found.append(name)
        elif word == "weights_only" or word in given:
            value = given.get(word)
            if not (isinstance(value, ast.Constant) and value.value is SAFE_VALUE[word]):
                found.append(name)
    return found


SOURCES = sorted(p for part in ("envs", "baselines") for p in (ROOT / part).rglob("*.py"))


def test_no_source_can_run_what_is_in_a_file():
    assert len(SOURCES) > 30
    assert {str(p.relative_to(ROOT)): bad for p in SOURCES if (bad := unsafe(p.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, dill as d",
        "import joblib.externals",
        "from cloudpickle import loads",
        "from marshal import loads",
        "def f():\n    import shelve",
        "eval('1')",
        "exec(text, {})",
        "import builtins\nbuiltins.exec(x)",
        "import torch\ntorch.load(path)",
        "import torch as th\nth.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "torch.load(path, **options)",
        "from torch import load\nload(path)",
        "from torch import load as read\nread(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=flag)",
        "from numpy import load\nload(path, allow_pickle=True)",
    ],
)
def test_what_could_run_code_is_found(source):
    assert len(unsafe(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import json, torch",
        "module.eval()",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "json.load(file)",
        "'import pickle'",
        "spec.loader.exec_module(module)",
    ],
)
def test_what_runs_no_code_is_let_pass(source):
    assert unsafe(source) == []
