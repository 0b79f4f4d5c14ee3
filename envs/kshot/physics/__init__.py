"""Physics engines behind one small protocol: C MuJoCo on the CPU (`cpu.py`)."""
