"""What the operator tells Prometheus, at /metrics: about itself, about all jobs together, and about each job.

`catalogue` says what there is, and docs/reference/metrics.md is made from it. What happens in the operator is counted by `instruments`;
what stands in the statuses of the jobs is kept by `ledger` and told by `collectors`, so that a series ends with its object.
"""
