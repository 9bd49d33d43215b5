"""The commands that speak to a cluster. Only `options` and `commands` are imported before one of them runs."""
