"""What `fnn.op` promises: a test for each sentence of its contract."""

import functools
import inspect
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fnn
from fnn.custom_op import OPS, Op, Static, op, rules
from fnn.ops import binary_cross_entropy, dense, masked_dense, relu, sigmoid, softmax_cross_entropy

from .runs import in_numpy

pytestmark = pytest.mark.core


def op_with(bwd, definition=lambda x, w: x * w):
    """An op outside the table, with a backward rule of the test's."""
    definition.__name__ = "product"
    product = Op(definition)
    product.def_fwd(lambda *arrays, **statics: (definition(*arrays, **statics), arrays))
    product.def_bwd(bwd)
    return product


X = jnp.asarray(np.arange(6, dtype="f").reshape(2, 3) + 1)
W = jnp.asarray(np.arange(12, dtype="f").reshape(3, 4) / 12)
B = jnp.asarray(np.arange(4, dtype="f"))


def loss(x, w, b):
    return jnp.sum(jnp.sin(sigmoid(dense(x, w, b))))


def natural_loss(x, w, b):
    with rules("autodiff"):
        return loss(x, w, b)


by_all = functools.partial(jax.grad, argnums=(0, 1, 2))
GRADS = in_numpy(by_all(natural_loss), X, W, B)


# Binding


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dense(X), "'w' must be an array, got NoneType; its signature is dense(x, w, b=No"),
        (lambda: dense(X, W, B, B), "takes the arrays (x, w, b), got 4 positional"),
        (lambda: dense(X, W, x=X), "'x' is given twice"),
        (lambda: dense(X, W, bias=B), "no argument 'bias'"),
        (lambda: relu(X, subgradient_at_zer=1.0), "did you mean 'subgradient_at_zero'?"),
        (lambda: relu(X, 0.5), "give subgradient_at_zero by keyword"),
        (lambda: relu("x"), "'x' must be an array, got str"),
        (lambda: relu(X, subgradient_at_zero=B), "is static and must be a hashable Python value"),
        (lambda: jax.jit(lambda s: relu(X, subgradient_at_zero=s))(0.5), "is static and must be"),
    ],
)
def test_a_wrong_call_says_what_to_do(call, words):
    with pytest.raises(TypeError, match=re.escape(words)):
        call()


def test_arrays_may_come_by_keyword_and_statics_must():
    chex.assert_trees_all_equal(dense(X, b=B, w=W), dense(X, W, B))
    assert relu(0.0, subgradient_at_zero=0.5) == 0
    assert jax.grad(lambda x: relu(x, subgradient_at_zero=0.5))(0.0) == 0.5
    assert jax.grad(relu)(0.0) == 0


def test_numpy_arrays_and_python_numbers_are_arrays():
    chex.assert_trees_all_equal(dense(np.asarray(X), np.asarray(W)), dense(X, W))
    assert sigmoid(0.0).dtype == jnp.float32


def test_statics_of_equal_value_and_other_type_are_kept_apart():
    scale = op_with(lambda r, dy, *, n: (dy, dy), lambda x, w, *, n: x * n)
    assert scale(X, X, n=1).dtype == X.dtype
    types = []
    scale.def_fwd(lambda x, w, *, n: (types.append(type(n)) or x, None))
    scale(X, X, n=2)
    scale(X, X, n=2.0)
    assert types == [int, float]


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        (lambda x, scale=2.0: x, "stands before `*`"),
        (lambda *xs: xs, "name every argument"),
        (lambda *, axis: axis, "has no array argument"),
    ],
)
def test_a_signature_that_is_no_ops_is_refused(definition, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Op(definition)


def test_an_op_without_rules_says_which_is_missing():
    half_done = Op(lambda x: x)
    half_done.name = "half_done"
    for call in (half_done, half_done.fwd):
        with pytest.raises(NotImplementedError, match=r"no fwd rule; write @half_done\.def_fwd"):
            call(X)
    half_done.def_fwd(lambda x: (x, None))
    with pytest.raises(NotImplementedError, match=r"no bwd rule; write @half_done\.def_bwd"):
        half_done(X)


def test_a_forward_rule_returns_a_pair():
    half_done = Op(lambda x: x)
    half_done.def_fwd(lambda x: x)
    half_done.def_bwd(lambda residuals, dy: dy)
    with pytest.raises(TypeError, match=r"fwd must return the pair \(y, residuals\), got a"):
        half_done(X)


def test_a_backward_pass_by_hand_takes_what_was_saved():
    with pytest.raises(TypeError, match=r"takes what relu\.fwd saved, and the cotangent dy"):
        relu.bwd(X, X)


def test_the_table_refuses_a_second_op_of_the_same_name():
    def relu(x):
        return x

    with pytest.raises(ValueError, match=r"'relu' already, in fnn\.ops\.activations"):
        op(relu)
    assert OPS["relu"].__module__ == "fnn.ops.activations"


def test_an_op_looks_like_its_definition():
    assert inspect.signature(dense) == inspect.signature(dense.definition)
    assert dense.__doc__.startswith("Map every row")
    assert repr(dense) == "<op dense(x, w, b=None)>"


# Cotangents: arity, type, shape, dtype


@pytest.mark.parametrize(
    ("cotangents", "error", "words"),
    [
        (lambda dy: (dy,), TypeError, "tuple of 2 cotangents (dx, dw), got 1"),
        (lambda dy: (dy, dy, dy), TypeError, "tuple of 2 cotangents (dx, dw), got 3"),
        (lambda dy: [dy, dy], TypeError, "got list"),
        (lambda dy: (dy, dy[:1]), ValueError, "product: cotangent dw has shape (1, 3), its input"),
        (lambda dy: (dy[0], dy), ValueError, "product: cotangent dx has shape (3,), its input has"),
        (lambda dy: (dy.T, dy), ValueError, "dx has shape (3, 2), its input has shape (2, 3)"),
        (lambda dy: (dy, None), TypeError, "dw must be an array of shape (2, 3), got NoneType"),
        (lambda dy: (dy, dy.astype("c8")), TypeError, "dw is complex64, but its input is r"),
    ],
)
def test_a_cotangent_that_does_not_fit_names_op_and_argument(cotangents, error, words):
    product = op_with(lambda residuals, dy: cotangents(dy))
    with pytest.raises(error, match=re.escape(words)):
        jax.grad(lambda x, w: product(x, w).sum())(X, X)


def test_a_cotangent_gets_its_inputs_dtype():
    product = op_with(lambda r, dy: (dy.astype(jnp.float32), dy.astype(jnp.float32)))
    half = X.astype(jnp.bfloat16)
    dx, dw = jax.grad(lambda x, w: product(x, w).sum(), (0, 1))(half, half)
    assert dx.dtype == dw.dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 1), (1, 3), (2, 1), (2, 3)])
def test_cotangents_are_summed_over_broadcast_axes(shape):
    product = op_with(lambda r, dy: (dy * r[1], dy * r[0]))
    w = np.linspace(1, 2, int(np.prod(shape))).astype("f").reshape(shape)
    with jax.numpy_rank_promotion("allow"):
        got = in_numpy(jax.grad(lambda x, w: jnp.sum(product(x, w) ** 2), (0, 1)), X, w)
        want = in_numpy(jax.grad(lambda x, w: jnp.sum((x * w) ** 2), (0, 1)), X, w)
    chex.assert_trees_all_close(got, want, rtol=1e-6)


def test_integer_boolean_and_key_arguments_have_no_gradient():
    def definition(x, n, flag, key):
        return jnp.where(flag, x * n, 0) + 0 * jax.random.uniform(key)

    counted = op_with(lambda r, dy: (jnp.where(r[2], dy * r[1], 0), None, None, None), definition)
    args = (X, jnp.full((2, 3), 2.0).astype(int), jnp.ones((2, 3), bool), jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"):
        chex.assert_trees_all_equal(jax.grad(lambda *a: counted(*a).sum())(*args), 2 * X / X)
        wrong = op_with(lambda r, dy: (dy, dy, None, None), definition)
        with pytest.raises(TypeError, match="dn must be None, since a int32 input has no gradient"):
            jax.grad(lambda *a: wrong(*a).sum())(*args)


def test_an_optional_argument_that_is_left_out_gets_no_cotangent():
    y, saved = dense.fwd(X, W)
    dx, dw, db = dense.bwd(saved, jnp.ones_like(y))
    assert (dx.shape, dw.shape, db) == (X.shape, W.shape, None)


def test_the_rules_run_by_hand():
    y, saved = dense.fwd(X, W, B)
    dx, dw, db = dense.bwd(saved, jnp.ones_like(y))
    want = in_numpy(by_all(lambda *a: jnp.sum(dense.definition(*a))), X, W, B)
    chex.assert_trees_all_close((dx, dw, db), want)


def test_a_static_residual_is_no_array():
    assert jax.tree.leaves(Static((2, 3))) == []
    y, saved = jax.jit(lambda x: fnn.ops.flatten.fwd(x))(jnp.ones((2, 3, 4)))
    assert saved.residuals.value == (2, 3, 4)
    assert y.shape == (2, 12)


# The switch between rules


def test_rules_choose_what_runs_and_keep_jit_caches_apart():
    traced = []
    product = op_with(lambda r, dy: (traced.append("manual") or dy * r[1], dy * r[0]))
    gradient = jax.jit(jax.grad(lambda x, w: product(x, w).sum()))
    gradient(X, X)
    assert traced == ["manual"]
    with fnn.rules("autodiff"):
        gradient(X, X)
        assert traced == ["manual"]
        with fnn.rules("manual"):
            gradient(X, X)
    gradient(X, X)
    assert traced == ["manual"]
    assert "custom_vjp" in str(jax.make_jaxpr(product)(X, X))
    with fnn.rules("autodiff"):
        assert "custom_vjp" not in str(jax.make_jaxpr(product)(X, X))


def test_rules_refuse_another_name():
    with pytest.raises(ValueError, match="'manual' or 'autodiff', got 'auto'"):
        fnn.rules("auto")


# Transformations


def scanned(x, w, b):
    return jax.lax.scan(lambda total, row: (total + loss(row, w, b), None), 0.0, x)[0]


def over_rows(x, w, b):
    dx, dw, db = jax.vmap(by_all(loss), (0, None, None))(x, w, b)
    return dx, dw.sum(0), db.sum(0)


def over_weights(x, w, b):
    gradients = jax.vmap(by_all(loss), (None, 0, None))(x, jnp.stack([w, w]), b)
    return jax.tree.map(lambda g: g[0], gradients)


TRANSFORMS = {
    "jit": by_all(loss),
    "vmap": over_rows,
    "vmap over weights": over_weights,
    "scan": by_all(scanned),
    "remat": by_all(jax.checkpoint(loss)),
    "scan of remat": by_all(jax.checkpoint(scanned)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_rules_hold_under(name):
    f = TRANSFORMS[name]
    compiled = name in ("jit", "remat", "scan of remat")  # NumPy cannot run the last two
    run = jax.jit(f) if compiled else functools.partial(in_numpy, f)
    chex.assert_trees_all_close(run(X, W, B), GRADS, rtol=2e-5, atol=1e-6)


def test_grad_of_grad_and_hessian():
    def curvature(f):
        norm = lambda *a: sum(jnp.sum(g**2) for g in by_all(f)(*a))  # noqa: E731
        return in_numpy(lambda *a: (by_all(norm)(*a), jax.hessian(f, (0, 1, 2))(*a)), X, W, B)

    with jax.enable_x64(True):
        chex.assert_trees_all_close(curvature(loss), curvature(natural_loss), rtol=1e-4, atol=1e-5)


def labels_loss(x, w, b, labels=None):
    labels = jnp.arange(len(x)) % 4 if labels is None else labels
    return jnp.mean(softmax_cross_entropy(relu(dense(x, w, b)), labels, label_smoothing=0.1))


def masked_loss(x, w, b):
    y = sigmoid(masked_dense(x, w, jnp.eye(*w.shape) == 0, b))
    return jnp.mean(binary_cross_entropy(y, jnp.ones((len(x), len(b)))))


LOSSES = {"labels": labels_loss, "masked": masked_loss}
ROWS = np.linspace(-1, 1, 24, dtype="f").reshape(8, 3)


def mesh_of(axis_type):
    return jax.make_mesh((4,), ("data",), axis_types=(axis_type,))


def assert_close(got, want):
    chex.assert_trees_all_close(*map(jax.device_get, (got, want)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize(
    ("name", "where"), [("labels", "batch"), ("masked", "batch"), ("labels", "weights")]
)
def test_rules_hold_on_a_mesh(name, axis_type, where):
    """Batch split over devices, or the weights' outputs split: cotangents live with primals."""
    f = by_all(LOSSES[name])
    specs = (P("data"), P(), P()) if where == "batch" else (P(), P(None, "data"), P("data"))
    mesh = mesh_of(axis_type)
    with jax.set_mesh(mesh):
        args = [jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip((ROWS, W, B), specs)]
        got = jax.jit(f)(*args)
        if axis_type is AxisType.Explicit:
            for gradient, primal in zip(got, args, strict=True):
                assert gradient.sharding.is_equivalent_to(primal.sharding, gradient.ndim)
    assert_close(got, in_numpy(f, ROWS, W, B))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("check_vma", [True, False])
def test_rules_hold_under_shard_map(name, check_vma):
    f = LOSSES[name]
    specs = (P("data"), P(), P())

    def sharded(x, w, b):
        dx, dw, db = by_all(lambda *a: f(*a) / 4)(x, w, b)
        if check_vma:
            return dx, dw, db
        return dx, jax.lax.psum(dw, "data"), jax.lax.psum(db, "data")

    options = {"mesh": mesh_of(AxisType.Auto), "in_specs": specs, "out_specs": specs}
    sharded = jax.shard_map(sharded, check_vma=check_vma, **options)
    # Each device holds two rows with labels counted from 0, so the whole batch must repeat.
    whole = functools.partial(f, labels=np.arange(8) % 2) if f is labels_loss else f
    assert_close(jax.jit(sharded)(ROWS, W, B), in_numpy(by_all(whole), ROWS, W, B))


# Cost


def bare_dense():
    """The same rules as `dense`, through jax.custom_vjp and nothing else."""

    def bwd(residuals, dy):
        dx, dw, db = dense.bwd_rule(residuals, dy)
        return dx, dw, db.sum(0)

    bare = jax.custom_vjp(lambda x, w, b: dense.fwd_rule(x, w, b)[0])
    bare.defvjp(dense.fwd_rule, bwd)
    return bare


def test_calling_through_op_compiles_to_the_same_program():
    def program(f):
        step = jax.jit(by_all(lambda *a: jnp.sum(f(*a) ** 2)))
        text = step.lower(X, W, B).compile().as_text()
        return [line.split("metadata=")[0].strip() for line in text.splitlines() if " = " in line]

    assert program(dense) == program(bare_dense())
