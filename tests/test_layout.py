import pickle
from itertools import pairwise

import numpy as np
import pytest

from skae.layout import Layout, Slot, pieces, runs


def test_slots_fill_the_vector_without_overlap():
    layout = Layout()
    slots = [layout.slot(3, 2), layout.slot(2), layout.slot(1, 4)]
    flat = np.arange(layout.size)
    assert layout.size == 12
    np.testing.assert_array_equal(
        np.concatenate([s.of(flat).ravel() for s in slots]), flat
    )


def test_a_slot_stops_where_the_next_begins():
    layout = Layout(7)
    slots = [layout.slot(3, 2), layout.slot(0, 4), layout.slot(2)]
    assert [slot.start for slot in slots] == [7, 13, 13]
    assert [slot.stop for slot in slots] == [13, 13, 15]
    assert slots[0].T.stop == 13


def test_view_writes_through():
    flat = np.zeros(6)
    Slot(2, (2, 2)).of(flat)[1, 0] = 5.0
    np.testing.assert_array_equal(flat, [0, 0, 0, 0, 5, 0])


def test_transposed_slot_is_the_same_memory():
    flat = np.arange(6.0)
    slot = Slot(0, (2, 3))
    assert np.shares_memory(slot.of(flat), slot.T.of(flat))
    np.testing.assert_array_equal(slot.T.of(flat), slot.of(flat).T)
    assert slot == slot.T.T
    assert slot.T.size == slot.size


def test_slot_survives_pickling_and_is_frozen():
    slot = Slot(1, (2, 2), transposed=True)
    assert pickle.loads(pickle.dumps(slot)) == slot
    with pytest.raises(AttributeError):
        slot.start = 0


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ([], []),
        ([Slot(3, (0,)), Slot(5, (0, 4))], []),
        ([Slot(2, (3,))], [slice(2, 5)]),
        ([Slot(2, (3,)), Slot(5, (2, 2))], [slice(2, 9)]),
        ([Slot(5, (2, 2)), Slot(2, (3,))], [slice(2, 9)]),
        ([Slot(2, (3,)), Slot(6, (1,))], [slice(2, 5), slice(6, 7)]),
        ([Slot(2, (3,)), Slot(5, (0,)), Slot(5, (1,))], [slice(2, 6)]),
        ([Slot(2, (3, 2)), Slot(2, (3, 2)).T, Slot(8, (1,))], [slice(2, 9)]),
    ],
)
def test_runs_merge_neighbours(slots, expected):
    assert runs(slots) == expected
    assert runs(iter(slots)) == expected


def test_runs_cover_what_the_slots_cover():
    layout, rng = Layout(), np.random.default_rng(0)
    slots = [layout.slot(*rng.integers(0, 4, 2)) for _ in range(60)]
    some = [slots[i] for i in rng.permutation(60)[:30]]
    covered, found = np.zeros((2, layout.size), dtype=int)
    for slot in some:
        slot.of(covered)[...] = 1
    for run in runs(some):
        found[run] += 1
    np.testing.assert_array_equal(found, covered)
    assert all(a.stop < b.start for a, b in pairwise(runs(some)))


def test_a_layout_goes_on_from_what_there_is():
    layout = Layout(7)
    assert layout.slot(2, 2) == Slot(7, (2, 2))
    assert layout.size == 11


def test_pieces_are_nearly_equal_whole_rows_in_order():
    layout = Layout()
    slots = [layout.slot(7, 5), layout.slot(5), layout.slot(0), layout.slot(11, 3)]
    parts = [pieces(slots, (i, 3)) for i in range(3)]
    for slot in (slots[0], slots[1], slots[3]):
        rows = [part[slot.start] for part in parts]
        assert [r.start for r in rows] == [0, *(r.stop for r in rows[:-1])]
        assert rows[-1].stop == slot.shape[0]
    sizes = []
    for part in parts:
        places = [slot.rows(part[slot.start]) for slot in slots if slot.size]
        assert len(runs(places)) == 1
        sizes.append(sum(place.size for place in places))
    assert sum(sizes) == layout.size
    assert max(sizes) - min(sizes) <= 5
