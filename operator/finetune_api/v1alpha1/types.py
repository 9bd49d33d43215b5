"""Bounded scalar types that several models share."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from finetune_api import constants as c

Name = Annotated[str, Field(min_length=1, max_length=c.MAX_NAME, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""A DNS-1123 label: lower-case letters, digits and hyphens."""

Uri = Annotated[str, Field(min_length=1, max_length=c.MAX_URI)]
"""Where something lies. Which forms it may have depends on what lies there: a rule says so, since a pattern's message would help nobody."""

Revision = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._/-]+$")]
Column = Annotated[str, Field(min_length=1, max_length=128)]
Label = Annotated[str, Field(min_length=1, max_length=256)]
Pattern = Annotated[str, Field(min_length=1, max_length=256)]
Token = Annotated[str, Field(min_length=1, max_length=128)]
Share = Annotated[float, Field(gt=0, lt=1)]

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of an object of Kubernetes: a DNS-1123 subdomain."""

LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
"""The value of a label of Kubernetes."""


def _text_of_number(value: object) -> object:
    """Take `cpu: 4` for `cpu: "4"`, as the API server does for a quantity."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        json_schema_extra={"x-kubernetes-int-or-string": True, "minimum": 0},
    ),
    BeforeValidator(_text_of_number),
]
"""A quantity of Kubernetes, whole numbers without quotes too."""
