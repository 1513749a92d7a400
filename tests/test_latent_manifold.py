import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from skae import DenoisingAutoencoder  # noqa: E402
from skae.displays import LatentManifoldDisplay  # noqa: E402

DIGITS = load_digits(return_X_y=True)[0][:200]
NAMES = ["height", "width", "depth", "mass"]
FEW = np.random.default_rng(0).normal(size=(50, 4))
NORMAL = norm.ppf(np.linspace(0.05, 0.95, 15))
PLACES = [[-1.0, 0.0], [1.0, 2.0, 4.0]]
GRID = np.random.default_rng(2).normal(size=(3, 2, 6))


def fitted(X, n_components=3):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return DenoisingAutoencoder(n_components, max_iter=4, random_state=0).fit(X)


DIGITS_MODEL = fitted(DIGITS)
FEW_MODEL = fitted(FEW)
LINE_MODEL = fitted(FEW, 1)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def ticks(axis):
    return [text.get_text().replace("\N{MINUS SIGN}", "-") for text in axis]


def titles(display):
    return [ax.get_title() for ax in display.axes_]


# --- the grid -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        FEW_MODEL,
        PCA(3).fit(FEW),
        make_pipeline(StandardScaler(), PCA(3)).fit(FEW),
    ],
    ids=["autoencoder", "pca", "pipeline"],
)
def test_plane_of_an_estimator(model):
    display = LatentManifoldDisplay.from_estimator(model, components=(2, 0))
    assert display.decoded.shape == (15, 15, 4)
    for places in display.places:
        np.testing.assert_allclose(places, NORMAL)
    for i, j in [(0, 0), (3, 14), (14, 5)]:
        expected = model.inverse_transform([[NORMAL[i], 0.0, NORMAL[j]]])[0]
        np.testing.assert_allclose(display.decoded[i, j], expected, rtol=1e-6)
    names = model.get_feature_names_out()
    assert list(display.component_names) == [names[2], names[0]]


def test_line_of_an_estimator():
    for model, settings in [(LINE_MODEL, {}), (FEW_MODEL, {"components": 1})]:
        display = LatentManifoldDisplay.from_estimator(model, n_steps=5, **settings)
        z = np.zeros((5, model.n_components))
        z[:, settings.get("components", 0)] = norm.ppf(np.linspace(0.05, 0.95, 5))
        np.testing.assert_allclose(display.decoded, model.inverse_transform(z))
        assert len(display.places) == 1


def test_quantiles_of_the_normal():
    display = LatentManifoldDisplay.from_estimator(
        FEW_MODEL, quantiles=(0.2, 0.5), n_steps=4
    )
    np.testing.assert_allclose(display.places[1], norm.ppf([0.2, 0.3, 0.4, 0.5]))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_range_and_base_of_rows(form):
    display = LatentManifoldDisplay.from_estimator(
        DIGITS_MODEL, form(DIGITS), n_steps=7, quantiles=(0, 0.5)
    )
    codes = DIGITS_MODEL.transform(DIGITS)
    for k in range(2):
        expected = np.linspace(codes[:, k].min(), np.median(codes[:, k]), 7)
        np.testing.assert_allclose(display.places[k], expected)
    middle = np.median(codes, axis=0)
    expected = DIGITS_MODEL.inverse_transform(middle[None])[0]
    np.testing.assert_allclose(display.decoded[-1, -1], expected)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_rows_in_frames(library):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame(dict(zip(NAMES, FEW.T, strict=True)))
    model = make_pipeline(StandardScaler(), PCA(2)).set_output(transform=library)
    display = LatentManifoldDisplay.from_estimator(model.fit(frame), frame)
    assert type(display.decoded) is np.ndarray
    assert list(display.feature_names) == titles(display) == NAMES


def test_names_the_estimator_knows():
    frame = pytest.importorskip("pandas").DataFrame(FEW, columns=NAMES)
    display = LatentManifoldDisplay.from_estimator(PCA(2).fit(frame))
    assert titles(display) == NAMES


def test_limits():
    one = LatentManifoldDisplay.from_estimator(FEW_MODEL, limits=(-2, 2), n_steps=3)
    np.testing.assert_array_equal(one.places, [[-2, 0, 2], [-2, 0, 2]])
    two = LatentManifoldDisplay.from_estimator(
        FEW_MODEL, FEW, limits=[(-2, 2), (0, 1)], n_steps=3
    )
    np.testing.assert_array_equal(two.places, [[-2, 0, 2], [0, 0.5, 1]])


def test_base():
    base = [9.0, 9.0, 0.5]
    display = LatentManifoldDisplay.from_estimator(FEW_MODEL, base=base, n_steps=2)
    expected = FEW_MODEL.inverse_transform([[NORMAL[-1], NORMAL[0], 0.5]])[0]
    np.testing.assert_allclose(display.decoded[0, 1], expected)


def test_estimator_without_names():
    model = FunctionTransformer().fit(FEW)
    display = LatentManifoldDisplay.from_estimator(model, FEW, components=(3, 1))
    assert list(display.component_names) == ["component 3", "component 1"]
    with pytest.raises(ValueError, match=r"FunctionTransformer does not tell .* X"):
        LatentManifoldDisplay.from_estimator(model)
    LatentManifoldDisplay.from_estimator(model, base=np.zeros(4))


def test_single_precision_stays():
    model = fitted(FEW.astype(np.float32))
    display = LatentManifoldDisplay.from_estimator(model, FEW.astype(np.float32))
    assert display.decoded.dtype == model.inverse_transform(np.zeros((1, 3))).dtype


def test_whole_numbers():
    display = LatentManifoldDisplay(np.arange(4).reshape(2, 1, 2)[:, 0], [[0, 1]])
    assert display.decoded.dtype == np.float64


# --- images ---------------------------------------------------------------------------


def test_mosaic():
    display = LatentManifoldDisplay(GRID, PLACES, image_shape=[3, 2]).plot()
    assert display.image_shape == (3, 2)
    mosaic = np.asarray(display.artists_[0].get_array())
    assert mosaic.shape == (9, 4)
    np.testing.assert_array_equal(mosaic[:3, :2], GRID[2, 0].reshape(3, 2))
    np.testing.assert_array_equal(mosaic[:3, 2:], GRID[2, 1].reshape(3, 2))
    np.testing.assert_array_equal(mosaic[-3:, 2:], GRID[0, 1].reshape(3, 2))
    image, ax = display.artists_[0], display.ax_
    assert image.get_extent() == [-0.5, 1.5, -0.5, 2.5]
    assert image.origin == "upper"
    assert image.get_cmap().name == "gray"
    assert ax.get_aspect() == 1.5
    assert ax.get_xlabel() == "component 0"
    assert ax.get_ylabel() == "component 1"
    assert display.axes_.tolist() == [ax]
    assert display.colorbars_ == []
    bottom, top = ax.get_ylim()
    assert bottom < top


def test_codes_on_the_ticks():
    display = LatentManifoldDisplay(GRID, PLACES, image_shape=(3, 2)).plot()
    assert display.ax_.get_xticks().tolist() == [0, 1]
    assert ticks(display.ax_.get_xticklabels()) == ["-1.00", "0.00"]
    assert ticks(display.ax_.get_yticklabels()) == ["1.00", "2.00", "4.00"]
    display = LatentManifoldDisplay.from_estimator(DIGITS_MODEL, image_shape=(8, 8))
    assert display.ax_.get_xticks().tolist() == list(range(0, 15, 2))
    assert ticks(display.ax_.get_yticklabels())[0] == "-1.64"


def test_single_row_of_images():
    display = LatentManifoldDisplay.from_estimator(
        DIGITS_MODEL, components=1, image_shape=(8, 8)
    )
    assert display.artists_[0].get_array().shape == (8, 120)
    assert display.ax_.get_xlabel() == "denoisingautoencoder1"
    assert display.ax_.get_ylabel() == ""
    assert len(display.ax_.get_yticks()) == 0


def test_keywords_of_images():
    display = LatentManifoldDisplay.from_estimator(
        DIGITS_MODEL, image_shape=(8, 8), cmap="magma", vmin=0, vmax=9
    )
    assert display.artists_[0].get_cmap().name == "magma"
    assert display.artists_[0].get_clim() == (0, 9)


# --- heat maps and lines --------------------------------------------------------------


def test_heat_maps():
    display = LatentManifoldDisplay.from_estimator(FEW_MODEL, FEW, n_steps=5)
    assert display.axes_.shape == (4,)
    assert titles(display) == [f"column {j}" for j in range(4)]
    assert len(display.colorbars_) == 4
    for j, mesh in enumerate(display.artists_):
        shown = np.asarray(mesh.get_array()).reshape(5, 5)
        np.testing.assert_array_equal(shown, display.decoded[..., j])
        assert mesh.get_cmap().name == "viridis"
    names = FEW_MODEL.get_feature_names_out()
    assert [ax.get_xlabel() for ax in display.axes_] == ["", "", names[0], names[0]]
    assert [ax.get_ylabel() for ax in display.axes_] == [names[1], "", names[1], ""]
    assert not display.ax_.axison


def test_lines():
    display = LatentManifoldDisplay.from_estimator(LINE_MODEL, feature_names=NAMES)
    assert titles(display) == NAMES
    for j, line in enumerate(display.artists_):
        np.testing.assert_allclose(line.get_xdata(), NORMAL)
        np.testing.assert_array_equal(line.get_ydata(), display.decoded[:, j])
    assert display.colorbars_ == []
    assert [ax.get_ylabel() for ax in display.axes_] == [""] * 4


def test_columns():
    display = LatentManifoldDisplay.from_estimator(
        FEW_MODEL, feature_names=NAMES, columns=["mass", 0, np.int64(1)]
    )
    assert titles(display) == ["mass", "height", "width"]
    many = LatentManifoldDisplay.from_estimator(DIGITS_MODEL, n_steps=2)
    assert titles(many) == [f"column {j}" for j in range(12)]
    assert many.plot(columns=[63]).axes_.shape == (1,)


@pytest.mark.parametrize("columns", [["age"], [4], [-1], [0.0], "mass", [True, "age"]])
def test_wrong_columns(columns):
    display = LatentManifoldDisplay(GRID[..., :4], PLACES, feature_names=NAMES)
    with pytest.raises(ValueError, match=r"columns=.* a number from 0 to 3"):
        display.plot(columns=columns)


def test_no_columns():
    with pytest.raises(ValueError, match="columns must name at least one"):
        LatentManifoldDisplay(GRID, PLACES).plot(columns=[])


def test_labels_above_a_gap():
    display = LatentManifoldDisplay(GRID[..., :5], PLACES).plot()
    labelled = [bool(ax.get_xlabel()) for ax in display.axes_]
    assert labelled == [False, False, True, True, True]
    for ax in display.axes_:
        shown = ax.xaxis.get_tick_params()["labelbottom"]
        assert shown == bool(ax.get_xlabel())


def test_keywords_of_heat_maps_and_lines():
    display = LatentManifoldDisplay(GRID, PLACES).plot(cmap="magma", vmin=-9)
    assert {mesh.get_cmap().name for mesh in display.artists_} == {"magma"}
    assert {mesh.get_clim()[0] for mesh in display.artists_} == {-9}
    display = LatentManifoldDisplay(GRID[0], PLACES[:1]).plot(c="red", lw=3)
    assert {line.get_color() for line in display.artists_} == {"red"}
    assert {line.get_linewidth() for line in display.artists_} == {3}


# --- where ----------------------------------------------------------------------------


def test_on_given_axes():
    figure, (left, right) = plt.subplots(1, 2)
    mosaic = LatentManifoldDisplay(GRID, PLACES, image_shape=(3, 2)).plot(left)
    assert mosaic.ax_ is left
    assert left.axison
    maps = LatentManifoldDisplay(GRID, PLACES).plot(right)
    assert maps.ax_ is right
    assert maps.figure_ is figure
    assert not right.axison
    assert len(plt.get_fignums()) == 1


def test_given_panels_are_used():
    _, axes = plt.subplots(2, 3)
    display = LatentManifoldDisplay(GRID, PLACES).plot(axes)
    assert display.ax_ is None
    assert display.axes_.tolist() == axes.ravel().tolist()
    assert {ax.get_xlabel() for ax in display.axes_} == {"component 0"}
    with pytest.raises(ValueError, match="ax holds 6 axes, but 5 are needed"):
        display.plot(axes, columns=range(5))


def test_new_figure_is_laid_out():
    for settings in [{}, {"image_shape": (3, 2)}]:
        display = LatentManifoldDisplay(GRID, PLACES, **settings).plot()
        assert display.figure_.get_layout_engine() is not None
        display.figure_.draw_without_rendering()


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": (0, 3)}, r"components=\(0, 3\) .* n_components=3"),
        ({"n_steps": 1}, "n_steps == 1, must be >= 2"),
        ({"quantiles": (0, 1)}, r"quantiles=\(0, 1\) .* between 0 and 1"),
        ({"quantiles": 0.5}, r"quantiles=0.5 must be"),
        ({"X": FEW, "quantiles": (0.9, 0.1)}, r"quantiles=\(0.9, 0.1\) .* 0 to 1"),
        ({"limits": (1, 0)}, r"limits=\(1, 0\) must be a lower and a higher number"),
        ({"limits": [(0, 1)] * 3}, "each of the 2 components shown"),
        ({"limits": (0, np.inf)}, "limits="),
        ({"X": FEW, "base": [0.0]}, r"base has shape \(1,\), but .* \(3,\)"),
        ({"base": 0.0}, r"base has shape \(\)"),
        ({"image_shape": (3, 3)}, r"image_shape=\(3, 3\) .* n_features=4"),
        ({"feature_names": ["a"]}, r"feature_names has shape \(1,\), but decoded has"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LatentManifoldDisplay.from_estimator(FEW_MODEL, **settings)


def test_component_without_range():
    model = FunctionTransformer().fit(FEW)
    X = FEW * [1, 0, 1, 1]
    with pytest.raises(ValueError, match="Component 1 of the codes of X is 0 at both"):
        LatentManifoldDisplay.from_estimator(model, X)


@pytest.mark.parametrize("places", [[[0, 0], [0, 1]], [0, 1], [[0, 1]] * 3, [[1], [2]]])
def test_wrong_places(places):
    with pytest.raises(ValueError, match="places must hold one or two arrays"):
        LatentManifoldDisplay(GRID, places)


def test_shapes_must_agree():
    message = r"decoded has shape \(3, 2, 6\), but places asks for \(2, 3, n_features\)"
    with pytest.raises(ValueError, match=message):
        LatentManifoldDisplay(GRID, PLACES[::-1])
    with pytest.raises(ValueError, match="component_names has shape"):
        LatentManifoldDisplay(GRID, PLACES, component_names=NAMES)


def test_components_may_have_other_names():
    X = load_digits().data
    display = LatentManifoldDisplay.from_estimator(
        PCA(3).fit(X),
        X,
        n_steps=3,
        image_shape=(8, 8),
        component_names=["size", "slant"],
    )
    assert display.ax_.get_xlabel() == "size"
    assert display.ax_.get_ylabel() == "slant"
