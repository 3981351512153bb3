"""Products by oneDNN against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from evl.runtime import cpu as onednn
from tests.helpers import assert_close


@pytest.fixture(params=[False, True] if onednn.works() else [False])
def taken(request, monkeypatch):
    monkeypatch.setattr(onednn, "available", lambda: request.param)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (4, 1, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_its_gradients(taken, shape, bias):
    layer = onednn.Linear(11, 6, bias=bias)
    x = torch.randn(*shape, 11, requires_grad=True)
    direction = torch.randn(*shape, 6)
    inputs = (x, *layer.parameters())
    got = layer(x)
    wanted = F.linear(x, layer.weight, layer.bias)
    assert_close(got, wanted, floor=1e-6)
    got, wanted = (torch.autograd.grad((y * direction).sum(), inputs) for y in (got, wanted))
    for one, other in zip(got, wanted, strict=True):
        assert_close(one, other, floor=1e-6)


def test_nothing_in_nothing_out(taken):
    assert onednn.Linear(11, 6)(torch.randn(0, 11)).shape == (0, 6)


def test_products(taken):
    a, b = torch.randn(17, 5), torch.randn(9, 5)
    assert_close(onednn.matmul(a, b.T), a @ b.T)
    assert_close(onednn.matmul(a.T, a), a.T @ a)
    c, d = torch.randn(3, 4, 5), torch.randn(3, 6, 5)
    assert_close(onednn.bmm(c, d.mT), c @ d.mT)
    query, key = torch.randn(7, 2, 4), torch.randn(9, 2, 4).transpose(0, 1)
    assert_close(onednn.head_scores(query, key), (query.transpose(0, 1) @ key.mT).transpose(0, 1))


def test_other_types_are_left_to_pytorch(taken):
    for dtype in (torch.float64, torch.bfloat16):
        a = torch.randn(3, 4, dtype=dtype)
        assert torch.equal(onednn.linear(a, a), F.linear(a, a))
        assert onednn.matmul(a, a.T).dtype == dtype


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("EVL_ONEDNN", "0")
    onednn.available.cache_clear()
    try:
        assert not onednn.available()
    finally:
        monkeypatch.undo()
        onednn.available.cache_clear()
