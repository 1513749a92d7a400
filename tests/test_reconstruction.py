import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import Normalize, to_rgba  # noqa: E402

from skae import DenoisingAutoencoder  # noqa: E402
from skae.displays import ReconstructionDisplay  # noqa: E402

DIGITS = load_digits(return_X_y=True)[0][:200]
NAMES = ["height", "width", "depth", "mass"]
FEW = np.random.default_rng(0).normal(size=(50, 4))
NOISY = FEW + 1.0
IMAGES = {"image_shape": (8, 8)}


def fitted(X, n_components=2, **settings):
    settings = {"max_iter": 4, "random_state": 0} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return DenoisingAutoencoder(n_components, **settings).fit(X)


DIGITS_MODEL = fitted(DIGITS)
FEW_MODEL = fitted(FEW)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def tick_labels(ax):
    return [text.get_text() for text in ax.get_xticklabels()]


def image_rows(display, key):
    return np.stack([np.asarray(image.get_array()) for image in display.artists_[key]])


def line_rows(display, key):
    return np.stack([line.get_ydata() for line in display.artists_[key]])


def bar_rows(display, key):
    heights = [[bar.get_height() for bar in bars] for bars in display.artists_[key]]
    return np.array(heights)


# --- what is shown --------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        FEW_MODEL,
        PCA(2).fit(FEW),
        make_pipeline(StandardScaler(), DenoisingAutoencoder(2, tol=10.0)).fit(FEW),
    ],
    ids=["autoencoder", "pca", "pipeline"],
)
def test_rows_of_an_estimator(model):
    display = ReconstructionDisplay.from_estimator(model, FEW, n_rows=3)
    expected = model.inverse_transform(model.transform(FEW[:3]))
    np.testing.assert_array_equal(display.X, FEW[:3])
    np.testing.assert_allclose(display.reconstructions, expected, rtol=1e-12)
    assert display.X_corrupted is None
    np.testing.assert_array_equal(bar_rows(display, "original"), display.X)
    shown = bar_rows(display, "reconstruction")
    np.testing.assert_allclose(shown, display.reconstructions, rtol=1e-12)


def test_corrupted_rows_are_what_is_reconstructed():
    display = ReconstructionDisplay.from_estimator(
        FEW_MODEL, FEW, X_corrupted=NOISY, n_rows=3
    )
    clean = ReconstructionDisplay.from_estimator(FEW_MODEL, NOISY, n_rows=3)
    np.testing.assert_array_equal(display.reconstructions, clean.reconstructions)
    np.testing.assert_array_equal(display.X, FEW[:3])
    np.testing.assert_array_equal(display.X_corrupted, NOISY[:3])
    np.testing.assert_array_equal(bar_rows(display, "corrupted"), NOISY[:3])
    assert list(display.artists_) == ["original", "corrupted", "reconstruction"]
    legend = labels(display.axes_[0, 0])
    assert legend == ["original", "corrupted", "reconstruction"]


@pytest.mark.parametrize("form", ["csr_array", "coo_matrix", "csc_matrix"])
def test_sparse_rows(form):
    X = getattr(sparse, form)(DIGITS)
    display = ReconstructionDisplay.from_estimator(DIGITS_MODEL, X, X_corrupted=X)
    dense = ReconstructionDisplay.from_estimator(DIGITS_MODEL, DIGITS)
    assert type(display.X) is type(display.X_corrupted) is np.ndarray
    np.testing.assert_array_equal(display.X, DIGITS[:6])
    np.testing.assert_array_equal(display.reconstructions, dense.reconstructions)


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("names_at_fit", [True, False])
def test_frames(library, names_at_fit):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame(dict(zip(NAMES, FEW.T, strict=True)))
    model = fitted(frame if names_at_fit else FEW)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X has feature names")
        display = ReconstructionDisplay.from_estimator(model, frame, n_rows=2)
    assert type(display.X) is type(display.reconstructions) is np.ndarray
    np.testing.assert_array_equal(display.X, FEW[:2])
    assert list(display.feature_names) == NAMES
    assert tick_labels(display.axes_[-1, 0]) == NAMES


def test_frames_come_from_transform():
    frame = pytest.importorskip("pandas").DataFrame(FEW, columns=NAMES)
    model = fitted(frame).set_output(transform="pandas")
    display = ReconstructionDisplay.from_estimator(model, frame, n_rows=2)
    np.testing.assert_array_equal(display.X, FEW[:2])


def test_names_the_estimator_knows():
    frame = pytest.importorskip("pandas").DataFrame(FEW, columns=NAMES)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        display = ReconstructionDisplay.from_estimator(fitted(frame), FEW)
    assert list(display.feature_names) == NAMES


def test_names_given():
    display = ReconstructionDisplay.from_estimator(
        FEW_MODEL, FEW, n_rows=2, feature_names=NAMES
    )
    assert tick_labels(display.axes_[-1, 0]) == NAMES
    assert display.axes_[-1, 0].get_xlabel() == ""


def test_no_names():
    display = ReconstructionDisplay(FEW[:2], FEW[:2]).plot()
    assert display.feature_names is None
    assert display.axes_[-1, 0].get_xlabel() == "column"


def test_of_many_names_some_are_shown():
    names = np.array([f"pixel {i}" for i in range(64)])
    display = ReconstructionDisplay(DIGITS[:2], DIGITS[:2], feature_names=names).plot()
    ax = display.axes_[-1, 0]
    assert len(ax.get_xticks()) <= 24
    assert tick_labels(ax) == list(names[ax.get_xticks().astype(int)])


def test_number_of_rows():
    default = ReconstructionDisplay.from_estimator(FEW_MODEL, FEW)
    assert default.axes_.shape == (6, 1)
    all_rows = ReconstructionDisplay.from_estimator(FEW_MODEL, FEW[:4], n_rows=9)
    assert all_rows.axes_.shape == (4, 1)
    with pytest.raises(ValueError, match="n_rows"):
        ReconstructionDisplay.from_estimator(FEW_MODEL, FEW, n_rows=0)
    with pytest.raises(TypeError, match="n_rows"):
        ReconstructionDisplay.from_estimator(FEW_MODEL, FEW, n_rows=1.5)


def test_single_precision_stays():
    X = FEW.astype(np.float32)
    display = ReconstructionDisplay.from_estimator(fitted(X), X)
    assert display.X.dtype == display.reconstructions.dtype == np.float32


# --- images ---------------------------------------------------------------------------


def test_images():
    display = ReconstructionDisplay.from_estimator(
        DIGITS_MODEL, DIGITS, n_rows=3, **IMAGES
    )
    assert display.axes_.shape == (2, 3)
    originals = DIGITS[:3].reshape(3, 8, 8)
    np.testing.assert_array_equal(image_rows(display, "original"), originals)
    shown = image_rows(display, "reconstruction").reshape(3, 64)
    np.testing.assert_array_equal(shown, display.reconstructions)
    side = [ax.get_ylabel() for ax in display.axes_[:, 0]]
    assert side == ["original", "reconstruction"]
    assert all(len(ax.get_xticks()) == 0 for ax in display.axes_.flat)
    assert all(len(ax.get_yticks()) == 0 for ax in display.axes_.flat)
    for row, key in zip(display.axes_, display.artists_, strict=True):
        for ax, image in zip(row, display.artists_[key], strict=True):
            assert image.axes is ax


def test_images_need_not_be_square():
    display = ReconstructionDisplay(DIGITS[:2], DIGITS[:2], image_shape=[4, 16]).plot()
    assert display.image_shape == (4, 16)
    assert image_rows(display, "original").shape == (2, 4, 16)


def test_corrupted_images():
    display = ReconstructionDisplay.from_estimator(
        DIGITS_MODEL, DIGITS, X_corrupted=-DIGITS, n_rows=2, **IMAGES
    )
    side = [ax.get_ylabel() for ax in display.axes_[:, 0]]
    assert side == ["original", "corrupted", "reconstruction"]
    shown = image_rows(display, "corrupted").reshape(2, 64)
    np.testing.assert_array_equal(shown, -DIGITS[:2])


def test_one_grey_scale():
    display = ReconstructionDisplay(
        DIGITS[:3], 2 * DIGITS[:3], X_corrupted=DIGITS[:3] - 5, **IMAGES
    ).plot()
    images = [image for row in display.artists_.values() for image in row]
    assert {image.get_clim() for image in images} == {(-5.0, 2 * DIGITS[:3].max())}
    assert {image.get_cmap().name for image in images} == {"gray"}


def test_missing_pixels_leave_the_grey_scale_alone():
    X = DIGITS[:2].copy()
    X[0, 0] = np.nan
    display = ReconstructionDisplay(X, DIGITS[:2], **IMAGES).plot()
    assert display.artists_["original"][0].get_clim() == (0.0, DIGITS[:2].max())


@pytest.mark.parametrize(
    "style", [{"vmin": 1, "vmax": 9}, {"norm": Normalize(1, 9)}], ids=["limits", "norm"]
)
def test_keywords_of_images(style):
    display = ReconstructionDisplay.from_estimator(
        DIGITS_MODEL, DIGITS, cmap="magma", n_rows=2, **IMAGES, **style
    )
    for row in display.artists_.values():
        assert [image.get_clim() for image in row] == [(1, 9), (1, 9)]
        assert [image.get_cmap().name for image in row] == ["magma", "magma"]


# --- lines and bars -------------------------------------------------------------------


def test_lines_overlaid():
    display = ReconstructionDisplay.from_estimator(
        DIGITS_MODEL, DIGITS, X_corrupted=2 * DIGITS, n_rows=3
    )
    assert display.axes_.shape == (3, 1)
    np.testing.assert_array_equal(line_rows(display, "original"), DIGITS[:3])
    np.testing.assert_array_equal(line_rows(display, "corrupted"), 2 * DIGITS[:3])
    shown = line_rows(display, "reconstruction")
    np.testing.assert_array_equal(shown, display.reconstructions)
    assert [ax.get_ylabel() for ax in display.axes_.flat] == ["row 0", "row 1", "row 2"]
    for i, ax in enumerate(display.axes_.flat):
        assert list(ax.lines) == [rows[i] for rows in display.artists_.values()]


def test_bars_stand_side_by_side():
    display = ReconstructionDisplay(FEW[:2], FEW[:2], X_corrupted=FEW[:2]).plot()
    bars = [display.artists_[key][0][1] for key in display.artists_]
    edges = np.array([[bar.get_x(), bar.get_x() + bar.get_width()] for bar in bars])
    np.testing.assert_allclose(edges[1:, 0], edges[:-1, 1])
    np.testing.assert_allclose(edges[[0, -1], [0, 1]], [0.6, 1.4])


@pytest.mark.parametrize(
    ("kind", "n_features", "image_shape", "expected"),
    [
        ("auto", 12, None, "BarContainer"),
        ("auto", 13, None, "Line2D"),
        ("auto", 12, (3, 4), "AxesImage"),
        ("image", 12, (3, 4), "AxesImage"),
        ("line", 12, None, "Line2D"),
        ("line", 12, (3, 4), "Line2D"),
        ("bar", 13, None, "BarContainer"),
    ],
)
def test_kind(kind, n_features, image_shape, expected):
    X = DIGITS[:2, :n_features]
    model = fitted(X)
    display = ReconstructionDisplay.from_estimator(
        model, X, kind=kind, image_shape=image_shape
    )
    for row in display.artists_.values():
        assert [type(artist).__name__ for artist in row] == [expected] * 2


@pytest.mark.parametrize("kind", ["line", "bar", "image"])
def test_name_of_reconstructions(kind):
    def name(display):
        if kind == "image":
            return display.axes_[-1, 0].get_ylabel()
        return labels(display.axes_[0, 0])[-1]

    stored = ReconstructionDisplay.from_estimator(
        FEW_MODEL, FEW, name="stored", image_shape=(2, 2), kind=kind
    )
    assert name(stored) == "stored"
    assert name(stored.plot(kind=kind, name="given")) == "given"


def test_keywords_of_lines_and_bars():
    display = ReconstructionDisplay(FEW[:2], FEW[:2])
    lines = display.plot(kind="line", lw=7, c="red").artists_["original"]
    assert {(line.get_linewidth(), line.get_color()) for line in lines} == {(7, "red")}
    bars = display.plot(kind="bar", fc="red").artists_["original"][0]
    assert bars[0].get_facecolor() == to_rgba("red")


# --- where ----------------------------------------------------------------------------


def test_new_figure_is_laid_out():
    display = ReconstructionDisplay(DIGITS[:4], DIGITS[:4], **IMAGES).plot()
    assert display.figure_.get_layout_engine() is not None
    assert display.ax_ in display.figure_.axes
    assert not display.ax_.axison


@pytest.mark.parametrize("kind", ["image", "line"])
def test_inside_given_axes(kind):
    figure, (left, right) = plt.subplots(1, 2)
    display = ReconstructionDisplay.from_estimator(
        DIGITS_MODEL, DIGITS, ax=right, kind=kind, **IMAGES
    )
    assert display.ax_ is right
    assert display.figure_ is figure
    assert left.axison
    assert not right.axison
    frame = right.get_position()
    for ax in display.axes_.flat:
        place = ax.get_position()
        assert frame.x0 - 1e-9 <= place.x0 < place.x1 <= frame.x1 + 1e-9
        assert frame.y0 - 1e-9 <= place.y0 < place.y1 <= frame.y1 + 1e-9
    assert len(plt.get_fignums()) == 1


def test_inside_axes_placed_by_hand():
    frame = plt.figure().add_axes((0.5, 0.25, 0.25, 0.5))
    display = ReconstructionDisplay(DIGITS[:3], DIGITS[:3]).plot(frame)
    top, _, bottom = [ax.get_position() for ax in display.axes_.flat]
    np.testing.assert_allclose([top.x0, top.x1, top.y1], [0.5, 0.75, 0.75])
    np.testing.assert_allclose(bottom.y0, 0.25)


def test_given_panels_are_used():
    _, axes = plt.subplots(2, 3)
    display = ReconstructionDisplay(DIGITS[:3], DIGITS[:3], **IMAGES).plot(axes)
    assert display.ax_ is None
    assert (display.axes_ == axes).all()
    assert display.plot(list(axes.flat)).axes_.shape == (2, 3)
    _, axes = plt.subplots(3)
    display.plot(axes, kind="line")
    assert (display.axes_[:, 0] == axes).all()
    assert labels(axes[0]) == ["original", "reconstruction"]


def test_wrong_number_of_panels():
    _, axes = plt.subplots(2, 2)
    display = ReconstructionDisplay(DIGITS[:3], DIGITS[:3], **IMAGES)
    with pytest.raises(ValueError, match="ax holds 4 axes, but 2 x 3 = 6 are needed"):
        display.plot(axes)


def test_axes_in_use():
    display = ReconstructionDisplay(FEW[:2], FEW[:2]).plot()
    with pytest.raises(ValueError, match="ax is in use by another display"):
        display.plot(display.ax_)
    assert display.plot(display.axes_).ax_ is None


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(8, 7), (64,), (4, 4, 4), (-8, -8), 64, (6.4, 10), "ab"]
)
def test_wrong_image_shape(shape):
    with pytest.raises(ValueError, match=r"image_shape=.* n_features=64") as caught:
        ReconstructionDisplay.from_estimator(DIGITS_MODEL, DIGITS, image_shape=shape)
    assert repr(shape) in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "pie"}, "kind='pie' must be one of"),
        ({"kind": "image"}, "kind='image' needs an image_shape"),
        ({"feature_names": NAMES[:3]}, r"feature_names has shape \(3,\).*n_features=4"),
        ({"X_corrupted": FEW[:2]}, r"X_corrupted has shape \(2, 4\), but X has"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ReconstructionDisplay.from_estimator(FEW_MODEL, FEW, **settings)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="reconstructions has shape"):
        ReconstructionDisplay(FEW, FEW[:2])
    with pytest.raises(ValueError, match="X_corrupted has shape"):
        ReconstructionDisplay(FEW, FEW, X_corrupted=FEW[:, :2])
