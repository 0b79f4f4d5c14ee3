"""What tests of training share."""

from pathlib import Path

import pytest


@pytest.fixture
def toy(monkeypatch):
    """Return the module of `toy_method`, which stands in the table of methods for one test."""
    pytest.importorskip("torch")
    from kshot_baselines import methods

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setitem(methods.METHODS, "toy", "toy_method")
    import toy_method

    return toy_method
