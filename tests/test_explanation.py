import numpy as np
import pytest
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgba  # noqa: E402

from skae import AutoencoderOutlierDetector, DenoisingAutoencoder  # noqa: E402
from skae.displays import ExplanationDisplay  # noqa: E402
from skae.displays.explanation import (  # noqa: E402
    MOST_LETTERS,
    as_text,
    beside,
    decimals_for,
    limits,
    shortened,
)

rng = np.random.default_rng(0)
X = np.exp(rng.normal(size=(60, 1)) + 0.3 * rng.normal(size=(60, 4)))
ODD = np.array([[1.0, 1.0, 9.0, 1.0], [0.2, 0.1, 0.2, 0.2], [2.0, 2.0, 2.0, 30.0]])
NAMES = ["height", "width", "depth", "mass"]

#: Less what is typical of them: -4, 2, -1, 0.5 and -7.
CONTRIBUTIONS = [-5.0, 1.0, -1.5, -0.5, -9.0]
TYPICAL = [-1.0, -1.0, -0.5, -1.0, -2.0]


def detector(**settings):
    model = DenoisingAutoencoder(2, max_iter=4, learning_rate="cosine", random_state=0)
    settings = {"calibration": "train", "random_state": 0} | settings
    return AutoencoderOutlierDetector(model, **settings)


DETECTOR = detector().fit(X)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def plain(text):
    return text.replace("\N{MINUS SIGN}", "-")


def lengths(display):
    return np.array([bar.get_width() for bar in display.bars_])


def colors(display):
    return [bar.get_facecolor() for bar in display.bars_]


def names(display):
    return [text.get_text() for text in display.ax_.get_yticklabels()]


def details(display):
    return [plain(text.get_text()) for text in display.ax_.get_yticklabels(minor=True)]


def numbers(display):
    return [plain(text.get_text()) for text in display.ax_.texts]


def title(display):
    return plain(display.ax_.get_title())


# --- bars -----------------------------------------------------------------------------


def test_bars():
    display = ExplanationDisplay(CONTRIBUTIONS, TYPICAL).plot()
    np.testing.assert_array_equal(display.columns_, [4, 0, 2, 3, 1])
    np.testing.assert_allclose(lengths(display), [-7, -4, -1, 0.5, 2])
    assert names(display) == [f"column {k}" for k in (4, 0, 2, 3, 1)]
    assert numbers(display) == ["-7.00", "-4.00", "-1.00", "+0.50", "+2.00"]
    assert colors(display) == [to_rgba("C3")] * 3 + [to_rgba("C0")] * 2
    assert display.figure_ is display.ax_.figure


def test_first_bar_is_on_top():
    display = ExplanationDisplay(CONTRIBUTIONS, TYPICAL).plot()
    heights = [bar.get_window_extent().y0 for bar in display.bars_]
    assert heights == sorted(heights, reverse=True)
    bottom, top = sorted(display.ax_.get_ylim())
    assert bottom < 0
    assert top > 4


def test_other_columns_share_a_bar():
    display = ExplanationDisplay(CONTRIBUTIONS, TYPICAL).plot(n_columns=3)
    np.testing.assert_array_equal(display.columns_, [4, 0, 1])
    np.testing.assert_allclose(lengths(display), [-7, -4, 2, -0.5])
    assert names(display) == ["column 4", "column 0", "column 1", "2 other columns"]
    assert colors(display)[3] == to_rgba("0.7")
    display.plot(n_columns=4)
    assert names(display)[-1] == "1 other column"


@pytest.mark.parametrize("n_columns", [1, 3, 10, 39, 40, 50])
def test_bars_add_up(n_columns):
    contributions, typical = rng.normal(size=(2, 40))
    display = ExplanationDisplay(contributions, typical).plot(n_columns=n_columns)
    assert len(display.columns_) == min(n_columns, 40)
    assert len(display.bars_) == min(n_columns + 1, 40)
    total = contributions.sum() - typical.sum()
    np.testing.assert_allclose(lengths(display).sum(), total)
    shown = lengths(display)[: len(display.columns_)]
    assert (np.diff(shown) >= 0).all()
    hidden = np.delete(contributions - typical, display.columns_)
    assert np.abs(shown).min() >= np.abs(hidden).max(initial=0.0)


def test_equal_bars_keep_the_order_of_the_columns():
    display = ExplanationDisplay(np.full(30, -1.0), np.zeros(30)).plot(n_columns=4)
    np.testing.assert_array_equal(display.columns_, range(4))


def test_nothing_unusual():
    display = ExplanationDisplay(TYPICAL, TYPICAL).plot()
    assert numbers(display) == ["0.0"] * 5
    low, high = display.ax_.get_xlim()
    assert low < 0 < high


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_zero_is_in_sight(sign):
    display = ExplanationDisplay([10.0 * sign, 9.0 * sign], [0.0, 0.0]).plot()
    low, high = display.ax_.get_xlim()
    assert low < min(0, 10 * sign)
    assert high > max(0, 10 * sign)


def test_room_for_numbers():
    below = limits(np.array([-10.0]), 5)
    assert below[0] < -11
    assert 0 < below[1] < 1
    assert limits(np.array([-10.0]), 9)[0] < below[0]
    assert limits(np.array([10.0]), 5) == (-below[1], -below[0])


# --- labels ---------------------------------------------------------------------------


def test_labels_say_what_was_expected():
    display = ExplanationDisplay(
        [-3.0, 0.0],
        [-1.0, -1.0],
        values=[3.25, 120.0],
        expected_values=[1.1234, 119.0],
        standard_scores=[4.512, -0.26],
        feature_names=["acidity", "mass"],
    ).plot()
    assert names(display) == ["acidity", "mass"]
    assert details(display) == [
        "= 3.25, expected 1.1, +4.5 sd",
        "= 120, expected 119, -0.3 sd",
    ]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, ""),
        ({"values": [3.0]}, "= 3"),
        ({"expected_values": [3.14159]}, "expected 3.142"),
        ({"standard_scores": [2.0]}, "+2.0 sd"),
        ({"values": [3.0], "standard_scores": [-2.0]}, "= 3, -2.0 sd"),
    ],
)
def test_labels_say_what_is_known(known, expected):
    assert details(ExplanationDisplay([-3.0], [0.0], **known).plot()) == [expected]


def test_labels_are_centred_on_their_bars():
    display = ExplanationDisplay(CONTRIBUTIONS, TYPICAL).plot(n_columns=2)
    np.testing.assert_array_equal(display.ax_.get_yticks(), [0, 1, 2])
    display = ExplanationDisplay(CONTRIBUTIONS, TYPICAL, values=TYPICAL)
    ax = display.plot(n_columns=2).ax_
    above, below = ax.get_yticks(), ax.get_yticks(minor=True)
    assert (above[:2] < [0, 1]).all()
    assert (below > [0, 1]).all()
    assert above[2] == 2


@pytest.mark.parametrize(
    ("value", "other", "expected"),
    [
        (3.25, 1.1234, ("3.25", "1.1")),
        (16.0, 0.0412, ("16", "0")),
        (12.37, 13.4169, ("12.37", "13.4")),
        (1065.0, 746.28, ("1065", "746")),
        (1000.125, 1000.15, ("1000.125", "1000.15")),
        (1234567.25, 1234567.5, ("1234567.25", "1234567.5")),
        (0.1279, 0.0481, ("0.1279", "0.048")),
        (100.0, 2.0, ("100", "2")),
        (5.4321, 5.4321, ("5.432", "5.432")),
        (0.0, 0.0, ("0", "0")),
        (-0.25, 0.5, ("-0.25", "0.5")),
        (1e-9, 3e-9, ("1e-09", "3e-09")),
        (2.5e10, 0.0, ("2.5e+10", "0")),
        (np.nan, 2.0, ("nan", "2")),
    ],
)
def test_numbers_can_be_told_apart(value, other, expected):
    assert tuple(map(plain, beside(value, other))) == expected


@pytest.mark.parametrize(
    ("value", "decimals", "sign", "expected"),
    [
        (2.345, 1, "", "2.3"),
        (2.345, 1, "+", "+2.3"),
        (-0.04, 1, "+", "0.0"),
        (-12.3456, 2, "+", "-12.35"),
        (1e300, 2, "+", "+1e+300"),
        (np.nan, 1, "", "nan"),
    ],
)
def test_numbers_as_text(value, decimals, sign, expected):
    assert plain(as_text(value, decimals, sign)) == expected


@pytest.mark.parametrize(
    ("value", "decimals"),
    [(123.4, 0), (12.3, 1), (-1.2, 2), (0.012, 4), (1e9, 0), (0.0, 0), (np.inf, 0)],
)
def test_decimals(value, decimals):
    assert decimals_for(value, 3) == decimals


def test_long_names():
    short, long = "a" * MOST_LETTERS, "begin $x$" + "a" * MOST_LETTERS + "end"
    assert shortened(short) == short
    assert len(shortened(long).replace("\\", "")) == MOST_LETTERS
    assert shortened(long).startswith(r"begin \$x\$a")
    assert shortened(long).endswith("aend")
    contributions = [-2.0, -1.0]
    display = ExplanationDisplay(contributions, [0, 0], feature_names=[short, long])
    narrow = ExplanationDisplay(contributions, [0, 0]).plot()
    assert names(display.plot()) == [short, shortened(long)]
    assert display.figure_.get_figwidth() > narrow.figure_.get_figwidth()
    display.figure_.draw_without_rendering()
    assert display.ax_.get_position().width > 0.3


def test_new_figure_grows_with_the_bars():
    display = ExplanationDisplay(rng.normal(size=40), np.zeros(40))
    few = display.plot(n_columns=3).figure_
    many = display.plot(n_columns=30).figure_
    assert many.get_figheight() > few.get_figheight()


def test_title_and_unit():
    display = ExplanationDisplay(CONTRIBUTIONS, TYPICAL, offset=-8.125, name="tuna")
    assert title(display.plot()) == "tuna: score -15.00, typical -5.50, line -8.12"
    assert title(display.plot(name="cod")).startswith("cod: score")
    unit = "Contribution to the score, less what is typical (nats)"
    assert display.ax_.get_xlabel() == unit
    display = ExplanationDisplay(CONTRIBUTIONS, TYPICAL, unit=None).plot()
    assert title(display) == "Score -15.00, typical -5.50"
    assert display.ax_.get_xlabel() == unit.removesuffix(" (nats)")


def test_score_can_be_told_from_the_line():
    display = ExplanationDisplay([-15.0], [0.0], offset=-15.0004).plot()
    assert title(display) == "Score -15.0000, typical 0.0000, line -15.0004"
    display = ExplanationDisplay([-15.0], [0.0], offset=-15.0).plot()
    assert title(display) == "Score -15.0, typical 0.0, line -15.0"


# --- estimators -----------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, np.int64(2)])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, np.ndarray.tolist])
def test_row_of_an_estimator(row, kind):
    display = ExplanationDisplay.from_estimator(DETECTOR, kind(ODD), row=row)
    explanation = DETECTOR.explain(ODD)
    for key in ("contributions", "expected_values", "standard_scores"):
        np.testing.assert_array_equal(getattr(display, key), explanation[key][row])
    np.testing.assert_array_equal(display.values, ODD[row])
    typical = DETECTOR.typical_contributions_
    np.testing.assert_array_equal(display.typical_contributions, typical)
    score = DETECTOR.score_samples(ODD)[row]
    np.testing.assert_allclose(lengths(display).sum(), score - typical.sum())
    assert display.offset == DETECTOR.offset_
    assert display.unit == "nats"
    assert title(display).startswith(f"row {row}: score {score:.1f}")


def test_cause_is_on_top():
    display = ExplanationDisplay.from_estimator(DETECTOR, ODD, n_columns=2)
    assert display.columns_[0] == 2
    assert len(display.bars_) == 3
    assert details(display)[0].startswith("= 9, expected ")


def test_names_of_a_data_frame():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ODD, columns=NAMES, index=["a", "b", "c"])
    fitted = detector().fit(pd.DataFrame(X, columns=NAMES))
    display = ExplanationDisplay.from_estimator(fitted, frame)
    assert set(names(display)) == set(NAMES)
    assert names(display)[0] == "depth"
    assert title(display).startswith("row a: ")
    explanation = fitted.explain(frame).contributions
    np.testing.assert_array_equal(display.contributions, explanation.loc["a"])
    display = ExplanationDisplay.from_estimator(fitted, frame, row=2, name="mine")
    assert names(display)[0] == "mass"
    assert title(display).startswith("mine: ")
    others = ["h", "w", "d", "m"]
    display = ExplanationDisplay.from_estimator(fitted, frame, feature_names=others)
    assert names(display)[0] == "d"


def test_names_of_a_polars_frame():
    pl = pytest.importorskip("polars")
    fitted = detector().fit(pl.DataFrame(X, schema=NAMES))
    frame = pl.DataFrame(ODD, schema=NAMES)
    display = ExplanationDisplay.from_estimator(fitted, frame, row=2)
    assert names(display)[0] == "mass"
    assert title(display).startswith("row 2: ")


def test_pipeline():
    pipeline = make_pipeline(StandardScaler(), detector()).fit(X)
    display = ExplanationDisplay.from_estimator(pipeline, ODD, row=1)
    scaled = pipeline[:-1].transform(ODD)
    explanation = pipeline[-1].explain(scaled)
    np.testing.assert_array_equal(display.contributions, explanation.contributions[1])
    np.testing.assert_array_equal(display.values, scaled[1])
    assert set(names(display)) == {"x0", "x1", "x2", "x3"}


def test_pipeline_of_other_columns():
    pd = pytest.importorskip("pandas")
    frame, odd = (pd.DataFrame(part, columns=NAMES) for part in (X, ODD))
    two = make_column_transformer(
        (StandardScaler(), ["mass", "width"]), verbose_feature_names_out=False
    )
    for transformer in (two, two.set_output(transform="pandas")):
        pipeline = make_pipeline(transformer, detector()).fit(frame)
        display = ExplanationDisplay.from_estimator(pipeline, odd, row=2)
        assert names(display) == ["mass", "width"]


@pytest.mark.parametrize(
    "steps", [[], [FunctionTransformer(np.log)], [make_pipeline(StandardScaler())]]
)
def test_nested_pipelines(steps):
    pipeline = make_pipeline(*steps, make_pipeline(detector())).fit(X)
    display = ExplanationDisplay.from_estimator(pipeline, ODD)
    score = pipeline.score_samples(ODD)[0]
    np.testing.assert_allclose(display.contributions.sum(), score)


def test_errors_are_not_in_nats():
    fitted = detector(anomaly_score="reconstruction_error").fit(X)
    assert ExplanationDisplay.from_estimator(fitted, ODD).unit is None
    both = {"reconstruction_error": 1.0, "log_likelihood": 1.0}
    fitted = detector(anomaly_score=both).fit(X)
    assert ExplanationDisplay.from_estimator(fitted, ODD).unit is None


# --- where and how --------------------------------------------------------------------


def test_on_given_axes():
    figure, (left, right) = plt.subplots(1, 2)
    display = ExplanationDisplay.from_estimator(DETECTOR, ODD, ax=right)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.has_data()
    assert len(plt.get_fignums()) == 1


def test_keywords_of_bars():
    display = ExplanationDisplay.from_estimator(
        DETECTOR, ODD, color="green", ec="black", height=0.25
    )
    assert set(colors(display)) == {to_rgba("green")}
    assert {bar.get_edgecolor() for bar in display.bars_} == {to_rgba("black")}
    assert {bar.get_height() for bar in display.bars_} == {0.25}


def test_drawing_again_starts_anew():
    display = ExplanationDisplay(CONTRIBUTIONS, TYPICAL, values=TYPICAL)
    before, settings = dict(vars(display)), dict(plt.rcParams)
    first = names(display.plot(n_columns=2))
    display.plot(n_columns=5, name="other", color="green")
    assert names(display.plot(n_columns=2)) == first
    assert len(display.bars_) == len(numbers(display)) == 3
    assert colors(display)[0] == to_rgba("C3")
    assert title(display).startswith("Score")
    assert {key: vars(display)[key] for key in before} == before
    assert dict(plt.rcParams) == settings


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("contributions", [[1.0, 2.0]], r"contributions has shape \(1, 2\), but must"),
        ("contributions", [], r"contributions has shape \(0,\), but must be"),
        ("contributions", [1.0, np.nan], "contributions must be finite.* nan at 1"),
        ("typical_contributions", [1.0], r"shape \(1,\).* n_features=2"),
        ("typical_contributions", [-np.inf, 1.0], "must be finite.* -inf at 0"),
        ("values", [1.0], r"values has shape \(1,\), but .* n_features=2"),
        ("expected_values", [1.0], "expected_values has shape"),
        ("standard_scores", [[1.0, 2.0]], "standard_scores has shape"),
        ("feature_names", ["a"], r"feature_names has shape \(1,\).*n_features=2"),
    ],
)
def test_impossible_parts(parameter, value, message):
    parts = {"contributions": [1.0, 2.0], "typical_contributions": [0.0, 0.0]}
    with pytest.raises(ValueError, match=message):
        ExplanationDisplay(**(parts | {parameter: value}))


@pytest.mark.parametrize("row", [-1, 3, 1.0, "a", None, [0]])
def test_wrong_row(row):
    message = r"must be a whole number from 0 to 2: X has n_samples=3 rows"
    with pytest.raises(ValueError, match=message) as caught:
        ExplanationDisplay.from_estimator(DETECTOR, ODD, row=row)
    assert f"row={row!r}" in str(caught.value)


def test_wrong_number_of_columns():
    display = ExplanationDisplay(CONTRIBUTIONS, TYPICAL)
    with pytest.raises(ValueError, match="n_columns == 0, must be >= 1"):
        display.plot(n_columns=0)
    with pytest.raises(TypeError, match="n_columns must be an instance of"):
        display.plot(n_columns=2.5)
    assert not plt.get_fignums()


@pytest.mark.parametrize("wrap", [lambda x: x, make_pipeline])
def test_what_does_not_explain(wrap):
    forest = wrap(IsolationForest(n_estimators=2).fit(X))
    message = "IsolationForest, which does not explain .* AutoencoderOutlierDetector"
    with pytest.raises(TypeError, match=message):
        ExplanationDisplay.from_estimator(forest, ODD)
