"""Memory is used again when nobody holds it, and never before."""

import threading

import pytest
import torch

from evl.store import packing as memory
from evl.store.packing import pack_tokens


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    monkeypatch.setattr(memory, "LARGE", 64)
    monkeypatch.setattr(memory, "_kept", [])


def test_memory_is_used_again():
    first = memory.empty((4, 8), torch.float32)
    place = first.data_ptr()
    second = memory.empty((4, 8), torch.float32)
    assert second.data_ptr() != place
    del first
    third = memory.empty((2, 32), torch.float16)  # as many bytes
    assert third.data_ptr() == place
    assert (third.shape, third.dtype, third.is_contiguous()) == ((2, 32), torch.float16, True)


HOLDERS = {
    "view": lambda tensor, weight: tensor[1:, 2],
    "numpy": lambda tensor, weight: tensor[:1].numpy(),
    "autograd": lambda tensor, weight: (tensor @ weight).sum(),
    "detached": lambda tensor, weight: tensor.detach(),
}


@pytest.mark.parametrize("hold", HOLDERS)
def test_memory_that_is_held_is_left_alone(hold):
    tensor = memory.empty((4, 8), torch.float32).fill_(1)
    weight = torch.ones(8, 2, requires_grad=True)
    held = HOLDERS[hold](tensor, weight)
    place = tensor.data_ptr()
    del tensor
    assert memory.empty((4, 8), torch.float32).fill_(7).data_ptr() != place
    if hold == "autograd":
        held.backward()
        assert torch.equal(weight.grad, torch.full((8, 2), 4.0))
    del held
    kept = [memory.empty((4, 8), torch.float32) for _ in range(2)]
    assert place in {one.data_ptr() for one in kept}


def test_no_more_is_kept_than_was_in_use_at_once():
    for size in range(16, 60):
        held = [memory.empty((size,), torch.float32) for _ in range(3)]
        assert len(memory._kept) == 3
        held.clear()
    memory.empty((100,), torch.float32)
    assert len(memory._kept) == 1


def test_what_is_unpacked_stays_while_others_are_unpacked():
    packed = [pack_tokens(torch.randn(2, 3, 5, 7), "int8") for _ in range(4)]
    expected = [one.values * one.scale for one in packed]
    wrong = []

    def work():
        for _ in range(50):
            results = [one.unpack() for one in packed]
            if not all(map(torch.equal, results, expected)):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    with torch.inference_mode():
        inferred = packed[0].unpack()
    again = packed[1].unpack()
    assert torch.equal(inferred, expected[0])
    again.requires_grad_()
    again.sum().backward()  # a tensor that inference had made could not
