"""Training: what is stopped goes on to the same curve, val alone selects, what is done stays, what breaks says so."""

import io
import json
import re
import shlex
import signal
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from filelock import FileLock  # noqa: E402
from rich.console import Console  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import kshot  # noqa: E402
from kshot import tasks  # noqa: E402
from kshot.cli import app  # noqa: E402
from kshot.results import Result  # noqa: E402
from kshot_baselines import checkpoint, cli, train  # noqa: E402
from kshot_baselines.hparams import config_for  # noqa: E402
from kshot_baselines.runs import Run, is_done, make  # noqa: E402
from kshot_baselines.signals import Stopped, stop_at_signals  # noqa: E402

V = kshot.variant("PointGoal-v0")
if not any(command.callback is cli.train for command in app.registered_commands):
    cli.register(app)


@pytest.fixture
def run(toy, tmp_path, monkeypatch):
    """Return a run of 31 iterations, 320 steps each, with all its evaluations."""
    monkeypatch.setattr(train, "SHARE", 1.0)
    return Run("toy", V, toy.Config(steps=9_700), 3, "cpu", tmp_path / "run", tmp_path / "results")


def after(iterations, act):
    """Return a report that acts once after so many iterations."""
    seen = []

    def report(status):
        if status.what == "train":
            seen.append(status)
            if len(seen) == iterations:
                act()

    return report


def interrupt(number=signal.SIGINT):
    return lambda: signal.raise_signal(number)


def trained(run, stops=()):
    """Train with stops after some iterations, resuming each time, and return the final state."""
    for stop in stops:
        with pytest.raises(Stopped):
            train.train(run, resume=True, report=after(stop, interrupt()))
    train.train(run, resume=True)
    return checkpoint.load_state(run.state)


def flat(state, name=""):
    if isinstance(state, (list, tuple)):
        state = dict(enumerate(state))
    if isinstance(state, dict):
        return {k: x for key, value in state.items() for k, x in flat(value, f"{name}/{key}").items()}
    return {name: np.asarray(state)}


def test_a_run_that_is_stopped_twice_gives_what_an_uninterrupted_one_gives(run, tmp_path):
    whole, cut = run, replace(run, folder=tmp_path / "cut", results=tmp_path / "cut-results")
    a, b = flat(trained(whole)), flat(trained(cut, stops=(7, 13)))
    assert a.keys() == b.keys()
    for name in a.keys() - {"/progress/seconds"}:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    one, two = checkpoint.load(whole.weights), checkpoint.load(cut.weights)
    assert one.header.curve == two.header.curve
    assert one.header.metrics == two.header.metrics
    assert [len(m) > 0 for m in one.header.metrics] == [False] + [True] * 20  # of the iteration before
    assert len(one.header.curve) == 21
    assert len({score for _, score in one.header.curve}) > 3  # a curve that could differ
    assert torch.equal(one.weights["weight"], two.weights["weight"])
    for split in V.scored_splits:
        assert Result.load(whole.result(split)).returns == Result.load(cut.result(split)).returns


SMALL = {
    "rl2": {"steps": 3_000, "rows": 8, "memory": 8, "minibatches": 2},
    "maml": {"steps": 3_000, "tasks": 3, "episodes": 6, "hidden": (8,)},
    "pretrained": {"steps": 3_000, "tasks": 3, "episodes": 6, "hidden": (8,)},
    "maesn": {"steps": 3_000, "tasks": 3, "episodes": 6, "hidden": (8,)},
    "mgrl": {"steps": 1_000, "rows": 6, "hidden": (8,), "val_episodes": 4},
    "multitask": {"steps": 1_000, "rows": 16, "hidden": (8,), "minibatches": 2},
    "recurrent-ppo": {"steps": 1_400, "rows": 4, "memory": 8, "hidden": (8,), "batch": 60, "epochs": 2},
}


@pytest.mark.parametrize("name", SMALL)
def test_every_method_goes_on_to_the_same_curve(name, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_score", lambda *_: None)
    monkeypatch.setattr(train, "SHARE", 10.0)
    v = kshot.variant("GridNav-v0")
    config = config_for(name, v, SMALL[name])
    whole, cut = (Run(name, v, config, 3, "cpu", tmp_path / x, tmp_path / x) for x in ("whole", "cut"))
    a, b = flat(trained(whole)), flat(trained(cut, stops=(1, 2)))
    assert a["/progress/iteration"] >= 4
    assert a.keys() == b.keys()
    for key in a.keys() - {"/progress/seconds"}:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_another_seed_gives_another_curve(run, tmp_path):
    other = replace(run, seed=4, folder=tmp_path / "other")
    assert trained(run)["progress"]["curve"] != trained(other)["progress"]["curve"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state_of_that_iteration(run, number):
    with pytest.raises(Stopped, match=r"stopped at 1600 of 9700 steps; .*state.safetensors is saved"):
        train.train(run, report=after(5, interrupt(number)))
    assert checkpoint.load_state(run.state)["learner"]["steps"] == 1600
    assert not run.weights.exists()
    assert signal.getsignal(number) is not None


def test_a_second_signal_stops_at_once(run):
    def twice():
        interrupt()()
        interrupt()()

    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore SIGINT
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            train.train(run, report=after(5, twice))
    finally:
        signal.signal(signal.SIGINT, usual)
    assert not isinstance(caught.value, Stopped)
    assert checkpoint.load_state(run.state)["learner"]["steps"] == 0  # of the start


def test_signals_are_as_before_afterwards():
    usual = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_at_signals() as stop:
        assert not stop.asked
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == usual


def test_a_stop_while_scoring_leaves_what_is_scored_and_goes_on_with_the_rest(run):
    def stop_at_test(status):
        if status.what == "score test":
            interrupt()()

    with pytest.raises(Stopped, match="while scoring test"):
        train.train(run, report=stop_at_test)
    assert [split for split in V.scored_splits if run.result(split).exists()] == ["train"]
    first = run.result("train").stat().st_mtime_ns
    seen = []
    train.train(run, resume=True, report=lambda status: seen.append(status.what))
    assert set(seen) == {"score test", "score ood-far"}
    assert run.result("train").stat().st_mtime_ns == first
    assert is_done(run)


def test_the_state_is_saved_every_few_minutes(run, monkeypatch):
    monkeypatch.setattr(train, "SAVE_EVERY", 0.0)
    kill = RuntimeError("killed")

    def fail():
        raise kill

    with pytest.raises(RuntimeError, match="killed"):
        train.train(run, report=after(6, fail))
    assert checkpoint.load_state(run.state)["learner"]["iteration"] == 5


def test_a_loss_that_is_no_number_stops_with_the_last_good_state(run, monkeypatch):
    monkeypatch.setattr(train, "SAVE_EVERY", 0.0)
    run = replace(run, config=replace(run.config, fail_at=6))
    with pytest.raises(train.DivergedError) as caught:
        train.train(run)
    message = str(caught.value)
    assert "the metric 'loss' is nan in iteration 6, after 1920 steps" in message
    assert str(run.state) in message
    assert checkpoint.load_state(run.state)["learner"]["iteration"] == 5
    assert str(run.best) in message
    assert kshot.evaluate(run.best, V.id, num_tasks=2).agent.config["training_steps"] <= 1600


def test_a_weight_that_is_no_number_stops_it_too(run, toy, monkeypatch):
    usual = toy.Toy.iterate

    def broken(self):
        metrics = usual(self)
        if self.iteration == 4:
            self.weight[0, 0] = torch.inf
        return metrics

    monkeypatch.setattr(toy.Toy, "iterate", broken)
    with pytest.raises(train.DivergedError, match="the weight 'weight' is not finite in iteration 4"):
        train.train(run)


@pytest.fixture
def evaluations(monkeypatch):
    """Return a list that (split, weight) of every evaluation is appended to."""
    seen, usual = [], train.evaluate

    def recorded(agent, id, **options):
        seen.append((options["split"], agent.weight.weight.detach().clone(), options))
        return usual(agent, id, **options)

    monkeypatch.setattr(train, "evaluate", recorded)
    return seen


def test_val_alone_is_seen_in_training_and_all_else_once_at_the_end(run, evaluations):
    train.train(run)
    splits = [split for split, *_ in evaluations]
    assert splits[:-3] == ["val"] * 21
    assert splits[-3:] == V.scored_splits == ["train", "test", "ood-far"]
    for split, _, options in evaluations[-3:]:
        assert set(options) == {"split", "seed", "progress"}  # the protocol's tasks and episodes
        assert options["seed"] == run.seed
        assert Result.load(run.result(split)).seed == run.seed


def test_an_agent_may_ask_for_more_episodes_a_task_on_val(run, toy, evaluations, monkeypatch):
    monkeypatch.setattr(toy.ToyAgent, "least_episodes", 7, raising=False)
    train.train(run)
    assert {options["episodes"] for split, _, options in evaluations if split == "val"} == {7}


def test_the_weights_of_the_best_score_are_kept(run, evaluations, monkeypatch):
    scores = iter([1.0, 2.0, 9.0, 4.0, 9.0, *[3.0] * 16])
    monkeypatch.setattr(train, "score_of", lambda result, variant: next(scores))
    train.train(run)
    third, last = evaluations[2][1], evaluations[20][1]
    assert not torch.equal(third, last)
    for path in (run.best, run.weights):
        assert torch.equal(checkpoint.load(path).weights["weight"], third)
    assert torch.equal(evaluations[-1][1], third)
    found = checkpoint.load(run.weights).header
    assert [score for _, score in found.curve][:5] == [1, 2, 9, 4, 9]
    assert found.curve[0][0] == 0
    assert found.curve[-1][0] == found.training_steps == 9920


def test_evaluations_leave_the_learner_alone(run, tmp_path, monkeypatch):
    rare = replace(run, folder=tmp_path / "rare", results=tmp_path / "rare-results")
    a = trained(run)["learner"]
    monkeypatch.setattr(train, "EVALUATIONS", 2)
    b = trained(rare)
    assert len(b["progress"]["curve"]) == 3
    assert torch.equal(a["weight"], b["learner"]["weight"])
    assert torch.equal(a["random"], b["learner"]["random"])


def test_a_run_without_a_budget_scores_the_weights_of_the_start(run):
    run = replace(run, config=replace(run.config, steps=0))
    train.train(run)
    found = checkpoint.load(run.weights)
    assert found.header.training_steps == 0
    assert found.weights["weight"].eq(1).all()
    assert len(found.header.curve) == 1


def test_evaluation_is_a_small_share_of_the_steps_of_any_budget():
    for v in kshot.VARIANTS.values():
        for round_, adapts in ((1, True), (20, True), (1, False)):
            if v.scored_by_trial and round_ % v.trial and v.trial % round_:
                continue
            for budget in (200_000, 5_000_000, 100_000_000):
                s = train.selection(v, budget, round_, adapts)
                spent = s.evaluations * s.tasks * s.episodes * v.horizon
                least = s.tasks * s.episodes * v.horizon
                assert spent <= max(train.SHARE * budget, least), (v.id, s)
                assert 1 <= s.evaluations <= train.EVALUATIONS
                assert min(20, tasks.frozen_size(v, "val")) <= s.tasks <= tasks.frozen_size(v, "val")
                assert s.episodes % round_ == 0


def test_as_many_episodes_are_evaluated_as_show_adaptation():
    episodes = lambda id, *agent: train.selection(kshot.variant(id), 10**8, *agent).episodes  # noqa: E731
    assert episodes("GridNav-v0", 1, True) == 4  # a trial
    assert episodes("PointGoal-maml-v0", 20, True) == 40  # a round before the update, a round after
    assert episodes("TabularMDP-n25-v0", 1, True) == 25
    assert episodes("TabularMDP-n25-v0", 1, False) == 25
    assert episodes("PointGoal-v0", 1, False) == 1
    assert episodes("PointGoal-v0", 2, True, 40) == 40  # of an agent that says so
    assert episodes("TabularMDP-n25-v0", 1, True, 40) == 25  # trials are what is scored


@pytest.mark.parametrize(
    ("id", "round_", "adapts", "returns", "score"),
    [
        ("PointGoal-v0", 1, True, [[1, 2], [3, 6]], 4.0),  # the last episode
        ("PointGoal-v0", 2, True, [[1, 2, 3, 4], [5, 6, 7, 8]], 5.5),  # the last round
        ("PointGoal-v0", 1, False, [[1, 2], [3, 6]], 3.0),
        ("PointGoal-v0", 1, True, [[1] * 6 + [2, 4]], 3.0),  # the last quarter of many
        ("TabularMDP-n10-v0", 1, True, [[1.0] * 10, [2.0] * 10], 15.0),  # a trial
        ("TabularMDP-n10-v0", 20, True, [[0.0] * 20 + [1.0] * 20], 10.0),  # the trials after the update
    ],
)
def test_the_score_that_selects_is_that_after_adaptation(id, round_, adapts, returns, score):
    v, shape = kshot.variant(id), np.shape(returns)
    like = kshot.evaluate("random", v.id, num_tasks=shape[0], episodes=v.trial)
    card = like.agent.model_copy(update={"round": round_, "adapts": adapts})
    found = like.model_copy(update={"agent": card, "returns": returns, "episodes": shape[1]})
    assert train.score_of(found, v) == score


def test_a_run_that_is_done_is_not_repeated(run, evaluations):
    paths = train.train(run)
    assert paths == [run.result(split) for split in V.scored_splits]
    count = len(evaluations)
    elsewhere = replace(run, folder=run.folder.with_name("fresh"))  # as after a clone
    assert train.train(run) == train.train(elsewhere) == paths
    assert len(evaluations) == count


def test_a_result_that_is_missing_is_scored_again_without_training(run, toy, monkeypatch):
    train.train(run)
    run.result("test").unlink()
    assert not is_done(run)
    monkeypatch.setattr(toy.Toy, "iterate", None)
    train.train(run, resume=True)
    assert is_done(run)


def test_results_of_two_trainings_are_not_one_run(run, tmp_path):
    train.train(run)
    other = replace(run, config=replace(run.config, rows=8), folder=tmp_path / "b", results=tmp_path / "results-b")
    train.train(other)
    held = json.loads(other.result("test").read_text())
    held["agent"]["config"] |= {"rows": 16}
    run.result("test").write_text(json.dumps(held))
    assert not is_done(run)  # one config, other weights


def test_a_begun_run_asks_for_resume(run):
    with pytest.raises(Stopped):
        train.train(run, report=after(2, interrupt()))
    with pytest.raises(ValueError, match="holds a begun run; go on with --resume, or remove it"):
        train.train(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: replace(run, config=replace(run.config, scale=0.5)), "scale is 0.3 there, 0.5 here"),
        (lambda run: replace(run, seed=4), "seed is 3 there, 4 here"),
        (lambda run: replace(run, variant=kshot.variant("PointGoal-pearl-v0")), "variant is 'kshot/PointGoal-v0'"),
        (lambda run: replace(run, device="cuda:0"), "device is 'cpu' there, 'cuda' here"),
    ],
)
def test_a_folder_of_other_settings_is_refused_with_the_difference(run, change, message):
    with pytest.raises(Stopped):
        train.train(run, report=after(2, interrupt()))
    with pytest.raises(ValueError, match=message):
        train.train(change(run), resume=True)


def test_results_of_other_settings_are_refused_with_the_difference(run):
    train.train(run)
    other = replace(run, config=replace(run.config, hidden=(4,)), folder=run.folder.with_name("other"))
    with pytest.raises(ValueError, match=r"hidden is \[\] there, \[4\] here; give --results another folder"):
        train.train(other)
    assert not other.state.exists()  # before anything is trained


def test_results_from_before_a_field_was_there_are_those_of_its_default(run):
    train.train(run)
    for split in V.scored_splits:
        data = json.loads(run.result(split).read_text())
        del data["agent"]["config"]["outer"]
        run.result(split).write_text(json.dumps(data))
    assert is_done(run)
    with pytest.raises(ValueError, match="outer is 'climb' there, 'other' here"):
        is_done(replace(run, config=replace(run.config, outer="other")))


def test_two_processes_do_not_share_a_folder(run):
    run.folder.mkdir()
    with FileLock(run.folder / ".lock"), pytest.raises(RuntimeError, match="another process is at work in"):
        train.train(run)
    train.train(run)


def curves(run):
    found = EventAccumulator(str(run.folder), size_guidance={"scalars": 0})
    found.Reload()
    return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_tensorboard_has_every_metric_once_a_step_also_after_a_crash(run):
    def crash():
        raise RuntimeError("crash")

    with pytest.raises(Stopped):
        train.train(run, report=after(10, interrupt()))
    with pytest.raises(RuntimeError, match="crash"):
        train.train(run, resume=True, report=after(5, crash))  # whose 5 iterations are done again
    train.train(run, resume=True)
    found = curves(run)
    assert set(found) == {"return", "loss", "val", "steps/s"}
    for name in ("return", "loss", "steps/s"):
        assert [step for step, _ in found[name]] == [320 * i for i in range(1, 32)], name
    header = checkpoint.load(run.weights).header
    assert [step for step, _ in found["val"]] == [step for step, _ in header.curve]
    np.testing.assert_allclose([x for _, x in found["val"]], [x for _, x in header.curve], rtol=1e-6)
    assert [-x for _, x in found["loss"]] == [x for _, x in found["return"]]


def test_wandb_is_asked_for_by_name_and_takes_the_curves_of_tensorboard(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match="--wandb needs Weights & Biases: pip install wandb"):
        train.train(run, wandb=True)
    calls, service = [], types.SimpleNamespace(finish=lambda: calls.append("finish"))
    fake = types.SimpleNamespace(init=lambda **options: calls.append(options) or service)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    train.train(run, wandb=True)
    assert calls[0]["sync_tensorboard"] is True
    assert calls[0]["config"]["config.steps"] == 9_700
    assert calls[0]["dir"] == str(run.folder)
    assert calls[-1] == "finish"


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_of_a_result_trains_it_again(toy, tmp_path):
    words = ["--set", "hidden=4,4", "--set", "outer=a b", "--budget", 3000, "--results", tmp_path / "a"]
    done = invoke("train", "toy", "PointGoal-v0", "--seed", 2, "--device", "cpu", *words, "--folder", tmp_path / "r")
    assert done.exit_code == 0, done.output
    result = Result.load(tmp_path / "a" / "toy" / "PointGoal-v0-test-seed2.json")
    assert result.command == (
        "kshot train toy PointGoal-v0 --seed 2 --device cpu --budget 3000 --set hidden=4,4 --set 'outer=a b'"
    )
    assert str(tmp_path / "a" / "toy" / "PointGoal-v0-test-seed2.json") in done.stdout
    again = invoke(*shlex.split(result.command)[1:], "--results", tmp_path / "b", "--folder", tmp_path / "s")
    assert again.exit_code == 0, again.output
    one, two = (checkpoint.load(tmp_path / x / "toy" / "PointGoal-v0-seed2.safetensors") for x in "ab")
    assert torch.equal(one.weights["weight"], two.weights["weight"])
    assert one.header.curve == two.header.curve


def test_an_experiment_stays_out_of_the_leaderboard(toy, tmp_path):
    usual = make("toy", "PointGoal-v0", 0, "cpu", None, [], tmp_path, None)
    assert usual.results == Path("baselines/results")
    assert usual.folder == tmp_path / "toy" / "PointGoal-v0-seed0"
    for other in (("toy", "PointGoal-v0", 0, "cpu", 100, []), ("toy", "PointGoal-v0", 0, "cpu", None, ["scale=1"])):
        assert make(*other, tmp_path, None).results == usual.folder / "results"
    same = make("toy", "PointGoal-v0", 0, "cpu", 20_000, ["scale=0.3"], tmp_path, None)
    assert same.results == usual.results
    assert make("toy", "PointGoal-v0", 0, "cpu", 100, [], tmp_path, Path("there")).results == Path("there")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sorcery", "PointGoal-v0"), "no method 'sorcery'; expected one of rl2, maml"),
        (("toy", "PointGaol-v0"), "did you mean kshot/PointGoal-v0"),
        (("toy", "PointGoal-v0", "--set", "scale=big"), "scale is 'big'; expected a number"),
        (("toy", "PointGoal-v0", "--set", "size=1"), "no setting 'size'; expected one of steps, rows"),
        (("toy", "PointGoal-v0", "--device", "abacus"), "--device abacus cannot be used here"),
        (("toy", "PointGoal-v0", "--wandb", "--results", "r"), "pip install wandb"),
    ],
)
def test_mistakes_are_one_line(toy, tmp_path, monkeypatch, words, message):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.chdir(tmp_path)
    done = invoke("train", *words, "--folder", tmp_path)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_reproduce_trains_all_seeds_and_skips_what_is_done(toy, tmp_path, evaluations):
    words = ("reproduce", "toy", "PointGoal-v0", "--device", "cpu", "--folder", tmp_path, "--results", tmp_path / "r")
    assert invoke(*words, "--seeds", 1).exit_code == 0
    count = len(evaluations)
    begun = make("toy", "PointGoal-v0", 1, "cpu", None, [], tmp_path, tmp_path / "r")
    with pytest.raises(Stopped):
        train.train(begun, report=after(9, interrupt()))
    done = invoke(*words, "--seeds", 2)
    assert done.exit_code == 0, done.output
    assert "toy PointGoal-v0-seed0 is done" in done.stdout
    assert len(evaluations) == 2 * count  # none of the first seed again, none of the second twice
    results = sorted(p.name for p in (tmp_path / "r" / "toy").glob("*-test-*.json"))
    assert results == ["PointGoal-v0-test-seed0.json", "PointGoal-v0-test-seed1.json"]


def test_ctrl_c_says_how_to_go_on(tmp_path):
    program = [sys.executable, str(Path(__file__).parent / "toy_kshot.py")]
    words = ["train", "toy", "PointGoal-v0", "--set", "pause=0.05", "--folder", str(tmp_path), "--device", "cpu"]
    with subprocess.Popen([*program, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()  # the first iteration is done
        assert re.fullmatch(r"toy PointGoal-v0-seed0 train: \d+ %, return -[\d.]+, val -[\d.]+, steps/s [\d,]+\n", line)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130
    assert "once more stops at once" in told
    assert f"go on with: kshot {shlex.join(words)} --resume" in told
    assert "Traceback" not in told


def test_a_terminal_shows_a_bar_with_return_score_and_rate(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(cli, "errors", Console(file=screen, force_terminal=True, width=120))
    with cli._lines_of("toy") as report:
        report(train.Status("train", 0.25, -3.5, -4.25, 12_345.6))
    assert "25 %" in screen.getvalue()
    assert "return -3.5, val -4.25, steps/s 12,346" in screen.getvalue()


def test_threads_are_those_of_the_command(toy, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    words = ("train", "toy", "PointGoal-v0", "--device", "cpu", "--budget", 320, "--folder", tmp_path)
    assert invoke(*words, "--results", tmp_path / "one").exit_code == 0
    assert invoke(*words, "--results", tmp_path / "two", "--resume", "--threads", 2).exit_code == 0
    assert given == [1, 2]
    command = Result.load(tmp_path / "two" / "toy" / "PointGoal-v0-test-seed0.json").command
    assert command == "kshot train toy PointGoal-v0 --seed 0 --device cpu --threads 2 --budget 320"


def test_the_command_line_starts_without_torch():
    code = "import sys, kshot_baselines.cli, kshot_baselines.methods; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
