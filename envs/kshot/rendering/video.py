"""Videos of pictures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = (".mp4", ".gif")


def write_video(path: str | os.PathLike[str], frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames as they come; the file appears when it is complete.

    Args:
        path: ends in .mp4 (H.264, which plays everywhere) or .gif; an existing file is replaced.
        frames: (height, width, 3) uint8 each, all of one size.
        fps: frames a second.

    Raises:
        ValueError: for another ending, a rate that is not positive, no frames, or frames of other shapes or types.
    """
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"the video is to be {target.name!r}; expected a name that ends in {' or '.join(FORMATS)}")
    if not fps > 0:
        raise ValueError(f"fps is {fps!r}; expected a number above 0")
    handle, name = tempfile.mkstemp(suffix=target.suffix, prefix=f".{target.stem}-", dir=target.parent)
    os.close(handle)
    try:
        _write(name, frames, fps)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's files are for their owner only
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def _write(name: str, frames: Iterable[np.ndarray], fps: float) -> None:
    shape: tuple[int, ...] | None = None
    with _writer(name, fps) as writer:
        for i, frame in enumerate(frames):
            shape = frame.shape if shape is None else shape
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
                wanted = "(height, width, 3)" if i == 0 else shape
                raise ValueError(f"frame {i} is {frame.dtype} of shape {frame.shape}; expected uint8 of shape {wanted}")
            writer.append_data(even(frame) if name.endswith(".mp4") else frame)
        if shape is None:
            raise ValueError("there are no frames; expected at least one")


def _writer(name: str, fps: float) -> Any:
    """Return imageio's writer for a file name."""
    import imageio.v2 as imageio

    if name.endswith(".gif"):
        return imageio.get_writer(name, mode="I", duration=1000 / fps, loop=0)
    options: dict[str, Any] = {"codec": "libx264", "pixelformat": "yuv420p", "macro_block_size": 1, "quality": 8}
    return imageio.get_writer(name, mode="I", fps=fps, **options)


def even(frame: np.ndarray) -> np.ndarray:
    """Return a frame with its last row and column doubled where H.264 needs even sizes."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
