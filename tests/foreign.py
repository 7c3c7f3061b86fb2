"""Functions of other libraries that carry a forward or backward rule of their own.

Each row says what `fnn.verify` is called with, and what it is to find. Most rules are right; where
one is not, or was never meant to be the derivative, the row's note says how it departs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from . import foreign_functions as own
from .foreign_row import Row, fix

BEFORE_0_12 = jax.__version_info__ < (0, 12)

MASK = np.array([[True, True, False], [True, False, True], [False, True, True], [True] * 3])
SIZES = np.array([3, 5], np.int32)
SCALE, HISTORY = np.ones(1, np.float32), np.ones(4, np.float32)
MATMUL = (((1,), (0,)), ((), ()))
SPECIAL = "jax.scipy.special."
FP8 = "flax.linen.fp8_ops."
GPU = "jax.experimental.pallas.ops.gpu."
TPU = "jax.experimental.pallas.ops.tpu."
OPS = "tokamax._src.ops."
HEADS = ("f32[1,5,2,8]",) * 3
NORM = ("f32[2,3,8]", "f32[8]", "f32[8]")
CANCELLATION = ("cancellation",)
DIFFERENCE = "unseen: exp(x − value) loses digits where both arguments are large and nearly equal"

ROWS = [
    Row("jax.nn.relu", ("f32[4,3]",), quick=True),
    Row("jax.nn.relu6", ("f32[4,3] in -3..9",)),
    Row("jax.nn.hard_silu", ("f32[8] in -5..5",)),
    Row("jax.nn.log_sigmoid", ("f32[4,3]",)),
    Row("jax.nn.mish", ("f32[4,3]",)),
    Row("jax.nn.log1mexp", ("f32[8] in 0.05..4",)),
    Row("jax.nn.softmax", ("f32[4,3]",), case="custom_jvp", wrap=own.new_softmax),
    Row(
        "jax.nn.softmax",
        ("f32[4,3]",),
        case="custom_jvp, where",
        wrap=lambda f: own.new_softmax(functools.partial(f, where=MASK)),
    ),
    Row("jax.numpy.logaddexp", ("f32[4,3]", "f32[3]"), note=DIFFERENCE),
    Row("jax.numpy.logaddexp2", ("f32[4,3]", "f32[4,1]"), note=DIFFERENCE),
    Row(
        "jax.numpy.i0",
        ("f32[8]",),
        note="unseen: before 0.12 the second derivative at 0 is 0, and 1/2 is right",
    ),
    Row("jax.numpy.frexp", ("f32[8] in positive",), definition=own.mantissa_and_exponent),
    Row("jax.numpy.linalg.pinv", ("f32[4,3]",)),
    Row(
        "jax.numpy.linalg.det",
        ("f32[2,4,4]",),
        expected=("size",),
        note="the determinant of an empty matrix is 1; its derivative raises",
    ),
    Row("jax.numpy.linalg.slogdet", ("f32[2,4,4]",)),
    Row(
        "jax.numpy.linalg.slogdet",
        ("f32[3,3]",),
        {"vary": False},
        case="qr",
        wrap=fix(method="qr"),
        definition=jnp.linalg.slogdet,
    ),
    Row(SPECIAL + "xlogy", ("f32[4,3]", "f32[4,3] in positive")),
    Row(SPECIAL + "xlog1py", ("f32[4,3]", "f32[4,3] in positive")),
    Row(SPECIAL + "entr", ("f32[8] in 0.05..2",)),
    Row(SPECIAL + "rel_entr", ("f32[8] in positive", "f32[8] in positive")),
    Row(SPECIAL + "kl_div", ("f32[8] in positive", "f32[8] in positive")),
    Row(SPECIAL + "logit", ("f32[8] in 0.05..0.95",)),
    Row(
        SPECIAL + "log_ndtr",
        ("f32[8]",),
        expected=CANCELLATION,
        note="the logarithms of density and distribution, both of the order of x², are subtracted",
    ),
    Row(
        SPECIAL + "dawsn",
        ("f32[8]",),
        note="unseen: terms of the order of 1 are subtracted to leave one of the order of 1/x²",
    ),
    Row(
        SPECIAL + "erfcx",
        ("f32[8] in positive",),
        expected=CANCELLATION if BEFORE_0_12 else (),
        note="terms of the order of 1 are subtracted to leave one of the order of 1/x²",
    ),
    Row(
        SPECIAL + "wofz",
        ("c64[8]",),
        expected=CANCELLATION,
        note="−2zw + 2i/√π: terms of the order of 1 leave one of the order of 1/z²",
    ),
    Row(SPECIAL + "sici", ("f32[8] in 0.5..9",)),
    Row(
        SPECIAL + "fresnel",
        ("f32[8] in -4..4",),
        expected=("second order",),
        note="C″(x) is 0 at odd whole numbers, and should be ±πx",
    ),
    Row(SPECIAL + "owens_t", ("f32[8]", "f32[8]")),
    Row(SPECIAL + "poch", ("f32[8] in positive", "f32[8] in positive")),
    Row(SPECIAL + "expi", ("f32[8] in 0.5..4",), definition=own.exponential_integral),
    Row(
        SPECIAL + "expn",
        ("f32[8] in 0.5..4",),
        case="n = 0",
        wrap=lambda f: lambda x: f(0, x),
        definition=lambda x: jnp.exp(-x) / x,
        expected=("nan",) if BEFORE_0_12 else (),
        note="the rule asks for expn(−1, x), which is NaN",
    ),
    Row(SPECIAL + "zeta", ("f32[8] in 1.5..4", "f32[8] in 0.5..4"), definition=own.hurwitz_zeta),
    Row(
        SPECIAL + "hyp1f1",
        ("f32[4] in 0.5..3", "f32[4] in 0.5..3", "f32[4] in 0.5..4"),
        definition=own.confluent,
    ),
    Row(
        SPECIAL + "hyp1f1",
        (np.array([0.0, 1.0], np.float32), "f32[2] in 0.5..3", "f32[2] in 0.5..4"),
        case="a = 0",
        definition=own.confluent,
        expected=("element",),
        note="a series whose first term is 0 stops there: the derivative by a is lost",
    ),
    Row(
        "jax.scipy.stats.beta.logpdf",
        ("f32[8] in 0.1..0.9", "f32[8] in positive", "f32[8] in positive"),
    ),
    Row("jax.scipy.stats.bernoulli.logpmf", ("i32[8] in 0..1", "f32[8] in 0.1..0.9")),
    Row("jax.lax.custom_root", ("f32[8] in positive",), wrap=own.heron, definition=jnp.sqrt),
    Row(
        GPU + "rms_norm.rms_norm",
        NORM,
        wrap=fix(None, 3, 1e-5, "triton", True),
        definition=own.rms_norm,
        expected=("broadcast", "size"),
        note="a weight of length 1 is taken, and its cotangent not summed; empty arrays raise",
    ),
    Row(
        GPU + "rms_norm.rms_norm",
        NORM,
        case="eps, backward by XLA",
        wrap=fix(None, 3, 0.1, "xla", True),
        definition=functools.partial(own.rms_norm, eps=0.1),
        expected=("term", "size"),
        note="the backward pass forgets eps; empty arrays raise",
    ),
    Row(
        GPU + "layer_norm.layer_norm",
        NORM,
        case="eps, backward by XLA",
        wrap=fix(None, 3, 0.1, "xla", True),
        definition=functools.partial(own.layer_norm, eps=0.1),
        expected=("term", "size"),
        note="the backward pass forgets eps; empty arrays raise",
    ),
    Row(
        GPU + "attention.mha",
        ("f32[1,16,1,16]",) * 3,
        wrap=fix(None, interpret=True),
        definition=own.attention,
        expected=("nan",),
        note="sequences that the blocks do not divide give NaN, if only in interpret mode",
    ),
    Row(
        TPU + "megablox.ops.gmm",
        ("f32[8,8]", "f32[2,8,8]", SIZES),
        {"vary": False},
        wrap=fix(jnp.float32, (8, 8, 8), None, None, False, True),
        definition=functools.partial(jax.lax.ragged_dot, preferred_element_type=jnp.float32),
    ),
    Row(
        TPU + "flash_attention.mha_reference",
        ("f32[1,2,5,4]",) * 3 + ("f32[1,2,5,5]",),
        expected=("dtype",),
        note="the bias's cotangent is float32, whatever the bias is",
    ),
    Row(
        TPU + "flash_attention.mha_reference",
        ("f32[1,2,5,4]",) * 3 + ("f32[1,1,5,5]",),
        case="bias of all heads",
        expected=("structure",),
        note="raises: the cotangent of a bias that is broadcast is not summed",
        quick=True,
    ),
    Row(
        "optax.projections.projection_simplex",
        ("f32[8]",),
        expected=("fails",),
        note="with 64-bit types on, value and tangent have different dtypes, which JAX rejects",
    ),
    Row(
        "optax.projections.projection_simplex",
        ("bf16[8]",),
        case="bfloat16",
        expected=("fails",),
        note="value and tangent have different dtypes, which JAX rejects",
        quick=True,
    ),
    Row("optax.projections.projection_l1_ball", ("f32[8] in 1..3",)),
    Row("optax.losses.safe_softmax_cross_entropy", ("f32[4,3]", "f32[4,3] in simplex")),
    Row("optax.losses.sigmoid_focal_loss", ("f32[4,3]", "f32[4,3] in 0..1")),
    Row("optax.losses.log_cosh", ("f32[8]", "f32[8]")),
    Row(
        "optax.losses.ctc_loss",
        ("f32[1,6,4]",),
        wrap=fix(np.zeros((1, 6)), np.array([[1, 2, 1]]), np.zeros((1, 3))),
    ),
    Row(
        "optax.scale_gradient",
        ("f32[8]",),
        wrap=fix(0.25),
        expected=("factor",),
        note="on purpose",
        quick=True,
    ),
    Row(
        FP8 + "in_qdq",
        ("f32[4,3]", SCALE, HISTORY),
        wrap=own.fp8,
        expected=("affine", "dtype", "not linear"),
        note="on purpose: straight through, and the new scales in place of cotangents",
    ),
    Row(
        FP8 + "out_qdq",
        ("f32[4,3]", SCALE, HISTORY),
        wrap=own.fp8,
        expected=("affine", "dtype", "not linear", "size"),
        note="on purpose: the cotangent is rounded to fp8; empty arrays raise",
    ),
    Row(FP8 + "dot_general_with_precision", ("f32[4,3]", "f32[3,5]"), wrap=fix(MATMUL)),
    Row(
        "flax.linen.custom_vjp",
        ({"kernel": "f32[4,3]", "bias": "f32[3]"}, "f32[2,4]"),
        wrap=own.dense_layer,
    ),
    Row("flax.nnx.custom_vjp", ("f32[4]", "f32[4]"), wrap=own.scaled_sine_nnx, quick=True),
    Row("equinox.filter_custom_vjp", ("f32[4]", "f32[4]"), wrap=own.scaled_sine_vjp, quick=True),
    Row("equinox.filter_custom_jvp", ("f32[4]", "f32[4]"), wrap=own.scaled_sine_jvp, quick=True),
    Row(
        "equinox.error_if",
        ("f32[4]",),
        wrap=lambda f: lambda x: f(x, jnp.any(x > jnp.inf), "never"),
    ),
    Row("equinox.debug.backward_nan", ("f32[4]",), {"terminate": False}),
    Row("equinox.internal.nextafter", ("f32[4]",), definition=own.step_up),
    Row(
        "equinox.internal.while_loop",
        ("f32[4]",),
        wrap=own.five_steps,
        definition=own.five_steps_unrolled,
    ),
    Row(
        "equinox.internal.scan",
        ("f32[4]", "f32[4]", "f32[5,4]"),
        wrap=lambda scan: own.recurrence(functools.partial(scan, kind="checkpointed")),
        definition=own.recurrence(jax.lax.scan),
    ),
    Row("tokamax.layer_norm", ("f32[4,8]", "f32[8]", "f32[8]"), wrap=fix(implementation="xla")),
    Row(
        "tokamax.gated_linear_unit",
        ("f32[4,8]", "f32[8,2,6]"),
        wrap=fix(activation=jax.nn.silu, implementation="xla"),
    ),
    Row(
        "tokamax.dot_product_attention",
        HEADS,
        case="xla, causal",
        wrap=fix(is_causal=True, implementation="xla"),
    ),
    Row(
        "tokamax.dot_product_attention",
        HEADS,
        case="xla_chunked",
        wrap=fix(implementation="xla_chunked"),
    ),
    Row("tokamax.ragged_dot", ("f32[8,4]", "f32[2,4,3]", SIZES), wrap=fix(implementation="xla")),
    Row(
        "tokamax.triangle_multiplication",
        (
            "f32[4,4,6]",
            "bool[4,4]",
            *("f32[6,2,3]",) * 2,
            "f32[3,5]",
            "f32[6,5]",
            *("f32[6]",) * 2,
            *("f32[3]",) * 2,
        ),
        wrap=fix("incoming"),
    ),
    Row(
        "tokamax.linear_softmax_cross_entropy_loss",
        ("f32[4,8]", "i32[4] in 0..5", "f32[8,6]"),
        wrap=fix(implementation="xla"),
        expected=("broadcast", "dtype"),
        note="bfloat16 gets float32; with fewer classes the labels lie outside them: see below",
    ),
    Row(
        "tokamax.linear_softmax_cross_entropy_loss",
        ("f32[4,8]", np.array([0, -1, 5, -1], np.int32), "f32[8,6]"),
        case="labels to ignore",
        wrap=fix(implementation="xla"),
        expected=("dtype", "term"),
        note="a label of −1 adds nothing to the loss, and its logits get a cotangent all the same",
    ),
    Row(
        OPS + "gated_linear_unit.base.GatedLinearUnitVjp",
        ("f32[4,8]", "f32[8,2,6]"),
        wrap=own.tokamax_rule("gated_linear_unit", "GatedLinearUnit", activation=jax.nn.silu),
    ),
    Row(
        OPS + "normalization.base.NormalizationVjp",
        ("f32[4,8]", "f32[8]", "f32[8]"),
        wrap=own.tokamax_rule("normalization", "Normalization"),
    ),
    Row(
        OPS + "normalization.base.NormalizationVjp",
        ("f32[4,4]", "f32[4]", "f32[4]"),
        case="axis 0",
        wrap=own.tokamax_rule("normalization", "Normalization", axis=0),
        expected=("term",),
        note="the scale multiplies the last axis, whatever the axis is",
        quick=True,
    ),
]

if BEFORE_0_12:  # sinc has had no rule since
    ROWS.append(Row("jax.numpy.sinc", ("f32[8]",)))
