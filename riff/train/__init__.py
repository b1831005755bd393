"""Training: the loop, checkpoints and latent caches (extra `[train]`)."""
