"""The API of the fine-tuning operator: resources, the plan and the wire format. Needs pydantic only, and does no I/O."""
