"""A snapshot: the tensors and documents of one moment, and how they become files. safetensors and JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from finetune_trainer.checkpoint.files import CHUNK, Chunk

TYPES: Final[dict[torch.dtype, str]] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Snapshot:
    """`tensors[file][name]` becomes `file.safetensors`, `documents[file]` becomes `file.json`."""

    tensors: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)

    def files(self) -> Iterator[tuple[str, Iterator[Chunk]]]:
        """Name and bytes of every file; the tensors are read as the bytes are asked for."""
        for name, tensors in self.tensors.items():
            yield f"{name}.safetensors", safetensors_chunks(tensors)
        for name, document in self.documents.items():
            yield f"{name}.json", iter([json_bytes(document)])


def json_bytes(document: Any) -> bytes:
    """A document as bytes. Floats keep every digit: `repr` round-trips."""
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def safetensors_chunks(tensors: Mapping[str, torch.Tensor]) -> Iterator[Chunk]:
    """The bytes of a safetensors file (https://github.com/huggingface/safetensors#format), so that they can be hashed as they are written.

    Tensors of wide types come first, so that each starts aligned to its own width.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield from _gathered([len(text).to_bytes(8, "little") + text, *(tensor_bytes(tensor) for _, tensor in ordered)])


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The raw bytes of a tensor in row-major order; a view where it is contiguous on the CPU."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


def _gathered(parts: list[Chunk]) -> Iterator[Chunk]:
    """Join small parts and cut large ones, so that a thousand norms don't make a thousand system calls."""
    small = bytearray()
    for part in parts:
        view = memoryview(part).cast("B")
        if len(small) + len(view) <= CHUNK:
            small += view
            continue
        if small:
            yield bytes(small)
            small.clear()
        for start in range(0, len(view), CHUNK):
            yield view[start : start + CHUNK]
    if small:
        yield bytes(small)


def read_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of `name.safetensors` in a verified folder, on the CPU."""
    tensors: dict[str, torch.Tensor] = load_file(folder / f"{name}.safetensors")
    return tensors


def read_document(folder: Path, name: str) -> Any:
    """The document `name.json` of a verified folder."""
    return json.loads((folder / f"{name}.json").read_bytes())


def has(folder: Path, name: str) -> bool:
    """Whether a verified folder has tensors or a document of this name."""
    return (folder / f"{name}.safetensors").exists() or (folder / f"{name}.json").exists()
