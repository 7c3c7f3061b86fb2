"""How large may an error be, element by element? Tolerances come from the numbers themselves.

In float64 the rule and autodiff are the same mathematics, and may differ by rounding alone. An
element may differ by

    2⁻³⁶ |expected| + 2⁻⁴⁴ s + 16 n,

where s is the size of the array's elements, and n is the change of the element by one rounding of
the inputs or of the residuals. The first term is the promised resolution. The others are far below
it, unless the problem itself is ill-conditioned there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

EPS64 = 2.0**-52
RELATIVE = 2.0**-36
FLOOR = 2.0**-44
NOISE = 16.0
CONTINUOUS = 2.0**28
"""A change by more than this many roundings is a jump (a tie breaks) rather than noise."""
CAST = 8.0
"""Roundings allowed where a cast to a narrower dtype limits the comparison."""
SLACK = 4.0
ULPS = 2.0


@dataclass(frozen=True)
class Misfit:
    """An array that is not as expected: its bad elements, and the index of the worst."""

    got: np.ndarray
    want: np.ndarray
    tolerance: np.ndarray
    bad: np.ndarray
    index: tuple[int, ...]

    @property
    def nonfinite(self) -> bool:
        """Whether a bad element is infinite or not a number."""
        return not np.isfinite(self.got[self.bad]).all()

    @property
    def relative(self) -> float:
        """The largest error over the largest expected element."""
        scale = size_of(self.want)
        error = np.abs(self.got - self.want)[self.bad]
        worst = float(np.max(np.nan_to_num(error, nan=np.inf), initial=0.0))
        return worst / scale if scale else worst


def widen(array: np.ndarray) -> np.ndarray:
    """Return the same numbers in float64 or complex128."""
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def size_of(array: np.ndarray) -> float:
    """Return the largest finite magnitude."""
    sizes = np.abs(widen(array))
    return float(np.max(sizes[np.isfinite(sizes)], initial=0.0))


def noise_of(
    base: np.ndarray,
    others: Sequence[np.ndarray],
    eps: float = EPS64,
    *,
    size: float = 0.0,
    jumps: bool = False,
) -> np.ndarray:
    """Return the largest change among repetitions, element by element, without `jumps`.

    The repetitions differ by one rounding of their input. A jump, at a tie or where a rule
    compares a residual, is no effect of rounding: residuals are saved exactly. `size` bounds the
    array's terms, which may cancel here.
    """
    base = widen(base)
    noise = np.zeros(base.shape)
    jump = np.inf if jumps else min(CONTINUOUS * eps, 0.125) * max(size_of(base), size)
    with np.errstate(invalid="ignore"):
        for other in others:
            change = np.abs(widen(other) - base)
            noise = np.maximum(noise, np.where(change <= jump, change, 0.0))
    return noise


def exact_tolerance(
    want: np.ndarray, noise: np.ndarray | float, scale: float, eps: float = EPS64
) -> np.ndarray:
    """Return the tolerance in float64, or with the `eps` of a narrower dtype that limits it."""
    sizes = np.abs(widen(want))
    if eps > EPS64:
        return np.full(sizes.shape, CAST * eps * max(scale, size_of(want))) + CAST * noise
    return RELATIVE * sizes + FLOOR * max(scale, size_of(want)) + NOISE * noise


def rounding_tolerance(
    want: np.ndarray, error: float, noise: np.ndarray, scale: float, dtype: str
) -> np.ndarray:
    """Return the tolerance in a narrow dtype: autodiff's own error, or 2 units in the last place.

    `error` is autodiff's largest error over the array's size, at numbers like these.
    """
    ulp = float(jnp.finfo(dtype).eps)
    size = max(scale, size_of(want))
    tiny = float(jnp.finfo(dtype).tiny)
    return np.maximum(SLACK * error, ULPS * ulp) * size + SLACK * noise + 2 * tiny


def digits_tolerance(
    want: np.ndarray, auto: np.ndarray, change: np.ndarray, size: float, dtype: str
) -> np.ndarray:
    """Return the tolerance for an array of small numbers whose digits autodiff keeps.

    A rule may lose half of them. `change` is the effect of one rounding of the inputs or of the
    residuals; `size` is the largest size of such an array. Numbers near the dtype's smallest ones
    are left out.
    """
    ulp = float(jnp.finfo(dtype).eps)
    judged = np.isfinite(want) & np.isfinite(change)
    with np.errstate(invalid="ignore"):
        autodiff_loses = np.abs(auto - want) > 64 * ulp * size + NOISE * change
    if np.any(autodiff_loses & judged) or size < float(jnp.finfo(dtype).tiny) ** 0.5:
        return np.full(np.shape(want), np.inf)
    return np.where(judged, ulp**0.5 * size + NOISE * change, np.inf)


def misfit(got: np.ndarray, want: np.ndarray, tolerance: np.ndarray) -> Misfit | None:
    """Compare two arrays element by element, where the expected one is finite."""
    got, want = widen(got), widen(want)
    if got.shape != want.shape or got.size == 0:
        return None
    with np.errstate(invalid="ignore"):
        error = np.abs(got - want)
        bad = np.isfinite(want) & ~(error <= tolerance)
    if not bad.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(bad, np.nan_to_num(error / tolerance, nan=np.inf), -1.0)
    index = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
    return Misfit(got, want, np.broadcast_to(tolerance, want.shape), bad, index)


def nearness(got: np.ndarray, want: np.ndarray, tolerance: np.ndarray) -> float:
    """Return the largest ratio of error to tolerance; -1 if there is nothing to compare."""
    got, want = widen(got), widen(want)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.abs(got - want) / tolerance
    shares = shares[np.isfinite(shares)]
    return float(shares.max(initial=-1.0))


def resolution(want: np.ndarray, tolerance: np.ndarray) -> float | None:
    """Return the smallest relative error of any single element that would be caught.

    Elements below the root mean square are measured against it. None: all elements are zero.
    """
    sizes = np.abs(widen(want))
    finite = np.isfinite(sizes)
    if not finite.any() or not (rms := float(np.sqrt(np.mean(sizes[finite] ** 2)))):
        return None
    return float(np.max(tolerance[finite] / np.maximum(sizes[finite], rms)))
