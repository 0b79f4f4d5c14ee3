"""Why RL² stays behind on random MDPs: how fast its memory learns what it is told to remember.

The network of the registered settings is trained, on trials of random actions, to say the posterior mean reward of each
action in the current state, which its inputs determine: least squares on the answer itself, where reinforcement
learning has but the return. Printed is the part of the variance that it explains on trials it has not seen, against
steps; and, to compare with, the score of a learner that ignores the state, Thompson sampling over the actions alone.

    python benchmarks/mdp_memory.py --steps 10000000
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
import typer

import kshot
from kshot.agents import Experience
from kshot.torch_env import TorchEnv
from kshot_baselines import rl2
from kshot_baselines.hparams import config_for
from kshot_baselines.rollout import Stream

PRIOR_MEAN = PRIOR_PRECISION = NOISE_PRECISION = 1.0  # of the law of the rewards, the paper's


class StateBlind:
    """Thompson sampling over the actions of an MDP as if they were those of a bandit."""

    name, round, privileged, adapts, first_update = "state-blind", 1, False, True, 1

    def __init__(self, actions: int) -> None:
        """Take the number of actions."""
        self.config = {"prior_mean": PRIOR_MEAN}
        self._actions = actions

    def reset(self, n: int) -> None:
        """Forget everything."""
        self._random = np.random.default_rng(0)
        self._sum, self._count = np.zeros((2, n, self._actions))

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Draw each action's mean from its posterior, and take the largest."""
        precision = PRIOR_PRECISION + self._count
        mean = (PRIOR_PRECISION * PRIOR_MEAN + self._sum) / precision
        return (mean + self._random.standard_normal(mean.shape) / np.sqrt(precision)).argmax(1)

    def observe(self, experience: Experience) -> None:
        """Count."""
        rows = np.arange(len(self._sum))
        self._sum[rows, experience.action] += experience.reward
        self._count[rows, experience.action] += 1

    def end_episode(self) -> None:
        """Go on."""


def trials(stream: Stream, steps: int, states: int, actions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs of trials of random actions, (T, rows, inputs), and the posterior means, (T, rows, actions)."""
    rows = stream.env.num_envs
    every, inputs, answers = torch.arange(rows), [], []
    total, count = torch.zeros(2, rows, states, actions)
    for _ in range(steps):
        state = stream.x[:, :states].argmax(1)
        inputs.append(stream.x)
        answers.append(
            (PRIOR_PRECISION * PRIOR_MEAN + NOISE_PRECISION * total[every, state])
            / (PRIOR_PRECISION + NOISE_PRECISION * count[every, state])
        )
        action = torch.randint(actions, (rows,))
        total[every, state, action] += stream.step(action).reward
        count[every, state, action] += 1
    return torch.stack(inputs), torch.stack(answers)


def main(
    variant: Annotated[str, typer.Option(help="a TabularMDP")] = "TabularMDP-n10-v0",
    steps: Annotated[int, typer.Option(help="of the environment, to learn from")] = 10_000_000,
    every: Annotated[int, typer.Option(help="steps between lines")] = 1_000_000,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
) -> None:
    """Train and print."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    v = kshot.variant(variant)
    states, actions, length = v.observation_space.shape[0], int(v.action_space.n), v.horizon * v.trial
    blind = kshot.evaluate(StateBlind(actions), v.id, split="val", episodes=v.trial)
    print(f"{v.id} val, ignoring the state: {np.sum(blind.returns, 1).mean():.1f} a trial")
    c = config_for("rl2", v)
    net = rl2.network(v, c)
    head = torch.nn.Linear(c.memory, actions)
    params = [*net.bodies.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(params, lr=c.learning_rate, eps=1e-5, fused=True)
    stream = Stream(TorchEnv(v.id, c.rows, "cpu", episodes_per_task=v.trial), v.trial)
    stream.begin(0)

    def miss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        start = torch.zeros(x.shape[:2], dtype=torch.bool)
        found = net.bodies[0].unroll(x, start, x.new_zeros(x.shape[1], c.memory))
        return (head(found) - y).square().mean()

    done = 0
    while done < steps:
        x, y = trials(stream, length, states, actions)
        if done % every < length * c.rows:  # before it learns from them
            with torch.no_grad():
                print(f"{done:>11,} steps: {1 - float(miss(x, y) / (y - y.mean()).square().mean()):6.3f}", flush=True)
        for _ in range(c.epochs):
            for some in torch.randperm(c.rows).chunk(c.minibatches):
                optimiser.zero_grad(set_to_none=True)
                miss(x.index_select(1, some), y.index_select(1, some)).backward()
                torch.nn.utils.clip_grad_norm_(params, c.max_grad_norm)
                optimiser.step()
        done += length * c.rows


if __name__ == "__main__":
    typer.run(main)
