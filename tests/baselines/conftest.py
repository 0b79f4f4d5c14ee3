"""What tests of training share."""

from pathlib import Path

import numpy as np
import pytest

import kshot


@pytest.fixture
def toy(monkeypatch):
    """Return the module of `toy_method`, which stands in the table of methods for one test."""
    pytest.importorskip("torch")
    from kshot_baselines import methods

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setitem(methods.METHODS, "toy", "toy_method")
    import toy_method

    return toy_method


@pytest.fixture
def checked():
    """Return a check of a method that adapts by rounds; it gives back the finished run and its curve.

    A run that goes on from a state has the same curve and weights, and what it made is evaluated.
    """
    torch = pytest.importorskip("torch")

    def check(module, v, config, iterations=4, episodes=12):
        whole, first, second = (module.learner(v, config, 0, "cpu") for _ in range(3))
        curves = []
        torch.manual_seed(0)
        start = whole.get_state()
        for run in (whole, first):
            run.set_state(start)
            curves.append([run.iterate() for _ in range(iterations if run is whole else 2)])
        state = first.get_state()
        first.iterate()  # must not reach into the state
        torch.rand(5)
        second.set_state(state)
        curves.append([second.iterate() for _ in range(iterations - 2)])
        assert curves[1] + curves[2] == curves[0]
        assert all(np.isfinite(list(m.values())).all() for m in curves[0])
        assert all(torch.equal(whole.weights()[k], second.weights()[k]) for k in whole.weights())
        assert whole.steps == second.steps
        agent = module.agent(v, config, whole.weights(), 0)
        found = kshot.evaluate(agent, v.id, split="val", num_tasks=4, episodes=episodes)
        assert np.isfinite(found.returns).all()
        card = found.agent
        assert (card.name, card.adapts, card.first_update) == (module.__name__.split(".")[-1], True, card.round)
        return whole, curves[0], card.round

    return check
