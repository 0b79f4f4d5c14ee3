"""The README does what it says: its Python runs from top to bottom, and so does a user's path to the leaderboard."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kshot.results import Result

README = (Path(__file__).parents[2] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
SHELL = re.findall(r"```sh\n(.*?)```", README, re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder in which the README's Python was run."""
    here = tmp_path_factory.mktemp("readme")
    done = subprocess.run([sys.executable, "-c", "\n".join(PYTHON)], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return here


def test_its_python_runs(folder):
    assert (folder / "ppo.safetensors").stat().st_size > 10_000
    assert Result.load(folder / "mine/result.json").split == "ood-far"


def test_a_users_path(folder):
    (training,) = [block for block in PYTHON if "export_policy" in block]
    assert "import gymnasium" in training  # it stands alone
    (commands,) = [block.splitlines() for block in SHELL if "ppo.safetensors" in block]
    assert len([line for line in training.splitlines() if line]) <= 12
    assert len(commands) <= 5
    for command in commands:
        done = subprocess.run(
            [Path(sys.executable).with_name("kshot"), *command.split()[1:]], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if " verify " in command:
            assert "run again: bit for bit" in done.stdout
            assert "fresh tasks: same" in done.stdout
    assert {p.suffix for p in (folder / "baselines/results/my-ppo").iterdir()} == {".json", ".safetensors"}
    page = (folder / "leaderboard.md").read_text()
    assert "`my-ppo`, *provisional*" in page
    assert "| 20,800 |" in page  # training steps: 13 rollouts of 1,600
    pictures = {p.name for p in (folder / "mine").glob("*.svg")}
    assert pictures == {
        "PointGoal-v0-train-adaptation.svg",
        "PointGoal-v0-test-adaptation.svg",
        "PointGoal-v0-ood-far-adaptation.svg",
        "PointGoal-v0-gaps.svg",
    }
    trained = Result.load(folder / "mine/PointGoal-v0-test-my-ppo-seed0.json").score()
    assert -16 < trained < -15  # random −17; staying in the middle −15.3 is the best that knows nothing of the goal
