"""Saves beside the training: the copy is the moment's, one save at a time, and what fails is raised by the next call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from finetune_api.constants import Reason
from finetune_trainer.checkpoint.asynchronous import AsynchronousStore
from finetune_trainer.checkpoint.epochs import Epoch
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.snapshot import Snapshot, read_tensors
from finetune_trainer.checkpoint.store import CheckpointStore
from finetune_trainer.errors import TrainerError
from tests.unit.checkpoint.runs import STAGE, FullLayer, begin, run_in, snapshot

T = TypeVar("T")


class Gate(FileLayer):
    """Holds every write back until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.writer: threading.Thread | None = None

    def perform(self, operation: str, path: Path, action: Callable[[], T]) -> T:
        if operation == "write":
            self.writer = threading.current_thread()
            self.reached.set()
            assert self.open.wait(20)
        return super().perform(operation, path, action)


def asynchronous(run_epoch: Epoch, layer: FileLayer, keep: int = 2) -> AsynchronousStore:
    return AsynchronousStore(CheckpointStore(Epoch(**{**vars(run_epoch), "files": layer}), keep=keep))


def test_training_goes_on_while_the_moment_s_tensors_are_written(memory_folder: Path) -> None:
    gate = Gate()
    store = asynchronous(begin(run_in(memory_folder)), gate)
    weight = torch.ones(1000)
    store.commit(STAGE, 1, Snapshot({"weights": {"w": weight}}))
    store.settle()
    weight += 1  # the next update, while the write stands still
    assert gate.reached.wait(20) and gate.writer is not threading.main_thread()
    gate.open.set()
    ref = store.wait()
    assert ref is not None and ref.step == 1
    assert torch.equal(read_tensors(ref.path, "weights")["w"], torch.ones(1000))
    store.close()


def test_a_save_waits_for_the_one_before_and_uses_its_buffers(memory_folder: Path) -> None:
    gate = Gate()
    store = asynchronous(begin(run_in(memory_folder)), gate)
    store.commit(STAGE, 1, Snapshot({"weights": {"w": torch.full((1000,), 1.0)}}))
    second = threading.Thread(target=store.commit, args=(STAGE, 2, Snapshot({"weights": {"w": torch.full((1000,), 2.0)}})))
    second.start()
    second.join(0.2)
    assert second.is_alive(), "the second save overwrote the buffers that were being written"
    gate.open.set()
    second.join(20)
    store.wait()
    for step in (1, 2):
        assert torch.equal(read_tensors(store.find(STAGE, step).path, "weights")["w"], torch.full((1000,), float(step)))
    store.close()


class HeldTensor(torch.Tensor):
    """Is copied only once it is let go."""

    let_go: threading.Event

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.detach:
            assert cls.let_go.wait(20)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_the_update_waits_for_the_copy_and_the_save_does_not(memory_folder: Path) -> None:
    HeldTensor.let_go = threading.Event()
    store = asynchronous(begin(run_in(memory_folder)), FileLayer())
    weight = torch.ones(1000).as_subclass(HeldTensor)
    store.commit(STAGE, 1, Snapshot({"weights": {"w": weight}}))  # returns though nothing is copied
    update = threading.Thread(target=store.settle)
    update.start()
    update.join(0.2)
    assert update.is_alive(), "the weights could change before they were copied"
    HeldTensor.let_go.set()
    update.join(20)
    assert not update.is_alive()
    store.close()


def test_a_copy_that_fails_lets_the_update_go_on_and_is_raised_by_the_next_call(memory_folder: Path) -> None:
    class NoMemory(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.Tensor.detach:
                raise MemoryError
            return super().__torch_function__(func, types, args, kwargs or {})

    store = asynchronous(begin(run_in(memory_folder)), FileLayer())
    store.commit(STAGE, 1, Snapshot({"weights": {"w": torch.ones(10).as_subclass(NoMemory)}}))
    store.settle()
    with pytest.raises(MemoryError):
        store.wait()
    store.close()


@pytest.mark.parametrize("call", ["commit", "wait", "close", "commit_handover", "commit_evaluated"])
def test_an_error_of_the_write_is_raised_by_the_next_call(memory_folder: Path, call: str) -> None:
    store = asynchronous(begin(run_in(memory_folder)), FullLayer(3))
    store.commit(STAGE, 1, snapshot(1))
    arguments = () if call in ("wait", "close") else (STAGE, 2, snapshot(2))
    with pytest.raises(TrainerError) as caught:
        getattr(store, call)(*arguments)
    assert caught.value.reason is Reason.STORAGE_FULL
    store.close()


def test_every_kind_of_tensor_comes_back_as_it_was(memory_folder: Path) -> None:
    tensors = {
        "float": torch.randn(3, 4),
        "transposed": torch.randn(3, 4).T,
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 7),
        "bfloat16": torch.randn(5).bfloat16(),
        "half": torch.randn(5).half(),
        "double": torch.randn(5, dtype=torch.float64),
        "long": torch.arange(5),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "parameter": torch.nn.Parameter(torch.randn(9)),
        "large": torch.randn(3 << 20),
    }
    store = asynchronous(begin(run_in(memory_folder)), FileLayer())
    for _ in range(2):
        store.commit(STAGE, 1, Snapshot({"weights": tensors}))
    ref = store.wait()
    assert ref is not None
    loaded = read_tensors(ref.path, "weights")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(loaded[name].reshape(-1).view(torch.uint8), tensor.detach().contiguous().reshape(-1).view(torch.uint8)), name
    store.close()
