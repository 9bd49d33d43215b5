"""Models as stages see them. From the bottom up: `start` (what a stage starts from), `base` (the plain model), `plain` (the plain model inside
a trained one), then the methods, then `stage_model` (the module that a method trains)."""
