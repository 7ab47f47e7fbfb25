"""The standard normal distribution inside compiled code."""

import math

from blendplan.kernels.kernel import kernel


@kernel
def normal_share(x: float) -> float:
    """Share of a standard normal distribution below ``x``."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


@kernel
def normal_quantile(share: float) -> float:
    """Value below which that share, in (0, 1), of a standard normal distribution lies.

    Newton's method on `normal_share`, from a logistic start; exact to 1e-9 for shares from 1e-4
    to 1 - 1e-4.
    """
    x = math.log(share / (1.0 - share)) / 1.702
    for _ in range(20):
        density = math.exp(-x * x / 2) / math.sqrt(2.0 * math.pi)
        step = (normal_share(x) - share) / density
        x -= min(1.0, max(-1.0, step))
        if abs(step) < 1e-10:
            break
    return x


@kernel
def normal_hazard(x: float) -> float:
    """Mean of a standard normal variable given that it exceeds ``x``."""
    if x > 8.0:
        return x + 1.0 / x
    return math.exp(-x * x / 2) / math.sqrt(2.0 * math.pi) / normal_share(-x)
