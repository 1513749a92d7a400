import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import Normalize, to_rgba  # noqa: E402

from skae import DenoisingAutoencoder  # noqa: E402
from skae.displays import LatentSpaceDisplay  # noqa: E402

DIGITS, LABELS = (array[:200] for array in load_digits(return_X_y=True))
CODES = np.random.default_rng(0).normal(size=(200, 3))
NUMBERS = np.random.default_rng(1).normal(size=200)
LETTERS = np.array(["a", "b", "c", "d"])[np.arange(200) % 4]
NAMES = ["first", "second", "third"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)
    MODEL = DenoisingAutoencoder(3, max_iter=4, random_state=0).fit(DIGITS)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def legend(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def points(display):
    """Return the points in the order of the rows."""
    drawn = np.asarray(display.scatter_.get_offsets())
    order = np.random.default_rng(0).permutation(len(drawn))
    return drawn[np.argsort(order)]


def colours(display):
    """Return the colour of each point, its opacity aside, in the order of the rows."""
    display.scatter_.update_scalarmappable()
    drawn = display.scatter_.get_facecolors()[:, :3]
    order = np.random.default_rng(0).permutation(len(drawn))
    return drawn[np.argsort(order)]


def ticks(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


# --- where points lie -----------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [MODEL, PCA(3).fit(DIGITS), make_pipeline(StandardScaler(), PCA(3)).fit(DIGITS)],
    ids=["autoencoder", "pca", "pipeline"],
)
def test_codes_of_an_estimator(model):
    display = LatentSpaceDisplay.from_estimator(model, DIGITS, components=(2, 0))
    codes = model.transform(DIGITS)
    np.testing.assert_array_equal(display.codes, codes)
    np.testing.assert_array_equal(points(display), codes[:, [2, 0]])
    names = model.get_feature_names_out()
    assert list(display.component_names) == list(names)
    assert display.ax_.get_xlabel() == names[2]
    assert display.ax_.get_ylabel() == names[0]
    assert display.components == (2, 0)
    assert display.legend_ is display.colorbar_ is None


def test_sparse_rows():
    display = LatentSpaceDisplay.from_estimator(MODEL, sparse.csr_array(DIGITS))
    np.testing.assert_array_equal(display.codes, MODEL.transform(DIGITS))


def test_sparse_codes():
    identity = FunctionTransformer(accept_sparse=True).fit(CODES)
    display = LatentSpaceDisplay.from_estimator(identity, sparse.csr_array(CODES))
    np.testing.assert_array_equal(display.codes, CODES)
    assert display.component_names is None
    assert display.ax_.get_xlabel() == "component 0"
    assert display.ax_.get_ylabel() == "component 1"


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(library):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame(dict(zip(NAMES, CODES.T, strict=True)))
    model = make_pipeline(StandardScaler(), PCA(2)).set_output(transform=library)
    letters = frames.Series("letter", LETTERS) if library == "polars" else None
    if letters is None:
        letters = frames.Series(LETTERS, name="letter")
    display = LatentSpaceDisplay.from_estimator(model.fit(frame), frame, letters)
    assert type(display.codes) is np.ndarray
    np.testing.assert_allclose(display.codes, np.asarray(model.transform(frame)))
    assert display.ax_.get_xlabel() == "pca0"
    assert display.y_name == display.legend_.get_title().get_text() == "letter"
    assert legend(display) == ["a", "b", "c", "d"]


def test_names_of_the_frame_that_transform_returns():
    frame = pytest.importorskip("pandas").DataFrame(CODES, columns=NAMES)
    identity = FunctionTransformer().fit(frame)
    display = LatentSpaceDisplay.from_estimator(identity, frame)
    assert display.ax_.get_ylabel() == "second"


def test_names_given():
    display = LatentSpaceDisplay.from_estimator(MODEL, DIGITS, component_names=NAMES)
    assert display.ax_.get_xlabel() == "first"


def test_points_on_given_axes():
    _, ax = plt.subplots()
    display = LatentSpaceDisplay.from_estimator(MODEL, DIGITS, LABELS, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert len(plt.get_fignums()) == 1


def test_single_row():
    display = LatentSpaceDisplay(CODES[:1], y=["a"]).plot()
    np.testing.assert_array_equal(points(display), CODES[:1, :2])
    assert LatentSpaceDisplay(CODES[:1, :1], y=["a"]).plot().scatter_ is not None


# --- what colours mean ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (LETTERS, ["a", "b", "c", "d"]),
        (LETTERS.tolist(), ["a", "b", "c", "d"]),
        (LETTERS.astype(object)[:, None], ["a", "b", "c", "d"]),
        (LABELS, [str(k) for k in range(10)]),
        (NUMBERS > 0, ["False", "True"]),
        (np.arange(200) % 20 - 1, [str(k - 1) for k in range(20)]),
    ],
    ids=["strings", "list", "objects", "integers", "booleans", "twenty"],
)
def test_classes(y, expected):
    display = LatentSpaceDisplay(CODES, y=y, y_name="kind").plot()
    assert display.classes.tolist() == legend(display) == expected
    assert display.legend_.get_title().get_text() == "kind"
    assert display.colorbar_ is None
    shown = colours(display)
    table = plt.get_cmap("tab10" if len(expected) <= 10 else "tab20")
    place = [expected.index(str(value)) for value in np.ravel(y)]
    np.testing.assert_allclose(shown, np.array(table.colors)[place])
    keys = [handle.get_color() for handle in display.legend_.legend_handles]
    keys = [to_rgba(key)[:3] for key in keys]
    np.testing.assert_allclose(keys, table.colors[: len(keys)])


@pytest.mark.parametrize(
    "y",
    [NUMBERS, NUMBERS.astype(np.float32), np.arange(200), LABELS.astype(float)],
    ids=["double", "single", "many integers", "whole floats"],
)
def test_numbers(y):
    display = LatentSpaceDisplay(CODES, y=y, y_name="score").plot()
    assert display.classes is display.legend_ is None
    assert display.colorbar_.ax.get_ylabel() == "score"
    assert display.scatter_.get_clim() == (y.min(), y.max())
    assert display.scatter_.get_cmap().name == "viridis"
    np.testing.assert_array_equal(display.y, y)
    scale = (y - y.min()) / np.ptp(y)
    np.testing.assert_allclose(colours(display), plt.get_cmap("viridis")(scale)[:, :3])


def test_score_of_an_estimator():
    score = MODEL.score_samples(DIGITS)
    display = LatentSpaceDisplay.from_estimator(MODEL, DIGITS, score, y_name="score")
    assert display.colorbar_.ax.get_ylabel() == "score"


def test_more_classes_than_colours():
    y = np.array([f"class {k:02d}" for k in range(50)])[np.arange(200) % 50]
    display = LatentSpaceDisplay(CODES, y=y).plot()
    assert display.legend_ is None
    names = ticks(display.colorbar_.ax.yaxis)
    assert names == [f"class {k:02d}" for k in range(0, 50, 3)]
    assert len(np.unique(colours(display), axis=0)) == 50


def test_order_of_categories():
    pandas = pytest.importorskip("pandas")
    order = ["d", "b", "unused", "a", "c"]
    for y in [
        pandas.Categorical(LETTERS, order),
        pandas.Series(pandas.Categorical(LETTERS, order)),
    ]:
        display = LatentSpaceDisplay(CODES, y=y).plot()
        assert legend(display) == ["d", "b", "a", "c"]
        np.testing.assert_allclose(colours(display)[0], plt.get_cmap("tab10")(2)[:3])


def test_categories_that_are_numbers():
    pandas = pytest.importorskip("pandas")
    y = pandas.Categorical([3, None, 1, 3])
    display = LatentSpaceDisplay(CODES[:4], y=y).plot()
    assert legend(display) == ["1", "3", "missing"]


@pytest.mark.parametrize("nothing", [None, np.nan])
@pytest.mark.parametrize("n_classes", [4, 10, 20])
def test_missing_classes_are_grey(nothing, n_classes):
    y = np.array([f"{k:02d}" for k in range(n_classes)], object)[
        np.arange(200) % n_classes
    ]
    y[::3] = nothing
    display = LatentSpaceDisplay(CODES, y=y).plot()
    assert len(display.classes) == n_classes + 1
    assert legend(display)[-1] == "missing"
    shown = colours(display)
    np.testing.assert_allclose(shown[::3], 0.8)
    assert not np.isclose(shown[1::3], 0.8).all(axis=1).any()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_missing_values_of_a_series(library):
    Series = pytest.importorskip(library).Series
    own = library == "pandas"
    y = Series([2, None, 1, 2], **({"dtype": "Int64"} if own else {}))
    assert legend(LatentSpaceDisplay(CODES[:4], y=y).plot()) == ["1", "2", "missing"]
    y = Series([True, None, False, True], **({"dtype": "boolean"} if own else {}))
    display = LatentSpaceDisplay(CODES[:4], y=y).plot()
    assert legend(display) == ["False", "True", "missing"]
    y = Series([2.5, None, 1.0, 2.0], **({"dtype": "Float64"} if own else {}))
    display = LatentSpaceDisplay(CODES[:4], y=y).plot()
    assert display.scatter_.get_clim() == (1.0, 2.5)
    y = Series([2.5, np.nan, 1.0, 2.0])
    assert LatentSpaceDisplay(CODES[:4], y=y).plot().classes is None
    assert legend(LatentSpaceDisplay(CODES, y=Series(LETTERS)).plot()) == list("abcd")


def test_frame_with_one_column():
    frame = pytest.importorskip("pandas").DataFrame({"letter": LETTERS})
    display = LatentSpaceDisplay(CODES, y=frame).plot()
    assert legend(display) == list("abcd")
    assert display.y.shape == (200,)


def test_missing_numbers_are_grey():
    y = NUMBERS.copy()
    y[:5] = np.nan
    display = LatentSpaceDisplay(CODES, y=y).plot()
    assert display.scatter_.get_clim() == (y[5:].min(), y[5:].max())
    shown = colours(display)
    np.testing.assert_allclose(shown[:5], 0.8)
    assert not np.isclose(shown[5:], 0.8).all(axis=1).any()
    nothing = LatentSpaceDisplay(CODES, y=np.full(200, np.nan)).plot()
    np.testing.assert_allclose(colours(nothing), 0.8)


def test_no_legend():
    for y in [NUMBERS, LETTERS]:
        display = LatentSpaceDisplay(CODES, y=y).plot(legend=False)
        assert display.legend_ is display.colorbar_ is None


@pytest.mark.parametrize(
    ("cmap", "expected"), [("Set1", [0, 1, 2, 3]), ("plasma", [0.0, 1 / 3, 2 / 3, 1.0])]
)
def test_colours_of_classes(cmap, expected):
    display = LatentSpaceDisplay(CODES, y=LETTERS).plot(cmap=cmap)
    again = LatentSpaceDisplay(CODES, y=LETTERS).plot(cmap=plt.get_cmap(cmap))
    np.testing.assert_allclose(
        colours(display)[:4], plt.get_cmap(cmap)(expected)[:, :3]
    )
    np.testing.assert_array_equal(colours(display), colours(again))


@pytest.mark.parametrize(
    "style",
    [{"vmin": -1, "vmax": 3}, {"norm": Normalize(-1, 3)}],
    ids=["limits", "norm"],
)
def test_colours_of_numbers(style):
    for cmap in ["plasma", plt.get_cmap("plasma")]:
        display = LatentSpaceDisplay(CODES, y=NUMBERS).plot(cmap=cmap, **style)
        assert display.scatter_.get_clim() == (-1, 3)
        assert display.scatter_.get_cmap().name == "plasma"


# --- points ---------------------------------------------------------------------------


def test_many_points_are_small_and_pale():
    sizes, opacities = [], []
    for n in [10, 1000, 100_000]:
        scatter = LatentSpaceDisplay(np.zeros((n, 2))).plot().scatter_
        sizes.append(scatter.get_sizes()[0])
        opacities.append(scatter.get_alpha())
        assert scatter.get_rasterized() == (n > 10_000)
    assert sizes == sorted(sizes, reverse=True)
    assert opacities == sorted(opacities, reverse=True)
    assert 1 <= sizes[-1] < 2
    assert 0.3 <= opacities[-1] < 0.5


def test_order_is_mixed_and_repeatable():
    drawn = [
        LatentSpaceDisplay(CODES, y=np.arange(200) // 100).plot().scatter_
        for _ in range(2)
    ]
    first, second = (scatter.get_array() for scatter in drawn)
    np.testing.assert_array_equal(first, second)
    assert 30 < first[:100].sum() < 70


def test_keywords_of_points():
    display = LatentSpaceDisplay.from_estimator(
        MODEL, DIGITS, LABELS, s=7, alpha=0.25, lw=2, marker="x", label="mine"
    )
    scatter = display.scatter_
    assert scatter.get_sizes() == [7]
    assert scatter.get_alpha() == 0.25
    assert scatter.get_linewidths() == [2]
    assert scatter.get_label() == "mine"
    # A cross has no inside: without a line it could not be seen.
    crosses = LatentSpaceDisplay(CODES).plot(marker="x").scatter_
    assert crosses.get_linewidths()[0] > 0


def test_keywords_for_each_row_follow_the_rows():
    display = LatentSpaceDisplay(CODES).plot(s=np.arange(200), c=NUMBERS)
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(display.scatter_.get_sizes(), order)
    np.testing.assert_array_equal(display.scatter_.get_array(), NUMBERS[order])


@pytest.mark.parametrize("style", [{"c": NUMBERS}, {"color": "red"}])
def test_two_ways_to_colour(style):
    with pytest.raises(ValueError, match=f"{next(iter(style))} and y both colour"):
        LatentSpaceDisplay(CODES, y=LETTERS).plot(**style)


# --- a single component ---------------------------------------------------------------


@pytest.mark.parametrize(
    "display",
    [
        LatentSpaceDisplay(CODES, y=LETTERS, components=1, y_name="letter"),
        LatentSpaceDisplay(CODES[:, 1:2], y=LETTERS, y_name="letter"),
    ],
)
def test_strips_of_classes(display):
    display.plot()
    x, y = points(display).T
    np.testing.assert_array_equal(x, CODES[:, 1])
    np.testing.assert_array_equal(np.round(y), np.arange(200) % 4)
    assert 0.3 < np.abs(y - np.round(y)).max() <= 0.4
    assert ticks(display.ax_.yaxis) == ["a", "b", "c", "d"]
    assert display.ax_.get_ylim() == (3.5, -0.5)
    assert display.ax_.get_ylabel() == "letter"
    assert display.legend_ is None
    np.testing.assert_allclose(
        colours(display)[:4], np.array(plt.get_cmap("tab10").colors)[:4]
    )


def test_strips_are_wide_where_points_are_dense():
    codes = np.random.default_rng(0).normal(size=(5000, 1))
    x, y = points(LatentSpaceDisplay(codes).plot()).T
    assert np.abs(y[np.abs(x) < 0.5]).max() > 0.35
    assert np.abs(y[np.abs(x) > 2.5]).max() < 0.1


def test_single_component_against_numbers():
    display = LatentSpaceDisplay(CODES[:, :1], y=NUMBERS, y_name="score").plot(c="red")
    np.testing.assert_array_equal(
        points(display), np.column_stack([CODES[:, 0], NUMBERS])
    )
    assert display.ax_.get_xlabel() == "component 0"
    assert display.ax_.get_ylabel() == "score"
    assert display.colorbar_ is None


def test_single_component_alone():
    display = LatentSpaceDisplay(CODES[:, :1]).plot()
    np.testing.assert_array_equal(points(display)[:, 0], CODES[:, 0])
    assert len(display.ax_.get_yticks()) == 0


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"y": [1, 2]}, r"y has shape \(2,\), but codes has n_samples=200 rows"),
        ({"y": CODES}, r"y has shape \(200, 3\)"),
        ({"components": (0, 3)}, r"components=\(0, 3\) .* n_components=3"),
        ({"component_names": ["a"]}, r"component_names has shape \(1,\).*=3 columns"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LatentSpaceDisplay(CODES, **settings)
