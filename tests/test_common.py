import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import FunctionTransformer

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

import skae  # noqa: E402
from skae import DenoisingAutoencoder  # noqa: E402
from skae.displays import (  # noqa: E402
    ExplanationDisplay,
    LatentManifoldDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
)
from skae.displays._common import (  # noqa: E402
    check_components,
    check_image_shape,
    check_names,
    every_so_many,
    names_of_components,
    panels,
    with_defaults,
)

FEW = np.random.default_rng(0).normal(size=(50, 4))
DIGITS = np.random.default_rng(1).uniform(size=(2, 64))
NAMES = ["height", "width", "depth", "mass"]
IMAGES = {"image_shape": (8, 8)}
PLACES = [[-1.0, 0.0], [1.0, 2.0, 4.0]]
GRID = np.random.default_rng(2).normal(size=(3, 2, 4))

DISPLAYS = [
    ExplanationDisplay(FEW[0], FEW[1]),
    ExplanationDisplay(DIGITS[0], DIGITS[1], values=DIGITS[0], offset=-3.0),
    LatentManifoldDisplay(GRID, PLACES),
    LatentManifoldDisplay(GRID, PLACES, image_shape=(2, 2)),
    LatentManifoldDisplay(GRID[0], PLACES[:1], feature_names=NAMES),
    LatentSpaceDisplay(FEW),
    LatentSpaceDisplay(FEW, y=FEW[:, 0]),
    LatentSpaceDisplay(FEW[:2], y=["a", "b"], component_names=NAMES),
    LatentSpaceDisplay(FEW[:2], y=["a", None], components=1),
    LossCurveDisplay([3.0, 2.0], validation_scores=[-2.0]),
    ReconstructionDisplay(FEW[:2], FEW[:2], feature_names=NAMES),
    ReconstructionDisplay(DIGITS, DIGITS, **IMAGES),
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)


# --- all displays ---------------------------------------------------------------------


def test_import_leaves_matplotlib_alone():
    code = "import sys, skae.displays; assert 'matplotlib' not in sys.modules"
    where = Path(skae.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=where)


@pytest.mark.usefixtures("no_matplotlib")
@pytest.mark.parametrize("display", DISPLAYS)
def test_missing_matplotlib(display):
    message = rf"{type(display).__name__}\.plot requires .*pip install 'skae\[plot\]'"
    with pytest.raises(ImportError, match=message):
        display.plot()


@pytest.mark.parametrize(
    "draw",
    [
        lambda model: ExplanationDisplay.from_estimator(model, FEW),
        LatentManifoldDisplay.from_estimator,
        lambda model: LatentSpaceDisplay.from_estimator(model, FEW),
        LossCurveDisplay.from_estimator,
        lambda model: ReconstructionDisplay.from_estimator(model, FEW),
    ],
)
def test_unfitted(draw):
    with pytest.raises(NotFittedError):
        draw(DenoisingAutoencoder())


@pytest.mark.parametrize("display", DISPLAYS)
def test_pickles_and_draws_again(display):
    stored = set(vars(display))
    again = pickle.loads(pickle.dumps(display)).plot()
    assert again.plot() is again
    assert len(plt.get_fignums()) == 2
    assert set(vars(display)) == stored
    assert stored < set(vars(again))
    pickle.dumps(again)


@pytest.mark.parametrize("display", DISPLAYS)
def test_every_attribute_is_documented(display):
    drawn = {name for name in vars(display.plot()) if not name.startswith("_")}
    for name in drawn:
        assert f"\n    {name} : " in type(display).__doc__, name


# --- their parts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("components", "n_components", "expected"),
    [
        ((0, 1), 5, (0, 1)),
        ((4, 2), 5, (4, 2)),
        (3, 5, (3,)),
        (np.int64(3), 5, (3,)),
        ([1], 5, (1,)),
        ((0, 1), 1, (0,)),
        (0, 1, (0,)),
    ],
)
def test_components(components, n_components, expected):
    assert check_components(components, n_components) == expected


@pytest.mark.parametrize("components", [(0, 0), (0, 3), -1, (0, 1, 2), (), "ab", 0.5])
def test_wrong_components(components):
    with pytest.raises(ValueError, match=r"from 0 to 2: .* n_components=3") as caught:
        check_components(components, 3)
    assert f"components={components!r}" in str(caught.value)


def test_image_shape():
    assert check_image_shape(None, 6) is None
    assert check_image_shape([2, 3], 6) == (2, 3)
    with pytest.raises(ValueError, match=r"image_shape=\(2, 2\) .* n_features=6"):
        check_image_shape((2, 2), 6)


def test_names():
    assert check_names(None, "names", 2, "X has n_features") is None
    assert check_names([1, "b"], "names", 2, "X has n_features").tolist() == ["1", "b"]
    message = r"names has shape \(1,\), but X has n_features=2 columns"
    with pytest.raises(ValueError, match=message):
        check_names(["a"], "names", 2, "X has n_features")


def test_no_names_of_components():
    assert names_of_components(FunctionTransformer().fit(FEW)) is None


@pytest.mark.parametrize("n", range(1, 30))
def test_every_so_many(n):
    chosen = every_so_many(n, 8)
    assert chosen[0] == 0
    assert 1 <= len(chosen) <= 8
    assert chosen[-1] < n
    assert len(set(np.diff(chosen))) <= 1


def test_aliases_win_over_defaults():
    from matplotlib.lines import Line2D

    style = with_defaults({"lw": 3}, Line2D, linewidth=1, color="red")
    assert style == {"linewidth": 3, "color": "red"}


def test_unused_panels_go():
    figure, ax = plt.subplots()
    frame, axes = panels(ax, (2, 2), 3, sharex=True, sharey=True)
    assert frame is ax
    assert axes.shape == (3,)
    assert len(figure.axes) == 4


def test_given_panels_must_fit():
    _, axes = plt.subplots(2, 2)
    assert panels(axes, (2, 2), 4, sharex=True, sharey=True)[1].shape == (4,)
    with pytest.raises(ValueError, match="ax holds 4 axes, but 3 are needed"):
        panels(axes, (2, 2), 3, sharex=True, sharey=True)
    with pytest.raises(ValueError, match="ax holds 4 axes, but 2 x 3 = 6 are needed"):
        panels(axes, (2, 3), 6, sharex=True, sharey=True)
