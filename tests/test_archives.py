import os
import sys

import numpy as np
import pytest

from skae.archives import KIND, read, write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "it.ckpt"


CONTENT = {
    "arrays": [np.arange(3, dtype=np.uint64), np.ones((2, 0), np.float32)],
    "numbers": [1, 2**63, 0.1, -np.inf, True, None],
    "names": {"a": {"b": "c"}, "array": "no array", "dict": []},
}


def test_what_is_written_is_read(path):
    write(path, CONTENT)
    found = read(path)
    for a, b in zip(CONTENT["arrays"], found["arrays"], strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert found["numbers"] == CONTENT["numbers"]
    assert found["numbers"][4] is True
    assert found["names"] == CONTENT["names"]
    assert np.isnan(read_back(path, float("nan")))
    assert read_back(path, np.float64(0.1)) == 0.1
    assert read_back(path, np.int64(3)) == 3


def read_back(path, value):
    write(path, {"value": value})
    return read(path)["value"]


def test_nothing_is_pickled(path):
    with pytest.raises(TypeError, match="pickled"):
        write(path, {"value": np.array([object()])})
    with open(path, "wb") as file:
        np.savez(file, about=np.array([{"kind": KIND}], dtype=object))
    with pytest.raises(ValueError, match="no checkpoint of skae"):
        read(path)


def test_a_write_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    write(path, {"value": 1})

    def full(file, **arrays):
        file.write(b"some bytes")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        write(path, {"value": 2})
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert read(path) == {"value": 1}


def test_what_is_written_is_flushed_before_it_takes_the_place(path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: calls.append("fsync") or fsync(*a))
    monkeypatch.setattr(
        os, "replace", lambda *a: calls.append("replace") or replace(*a)
    )
    write(path, {"value": 1})
    assert calls[:2] == ["fsync", "replace"]
    if sys.platform != "win32":
        assert calls == ["fsync", "replace", "fsync"]


def test_a_truncated_file_is_refused(path):
    write(path, CONTENT)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"it\.ckpt' is no checkpoint .* damaged"):
            read(path)


def test_a_changed_byte_is_noticed_or_without_effect(path):
    write(path, {"value": np.arange(4.0), "more": [1, 2]})
    whole, n_refused = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        )
        try:
            found = read(path)
        except ValueError:
            n_refused += 1
        else:
            np.testing.assert_array_equal(found["value"], np.arange(4.0))
            assert found["more"] == [1, 2]
    assert n_refused > len(whole) / 2
