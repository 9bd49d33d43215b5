"""The trainer: takes a model through the stages of a FineTuneJob, on one machine, with no knowledge of Kubernetes."""
