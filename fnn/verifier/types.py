"""Are the types right? Abstract traces show them; nothing is compiled.

JAX accepts a cotangent of another dtype, a complex one for a real argument, anything in the place
of an integer's cotangent, and a forward rule whose value differs from the function's.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .arguments import Arguments, Leaf
from .passes import FLOAT0, backward, ones_like
from .report import Finding
from .subject import Subject, first_line


def check(subject: Subject, arguments: Arguments, dtype: str, x64: bool) -> Iterator[Finding]:
    """Compare the types of values and cotangents with the definition's.

    Yields at most one finding per argument and output. An exception of the rule is a finding too.
    """
    call = arguments.show(subject.name, dtype)
    settings = f"{dtype}, 64-bit types {'on' if x64 else 'off'}"
    bwd_error: Exception | None = None
    common: dict[str, Any] = {"dtype": dtype, "call": call, "probe": settings}
    with jax.enable_x64(x64):
        value, want = traced(subject.definition, arguments, dtype)
        try:
            plain = _output(subject.function, arguments, dtype)
            try:
                same, got = traced(subject.function, arguments, dtype)
            except Exception as error:  # of the backward rule, if the output can be traced
                bwd_error = error
                same = _output(subject.function, arguments, dtype, differentiated=True)
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
    if bwd_error:
        yield failure(bwd_error, **common)
        return
    for j, (a, b) in enumerate(zip(jax.tree.leaves(same), jax.tree.leaves(value), strict=True)):
        if a.weak_type and not b.weak_type:
            why = f"the value is a weak {_type(a)}"
            yield Finding("weak type", output=str(j), why=why, **common)
    for path, a, b in zip(arguments.paths, got, want, strict=True):
        if defect := _cotangent_defect(a, b, x64 and dtype != "float64"):
            why = f"the cotangent is {_type(a)} where {_type(b)} is expected"
            yield Finding(defect, argument=path, why=why, **common)


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
    """Return the types of the differentiated function's output, and of the cotangents."""

    def run(arrays: Any) -> Any:
        y, pull = backward(partial(arguments.apply, function), arrays, arguments.places)
        leaves, tree = jax.tree.flatten(y)
        return y, list(pull(jax.tree.unflatten(tree, ones_like(leaves))))

    return jax.eval_shape(run, arguments.structs(dtype))


def _output(
    function: Callable[..., Any], arguments: Arguments, dtype: str, differentiated: bool = False
) -> Any:
    """Return the types of the output."""
    whole = partial(arguments.apply, function)

    def run(arrays: Any) -> Any:
        return backward(whole, arrays, arguments.places)[0] if differentiated else whole(arrays)

    return jax.eval_shape(run, arguments.structs(dtype))


def slots(subject: Subject, arguments: Arguments, dtype: str) -> Iterator[Finding]:
    """Yield each integer argument for which a `jax.custom_vjp`'s backward rule has a cotangent."""
    fwd, bwd = subject.fwd, subject.bwd
    if fwd is None or bwd is None:
        return
    raw: list[Any] = []

    def run(*arrays: Any) -> None:
        args, kwargs = arguments.build(arrays)
        y, residuals = fwd(*args, **kwargs)
        dys = jax.tree.unflatten(jax.tree.structure(y), ones_like(jax.tree.leaves(y)))
        raw.append((args, bwd(*(args[i] for i in subject.nondiff), residuals, dys)))

    try:
        jax.eval_shape(run, *arguments.structs(dtype))
        args, cotangents = raw[0]
        primals = [a for i, a in enumerate(args) if i not in subject.nondiff]
        pairs = list(zip(primals, cotangents, strict=True))
    except Exception:
        return  # a rule that fails is reported where it runs as JAX runs it
    paths = iter(arguments.leaves)
    for arg, cotangent in pairs:
        inner = jax.tree.leaves(arg)
        leaves = [next(paths) for a in inner if hasattr(a, "dtype")]
        yield from _slot(arg, cotangent, leaves, arguments.show(subject.name, dtype))


def _slot(arg: Any, cotangent: Any, leaves: list[Leaf], call: str) -> Iterator[Finding]:
    cotangents = jax.tree.leaves(cotangent, is_leaf=lambda a: a is None)
    if len(cotangents) != len(leaves):
        return
    for leaf, ct in zip(leaves, cotangents, strict=True):
        fits = ct is None or getattr(ct, "dtype", None) == FLOAT0
        if not leaf.differentiable and not fits:
            why = f"the backward rule returns {_type(jnp.asarray(ct))} where None belongs"
            yield Finding("integer slot", argument=leaf.path, why=why, call=call)


def failure(error: BaseException, **common: Any) -> Finding:
    """Return the finding that an exception of a rule shows."""
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
