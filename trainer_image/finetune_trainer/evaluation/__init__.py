"""What a model can do before, between and after the stages: suites, metrics, bootstrap intervals, gates."""
