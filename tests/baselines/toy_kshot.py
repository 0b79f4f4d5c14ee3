"""The command `kshot`, with the method of tests."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from kshot.cli import main
    from kshot_baselines import queue
    from kshot_baselines.methods import METHODS

    METHODS["toy"] = "toy_method"
    queue.PROGRAM = (sys.executable, __file__)
    main()
