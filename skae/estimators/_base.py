"""What all autoencoders share: fitting, encoding, decoding and scoring."""

from __future__ import annotations

import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.random import SFC64, Generator
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    clone,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from skae._validation import (
    Interval,
    Options,
    StrOptions,
    _check_sample_weight,
    _fit_context,
)
from skae.activations import ACTIVATIONS
from skae.component import Range, resolve
from skae.distributions import DISTRIBUTIONS, Distribution
from skae.layout import Array
from skae.model import Model, Plan
from skae.optimizers import OPTIMIZERS, SCHEDULES, Moments, Optimizer
from skae.rows import Columns, Rows, distinct
from skae.training import DivergenceError, Monitor, Stopping, Trainer, descend, lbfgs

__all__ = ["BaseAutoencoder"]

#: A fit has diverged if its loss is so many times that of predicting the means.
GROWTH = 100.0

#: The "adaptive" schedule divides the learning rate at most this often.
MOST_DROPS = 5

POSITIVE_INT = Interval(Integral, 1, None, closed="left")
NON_NEGATIVE = Interval(Real, 0, None, closed="left")
POSITIVE = Interval(Real, 0, None, closed="neither")
FRACTION = Interval(Real, 0, 1, closed="left")


@contextmanager
def all_or_nothing(estimator: BaseEstimator) -> Iterator[None]:
    """Give the estimator back its former attributes if the block fails."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def can_continue(estimator: BaseAutoencoder) -> bool:
    """Tell whether training can go on from chunk to chunk; `available_if` asks."""
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is not available with solver='lbfgs'.")
    if estimator.early_stopping:
        raise AttributeError("partial_fit is not available with early_stopping=True.")
    return True


def default_batch_size(n_rows: int) -> int:
    """Return the number of rows in a batch that ``batch_size="auto"`` stands for.

    About 32 steps an epoch, so that few rows and many are trained equally well.
    """
    return min(n_rows, max(32, min(256, n_rows // 32)))


class BaseAutoencoder(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """Common ground of the autoencoders; a subclass names its parts in `_parts`.

    Fitted models hold arrays, numbers, strings and containers of them. All parameters
    stand in one vector, `_theta`, so that tied weights stay tied when pickled.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [POSITIVE_INT],
        "hidden_layer_sizes": ["array-like", POSITIVE_INT],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "code_activation": [StrOptions({"auto", *ACTIVATIONS})],
        "distribution": [StrOptions(set(DISTRIBUTIONS)), Distribution],
        "tied_weights": ["boolean"],
        "alpha": [NON_NEGATIVE],
        "standardize": ["boolean"],
        "solver": [StrOptions({"lbfgs", *OPTIMIZERS}), Optimizer],
        "batch_size": [StrOptions({"auto"}), POSITIVE_INT],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [POSITIVE],
        "power_t": [NON_NEGATIVE],
        "max_iter": [POSITIVE_INT],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [NON_NEGATIVE],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [FRACTION],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "beta_1": [FRACTION],
        "beta_2": [FRACTION],
        "epsilon": [POSITIVE],
        "n_iter_no_change": [POSITIVE_INT, Options(Real, {np.inf})],
        "max_fun": [POSITIVE_INT],
    }

    # What a fit leaves behind; typed here, set in `fit` and `partial_fit` alone.
    _plan: dict[str, Any]
    _theta: Array
    _columns: dict[str, Any]
    _memory: dict[str, Any] | None
    noise_variance_: Array | None
    loss_curve_: list[float]
    validation_scores_: list[float] | None

    # --- the hole that a subclass fills -------------------------------------------

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """Return the bottleneck, and the corruption and its level for training."""

    # --- fitting ------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the autoencoder to X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data. Sparse matrices are made dense one batch at a time.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows; None gives each row weight one. A row of
            weight zero counts as absent.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a value lies outside the distribution's support, or if training
            diverges. The estimator is then as it was before the call.
        """
        with all_or_nothing(self):
            data, weight = self._check_training_data(X, sample_weight, reset=True)
            rng = self._new_generator()
            index, weight = distinct(data, weight, keep_order=not self.shuffle)
            train, valid = self._split(index, rng)
            columns = Columns.of(Rows(data, train, weight))
            data = self._prepare(data, columns, rng, keep=self.warm_start)
            trainer = self._trainer(data, train, weight, rng)
            held_out = None
            if valid is not None:
                held_out = self._model().rows(data, valid, weight)
            monitor = self._monitor(held_out)
            self._train(trainer, monitor)
            self._record(monitor, len(trainer.rows))
            every_row = self._model().rows(data, index, weight)
            self.noise_variance_ = self._model().estimate_noise(every_row)
            self._memory = None
        return self

    @available_if(can_continue)  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Go through a chunk of rows once, continuing from the calls before.

        The optimiser, the random numbers and the columns' statistics carry on from
        call to call. The learning rate stays at its initial value.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            A chunk of the training data, of any length.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            As in `fit`.
        """
        first = not hasattr(self, "_theta")
        with all_or_nothing(self):
            data, weight = self._check_training_data(X, sample_weight, reset=first)
            index, weight = distinct(data, weight, keep_order=not self.shuffle)
            columns = Columns.of(Rows(data, index, weight))
            rng = self._new_generator()
            newest, memory = columns.weight, getattr(self, "_memory", None) or {}
            if not first:
                columns.merge(Columns(**self._columns))
            if memory:
                rng.bit_generator.state = memory["generator"]
            data = self._prepare(data, columns, rng, keep=True)
            trainer = self._trainer(data, index, weight, rng)
            moments = self._continue(trainer, memory)
            self._update_noise(trainer.rows, min(1.0, 2.0 * newest / columns.weight))
            state = rng.bit_generator.state
            self._memory = {"moments": vars(moments), "generator": state}
        return self

    def _new_generator(self) -> Generator:
        """Make the generator of one fit; NumPy's global state is never touched."""
        if self.random_state is None:
            return Generator(SFC64())
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        return Generator(SFC64(seed))

    # --- checking the input -------------------------------------------------------

    def _check_training_data(
        self, X: Any, sample_weight: Any, reset: bool
    ) -> tuple[Any, Array | None]:
        """Validate rows and weights; the weights are None where all are one."""
        data = self._check_rows(X, self.distribution, reset=reset)
        if sample_weight is None:
            return data, None
        weight = _check_sample_weight(sample_weight, data, ensure_non_negative=True)
        if not weight.any():
            raise ValueError("All sample weights are zero; at least one must not be.")
        return data, weight

    def _check_rows(
        self, X: Any, distribution: str | Distribution, reset: bool = False
    ) -> Any:
        """Validate rows: their type, number of columns, names and range."""
        dtype = [np.float64, np.float32]
        data = validate_data(self, X, accept_sparse="csr", dtype=dtype, reset=reset)
        allowed = resolve(distribution, DISTRIBUTIONS).support
        if allowed == Range():
            return data
        low, high = data.min(axis=0), data.max(axis=0)
        if sparse.issparse(data):
            low, high = low.toarray().ravel(), high.toarray().ravel()
        outside = np.flatnonzero((low < allowed.low) | (high > allowed.high))
        if len(outside):
            j = outside[0]
            value = low[j] if low[j] < allowed.low else high[j]
            raise ValueError(
                f"{'Negative values in data: c' if value < 0 else 'C'}olumn "
                f"{self._column_name(j)} holds {value:g}, but distribution="
                f"{distribution!r} needs values in {allowed}; {len(outside)} of "
                f"{data.shape[1]} columns are outside."
            )
        return data

    def _check_fitted_rows(self, X: Any) -> Any:
        check_is_fitted(self)
        return self._check_rows(X, self._plan["distribution"])

    def _column_name(self, j: int) -> str:
        names = getattr(self, "feature_names_in_", None)
        return str(j) if names is None else f"{j} ({names[j]!r})"

    def _check_units(self, columns: Columns, dtype: np.dtype[Any]) -> None:
        """Refuse columns so large or so small that their spread cannot be formed."""
        limits = np.finfo(dtype)
        size = np.maximum(np.abs(columns.mean), columns.unit)
        bad = ~((columns.unit > limits.tiny) & (size < limits.max))
        if bad.any():
            j = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"Column {self._column_name(j)} ranges from {columns.low[j]:g} to "
                f"{columns.high[j]:g}; its standard deviation cannot be represented "
                f"in {dtype}. Rescale the column."
            )

    def _split(self, index: Array, rng: Generator) -> tuple[Array, Array | None]:
        """Return the rows for training and, with early stopping, for validation."""
        if not self.early_stopping:
            return index, None
        n_valid = max(1, round(self.validation_fraction * len(index)))
        if n_valid >= len(index):
            raise ValueError(
                f"early_stopping=True with validation_fraction="
                f"{self.validation_fraction} leaves no row to train on: "
                f"n_samples={len(index)} (equal rows count once)."
            )
        held_out = np.zeros(len(index), dtype=bool)
        held_out[rng.permutation(len(index))[:n_valid]] = True
        return index[~held_out], index[held_out]

    # --- from parameters to structure ---------------------------------------------

    def _new_plan(self, n_features: int) -> Plan:
        """Describe the network that the parameters ask for."""
        hidden = self._check_sizes()
        code = self.code_activation
        if code == "auto":
            code = "identity" if hidden else self.activation
        real = resolve(self.distribution, DISTRIBUTIONS).has_scale
        return Plan(
            widths=[n_features, *hidden, int(self.n_components)],
            activations=[self.activation] * len(hidden) + [code],
            tied=bool(self.tied_weights),
            distribution=clone(self.distribution, safe=False),
            standardize=bool(self.standardize and real),
        )

    def _check_sizes(self) -> list[int]:
        """Return the widths of the hidden layers."""
        try:
            sizes = np.atleast_1d(self.hidden_layer_sizes)
            hidden = [int(size) for size in sizes]
        except (TypeError, ValueError):
            hidden = [0]
        if min(hidden, default=1) < 1 or not np.array_equal(hidden, sizes):
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} must hold positive "
                f"integers, one for each encoder layer between input and code."
            )
        return hidden

    def _prepare(self, X: Any, columns: Columns, rng: Generator, keep: bool) -> Any:
        """Set the starting parameters; return X in their floating-point type."""
        self._check_units(columns, X.dtype)
        plan = self._new_plan(X.shape[1])
        self._columns = vars(columns)
        if keep and hasattr(self, "_theta"):
            if repr(vars(plan)) != repr(self._plan):
                raise ValueError(
                    f"The parameters ask for the network {vars(plan)}, but the one to "
                    f"continue from is {self._plan}. Use fit with warm_start=False."
                )
            self._theta = np.array(self._theta)
            self.loss_curve_ = list(self.loss_curve_)
            return X.astype(self._theta.dtype, copy=False)
        bottleneck = self._parts()["bottleneck"]
        self._theta = Model.start(plan, bottleneck, columns, X.dtype, rng).theta
        self._plan = vars(plan)
        self.noise_variance_ = self.validation_scores_ = None
        self.loss_curve_, self.n_iter_, self.t_ = [], 0, 0
        return X

    def _model(self) -> Model:
        """Return the fitted numbers as something to work with."""
        return Model(
            plan=Plan(**self._plan),
            bottleneck=self._parts()["bottleneck"],
            theta=self._theta,
            columns=Columns(**self._columns),
            noise_variance=self.noise_variance_,
        )

    def _trainer(
        self, X: Any, index: Array, weight: Array | None, rng: Generator
    ) -> Trainer:
        """Bring objective, rows and memory together."""
        model = self._model()
        decoupled = self.solver != "lbfgs" and self._optimizer().decoupled
        alpha = 0.0 if decoupled else float(self.alpha)
        objective, _ = model.plan.objective(**self._parts(), alpha=alpha)
        rows = model.rows(X, index, weight)
        bounds = np.array([model.columns.low, model.columns.high], dtype=X.dtype)
        rows.standardize(bounds)
        auto = self.batch_size == "auto"
        return Trainer(
            objective,
            self._theta,
            rows,
            (bounds[0], bounds[1]),
            batch_size=default_batch_size(len(rows)) if auto else int(self.batch_size),
            shuffle=bool(self.shuffle),
            rng=rng,
        )

    def _optimizer(self) -> Optimizer:
        optimizer: Optimizer = resolve(
            self.solver, OPTIMIZERS, **self.get_params(deep=False)
        )
        return optimizer

    # --- training -----------------------------------------------------------------

    def _monitor(self, held_out: Rows | None) -> Monitor:
        validate = None
        if held_out is not None:
            validate = partial(self._model().mean_loss, held_out)
        return Monitor(
            self._theta,
            Stopping(self.tol, self.n_iter_no_change),
            validate=validate,
            report=print if self.verbose else None,
        )

    def _train(self, trainer: Trainer, monitor: Monitor) -> None:
        """Run the solver; warn if it did not come to an end by itself."""
        with self._explained(monitor.losses):
            if self.solver == "lbfgs":
                converged = self._run_lbfgs(trainer, monitor)
            else:
                optimizer = self._optimizer()
                moments = optimizer.init(self._theta, trainer.objective.weights.size)
                converged = descend(
                    trainer,
                    optimizer,
                    moments,
                    rate=self._rate,
                    max_iter=self.max_iter,
                    n_drops=MOST_DROPS if self.learning_rate == "adaptive" else 0,
                    monitor=monitor,
                )
            monitor.finish()
            self._check_loss(trainer.rows, monitor)
        if not converged:
            self._warn_of_convergence()

    def _warn_of_convergence(self) -> None:
        """Warn that training was cut short, unless so many epochs were asked for."""
        if self.solver == "lbfgs":
            limits, advice = f"{self.max_iter=} or {self.max_fun=}", "either"
        elif self.learning_rate == "cosine" or self.n_iter_no_change == np.inf:
            return
        else:
            limits, advice = f"{self.max_iter=}", "max_iter or learning_rate_init"
        limits = limits.replace("self.", "")
        warnings.warn(
            f"Training stopped at {limits} while the loss still fell by more than "
            f"tol={self.tol} nats per row within n_iter_no_change="
            f"{self.n_iter_no_change} epochs. Increase {advice}.",
            ConvergenceWarning,
            stacklevel=5,
        )

    def _check_loss(self, rows: Rows, monitor: Monitor) -> None:
        """Refuse a fit that explains the rows far worse than their means do."""
        loss, modest = monitor.stopping.best, GROWTH * rows.X.shape[1]
        if not monitor.validate:
            loss = monitor.losses[-1]
        if loss > modest:
            of_means = self._model().mean_loss(rows, of_means=True)
            if loss > modest + GROWTH * of_means:
                raise DivergenceError(
                    f"the loss is {loss:g} nats per row, and reconstructing every row "
                    f"as the mean of the data costs {of_means:g}"
                )

    def _run_lbfgs(self, trainer: Trainer, monitor: Monitor) -> bool:
        if trainer.objective.is_random:
            raise ValueError(
                "solver='lbfgs' needs an objective without randomness: set "
                "corruption_level=0, or choose another solver."
            )
        return lbfgs(
            trainer,
            max_iter=self.max_iter,
            max_fun=self.max_fun,
            tol=self.tol,
            monitor=monitor,
        )

    def _rate(self, epoch: int, drops: int) -> float:
        schedule = SCHEDULES[self.learning_rate]
        factor = schedule(epoch, self.max_iter, self.power_t, drops)
        return float(self.learning_rate_init * factor)

    @contextmanager
    def _explained(self, losses: list[float]) -> Iterator[None]:
        """Say at which epoch training diverged, and what to change."""
        try:
            yield
        except DivergenceError as error:
            advice = "" if self.standardize else ", set standardize=True"
            raise ValueError(
                f"Training diverged at epoch {len(losses) + 1}: {error}. Reduce "
                f"learning_rate_init={self.learning_rate_init}{advice}, or look for "
                f"extreme values in X."
            ) from None

    def _record(self, monitor: Monitor, n_rows: int) -> None:
        """Turn what the monitor saw into fitted attributes."""
        self.loss_curve_ += monitor.losses
        self.loss_ = self.loss_curve_[-1]
        self.n_iter_ = len(monitor.losses)
        self.t_ += n_rows * self.n_iter_
        self.best_loss_ = self.best_validation_score_ = None
        if monitor.validate:
            scores = [-loss for loss in monitor.validation_losses]
            self.validation_scores_ = (self.validation_scores_ or []) + scores
            self.best_validation_score_ = max(scores)
        else:
            self.validation_scores_ = None
            self.best_loss_ = min(self.loss_curve_)

    def _continue(self, trainer: Trainer, memory: dict[str, Any]) -> Moments:
        """Take one pass with the optimiser's memory of the passes before."""
        optimizer = self._optimizer()
        moments = optimizer.init(self._theta, trainer.objective.weights.size)
        if memory and memory["moments"]["arrays"].shape == moments.arrays.shape:
            moments = Moments(**memory["moments"])
            moments.arrays = moments.arrays.copy()
        monitor, n_iter = self._monitor(None), self.n_iter_
        with self._explained(self.loss_curve_):
            rate = float(self.learning_rate_init)
            monitor(trainer.epoch(optimizer, moments, rate))
        self._record(monitor, len(trainer.rows))
        self.n_iter_ += n_iter
        return moments

    def _update_noise(self, rows: Rows, share: float) -> None:
        """Move the estimate towards that of the newest rows by `share`."""
        newest = self._model().estimate_noise(rows)
        if newest is not None and self.noise_variance_ is not None:
            newest = (1.0 - share) * self.noise_variance_ + share * newest
        self.noise_variance_ = newest

    # --- using the fitted model ---------------------------------------------------

    def transform(self, X: ArrayLike) -> Array:
        """Return the code of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to encode; they are not corrupted.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_components)
            The codes, in the floating-point type of X.
        """
        data = self._check_fitted_rows(X)
        return self._model().encode(data)

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Return the reconstruction for each code, in the units of the data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes, as `transform` returns them.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            The mean of p(x | code).
        """
        check_is_fitted(self)
        z = check_array(X, dtype=[np.float64, np.float32], input_name="X")
        if z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {z.shape[1]} columns, but inverse_transform expects codes with "
                f"n_components={self._n_features_out} columns."
            )
        return self._model().decode(z)

    def score_features(self, X: ArrayLike) -> Array:
        """Return each entry's share of the log-likelihood of its row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples, n_features)
            In nats; each row sums to its entry in `score_samples`.
        """
        data = self._check_fitted_rows(X)
        out = np.empty(data.shape, data.dtype)
        for place, log_likelihood in self._model().log_likelihood(data):
            out[place] = log_likelihood
        return out

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row given its own code.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            The logarithm of p(x | code of x), in nats and in the units of X; higher is
            better.
        """
        data = self._check_fitted_rows(X)
        out = np.empty(data.shape[0], data.dtype)
        for place, log_likelihood in self._model().log_likelihood(data):
            out[place] = log_likelihood.sum(axis=1, dtype=np.float64)
        return out

    def score(
        self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the mean log-likelihood of the rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows.

        Returns
        -------
        log_likelihood : float
            The (weighted) mean of `score_samples`, in nats per row; higher is better.
        """
        log_likelihood = self.score_samples(X)
        weight = _check_sample_weight(
            sample_weight, log_likelihood[:, None], ensure_non_negative=True
        )
        return float(np.average(log_likelihood, weights=weight))

    # --- what scikit-learn and the curious ask for --------------------------------

    @property
    def _n_features_out(self) -> int:
        return int(self._plan["widths"][-1])

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer, encoder first; tied ones are transposed views."""
        return [weight for weight, _ in self._views()]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer, encoder first."""
        return [bias for _, bias in self._views()]

    def _views(self) -> list[tuple[Array, Array]]:
        if not hasattr(self, "_theta"):
            raise AttributeError(f"This {type(self).__name__} is not fitted yet.")
        objective = self._model().objective
        return objective.encoder.of(self._theta) + objective.decoder.of(self._theta)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        distribution = self.distribution
        if isinstance(distribution, str) and distribution in DISTRIBUTIONS:
            distribution = DISTRIBUTIONS[distribution]
        support = getattr(distribution, "support", None)
        tags.input_tags.positive_only = support is not None and support.low >= 0
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
