"""What touches bytes: stores, checkpoints, kernels, methods, work units."""
