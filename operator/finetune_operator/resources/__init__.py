"""Pure builders of what the operator makes: they return manifests and read nothing."""
