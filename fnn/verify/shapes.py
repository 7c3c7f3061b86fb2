"""Other shapes to try a rule on: sizes 0, 1, prime and small, and every broadcast pattern.

Axes of one size are taken to belong together: where "f32[8,16]" and "f32[16]" are given, both 16s
change. A shape that the definition does not accept is not tried.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .arguments import Arguments, Leaf

PRIMES = (5, 7, 3, 11, 13, 2)
LARGE = 4096
"""From this many elements on, other values are tried on a smaller shape."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A call of certain shapes: `kind` says what it is there for."""

    label: str
    kind: str
    """given, example, size, geometry or broadcast."""
    arguments: Arguments
    fixed: bool = False
    """Whether only the given values are to be tried."""
    reference: bool = True
    """Whether the op's reference is defined here."""
    optional: bool = False
    """Whether to leave it out if it takes long."""
    demanded: bool = True
    """Whether a rule that raises is wrong, and does not just refuse a call."""

    @property
    def size(self) -> int:
        """The number of elements of its largest argument."""
        return max((_size(leaf.shape) for leaf in self.arguments.leaves), default=0)


Accepts = Callable[[Arguments], Any]
"""Returns the output's type for a call, or None where the definition refuses it."""


MOST = {"broadcast": 7, "size": 6, "geometry": 3}
"""How many cases of each kind are tried."""


EMPTY = "an empty batch"


def variants(given: Arguments, accepts: Accepts) -> list[Case]:
    """Return other shapes that the definition accepts, the most telling first."""
    cases: list[Case] = []
    seen = {_shapes(given)}
    output = accepts(given)
    for label, kind, arguments in [*_broadcasts(given), *_resizings(given, accepts)]:
        alike = sum(case.kind == kind for case in cases)
        if alike == MOST[kind] or _shapes(arguments) in seen:
            continue
        result = accepts(arguments)
        if result is None or (kind == "broadcast" and result != output):
            continue
        if kind != "broadcast" and not _regular(given, arguments, output, result, accepts):
            continue
        seen.add(_shapes(arguments))
        loud = kind == "broadcast" or (label.endswith("made 0") and label != EMPTY)
        cases.append(Case(label, kind, arguments, demanded=not loud))
    for arguments in (larger(given, odd=1), larger(given)):
        result = accepts(arguments)
        if result is not None and _shapes(arguments) not in seen:
            if _regular(given, arguments, output, result, accepts):
                cases.append(Case("larger sizes", "geometry", arguments, optional=True))
            break
    return cases


def small(given: Arguments, accepts: Accepts) -> Arguments:
    """Return the call in smaller shapes, where it is large and the definition accepts them."""
    sizes = _sizes(given.leaves)
    for cap in (8, 16, 32):
        order = [n for n in sizes if n > cap]
        for shrunk in ({n: 3 + i for i, n in enumerate(order)}, dict.fromkeys(order, cap)):
            arguments = resized(given, shrunk)
            if accepts(arguments) is not None:
                return arguments
    return given


def larger(given: Arguments, odd: int = 0) -> Arguments:
    """Return the call with every axis made longer, to some 10⁴ elements an argument.

    Where blocks, tiles or threads begin to matter; with `odd` = 1, of sizes that few blocks divide.
    """
    most = max((_size(leaf.shape) for leaf in given.leaves), default=1)
    rank = max((len(leaf.shape) for leaf in given.leaves), default=0)
    if most >= LARGE or not rank or not most:
        return given
    factor = max(2, round((10_000 / most) ** (1 / rank)))
    return resized(
        given, {n: n * factor + odd for leaf in given.leaves for n in leaf.shape if n > 1}
    )


def _resizings(given: Arguments, accepts: Accepts) -> Iterator[tuple[str, str, Arguments]]:
    sizes = _sizes(given.leaves)
    batch = next((leaf.shape[0] for leaf in given.leaves if leaf.shape), None)
    first = [n for n in sizes if n == batch] + [n for n in sizes if n != batch]
    for n in first[:3]:
        yield f"size {n} made 1", "size", resized(given, {n: 1})
    rows = next((shape[0] for shape, _ in accepts(given) if shape), batch)
    yield EMPTY, "size", _emptied(given, rows)
    for n in first[1:3]:
        yield f"size {n} made 0", "size", resized(given, {n: 0})
    primes = [p for p in PRIMES if p not in sizes]
    changed = dict(zip(reversed(sizes), primes, strict=False))
    yield "prime sizes", "geometry", resized(given, changed)
    yield "sizes larger by 1", "geometry", resized(given, {n: n + 1 for n in sizes})
    for n in reversed(sizes):
        longer = n + 1 if accepts(resized(given, {n: n + 1})) is not None else n + 2
        yield f"size {n} made {longer}", "geometry", resized(given, {n: longer})
    yield "sizes doubled", "geometry", resized(given, {n: 2 * n for n in sizes})


def _regular(
    given: Arguments, arguments: Arguments, before: Any, after: Any, accepts: Accepts
) -> bool:
    """Whether the outputs' sizes change as the arguments' do.

    If not, the definition accepts the shape by chance: half of an axis of length 1, say.
    """
    if any(0 in shape for shape, _ in after) and not any(0 in a.shape for a in arguments.leaves):
        return False
    pairs = [
        (n, m)
        for a, b in zip(given.leaves, arguments.leaves, strict=True)
        for n, m in zip(a.shape, b.shape, strict=True)
        if n > 1
    ]
    sizes = dict(pairs) | {n: m for n, m in pairs if n != m}
    return all(
        len(a) == len(b)
        and all(
            sizes.get(n, m) == m or not _follows(given, n, (j, axis), accepts)
            for axis, (n, m) in enumerate(zip(a, b, strict=True))
        )
        for j, ((a, _), (b, _)) in enumerate(zip(before, after, strict=True))
    )


def _follows(given: Arguments, n: int, where: tuple[int, int], accepts: Accepts) -> bool:
    """Whether an output's axis is one of the arguments' of length n, and not as long by chance."""
    doubled, (j, axis) = accepts(resized(given, {n: 2 * n})), where
    return doubled is None or doubled[j][0][axis : axis + 1] == (2 * n,)


def _emptied(given: Arguments, rows: int | None) -> Arguments:
    """Return the call of an empty batch: first axes of this length made 0."""
    leaves = [
        dataclasses.replace(leaf, shape=(0, *leaf.shape[1:]), value=None)
        if leaf.shape and leaf.shape[0] == rows
        else leaf
        for leaf in given.leaves
    ]
    return given.replace(leaves)


def _broadcasts(given: Arguments) -> Iterator[tuple[str, str, Arguments]]:
    """Stretch one argument at a time: along one axis, or for want of its first axes."""
    floats = [i for i, leaf in enumerate(given.leaves) if leaf.differentiable]
    if len(floats) < 2:
        return
    for i in floats:
        leaf = given.leaves[i]
        for axis, n in enumerate(leaf.shape):
            if n > 1:
                shape = (*leaf.shape[:axis], 1, *leaf.shape[axis + 1 :])
                yield (
                    f"{leaf.path} broadcast along axis {axis}",
                    "broadcast",
                    _with(given, i, shape),
                )
        if len(leaf.shape) > 1:
            yield (
                f"{leaf.path} without its first axis",
                "broadcast",
                _with(given, i, leaf.shape[1:]),
            )


def _with(given: Arguments, which: int, shape: tuple[int, ...]) -> Arguments:
    leaves = list(given.leaves)
    leaves[which] = dataclasses.replace(leaves[which], shape=shape, value=None)
    return given.replace(leaves)


def resized(given: Arguments, sizes: dict[int, int]) -> Arguments:
    """Return the call with axes of these sizes given others."""
    return given.replace(
        [
            dataclasses.replace(leaf, shape=tuple(sizes.get(n, n) for n in leaf.shape), value=None)
            if any(n in sizes for n in leaf.shape)
            else leaf
            for leaf in given.leaves
        ]
    )


def _sizes(leaves: Sequence[Leaf]) -> list[int]:
    """Return the different sizes of axes, in order of appearance; 0 and 1 are no sizes."""
    return list(dict.fromkeys(n for leaf in leaves for n in leaf.shape if n > 1))


def _shapes(arguments: Arguments) -> tuple[Any, ...]:
    return tuple(leaf.shape for leaf in arguments.leaves)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
