"""Stopping at a signal, between two iterations."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, and did once its state was saved."""


class Stop:
    """Whether somebody asked to stop."""

    asked = False


@contextmanager
def stop_at_signals() -> Iterator[Stop]:
    """Note the first SIGINT or SIGTERM; the second does what it always does.

    Outside the main thread, where signals cannot be handled, nothing is changed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    usual = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        restore()
        print("stopping as soon as this iteration is saved; once more stops at once", file=sys.stderr, flush=True)

    def restore() -> None:
        for name, handler in usual.items():
            signal.signal(name, handler)

    for name in usual:
        signal.signal(name, note)
    try:
        yield stop
    finally:
        restore()
