"""What the operator costs: its writes, its memory, a restart, and its speed beside plain Jobs (`python -m tests.bench.operator`)."""
