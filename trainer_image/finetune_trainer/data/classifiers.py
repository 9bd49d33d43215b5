"""The trained classifiers that judge a stage's answers: where they lie, and whether each can tell what it is asked to tell."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from finetune_api.constants import REASONS, Reason
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.training import CLASSIFIER, Classifier
from finetune_api.wire import TrainerConfig
from finetune_trainer.data.models import LocatedModel, locate_folder
from finetune_trainer.errors import TrainerError
from finetune_trainer.tokenizer import own_tokenizer, read_json

HINT: Final = (
    "Point it at a sequence classifier that was trained to tell answers from mere continuations, as transformers saves it: a classification "
    "stage of such rows, published as merged, makes one."
)
HEAD: Final = "ForSequenceClassification"
_UNNAMED: Final = {"0": "LABEL_0", "1": "LABEL_1"}
"""What transformers calls two classes that nobody named: then it leaves them out of config.json."""


class StageClassifier(NamedTuple):
    stage: str
    classifier: Classifier


def classifiers_of(spec: FineTuneJobSpec) -> dict[str, StageClassifier]:
    """The classifiers of a job, by the field that names each."""
    return {
        f"spec.stages[{number}].{CLASSIFIER}": StageClassifier(stage.name, stage.training.classifier)
        for number, stage in enumerate(spec.stages)
        if stage.training.classifier is not None
    }


def locate_classifier(classifier: Classifier, *, config: TrainerConfig, where: str, revision: str | None = None) -> LocatedModel:
    """Find a classifier and check its folder, but for its tokenizer, which costs more. `where`: its field of the manifest; `revision`: as in `locate_model`.

    Raises TrainerError: SourceNotFound, SourceForbidden, SourceUnreachable, ModelUnsupported, ModelUnsafe, InvalidSpec (the label).
    """
    at = f"{where}.uri"
    try:
        found = locate_folder(
            classifier.uri,
            config=config,
            revision=classifier.revision or revision,
            credentials=classifier.credentials,
            where=at,
        )
        answer_index(found.path, classifier, where=where)
    except TrainerError as error:
        raise _of_a_classifier(error) from error.__cause__
    return found


def check_tokenizer(folder: Path, *, where: str) -> None:
    """Load the classifier's tokenizer. `where`: its field of the manifest. Raises TrainerError(ModelUnsupported)."""
    try:
        own_tokenizer(folder, where=f"{where}.uri")
    except TrainerError as error:
        raise _of_a_classifier(error) from error.__cause__


def _of_a_classifier(error: TrainerError) -> TrainerError:
    if error.hint == REASONS[Reason.MODEL_UNSUPPORTED].hint:  # it speaks of the base model
        error.hint = HINT
    return error


def answer_index(folder: Path, classifier: Classifier, *, where: str) -> int:
    """The number of the class that means an answer. Raises TrainerError where the folder is no classifier, or has no such class."""
    if folder.is_file():
        raise TrainerError(Reason.MODEL_UNSUPPORTED, f"{folder} is a GGUF file, which holds no classification head", where=f"{where}.uri")
    config = read_json(folder / "config.json")
    architectures = [str(name) for name in config.get("architectures") or []]
    if not any(name.endswith(HEAD) for name in architectures):
        told = f"is {', '.join(architectures)}" if architectures else "names no architecture"
        raise TrainerError(
            Reason.MODEL_UNSUPPORTED, f"{folder} {told}, and not a trained sequence classifier (…{HEAD})", where=f"{where}.uri"
        )
    labels = {int(index): str(label) for index, label in (config.get("id2label") or _UNNAMED).items()}
    if len(labels) < 2 or config.get("problem_type") not in (None, "single_label_classification"):
        told = config.get("problem_type") or f"{len(labels)} class"
        message = f"{folder} does not choose one of several classes (its config.json has {told})"
        raise TrainerError(Reason.MODEL_UNSUPPORTED, message, where=f"{where}.uri")
    chosen = [index for index, label in labels.items() if label == classifier.answer]
    if len(chosen) != 1:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"the classifier has no label {classifier.answer!r}: write the one of {', '.join(labels[index] for index in sorted(labels))} "
            "that means an answer",
            where=f"{where}.label",
        )
    return chosen[0]
