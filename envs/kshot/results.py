"""Result files: one evaluation of one agent on one variant and split, as checked JSON.

Tables have a line a task, and returns six significant digits; lengths that are all alike are one number.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kshot import tasks

FORMAT = 1
DIGITS = 6  # significant ones of a return: a file of 10,000 tasks stays small
TABLES = ("returns", "successes", "lengths")
MAX_RETURN = 1e12  # so that no sum or square of them overflows
Bounded = Annotated[float, Field(allow_inf_nan=False, ge=-MAX_RETURN, le=MAX_RETURN)]


class ResultError(ValueError):
    """A file that is not a result this version can read."""


class NotUpdatedError(ValueError):
    """A budget that is no score: the agent had not updated on every task by then."""


class AgentCard(BaseModel):
    """Who was evaluated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=80)
    round: int = Field(ge=1)  # episodes it runs under one policy before it updates
    privileged: bool  # it was shown the task: an oracle
    adapts: bool = True  # False: its score is the same at every budget, the mean of all its episodes
    first_update: int | None = Field(
        0, ge=0
    )  # episodes after which it had updated on every task, None: never; 0: it needs not
    config: dict[str, Any] = {}

    @field_validator("name")
    @classmethod
    def _is_printable(cls, name: str) -> str:
        """Refuse a name that a table or a list of files cannot show."""
        if not name.isprintable() or not name.strip():
            raise ValueError("expected printable characters, in one line")
        return name

    @field_validator("config")
    @classmethod
    def _is_json(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Refuse numbers that JSON has no way to write: a result that is read can be saved."""
        json.dumps(config, allow_nan=False)
        return config


class TaskSet(BaseModel):
    """Which tasks it was evaluated on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=1)  # the first n of the frozen set
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of these n


class Result(BaseModel):
    """Returns of every task and episode, and what is needed to get them again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    variant: str
    split: str
    agent: AgentCard
    seed: int = Field(ge=0)
    tasks: TaskSet
    episodes: int = Field(ge=1)
    returns: list[list[Bounded]]  # (tasks, episodes)
    successes: list[list[bool]] | None  # likewise: whether any step was one; None where the family defines none
    lengths: list[list[int]]  # likewise, in steps
    within: list[Bounded] | None  # mean reward of each step of the first episode; None but for bandits
    steps: int = Field(ge=1)  # in all
    diverged: int = Field(ge=0)  # episodes that the simulator could not finish
    versions: dict[str, str]
    commit: str | None  # of the git checkout that ran it
    command: str
    created: str
    seconds: float = Field(ge=0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _spread_lengths(cls, data: Any) -> Any:
        """Read one length for all episodes as a table of it, of the returns' shape."""
        if not isinstance(data, dict) or not isinstance(data.get("lengths"), int):
            return data
        returns = data.get("returns")
        if not isinstance(returns, list) or not all(isinstance(row, list) for row in returns):
            return data
        return {**data, "lengths": [[data["lengths"]] * len(row) for row in returns]}

    @model_validator(mode="after")
    def _shapes_agree(self) -> Result:
        for name in TABLES:
            table = getattr(self, name)
            if table is not None and (len(table) != self.tasks.n or any(len(row) != self.episodes for row in table)):
                raise ValueError(f"{name} must be {self.tasks.n} tasks × {self.episodes} episodes")
        if self.episodes % self.agent.round:
            raise ValueError(f"episodes is {self.episodes}; expected whole rounds of {self.agent.round}")
        if self.diverged > self.tasks.n * self.episodes:
            raise ValueError(f"diverged is {self.diverged}; there are {self.tasks.n * self.episodes} episodes")
        return self

    def units(self) -> np.ndarray:
        """Return what is scored, (tasks, k): returns of episodes, or totals of whole trials where those are."""
        from kshot.registry import variant

        v, returns = variant(self.variant), np.asarray(self.returns)
        if not v.scored_by_trial:
            return returns
        totals: np.ndarray = (
            returns[:, : returns.shape[1] // v.trial * v.trial].reshape(len(returns), -1, v.trial).sum(-1)
        )
        return totals

    def task_scores(self, budget: int = 0) -> np.ndarray:
        """Return the return of every task after `budget` episodes on it (trials, where trials are scored), (tasks,).

        An agent that runs rounds of several episodes under one policy scores their mean, one that does not adapt
        the mean of all.

        Raises:
            NotUpdatedError: where the agent had not updated on every task by then.
            ValueError: where the evaluation was too short for this budget.
        """
        from kshot.registry import variant

        v, units, who = variant(self.variant), self.units(), self.agent
        if budget > 0 and (who.first_update is None or budget < who.first_update):
            when = "never" if who.first_update is None else f"only after {who.first_update} episodes"
            raise NotUpdatedError(f"{who.name} had updated on every task {when}: a budget of {budget} is n/a")
        per = max(1, who.round // v.trial) if v.scored_by_trial else who.round  # in units of the budget
        first = budget // per * per
        held = units[:, first : first + per] if who.adapts else units
        if budget < 0 or held.shape[1] < (per if who.adapts else 1):
            raise ValueError(f"{self.variant}: {self.episodes} episodes are too few for a budget of {budget}")
        scores: np.ndarray = held.mean(1)
        return scores

    def score(self, budget: int = 0) -> float:
        """Return the mean of `task_scores` over tasks, with its errors."""
        return float(self.task_scores(budget).mean())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result as JSON, atomically."""
        data = self.model_dump()
        if len(alike := {n for row in self.lengths for n in row}) == 1:
            data["lengths"] = alike.pop()
        entries = (f" {json.dumps(name)}: {_written(name, value)}" for name, value in data.items())
        tasks.write_text(Path(path), "{\n" + ",\n".join(entries) + "\n}\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Result:
        """Read a result.

        Raises:
            ResultError: where the file cannot be read, is damaged, of another format, or not a result.
        """
        try:
            text = Path(path).read_text()
            data = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise ResultError(f"cannot read a result from {path}: {error}") from error
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise ResultError(f"{path}: expected a kshot result of format {FORMAT}, got format {found!r}")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ResultError(f"{path} is not a kshot result: {where}: {first['msg']}") from error


def rounded(values: np.ndarray) -> Any:
    """Return numbers to the digits that are kept, as lists of Python floats of any depth."""
    return (
        values.tolist()
        if values.ndim == 0
        else [rounded(v) for v in values]
        if values.ndim > 1
        else [float(f"{v:.{DIGITS}g}") for v in values.tolist()]
    )


def _written(name: str, value: Any) -> str:
    """Return a field as JSON: a table a row a line, and 0 or 1 for whether there was success."""
    if name in TABLES and isinstance(value, list):
        rows = ([int(x) for x in row] if name == "successes" else row for row in value)
        return "[\n" + ",\n".join(json.dumps(row, separators=(",", ":"), allow_nan=False) for row in rows) + "\n ]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def provenance() -> dict[str, Any]:
    """Return the fields that say how a result came about."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("kshot", "gymnasium", "mujoco", "numpy")},
        },
        "commit": _commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """Return the commit of the checkout this package runs from, with + where files differ; None outside one."""
    here = str(Path(__file__).parent)
    describe = ("describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")
    try:
        ignored = _git(here, "check-ignore", "-q", here).returncode == 0  # as in a repository's own .venv
        run = _git(here, *describe)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 and not ignored else None


def _git(folder: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10)
