"""Exact resume, proved: runs that are killed at random times end in the same bytes as those that were left alone.

FINETUNE_KILLS sets the kills per configuration (6), FINETUNE_KILL_SEED the times (another seed each time; the header prints it).
"""

KILL_SEED = "FINETUNE_KILL_SEED"
