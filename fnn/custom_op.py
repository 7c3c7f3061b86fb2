"""An op: a definition, a forward rule and a backward rule side by side.

    @op(reference=jax.nn.relu, examples=(example(x=normal(4, 3)),), source="Nair & Hinton 2010")
    def relu(x):
        '''max(x, 0).'''
        return jnp.where(x > 0, x, 0)

    @relu.def_fwd
    def relu_fwd(x):
        y = jnp.maximum(x, 0)
        return y, y

    @relu.def_bwd
    def relu_bwd(y, dy):
        return jnp.where(y > 0, dy, 0)

The decorated body is the definition: textbook mathematics, differentiable by JAX. It is the
oracle, and training runs it only inside `rules("autodiff")`. `fwd` is the fast forward pass and
returns the residuals for the backward pass; `bwd` is the chain rule, the transposed Jacobian times
the cotangent. This file is the one place that touches `jax.custom_vjp`, and does once what every
rule would repeat.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from . import cotangent
from .errors import did_you_mean
from .example import Example

OPS: dict[str, "Op"] = {}
"""Every op by name. The verifier, the command line and the tests read this table."""

Made = TypeVar("Made")
Rules = Literal["manual", "autodiff"]
_RULES = jax.make_user_context("manual")
_Literal = np.ndarray | np.generic | bool | int | float | complex


def rules(which: Rules) -> AbstractContextManager[None]:
    """Choose what differentiates the ops called inside the context.

    `"manual"` (the default everywhere) runs the hand-written rules; `"autodiff"` runs every
    definition instead, differentiated by JAX. The choice is part of the key of jit's caches, so
    that a function compiled under one is compiled afresh under the other.

        with fnn.rules("autodiff"):
            gradient = jax.jit(jax.grad(loss))(params)
    """
    if which not in ("manual", "autodiff"):
        raise ValueError(f"rules: expected 'manual' or 'autodiff', got {which!r}")
    return _RULES(which)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Static:
    """A residual known at trace time (a shape, an axis): `Static(x.shape)` costs no memory."""

    value: Any


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["residuals"], meta_fields=["types"]
)
@dataclass(frozen=True)
class Saved:
    """What a forward pass hands to its backward pass: residuals, and the arguments' types."""

    residuals: Any
    types: tuple[Any, ...]


class Op:
    """A pure function of arrays with a backward rule of its own; made by the decorator `op`.

    Parameters of the definition that stand before `*` are arrays (default `None`: may be left
    out); those after it are statics: hashable hyperparameters, part of the compiled program.

    Attributes: `name`, `definition`, `fwd_rule` and `bwd_rule` (as registered, or None),
    `reference` (a second opinion on the values, or None), `examples`, `source`, `arguments` (names
    of the arrays), `optional` (those that may be left out), `statics` (names and defaults).
    """

    def __init__(
        self,
        definition: Callable[..., Any],
        *,
        reference: Callable[..., Any] | None = None,
        examples: Sequence[Example] = (),
        source: str = "",
    ):
        functools.update_wrapper(self, definition)
        self.name: str = definition.__name__
        self.definition = definition
        self.reference = reference
        self.examples = tuple(examples)
        self.source = source
        self.signature = self.__signature__ = inspect.signature(definition)
        self.arguments, self.optional, self.statics = _split(self.name, self.signature)
        self.fwd_rule: Callable[..., Any] | None = None
        self.bwd_rule: Callable[..., Any] | None = None
        self._differentiable = functools.cache(self._make_differentiable)

    def __repr__(self) -> str:
        return f"<op {self.name}{self.signature}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the op; differentiating it runs the hand-written rule (see `rules`)."""
        arrays, statics = self.bind(*args, **kwargs)
        if _RULES.value == "autodiff":
            return self.definition(*arrays, **statics)
        key = tuple((name, type(value), value) for name, value in statics.items())
        try:
            function = self._differentiable(key)
        except TypeError as error:
            raise TypeError(self._unhashable(statics)) from error
        return function(*arrays)

    def def_fwd(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Register the forward rule, as a decorator: arrays and statics to `y, residuals`."""
        self.fwd_rule = rule
        return rule

    def def_bwd(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Register the backward rule, as a decorator: `residuals, dy` and statics to cotangents.

        It returns one cotangent per array argument, in order. A single one may come without a
        tuple; an argument that is None, or holds integers, booleans or PRNG keys, gets None.
        """
        self.bwd_rule = rule
        return rule

    def fwd(self, *args: Any, **kwargs: Any) -> tuple[Any, Saved]:
        """Run the forward rule; `y, saved = dense.fwd(x, w, b)` keeps what `dense.bwd` needs."""
        arrays, statics = self.bind(*args, **kwargs)
        return self._forward(arrays, statics)

    def bwd(self, saved: Saved, dy: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run the backward rule; `dx, dw, db = dense.bwd(saved, dy)`.

        Returns one cotangent per array argument, checked and shaped, None where there is no
        gradient. The statics are those of the forward pass.

        Raises TypeError or ValueError, naming op and argument, where a cotangent does not fit.
        """
        if not isinstance(saved, Saved):
            raise TypeError(
                f"{self.name}.bwd takes what {self.name}.fwd saved, and the cotangent dy: "
                f"`y, saved = {self.name}.fwd(...)`, then `{self.name}.bwd(saved, dy)`"
            )
        _, statics = self.bind_statics(kwargs)
        return self._backward(saved, dy, statics)

    def bind(self, *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
        """Match a call to the signature: the arrays in order, the statics by name."""
        if len(args) > len(self.arguments):
            raise TypeError(
                f"{self.name} takes the arrays ({', '.join(self.arguments)}), got {len(args)} "
                f"positional arguments; give {', '.join(self.statics) or 'nothing else'} by keyword"
            )
        arrays = dict(zip(self.arguments, args, strict=False))
        by_name, statics = self.bind_statics(kwargs)
        for name, value in by_name.items():
            if name in arrays:
                raise TypeError(f"{self.name}: argument {name!r} is given twice")
            arrays[name] = value
        return [self._array(name, arrays.get(name)) for name in self.arguments], statics

    def bind_statics(self, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Part keywords into arrays and statics, and fill in the statics' defaults.

        Raises TypeError for a name that is no argument, and for a static that is missing.
        """
        statics = self.statics | {k: v for k, v in kwargs.items() if k in self.statics}
        arrays = {k: v for k, v in kwargs.items() if k not in self.statics}
        for name in arrays:
            if name not in self.arguments:
                names = (*self.arguments, *self.statics)
                raise TypeError(
                    f"{self.name} has no argument {name!r}{did_you_mean(name, names)}; "
                    f"its signature is {self.name}{self.signature}"
                )
        missing = [name for name, value in statics.items() if value is inspect.Parameter.empty]
        if missing:
            raise TypeError(f"{self.name}: missing keyword argument {missing[0]!r}")
        return arrays, statics

    def factory(
        self, make: Callable[["Op", dict[str, Any]], Made], without: Collection[str] = ()
    ) -> Callable[..., Made]:
        """Return a function of the op's statics that returns `make(op, statics)`.

        Its name and docstring are the op's; its signature lacks the statics named by `without`.
        """

        def build(**statics: Any) -> Made:
            return make(self, statics)

        build.__name__, build.__doc__ = self.name, self.__doc__
        statics = [self.signature.parameters[name] for name in self.statics if name not in without]
        build.__signature__ = inspect.Signature(statics)  # type: ignore[attr-defined]
        return build

    def _array(self, name: str, value: Any) -> Any:
        if isinstance(value, jax.Array):
            return value
        if value is None and name in self.optional:
            return None
        if isinstance(value, _Literal):
            return jnp.asarray(value)
        raise TypeError(
            f"{self.name}: argument {name!r} must be an array, got {type(value).__name__}"
            + (f"; its signature is {self.name}{self.signature}" if value is None else "")
        )

    def _unhashable(self, statics: dict[str, Any]) -> str:
        for name, value in statics.items():
            try:
                hash(value)
            except TypeError:
                return (
                    f"{self.name}: {name!r} is static and must be a hashable Python value, got "
                    f"{type(value).__name__}; pass a number, string or tuple, not an array"
                )
        return f"{self.name}: could not build the differentiable function"

    def _make_differentiable(self, key: tuple[tuple[str, type, Any], ...]) -> Callable[..., Any]:
        """Build the `jax.custom_vjp` of one choice of statics; JAX caches it by identity."""
        statics = {name: value for name, _, value in key}
        for which in ("fwd", "bwd"):
            self._rule(which)

        def function(*arrays):
            return self._forward(arrays, statics)[0]

        function.__name__ = function.__qualname__ = self.name
        differentiable = jax.custom_vjp(function)
        differentiable.defvjp(
            lambda *arrays: self._forward(arrays, statics),
            lambda saved, dy: self._backward(saved, dy, statics),
        )
        return differentiable

    def _rule(self, which: Literal["fwd", "bwd"]) -> Callable[..., Any]:
        rule = self.fwd_rule if which == "fwd" else self.bwd_rule
        if rule is None:
            raise NotImplementedError(
                f"{self.name} has no {which} rule; write @{self.name}.def_{which}"
            )
        return rule

    def _forward(self, arrays: Sequence[Any], statics: dict[str, Any]) -> tuple[Any, Saved]:
        out = self._rule("fwd")(*map(_as_jax, arrays), **statics)
        if not isinstance(out, tuple) or len(out) != 2:
            raise TypeError(
                f"{self.name}: fwd must return the pair (y, residuals), got a "
                f"{type(out).__name__}; where nothing is kept, return `y, None`"
            )
        y, residuals = out
        return y, Saved(residuals, tuple(a if a is None else jax.typeof(a) for a in arrays))

    def _backward(self, saved: Saved, dy: Any, statics: dict[str, Any]) -> tuple[Any, ...]:
        cotangents = self._rule("bwd")(*jax.tree.map(_as_jax, (saved.residuals, dy)), **statics)
        if len(self.arguments) == 1 and not isinstance(cotangents, tuple):
            cotangents = (cotangents,)
        if not isinstance(cotangents, tuple) or len(cotangents) != len(self.arguments):
            got = len(cotangents) if isinstance(cotangents, tuple) else type(cotangents).__name__
            raise TypeError(
                f"{self.name}: bwd must return a tuple of {len(self.arguments)} cotangents "
                f"({', '.join('d' + name for name in self.arguments)}), got {got}"
            )
        columns = zip(self.arguments, saved.types, cotangents, strict=True)
        return tuple(
            cotangent.fit(f"{self.name}: cotangent d{name}", kind, value)
            for name, kind, value in columns
        )


def op(
    definition: Callable[..., Any] | None = None,
    *,
    reference: Callable[..., Any] | None = None,
    examples: Sequence[Example] = (),
    source: str = "",
) -> Any:
    """Make the decorated definition an `Op` and enter it in `OPS`.

    Args:
        definition: the mathematics in plain jax.numpy; arrays before `*`, statics after it.
        reference: an independent implementation of the same values, called the same way.
        examples: what the verifier and the tests try the op on; see `fnn.example`.
        source: the paper or text that the op comes from.

    Raises ValueError if another module has an op of that name, or the signature is not an op's.
    """
    if definition is None:
        return functools.partial(op, reference=reference, examples=examples, source=source)
    new = Op(definition, reference=reference, examples=examples, source=source)
    old = OPS.get(new.name)
    if old is not None and old.__module__ != new.__module__:
        raise ValueError(f"there is an op {new.name!r} already, in {old.__module__}")
    OPS[new.name] = new
    return new


def _split(
    name: str, signature: inspect.Signature
) -> tuple[tuple[str, ...], frozenset[str], dict[str, Any]]:
    """Part a definition's parameters into arrays, those that are optional, and statics."""
    arrays, optional, statics = [], set(), {}
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            statics[parameter.name] = parameter.default
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            arrays.append(parameter.name)
            if parameter.default is None:
                optional.add(parameter.name)
            elif parameter.default is not parameter.empty:
                raise ValueError(
                    f"op {name}: {parameter.name!r} stands before `*`, so it is an array and may "
                    f"only default to None, got {parameter.default!r}; put statics after `*`"
                )
        else:
            raise ValueError(f"op {name}: `{parameter}` is not allowed; name every argument")
    if not arrays:
        raise ValueError(f"op {name} has no array argument; arrays stand before `*`")
    return tuple(arrays), frozenset(optional), statics


def _as_jax(value: Any) -> Any:
    """Return a Python number or NumPy array as a JAX array, and anything else as it is.

    jit keeps such arguments as literals, which JAX hands to the rules when it differentiates jit.
    """
    is_literal = isinstance(value, _Literal) and getattr(value, "dtype", 0) != jax.dtypes.float0
    return jnp.asarray(value) if is_literal else value
