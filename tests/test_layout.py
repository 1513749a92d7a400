import pickle

import numpy as np
import pytest

from skae.layout import Layout, Slot


def test_slots_fill_the_vector_without_overlap():
    layout = Layout()
    slots = [layout.slot(3, 2), layout.slot(2), layout.slot(1, 4)]
    flat = np.arange(layout.size)
    assert layout.size == 12
    np.testing.assert_array_equal(
        np.concatenate([s.of(flat).ravel() for s in slots]), flat
    )


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
