"""What a stage trains, one file a method; `registry` has them by name."""
