"""What is published and how: `place` (where it goes), `plain_model` and `adapter` (its files), `verify` (that they load as what was trained)."""
