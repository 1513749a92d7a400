"""Displays show how training went and what a fitted autoencoder makes of its rows.

They follow scikit-learn's manner: the constructor keeps computed data, `from_estimator`
computes and draws, `plot` draws, as often as one likes. matplotlib is an optional
dependency and is imported when something is drawn, not before.
"""

from skae.displays.explanation import ExplanationDisplay
from skae.displays.latent_manifold import LatentManifoldDisplay
from skae.displays.latent_space import LatentSpaceDisplay
from skae.displays.loss_curve import LossCurveDisplay
from skae.displays.reconstruction import ReconstructionDisplay

__all__ = [
    "ExplanationDisplay",
    "LatentManifoldDisplay",
    "LatentSpaceDisplay",
    "LossCurveDisplay",
    "ReconstructionDisplay",
]
