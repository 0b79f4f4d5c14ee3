"""The queue: runs in order, each in a process, going on after a stop, past what fails and what is done."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

import kshot
from kshot_baselines import queue
from kshot_baselines.methods import known
from kshot_baselines.queue import Options, Task, read, work

PROGRAM = (sys.executable, str(Path(__file__).parent / "toy_kshot.py"))
ROOT = Path(__file__).parents[2]


def listed(path, text):
    path.write_text(text)
    return path


def test_the_list_that_ships_names_what_exists_and_nothing_twice():
    todo = read(ROOT / "baselines" / "queue.toml")
    assert len(set(todo)) == len(todo)
    assert {task.method for task in todo} <= set(known())
    assert {task.label for task in todo} <= {v.label for v in kshot.VARIANTS.values()}


def test_a_table_is_a_run_a_seed_in_order(toy, tmp_path):
    file = listed(
        tmp_path / "q.toml",
        '[[runs]]\nmethod = "toy"\nid = "kshot/PointGoal-v0"\nseeds = 2\n'
        '[[runs]]\nmethod = "rl2"\nid = "GridNav-v0"\nseeds = [7]\nbudget = 5\nset = ["rows=2", "clip=0.3"]\n'
        '[[runs]]\nmethod = "maml"\nid = "GridNav-v0"\n',
    )
    assert read(file)[:3] == [
        Task("toy", "PointGoal-v0", 0, None, ()),
        Task("toy", "PointGoal-v0", 1, None, ()),
        Task("rl2", "GridNav-v0", 7, 5, ("rows=2", "clip=0.3")),
    ]
    assert [task.seed for task in read(file)[3:]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs = 3", r"expected tables \[\[runs\]\]"),
        ("[[run]]", r"expected tables \[\[runs\]\] and nothing else, got run"),
        ("[[runs]", "cannot read a list of runs"),
        ('[[runs]]\nmethod = "rl3"\nid = "GridNav-v0"', "run 1: no method 'rl3'; expected one of rl2"),
        ('[[runs]]\nmethod = "rl2"\nid = "GridNab-v0"', "run 1: no variant 'GridNab-v0'; did you mean"),
        ('[[runs]]\nmethod = "rl2"', "run 1: id: Field required"),
        ('[[runs]]\nmethod = "rl2"\nid = "GridNav-v0"\nseed = 3', "run 1: seed: Extra inputs"),
        ('[[runs]]\nmethod = "rl2"\nid = "GridNav-v0"\nseeds = "5"', "run 1: seeds"),
        ('[[runs]]\nmethod = "rl2"\nid = "GridNav-v0"\nseeds = 0', "run 1: seeds"),
        ('[[runs]]\nmethod = "rl2"\nid = "GridNav-v0"\nseeds = [-1]', "run 1: seeds"),
    ],
)
def test_a_list_that_is_wrong_is_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(listed(tmp_path / "q.toml", text))


def test_what_fails_is_reported_and_the_rest_is_run_and_next_time_skipped(toy, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(queue, "PROGRAM", PROGRAM)
    options = Options("cpu", tmp_path / "runs", tmp_path / "results")
    todo = [
        Task("toy", "PointGoal-v0", 0, 2000, ("fail_at=2",)),
        Task("toy", "PointGoal-v0", 1, 2000, ()),
        Task("toy", "PointGoal-pearl-v0", 1, 2000, ()),
    ]
    failed = work(todo, options, jobs=2)
    log = tmp_path / "runs" / "toy" / "PointGoal-v0-seed0" / "log.txt"
    assert failed == [f"toy PointGoal-v0 seed 0: status 2, see {log}"]
    assert "the metric 'loss' is nan in iteration 2" in log.read_text()
    found = sorted(p.name for p in (tmp_path / "results" / "toy").glob("*-test-*.json"))
    assert found == ["PointGoal-pearl-v0-test-seed1.json", "PointGoal-v0-test-seed1.json"]
    first = capfd.readouterr().out
    assert first.count(" start ") == 3
    monkeypatch.setattr(queue, "PROGRAM", (sys.executable, "-c", "raise SystemExit(3)"))
    assert [line.split(",")[0] for line in work(todo, options, jobs=1)] == ["toy PointGoal-v0 seed 0: status 3"]
    told = capfd.readouterr().out
    assert told.count("done already: toy PointGoal-v0 seed 1") == 1
    assert told.count("done already") == 2


def test_one_job_at_a_time_keeps_the_order(toy, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(queue, "PROGRAM", (sys.executable, "-c", "pass"))
    work([Task("toy", "PointGoal-v0", k, None, ()) for k in range(3)], Options(None, tmp_path, tmp_path), jobs=1)
    told = [line.split(" ", 2)[2].partition(",")[0] for line in capfd.readouterr().out.splitlines()]
    assert told == [
        x for k in range(3) for x in (f"start toy PointGoal-v0 seed {k}", f"done: toy PointGoal-v0 seed {k}")
    ]


def test_a_stop_saves_all_runs_and_the_same_command_goes_on(toy, tmp_path):
    pause = 'set = ["pause=0.05"]\n'
    file = listed(
        tmp_path / "q.toml", f'[[runs]]\nmethod = "toy"\nid = "PointGoal-v0"\nseeds = 3\nbudget = 8000\n{pause}'
    )
    words = ["queue", str(file), "--jobs", "2", "--folder", str(tmp_path / "runs"), "--results", str(tmp_path / "r")]
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        logs = [tmp_path / "runs" / "toy" / f"PointGoal-v0-seed{k}" / "log.txt" for k in (0, 1)]
        wait_for(lambda: all(log.exists() and "train: " in log.read_text() for log in logs), process)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert out.count("stopped: toy") == 2
    assert "1 of 3 runs have not begun; go on with: kshot queue" in err
    assert all("state.safetensors is saved" in log.read_text() for log in logs)
    again = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=True)
    assert again.stdout.count(" done: toy") == 3
    assert len(list((tmp_path / "r" / "toy").glob("*-test-*.json"))) == 3


def wait_for(condition, process):
    """Wait until it holds or the process has ended."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
