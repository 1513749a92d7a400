import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from skae import DenoisingAutoencoder, StackedAutoencoderClassifier  # noqa: E402
from skae.displays import LossCurveDisplay  # noqa: E402

DIGITS, NUMERALS = (part[:200] for part in load_digits(return_X_y=True))
FEW = np.random.default_rng(0).normal(size=(50, 4))


def fitted(X, n_components=2, **settings):
    settings = {"max_iter": 4, "random_state": 0} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return DenoisingAutoencoder(n_components, **settings).fit(X)


DIGITS_MODEL = fitted(DIGITS, early_stopping=True)
FEW_MODEL = fitted(FEW)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_loss_of_an_estimator():
    display = LossCurveDisplay.from_estimator(DIGITS_MODEL)
    line, validation = display.lines_["training"], display.validation_lines_["training"]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(line.get_ydata(), DIGITS_MODEL.loss_curve_)
    np.testing.assert_array_equal(validation.get_xdata(), [1, 2, 3, 4])
    scores = np.array(DIGITS_MODEL.validation_scores_)
    np.testing.assert_array_equal(validation.get_ydata(), -scores)
    assert display.ax_.get_xlabel() == "Epoch"
    assert display.ax_.get_ylabel() == "Loss (nats per row)"
    assert display.figure_ is display.ax_.figure
    assert all(type(array) is np.ndarray for array in display.loss_curve.values())
    assert labels(display.ax_) == [
        "DenoisingAutoencoder: training",
        "DenoisingAutoencoder: validation",
    ]


@pytest.mark.parametrize("scores", [None, []])
def test_no_validation(scores):
    display = LossCurveDisplay([2.0, 1.0], validation_scores=scores).plot()
    assert display.validation_lines_ == {}
    assert len(display.ax_.lines) == 1
    assert labels(display.ax_) == ["training"]


def test_stages_follow_each_other():
    stages = {"layer 1": [9.0, 8.0], "skipped": [], "tuning": np.array([7.0, 6.0, 5.0])}
    display = LossCurveDisplay(stages, validation_scores=[-4.0, -3.0]).plot()
    assert list(display.lines_) == ["layer 1", "tuning"]
    first, second = display.lines_.values()
    np.testing.assert_array_equal(first.get_xydata(), [[1, 9], [2, 8]])
    np.testing.assert_array_equal(second.get_xydata(), [[3, 7], [4, 6], [5, 5]])
    # Shorter than its stage, as after a warm start: the scores are those of its end.
    validation = display.validation_lines_["tuning"]
    np.testing.assert_array_equal(validation.get_xydata(), [[4, 4], [5, 3]])
    assert labels(display.ax_) == ["layer 1", "tuning", "tuning, validation"]
    assert first.get_color() != second.get_color() == validation.get_color()


def test_validation_of_every_stage():
    stages, scores = {"a": [3.0, 2.0], "b": [1.0]}, {"a": [-5.0, -4.0], "b": [-3.0]}
    display = LossCurveDisplay(stages, validation_scores=scores).plot()
    drawn = [line.get_xydata().tolist() for line in display.validation_lines_.values()]
    assert drawn == [[[1, 5], [2, 4]], [[3, 3]]]


def test_estimator_with_stages():
    model = fitted(FEW)
    model.loss_curve_ = {"layer 1": [2.0, 1.0], "tuning": [3.0]}
    display = LossCurveDisplay.from_estimator(model, name="stack")
    assert labels(display.ax_) == ["stack: layer 1", "stack: tuning"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_held_out_loss_of_a_classifier():
    settings = {"pretraining_max_iter": 2, "max_iter": 3, "random_state": 0}
    model = StackedAutoencoderClassifier(5, early_stopping=True, **settings)
    display = LossCurveDisplay.from_estimator(model.fit(DIGITS, NUMERALS))
    assert list(display.lines_) == ["level 1", "level 2", "fine-tuning"]
    assert list(display.validation_lines_) == ["fine-tuning"]
    line = display.validation_lines_["fine-tuning"]
    np.testing.assert_array_equal(line.get_xdata(), [5, 6, 7])
    np.testing.assert_array_equal(line.get_ydata(), model.validation_loss_curve_)
    assert min(line.get_ydata()) > 0


def test_single_epoch_is_visible():
    display = LossCurveDisplay([2.0]).plot()
    assert display.lines_["training"].get_marker() == "o"


def test_loss_on_given_axes():
    _, ax = plt.subplots()
    for name in ["one", "two"]:
        display = LossCurveDisplay.from_estimator(FEW_MODEL, ax=ax, name=name)
        assert display.ax_ is ax
    assert labels(ax) == ["one: training", "two: training"]
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert len(plt.get_fignums()) == 1


def test_ticks_are_whole_unless_chosen():
    ax = LossCurveDisplay([3.0, 2.0]).plot().ax_
    assert all(place == round(place) for place in ax.get_xticks())
    ax.set_xticks([0.5])
    LossCurveDisplay([3.0, 2.0]).plot(ax)
    np.testing.assert_array_equal(ax.get_xticks(), [0.5])


def test_name_when_drawing():
    display = LossCurveDisplay([2.0, 1.0], name="stored")
    assert labels(display.plot().ax_) == ["stored: training"]
    assert labels(display.plot(name="given").ax_) == ["given: training"]


def test_keywords_of_loss_lines():
    display = LossCurveDisplay.from_estimator(
        DIGITS_MODEL, lw=3, c="red", label="mine", validation_kwargs={"ls": ":"}
    )
    line, validation = display.lines_["training"], display.validation_lines_["training"]
    assert line.get_linewidth() == validation.get_linewidth() == 3
    assert line.get_color() == validation.get_color() == "red"
    assert (line.get_linestyle(), validation.get_linestyle()) == ("-", ":")
    assert labels(display.ax_) == ["mine", "DenoisingAutoencoder: validation"]


def test_validation_is_dashed():
    display = LossCurveDisplay([2.0, 1.0], validation_scores=[-2.0, -1.0])
    assert display.plot().validation_lines_["training"].get_linestyle() == "--"


@pytest.mark.parametrize(
    ("loss", "scores", "message"),
    [
        ([], None, "loss_curve must hold at least one epoch"),
        ({"a": []}, None, "loss_curve must hold at least one epoch"),
        ([[1.0, 2.0]], None, r"'training' must hold one number .* shape \(1, 2\)"),
        ([1.0], [-1.0, -2.0], "2 epochs of 'training', but loss_curve holds 1"),
        ({"a": [1.0]}, {"b": [-1.0]}, "1 epochs of 'b', but loss_curve holds 0"),
    ],
)
def test_impossible_losses(loss, scores, message):
    with pytest.raises(ValueError, match=message):
        LossCurveDisplay(loss, validation_scores=scores)
