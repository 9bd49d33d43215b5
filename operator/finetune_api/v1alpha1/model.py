"""What is tuned: the model, its tokenizer, and the Secrets and claims that a job may use."""

from typing import Annotated

from pydantic import Field

from finetune_api import constants as c
from finetune_api.base import ApiModel
from finetune_api.v1alpha1.types import Name, Revision, Token, Uri


class ModelSpec(ApiModel):
    uri: Uri
    """The base model: a folder (`file://`, `pvc://CLAIM/path`) or a repository of the hub (`hf://OWNER/NAME`). Safetensors or GGUF weights only, no remote code. Example: hf://HuggingFaceTB/SmolLM2-135M-Instruct"""
    revision: Revision | None = None
    """Commit, tag or branch of an `hf://` repository. Default: the newest commit, resolved once and recorded in status.provenance. Example: 12fd25f77366fa6b3b4b768ec3050bf629380bac"""
    credentials: Name | None = None
    """The name, in spec.references.secrets, of the Secret with a token for the hub. Default: none. Example: hf"""
    chat_template: Annotated[str, Field(min_length=1, max_length=c.MAX_TEMPLATE)] | None = None
    """A Jinja chat template instead of the model's own. Mark what the assistant says with {% generation %}. Default: the model's own. Example: "{% for m in messages %}{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}{% endfor %}" """


class TokenizerSpec(ApiModel):
    add_tokens: Annotated[list[Token], Field(max_length=c.MAX_ADDED_TOKENS)] = []
    """Tokens to add to the vocabulary; their embeddings are trained in every stage. Default: none. Example: ["<ticket>"]"""
    pad_token: Token | None = None
    """The token that pads batches. Default: the model's; else an unused reserved token; else the end token, masked by position. Example: "<pad>" """


class SecretReference(ApiModel):
    name: Name
    """The name that the fields `credentials` use. Example: hf"""
    secret_name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    """The Secret in the job's namespace; its key `token` is used. Example: hf-token"""


class ClaimReference(ApiModel):
    name: Name
    """The name that `pvc://NAME/…` uses. Example: models"""
    claim_name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    """The PersistentVolumeClaim in the job's namespace. Example: team-a-models"""


class References(ApiModel):
    secrets: Annotated[list[SecretReference], Field(max_length=c.MAX_REFERENCES)] = []
    """Every Secret that the job uses. Whoever creates the job must be allowed to read them. At most 8. Example: [{name: hf, secretName: hf-token}]"""
    claims: Annotated[list[ClaimReference], Field(max_length=c.MAX_REFERENCES)] = []
    """Every claim that the job uses. Whoever creates the job must be allowed to read them. At most 8. Example: [{name: models, claimName: team-a-models}]"""
