"""Windows that slide over space: their sizes, strides, paddings and dilations, and what cannot be.

Along an axis of n numbers, padded by l before and r behind, a window of k taps that stand d apart
spans e = d (k - 1) + 1 of them. Moved s at a time it has

    m = ⌊(n + l + r - e) / s⌋ + 1

places, and its tap t meets number i s + t d of the padded axis at place i.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ShapeError

MAX_TAPS = 2**14
"""What a window may hold where every tap is an instruction of the program: 128×128 numbers."""

Sizes = int | tuple[int, ...]
"""One number for every spatial axis, or one per axis."""
Padding = str | int | tuple[int | tuple[int, int], ...]
"""`"SAME"` (⌈n/s⌉ places), `"VALID"` (none), a number for both ends of all axes, or one per
axis, or a pair (before, behind) per axis."""


@dataclass(frozen=True)
class Windows:
    """Where windows stand on the spatial axes of an array; every field has an entry per axis."""

    inputs: tuple[int, ...]
    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """How many numbers a window spans, holes included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.size, self.dilation, strict=True))

    @property
    def padded(self) -> tuple[int, ...]:
        """The length of each axis with its padding."""
        return tuple(n + sum(ends) for n, ends in zip(self.inputs, self.padding, strict=True))

    @property
    def inside(self) -> tuple[slice, ...]:
        """What of the padded axes is not padding."""
        ends = zip(self.inputs, self.padding, strict=True)
        return tuple(slice(low, low + n) for n, (low, _) in ends)

    @property
    def outputs(self) -> tuple[int, ...]:
        """How many places a window has along each axis."""
        each = zip(self.padded, self.extent, self.stride, strict=True)
        return tuple((n - e) // s + 1 for n, e, s in each)

    @property
    def taps(self) -> int:
        """How many numbers a window holds."""
        return math.prod(self.size)

    def check_taps(self, name: str) -> "Windows":
        """Return these windows, whose taps an op lays out one by one in its program.

        Raises ShapeError, which names the op, where such a program would be too long.
        """
        if self.taps > MAX_TAPS:
            raise ShapeError(
                f"{name}: a window of {_show(self.size)} holds {self.taps:,} numbers, at most "
                f"{MAX_TAPS:,} are possible; take a smaller one, or a pool over all of space"
            )
        return self

    def offsets(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Yield each tap, in row-major order, and where it stands in a window."""
        for tap in itertools.product(*map(range, self.size)):
            yield tap, tuple(t * d for t, d in zip(tap, self.dilation, strict=True))

    def slices(self, offset: Sequence[int]) -> tuple[slice, ...]:
        """Return the slices of the padded axes that a tap meets, over all places."""
        each = zip(offset, self.outputs, self.stride, strict=True)
        return tuple(slice(o, o + (m - 1) * s + 1, s) for o, m, s in each)


def windows(
    name: str,
    inputs: Sequence[int],
    size: Sizes,
    stride: Sizes | None = 1,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
) -> Windows:
    """Return the windows over spatial axes of these lengths; `stride` None is the window's size.

    Raises ShapeError, which names the op, where no window has a place, and ValueError where the
    hyperparameters themselves make no sense.
    """
    axes = len(inputs)
    size = sizes(name, "window", size, axes)
    stride = size if stride is None else sizes(name, "stride", stride, axes)
    dilation = sizes(name, "dilation", dilation, axes)
    extent = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    ends = paddings(name, padding, inputs, extent, stride)
    win = Windows(tuple(inputs), size, stride, ends, dilation)
    if any(e > n for e, n in zip(extent, win.padded, strict=True)):
        dilated = f" (dilated {_show(dilation)}: {_show(extent)})" if max(dilation) > 1 else ""
        padded = f" (padded: {_show(win.padded)})" if any(map(any, ends)) else ""
        raise ShapeError(
            f"{name}: the window {_show(size)}{dilated} is larger than the input "
            f"{_show(inputs)}{padded}; pad the input, or take a smaller window"
        )
    return win


def transposed_windows(
    name: str,
    places: Sequence[int],
    size: Sizes,
    stride: Sizes = 1,
    padding: Padding = "VALID",
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
) -> Windows:
    """Return the windows with these places, on axes as long as a transpose makes them.

    Raises ShapeError, which names the op, where padding leaves nothing of them.
    """
    axes = len(places)
    size = sizes(name, "window", size, axes)
    stride = sizes(name, "stride", stride, axes)
    dilation = sizes(name, "dilation", dilation, axes)
    more = sizes(name, "output_padding", output_padding, axes, least=0)
    if any(a >= s for a, s in zip(more, stride, strict=True)):
        raise ShapeError(
            f"{name}: output_padding {_show(more)} must be less than the stride {_show(stride)}"
        )
    if padding == "SAME":
        if any(more):
            raise ValueError(f"{name}: with padding 'SAME' there is no output_padding, got {more}")
        lengths = [m * s for m, s in zip(places, stride, strict=True)]
        return windows(name, lengths, size, stride, padding, dilation)
    extent = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    ends = paddings(name, padding, places, extent, stride)
    each = zip(places, stride, extent, ends, more, strict=True)
    lengths = [(m - 1) * s + e - sum(p) + a for m, s, e, p, a in each]
    if any(n < 1 for n in lengths):
        raise ShapeError(
            f"{name}: padding {padding!r} cuts off all that a window {_show(size)} with stride "
            f"{_show(stride)} makes of {_show(places)}; give less"
        )
    return windows(name, lengths, size, stride, ends, dilation)


def sizes(name: str, what: str, value: Sizes, axes: int, least: int = 1) -> tuple[int, ...]:
    """Return one number per axis, each of at least `least`."""
    each = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(each) != axes:
        raise ShapeError(
            f"{name}: {what} {_show(each)} has {len(each)} numbers, the input has {axes} spatial "
            f"axes; x is (batch, {axes} of space, channels)"
        )
    if any(not isinstance(n, int) or n < least for n in each):
        raise ValueError(f"{name}: {what} must be whole numbers of at least {least}, got {value!r}")
    return each


def paddings(
    name: str,
    padding: Padding,
    inputs: Sequence[int],
    extent: Sequence[int],
    stride: Sequence[int],
    crops: bool = False,
) -> tuple[tuple[int, int], ...]:
    """Return how many numbers stand before and behind each axis; with `crops`, below 0 as well."""
    axes = len(inputs)
    if padding == "VALID":
        return ((0, 0),) * axes
    if padding == "SAME":
        sizes = zip(inputs, extent, stride, strict=True)
        total = [max((-(-n // s) - 1) * s + e - n, 0) for n, e, s in sizes]
        return tuple((t // 2, t - t // 2) for t in total)
    each: tuple[Any, ...] = (padding,) * axes if isinstance(padding, int) else tuple(padding)
    ends = tuple((p, p) if isinstance(p, int) else tuple(p) for p in each)
    if isinstance(padding, str) or any(
        len(p) != 2 or any(not isinstance(n, int) or (n < 0 and not crops) for n in p) for p in ends
    ):
        raise ValueError(
            f"{name}: padding must be 'SAME', 'VALID', a whole number of at least 0, or one such "
            f"number or pair (before, behind) for each spatial axis, got {padding!r}"
        )
    if len(ends) != axes:
        raise ShapeError(
            f"{name}: padding {padding!r} is for {len(ends)} spatial axes, the input has {axes}"
        )
    return ends


def spatial(name: str, x: Any) -> tuple[int, ...]:
    """Return the spatial axes of x (batch, *space, channels): one, two or three."""
    if not 3 <= x.ndim <= 5:
        raise ShapeError(
            f"{name}: expects (batch, 1 to 3 axes of space, channels), got {tuple(x.shape)}"
        )
    return tuple(x.shape[1:-1])


def _show(numbers: Sequence[int]) -> str:
    return "×".join(map(str, numbers))
