"""Checkpoints: atomic, verified, fenced, and enough to go on bit for bit. `docs/explanation/checkpoints.md` says how and why."""
