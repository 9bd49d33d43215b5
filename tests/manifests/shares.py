"""Manifests that hand over a part of a change where it cannot be."""

from __future__ import annotations

from typing import Final

from tests.manifests.cases import Broken, chain


def _share(name: str, edits: dict[str, object], says: str, *steps: str, by: bool = False, at: int = 0) -> Broken:
    """A job of these steps that hands over a part of a change where it cannot."""
    field = f"spec.stages[{at}].handOverScale{'By' if by else ''}"
    return Broken(name, {field: "validation" if by else 0.5, **edits}, field, says, base=chain(*(steps or ("lora merge", "lora"))))


SHARES: Final = (
    _share("a share of the last stage", {}, "leave handOverScale out", at=1),
    _share("a share chosen after the last stage", {}, "leave handOverScaleBy out", by=True, at=1),
    _share(
        "a share given and chosen",
        {"spec.stages[0].handOverScaleBy": "validation", "spec.stages[1].data.validation": {"fraction": 0.1}},
        "write handOverScale or handOverScaleBy",
    ),
    *(
        _share(
            f"a share of {steps[0]}{', chosen' if by else ''}",
            {"spec.stages[1].data.validation": {"fraction": 0.1}} if by else {},
            says,
            *steps,
            by=by,
        )
        for by in (False, True)
        for steps, says in (
            (("promptTuning continue", "promptTuning"), "no change of the model's weights"),
            (("adapter continue", "adapter"), "no change of the model's weights"),
            (("headOnly continue", "full"), "no change of the model's weights"),
            (("lora continue", "lora"), "write handOver: merge, or leave handOverScale"),
            (("lora stack", "lora"), "write handOver: merge, or leave handOverScale"),
        )
    ),
    _share("a share chosen on no rows", {}, "add data.validation to the next stage", by=True),
    _share(
        "a share chosen by a new head",
        {
            "spec.stages[1].objective": "classification",
            "spec.stages[1].data.validation": {"fraction": 0.1},
            "spec.stages[1].training": {},
        },
        "write handOverScale with a number",
        by=True,
    ),
)
