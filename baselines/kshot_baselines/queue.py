"""A list of runs, worked through in order: one run a process, going on after a stop, skipping what is done.

The list is TOML, one table a row of the leaderboard:

    [[runs]]
    method = "rl2"
    id = "Bandit-k5n10-v0"
    seeds = 5                   # 0 to 4; or a list
    budget = 1000000            # optional, as --budget
    set = ["hidden=128"]        # optional, as --set
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import tomllib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import kshot
from kshot_baselines.methods import known
from kshot_baselines.runs import is_done, make
from kshot_baselines.signals import Stopped, stop_at_signals

PROGRAM: Sequence[str] = (sys.executable, "-c", "from kshot.cli import main; main()")  # what `kshot` is
STOPPED = (130, -signal.SIGINT)  # exit status of a run that saved its state, or had not begun
_POLL = 0.2  # seconds


class Entry(BaseModel):
    """A table of the list."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    method: str
    id: str
    seeds: Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=0)]] = 5  # 0 to that many, less one; or these
    budget: Annotated[int, Field(ge=0)] | None = None
    set: list[str] = []


class Task(NamedTuple):
    """One run of the list."""

    method: str
    label: str  # of the variant
    seed: int
    budget: int | None
    settings: tuple[str, ...]  # key=value

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.method} {self.label} seed {self.seed}"


class Options(NamedTuple):
    """What holds for all runs, as for `kshot train`."""

    device: str | None
    folder: Path
    results: Path | None


def read(file: Path) -> list[Task]:
    """Read a list of runs.

    Raises:
        ValueError: naming the table that is wrong, and why.
    """
    try:
        data = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read a list of runs from {file}: {error}") from error
    if set(data) != {"runs"} or not isinstance(data["runs"], list):
        raise ValueError(f"{file}: expected tables [[runs]] and nothing else, got {', '.join(data) or 'nothing'}")
    return [task for i, table in enumerate(data["runs"]) for task in _tasks(table, f"{file}: run {i + 1}")]


def _tasks(table: object, where: str) -> list[Task]:
    """Return a run a seed."""
    try:
        entry = Entry.model_validate(table)
        v = kshot.variant(entry.id)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]}") from error
    if entry.method not in known():
        raise ValueError(f"{where}: no method {entry.method!r}; expected one of {', '.join(known())}")
    seeds = range(entry.seeds) if isinstance(entry.seeds, int) else entry.seeds
    return [Task(entry.method, v.label, k, entry.budget, tuple(entry.set)) for k in seeds]


def work(todo: Sequence[Task], options: Options, jobs: int) -> list[str]:
    """Run all that is not done, `jobs` at once, each in a process of its own with its output in its log.

    Returns:
        What failed, a line each.

    Raises:
        Stopped: after SIGINT or SIGTERM, once every run has saved its state.
    """
    waiting, running, failed = deque(todo), dict[subprocess.Popen[bytes], Task](), list[str]()
    told = False
    with stop_at_signals() as stop:
        try:
            while running or (waiting and not stop.asked):
                while waiting and len(running) < jobs and not stop.asked:
                    task = waiting.popleft()
                    if not _skip(task, options):
                        running[_start(task, options)] = task
                if stop.asked and not told:
                    told = True
                    for process in running:
                        process.send_signal(signal.SIGINT)
                for process in [p for p in running if p.poll() is not None]:
                    failed += _end(running.pop(process), process.returncode, options)
                time.sleep(_POLL if running else 0)
        finally:  # asked once more: at once
            for process in running:
                process.terminate()
    if stop.asked:
        raise Stopped(f"stopped; {len(waiting)} of {len(todo)} runs have not begun")
    return failed


def _skip(task: Task, options: Options) -> bool:
    """Return whether a run is done, and say so."""
    try:
        run = make(
            task.method, task.label, task.seed, options.device, task.budget, task.settings, options.folder,
            options.results,
        )  # fmt: skip
        done = is_done(run)
    except (ValueError, ImportError):  # its own process says what is wrong
        return False
    if done:
        print(f"{_now()} done already: {task.name}", flush=True)
    return done


def _log(task: Task, options: Options) -> Path:
    return options.folder / task.method / f"{task.label}-seed{task.seed}" / "log.txt"


def _start(task: Task, options: Options) -> subprocess.Popen[bytes]:
    """Start a run; its process group is its own, so that Ctrl-C reaches it once, through us."""
    words = ["train", task.method, task.label, "--seed", str(task.seed), "--resume"]
    words += [] if task.budget is None else ["--budget", str(task.budget)]
    words += [word for pair in task.settings for word in ("--set", pair)]
    words += [w for k, x in options._asdict().items() if x is not None for w in (f"--{k}", str(x))]
    path = _log(task, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"{_now()} start {task.name}, log {path}", flush=True)
    with path.open("ab") as log:
        return subprocess.Popen(
            [*PROGRAM, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _end(task: Task, status: int, options: Options) -> list[str]:
    """Say how a run ended; a line where it failed."""
    how = {0: "done", **dict.fromkeys(STOPPED, "stopped")}.get(status, f"failed with status {status}")
    print(f"{_now()} {how}: {task.name}", flush=True)
    return [] if status in (0, *STOPPED) else [f"{task.name}: status {status}, see {_log(task, options)}"]


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
