"""The end of a job: the model, its card, where it comes from, and the report, in the folder that spec.output names.

Each model is written beside its place, loaded from there by `from_pretrained` alone and compared with what was trained; only then it takes
its place. A run that is repeated replaces what it published itself, and nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from finetune_api.constants import ExitCode, Reason
from finetune_api.v1alpha1.fine_tune_job import OutputFormat
from finetune_api.v1alpha1.status import Artifact, Provenance
from finetune_api.wire import Activity, RunResult, TrainerConfig
from finetune_trainer import arms, outcome, provenance
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.data.prepared import Prepared
from finetune_trainer.errors import TrainerError
from finetune_trainer.export import adapter, verify
from finetune_trainer.export.place import PROVENANCE, Place, check_place, measured, new_folder, weights_digest, written
from finetune_trainer.export.plain_model import write_model
from finetune_trainer.export.verify import CastCost, Probe, QuantizationCost
from finetune_trainer.measuring import folded_model
from finetune_trainer.methods.registry import method_of
from finetune_trainer.modeling.base import load_config
from finetune_trainer.modeling.plain import inner_model, plain_weights
from finetune_trainer.modeling.quantised import known
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Head
from finetune_trainer.progress import Reporter
from finetune_trainer.report import model_card
from finetune_trainer.run_folder import RunFolder
from finetune_trainer.tokenizer import load_tokenizer

CARD: Final = "README.md"


@dataclass(frozen=True)
class Publication:
    """What every part of it needs."""

    model: StageModel
    config: TrainerConfig
    place: Place
    tokenizer: Any
    probe: Probe
    wanted: torch.Tensor
    """The trained model's logits on the probe; of one that was trained on a quantised base, those on the base in fp32."""
    quantized: QuantizationCost | None
    """How far these are apart."""
    known: RunResult
    """What was measured, and what share of each stage's change was handed over."""
    facts: Provenance
    revision: str | None
    """The hub's commit of the base."""
    files: FileLayer
    pause: Callable[[], None]

    @property
    def device(self) -> torch.device:
        return next(self.model.module.parameters()).device


def publish(
    model: StageModel,
    config: TrainerConfig,
    prepared: Prepared,
    facts: Provenance,
    *,
    reporter: Reporter,
    pause: Callable[[], None] = lambda: None,
    files: FileLayer | None = None,
) -> list[Artifact]:
    """Publish the last stage's model. Its weights become fp32 in place, which loses nothing: it is the last thing that happens to it.

    `pause` is called between the steps, each of which a repetition does again; it raises Stopped once a signal is to be answered.
    Raises TrainerError: RunFolderMismatch (another job's model is in the way), StorageFull, StorageUnwritable, InternalError.
    """
    place = check_place(config)
    tokenizer = load_tokenizer(prepared.tokenizer_folder, config.spec)
    model.module.float()
    probe = Probe.of(prepared.stages[model.stage.name].train, pad=tokenizer.pad_token_id)
    wanted, quantized = compared(model, tokenizer, probe)
    revision = prepared.provenance.model_revision if config.spec.model.uri.startswith("hf://") else None
    job = Publication(
        model=model,
        config=config,
        place=place,
        tokenizer=tokenizer,
        probe=probe,
        wanted=wanted,
        quantized=quantized,
        known=outcome.complete(RunResult(outcome="Succeeded", exit_code=ExitCode.SUCCESS), config),
        facts=facts,
        revision=revision,
        files=files or FileLayer(),
        pause=pause,
    )
    kinds = formats(model, config)
    notes = [quantized.sentence()] if quantized is not None else []
    artifacts: list[Artifact] = []
    for done, kind in enumerate(kinds):
        reporter.report(
            Activity.PUBLISH, done=done, total=len(kinds), unit="models", message=f"the {kind} model is written and loaded again"
        )
        notes += _publish_adapter(job) if kind is OutputFormat.ADAPTER else _publish_merged(job)
        artifacts.append(_artifact(job, kind.value, kind.value))
        pause()
    artifacts.append(_publish_card(job, kinds, notes))
    artifacts.append(_publish_report(job, artifacts))
    reporter.report(Activity.PUBLISH, done=len(kinds), total=len(kinds), unit="models", message=f"published to {place.uri}")
    return artifacts


def compared(
    model: StageModel, tokenizer: Any, probe: Probe, *, computing: AbstractContextManager[Any] | None = None
) -> tuple[torch.Tensor, QuantizationCost | None]:
    """The logits that a published model must have, and what it costs to leave a quantised base for the one in fp32.

    computing: what the trained model computes in, while its weights are of several types.
    """
    with computing or nullcontext():
        trained = probe.logits(model.module)
    if known(inner_model(model.module)) is None:
        return trained, None
    exact = probe.logits(folded_model(model, tokenizer))
    return exact, verify.quantization_cost(trained, exact, probe, model.head)


def facts(config: TrainerConfig, prepared: Prepared) -> Provenance:
    """What the model is made from; of several seeds, with the one that is published."""
    known = arms.read(RunFolder(Path(config.run_folder)))
    seed = known.seeds.published if known and known.seeds else config.spec.data_seed
    return provenance.complete(prepared.provenance.model_copy(update={"seed": seed}), config)


def formats(model: StageModel, config: TrainerConfig) -> list[OutputFormat]:
    """What is published: as the manifest says, else the adapter where it works on the base as everyone has it or cannot be merged, else the merged model."""
    row, asked = model.stage.method.row, config.spec.output.format
    if asked is not None:
        if OutputFormat.ADAPTER in asked and not row.adapter:
            raise TrainerError(Reason.INVALID_SPEC, "the last stage makes no adapter: write format: [merged]", where="spec.output.format")
        return list(dict.fromkeys(asked))
    simple = row.adapter and not adapter.needs_base(model) and (not row.stacks or adapter.is_one_adapter(adapter.stacked(model)))
    return [OutputFormat.ADAPTER if simple or not row.folds else OutputFormat.MERGED]


def _publish_merged(job: Publication) -> list[str]:
    with new_folder(job.place.folder / OutputFormat.MERGED, job.files) as folder:
        write_model(folder, job.model, plain_weights(job.model.module), job.tokenizer)
        job.pause()
        loaded = verify.load_merged(folder, job.model.head)
        difference = verify.check(loaded, job.wanted, job.probe, device=job.device, what="merged model")
        cost = verify.cast_cost(loaded, job.wanted, job.probe, job.model.head)
        _write_provenance(job, folder, difference, cost)
    return [cost.sentence()]


def _publish_adapter(job: Publication) -> list[str]:
    target = job.place.folder / OutputFormat.ADAPTER
    base = _base(job)
    with new_folder(target, job.files) as folder:
        own = adapter.needs_base(job.model)
        if own:
            write_model(folder / adapter.BASE, job.model, adapter.base_weights(job.model), job.tokenizer)
        adapter.write_adapter(folder, job.model, base, job.tokenizer)
        job.pause()
        loaded = verify.load_adapter(folder, folder / adapter.BASE if own else job.model.start.model, job.model)
        difference = verify.check(loaded, job.wanted, job.probe, device=job.device, what="adapter on its base")
        _write_provenance(job, folder, difference, None)
    return _adapter_notes(job, own_base=own)


def _adapter_notes(job: Publication, *, own_base: bool) -> list[str]:
    """What a reader must know to put the adapter on its base."""
    if own_base:
        return [f"The adapter's base is the folder {adapter.BASE} inside its own; after moving it, give the new path to from_pretrained."]
    pad = inner_model(job.model.module).config.pad_token_id
    if job.model.head is Head.CLASSIFICATION and load_config(job.model.start.model).pad_token_id != pad:
        return [f"Set base.config.pad_token_id = {pad} before rows are padded: the classifier reads the last token that is no padding."]
    return []


def _base(job: Publication) -> adapter.BaseReference:
    target = job.place.folder / OutputFormat.ADAPTER
    return adapter.base_reference(job.model, job.config.spec, revision=job.revision, target=target)


def _write_provenance(job: Publication, folder: Path, difference: float, cost: CastCost | None) -> None:
    verification: dict[str, Any] = {"largestLogitDifference": difference, "tolerance": verify.TOLERANCE}
    if cost is not None:
        verification["castToBf16"] = cost.document()
    if job.quantized is not None:
        verification["quantizedBase"] = job.quantized.document()
    more = {"verification": verification, "precision": job.model.precision.record(), **_scales(job.known)}
    data = provenance.document(job.config, job.facts, **more)
    job.files.write_file(folder / PROVENANCE, [data])


def _scales(known: RunResult) -> dict[str, Any]:
    """For provenance.json: of what share of which stage's change this is made; the manifest alone does not say it where validation data chose."""
    found = outcome.scales(known)
    return {"handOverScales": found} if found else {}


def _publish_card(job: Publication, kinds: Sequence[OutputFormat], notes: Sequence[str]) -> Artifact:
    """The card and provenance.json beside the models."""
    card = model_card.render(
        job.config,
        job.known.evaluation,
        job.facts,
        kinds=[kind.value for kind in kinds],
        adapter_base=_base(job).name if OutputFormat.ADAPTER in kinds else None,
        loader=adapter.LOADER if method_of(job.model.stage.method.type).form is not None else None,
        labels=job.model.labels,
        scales=outcome.scales(job.known),
        notes=notes,
    )
    job.files.replace_file(job.place.folder / PROVENANCE, provenance.document(job.config, job.facts, **_scales(job.known)))
    job.files.replace_file(job.place.folder / CARD, card.encode())
    return _artifact(job, "modelCard", CARD)


def _publish_report(job: Publication, artifacts: Sequence[Artifact]) -> Artifact:
    from finetune_trainer.report import html  # drawing costs seconds to import, which no start of a run shall wait for

    result = job.known.model_copy(update={"artifacts": list(artifacts), "provenance": job.facts})
    page = html.write_report(RunFolder(Path(job.config.run_folder)), result=result)
    target = job.place.folder / page.name
    if target.resolve() != page.resolve():
        written(target, lambda: shutil.copyfile(page, target))
    return _artifact(job, "report", page.name)


def _artifact(job: Publication, kind: str, name: str) -> Artifact:
    path = job.place.folder / name
    digest, size = measured(path)
    weights = weights_digest(path) if path.is_dir() else None
    return Artifact.model_validate({"kind": kind, "uri": job.place.of(name), "sha256": digest, "bytes": size, "weightsSha256": weights})
