"""A training run and where its files lie: what tells two runs apart, and whether one is done."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from kshot import tasks
from kshot.family import Variant
from kshot.leaderboard import PER_RUN
from kshot.registry import variant as find_variant
from kshot.results import Result
from kshot_baselines import hparams, methods
from kshot_baselines.checkpoint import as_json

RESULTS = Path("baselines/results")


@dataclass(frozen=True)
class Run:
    """One training run of a method on a variant."""

    method: str
    variant: Variant
    config: Any  # the method's Config
    seed: int
    device: str
    folder: Path  # of its state and curves
    results: Path  # under which results and weights are put, in a folder of the method
    threads: int = 1  # of torch on the CPU; more pay for large networks only, and may change the last digits

    @property
    def name(self) -> str:
        """How files and messages call it."""
        return f"{self.variant.label}-seed{self.seed}"

    @property
    def state(self) -> Path:
        """Where the resumable state is."""
        return self.folder / "state.safetensors"

    @property
    def best(self) -> Path:
        """Where the best weights so far are."""
        return self.folder / "best.safetensors"

    @property
    def weights(self) -> Path:
        """Where the weights of the finished run are."""
        return self.results / self.method / f"{self.name}.safetensors"

    def result(self, split: str) -> Path:
        """Return where the result on a split is."""
        return self.results / self.method / f"{self.variant.label}-{split}-seed{self.seed}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to be gone on with."""
        return {
            "method": self.method,
            "variant": self.variant.id,
            "seed": self.seed,
            "device": self.device.partition(":")[0],
            **{f"config.{key}": value for key, value in as_json(self.config).items()},
        }

    @property
    def command(self) -> str:
        """What trains it again, anywhere."""
        usual, own = (as_json(c) for c in (hparams.config_for(self.method, self.variant), self.config))
        words = ["kshot", "train", self.method, self.variant.label, "--seed", str(self.seed), "--device", self.device]
        if self.threads != 1:
            words += ["--threads", str(self.threads)]
        for key in (key for key, value in own.items() if value != usual[key]):
            words += ["--budget", str(own[key])] if key == "steps" else ["--set", f"{key}={hparams.text_of(own[key])}"]
        return shlex.join(words)


def make(
    method: str, id: str, seed: int, device: str | None, budget: int | None, settings: Iterable[str], folder: Path,
    results: Path | None,
) -> Run:  # fmt: skip
    """Return a run as a command line describes it.

    Args:
        method: its name.
        id: of the variant.
        seed: of the run.
        device: None for cuda where there is one, else the CPU.
        budget: steps of the environment; None for those of the config.
        settings: key=value of the method's Config.
        folder: of runs.
        results: where results go; None for those of the repository, or the run's own folder where the config is not
            that of the table, so that no experiment gets into the leaderboard by mistake.

    Raises:
        ValueError: for an unknown method, setting or value, or a device that cannot be used; KeyError for an unknown
            variant.
    """
    v, changes = find_variant(id), hparams.parse(methods.method(method).Config, settings)
    config = hparams.config_for(method, v, changes if budget is None else {**changes, "steps": budget})
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {where} cannot be used here: {str(error).splitlines()[0]}") from error
    place = folder / method / f"{v.label}-seed{seed}"
    if results is None:
        results = RESULTS if config == hparams.config_for(method, v) else place / "results"
    return Run(method, v, config, seed, where, place, results)


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep other processes out of a run's folder; RuntimeError where one is at work in it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(f"another process is at work in {run.folder}; wait for it, or give --folder") from error
    try:
        yield
    finally:
        lock.release()


def is_done(run: Run) -> bool:
    """Return whether all splits are scored, from the same weights.

    Raises:
        ValueError: where the results of a run of other settings are in the place of this one's.
    """
    found = [held_result(run, split) for split in run.variant.scored_splits]
    weights = {None if r is None else r.agent.config.get("checkpoint_sha256") for r in found}
    return None not in weights and len(weights) == 1


def held_result(run: Run, split: str) -> Result | None:
    """Return the result of this run on a split; None where there is none.

    Raises:
        ValueError: where it is of a run of other settings.
    """
    path = run.result(split)
    if not path.exists():
        return None
    held, mend = Result.load(path), "give --results another folder, or remove it"
    try:  # a field that is younger than the result has its default there
        old = hparams.build(type(run.config), {k: v for k, v in held.agent.config.items() if k not in PER_RUN})
    except ValueError as error:
        raise ValueError(f"{path} is of other settings: {error}; {mend}") from error
    there, here = as_json(old), as_json(run.config)
    key = first_difference(there, here)
    if key is not None:
        raise ValueError(f"{path} is of other settings: {key} is {there[key]!r} there, {here[key]!r} here; {mend}")
    return held


def check_settings(run: Run) -> None:
    """Note a run's settings in its folder, or compare them with those that are there.

    Raises:
        ValueError: naming the setting that differs.
    """
    path = run.folder / "run.json"
    if path.exists():
        held = json.loads(path.read_text())
        key = first_difference(held, run.settings)
        if key is not None:
            raise ValueError(
                f"{run.folder} holds a run of other settings: {key.removeprefix('config.')} is {held.get(key)!r} "
                f"there, {run.settings.get(key)!r} here; give --folder another folder, or remove it"
            )
        return
    tasks.write_text(path, json.dumps(run.settings, indent=1) + "\n")


def first_difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """Return the first key that only one has, or whose values differ; None where there is none."""
    keys = [*one, *(key for key in other if key not in one)]
    return next((k for k in keys if (k in one, one.get(k)) != (k in other, other.get(k))), None)
