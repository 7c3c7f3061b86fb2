"""`fnn.verify` as its users call it: what it takes, what it says, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.verifier.arguments import parse, read
from fnn.verifier.defects import DEFECTS
from fnn.verifier.jaxprs import first_nonlinear, without_rules
from fnn.verifier.questions import QUESTIONS
from fnn.verifier.verification import ALL
from fnn.verifier.votes import STEPS, richardson


def ruled(body, fwd, bwd, **options):
    function = jax.custom_vjp(body, **options)
    function.defvjp(fwd, bwd)
    return function


def square(x):
    return x * x


def squared(factor):
    """x² with a backward rule that is right for a factor of 2."""
    return ruled(square, lambda x: (x * x, x), lambda x, dy: (factor * x * dy,))


SQUARE, WRONG = squared(2), squared(1)


# What it takes


def scaled(params, x, *, power=1):
    return params["w"] * x**power + params["b"]


def twice(x):
    return jax.lax.scan(lambda c, _: (SQUARE(c), None), x, None, 2)[0]


PYTREE = {"w": "f32[3]", "b": np.ones(3, np.float32)}
CALLS = {
    "a description": ((SQUARE, "f32[3]"), {}),
    "a shape struct": ((SQUARE, jax.ShapeDtypeStruct((3,), jnp.float32)), {}),
    "an array": ((SQUARE, jnp.arange(3.0)), {}),
    "a Python float": ((SQUARE, 0.5), {}),
    "these values": ((SQUARE, np.float32([0, 1, 2])), {}),
    "half precision": ((SQUARE, "bf16[3]"), {}),
    "a definition": ((SQUARE, "f32[3]"), {"definition": jnp.square}),
    "a function around a rule": ((lambda x: jnp.sin(SQUARE(x)), "f32[3]"), {}),
    "a rule inside a scan": ((twice, "f32[3] in 0..1"), {}),
    "a custom_jvp of JAX's": ((jax.nn.relu, "f32[4,3]"), {}),
    "an op": ((fnn.OPS["tanh"], "f32[3]"), {}),
    "an op, statics": ((fnn.OPS["leaky_relu"], "f32[3]"), {"negative_slope": 0.1}),
    "a pytree, definition": ((scaled, PYTREE, "f32[3]"), {"definition": scaled, "power": 2}),
}


varied = pytest.mark.parametrize("vary", [False, pytest.param(True, marks=pytest.mark.prove)])


@varied
@pytest.mark.parametrize("call", CALLS)
def test_it_takes(call, vary):
    args, options = CALLS[call]
    report = fnn.verify(*args, **options, vary=vary)
    report.raise_if_failed()
    assert report.probes >= 1
    assert all(r is None or r <= 1e-10 for r in report.resolution.values())


def lookup(table, ids, key, mask, nothing, mode):
    assert nothing is None
    noise = jax.random.key_data(key)[0].astype(table.dtype)  # drawing would be compiled
    rows = jnp.where(mask[:, None], table[ids], 0)
    return rows * (2 if mode == "double" else 1) + jax.lax.stop_gradient(0 * noise)


def lookup_fwd(table, ids, key, mask, nothing, mode):
    y = lookup(table, ids, key, mask, nothing, mode)
    return y, (ids, mask, jnp.empty((*table.shape, 0)))  # its shape is the table's, for nothing


def lookup_bwd(mode, residuals, dy):
    ids, mask, empty = residuals
    dy = jnp.where(mask[:, None], dy, 0) * (2 if mode == "double" else 1)
    return jnp.zeros(empty.shape[:-1], dy.dtype).at[ids].add(dy), None, None, None, None


LOOKUP = ruled(lookup, lookup_fwd, lookup_bwd, nondiff_argnums=(5,))


@varied
def test_it_takes_integers_keys_masks_none_and_statics(vary):
    args = ("f32[5,3]", "i32[4] in 0..4", "key[]", "bool[4]", None, "double")
    report = fnn.verify(LOOKUP, *args, vary=vary)
    report.raise_if_failed()
    assert set(report.resolution) == {"table"}
    assert "hessian" in report.capabilities


# What it says


def test_a_wrong_rule_is_named_with_place_and_numbers():
    report = fnn.verify(WRONG, "f32[4,3]")
    finding = report.findings[0]
    assert (finding.defect, finding.group, finding.argument) == ("factor", "value", "x")
    assert finding.got == pytest.approx(finding.expected / 2)
    assert finding.tolerance < 1e-9 * abs(finding.expected)
    assert "square(f64[1" in finding.call  # the smallest of the shapes that show it
    assert finding.advice
    with pytest.raises(AssertionError, match="square: 1 finding"):
        report.raise_if_failed()
    assert "factor" in str(report)
    assert report.as_json()["ok"] is False


@pytest.mark.parametrize("size", [10**2, pytest.param(10**6, marks=pytest.mark.prove)])
def test_the_resolution_is_the_same_at_any_size(size):
    """One element, off by 1e-10 of itself, is found among a hundred and among a million."""
    middle = size // 2
    bwd = lambda x, dy: ((2 * x * dy).at[middle].multiply(1 + 1e-10),)  # noqa: E731
    off = ruled(square, lambda x: (x * x, x), bwd)
    x = np.random.default_rng(0).uniform(1, 2, size).astype(np.float32)
    report = fnn.verify(off, x, vary=False)
    (finding,) = report.findings
    assert finding.index == (middle,)
    right = fnn.verify(SQUARE, x, vary=False)
    assert right.ok
    assert right.resolution["x"] <= 1e-10


def test_a_rule_given_later_is_the_one_judged():
    function = squared(2)
    assert fnn.verify(function, "f32[3]", vary=False).ok
    function.defvjp(lambda x: (x * x, x), lambda x, dy: (x * dy,))
    assert fnn.verify(function, "f32[3]", vary=False).findings[0].defect == "factor"


def test_a_cast_lowers_the_resolution_and_says_so():
    def through(x):
        return (x.astype(jnp.float32) ** 2).astype(x.dtype)

    def bwd(x, dy):
        return ((2 * x.astype(jnp.float32) * dy.astype(jnp.float32)).astype(x.dtype),)

    narrow = ruled(through, lambda x: (through(x), x), bwd)
    report = fnn.verify(narrow, "f32[4,3]", vary=False)
    report.raise_if_failed()
    assert 1e-7 < report.resolution["x"] < 1e-5
    assert any("narrower dtype" in note for note in report.notes)


def test_finite_differences_have_a_vote():
    """A definition that stops a gradient is no derivative, whatever autodiff says."""

    def half(x):
        return x * jax.lax.stop_gradient(x)

    report = fnn.verify(half, "f32[3]", definition=half, vary=False)
    assert any("finite differences" in note for note in report.notes)
    slope, error = richardson((np.sin(1 + STEPS) - np.sin(1 - STEPS)) / (2 * STEPS))
    assert abs(slope - np.cos(1)) <= 10 * error
    assert error < 1e-11


@pytest.mark.parametrize(
    "dtype", ["bf16", *(pytest.param(d, marks=pytest.mark.prove) for d in ("f64", "f32", "f16"))]
)
def test_a_gradient_of_zeros_never_passes(dtype):
    zero = ruled(square, lambda x: (x * x, None), lambda r, dy: (0 * dy,))
    assert not fnn.verify(zero, f"{dtype}[3]", vary=False).ok


# What it refuses

REFUSED = {
    "no rule": ((square, "f32[3]"), {}, "no custom rule was found in square.*definition="),
    "no function": ((3,), {}, "expected a function, got int"),
    "no rule yet": ((jax.custom_vjp(square), "f32[3]"), {}, "has no rule yet; call square.defvjp"),
    "no arguments": ((SQUARE,), {}, "pass at least one floating-point array"),
    "too many": ((SQUARE, "f32[3]", "f32[3]"), {}, "cannot be called as square"),
    "integers alone": ((SQUARE, "i32[3]"), {}, "no argument of .* can be differentiated"),
    "no float comes out": (
        *((lambda x: jnp.argmax(x), "f32[3]"), {"definition": jnp.argmax}),
        "is not differentiable: its output holds no floating-point number",
    ),
    "a bad definition": ((SQUARE, "f32[3]"), {"definition": 3}, "definition= must be a function"),
    "a bad dtype": ((SQUARE, "q8[3]"), {}, "has no known dtype"),
    "a bad description": ((SQUARE, "f32[3"), {}, "cannot read"),
    "a bad domain": ((SQUARE, "f32[3] in 1..0"), {}, "cannot read the domain"),
    "no square": ((SQUARE, "f32[3,4] in spd"), {}, "two equal last axes"),
}


@pytest.mark.parametrize("call", REFUSED)
def test_a_wrong_call_says_what_to_pass(call):
    args, options, words = REFUSED[call]
    with pytest.raises((TypeError, ValueError), match=words):
        fnn.verify(*args, **options)


# Its parts


def test_a_question_stops_later_ones_alone():
    names = [question.name for question in QUESTIONS]
    assert len(set(names)) == len(names)
    groups = {defect.group for defect in DEFECTS.values()}
    for i, question in enumerate(QUESTIONS):
        assert set(question.stops) <= {*DEFECTS, *groups}
        assert {name for later in question.stops.values() for name in later} <= {
            *names[i + 1 :],
            ALL,
        }


def test_descriptions_are_read():
    leaf = read("f32[8, 16] in 0.5..2")
    assert (leaf.shape, leaf.dtype, leaf.domain) == ((8, 16), "float32", (0.5, 2.0))
    arguments = parse(lambda params, n: 0, [{"w": "f32[3]", "b": None}, 2], {"eps": 1e-3})
    assert [leaf.path for leaf in arguments.leaves] == ["params['w']"]
    assert arguments.show("f") == "f({'b': None, 'w': f32[3]}, 2, eps=0.001)"


def test_rules_are_taken_off_at_any_depth():
    wrapped = jax.jit(lambda x: jax.lax.cond(True, lambda x: WRONG(x), lambda x: x, x))
    gradient = jax.grad(lambda x: without_rules(wrapped)(x).sum())(jnp.ones(3))
    np.testing.assert_array_equal(gradient, 2.0)


def test_an_operation_that_is_not_linear_is_read_from_the_program():
    def nonlinear(function):
        return first_nonlinear(jax.make_jaxpr(function)(1.0, 2.0).jaxpr, [False, True])

    assert nonlinear(lambda x, dy: jnp.exp(x) * dy) is None
    assert nonlinear(lambda x, dy: dy / x + jnp.where(x > 0, dy, 0)) is None
    assert nonlinear(lambda x, dy: x * dy * dy) == "mul"
    assert nonlinear(lambda x, dy: jnp.maximum(dy, x)) == "max"
    assert nonlinear(lambda x, dy: jnp.where(dy > 0, x, 0 * x)) == "gt"
