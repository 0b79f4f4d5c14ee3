"""MAML: policies that a gradient step adapts (Finn et al. 2017, arXiv 1703.03400).

Training draws tasks, runs episodes of the shared policy in each, takes the inner step on them, runs episodes of the
adapted policies, and improves what was shared by how well those did, through the inner step. All tasks are one batch.
By option: ProMP (Rothfuss et al. 2018, arXiv 1810.06784), Meta-SGD (Li et al. 2017, arXiv 1707.09835), first-order
MAML, and training without an inner step, which is pre-training on all tasks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kshot import random, tasks
from kshot.family import Variant
from kshot.torch_env import TorchEnv
from kshot_baselines import adaptation
from kshot_baselines.adaptation import (
    Adaptation,
    Inner,
    inner_gradient,
    learned_step_shapes,
    policy_of,
    step_sizes,
)
from kshot_baselines.episodes import Batch, Episodes, batch, of_tasks, sample
from kshot_baselines.learner import Weights, optimiser_state, random_state, set_optimiser_state, set_random_state
from kshot_baselines.meta_update import Clipped, Penalty, Trust, clipped_steps, trust_region_step
from kshot_baselines.policies import (
    OWN,
    Outputs,
    Params,
    action_map,
    distribution,
    for_tasks,
    initial,
    outputs,
    prior,
    shape_of,
    shapes_of_params,
)
from kshot_baselines.rounds import RoundAgent

BLOCK = 200_000  # steps whose gradient the agent takes at once, to bound memory
OUTER = ("trpo", "ppo")


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of MAML's paper and code for 2-D navigation unless a comment says otherwise."""

    steps: int = 8_000_000  # 100 iterations
    tasks: int = 20  # an iteration
    episodes: int = 20  # a task and policy
    eval_episodes: int = 0  # before each step of the agent in evaluation; 0: as in training
    hidden: tuple[int, ...] = (100, 100)
    activation: str = "relu"  # or tanh
    discount: float = 0.99
    gae_lambda: float = 1.0
    inner: str = "vpg"  # or lvc, dice: see `adaptation.inner_loss`
    inner_lr: float = 0.1
    later_lr: float = 0.5  # factor of the step size in evaluation after as many steps as in training
    inner_steps: int = 1  # 0: train one policy on all tasks; the agent adapts all the same
    first_order: bool = False  # leave out the derivative of the inner gradient
    learn_steps: bool = False  # a step size for each parameter, learned from inner_lr on (Meta-SGD)
    outer: str = "trpo"  # or ppo
    max_kl: float = 0.01
    cg_iterations: int = 10
    cg_damping: float = 1e-5
    fisher_samples: float = 1.0  # part of the episodes in Fisher-vector products; below 1 an approximation
    learning_rate: float = 1e-3  # of Adam, with ppo; this and the next three as ProMP's code
    epochs: int = 5
    clip: float = 0.3
    kl_penalty: float = 5e-4

    def __post_init__(self) -> None:
        for name, known in (("inner", adaptation.OBJECTIVES), ("outer", OUTER)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if not 0 < self.fisher_samples <= 1:
            raise ValueError(f"fisher_samples is {self.fisher_samples}; expected more than 0 and at most 1")
        least = {"tasks": 1, "episodes": 1, "eval_episodes": 0, "inner_steps": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {bound}")


def learner(variant: Variant, config: Config, seed: int, device: str | torch.device) -> MamlLearner:
    """Start a training run."""
    return MamlLearner(variant, config, inner_of(variant, config), seed, torch.device(device))


def agent(
    variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device = "cpu"
) -> MamlAgent:
    """Return the agent of trained weights."""
    return MamlAgent(variant, config, inner_of(variant, config), weights, seed, torch.device(device))


def inner_of(variant: Variant, config: Config) -> Inner:
    """Return the inner update that a config means."""
    shape = shape_of(variant, config.hidden, config.activation)
    return Inner(shape, config.inner, config.inner_lr, config.discount, config.first_order)


class MamlLearner:
    """A training run: everything random in iteration i is a function of the seed, i and torch's generator."""

    penalty: Penalty | None = None  # what a TRPO step adds to its loss

    def __init__(self, variant: Variant, config: Config, inner: Inner, seed: int, device: torch.device) -> None:
        """Draw the policy; seeds torch's generator."""
        torch.manual_seed(seed)
        self.steps = self.iteration = 0
        self._variant, self._config, self._seed, self._device = variant, config, seed, device
        self.inner, meta = inner, initial(inner.shape)
        if config.learn_steps:
            meta |= {name: torch.full(size, config.inner_lr) for name, size in learned_step_shapes(inner).items()}
        self.meta = {name: x.to(device) for name, x in meta.items()}
        self._env = TorchEnv(variant.id, config.tasks * config.episodes, device)
        self._to_env = action_map(variant.action_space, device)
        self._theta = adaptation.flat(self.meta).requires_grad_()
        self._adam = torch.optim.Adam([self._theta], lr=config.learning_rate)

    def iterate(self) -> dict[str, float]:
        """Run one meta-iteration.

        Returns:
            `return` of the adapted policies and `return_before` of those before any inner step, means over episodes;
            `loss`, `kl`, with trpo `accepted`, of the outer update; `entropy` of the adapted policies.
        """
        c = self._config
        a, post, metrics = self.sample()
        if c.outer == "trpo":
            trust = Trust(c.max_kl, c.cg_iterations, c.cg_damping, c.fisher_samples)
            self.meta, more = trust_region_step(self.inner, self.meta, a, post, trust, self.penalty)
        else:
            clipped = Clipped(c.epochs, c.clip, c.kl_penalty)
            self.meta, more = clipped_steps(self.inner, self.meta, a, post, clipped, self._adam, self._theta)
        self.iteration += 1
        return {**metrics, **more}

    def sample(self) -> tuple[Adaptation, Batch, dict[str, float]]:
        """Draw tasks, run episodes and adapt; return the adaptation, what the adapted policies did, and metrics."""
        c = self._config
        task_seed, row_seed = np.random.SeedSequence([self._seed, self.iteration]).generate_state(2, np.uint64)
        drawn = self.draw_tasks(int(task_seed >> 1))
        self._env.set_task(tasks.take(drawn, np.repeat(np.arange(c.tasks), c.episodes)))
        a, returns = adaptation.start(self.inner, self.meta, c.tasks), []
        for k in range(c.inner_steps + 1):
            seeds = None if k else random.row_seeds(int(row_seed >> 1), self._env.num_envs)
            found = sample(self._env, self.inner.shape, a.path[-1], c.episodes, self._to_env, seeds)
            returns.append(float(found.reward_tp1.sum(0).mean()))
            self.steps += found.mask_t.numel()  # with those after an episode's end, which were run though not used
            last = batch(found, c.discount, c.gae_lambda)
            a = adaptation.advance(self.inner, a, last) if k < c.inner_steps else a
        entropy = (distribution(self.inner.shape, last.old).entropy() * last.weight).sum(1).mean()
        return a, last, {"return": returns[-1], "return_before": returns[0], "entropy": float(entropy)}

    def draw_tasks(self, seed: int) -> Any:
        """Return an iteration's tasks."""
        return tasks.sample(self._variant, "train", self._config.tasks, seed)

    def weights(self) -> Weights:
        """Return the policy's parameters that tasks share, and the step sizes where they are learned."""
        return {name: x.detach().cpu().clone() for name, x in self.meta.items() if name not in OWN}

    def get_state(self) -> dict[str, Any]:
        """Return all that the future of the run depends on."""
        return {
            "steps": self.steps,
            "iteration": self.iteration,
            "meta": self.weights(),
            "adam": optimiser_state(self._adam),
            "random": random_state(self._device),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps, self.iteration = int(state["steps"]), int(state["iteration"])
        self.meta = {name: x.to(self._device) for name, x in state["meta"].items()}
        set_optimiser_state(self._adam, state["adam"])
        set_random_state(state["random"], self._device)


class MamlAgent(RoundAgent):
    """Adapts a policy to each task by the inner update of training, after every round of episodes."""

    name = "maml"
    adapts = True

    def __init__(
        self, variant: Variant, config: Config, inner: Inner, weights: Weights, seed: int, device: torch.device
    ) -> None:
        """Take what a run learned; ValueError where it does not fit the inner update's policy."""
        super().__init__(variant, inner.shape, config.eval_episodes or config.episodes, seed, device)
        self.config: dict[str, Any] = dataclasses.asdict(config)
        self._settings, self._inner = config, inner
        self._meta = {name: x.to(device) for name, x in _fitting(weights, inner, config).items()}

    def begin(self, n: int) -> None:
        """Give each task the shared parameters, and a latent at its prior."""
        own = {name: x.to(self.device) for name, x in prior(self.shape, n).items()}
        self._params, self._updates = for_tasks({**policy_of(self._meta), **own}, n), 0

    def outputs(self, x: torch.Tensor) -> Outputs:
        """Return what each task's policy says."""
        return outputs(self.shape, self._params, x)

    def learn(self, found: Episodes) -> None:
        """Take an inner step for each task, in blocks of tasks that bound memory."""
        c, (horizon, tasks, _) = self._settings, found.reward_tp1.shape
        size = max(1, BLOCK // (horizon * self.round))
        factor = 1.0 if self._updates < max(1, c.inner_steps) else c.later_lr
        blocks = [self._stepped(found, slice(i, i + size), factor) for i in range(0, tasks, size)]
        self._params = {name: torch.cat([block[name] for block in blocks]) for name in self._params}
        self._updates += 1

    def _stepped(self, found: Episodes, block: slice, factor: float) -> Params:
        """Return the parameters of some tasks after an inner step on their round."""
        params = {name: x[block] for name, x in self._params.items()}
        sizes = {name: factor * x for name, x in step_sizes(self._inner, {**self._meta, **params}).items()}
        b = batch(of_tasks(found, block), self._settings.discount, self._settings.gae_lambda)
        return adaptation.step(params, sizes, inner_gradient(self._inner, params, b))


def _fitting(weights: Weights, inner: Inner, config: Config) -> Weights:
    """Return weights; ValueError where they are not those of the policy."""
    expected = {name: size for name, size in shapes_of_params(inner.shape).items() if name not in OWN}
    if config.learn_steps:
        expected |= learned_step_shapes(inner)
    found = {name: tuple(x.shape) for name, x in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"the parameter {name} is {found.get(name)}; this variant and config expect {expected.get(name)}"
            )
    return weights
