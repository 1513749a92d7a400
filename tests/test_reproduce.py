"""The script that reproduces published results: what it keeps, resumes and compares."""

import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from skae import VariationalAutoencoder

BENCHMARKS = Path(__file__).parents[1] / "doc" / "benchmarks"


@pytest.fixture(scope="module")
def reproduce():
    pytest.importorskip("fcntl", reason="the script locks files as POSIX does")
    pytest.importorskip("pandas")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import reproduce
    finally:
        sys.path.remove(str(BENCHMARKS))
    return reproduce


@pytest.fixture
def options(tmp_path):
    return Namespace(
        work=tmp_path, seed=0, quick=False, data=None, resume=True, anew=False
    )


def train(mean, run, data):
    """Train nothing, and give rows scores with some mean."""
    run.keep_scores(mean + np.arange(len(data)))
    return f"{mean}", "1"


@pytest.fixture
def toy(reproduce, monkeypatch):
    """A recipe of two parts, the second of which is compared with the first."""
    import recipes

    def with_means(first, second):
        parts = (
            recipes.Part("a = 1", "", partial(train, first)),
            recipes.Part("b", "", partial(train, second), rival="a = 1"),
        )
        recipe = recipes.Recipe("", (), lambda folder: range(4), parts, "")
        monkeypatch.setitem(reproduce.RECIPES, "toy", recipe)

    return with_means


def test_the_report_says_what_was_measured(reproduce):
    known = reproduce.known()
    assert reproduce.REPORT.read_text(encoding="utf-8") == reproduce.report(known)
    names = {(name, p.name) for name, r in reproduce.RECIPES.items() for p in r.parts}
    assert {(line["recipe"], line["part"]) for line in known} <= names


def trained(reproduce, folder, rows, rates):
    model = VariationalAutoencoder(2, batch_size=5, random_state=0)
    with reproduce.Run(folder, seed=0, quick=False) as run:
        return run.train(model, rows, rates)


def rows(epoch):
    return np.random.default_rng(epoch).standard_normal((20, 3))


def cut_short(epoch):
    if epoch == 2:
        raise KeyboardInterrupt
    return rows(epoch)


def test_training_goes_on_where_it_was_interrupted(reproduce, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "SAVED_EVERY", -1.0)
    rates = [0.01, 0.005, 0.002, 0.001]
    whole = trained(reproduce, tmp_path / "whole", rows, rates)
    with pytest.raises(KeyboardInterrupt):
        trained(reproduce, tmp_path / "part", cut_short, rates)
    seen = []

    def again(epoch):
        seen.append(epoch)
        return rows(epoch)

    resumed = trained(reproduce, tmp_path / "part", again, rates)
    assert seen == [2, 3]
    np.testing.assert_array_equal(resumed._theta, whole._theta)


def test_training_does_not_go_on_with_another_schedule(reproduce, tmp_path):
    trained(reproduce, tmp_path, rows, [0.01])
    with pytest.raises(RuntimeError, match="another model or schedule: --anew begins"):
        trained(reproduce, tmp_path, rows, [0.01, 0.005])


def test_two_processes_do_not_work_on_the_same(reproduce, tmp_path):
    run, other = reproduce.Run(tmp_path, 0, False), reproduce.Run(tmp_path, 0, False)
    with run, pytest.raises(RuntimeError, match="Another process works in"), other:
        pass
    with other:
        pass


def test_parts_are_compared_row_by_row(reproduce, options, toy):
    toy(1.0, 3.5)
    assert reproduce.do_part("toy", 1, options)["measured"] == "3.5"
    assert reproduce.advantage("toy", 1, options) == ""
    reproduce.do_part("toy", 0, options)
    assert reproduce.advantage("toy", 1, options) == "ahead of *a = 1* by 2.50 (0.00)"
    assert list(reproduce.pairs([("toy", 0)])) == [("toy", 1)]


def test_another_training_is_not_compared(reproduce, options, toy, capsys):
    toy(1.0, 3.5)
    for i in (0, 1):
        reproduce.do_part("toy", i, options)
    toy(2.0, 3.5)
    assert reproduce.do_part("toy", 0, options)["measured"] == "1.0"
    assert "done by another state of the scripts" in capsys.readouterr().err
    assert reproduce.advantage("toy", 1, options) == ""


def test_a_result_keeps_its_comparison(reproduce, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(reproduce, "REPORT", tmp_path / "report.md")
    line = {"recipe": "counts", "part": "cells, poisson", "seed": 0, "epochs": "1"}
    line |= {"measured": "1", "seconds": 60.0, "gib": 0.1, "versions": ""}
    reproduce.keep(line | {"ahead": "ahead of all"})
    reproduce.keep(line)
    assert reproduce.known() == [line | {"ahead": "ahead of all"}]
    assert "| 1, ahead of all |" in reproduce.REPORT.read_text(encoding="utf-8")
    reproduce.keep(line | {"measured": "2"})
    assert reproduce.known() == [line | {"measured": "2"}]


def test_a_new_rival_ends_a_comparison(reproduce, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(reproduce, "REPORT", tmp_path / "report.md")
    line = {"recipe": "counts", "seed": 0, "epochs": "1", "measured": "1"}
    line |= {"seconds": 60.0, "gib": 0.1, "versions": ""}
    mine = line | {"part": "cells, negative_binomial", "ahead": "ahead of all"}
    reproduce.keep(line | {"part": "cells, poisson"})
    reproduce.keep(mine)
    reproduce.keep(line | {"part": "cells, poisson"})
    assert mine in reproduce.known()
    reproduce.keep(line | {"part": "cells, poisson", "measured": "2"})
    assert not any("ahead" in each for each in reproduce.known())


def test_nothing_is_removed_unasked(reproduce, options, toy):
    toy(1.0, 2.0)
    reproduce.do_part("toy", 0, options)
    folder = reproduce.folder_of("toy", 0, options)
    assert folder.name == "toy-a-1-seed0"
    options.resume = False
    with pytest.raises(SystemExit, match="--resume goes on with it, --anew removes"):
        reproduce.make_room([("toy", 0)], options)
    assert (folder / "done.json").exists()
    options.anew = True
    with reproduce.Run(folder, seed=0, quick=False):
        with pytest.raises(RuntimeError, match="Another process works in"):
            reproduce.make_room([("toy", 0)], options)
        assert (folder / "done.json").exists()
    reproduce.make_room([("toy", 0)], options)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nothing"], "there is no recipe 'nothing', but sda, deep-ae"),
        (["counts", "--jobs", "0"], "--jobs is 0, but has to be at least 1"),
        (["counts", "--resume", "--anew"], "not allowed with argument"),
    ],
)
def test_wrong_arguments(reproduce, monkeypatch, capsys, given, message):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *given])
    with pytest.raises(SystemExit):
        reproduce.main()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["frey"], r"frey needs frey/frey\.npz in --data"),
        (["counts", "--data", "."], "counts needs pbmc"),
    ],
)
def test_missing_data(reproduce, monkeypatch, given, message):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *given])
    with pytest.raises(SystemExit, match=message):
        reproduce.main()
