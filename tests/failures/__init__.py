"""The failure set: what can go wrong in every layer, seeded on purpose, and each hint tried by doing what it says (`make failures`)."""
