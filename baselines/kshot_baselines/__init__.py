"""Reference baselines for kshot, in PyTorch; not written yet."""
