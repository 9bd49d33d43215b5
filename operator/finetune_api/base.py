"""The base of every model of the API: camelCase outside, strict types, unknown fields refused."""

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """A part of a manifest. Strict, because the API server does not turn `"3"` into `3` either.

    The string below a field is its description. `schema.py` reads it from the source when the schema is generated; reading it at import
    (pydantic's use_attribute_docstrings) would cost every command a tenth of a second. So would `from __future__ import annotations` in the
    modules of the models: pydantic compiles each annotation from its text then.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        strict=True,
        frozen=True,
        validate_by_alias=True,
        validate_by_name=False,
        serialize_by_alias=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: object) -> object:
        """Take a null for a field that was left out, as the API server does for fields that are not nullable."""
        if not isinstance(data, dict) or None not in data.values():
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {name: value for name, value in data.items() if value is not None or name not in known}


class WireModel(BaseModel):
    """A message between our own programs: the same spelling, but unknown fields are let through, so that versions may differ."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="ignore", frozen=True, validate_by_alias=True, validate_by_name=True, serialize_by_alias=True
    )
