"""The examples of the pages are tests: ``pytest --doctest-glob='*.rst' doc``."""

import pytest

collect_ignore = ["conf.py"]
collect_ignore_glob = [
    "_*/*",
    "auto_examples/*",
    "benchmarks/*",
    "generated/*",
    "sg_execution_times.rst",
]


@pytest.fixture(autouse=True)
def draw_without_a_screen(monkeypatch):
    """Let examples make figures where there is no display."""
    monkeypatch.setenv("MPLBACKEND", "agg")
