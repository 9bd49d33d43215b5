"""What a stage learns."""

from enum import StrEnum


class Objective(StrEnum):
    CAUSAL_LANGUAGE_MODELING = "causalLanguageModeling"
    MASKED_LANGUAGE_MODELING = "maskedLanguageModeling"
    SUPERVISED = "supervised"
    CLASSIFICATION = "classification"
