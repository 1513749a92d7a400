"""What all autoencoders share: fitting, encoding, decoding and scoring."""

from __future__ import annotations

import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.random import SFC64, Generator
from numpy.typing import ArrayLike
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
    _fit_context,
    check_sizes,
    check_support,
    check_units,
    check_weight,
    one_blas_thread,
)
from skae.activations import ACTIVATIONS
from skae.bottlenecks import Bottleneck
from skae.component import resolve
from skae.corruptions import Corruption, NoCorruption
from skae.distributions import DISTRIBUTIONS, Distribution
from skae.layout import Array
from skae.model import Model, Plan
from skae.optimizers import OPTIMIZERS, SCHEDULES, Moments, Optimizer
from skae.rows import Columns, Rows, arrange
from skae.training import DivergenceError, Monitor, Stopping, Trainer, descend, lbfgs

__all__ = ["BaseAutoencoder"]

#: A fit has diverged if it costs so many nats per column, and twice what it costs to
#: predict the columns' means.
LOST = 2.0

#: Up to so many rows, equal rows share their corruption, so that a row of weight two
#: and a row given twice are the same; beyond, each row has its own.
MOST_SHARED = 256

#: Networks and batches no wider than this are trained in one thread: threads that wait
#: for each other cost more than they bring, a hundred times more on a busy machine.
#: Such products are the same, to the last bit, in any number of threads.
SMALL = 256

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


class BaseAutoencoder(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """Common ground of the autoencoders; a subclass names the parts that it differs in.

    Fitted models hold arrays, numbers, strings and containers of them. All parameters
    stand in one vector, `_theta`, so that tied weights stay tied when pickled.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [POSITIVE_INT],
        "hidden_layer_sizes": ["array-like", POSITIVE_INT],
        "activation": [StrOptions(set(ACTIVATIONS)), None],
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

    # --- the holes that a subclass fills -------------------------------------------

    @abstractmethod
    def _bottleneck(self) -> Bottleneck:
        """Return how the encoder's output becomes a code; asked for in every call."""

    def _corruption(self) -> tuple[Corruption, float]:
        """Return the damage done to the input in training, and its level."""
        return NoCorruption(), 0.0

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
            index, weight = self._arrange(data, weight)
            train, valid = self._split(index, rng)
            columns = Columns.of(Rows(data, train, weight))
            data = self._prepare(data, columns, rng, keep=self.warm_start)
            trainer = self._trainer(data, train, weight, rng)
            every_row = self._model().rows(data, index, weight)
            held_out = None
            if valid is not None:
                held_out = self._model().rows(data, valid, weight)
            with self._threads(trainer):
                monitor = self._train(trainer, held_out)
                self._record(monitor, len(trainer.rows))
                noise = self._assess(trainer, every_row, monitor.losses)
            self.noise_variance_ = noise
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
            index, weight = self._arrange(data, weight)
            columns = Columns.of(Rows(data, index, weight))
            rng = self._new_generator()
            newest, memory = columns.weight, getattr(self, "_memory", None) or {}
            if not first:
                columns.merge(Columns(**self._columns))
            if memory:
                rng.bit_generator.state = memory["generator"]
            data = self._prepare(data, columns, rng, keep=True)
            trainer = self._trainer(data, index, weight, rng)
            with self._threads(trainer):
                moments = self._continue(trainer, memory)
                noise = self._assess(trainer, trainer.rows, self.loss_curve_)
            self._update_noise(noise, min(1.0, 2.0 * newest / columns.weight))
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
        return data, check_weight(data, sample_weight)

    def _check_rows(
        self, X: Any, distribution: str | Distribution, reset: bool = False
    ) -> Any:
        """Validate rows: their type, number of columns, names and range."""
        dtype = [np.float64, np.float32]
        data = validate_data(self, X, accept_sparse="csr", dtype=dtype, reset=reset)
        member, names = resolve(distribution, DISTRIBUTIONS), self._column_names
        check_support(data, member, distribution, names)
        return data

    def _check_fitted_rows(self, X: Any) -> Any:
        check_is_fitted(self)
        return self._check_rows(X, self._plan["distribution"])

    @property
    def _column_names(self) -> Any:
        return getattr(self, "feature_names_in_", None)

    def _split(self, index: Array, rng: Generator) -> tuple[Array, Array | None]:
        """Return the rows for training and, with early stopping, for validation."""
        if not self.early_stopping:
            return index, None
        n_valid = max(1, round(self.validation_fraction * len(index)))
        if n_valid >= len(index):
            raise ValueError(
                f"early_stopping=True with validation_fraction="
                f"{self.validation_fraction} leaves no row to train on: "
                f"n_samples={len(index)}."
            )
        held_out = np.zeros(len(index), dtype=bool)
        held_out[rng.permutation(len(index))[:n_valid]] = True
        return index[~held_out], index[held_out]

    # --- from parameters to structure ---------------------------------------------

    def _new_plan(self, n_features: int) -> Plan:
        """Describe the network that the parameters ask for."""
        hidden = check_sizes(self.hidden_layer_sizes)
        activation, code = self.activation or "tanh", self.code_activation
        if code == "auto":
            code = "identity" if hidden else self.activation or "identity"
        if isinstance(self.n_components, (bool, np.bool_)):
            raise ValueError(f"n_components={self.n_components} must be an integer.")
        real = resolve(self.distribution, DISTRIBUTIONS).has_scale
        return Plan(
            widths=[n_features, *hidden, int(self.n_components)],
            activations=[activation] * len(hidden) + [code],
            tied=bool(self.tied_weights),
            distribution=clone(self.distribution, safe=False),
            standardize=bool(self.standardize and real),
        )

    def _prepare(self, X: Any, columns: Columns, rng: Generator, keep: bool) -> Any:
        """Set the starting parameters; return X in their floating-point type."""
        known = keep and hasattr(self, "_theta")
        dtype = self._theta.dtype if known else X.dtype
        check_units(columns, dtype, self._column_names)
        plan = self._new_plan(X.shape[1])
        self._columns = vars(columns)
        if known:
            if repr(vars(plan)) != repr(self._plan):
                raise ValueError(
                    f"The parameters ask for the network {vars(plan)}, but the one to "
                    f"continue from is {self._plan}. Use fit with warm_start=False."
                )
            self._theta = np.array(self._theta)
            self.loss_curve_ = list(self.loss_curve_)
            return X.astype(self._theta.dtype, copy=False)
        model = Model.start(plan, self._bottleneck(), columns, X.dtype, rng)
        self._theta = model.theta
        self._plan = vars(plan)
        self.noise_variance_ = self.validation_scores_ = None
        self.loss_curve_, self.n_iter_, self.t_ = [], 0, 0
        return X

    def _model(self) -> Model:
        """Return the fitted numbers as something to work with."""
        return Model(
            plan=Plan(**self._plan),
            bottleneck=self._bottleneck(),
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
        corruption, level = self._corruption()
        objective, _ = model.plan.objective(
            model.bottleneck, corruption, level, alpha=alpha
        )
        rows = model.rows(X, index, weight)
        bounds = np.array([model.columns.low, model.columns.high], dtype=X.dtype)
        rows.standardize(bounds)
        return Trainer(
            objective,
            self._theta,
            rows,
            (bounds[0], bounds[1]),
            batch_size=self._rows_per_step(len(rows)),
            shuffle=bool(self.shuffle),
            rng=rng,
        )

    def _rows_per_step(self, n_rows: int) -> int:
        """Return the batch size; "auto" makes about 32 steps an epoch."""
        if self.solver == "lbfgs":  # a step sees all rows, in parts of any size
            return 1024
        if self.batch_size == "auto":
            return max(32, min(256, n_rows // 32))
        return int(self.batch_size)

    def _arrange(self, X: Any, weight: Array | None) -> tuple[Array, Array | None]:
        """Return the rows to use and their weights.

        Where all rows make one batch, equal rows are merged: then weights, repetitions
        and the order of rows make no difference to the last bit.
        """
        n_rows = X.shape[0] if weight is None else int(np.count_nonzero(weight))
        certain = self._corruption()[1] == 0 and not self._bottleneck().is_random
        merge = self.solver == "lbfgs" or (
            self._rows_per_step(n_rows) >= n_rows and (certain or n_rows <= MOST_SHARED)
        )
        return arrange(X, weight, merge=merge, keep_order=not self.shuffle)

    def _optimizer(self) -> Optimizer:
        optimizer: Optimizer = resolve(
            self.solver, OPTIMIZERS, **self.get_params(deep=False)
        )
        return optimizer

    # --- training -----------------------------------------------------------------

    def _monitor(self, held_out: Rows | None) -> Monitor:
        validate, patience = None, self.n_iter_no_change
        if held_out is not None:
            validate = partial(self._model().mean_loss, held_out)
        elif self.learning_rate == "cosine" and self.solver != "lbfgs":
            patience = np.inf  # its last epochs, the slow ones, are the point of it
        return Monitor(
            self._theta,
            Stopping(self.tol, patience),
            validate=validate,
            report=print if self.verbose else None,
        )

    def _threads(self, trainer: Trainer) -> AbstractContextManager[None]:
        """Hold products to one thread if all of them are small."""
        small = max(trainer.batch_size, *self._plan["widths"]) <= SMALL
        return one_blas_thread() if small else nullcontext()

    def _train(self, trainer: Trainer, held_out: Rows | None) -> Monitor:
        """Run the solver; warn if it did not come to an end by itself."""
        monitor = self._monitor(held_out)
        run = self._run_lbfgs if self.solver == "lbfgs" else self._run_epochs
        with self._explained(monitor.losses):
            trouble = run(trainer, monitor)
        monitor.finish()
        if trouble:
            warnings.warn(trouble, ConvergenceWarning, stacklevel=4)
        return monitor

    def _assess(
        self, trainer: Trainer, rows: Rows, losses: list[float]
    ) -> Array | None:
        """Return the noise variance; refuse parameters that are worse than none."""
        model = self._model()
        loss, noise = model.assess(rows)
        with np.errstate(all="ignore"):
            loss += trainer.decay()
        poor = LOST * rows.X.shape[1]
        with self._explained(losses):
            finite = noise is None or np.isfinite(noise).all()
            if not (np.isfinite(loss) and finite):
                raise DivergenceError(f"the loss is {loss}", finished=True)
            if loss > max(poor, 2 * (trainer.first_loss or 0.0)):
                of_means = model.loss_of_means(rows)
                if loss > 2 * of_means + poor:
                    raise DivergenceError(
                        f"the loss is {loss:g} nats per row, where the mean of the "
                        f"data costs {of_means:g}",
                        finished=True,
                    )
        return noise

    def _run_lbfgs(self, trainer: Trainer, monitor: Monitor) -> str | None:
        """Return why L-BFGS stopped short of a minimum, if it did."""
        if trainer.objective.is_random:
            raise ValueError(
                "solver='lbfgs' needs an objective without randomness: set "
                "corruption_level=0, or choose another solver."
            )
        reason = lbfgs(
            trainer,
            max_iter=self.max_iter,
            max_fun=self.max_fun,
            tol=self.tol,
            monitor=monitor,
        )
        if reason is None:
            return None
        return (
            f"L-BFGS stopped with the message {reason!r} after {len(monitor.losses)} "
            f"iterations, before it reached a minimum (max_iter={self.max_iter}, "
            f"max_fun={self.max_fun}). Increase these, or scale the data."
        )

    def _run_epochs(self, trainer: Trainer, monitor: Monitor) -> str | None:
        """Return why training stopped before the loss had settled, if it did."""
        optimizer = self._optimizer()
        settled = descend(
            trainer,
            optimizer,
            optimizer.init(self._theta, trainer.objective.weights.size),
            rate=self._rate,
            max_iter=self.max_iter,
            n_drops=MOST_DROPS if self.learning_rate == "adaptive" else 0,
            monitor=monitor,
        )
        if settled or monitor.stopping.patience == np.inf:
            return None
        return (
            f"Training stopped at max_iter={self.max_iter} epochs, before the loss had "
            f"settled (tol={self.tol}, n_iter_no_change={self.n_iter_no_change}). "
            f"Increase max_iter or learning_rate_init={self.learning_rate_init}."
        )

    def _rate(self, epoch: int, drops: int) -> float:
        schedule = SCHEDULES[self.learning_rate]
        factor = schedule(epoch, self.max_iter, self.power_t, drops)
        return float(self.learning_rate_init * factor)

    @contextmanager
    def _explained(self, losses: list[float]) -> Iterator[None]:
        """Say in which epoch training diverged, and what to change."""
        try:
            yield
        except DivergenceError as error:
            epoch = len(losses) + (not error.finished)
            advice = [] if self.standardize else ["set standardize=True"]
            if self.solver != "lbfgs":
                rate = self.learning_rate_init
                advice.insert(0, f"reduce learning_rate_init={rate}")
            advice.append("look for extreme values in X")
            raise ValueError(
                f"Training diverged in epoch {epoch}: {error}. To mend this, "
                f"{' or '.join(advice)}."
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

    def _update_noise(self, newest: Array | None, share: float) -> None:
        """Move the estimate towards that of the newest rows by `share`."""
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
        weight = check_weight(log_likelihood[:, None], sample_weight)
        seen = weight > 0
        return float(np.average(log_likelihood[seen], weights=weight[seen]))

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
