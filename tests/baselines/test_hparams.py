"""Hyperparameters: the table names what exists and only what differs; text is read by the type of its field."""

import itertools
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import Literal

import pytest

pytest.importorskip("torch")

import kshot
from kshot_baselines import hparams, methods

WRITTEN = [name for name in methods.known() if find_spec(methods.METHODS[methods.PRESETS.get(name, (name,))[0]])]


@dataclass(frozen=True)
class Config:
    steps: int = 10
    rate: float = 0.1
    flag: bool = False
    hidden: tuple[int, ...] = (64, 64)
    text: str = "trpo"
    choice: Literal["a", "b"] = "a"
    perhaps: float | None = None


def test_the_table_names_methods_and_variants_that_exist():
    for name, pattern in hparams.TABLE:
        assert name in methods.known(), name
        assert any(fnmatchcase(v.label, pattern) for v in kshot.VARIANTS.values()), pattern


@pytest.mark.parametrize("key", list(hparams.TABLE), ids="-".join)
def test_a_line_of_the_table_holds_fields_of_the_right_type_that_change_something(key):
    """From the default, or from an earlier line that holds for the same variants."""
    config, label = methods.method(key[0]).Config, key[1].replace("*", "v0")
    before = {}
    for name, pattern in itertools.takewhile(lambda other: other != key, hparams.TABLE):
        if name == key[0] and fnmatchcase(label, pattern):
            before |= hparams.TABLE[name, pattern]
    made, default = hparams.build(config, {**before, **hparams.TABLE[key]}), hparams.build(config, before)
    assert hparams.TABLE[key]
    for name in hparams.TABLE[key]:
        assert getattr(made, name) != getattr(default, name), name


@pytest.mark.parametrize("name", WRITTEN)
def test_a_method_has_a_config_for_every_variant(name):
    for v in kshot.VARIANTS.values():
        config = hparams.config_for(name, v)
        assert all(getattr(config, key) == value for key, value in methods.method(name).changes.items())


def test_all_methods_of_the_table_are_there():
    assert {"rl2", "maml", "multitask"} <= set(WRITTEN)


def test_later_lines_presets_and_overrides_go_before_earlier_ones(toy, monkeypatch):
    table = {
        ("toy", "Point*"): {"rows": 1, "scale": 0.1, "outer": "a"},
        ("toy", "PointGoal-v0"): {"rows": 2},
        ("other", "*"): {"rows": 99},
        ("toy", "Bandit*"): {"rows": 98},
        ("toy-slow", "PointGoal*"): {"pause": 1.0},
    }
    monkeypatch.setattr(hparams, "TABLE", table)
    monkeypatch.setitem(methods.PRESETS, "toy-slow", ("toy", {"outer": "b", "pause": 0.5}))
    v = kshot.variant("PointGoal-v0")
    assert hparams.config_for("toy", v) == toy.Config(rows=2, scale=0.1, outer="a")
    assert hparams.config_for("toy", v, {"scale": 0.5}) == toy.Config(rows=2, scale=0.5, outer="a")
    assert hparams.config_for("toy-slow", v) == toy.Config(rows=2, scale=0.1, outer="b", pause=1.0)
    assert hparams.config_for("toy", kshot.variant("GridNav-v0")) == toy.Config()


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("steps=1000", 1000),
        ("rate=3e-4", 3e-4),
        ("rate=1", 1.0),
        ("flag=true", True),
        ("hidden=100,100", (100, 100)),
        ("hidden=[32]", (32,)),
        ("hidden=32", (32,)),
        ("hidden=", ()),
        ("text=ppo", "ppo"),
        ("text=1", "1"),
        ("text=a=b", "a=b"),
        ("choice=b", "b"),
        ("perhaps=0.5", 0.5),
        ("perhaps=null", None),
    ],
)
def test_text_is_read_by_the_type_of_its_field(pair, value):
    key = pair.partition("=")[0]
    (found,) = hparams.parse(Config, [pair]).values()
    assert found == value
    assert type(found) is type(value)
    again = f"{key}={hparams.text_of(found)}"
    assert hparams.parse(Config, [again]) == {key: value}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("steps=1.5", "steps is '1.5'; expected a whole number"),
        ("steps=true", "steps is 'true'; expected a whole number"),
        ("steps=many", "steps is 'many'; expected a whole number"),
        ("rate=nan", "rate is 'nan'; expected a number"),
        ("rate=NaN", "rate is 'NaN'; expected a number"),
        ("rate=1e999", "rate is '1e999'; expected a number"),
        ("flag=1", "flag is '1'; expected true or false"),
        ("hidden=64,a", "hidden is '64,a'; expected whole numbers, as 64,64"),
        ("perhaps=some", "perhaps is 'some'; expected a number, or null"),
        ("choice=c", "choice is 'c'; expected one of a, b"),
        ("momentum=1", "no setting 'momentum'; expected one of steps, rate, flag, hidden, text, choice, perhaps"),
        ("steps", "--set steps: expected key=value"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(pair, message):
    with pytest.raises(ValueError) as caught:
        hparams.parse(Config, [pair])
    assert message in str(caught.value)


def test_a_config_is_built_of_json_strictly():
    assert hparams.build(Config, {"hidden": [1, 2], "rate": 2}) == Config(hidden=(1, 2), rate=2.0)
    for bad in ({"steps": 1.0}, {"steps": "1"}, {"text": 1}, {"flag": 1}, {"rate": float("inf")}, {"rate": None}):
        with pytest.raises(ValueError, match="expected"):
            hparams.build(Config, bad)


@pytest.mark.parametrize("name", WRITTEN)
def test_every_field_of_a_method_can_be_set_from_text(name):
    config = methods.method(name).Config
    pairs = [f"{field.name}={hparams.text_of(getattr(config(), field.name))}" for field in fields(config)]
    assert hparams.build(config, hparams.parse(config, pairs)) == config()


def test_an_unknown_method_is_named_with_those_that_are_known():
    with pytest.raises(
        ValueError,
        match="no method 'rl3'; expected one of rl2, maml, maesn, mgrl, multitask, scratch, recurrent-ppo, pre",
    ):
        hparams.config_for("rl3", kshot.variant("PointGoal-v0"))
