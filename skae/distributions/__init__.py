"""A distribution p(x | eta) measures how well the decoder's output explains a row.

Its negative log-density is the loss. `eta` is the decoder's unconstrained output:
no probability is ever formed and clipped. `shared` are numbers that describe a column
whatever the code, such as a log-scale; they are unconstrained too.

Nothing here silences NumPy: an output of 1000 may overflow, and whoever calls decides
what to say about it. The result is infinite then, never NaN.
"""

from __future__ import annotations

from skae.distributions import bounded, counts, losses, positive, real
from skae.distributions._distribution import Distribution
from skae.distributions.bounded import *
from skae.distributions.counts import *
from skae.distributions.losses import *
from skae.distributions.positive import *
from skae.distributions.real import *

__all__ = ["DISTRIBUTIONS", "Distribution"]
__all__ += bounded.__all__
__all__ += counts.__all__
__all__ += losses.__all__
__all__ += positive.__all__
__all__ += real.__all__

MEMBERS = (
    bounded.MEMBERS | counts.MEMBERS | losses.MEMBERS | positive.MEMBERS | real.MEMBERS
)
#: What the modules of this package have, in the order of names.
DISTRIBUTIONS: dict[str, type[Distribution]] = dict(sorted(MEMBERS.items()))
