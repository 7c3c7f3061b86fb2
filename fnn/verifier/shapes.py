"""Other shapes to try a rule on: sizes 0, 1, prime and small, and every broadcast pattern.

Axes of equal size change together: in a call with "f32[8,16]" and "f32[16]", both 16s do. A shape
that the definition refuses is not tried.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .arguments import Arguments, Leaf

PRIMES = (5, 7, 3, 11, 13, 2)
LARGE = 4096
"""A call with this many elements is not varied; its values vary on a smaller shape."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A call with certain shapes; `kind` says why it is tried."""

    label: str
    kind: str
    """given, example, size, geometry or broadcast."""
    arguments: Arguments
    fixed: bool = False
    """Whether only its own values are tried."""
    reference: bool = True
    """Whether the op's reference is defined here."""
    optional: bool = False
    """Whether it is left out if it takes long."""
    demanded: bool = True
    """Whether a rule that raises is wrong, rather than one that refuses a call."""

    @property
    def original(self) -> bool:
        """Whether it is the user's call, or an example of an op."""
        return self.kind in ("given", "example")

    @property
    def size(self) -> int:
        """The number of elements of its largest argument."""
        return max((math.prod(leaf.shape) for leaf in self.arguments.leaves), default=0)


Accepts = Callable[[Arguments], Any]
"""Returns the output's type for a call, or None where the definition refuses it."""


MOST = {"broadcast": 7, "size": 6, "geometry": 3}
"""How many cases of each kind are tried."""


EMPTY = "an empty batch"


def variants(call: Arguments, accepts: Accepts) -> list[Case]:
    """Return calls with other shapes that the definition accepts, the most telling first."""
    cases: list[Case] = []
    shapes = {_shapes(call)}
    output = accepts(call)
    for label, kind, arguments in [*_broadcasts(call), *_resizings(call, accepts)]:
        alike = sum(case.kind == kind for case in cases)
        if alike == MOST[kind] or _shapes(arguments) in shapes:
            continue
        result = accepts(arguments)
        if result is None or (kind == "broadcast" and result != output):
            continue
        if kind != "broadcast" and not _regular(call, arguments, output, result, accepts):
            continue
        shapes.add(_shapes(arguments))
        loud = kind == "broadcast" or (label.endswith("made 0") and label != EMPTY)
        cases.append(Case(label, kind, arguments, demanded=not loud))
    for arguments in (larger(call, odd=1), larger(call)):
        result = accepts(arguments)
        if result is not None and _shapes(arguments) not in shapes:
            if _regular(call, arguments, output, result, accepts):
                cases.append(Case("larger sizes", "geometry", arguments, optional=True))
            break
    return cases


def small(call: Arguments, accepts: Accepts) -> Arguments:
    """Return the call with smaller shapes that the definition accepts; else the call itself."""
    sizes = _sizes(call.leaves)
    for cap in (8, 16, 32):
        order = [n for n in sizes if n > cap]
        for smaller in ({n: 3 + i for i, n in enumerate(order)}, dict.fromkeys(order, cap)):
            arguments = resized(call, smaller)
            if accepts(arguments) is not None:
                return arguments
    return call


def larger(call: Arguments, odd: int = 0) -> Arguments:
    """Return the call with longer axes, about 10⁴ elements per argument.

    Blocks, tiles and threads matter at that size. With `odd` = 1, few block sizes divide the axes.
    """
    most = max((math.prod(leaf.shape) for leaf in call.leaves), default=1)
    rank = max((len(leaf.shape) for leaf in call.leaves), default=0)
    if most >= LARGE or not rank or not most:
        return call
    factor = max(2, round((10_000 / most) ** (1 / rank)))
    return resized(call, {n: n * factor + odd for leaf in call.leaves for n in leaf.shape if n > 1})


def _resizings(call: Arguments, accepts: Accepts) -> Iterator[tuple[str, str, Arguments]]:
    sizes = _sizes(call.leaves)
    batch = next((leaf.shape[0] for leaf in call.leaves if leaf.shape), None)
    first = [n for n in sizes if n == batch] + [n for n in sizes if n != batch]
    for n in first[:3]:
        yield f"size {n} made 1", "size", resized(call, {n: 1})
    rows = next((shape[0] for shape, _ in accepts(call) if shape), batch)
    yield EMPTY, "size", _emptied(call, rows)
    for n in first[1:3]:
        yield f"size {n} made 0", "size", resized(call, {n: 0})
    primes = [p for p in PRIMES if p not in sizes]
    new_sizes = dict(zip(reversed(sizes), primes, strict=False))
    yield "prime sizes", "geometry", resized(call, new_sizes)
    yield "sizes larger by 1", "geometry", resized(call, {n: n + 1 for n in sizes})
    for n in reversed(sizes):
        longer = n + 1 if accepts(resized(call, {n: n + 1})) is not None else n + 2
        yield f"size {n} made {longer}", "geometry", resized(call, {n: longer})
    yield "sizes doubled", "geometry", resized(call, {n: 2 * n for n in sizes})


def _regular(
    call: Arguments, arguments: Arguments, before: Any, after: Any, accepts: Accepts
) -> bool:
    """Whether the outputs' sizes change as the arguments' do.

    If not, the definition accepts the shape by chance: half of an axis of length 1, for example.
    """
    if any(0 in shape for shape, _ in after) and not any(0 in a.shape for a in arguments.leaves):
        return False
    pairs = [
        (n, m)
        for a, b in zip(call.leaves, arguments.leaves, strict=True)
        for n, m in zip(a.shape, b.shape, strict=True)
        if n > 1
    ]
    sizes = dict(pairs) | {n: m for n, m in pairs if n != m}
    return all(
        len(a) == len(b)
        and all(
            sizes.get(n, m) == m or not _follows(call, n, (j, axis), accepts)
            for axis, (n, m) in enumerate(zip(a, b, strict=True))
        )
        for j, ((a, _), (b, _)) in enumerate(zip(before, after, strict=True))
    )


def _follows(call: Arguments, n: int, where: tuple[int, int], accepts: Accepts) -> bool:
    """Whether an output's axis is an argument's axis of length n, and not equal to it by chance."""
    doubled, (j, axis) = accepts(resized(call, {n: 2 * n})), where
    return doubled is None or doubled[j][0][axis : axis + 1] == (2 * n,)


def _emptied(call: Arguments, rows: int | None) -> Arguments:
    """Return the call with an empty batch: first axes of length `rows` become 0."""
    return _reshaped(
        call,
        {i: (0, *a.shape[1:]) for i, a in enumerate(call.leaves) if a.shape[:1] == (rows,)},
    )


def _broadcasts(call: Arguments) -> Iterator[tuple[str, str, Arguments]]:
    """Yield calls with one argument to broadcast: along one axis, or without its first axis."""
    floats = [i for i, leaf in enumerate(call.leaves) if leaf.differentiable]
    if len(floats) < 2:
        return
    for i in floats:
        leaf = call.leaves[i]
        for axis, n in enumerate(leaf.shape):
            if n > 1:
                shape = (*leaf.shape[:axis], 1, *leaf.shape[axis + 1 :])
                label = f"{leaf.path} broadcast along axis {axis}"
                yield label, "broadcast", _reshaped(call, {i: shape})
        if len(leaf.shape) > 1:
            label = f"{leaf.path} without its first axis"
            yield label, "broadcast", _reshaped(call, {i: leaf.shape[1:]})


def _reshaped(call: Arguments, shapes: dict[int, tuple[int, ...]]) -> Arguments:
    """Return the call with other shapes for some leaves, whose values are then drawn."""
    leaves = list(call.leaves)
    for i, shape in shapes.items():
        leaves[i] = dataclasses.replace(leaves[i], shape=shape, value=None)
    return call.replace(leaves)


def resized(call: Arguments, sizes: dict[int, int]) -> Arguments:
    """Return the call with axes of some sizes changed to others."""
    shapes = {
        i: tuple(sizes.get(n, n) for n in leaf.shape)
        for i, leaf in enumerate(call.leaves)
        if any(n in sizes for n in leaf.shape)
    }
    return _reshaped(call, shapes)


def _sizes(leaves: Sequence[Leaf]) -> list[int]:
    """Return the different sizes of axes, in order of appearance; 0 and 1 are no sizes."""
    return list(dict.fromkeys(n for leaf in leaves for n in leaf.shape if n > 1))


def _shapes(arguments: Arguments) -> tuple[Any, ...]:
    return tuple(leaf.shape for leaf in arguments.leaves)
