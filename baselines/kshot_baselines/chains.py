"""Three chains that show what meta-gradients do to returns, each with as many independent runs as wanted at once.

    python -m kshot_baselines.chains

- `signal`: ten steps that pay 0.1 or a number from N(0, 1), in turn. γ of a state is learned: it should let
  through what follows from states where the reward is a signal, and cut off what follows from noise.
- `aliased`: nine steps; each random reward is followed by its negation, and all states between the two look alike.
  λ of a state is learned: it should be low where the value is well known, and high at those that look alike.
- `discounting`: bsuite's Discounting Chain (Osband et al. 2020, arXiv 1908.03568): the first action chooses one of five
  chains, which pay after 1, 3, 10, 30 and 100 steps; that of 30 pays 1.1, the others 1. One γ is learned by the
  actor-critic of `mgrl`, with values that stand for all that follows; an outer critic keeps it from being short-sighted
  (Bonnet et al. 2022, arXiv 2211.10550).

The first two are figure 1 of Xu et al. 2018 (arXiv 1805.09801): tabular prediction.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.nn.functional import one_hot

from kshot.tasks import write_bytes
from kshot_baselines import mgrl
from kshot_baselines.policies import Params, Shape, distribution, outputs

DELAYS, BEST, LENGTH = (1, 3, 10, 30, 100), 3, 100
STATES = len(DELAYS) + 2
UPDATES = 8_000
SYMBOLS = {"discount": "γ", "lambda": "λ"}


class Prediction(NamedTuple):
    """A chain whose values are to be predicted, one episode after the other."""

    looks: torch.Tensor  # (T,), which entry of the table of values each step's state has
    states: tuple[str, ...]  # what the entries are called
    kinds: tuple[str, ...]  # the kind of each entry
    rewards: Callable[[int], torch.Tensor]  # of so many runs, (R, T)
    learns: str  # "discount" or "lambda", of the state that a step leads to


def signal_chain(length: int = 10) -> Prediction:
    """Return the chain of noise and signal in turn."""
    noisy = torch.arange(length) % 2 == 0

    def rewards(runs: int) -> torch.Tensor:
        return torch.where(noisy, torch.randn(runs, length), 0.1)

    kinds = tuple("noise" if x else "signal" for x in noisy)
    return Prediction(torch.arange(length), tuple(map(str, range(length))), kinds, rewards, "discount")


def aliased_chain(length: int = 9) -> Prediction:
    """Return the chain of rewards and their negations."""
    second = torch.arange(length) % 2 == 1
    known = int((~second).sum())

    def rewards(runs: int) -> torch.Tensor:
        first = torch.randn(runs, known).repeat_interleave(2, 1)[:, :length]
        return torch.where(second, -first, first)

    looks = torch.where(second, known, torch.arange(length) // 2)
    names = (*map(str, range(0, length, 2)), "aliased")
    return Prediction(looks, names, ("known",) * known + ("aliased",), rewards, "lambda")


def predict(
    chain: Prediction,
    runs: int,
    seed: int = 0,
    episodes: int = 2_000,
    learning_rate: float = 0.5,
    meta_learning_rate: float = 0.5,
    trace: float = 0.9,
    start: float = 0.0,
) -> torch.Tensor:
    """Learn values and what they are learned from; return γ or λ of each state after each episode, (episodes, R, S).

    θ' = θ + α (g − v) ∂v, and J' is the mean squared error to undiscounted returns of the next episode.
    """
    torch.manual_seed(seed)
    looks, size = chain.looks, len(chain.states)
    v, eta = torch.zeros(runs, size), torch.full((runs, size), start)
    z = torch.zeros(size, runs, size)  # dv/dη: of η, of runs, of v
    directions = torch.eye(size)[:, None].expand(size, runs, size)
    continues = torch.ones(len(looks))
    continues[-1] = 0
    share = learning_rate / torch.bincount(looks)[looks]  # of a step: entries that several have learn from their mean
    found = []
    for _ in range(episodes):
        reward = chain.rewards(runs)
        outcome = reward.flip(1).cumsum(1).flip(1)
        meta = -2 * ((outcome - v[:, looks]) * z[..., looks]).mean(-1).mT  # (R, S)
        eta = eta - meta_learning_rate * meta
        found.append(torch.sigmoid(eta))

        def updated(v: torch.Tensor, eta: torch.Tensor, reward: torch.Tensor = reward) -> torch.Tensor:
            value_t = v[:, looks]
            value_tp1 = torch.cat([value_t[:, 1:], torch.zeros_like(value_t[:, :1])], 1)
            own = torch.sigmoid(eta)[:, looks]
            own = torch.cat([own[:, 1:], torch.zeros_like(own[:, :1])], 1)  # of where the step led
            ones = torch.ones_like(own)
            gamma, lambda_ = (own, ones) if chain.learns == "discount" else (ones, own)
            parts = (reward, continues.expand_as(reward), value_t, value_tp1, gamma, lambda_)
            g = mgrl.returns(*(x[..., None] for x in parts))[..., 0]
            return v.index_add(1, looks, share * (g - value_t))

        def along(z: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
            change: torch.Tensor = torch.func.jvp(updated, (v, eta), (z, direction))[1]  # noqa: B023  # used at once
            return change

        z = torch.func.vmap(along)(trace * z, directions)
        v = updated(v, eta)
    return torch.stack(found)


def discount(
    outer_critic: bool, runs: int, seed: int = 0, updates: int = UPDATES, batch: int = 16
) -> tuple[torch.Tensor, torch.Tensor]:
    """Learn the Discounting Chain; return the mean return of each update's episodes and γ, (updates, R) each.

    After Bonnet et al.: linear networks, γ in (0.9, 1) from 0.95 on, γ̄ = 1, entropy cost 0.005, plain gradient steps,
    Adam with 0.1 for η. Theirs are 50,000 updates of 128 episodes with λ = λ̄ = 0 and steps of 0.5; of the ones here
    there are fewer, with λ = λ̄ = 0.95 and steps of 2, so that values come to know of a reward 100 steps away in time.
    """
    torch.manual_seed(seed)
    c = mgrl.Config(
        hidden=(), embedding=0, discount=0.95, discount_low=0.9, gae_lambda=0.95, learn_lambda=False,
        outer_discount=1.0, outer_lambda=0.95, outer_critic=outer_critic, entropy_cost=0.005, optimiser="sgd",
        learning_rate=2.0, max_grad_norm=1e9, meta_learning_rate=0.1, centre=False,
    )  # fmt: skip
    net = mgrl.Net(Shape((STATES, len(DELAYS)), "tanh", True), Shape((STATES + 1, 1), "tanh", True), 0)
    one = {k: torch.zeros(runs, *size) for k, size in mgrl.shapes(net, c).items()}
    theta: Params = one
    square = {k: torch.zeros_like(x) for k, x in theta.items()}
    eta = mgrl.start_of(c).repeat(runs, 1)
    adam = torch.optim.Adam([eta], lr=c.meta_learning_rate)
    trace = {k: x.new_zeros(1, *x.shape) for k, x in theta.items()}
    curves = []
    for i in range(updates):
        s = _episodes(net, theta, runs, batch)
        seen = mgrl.seen_of(c, eta)
        if i:
            eta.grad = mgrl.meta_gradient(net, c, theta, trace, s, seen)
            adam.step()
        theta, square, trace = mgrl.advance(net, c, theta, square, eta.detach(), trace, s, c.learning_rate, i)
        curves.append(torch.stack([s.reward.sum(1).mean(1), mgrl.hyper_of(c, eta.detach()).discount]))
    returns, gammas = torch.stack(curves, 1)
    return returns, gammas


def _episodes(net: mgrl.Net, theta: Params, runs: int, n: int) -> mgrl.Steps:
    """Run n episodes of each run; the states are the start, each chain until it has paid, and the rest, one-hot.

    Of bsuite's, the number of the chain and the time, linear values could not tell the best chain from its neighbours.
    """
    delays, time = torch.tensor(DELAYS), torch.arange(LENGTH)

    def seen(state: torch.Tensor) -> torch.Tensor:
        return one_hot(state, STATES).float().flatten(1, -2)

    def drawn(observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        policy = distribution(net.policy, outputs(net.policy, theta, observation))
        action = policy.sample()
        return action, policy.log_prob(action)

    start = torch.zeros(runs, n, dtype=torch.long)
    chosen, log_prob = drawn(seen(start))
    waits = time[:, None] < delays[chosen][:, None]  # (R, T, n)
    state = torch.where(waits, chosen[:, None] + 1, STATES - 1)
    state[:, 0] = start
    observation = seen(state)
    action, log_probs = drawn(observation)
    action[:, :n], log_probs[:, :n] = chosen, log_prob
    pays = one_hot(delays - 1, LENGTH).float()  # (chains, T)
    pays[BEST] *= 1.1
    reward = pays[chosen].transpose(1, 2)
    mask = torch.ones_like(reward)
    continues = mask.clone()
    continues[:, -1] = 0
    clock = torch.zeros(runs, LENGTH * n, 1)
    return mgrl.Steps(observation, clock, action, log_probs, reward, mask, continues)


class Found(NamedTuple):
    """What was learned at the end of the runs, the last tenth."""

    chain: str
    what: str
    runs: torch.Tensor  # (R,)


def main(
    seeds: Annotated[int, typer.Option(help="independent runs")] = 10,
    path: Annotated[Path | None, typer.Option("--json", help="where to write the curves and the table")] = None,
    updates: Annotated[int, typer.Option(help="of the Discounting Chain")] = UPDATES,
) -> None:
    """Run all chains and print what was learned."""
    found: list[Found] = []
    curves: dict[str, list[list[float]]] = {}  # by what, (points, R)
    for name, chain in (("signal", signal_chain()), ("aliased", aliased_chain())):
        learned = predict(chain, seeds)  # (episodes, R, S)
        # Nothing leads to the first state: what it has is of no effect.
        for i, (state, kind) in list(enumerate(zip(chain.states, chain.kinds, strict=True)))[1:]:
            what = f"{SYMBOLS[chain.learns]} of state {state} ({kind})"
            found.append(Found(name, what, _late(learned[..., i])))
            curves[f"{name}: {what}"] = _thinned(learned[..., i])
    for critic in (False, True):
        how = "with an outer critic" if critic else "without an outer critic"
        for what, x in zip(("return", SYMBOLS["discount"]), discount(critic, seeds, updates=updates), strict=True):
            found.append(Found("discounting", f"{what} {how}", _late(x)))
            curves[f"discounting: {what} {how}"] = _thinned(x)
    rows = [(x.chain, x.what, f"{x.runs.mean():.3f}", f"{x.runs.min():.3f} – {x.runs.max():.3f}") for x in found]
    table = Table("chain", "what", "mean over runs", "least – most")
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)
    if path is not None:
        write_bytes(path, (json.dumps({"rows": rows, "curves": curves}, ensure_ascii=False) + "\n").encode())


def _late(x: torch.Tensor) -> torch.Tensor:
    """Return the mean of the last tenth of curves, (R,)."""
    return x[-max(1, len(x) // 10) :].mean(0)


def _thinned(x: torch.Tensor, points: int = 80) -> list[list[float]]:
    """Return curves, (time, R), as means over equal parts of the time."""
    means = [part.mean(0) for part in x.tensor_split(min(points, len(x)))]
    return [[round(float(y), 4) for y in mean] for mean in means]


if __name__ == "__main__":
    typer.run(main)
