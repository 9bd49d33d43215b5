"""Every manifest of examples/ is validated, run, and its result loaded without this project."""
