"""Live progress: pods report over HTTPS, the operator checks who they are, and folds what they say into the status, seldom and fairly."""
