"""What people read afterwards: the report of a run, and the card of the model."""
