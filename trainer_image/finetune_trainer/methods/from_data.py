"""Where a LoRA begins that looks at the stage's data first: EVA (arXiv 2410.07170) and CorDA (arXiv 2406.05223), by PEFT's decompositions.

What is found, the first A of each module and with CorDA the first B, is all that is needed to begin so again: it is in every checkpoint, and a
stage that goes on from one, or trains the adapter of the stage before on, looks at no data.

Four traps of PEFT 0.21 are gone round. EVA's loop over the batches has no end where a batch has fewer tokens than components, or where they never
settle: batches are made long enough, and the passes counted. It finds modules with equal inputs by every number of the first batch as an object
of Python: it is shown a few tokens. Its own loading works on a single adapter only: ranks become a rank pattern here.
CorDA's hook takes one row at a time and no pooler, which sees one vector a row: the covariances are summed here, scaled as PEFT scales them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from peft import EvaConfig, LoraConfig, PeftModel
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import collect_eigens_for_layer, crop_corda_eigens
from peft.tuners.lora.eva import get_eva_state_dict
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.lora import CordaMode, Lora, LoraInitialization
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Course, Setting
from finetune_trainer.methods.peft_models import PEFT_PREFIX, TRAINED
from finetune_trainer.methods.stacks import TAKEN, lora_layers, taken_out, with_frozen
from finetune_trainer.methods.targets import shape_of
from finetune_trainer.modeling.base import seeded
from finetune_trainer.pulse import beat

Tensors = Mapping[str, torch.Tensor]
MOST_PASSES: Final = 30
"""Over the rows, until EVA's components stand still; a few are enough where they ever do."""
FEW_TOKENS: Final = 16
ATTRIBUTE: Final = "begun_from_data"
MODES: Final = {CordaMode.INSTRUCTION_PREVIEWED: "ipm", CordaMode.KNOWLEDGE_PRESERVED: "kpm"}


@dataclass(frozen=True)
class Found:
    """The first matrices, {module}.A and with CorDA {module}.B, fp32 on the CPU; and what is told of how they were found."""

    tensors: Tensors
    facts: Mapping[str, Any]


class Begun(Course):
    """Remembers where the adapter began."""

    def __init__(self, found: Found) -> None:
        self._found = found

    def tensors(self) -> Tensors:
        return self._found.tensors

    def document(self) -> dict[str, Any]:
        return dict(self._found.facts)

    def summary(self) -> dict[str, Any]:
        return dict(self._found.facts)

    def told(self) -> dict[str, str]:
        facts = self._found.facts
        looked = f", from {facts['rows']} rows of {facts['tokens']} tokens, drawn with seed {facts['seed']}" if "rows" in facts else ""
        return {"began": f"{facts['begins']}{looked}"} | ({"ranks given": str(facts["ranks"])} if "ranks" in facts else {})

    def load(self, tensors: Tensors, document: Mapping[str, Any]) -> None:
        self._found = Found(tensors, document)


def course(module: nn.Module) -> Course:
    """Nothing to remember for a start that looks at no data."""
    found = getattr(module, ATTRIBUTE, None)
    return Begun(found) if isinstance(found, Found) else Course()


def begun_from_data(setting: Setting, options: Lora, config: LoraConfig) -> PeftModel:
    """The model with an adapter that begins from the stage's rows, or where it began before. Raises TrainerError (InvalidSpec, DataEmpty)."""
    known = _known(setting)
    if options.initialization is LoraInitialization.EVA:
        found = _eva(setting, options, config) if known is None else known
        module = _with_ranks(setting, config, found)
    elif known is None:
        facts = _covariances(setting, options, config)
        module = _put_on(setting, config)
        found = Found(taken_out(module), facts)
    else:
        found = known
        module = _put_on(setting, dataclasses.replace(config, init_lora_weights=True, corda_config=None))
        _take_out(module, found.tensors)
    setattr(module, ATTRIBUTE, found)
    return module


def check_ranks(setting: Setting, options: Lora, names: Sequence[str], ranks: Mapping[str, int]) -> None:
    """Raise TrainerError(InvalidSpec) where EVA could give a module a rank above that of its matrix."""
    modules = dict(setting.plain.model.named_modules())
    rho = options.growth
    for name in names:
        most, limit = round(ranks.get(name, options.r) * rho), min(shape_of(modules[name]))
        if most > limit:
            raise TrainerError(
                Reason.INVALID_SPEC,
                f"{name} could get rank {most}, {rho:g} times its own, and a matrix of {' × '.join(map(str, shape_of(modules[name])))} "
                f"has {limit}: write a lower r or rho",
                where=setting.field("rho" if options.rho else "r"),
            )


def _known(setting: Setting) -> Found | None:
    """From a checkpoint of the stage, else from the adapter that trains on; what is trained beside has another ending."""
    if setting.remembered:
        return Found(dict(setting.remembered), {})
    if setting.start.trained is None:
        return None
    trained = setting.start.trained
    taken = {name.removeprefix(TAKEN): tensor for name, tensor in trained.items() if name.startswith(TAKEN)}
    ending = f".lora_A.{TRAINED}.weight"
    first = {
        f"{name.removeprefix(PEFT_PREFIX).removesuffix(ending)}.A": tensor for name, tensor in trained.items() if name.endswith(ending)
    }
    return Found(taken or first, {"begins": "where the stage before ended"})


def _put_on(setting: Setting, config: LoraConfig) -> PeftModel:
    with seeded(setting.seed):
        return with_frozen(setting.plain.model, setting.start.adapters, config)


def _rows(setting: Setting, options: Lora, *, replayed: bool = False) -> list[torch.Tensor]:
    if setting.examples is None:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"{options.initialization} begins from rows of the stage, and there are none here: write another initialization",
            where=setting.field("initialization"),
        )
    return setting.examples.drawn(options.rows_to_begin, replayed=replayed, where=setting.field("initialization"))


@contextmanager
def _looking(setting: Setting) -> Iterator[Any]:
    """The model whose inputs are looked at: what the adapter will stand on, frozen adapters folded in; evaluated, where it will train."""
    from finetune_trainer.modeling.stage_model import fold_stack

    plain, examples = setting.plain, setting.examples
    assert examples is not None, "rows were drawn before"
    looked = dataclasses.replace(plain, model=copy.deepcopy(plain.model)) if setting.start.adapters else plain
    if setting.start.adapters:
        fold_stack(looked, setting.start)
    training = looked.model.training
    try:
        with torch.no_grad():
            yield looked.model.to(examples.device).eval()
    finally:
        looked.model.to("cpu").train(training)


def _forward(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
    """Through the backbone alone: every module that can have an adapter is in it, and the logits of a vocabulary would need the most memory."""
    beat()
    getattr(model, model.base_model_prefix)(input_ids=ids, attention_mask=mask)


def _see_tokens(model: Any, names: Iterable[str], row: torch.Tensor) -> list[str]:
    """Those of the modules that get a vector for each token."""
    seen: list[str] = []
    hooks = []
    for name in names:

        def look(module: nn.Module, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
            if inputs[0].ndim == 3:
                seen.append(name)

        hooks.append(model.get_submodule(name).register_forward_pre_hook(look))
    try:
        _forward(model, row[None], torch.ones_like(row[None]))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _eva(setting: Setting, options: Lora, config: LoraConfig) -> Found:
    """Each module's first principal directions, in the order of what they explain over all modules, as many as there were ranks before."""
    rows = _rows(setting, options)
    batches = _grouped(rows, options.directions, setting.stage.training.batch_rows)
    calls = 0

    def forward(model: Any, inputs: Mapping[str, torch.Tensor]) -> None:
        nonlocal calls
        calls += 1
        if calls > MOST_PASSES * len(batches) + 1:
            raise TrainerError(
                Reason.INVALID_SPEC,
                f"the directions have not settled after {MOST_PASSES} passes over {len(rows)} rows: write more initializationRows, or a lower r or rho",
                where=setting.field("initialization"),
            )
        _forward(model, inputs["input_ids"], inputs["attention_mask"])

    chosen = [str(name) for name in config.target_modules or ()]
    with _looking(setting) as model:
        names = _see_tokens(model, chosen, rows[0].to(next(model.parameters()).device))
        asked = LoraConfig(
            r=options.r,
            rank_pattern={name: rank for name, rank in (config.rank_pattern or {}).items() if name in names},
            target_modules=names,
            init_lora_weights=cast(Any, "eva"),
            eva_config=EvaConfig(rho=options.growth, use_label_mask=False),
        )
        with seeded(setting.seed):
            found = get_eva_state_dict(model, _Batches(batches), peft_config=asked, forward_fn=cast(Any, forward), show_progress_bar=False)
    tensors = {f"{name}.A": tensor.detach().float().cpu().clone() for name, tensor in found.items() if len(tensor)}
    ranks = sorted(len(found[name]) for name in names)
    facts = {
        "begins": "eva",
        **_facts(setting, rows),
        "ranks": f"{ranks[0]} to {ranks[-1]}, {ranks.count(0)} of {len(ranks)} modules without",
        **({"asByDefault": sorted(set(chosen) - set(names))} if set(chosen) - set(names) else {}),
    }
    return Found(tensors | _unseen(setting, config, [name for name in chosen if name not in names]), facts)


def _unseen(setting: Setting, config: LoraConfig, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The first A of modules that EVA does not begin, as by default."""
    modules, ranks = dict(setting.plain.model.named_modules()), config.rank_pattern or {}
    with seeded(setting.seed):
        made = {name: nn.Linear(shape_of(modules[name])[1], ranks.get(name, config.r), bias=False) for name in names}
        for linear in made.values():
            nn.init.kaiming_uniform_(linear.weight, a=5**0.5)
    return {f"{name}.A": linear.weight.detach() for name, linear in made.items()}


def _with_ranks(setting: Setting, config: LoraConfig, found: Found) -> PeftModel:
    """The adapter with the ranks that were found, each update on the scale that it had with its own; modules without a rank have none."""
    ranks = {name.removesuffix(".A"): len(tensor) for name, tensor in found.tensors.items()}
    own = {name: (config.rank_pattern or {}).get(name, config.r) for name in ranks}
    alphas = {name: (config.alpha_pattern or {}).get(name, config.lora_alpha) * rank / own[name] for name, rank in ranks.items()}
    ranked = dataclasses.replace(
        config,
        target_modules=[str(name) for name in config.target_modules or () if name in ranks],
        rank_pattern={name: rank for name, rank in ranks.items() if rank != config.r},
        alpha_pattern={name: alpha for name, alpha in alphas.items() if alpha != config.lora_alpha},
        init_lora_weights=True,
    )
    module = _put_on(setting, ranked)
    with torch.no_grad():
        for name, layer in lora_layers(module).items():
            layer.lora_A[TRAINED].weight.copy_(found.tensors[f"{name}.A"])
    return module


class _Batches:
    """The batches, after a few tokens at the first look: by these PEFT finds modules with equal inputs, in lists of Python's floats."""

    def __init__(self, batches: Sequence[dict[str, torch.Tensor]]) -> None:
        self._batches, self._looks = batches, 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        self._looks += 1
        few = {name: tensor[:1, :FEW_TOKENS] for name, tensor in self._batches[0].items()}
        return iter([few] if self._looks == 1 else self._batches)


def _grouped(rows: Sequence[torch.Tensor], most: int, size: int) -> list[dict[str, torch.Tensor]]:
    """Rows together, padded, at least `size` of them and twice as many tokens as components, where there are so many."""
    groups: list[list[torch.Tensor]] = [[]]
    for row in rows:
        if len(groups[-1]) >= size and sum(map(len, groups[-1])) >= 2 * most:
            groups.append([])
        groups[-1].append(row)
    if len(groups) > 1 and sum(map(len, groups[-1])) < 2 * most:
        last = groups.pop()
        groups[-1] += last
    pad = nn.utils.rnn.pad_sequence
    return [
        {
            "input_ids": pad(group, batch_first=True),
            "attention_mask": pad([torch.ones_like(row) for row in group], batch_first=True),
        }
        for group in groups
    ]


def _covariances(setting: Setting, options: Lora, config: LoraConfig) -> dict[str, Any]:
    """Decompose each module's weight times the covariance of its inputs, for PEFT's LoRA to begin from; returns what is told of it."""
    mode = options.mode
    rows = _rows(setting, options, replayed=mode is CordaMode.KNOWLEDGE_PRESERVED)
    modules = {str(name): setting.plain.model.get_submodule(str(name)) for name in config.target_modules or ()}
    with _looking(setting) as model:
        sums = _sums(model, list(modules), rows)
    for name, module in modules.items():
        module.covariance_matrix = sums.pop(name).cpu() / len(rows)
        module.corda_method, module.rank = MODES[mode], (config.rank_pattern or {}).get(name, config.r)
        module.eigens = collect_eigens_for_layer(module, config)
        del module.covariance_matrix
        beat()
    crop_corda_eigens(setting.plain.model, config)
    for module in modules.values():
        del module.corda_method, module.rank
    return {"begins": f"corda, {mode}", **_facts(setting, rows)}


def _sums(model: Any, names: Sequence[str], rows: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inputs' products of each module, a row at a time, each row scaled by its largest input as PEFT does."""
    sums: dict[str, torch.Tensor] = {}

    def add(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen = inputs[0].detach().float().flatten(0, -2)
            seen = seen / seen.max().abs().clamp(min=torch.finfo(torch.float32).tiny)
            sums[name] = sums.get(name, 0) + seen.T @ seen

        return hook

    hooks = [model.get_submodule(name).register_forward_pre_hook(add(name)) for name in names]
    device = next(model.parameters()).device
    try:
        for row in rows:
            _forward(model, row[None].to(device), torch.ones_like(row[None]).to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return sums


def _take_out(module: PeftModel, taken: Tensors) -> None:
    """Begin where an adapter began before: its first matrices, and the residual that they left, as PEFT makes it."""
    with torch.no_grad():
        for name, layer in lora_layers(module).items():
            a, b = taken[f"{name}.A"], taken[f"{name}.B"]
            layer.lora_A[TRAINED].weight.copy_(a)
            layer.lora_B[TRAINED].weight.copy_(b)
            delta = layer.scaling[TRAINED] * b @ a
            weight = layer.get_base_layer().weight
            weight.copy_(weight - (delta.T if layer.fan_in_fan_out else delta))


def _facts(setting: Setting, rows: Sequence[torch.Tensor]) -> dict[str, Any]:
    return {"rows": len(rows), "tokens": sum(len(row) for row in rows), "seed": setting.seed}


def initialization_of(options: Lora) -> dict[str, Any]:
    """How PEFT is told, before what was found is put into its place."""
    if options.initialization is LoraInitialization.CORDA:
        mode = MODES[options.mode]
        return {"init_lora_weights": "corda", "corda_config": CordaConfig(corda_method=cast(Any, mode))}
    return {"init_lora_weights": True}
