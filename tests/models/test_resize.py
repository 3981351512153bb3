"""Tables at another size: against plain loops, and against what must stay."""

import pytest
import torch
from torch.nn import functional as F

from evl.models import EVLDecoder
from evl.models.resize import resized_offsets, resized_state, resized_time
from tests.helpers import assert_close


def plainly_between(row, place):
    """Linear interpolation in a list, the ends beyond its ends."""
    place = min(max(place, 0.0), len(row) - 1.0)
    left = min(int(place), len(row) - 2) if len(row) > 1 else 0
    if len(row) == 1:
        return row[0]
    return row[left] * (1 - (place - left)) + row[left + 1] * (place - left)


@pytest.mark.parametrize(("old", "new"), [(8, 16), (8, 32), (16, 8), (3, 7), (5, 4), (1, 6), (6, 1)])
def test_time(old, new):
    table = torch.randn(old, 5)
    expected = torch.stack([plainly_between(table, (t + 0.5) * old / new - 0.5) for t in range(new)])
    for _ in range(2):
        assert_close(resized_time(table, new), expected)
    if old > 1:  # as torch has it
        assert_close(expected, F.interpolate(table.T[None], size=new, mode="linear")[0].T)
    assert_close(resized_time(table, old), table)


@pytest.mark.parametrize(
    ("old", "new"), [((3, 5), (4, 7)), ((4, 4), (2, 3)), ((2, 3), (6, 6)), ((1, 3), (2, 3)), ((14, 14), (21, 21))]
)
def test_offsets(old, new):
    """A loop over all offsets; d of the new grid is d·h/h' of the old."""
    table = torch.randn((2 * old[0] - 1) * (2 * old[1] - 1), 3, dtype=torch.float64)
    grid = table.view(2 * old[0] - 1, 2 * old[1] - 1, 3)
    expected = []
    for row in range(1 - new[0], new[0]):
        for column in range(1 - new[1], new[1]):
            at_row = plainly_between(grid, row * old[0] / new[0] + old[0] - 1)
            expected.append(plainly_between(at_row, column * old[1] / new[1] + old[1] - 1))
    got = resized_offsets(table, old, new)
    assert_close(got, torch.stack(expected))
    middle = (len(got) - 1) // 2
    assert_close(got[middle], table[(len(table) - 1) // 2])  # not moved is not moved
    assert_close(resized_offsets(table, old, old), table)


def test_a_distance_in_the_picture_stays_what_it_was():
    """Where a table says 'so far to the right', in parts of the picture, a finer grid says the same."""
    old, new = (4, 6), (8, 9)
    distance = torch.arange(1 - old[1], old[1], dtype=torch.float64) / old[1]
    table = distance.expand(2 * old[0] - 1, -1).reshape(-1, 1)
    got = resized_offsets(table, old, new).view(2 * new[0] - 1, 2 * new[1] - 1)
    expected = torch.arange(1 - new[1], new[1], dtype=torch.float64) / new[1]
    inside = expected.abs() <= distance.max()
    assert inside.sum() == 2 * new[1] - 3  # all but the outermost
    assert_close(got[:, inside], expected[inside].expand(2 * new[0] - 1, -1))


def test_only_what_depends_on_size_changes():
    torch.manual_seed(0)
    small, large = (
        EVLDecoder(16, 2, num_frames=t, grid=grid, num_heads=2, mlp_ratio=1) for t, grid in ((3, (2, 3)), (5, (4, 3)))
    )
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.copy_(torch.randn_like(parameter))
    state = small.state_dict()
    resized = resized_state(state, large.state_dict(), (2, 3), (4, 3))
    large.load_state_dict(resized)
    changed = {name for name in state if resized[name] is not state[name]}
    tables = ("position", "cross_frame.before", "cross_frame.after")
    assert changed == {f"layers.{i}.temporal.{name}" for i in range(2) for name in tables}
    assert resized_state(state, small.state_dict(), (2, 3), (2, 3)) == state  # by identity: nothing is computed
