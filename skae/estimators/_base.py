"""How all autoencoders are fitted."""

from __future__ import annotations

from numbers import Real
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from skae._validation import (
    FRACTION,
    NON_NEGATIVE,
    OPEN_FRACTION,
    POSITIVE,
    POSITIVE_INT,
    Options,
    StrOptions,
    _fit_context,
    check_sizes,
    check_support,
    check_units,
    check_weight,
    only_if,
)
from skae.activations import ACTIVATIONS
from skae.automatic import choose
from skae.checkpoints import Checkpoint
from skae.component import resolve
from skae.composite import as_distribution, plain
from skae.corruptions import CORRUPTIONS, Corruption
from skae.distributions import DISTRIBUTIONS, Distribution
from skae.estimators._fitted import all_or_nothing, new_generator
from skae.estimators._trained import TrainedAutoencoder
from skae.estimators._watch import FitWatch
from skae.layout import Array
from skae.model import Model, Plan
from skae.optimizers import OPTIMIZERS, SCHEDULES, Optimizer
from skae.penalties import Penalty
from skae.rows import Columns, Rows, arrange, rows_of
from skae.training import (
    Monitor,
    Trainer,
)

__all__ = ["BaseAutoencoder", "check_differentiable", "checked_corruption"]

#: Up to so many rows, equal rows share their corruption, so that a row of weight two
#: and a row given twice are the same; beyond, each row has its own.
MOST_SHARED = 256

#: An epoch of rows that come in chunks is taken to have at least so many.
FEWEST_ROWS = 1000


def checked_corruption(
    corruption: str | Corruption, level: float, name: str = "corruption_level"
) -> tuple[Corruption, float]:
    """Return a corruption and its level; zero if there is nothing random about it."""
    given, corruption = corruption, resolve(corruption, CORRUPTIONS)
    if float(level) not in corruption.levels:
        raise ValueError(
            f"{name}={level} is outside {corruption.levels}, the levels of "
            f"corruption={given!r}."
        )
    return corruption, float(level) if corruption.is_random else 0.0


def check_differentiable(penalty: Penalty, given: str | Penalty) -> None:
    """Refuse a penalty that has no gradient over all rows, which L-BFGS needs."""
    if not penalty.is_differentiable:
        raise ValueError(
            f"solver='lbfgs' needs the gradient of the loss over all rows, which "
            f"penalty={given!r} does not have: choose another solver or penalty."
        )


def can_continue(estimator: BaseAutoencoder, name: str) -> None:
    """Refuse to train from chunk to chunk where the solver needs all rows."""
    if estimator.solver == "lbfgs":
        raise AttributeError(f"{name} is not available with solver='lbfgs'.")
    if estimator.early_stopping:
        raise AttributeError(f"{name} is not available with early_stopping=True.")
    if not estimator._takes_chunks:
        kind = type(estimator).__name__
        raise AttributeError(f"{name} is not available: {kind} needs all rows at once.")


class BaseAutoencoder(TrainedAutoencoder):
    """Common ground of the autoencoders; a subclass names the parts that it differs in.

    It also gives `_bottleneck`, how the encoder's output becomes a code.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [POSITIVE_INT],
        "hidden_layer_sizes": ["array-like", POSITIVE_INT],
        "activation": [StrOptions(set(ACTIVATIONS)), None],
        "distribution": [StrOptions({"auto", *DISTRIBUTIONS}), Distribution, list],
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
        "validation_fraction": [OPEN_FRACTION],
        "beta_1": [FRACTION],
        "beta_2": [FRACTION],
        "epsilon": [POSITIVE],
        "n_iter_no_change": [POSITIVE_INT, Options(Real, {np.inf})],
        "max_fun": [POSITIVE_INT],
        "checkpoint": [str, PathLike, Checkpoint, None],
    }

    #: Whether codes are drawn.
    _has_random_code: ClassVar[bool] = False

    #: Whether it can be trained from chunk to chunk.
    _takes_chunks: ClassVar[bool] = True

    # --- the holes that a subclass fills -------------------------------------------

    def _code_size(self, n_features: int) -> int:
        """Return the number of units of the code."""
        if isinstance(self.n_components, (bool, np.bool_)):
            raise ValueError(f"n_components={self.n_components} must be an integer.")
        return int(self.n_components)

    def _code_activation(self, hidden: list[int]) -> str:
        """Return the activation of the encoder's output."""
        return "identity"

    def _decoder_sizes(self, hidden: list[int]) -> list[int]:
        """Return the widths of the decoder's layers between code and output."""
        return hidden[::-1]

    def _options(self) -> dict[str, Any]:
        """Return further settings of the objective."""
        return {}

    def _start(self, model: Model, rows: Rows) -> None:
        """Change where the training of a new model begins."""

    def _advise(self, n_rows: int) -> None:
        """Warn of what a complete fit, on so many rows, has come to."""

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
            If a value lies outside the distribution's support, if training diverges, or
            if there is a checkpoint of another fit. The estimator is then as it was
            before the call.
        """
        watch = FitWatch(self, self._n_tasks(), X, None, sample_weight)
        with all_or_nothing(self):
            data, weight, family = self._check_training_data(X, sample_weight, True)
            rng = watch.begin(family, X=data, sample_weight=weight)
            rows = Rows(data, *self._arrange(data, weight))
            monitor, n_rows = self._fit_rows(rows, family, rng, watch)
            self._warn(monitor, watch)
            self._advise(n_rows)
            watch.end()
        watch.request.pass_on()
        return self

    def _fit_rows(
        self, rows: Rows, family: Any, rng: Generator, watch: FitWatch
    ) -> tuple[Monitor, int]:
        """Fit to rows in their order, wherever they are; return on how many."""
        self._memory = None
        weight, index = rows.weight, rows.index
        train, valid = self._split(index, rng)
        rows = rows_of(rows.X, train, weight)
        data = self._prepare(rows, family, rows.columns(), rng, self.warm_start)
        trainer = self._trainer(data, train, weight, rng)
        every_row = watch.every_row = self._model().rows(data, index, weight)
        held_out = None
        if valid is not None:
            held_out = self._model().rows(data, valid, weight)
        with self._crew(trainer), watch.training(trainer):
            monitor = self._train(trainer, held_out, watch)
            self._record(monitor, len(trainer.rows))
            self._settle(trainer, every_row)
            self._finish(every_row)
        return monitor, len(train)

    @only_if(can_continue)  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Go through a chunk of rows once, continuing from the calls before.

        The optimiser, the random numbers and the columns' statistics carry on from
        call to call. The learning rate stays at its initial value. Callbacks and
        `checkpoint` are for `fit` alone.

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
            data, weight, family = self._check_training_data(X, sample_weight, first)
            index, weight = self._arrange(data, weight)
            rows = Rows(data, index, weight)
            columns = Columns.of(rows)
            rng = new_generator(self.random_state)
            newest, memory = columns.weight, getattr(self, "_memory", None) or {}
            scales = None if first else self._model().squared_scales
            if not first:
                columns.merge(Columns(**self._columns))
            if memory:
                rng.bit_generator.state = memory["generator"]
            data = self._prepare(rows, family, columns, rng, keep=True)
            trainer = self._trainer(data, index, weight, rng)
            trainer.n_rows = max(len(index), columns.n_rows // 4, FEWEST_ROWS)
            with self._crew(trainer):
                moments = self._continue(trainer, memory)
                share = min(1.0, 2.0 * newest / columns.weight)
                self._settle(trainer, trainer.rows, scales, share)
                self._finish(trainer.rows)
            state = rng.bit_generator.state
            self._memory = {"moments": vars(moments), "generator": state}
        return self

    # --- checking the input -------------------------------------------------------

    def _check_training_data(
        self, X: Any, sample_weight: Any, reset: bool
    ) -> tuple[Any, Array | None, Any]:
        """Validate rows and weights, and find the distribution of each column.

        The weights are None where all are one.
        """
        data, weight = self._check_rows(X, reset=reset), None
        if sample_weight is not None:
            weight = check_weight(data, sample_weight)
        names = self._column_names
        if self.distribution != "auto":
            family = plain(self.distribution, X, data, names)
        elif reset and not (self.warm_start and hasattr(self, "_plan")):
            family = choose(data, weight, names)
        else:  # what was chosen before stays
            family = self._plan["distribution"]
        check_support(data, as_distribution(family), family, names)
        return data, weight, family

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

    def _new_plan(self, n_features: int, family: Any) -> Plan:
        """Describe the network that the parameters ask for."""
        hidden = check_sizes(self.hidden_layer_sizes, "hidden_layer_sizes")
        back = self._decoder_sizes(hidden)
        tied = bool(getattr(self, "tied_weights", False))
        n_outputs = as_distribution(family).n_outputs(n_features)
        if tied and n_outputs != n_features:
            raise ValueError(
                f"tied_weights=True needs one output for each column, but "
                f"distribution={family!r} wants {n_outputs} for {n_features} columns."
            )
        activation, k = self.activation or "tanh", self._code_size(n_features)
        into = [activation] * len(hidden) + [self._code_activation(hidden)]
        return Plan(
            down=[n_features, *hidden, k],
            up=[k, *back, n_features],
            activations=[into, [activation] * len(back) + ["identity"]],
            tied=tied,
            distribution=family,
            standardize=bool(self.standardize),
        )

    def _prepare(
        self, rows: Rows, family: Any, columns: Columns, rng: Generator, keep: bool
    ) -> Any:
        """Set the starting parameters; return X in their floating-point type."""
        X = rows.X
        known = keep and hasattr(self, "_theta")
        dtype = self._theta.dtype if known else X.dtype
        check_units(columns, dtype, self._column_names)
        plan = self._new_plan(X.shape[1], family)
        self._columns = vars(columns)
        if known:
            if repr(vars(plan)) != repr(self._plan):
                raise ValueError(
                    f"The parameters ask for the network {vars(plan)}, but the one to "
                    f"continue from is {self._plan}. Use fit with warm_start=False."
                )
            self._theta = np.array(self._theta)
            return X.astype(self._theta.dtype, copy=False)
        self._plan = vars(plan)
        model = Model.start(plan, self._bottleneck(), columns, X.dtype, rng)
        self._start(model, model.rows(X, rows.index, rows.weight))
        self._theta = model.theta
        self.validation_scores_ = None
        self._keep_losses([])
        self.n_iter_ = self.t_ = 0
        return X

    def _trainer(
        self, X: Any, index: Array, weight: Array | None, rng: Generator
    ) -> Trainer:
        """Bring objective, rows and memory together."""
        model = self._model()
        decoupled = self.solver != "lbfgs" and self._optimizer().decoupled
        low, high = model.limits()
        model.shared[...] = np.clip(model.shared, low, high)
        objective, _ = model.plan.objective(
            model.bottleneck,
            *self._corruption(),
            alpha=0.0 if decoupled else float(self.alpha),
            beta=self._beta(np.inf),
            learns_shared=bool((low < high).any()),
            **self._options(),
        )
        rows = model.rows(X, index, weight)
        bounds = np.array([model.columns.low, model.columns.high], dtype=X.dtype)
        rows.standardize(bounds)
        model.family.inputs(bounds, bounds)
        # Rows that are elsewhere bring along who takes steps with them.
        trainer: type[Trainer] = getattr(X, "trainer", Trainer)
        return trainer(
            objective,
            self._theta,
            rows,
            bounds=(bounds[0], bounds[1]),
            limits=(low, high),
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

    def _arrange(
        self, X: Any, weight: Array | None, labels: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Return the rows to use and their weights.

        Where all rows make one batch, equal rows are merged: then weights, repetitions
        and the order of rows make no difference to the last bit.
        """
        n_rows = X.shape[0] if weight is None else int(np.count_nonzero(weight))
        may_share = self._is_certain() or n_rows <= MOST_SHARED
        merge = self.solver == "lbfgs" or (
            self._rows_per_step(n_rows) >= n_rows and may_share
        )
        return arrange(X, weight, merge, not self.shuffle, labels)

    def _is_certain(self) -> bool:
        """Tell whether nothing about a row is random in training."""
        return self._corruption()[1] == 0 and not self._has_random_code
