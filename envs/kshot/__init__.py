"""kshot: task families for meta-reinforcement-learning, as Gymnasium environments.

import gymnasium as gym
import kshot

env = gym.make("kshot/HalfCheetahVel-v0")                  # one hidden goal velocity
envs = gym.make_vec("kshot/HalfCheetahVel-v0", num_envs=64)  # 64 of them, one task a row
result = kshot.evaluate("random", "kshot/PointGoal-v0", split="ood-far")
print(result.score(budget=0))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kshot.family import Family, Split, Variant
from kshot.registry import VARIANTS, register, variant

if TYPE_CHECKING:
    from kshot.agents import Agent
    from kshot.evaluation import evaluate
    from kshot.results import Result
    from kshot.torch_env import TorchEnv

__version__ = "0.1.0"
__all__ = ["VARIANTS", "Agent", "Family", "Result", "Split", "Variant", "evaluate", "make_torch", "variant"]

_LATER = {"Agent": "kshot.agents", "Result": "kshot.results", "evaluate": "kshot.evaluation"}


def make_torch(id: str, num_envs: int, device: str = "cpu", **kwargs: Any) -> TorchEnv:
    """Return the batch environment as torch tensors on a device; see `kshot.torch_env.TorchEnv`.

    Raises:
        ImportError: where torch is not installed.
    """
    try:
        from kshot.torch_env import TorchEnv
    except ImportError as error:
        raise ImportError("make_torch needs PyTorch: pip install 'kshot[baselines]'") from error
    return TorchEnv(id, num_envs, device, **kwargs)


def __getattr__(name: str) -> Any:
    """Import what only scoring needs when it is first used, so that `import kshot` stays light."""
    if name in _LATER:
        import importlib

        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'kshot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
