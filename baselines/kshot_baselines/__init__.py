"""Reference baselines for kshot, in PyTorch."""
