"""The methods table: every method and guard on two tasks with one budget, over seeds. `python -m tests.bench.methods`."""
