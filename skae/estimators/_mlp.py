"""Fitted stacks as scikit-learn's own networks.

These are imported when they are asked for, to keep the import of this library short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from skae.layout import Array
from skae.model import Model
from skae.network import Chain

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

__all__ = ["autoencoder_mlp", "classifier_mlp", "regressor_mlp"]

#: Activations that scikit-learn's networks have.
KNOWN = ("identity", "logistic", "relu", "tanh")


class Layers:
    """Weights, biases and activations of a network, ready to be changed.

    They are in double precision: folding the columns' units into the first layer would
    otherwise cost digits where a column's mean is far from zero.

    Parameters
    ----------
    model : Model
        What holds the numbers.
    chains : sequence of Chain
        The network.
    """

    def __init__(self, model: Model, *chains: Chain) -> None:
        layers = [layer for chain in chains for layer in chain.layers]
        theta = model.theta.astype(np.float64)
        self.weights = [np.array(layer.weight.of(theta), order="C") for layer in layers]
        self.biases = [np.array(layer.bias.of(theta)) for layer in layers]
        self.activations = [layer.activation for layer in layers]
        if model.family.changes_inputs:
            raise ValueError(
                f"A scikit-learn network sees X as it is, but with distribution="
                f"{model.plan.distribution!r} the encoder sees its logarithm."
            )
        self.scale_inputs(model.center, model.unit)
        self.merge_linear()

    def scale_inputs(self, center: Array, unit: Array) -> None:
        """Let the first layer take rows that are not standardized."""
        self.weights[0] /= unit[:, None]
        self.biases[0] -= center @ self.weights[0]

    def scale_outputs(self, center: Array, unit: Array) -> None:
        """Let the last layer give outputs in other units."""
        self.weights[-1] *= unit
        self.biases[-1] = self.biases[-1] * unit + center

    def merge_linear(self) -> None:
        """Make a linear layer and the one after it one."""
        for k in reversed(range(len(self.weights) - 1)):
            if self.activations[k] == "identity":
                weight, bias = self.weights.pop(k), self.biases.pop(k)
                self.activations.pop(k)
                self.biases[k] += bias @ self.weights[k]
                self.weights[k] = weight @ self.weights[k]

    @property
    def activation(self) -> str:
        """The activation of all hidden layers."""
        names = set(self.activations[:-1]) or {"identity"}
        if len(names) > 1 or not names <= set(KNOWN):
            raise ValueError(
                f"A scikit-learn network has one activation out of {KNOWN}, but the "
                f"stack has {sorted(names)}."
            )
        return names.pop()

    def become(self, mlp: Any, stack: Any, y: Array) -> Any:
        """Return a network, fitted; `y` are targets of the right shape."""
        sizes = tuple(len(bias) for bias in self.biases[:-1])
        mlp.set_params(
            hidden_layer_sizes=sizes,
            activation=self.activation,
            random_state=0,
            warm_start=True,
        )
        rows = np.zeros((len(y), stack.n_features_in_))
        # A step on rows of zeros makes everything that a fitted network has.
        classes = {"classes": y} if is_classifier(mlp) else {}
        mlp.partial_fit(rows, y, **classes)
        for k in range(len(self.weights)):
            mlp.coefs_[k], mlp.intercepts_[k] = self.weights[k], self.biases[k]
        if hasattr(stack, "feature_names_in_"):
            mlp.feature_names_in_ = stack.feature_names_in_
        del mlp._optimizer
        mlp.loss_curve_, mlp.n_iter_, mlp.t_ = [], 0, 0
        mlp.loss_ = mlp.best_loss_ = np.inf
        return mlp.set_params(random_state=stack.random_state)


def with_head(stack: Any) -> Layers:
    """Return the encoder and the layer on top."""
    check_is_fitted(stack)
    model = stack._model()
    return Layers(model, model.objective.encoder, Chain((stack._head(model),)))


def classifier_mlp(stack: Any) -> MLPClassifier:
    """Return a network that classifies as the stack does."""
    from sklearn.neural_network import MLPClassifier

    return with_head(stack).become(MLPClassifier(), stack, stack.classes_)


def regressor_mlp(stack: Any) -> MLPRegressor:
    """Return a network that predicts as the stack does."""
    from sklearn.neural_network import MLPRegressor

    layers = with_head(stack)
    layers.scale_outputs(stack._target_mean, stack._target_unit)
    shape = (1,) if stack._flat else (1, stack.n_targets_)
    return layers.become(MLPRegressor(), stack, np.zeros(shape))


def autoencoder_mlp(stack: Any) -> MLPRegressor:
    """Return a network that reconstructs as the stack does."""
    from sklearn.neural_network import MLPRegressor

    check_is_fitted(stack)
    model = stack._model()
    d = model.plan.n_features
    if not model.family.centred(d).all():
        raise ValueError(
            f"A scikit-learn network has linear outputs, but the mean of distribution="
            f"{model.plan.distribution!r} is not linear in the decoder's output."
        )
    layers = Layers(model, model.objective.encoder, model.objective.decoder)
    places = model.mean_outputs()
    layers.weights[-1] = layers.weights[-1][:, places]
    layers.biases[-1] = layers.biases[-1][places]
    layers.scale_outputs(model.center, model.unit)
    y = np.zeros((1, d) if d > 1 else 1)
    return layers.become(MLPRegressor(), stack, y)
