"""finetune.dev/v1alpha1: the resources as pydantic models."""
