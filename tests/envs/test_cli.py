"""The command line, the demo and the documentation: what users copy must run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kshot
from kshot.cli import app
from kshot.results import Result

ROOT = Path(__file__).parents[2]
runner = CliRunner()


def run(*words):
    return runner.invoke(app, [str(w) for w in words])


def test_list_shows_every_id_and_filters():
    everything = run("list")
    assert everything.exit_code == 0
    assert all(id in everything.stdout for id in kshot.VARIANTS)
    assert "Bandit" not in run("list", "ant").stdout
    assert run("list", "gridnav", "--markdown").stdout.startswith("| id |")


@pytest.mark.parametrize("id", ["PointSparse-maesn-v0", "kshot/Bandit-k5n10-v0", "AntGoal-ldm-v0"])
def test_show_prints_the_card(id):
    shown = run("show", id)
    assert shown.exit_code == 0
    v = kshot.variant(id)
    assert all(f"`{split}`" in shown.stdout for split in v.splits)
    assert v.source in shown.stdout
    assert v.family.formula in shown.stdout


def test_an_unknown_id_names_the_nearest():
    shown = run("show", "PointGaol-v0")
    assert shown.exit_code == 2
    assert "did you mean kshot/PointGoal-v0" in shown.output


def test_evaluate_prints_scores_and_saves_results(tmp_path):
    done = run("evaluate", "PointGoal-v0", "--agent", "expert", "--tasks", 5, "--episodes", 2, "--output", tmp_path)
    assert done.exit_code == 0, done.output
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == [f"PointGoal-v0-{split}-expert-seed0.json" for split in ("ood-far", "test", "train")]
    result = Result.load(tmp_path / files[1])
    assert f"{result.score(0):.2f}" in done.stdout
    one = run("evaluate", "PointGoal-v0", "--split", "val", "--tasks", 2, "--episodes", 1)
    assert "val" in one.stdout
    assert "ood-far" not in one.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--split", "nowhere"), "has no split 'nowhere'"),
        (("--agent", "nobody"), "no agent 'nobody'"),
        (("--tasks", "5000"), "num_tasks is 5000"),
    ],
)
def test_evaluate_says_what_is_wrong_in_one_line(words, reason):
    done = run("evaluate", "PointGoal-v0", *words)
    assert done.exit_code == 2
    assert reason in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(("id", "agent"), [("Bandit-k5n10-v0", "ucb1"), ("TabularMDP-n10-v0", "psrl")])
def test_classical_learners_have_names(id, agent):
    done = run("evaluate", id, "--agent", agent, "--tasks", 20, "--split", "test")
    assert done.exit_code == 0, done.output
    assert agent in done.stdout
    assert "ucb1" in run("evaluate", "Bandit-k5n10-v0", "--agent", "nobody", "--tasks", 2).output
    assert run("evaluate", "PointGoal-v0", "--agent", agent).exit_code == 2


def test_watch_films_an_analytic_task(tmp_path):
    done = run("watch", "PointGoal-v0", "--agent", "expert", "--output", tmp_path / "film.gif", "--episodes", 2)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "film.gif").stat().st_size > 1000
    wrong = run("watch", "PointGoal-v0", "--task", 99999)
    assert wrong.exit_code == 2
    assert "has 1000 tasks" in wrong.output


def test_watch_shows_the_episode_that_is_scored(monkeypatch):
    from kshot import agents, cli

    seen = []

    class Still(agents.ConstantAgent):
        def act(self, observation):
            seen.append(observation.copy())
            return super().act(observation)

    v = kshot.variant("PointGoal-pearl-v0")  # random starts
    kshot.evaluate(Still(v), v.id, episodes=1, num_tasks=3)
    scored = {tuple(x) for x in seen[0]}
    seen.clear()
    frames = cli._film(Still(v), v, "test", 2, 1, 0, lambda fraction: None)
    next(frames), next(frames)
    assert tuple(seen[0][0]) in scored


def test_watch_runs_rounds_as_evaluate_does():
    from kshot import agents, cli

    class Rounds(agents.ConstantAgent):
        round, sizes, ends = 3, [], 0

        def act(self, observation):
            self.sizes.append(len(observation))
            return super().act(observation)

        def end_episode(self):
            Rounds.ends += 1

    v = kshot.variant("PointGoal-pearl-v0")
    frames = list(cli._film(Rounds(v), v, "test", 1, 2, 0, lambda fraction: None))
    assert Rounds.sizes == [3] * 40
    assert Rounds.ends == 2
    assert len(frames) == 42  # each episode's start and 20 steps


def test_an_agent_of_the_current_folder_is_found(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\ndef still(observation):\n    return np.zeros((len(observation), 2))\n"
    )
    command = [Path(sys.executable).parent / "kshot", "evaluate", "PointGoal-v0", "--agent", "mine:still"]
    done = subprocess.run([*command, "--tasks", "2", "--split", "test"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "still" in done.stdout


def test_nothing_found_is_said():
    done = run("list", "zzz")
    assert done.exit_code == 2
    assert "no id contains 'zzz'" in done.output


def test_freeze_check_passes_for_what_is_shipped():
    assert run("freeze", "PointGoal", "--check").exit_code == 0
    assert run("freeze", "HalfCheetahVel", "--check").exit_code == 0


def test_freeze_check_finds_a_changed_law(monkeypatch):
    from kshot import tasks

    monkeypatch.setattr(tasks, "draw_frozen", lambda v, name: tasks.sample(v, name, 3))
    done = run("freeze", "HalfCheetahVel-v0", "--check")
    assert done.exit_code == 1
    assert "HalfCheetahVel-v0" in done.output


def test_generated_documentation_is_fresh():
    done = subprocess.run([sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_leaderboard_is_fresh(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = run("leaderboard", "--check")
    assert done.exit_code == 0, done.output


def test_a_result_is_submitted_verified_and_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ("evaluate", "PointGoal-v0", "--agent", "constant", "--tasks", 5, "--episodes", 2, "--output", "mine")
    assert run(*args, "--split", "test").exit_code == 0
    placed = run("submit", "mine/PointGoal-v0-test-constant-seed0.json", "board", "--reference")
    assert placed.exit_code == 0, placed.output
    assert "bit for bit" in run("verify", placed.stdout.strip()).stdout
    assert run("leaderboard", "board").exit_code == 0
    assert "constant" in (tmp_path / "leaderboard.md").read_text()
    assert run("leaderboard", "board", "--check").exit_code == 0
    (tmp_path / "leaderboard.md").write_text("edited")
    stale = run("leaderboard", "board", "--check")
    assert stale.exit_code == 2
    assert "stale" in stale.output
    drawn = run("plot", "board", "--output", "pictures")
    assert drawn.exit_code == 0, drawn.output
    assert all((tmp_path / p).stat().st_size > 1000 for p in drawn.stdout.split())


def test_every_documented_command_exists():
    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"^kshot (\w+)|`kshot (\w+)", text, re.M))
    # Of the program, which has the commands of the baselines too.
    shown = subprocess.run([Path(sys.executable).with_name("kshot"), "--help"], capture_output=True, text=True).stdout
    assert {a or b for a, b in used} <= set(re.findall(r"^│ (\w+)  ", shown, re.M))


def test_settings_reach_the_agent(tmp_path):
    run("evaluate", "TabularMDP-n10-v0", "--agent", "psrl", "--set", "prior=0", "--tasks", 5, "--split", "test",
        "--output", tmp_path)  # fmt: skip
    result = Result.load(tmp_path / "TabularMDP-n10-v0-test-psrl-seed0.json")
    assert result.agent.config == {"prior": 0}
    wrong = run("evaluate", "TabularMDP-n10-v0", "--agent", "psrl", "--set", "prior")
    assert wrong.exit_code == 2
    assert "expected key=value" in wrong.output
    wrong = run("evaluate", "TabularMDP-n10-v0", "--agent", "psrl", "--set", "colour=1")
    assert wrong.exit_code == 2
    assert "does not take" in wrong.output


def test_references_are_put_in_place(tmp_path):
    done = run("references", "GridNav-v0", "--agent", "expert", "--folder", tmp_path)
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "expert").iterdir())) == 3
    wrong = run("references", "GridNav-v0", "--agent", "ucb1", "--folder", tmp_path)
    assert wrong.exit_code == 2
    assert "no variant whose id contains 'GridNav-v0' has a reference ucb1" in wrong.output.replace("\n", " ")


def test_the_baselines_add_their_commands():
    done = subprocess.run(
        [Path(sys.executable).with_name("kshot"), "oracle", "PointGoal-v0"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "has an expert in closed form" in done.stderr


def test_evaluations_do_not_overwrite_each_other(tmp_path):
    words = ("evaluate", "TabularMDP-n10-v0", "--agent", "psrl", "--tasks", 3, "--split", "test", "--output", tmp_path)
    run(*words), run(*words, "--set", "prior=0"), run(*words)
    stem = "TabularMDP-n10-v0-test-psrl-seed0"
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{stem}-2.json", f"{stem}.json"]
    assert Result.load(tmp_path / f"{stem}-2.json").agent.config == {"prior": 0}
