"""The operator: FineTuneJobs become Kubernetes Jobs, and what happens to them comes back onto the resource."""
