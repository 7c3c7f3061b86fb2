"""Are the types right? Read from abstract traces alone; nothing is compiled.

JAX lets pass: a cotangent of another dtype, a complex one for a real argument, anything in an
integer's place, and a forward rule that returns something else than the function.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from .arguments import Arguments, Leaf, struct
from .programs import FLOAT0, backward, ones_like, places
from .report import Finding
from .subject import Subject, first_line


def check(subject: Subject, arguments: Arguments, dtype: str, x64: bool) -> Iterator[Finding]:
    """Compare the types of values and cotangents with the definition's.

    Yields at most a finding an argument or output. An exception of the rule is a finding too.
    """
    call = arguments.show(subject.name, dtype)
    settings = f"{dtype}, 64-bit types {'on' if x64 else 'off'}"
    common: dict[str, Any] = {"dtype": dtype, "call": call, "probe": settings}
    with jax.enable_x64(x64):
        value, want = traced(subject.definition, arguments, dtype)
        try:
            plain = _value(subject.function, arguments, dtype)
            same, got = _traced_as_far_as_it_goes(subject.function, arguments, dtype)
        except Exception as error:
            yield failure(error, **common)
            return
        for what, other in (("called", plain), ("differentiated", same)):
            trees: list[Any] = [jax.tree.structure(other), jax.tree.structure(value)]
            if trees[0] != trees[1]:
                why = f"{what}, the function returns {trees[0]}; the definition returns {trees[1]}"
                yield Finding("forward type", why=why, **common)
                return
            for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(value), strict=True):
                if (a.shape, a.dtype) != (b.shape, b.dtype):
                    why = f"{what}, the value is {_type(a)} where the definition gives {_type(b)}"
                    wide = x64 and a.shape == b.shape and dtype != "float64"
                    yield Finding("x64" if wide else "forward type", why=why, **common)
                    return
    if isinstance(got, Exception):
        yield failure(got, **common)
        return
    for j, (a, b) in enumerate(zip(jax.tree.leaves(same), jax.tree.leaves(value), strict=True)):
        if a.weak_type and not b.weak_type:
            why = f"the value is a weak {_type(a)}"
            yield Finding("weak type", output=str(j), why=why, **common)
    for place, a, b in zip(places(arguments), got, want, strict=True):
        leaf = arguments.leaves[place]
        if defect := _cotangent_defect(a, b, x64 and dtype != "float64"):
            why = f"the cotangent is {_type(a)} where {_type(b)} is expected"
            yield Finding(defect, argument=leaf.path, why=why, **common)


def _cotangent_defect(got: Any, want: Any, x64: bool) -> str:
    complex_ = [jnp.issubdtype(a.dtype, jnp.complexfloating) for a in (got, want)]
    if complex_[0] != complex_[1]:
        return "complex"
    if got.shape != want.shape:
        return "structure"
    if got.dtype != want.dtype:
        return "x64" if x64 else "dtype"
    return "weak type" if got.weak_type and not want.weak_type else ""


def _type(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}".replace(" ", "")


def traced(function: Callable[..., Any], arguments: Arguments, dtype: str) -> tuple[Any, list[Any]]:
    """Return the types of the output, differentiated, and of the cotangents."""

    def run(*arrays: Any) -> Any:
        y, pull = backward(_whole(function, arguments), arrays, places(arguments))
        leaves, tree = jax.tree.flatten(y)
        return y, list(pull(jax.tree.unflatten(tree, ones_like(leaves))))

    return jax.eval_shape(run, *(struct(leaf, dtype) for leaf in arguments.leaves))


def _traced_as_far_as_it_goes(
    function: Callable[..., Any], arguments: Arguments, dtype: str
) -> tuple[Any, list[Any] | Exception]:
    """Return what `traced` does; of a backward rule that raises, its exception."""
    try:
        return traced(function, arguments, dtype)
    except Exception as error:
        return _value(function, arguments, dtype, differentiated=True), error


def _value(
    function: Callable[..., Any], arguments: Arguments, dtype: str, differentiated: bool = False
) -> Any:
    """Return the types of the output."""

    def run(*arrays: Any) -> Any:
        whole = _whole(function, arguments)
        return backward(whole, arrays, places(arguments))[0] if differentiated else whole(arrays)

    return jax.eval_shape(run, *(struct(leaf, dtype) for leaf in arguments.leaves))


def _whole(function: Callable[..., Any], arguments: Arguments) -> Callable[..., Any]:
    """Return the function of a list of arrays, whose output is not flattened."""

    def whole(arrays: Any) -> Any:
        args, kwargs = arguments.build(arrays)
        return function(*args, **kwargs)

    return whole


def slots(subject: Subject, arguments: Arguments, dtype: str) -> Iterator[Finding]:
    """Look at what a `jax.custom_vjp`'s own backward rule returns in the places of integers."""
    fwd, bwd = subject.fwd, subject.bwd
    if fwd is None or bwd is None:
        return
    raw: list[Any] = []

    def run(*arrays: Any) -> None:
        args, kwargs = arguments.build(arrays)
        still = [args[i] for i in subject.nondiff]
        y, residuals = fwd(*args, **kwargs)
        dys = jax.tree.unflatten(jax.tree.structure(y), ones_like(jax.tree.leaves(y)))
        raw.append((args, bwd(*still, residuals, dys)))

    try:
        jax.eval_shape(run, *(struct(leaf, dtype) for leaf in arguments.leaves))
        args, cotangents = raw[0]
        moving = [a for i, a in enumerate(args) if i not in subject.nondiff]
        pairs = list(zip(moving, cotangents, strict=True))
    except Exception:
        return  # a rule that fails is reported where it is run as JAX runs it
    paths = iter(arguments.leaves)
    for arg, cotangent in pairs:
        inner = jax.tree.leaves(arg)
        leaves = [next(paths) for a in inner if hasattr(a, "dtype")]
        yield from _slot(arg, cotangent, leaves, arguments.show(subject.name, dtype))


def _slot(arg: Any, cotangent: Any, leaves: list[Leaf], call: str) -> Iterator[Finding]:
    given = jax.tree.leaves(cotangent, is_leaf=lambda a: a is None)
    if len(given) != len(leaves):
        return
    for leaf, ct in zip(leaves, given, strict=True):
        fits = ct is None or getattr(ct, "dtype", None) == FLOAT0
        if not leaf.differentiable and not fits:
            why = f"the backward rule returns {_type(jnp.asarray(ct))} where None belongs"
            yield Finding("integer slot", argument=leaf.path, why=why, call=call)


def failure(error: BaseException, **common: Any) -> Finding:
    """Say which defect an exception of a rule shows."""
    text = str(error)
    kind = type(error).__name__
    if kind == "CustomVJPException" or "Tracer" in kind or "nondiff_argnums" in text:
        defect = "tracer"
    elif "fwd" in text or "tree structure" in text or "argument to VJP function" in text:
        defect = "forward type"
    elif "bwd" in text or "cotangent" in text:
        defect = "structure"
        if "complex" in text:
            defect = "complex"
        elif "must be None" in text:
            defect = "integer slot"
    else:
        defect = "fails"
    return Finding(defect, why=first_line(error), **common)
