"""Curves of a training run for TensorBoard, and for Weights & Biases where asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from kshot_baselines.runs import Run

Log = Callable[[Mapping[str, float], int], None]  # (numbers by name, steps)


@contextmanager
def open_log(run: Run, steps: int, wandb: bool) -> Iterator[Log]:
    """Write numbers into the run's folder; what an interrupted run wrote after `steps` is dropped.

    Raises:
        ImportError: where `wandb` is asked for and not installed.
    """
    service: Any = _wandb(run) if wandb else None
    writer = SummaryWriter(str(run.folder), purge_step=steps + 1 if steps else None)
    writer.add_text("settings", f"```\n{json.dumps(run.settings, indent=1)}\n```")

    def log(numbers: Mapping[str, float], at: int) -> None:
        for name, x in numbers.items():
            writer.add_scalar(name, x, at)

    try:
        yield log
    finally:
        writer.close()
        if service is not None:
            service.finish()


def _wandb(run: Run) -> Any:
    """Start a run there, which takes its curves from TensorBoard's; the same one where this run is resumed."""
    try:
        import wandb
    except ImportError as error:
        raise ImportError("--wandb needs Weights & Biases: pip install wandb") from error
    name = f"{run.method}-{run.name}"
    return wandb.init(project="kshot", name=name, dir=str(run.folder), config=run.settings, sync_tensorboard=True)
