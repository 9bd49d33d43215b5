"""`prepare`: find the model and the data, tokenise each source once, audit, and say everything that is wrong at once.

What is the same as last time is not done again: nothing at all where no file changed (told by its size, times and inode), and no
source whose content, tokenizer and options are the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.wire import Activity, TrainerConfig
from finetune_trainer.backends import needed
from finetune_trainer.data.build import Builder, Progress, size
from finetune_trainer.data.cache import PartCache
from finetune_trainer.data.classifiers import check_tokenizer, classifiers_of, locate_classifier
from finetune_trainer.data.hashes import FileHashes, combined
from finetune_trainer.data.models import UNLIMITED, Limits, LocatedModel, length_limits, locate_model, model_files
from finetune_trainer.data.prepared import PreparedStage, read_report
from finetune_trainer.data.problems import Problems
from finetune_trainer.data.report import VERSION, ClassifierReport, ModelReport, PrepareReport, TokenizerReport
from finetune_trainer.data.sources import Located, locate
from finetune_trainer.data.summary import Summary
from finetune_trainer.data.tasks import tasks
from finetune_trainer.engine.order import stage_order
from finetune_trainer.errors import TrainerError
from finetune_trainer.lean import lean_imports
from finetune_trainer.progress import Reporter
from finetune_trainer.run_folder import RunFolder
from finetune_trainer.tokenizer import Padding, end_tokens, fingerprint, load_with_padding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def never() -> bool:
    """Nobody asks to stop."""
    return False


def prepare(
    config: TrainerConfig, reporter: Reporter, *, stop: Callable[[], bool] = never, clock: Callable[[], int] = time.time_ns
) -> None:
    """Leave RUN/prepare.json and the tokenised rows that it names, for `load_prepared`. `clock`: nanoseconds since the epoch.

    Raises TrainerError for all that is wrong with the model and the data together, and Stopped.
    """
    began = time.monotonic()
    folder = RunFolder(Path(config.run_folder))
    folder.prepared.mkdir(parents=True, exist_ok=True)
    previous, hashes, problems = read_report(folder), FileHashes(folder.prepared / "hashes.json", clock=clock), Problems()
    found = _find(config, previous, problems)
    problems.raise_if_any()
    cache = PartCache.of(folder.prepared)
    if previous is not None and _whole(previous, folder, cache) and previous.inputs == _inputs(config, found, hashes.known):
        reporter.report(Activity.PREPARE, message="the data is prepared already, and nothing changed")
        return
    report = _prepare(config, found, folder, hashes, cache, problems, reporter, stop)
    report = report.model_copy(update={"seconds": round(time.monotonic() - began, 3)})
    _write(folder.prepare_report, report.model_dump_json(indent=1, exclude_none=True))
    hashes.save()
    problems.raise_if_any()
    # Only now: until prepare.json was written, the one before it named other parts.
    cache.sweep({source.key for source in report.sources()} | ({report.tokenizer.folder} if report.tokenizer else set()))


@dataclass
class _Found:
    """The model, and the files of every source and the folder of every classifier by the field that names it."""

    model: LocatedModel
    sources: dict[str, Located]
    classifiers: dict[str, LocatedModel]


def _find(config: TrainerConfig, previous: PrepareReport | None, problems: Problems) -> _Found:
    """Look for everything, whatever is missing. A branch of the hub stays at the commit that this run's first start resolved it to."""
    known, found = _revisions(previous), _Found(LocatedModel(Path(), None), {}, {})
    try:
        found.model = locate_model(config, revision=known.get("spec.model"))
    except TrainerError as error:
        problems.add_error(error)
    for where, named in classifiers_of(config.spec).items():
        try:
            found.classifiers[where] = locate_classifier(named.classifier, config=config, where=where, revision=known.get(where))
        except TrainerError as error:
            problems.add_error(error)
    for task in tasks(config.spec, UNLIMITED).every:
        source = task.source
        try:
            found.sources[task.where] = locate(
                source.uri,
                config=config,
                revision=source.revision or known.get(task.where),
                credentials=source.credentials,
                where=f"{task.where}.uri",
                format=source.format,
            )
        except TrainerError as error:
            problems.add_error(error)
    return found


def _prepare(
    config: TrainerConfig,
    found: _Found,
    folder: RunFolder,
    hashes: FileHashes,
    cache: PartCache,
    problems: Problems,
    reporter: Reporter,
    stop: Callable[[], bool],
) -> PrepareReport:
    limits = length_limits(found.model.path)
    every = tasks(config.spec, limits)
    tokenizer, padding = load_with_padding(found.model.path, config.spec)
    ends, digest = end_tokens(found.model.path, tokenizer), fingerprint(tokenizer)
    progress = Progress(reporter)
    builder = Builder(tokenizer, digest, ends, hashes, cache, problems, progress, stop)
    inapplicable = {task.where: message for _, task in every.suites if (message := builder.refusal(task)) is not None}
    wanted = [task for task in every.every if task.where not in inapplicable]
    progress.total = sum(size(found.sources[task.where]) for task in wanted if not builder.has(task, found.sources[task.where]))
    built = {task.where: builder.build(task, found.sources[task.where]) for task in wanted}
    sources = {where: source for where, source in built.items() if source is not None}
    summary = Summary(config.spec, every, sources, inapplicable, folder, problems).run()
    _check_classifiers(found, problems)
    _check_methods(config, found.model.path, tokenizer, summary.prepared, problems)
    if tokenizer.eos_token is None:
        summary.warnings.append("the tokenizer has no end token: documents don't end with one")
    saved = _save_tokenizer(tokenizer, digest, folder)
    return PrepareReport(
        config_hash=config.config_hash,
        inputs=_inputs(config, found, hashes.sha256) or "",
        model=_model_report(config, found, limits, hashes),
        tokenizer=_tokenizer_report(tokenizer, padding, digest, saved, ends),
        classifiers=_classifier_reports(config, found, hashes),
        stages=summary.stages,
        suites=summary.suites,
        leaks=summary.leaks,
        warnings=summary.warnings,
        errors=problems.listed(),
        error_count=problems.count,
    )


def _check_methods(
    config: TrainerConfig, model: Path, tokenizer: PreTrainedTokenizerFast, prepared: Mapping[str, PreparedStage], problems: Problems
) -> None:
    """Ask the model's names and shapes, and the length of the stages, whether their methods and guards can do what they say; only where it
    matters, since looking costs seconds."""
    if not any(stage.method.asks_the_model for stage in config.spec.stages):
        return
    with lean_imports(needed(config.spec.stages)):
        from finetune_trainer.engine.precision import training_device
        from finetune_trainer.guards.anchored import guard_problems
        from finetune_trainer.modeling.sketch import machine_problems, method_problems  # imports torch, the architectures and PEFT

    lengths = {
        stage.name: stage_order(stage, prepared[stage.name], config.spec.data_seed).length(stage.training)
        for stage in config.spec.stages
        if stage.name in prepared and stage.method.asks_the_model
    }
    device = training_device() if config.pod is None else None  # another pod will train, perhaps on another kind of node
    stages = config.spec.stages
    for error in (*machine_problems(stages, device), *method_problems(model, stages, tokenizer, lengths), *guard_problems(model, stages)):
        problems.add_error(error)


def _check_classifiers(found: _Found, problems: Problems) -> None:
    """Load their tokenizers, and ask the names of their tensors whether a head was trained; only where there are any, since looking costs seconds."""
    if not found.classifiers:
        return
    from finetune_trainer.modeling.classifier import check_head  # imports torch and the architectures

    for where, classifier in found.classifiers.items():
        try:
            check_tokenizer(classifier.path, where=where)
            check_head(classifier.path, where=f"{where}.uri")
        except TrainerError as error:
            problems.add_error(error)


def _whole(previous: PrepareReport, folder: RunFolder, cache: PartCache) -> bool:
    """Whether everything that an earlier report names is still there."""
    if previous.error_count or previous.tokenizer is None or not (folder.prepared / previous.tokenizer.folder).is_dir():
        return False
    return all(cache.find(source.key) is not None for source in previous.sources())


def _revisions(previous: PrepareReport | None) -> dict[str, str]:
    """Commits that an earlier start resolved, by the field of the manifest."""
    if previous is None:
        return {}
    known = {source.field: source.revision for source in previous.sources() if source.revision is not None}
    known |= {classifier.field: classifier.commit for classifier in previous.classifiers if classifier.commit is not None}
    if previous.model is not None and previous.model.commit is not None:
        known["spec.model"] = previous.model.commit
    return known


def _inputs(config: TrainerConfig, found: _Found, sha256: Callable[[Path], str | None]) -> str | None:
    """A hash over everything that the result was made from; None where a file's hash isn't known."""
    folders = [found.model.path, *(classifier.path for classifier in found.classifiers.values())]
    files = [
        *(file for folder in folders for file in model_files(folder)),
        *(file for located in found.sources.values() for file in located.files),
    ]
    hashes = [sha256(file) for file in files]
    if None in hashes:
        return None
    document = {
        "versions": [VERSION, version("transformers"), version("tokenizers")],
        "config": config.config_hash,
        "model": str(found.model.path),
        "sources": {where: [located.format, located.names] for where, located in found.sources.items()},
        "hashes": hashes,
    }
    if found.classifiers:
        document["classifiers"] = {where: str(classifier.path) for where, classifier in found.classifiers.items()}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _model_report(config: TrainerConfig, found: _Found, limits: Limits, hashes: FileHashes) -> ModelReport:
    model = found.model
    return ModelReport(
        uri=config.spec.model.uri,
        folder=str(model.path),
        commit=model.revision,
        revision=model.revision or combined(hashes.sha256(file) for file in model_files(model.path)),
        max_length=limits.hard,
    )


def _classifier_reports(config: TrainerConfig, found: _Found, hashes: FileHashes) -> list[ClassifierReport]:
    return [
        ClassifierReport(
            stage=named.stage,
            field=where,
            uri=named.classifier.uri,
            folder=str(found.classifiers[where].path),
            commit=found.classifiers[where].revision,
            sha256=combined(hashes.sha256(file) for file in model_files(found.classifiers[where].path)),
        )
        for where, named in classifiers_of(config.spec).items()
    ]


def _tokenizer_report(tokenizer: PreTrainedTokenizerFast, padding: Padding, digest: str, saved: str, ends: list[int]) -> TokenizerReport:
    return TokenizerReport(
        sha256=digest,
        folder=saved,
        vocabulary=len(tokenizer),
        pad_token=padding.token,
        pad_why=padding.why,
        end_tokens=ends,
        chat_template=bool(tokenizer.chat_template),
    )


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, digest: str, folder: RunFolder) -> str:
    """Save it beside the rows, whole or not at all; returns the folder's name."""
    name = f"tokenizer-{digest[:16]}"
    place, temporary = folder.prepared / name, folder.prepared / f".building-{name}"
    if not place.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
        tokenizer.save_pretrained(temporary)
        temporary.rename(place)
    return name


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
