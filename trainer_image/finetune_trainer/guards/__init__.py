"""What is kept of the model while a stage trains, one file a guard; `registry` has them by name."""
