"""Meta-gradient reinforcement learning: what return to learn from is learned as well.

Xu, van Hasselt and Silver 2018, arXiv 1805.09801. An actor-critic step θ' = θ + f(τ, θ, η) learns from the returns that
η = (γ, λ) define. How well θ' does on the next sample τ', by a return that stays as it is (γ̄, λ̄), has a gradient in η
through the step, and η follows it. Then τ' is what the next step learns from.

The trace z ≈ dθ/dη is carried forwards, z' = ∂F/∂θ μ z + ∂F/∂η with F = θ + f: exact through the last step with μ = 0,
through all of them with μ = 1 and plain gradient steps. By option, costs and the step size are learned the same way.
A critic trained on the learned return makes the meta-gradient short-sighted where its values stand for what follows;
an outer critic, trained on (γ̄, λ̄) alone, does not (Bonnet et al. 2022, arXiv 2211.10550).

All functions run on independent runs at once, along the first axis: one in training, each task's own at test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from kshot import random, tasks
from kshot.family import Variant
from kshot.torch_env import TorchEnv
from kshot_baselines.episodes import Episodes, sample
from kshot_baselines.learner import Weights, optimiser_state, random_state, set_optimiser_state, set_random_state
from kshot_baselines.policies import (
    Outputs,
    Params,
    Shape,
    action_map,
    distribution,
    for_tasks,
    initial,
    outputs,
    shape_of,
    shapes_of_params,
)
from kshot_baselines.rounds import RoundAgent

INNER, OUTER, EMBED = "value.", "outer.", "embed"  # before names of parameters, or one itself
MEAN_SQUARE = "return.square"  # the name of the mean of squared returns among the weights
OPTIMISERS = ("rmsprop", "sgd")


@dataclass(frozen=True)
class Config:
    """Settings; the sources leave most of them open for tasks as small as these, see `docs/baselines.md`."""

    steps: int = 1_000_000  # of the environment
    rows: int = 50  # episodes an iteration, a task each
    hidden: tuple[int, ...] = (64, 64)  # for policy and values each
    activation: str = "tanh"  # or relu
    log_std: float = 0.0  # at the start, of actions in [-1, 1]
    embedding: int = 16  # of η, an input of policy and values; 0: none
    discount: float = 0.95  # γ, at the start
    discount_low: float = 0.0  # the least that γ can become; the most is 1
    gae_lambda: float = 0.9  # λ, at the start
    learn_discount: bool = True
    learn_lambda: bool = True
    learn_entropy_cost: bool = False
    learn_value_cost: bool = False
    learn_learning_rate: bool = False
    outer_discount: float = 0.99  # γ̄
    outer_lambda: float = 1.0  # λ̄
    outer_critic: bool = True  # the paper: False
    trace: float = 0.0  # μ
    vtrace: bool = False  # truncated likelihood ratios to the policy that sampled (Espeholt et al. 2018)
    meta_learning_rate: float = 1e-2  # of Adam on η
    optimiser: str = "rmsprop"  # or sgd
    learning_rate: float = 1e-3
    anneal: bool = True  # it falls to 0 in a straight line
    decay: float = 0.99  # of RMSProp
    entropy_cost: float = 0.0
    value_cost: float = 0.5
    max_grad_norm: float = 0.5
    centre: bool = True  # advantages, over the steps of an update
    scale_rewards: bool = True  # by the root mean square of the returns of the episodes so far
    episodes: int = 2  # at test, a round: under one policy, then an update
    eval_learning_rate: float = 3e-3  # at test
    val_episodes: int = 40  # a task, by whose last quarter weights are chosen

    def __post_init__(self) -> None:
        for name in ("rows", "episodes", "val_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser is {self.optimiser!r}; expected one of {', '.join(OPTIMISERS)}")
        ranges = (("discount", self.learn_discount, self.discount_low), ("gae_lambda", self.learn_lambda, 0.0))
        for name, learned, low in ranges:
            if learned and not low < getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name):g}; to be learned it must start between {low:g} and 1"
                )
        for name in ("trace", "outer_discount", "outer_lambda", "discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}; expected 0 to 1")
        if self.learn_entropy_cost and not self.entropy_cost:
            raise ValueError("entropy_cost is 0; to be learned it must start above 0")


class Net(NamedTuple):
    """Shapes of the networks."""

    policy: Shape
    value: Shape
    embedding: int


class Steps(NamedTuple):
    """Steps of n episodes of R runs; those of a run are T times n in a row for the networks."""

    observation: torch.Tensor  # (R, T n, k)
    clock: torch.Tensor  # (R, T n, 1), the part of the episode that is over: values see it, for episodes end
    action: torch.Tensor  # (R, T n, …)
    log_prob: torch.Tensor  # (R, T n), of the policy that acted
    reward: torch.Tensor  # (R, T, n)
    mask: torch.Tensor  # (R, T, n), 0 after an episode's end
    continues: torch.Tensor  # (R, T, n), 1 where the episode went on after the step


class Hyper(NamedTuple):
    """What η means, (R,) each."""

    discount: torch.Tensor
    gae_lambda: torch.Tensor
    entropy_cost: torch.Tensor
    value_cost: torch.Tensor
    learning_rate: torch.Tensor


def learned(c: Config) -> tuple[str, ...]:
    """Return the names of what is meta-learned."""
    flags = (c.learn_discount, c.learn_lambda, c.learn_entropy_cost, c.learn_value_cost, c.learn_learning_rate)
    return tuple(name for name, flag in zip(Hyper._fields, flags, strict=True) if flag)


def ranges_of(c: Config) -> dict[str, tuple[float, float]]:
    """Return between what each of what is meta-learned can be: costs and steps from 0 to twice what they start with."""
    fixed = {"discount": (c.discount_low, 1.0), "gae_lambda": (0.0, 1.0)}
    return {name: fixed.get(name, (0.0, 2 * getattr(c, name))) for name in learned(c)}


def start_of(c: Config) -> torch.Tensor:
    """Return η at the start, (E,): logits of the part of its range that each starts at."""
    parts = [(getattr(c, name) - low) / (high - low) for name, (low, high) in ranges_of(c).items()]
    return torch.tensor([math.log(x / (1 - x)) for x in parts])


def hyper_of(c: Config, eta: torch.Tensor, learning_rate: float | None = None) -> Hyper:
    """Return what η, (R, E), means: sigmoids, each stretched to its range; of a given learning rate where it is."""
    values = {name: eta.new_full(eta.shape[:1], getattr(c, name)) for name in Hyper._fields}
    if learning_rate is not None:
        values["learning_rate"] = torch.full_like(values["learning_rate"], learning_rate)
    for i, (name, (low, high)) in enumerate(ranges_of(c).items()):
        part = torch.sigmoid(eta[:, i])
        values[name] = 2 * values[name] * part if name == "learning_rate" else low + (high - low) * part
    return Hyper(**values)


def seen_of(c: Config, eta: torch.Tensor) -> torch.Tensor:
    """Return what is embedded of η, (R, E): how far it is from its start, lest it drown what is observed."""
    return eta.detach() - start_of(c).to(eta)


def net_of(variant: Variant, c: Config) -> Net:
    """Return the shapes that a config means."""
    policy = shape_of(variant, c.hidden, c.activation)
    embedding = c.embedding if learned(c) else 0
    sizes = (policy.sizes[0] + embedding, *policy.sizes[1:])
    return Net(policy._replace(sizes=sizes), Shape((sizes[0] + 1, *c.hidden, 1), c.activation, True), embedding)


def shapes(net: Net, c: Config) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of one run by name."""
    values = {k: size for k, size in shapes_of_params(net.value).items() if k != "log_std"}
    found = shapes_of_params(net.policy) | {INNER + k: size for k, size in values.items()}
    if c.outer_critic:
        found |= {OUTER + k: size for k, size in values.items()}
    return found | ({EMBED: (len(learned(c)), net.embedding)} if net.embedding else {})


def initial_params(net: Net, c: Config) -> Params:
    """Draw the parameters of one run."""
    params = initial(net.policy)
    params["log_std"] += c.log_std
    for prefix in (INNER, OUTER)[: 1 + c.outer_critic]:
        params |= {prefix + k: x for k, x in initial(net.value).items() if k != "log_std"}
    return params | ({EMBED: torch.randn(len(learned(c)), net.embedding)} if net.embedding else {})


def steps_of(shape: Shape, e: Episodes) -> Steps:
    """Return the steps of episodes, each task's as a run."""
    horizon, runs, n = e.reward_tp1.shape

    def flat(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1).flatten(1, 2)

    action = flat(e.action_t)
    log_prob = distribution(shape, Outputs(flat(e.y_t), e.log_std)).log_prob(action)
    time = torch.arange(horizon, device=action.device, dtype=e.reward_tp1.dtype) / horizon
    clock = time.repeat_interleave(n).expand(runs, -1)[..., None]
    rest = (x.transpose(0, 1).contiguous() for x in (e.reward_tp1, e.mask_t, e.continues_tp1))
    return Steps(flat(e.observation_t), clock, action, log_prob, *rest)


def scaled(c: Config, s: Steps, mean_square: torch.Tensor) -> Steps:
    """Return steps whose rewards are, if they are to be, in units of the root of the mean squared return, (R,).

    Values are of the order of 1 then: steps of one size would take thousands of updates to fit values of −15.
    """
    if not c.scale_rewards:
        return s
    return s._replace(reward=s.reward / (mean_square.sqrt() + 1e-8)[:, None, None])


def policy_outputs(net: Net, theta: Mapping[str, torch.Tensor], x: torch.Tensor, seen: torch.Tensor) -> Outputs:
    """Return what the policies say of observations, (R, n, k), where they see the η that (R, E) is."""
    return outputs(net.policy, theta, _embedded(net, theta, x, seen))


def value(net: Net, theta: Mapping[str, torch.Tensor], prefix: str, s: Steps, seen: torch.Tensor) -> torch.Tensor:
    """Return the values of a critic at all steps, (R, T, n)."""
    own = {k.removeprefix(prefix): x for k, x in theta.items() if k.startswith(prefix)}
    x = torch.cat([_embedded(net, theta, s.observation, seen), s.clock], -1)
    nothing = x.new_zeros(len(x), 0)
    return outputs(net.value, {**own, "log_std": nothing}, x).y.reshape(s.reward.shape)


def _embedded(net: Net, theta: Mapping[str, torch.Tensor], x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    if not net.embedding:
        return x
    found = (seen[:, None] @ theta[EMBED]).expand(-1, x.shape[1], -1)
    return torch.cat([x, found], -1)


def returns(
    reward: torch.Tensor,
    continues: torch.Tensor,
    value_t: torch.Tensor,
    value_tp1: torch.Tensor,
    discount: torch.Tensor,
    lambda_: torch.Tensor | None,
    ratio: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return λ-returns g_t = r + γ ((1 − λ) v_{t+1} + λ g_{t+1}), or with ratios V-trace's targets, differentiable.

    Args:
        reward: (R, T, n).
        continues: (R, T, n), 1 where step t + 1 goes on from there.
        value_t: (R, T, n).
        value_tp1: (R, T, n), 0 where nothing follows.
        discount: (R, T, n) or (R, 1, 1).
        lambda_: likewise; None for 0, which needs no walk through time.
        ratio: (R, T, n), likelihood ratios to the policy that acted; they count up to 1 (arXiv 1802.01561, equation 1).
    """
    weight = torch.ones_like(reward) if ratio is None else ratio.clamp(max=1.0)
    delta = weight * (reward + discount * value_tp1 - value_t)
    if lambda_ is None:
        return delta + value_t
    carry = (discount * lambda_ * continues * weight).expand_as(delta)
    correction, found = torch.zeros_like(delta[:, 0]), []
    for t in reversed(range(delta.shape[1])):
        correction = delta[:, t] + carry[:, t] * correction
        found.append(correction)
    return torch.stack(found[::-1], 1) + value_t


def following(s: Steps, value_t: torch.Tensor) -> torch.Tensor:
    """Return the values of what each step led to, 0 where its episode ended: what is scored ends there as well."""
    return torch.cat([value_t[:, 1:], torch.zeros_like(value_t[:, :1])], 1) * s.continues


def gradient(net: Net, c: Config, theta: Params, hyper: Hyper, s: Steps, seen: torch.Tensor) -> Params:
    """Return −f / α, the gradient of the actor-critic's loss, as a function of θ and η alike.

    The loss is −(g − v) log π + b (g − v)² / 2 − c H, a mean over steps, with g − v constant in the first term and g in
    the second; an outer critic is fitted to its own returns.
    """
    ratio = None
    if c.vtrace:
        new = distribution(net.policy, policy_outputs(net, theta, s.observation, seen)).log_prob(s.action)
        ratio = (new - s.log_prob).exp().reshape(s.reward.shape)
    v = value(net, theta, INNER, s, seen)
    lambda_ = hyper.gae_lambda[:, None, None] if c.learn_lambda or c.gae_lambda else None
    g = returns(s.reward, s.continues, v, following(s, v), hyper.discount[:, None, None], lambda_, ratio)
    weight = s.mask / s.mask.sum((1, 2), keepdim=True)
    advantage = _advantage(c, g - v, weight)
    outer = _outer_returns(c, s, value(net, theta, OUTER, s, seen), ratio) if c.outer_critic else None

    def loss(th: Params) -> torch.Tensor:
        policy = distribution(net.policy, policy_outputs(net, th, s.observation, seen))
        gain = policy.log_prob(s.action) * advantage + hyper.entropy_cost[:, None] * policy.entropy()
        miss = hyper.value_cost[:, None, None] * (g - value(net, th, INNER, s, seen)).square()
        if outer is not None:
            miss = miss + c.value_cost * (outer - value(net, th, OUTER, s, seen)).square()
        return ((0.5 * miss - gain.reshape(miss.shape)) * weight).sum()  # over runs, which share nothing

    found: Params = torch.func.grad(loss)(theta)
    return found


def _advantage(c: Config, a: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return advantages, (R, T, n), as those of a row, centred where they are to be."""
    return (a - (a * weight).sum((1, 2), keepdim=True) if c.centre else a).flatten(1)


def _outer_returns(c: Config, s: Steps, v: torch.Tensor, ratio: torch.Tensor | None = None) -> torch.Tensor:
    discount = v.new_full((1, 1, 1), c.outer_discount)
    lambda_ = v.new_full((1, 1, 1), c.outer_lambda) if c.outer_lambda else None
    return returns(s.reward, s.continues, v, following(s, v), discount, lambda_, ratio)


def stepped(
    c: Config, theta: Params, square: Params, g: Params, learning_rate: torch.Tensor, iteration: int
) -> tuple[Params, Params]:
    """Return θ and RMSProp's moving squares after a step against a gradient, clipped to a norm a run.

    The squares are means over the first iterations: from zeros, the first step, at iteration 0, would be ten times too
    large.
    """
    # As one vector: for forward derivatives, PyTorch takes longer over many small tensors than over a large one.
    start, moments, direction = (torch.cat([x[k].flatten(1) for k in theta], 1) for x in (theta, square, g))
    norm = direction.square().sum(1, keepdim=True).sqrt()
    direction = direction * (c.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
    if c.optimiser == "rmsprop":
        moments = moments + max(1 - c.decay, 1 / (iteration + 1)) * (direction.square() - moments)
        # The root of the sum has a derivative at 0 too, where a unit is not in use.
        direction = direction / (moments + 1e-8).sqrt()
    sizes = [x[0].numel() for x in theta.values()]

    def parts(flat: torch.Tensor) -> Params:
        return {k: x.reshape(theta[k].shape) for k, x in zip(theta, torch.split(flat, sizes, 1), strict=True)}

    return parts(start - learning_rate[:, None] * direction), parts(moments)


def advance(
    net: Net,
    c: Config,
    theta: Params,
    square: Params,
    eta: torch.Tensor,
    trace: Params,
    s: Steps,
    lr: float,
    iteration: int,
) -> tuple[Params, Params, Params]:
    """Return θ', its moving squares, and the trace dθ'/dη.

    Args:
        net: the networks.
        c: the settings.
        theta: (R, …) each.
        square: likewise.
        eta: (R, E).
        trace: dθ/dη, (E, R, …) each; with μ = 0 it may be anything of that shape.
        s: what the step learns from.
        lr: the learning rate, or what it starts from where it is learned.
        iteration: how many came before.
    """
    seen = seen_of(c, eta)

    def update(theta: Params, eta: torch.Tensor) -> tuple[Params, Params]:
        hyper = hyper_of(c, eta, lr)
        return stepped(c, theta, square, gradient(net, c, theta, hyper, s, seen), hyper.learning_rate, iteration)

    def along(z: Params, direction: torch.Tensor) -> Params:
        found: Params
        if c.trace:
            found = torch.func.jvp(update, (theta, eta), (z, direction), has_aux=True)[1]
        else:  # in η alone: nothing is carried through the networks, which is cheaper
            found = torch.func.jvp(lambda eta: update(theta, eta), (eta,), (direction,), has_aux=True)[1]
        return found

    new, squares = update(theta, eta)
    if not eta.shape[1]:
        return new, squares, trace
    each = torch.eye(eta.shape[1], device=eta.device, dtype=eta.dtype)[:, None].expand(-1, *eta.shape)
    return new, squares, torch.func.vmap(along)({k: c.trace * x for k, x in trace.items()}, each)


def meta_gradient(net: Net, c: Config, theta: Params, trace: Params, s: Steps, seen: torch.Tensor) -> torch.Tensor:
    """Return the gradient in η, (R, E), of −J', the loss of θ on a sample by the outer return alone.

    J' is the policy's: its advantages are constants, over the outer critic or, without one, over the learned return's.
    """
    v = value(net, theta, OUTER if c.outer_critic else INNER, s, seen)
    weight = s.mask / s.mask.sum((1, 2), keepdim=True)
    advantage = _advantage(c, _outer_returns(c, s, v) - v, weight)

    def loss(th: Params) -> torch.Tensor:
        policy = distribution(net.policy, policy_outputs(net, th, s.observation, seen))
        return -(policy.log_prob(s.action) * advantage * weight.flatten(1)).sum()

    g = torch.func.grad(loss)(theta)
    return sum((g[k] * trace[k]).flatten(2).sum(-1) for k in g).mT  # type: ignore[no-any-return]


class Learner:
    """A training run on tasks of the training law."""

    def __init__(self, variant: Variant, config: Config, seed: int, device: str | torch.device) -> None:
        """Draw the networks; seeds torch's generator."""
        torch.manual_seed(seed)
        self.steps = self.iteration = 0
        self._variant, self._config, self._seed, self._device = variant, config, seed, torch.device(device)
        self.net = net_of(variant, config)
        self.theta = {k: x[None].to(device) for k, x in initial_params(self.net, config).items()}
        self._square = {k: torch.zeros_like(x) for k, x in self.theta.items()}
        self.eta = start_of(config)[None].to(device)
        self._trace = {k: x.new_zeros(self.eta.shape[1], *x.shape) for k, x in self.theta.items()}
        self._adam = torch.optim.Adam([self.eta], lr=config.meta_learning_rate)
        self._mean_square = torch.zeros(1, device=device)  # of returns
        self._env = TorchEnv(variant.id, config.rows, device)
        self._to_env = action_map(variant.action_space, self._device)

    def iterate(self) -> dict[str, float]:
        """Run an iteration.

        Returns:
            `return`, the mean over episodes; `loss`, the meta-objective's gradient's norm; `entropy`; what η means.
        """
        c = self._config
        seen = seen_of(c, self.eta)
        found = self._sample(seen)
        s = steps_of(self.net.policy, found)
        outcome = s.reward.sum(1)
        self._mean_square = self._mean_square.lerp(outcome.square().mean(1), 1 / (self.iteration + 1))
        s = scaled(c, s, self._mean_square)
        lr = c.learning_rate * (max(0.0, 1 - self.steps / c.steps) if c.anneal else 1.0)
        self.steps += found.mask_t.numel()
        norm = 0.0
        if learned(c):
            g = meta_gradient(self.net, c, self.theta, self._trace, s, seen)
            if self.iteration:  # before, nothing has depended on η
                self.eta.grad, norm = g, float(g.norm())
                self._adam.step()
        self.theta, self._square, self._trace = advance(
            self.net, c, self.theta, self._square, self.eta.detach(), self._trace, s, lr, self.iteration
        )
        self.iteration += 1
        policy = distribution(self.net.policy, policy_outputs(self.net, self.theta, s.observation, seen))
        entropy = (policy.entropy() * s.mask.flatten(1)).sum() / s.mask.sum()
        hyper = hyper_of(c, self.eta.detach())
        return {
            "return": float(outcome.mean()),
            "loss": norm,
            "entropy": float(entropy),
            **{name: float(getattr(hyper, name)) for name in learned(c)},
        }

    def _sample(self, seen: torch.Tensor) -> Episodes:
        """Run an episode in every row, each of a task of its own."""
        task_seed, row_seed = np.random.SeedSequence([self._seed, self.iteration]).generate_state(2, np.uint64)
        self._env.set_task(tasks.sample(self._variant, "train", self._config.rows, int(task_seed >> 1)))
        seeds = random.row_seeds(int(row_seed >> 1), self._env.num_envs)
        actor, shape = acting(self.net, self.theta, seen)
        return sample(self._env, shape, actor, self._config.rows, self._to_env, seeds)

    def weights(self) -> Weights:
        """Return the networks, η, and what rewards are scaled by."""
        own = {**self.theta, "eta": self.eta, MEAN_SQUARE: self._mean_square}
        return {k: x[0].detach().cpu().clone() for k, x in own.items()}

    def get_state(self) -> dict[str, Any]:
        """Return all that the future of the run depends on."""
        return {
            "steps": self.steps,
            "iteration": self.iteration,
            "weights": self.weights(),
            "square": {k: x[0].cpu().clone() for k, x in self._square.items()},
            "trace": {k: x.cpu().clone() for k, x in self._trace.items()},
            "adam": optimiser_state(self._adam),
            "random": random_state(self._device),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps, self.iteration = int(state["steps"]), int(state["iteration"])
        weights = {k: x[None].to(self._device) for k, x in state["weights"].items()}
        self.eta.data.copy_(weights.pop("eta"))
        self._mean_square = weights.pop(MEAN_SQUARE)
        self._square = {k: state["square"][k][None].to(self._device) for k in self.theta}
        self.theta = {k: weights[k] for k in self.theta}
        self._trace = {k: x.to(self._device) for k, x in state["trace"].items()}
        set_optimiser_state(self._adam, state["adam"])
        set_random_state(state["random"], self._device)


def acting(net: Net, theta: Params, seen: torch.Tensor) -> tuple[Params, Shape]:
    """Return policies that take observations alone: what they see of η is the same at every step, a bias."""
    if not net.embedding:
        return {k: theta[k] for k in shapes_of_params(net.policy)}, net.policy
    k = net.policy.sizes[0] - net.embedding
    weight = theta["0.weight"]
    bias = theta["0.bias"] + ((seen[:, None] @ theta[EMBED]) @ weight[:, k:]).squeeze(1)
    own = {name: theta[name] for name in shapes_of_params(net.policy)}
    shape = net.policy._replace(sizes=(k, *net.policy.sizes[1:]))
    return {**own, "0.weight": weight[:, :k], "0.bias": bias}, shape


class Agent(RoundAgent):
    """Goes on learning on each task from what was trained, with its η, by a step after every round of episodes.

    RMSProp starts anew: gradients of a task's few episodes are many times those of training's means.
    """

    name = "mgrl"
    adapts = True

    def __init__(
        self, variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device
    ) -> None:
        """Take what was trained; ValueError where it does not fit the variant and config."""
        self._net = net_of(variant, config)
        plain = shape_of(variant, config.hidden, config.activation)
        super().__init__(variant, plain, config.episodes, seed, torch.device(device))
        self.config: dict[str, Any] = asdict(config)
        self._settings, self.least_episodes = config, config.val_episodes
        self._start = {k: x.to(device) for k, x in _fitting(weights, self._net, config).items()}

    def begin(self, n: int) -> None:
        """Give each task a copy of everything."""
        own = {k: x.clone(memory_format=torch.contiguous_format) for k, x in for_tasks(self._start, n).items()}
        self._eta, self._mean_square = own.pop("eta"), own.pop(MEAN_SQUARE)
        self._theta, self._seen_of_eta = own, seen_of(self._settings, self._eta)
        self._square, self._updates = {k: torch.zeros_like(x) for k, x in own.items()}, 0
        self._actor = acting(self._net, self._theta, self._seen_of_eta)[0]

    def outputs(self, x: torch.Tensor) -> Outputs:
        """Return what each task's policy says."""
        return outputs(self.shape, self._actor, x)

    def learn(self, found: Episodes) -> None:
        """Take the actor-critic's step for each task."""
        c = self._settings
        s = scaled(c, steps_of(self.shape, found), self._mean_square)
        hyper = hyper_of(c, self._eta, c.eval_learning_rate)
        g = gradient(self._net, c, self._theta, hyper, s, self._seen_of_eta)
        self._theta, self._square = stepped(c, self._theta, self._square, g, hyper.learning_rate, self._updates)
        self._updates += 1
        self._actor = acting(self._net, self._theta, self._seen_of_eta)[0]


def learner(variant: Variant, config: Config, seed: int, device: str | torch.device) -> Learner:
    """Start a run."""
    return Learner(variant, config, seed, device)


def agent(variant: Variant, config: Config, weights: Weights, seed: int, device: str | torch.device = "cpu") -> Agent:
    """Return what was trained, to be evaluated."""
    return Agent(variant, config, weights, seed, device)


def _fitting(weights: Weights, net: Net, c: Config) -> Weights:
    """Return weights; ValueError where they are not those of the networks."""
    sizes = shapes(net, c)
    expected = {**sizes, "eta": (len(learned(c)),), MEAN_SQUARE: ()}
    found = {k: tuple(x.shape) for k, x in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"the parameter {name} is {found.get(name)}; this variant and config expect {expected.get(name)}"
            )
    return weights
