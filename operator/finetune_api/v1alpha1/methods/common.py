"""What the options of several methods share."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from finetune_api import constants as c
from finetune_api.base import ApiModel
from finetune_api.v1alpha1.types import Pattern

Modules = Annotated[list[Pattern], Field(min_length=1, max_length=c.MAX_PATTERNS)]
Layers = Annotated[list[Annotated[int, Field(ge=0, le=4095)]], Field(min_length=1, max_length=c.MAX_LAYERS)]
Rank = Annotated[int, Field(ge=1, le=1024)]
Alpha = Annotated[float, Field(gt=0, le=4096)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Tokens = Annotated[int, Field(ge=1, le=1024)]


class Options(ApiModel):
    """A variant of the union of methods. A job has few of the twenty: each is compiled with the union, and by itself when first used so."""

    model_config = ConfigDict(defer_build=True)

    shown: ClassVar[tuple[str, ...]] = ()
    """Fields that are named in a few words even where they have their defaults."""

    def words(self) -> Iterator[str]:
        """Yield what distinguishes it. Example: r 16, alpha 32, all-linear, dora"""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is not None and (name in self.shown or value != field.default):
                yield from _words(field.alias or name, value)


def _words(name: str, value: object) -> Iterator[str]:
    if name == "targetModules" and isinstance(value, list):
        yield " ".join(value)
    elif isinstance(value, bool):
        yield name if value else f"no {name}"
    elif isinstance(value, list):
        yield f"{name}: {', '.join(str(item) for item in value)}"
    elif isinstance(value, dict):
        yield f"{name}: {', '.join(f'{key} {item:g}' for key, item in value.items())}"
    elif isinstance(value, int | float):
        yield f"{name} {value:g}"
    else:
        yield f"{name} {value}"


class Targeted(Options):
    """Options of a method that is put on some linear modules of the backbone."""

    target_modules: Modules = ["all-linear"]
    """Linear modules by their names or endings of them; ["all-linear"]: every one but the head. Default: ["all-linear"]. Example: ["q_proj"]"""
