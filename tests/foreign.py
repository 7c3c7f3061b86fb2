"""Functions of other libraries that have a forward or backward rule of their own.

Each row holds the arguments of `fnn.verify` and the defects that it must find. Most rules are
right. A comment explains each rule that is wrong, or that is no derivative on purpose.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from . import foreign_functions as own
from .foreign_row import fix, row

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
TRIANGLE = ("f32[6,2,3]",) * 2 + ("f32[3,5]", "f32[6,5]") + ("f32[6]",) * 2 + ("f32[3]",) * 2
XLA = fix(implementation="xla")

ROWS = [
    row("jax.nn.relu", "f32[4,3]", quick=True),
    row("jax.nn.relu6", "f32[4,3] in -3..9"),
    row("jax.nn.hard_silu", "f32[8] in -5..5"),
    row("jax.nn.log_sigmoid", "f32[4,3]"),
    row("jax.nn.mish", "f32[4,3]"),
    row("jax.nn.log1mexp", "f32[8] in 0.05..4"),
    row("jax.nn.softmax: custom_jvp", "f32[4,3]", wrap=own.new_softmax),
    row(
        *("jax.nn.softmax: custom_jvp, where", "f32[4,3]"),
        wrap=lambda f: own.new_softmax(functools.partial(f, where=MASK)),
    ),
    # undetected, here and below: exp(x − value) loses digits at large and nearly equal arguments
    row("jax.numpy.logaddexp", "f32[4,3]", "f32[3]"),
    row("jax.numpy.logaddexp2", "f32[4,3]", "f32[4,1]"),
    # undetected: before 0.12 the second derivative at 0 is 0 instead of 1/2
    row("jax.numpy.i0", "f32[8]"),
    row("jax.numpy.frexp", "f32[8] in positive", definition=own.mantissa_and_exponent),
    row("jax.numpy.linalg.pinv", "f32[4,3]"),
    # the determinant of an empty matrix is 1; its derivative raises
    row("jax.numpy.linalg.det", "f32[2,4,4]", expected="size"),
    row("jax.numpy.linalg.slogdet", "f32[2,4,4]"),
    row(
        *("jax.numpy.linalg.slogdet: qr", "f32[3,3]"),
        statics={"vary": False},
        wrap=fix(method="qr"),
        definition=jnp.linalg.slogdet,
    ),
    row(SPECIAL + "xlogy", "f32[4,3]", "f32[4,3] in positive"),
    row(SPECIAL + "xlog1py", "f32[4,3]", "f32[4,3] in positive"),
    row(SPECIAL + "entr", "f32[8] in 0.05..2"),
    row(SPECIAL + "rel_entr", "f32[8] in positive", "f32[8] in positive"),
    row(SPECIAL + "kl_div", "f32[8] in positive", "f32[8] in positive"),
    row(SPECIAL + "logit", "f32[8] in 0.05..0.95"),
    # the logarithms of density and distribution, both of the order of x², are subtracted
    row(SPECIAL + "log_ndtr", "f32[8]", expected="cancellation"),
    # undetected: terms of the order of 1 are subtracted to leave one of the order of 1/x²
    row(SPECIAL + "dawsn", "f32[8]"),
    # terms of the order of 1 are subtracted to leave one of the order of 1/x²
    row(SPECIAL + "erfcx", "f32[8] in positive", expected="cancellation" if BEFORE_0_12 else ""),
    # −2zw + 2i/√π: terms of the order of 1 leave one of the order of 1/z²
    row(SPECIAL + "wofz", "c64[8]", expected="cancellation"),
    row(SPECIAL + "sici", "f32[8] in 0.5..9"),
    # C″(x) is 0 at odd whole numbers instead of ±πx
    row(SPECIAL + "fresnel", "f32[8] in -4..4", expected="second order"),
    row(SPECIAL + "owens_t", "f32[8]", "f32[8]"),
    row(SPECIAL + "poch", "f32[8] in positive", "f32[8] in positive"),
    row(SPECIAL + "expi", "f32[8] in 0.5..4", definition=own.exponential_integral),
    # the rule asks for expn(−1, x), which is NaN
    row(
        *(SPECIAL + "expn: n = 0", "f32[8] in 0.5..4"),
        wrap=lambda f: lambda x: f(0, x),
        definition=lambda x: jnp.exp(-x) / x,
        expected="nan" if BEFORE_0_12 else "",
    ),
    row(SPECIAL + "zeta", "f32[8] in 1.5..4", "f32[8] in 0.5..4", definition=own.hurwitz_zeta),
    row(
        *(SPECIAL + "hyp1f1", "f32[4] in 0.5..3", "f32[4] in 0.5..3", "f32[4] in 0.5..4"),
        definition=own.confluent,
    ),
    # a series whose first term is 0 stops there: the derivative by a is lost
    row(
        *(SPECIAL + "hyp1f1: a = 0", np.array([0.0, 1.0], np.float32)),
        *("f32[2] in 0.5..3", "f32[2] in 0.5..4"),
        definition=own.confluent,
        expected="element",
    ),
    row("jax.scipy.stats.beta.logpdf", "f32[8] in 0.1..0.9", *("f32[8] in positive",) * 2),
    row("jax.scipy.stats.bernoulli.logpmf", "i32[8] in 0..1", "f32[8] in 0.1..0.9"),
    row("jax.lax.custom_root", "f32[8] in positive", wrap=own.heron, definition=jnp.sqrt),
    # a weight of length 1 is accepted, but its cotangent is not summed; empty arrays raise
    row(
        *(GPU + "rms_norm.rms_norm", *NORM),
        wrap=fix(None, 3, 1e-5, "triton", True),
        definition=own.rms_norm,
        expected="broadcast, size",
    ),
    # the backward pass forgets eps; empty arrays raise
    row(
        *(GPU + "rms_norm.rms_norm: eps, backward by XLA", *NORM),
        wrap=fix(None, 3, 0.1, "xla", True),
        definition=functools.partial(own.rms_norm, eps=0.1),
        expected="term, size",
    ),
    # the backward pass forgets eps; empty arrays raise
    row(
        *(GPU + "layer_norm.layer_norm: eps, backward by XLA", *NORM),
        wrap=fix(None, 3, 0.1, "xla", True),
        definition=functools.partial(own.layer_norm, eps=0.1),
        expected="term, size",
    ),
    # sequences that the blocks do not divide give NaN, but only in interpret mode
    row(
        *(GPU + "attention.mha", *("f32[1,16,1,16]",) * 3),
        wrap=fix(None, interpret=True),
        definition=own.attention,
        expected="nan",
    ),
    row(
        *(TPU + "megablox.ops.gmm", "f32[8,8]", "f32[2,8,8]", SIZES),
        statics={"vary": False},
        wrap=fix(jnp.float32, (8, 8, 8), None, None, False, True),
        definition=functools.partial(jax.lax.ragged_dot, preferred_element_type=jnp.float32),
    ),
    # the bias's cotangent is float32, whatever the bias is
    row(
        *(TPU + "flash_attention.mha_reference", *("f32[1,2,5,4]",) * 3, "f32[1,2,5,5]"),
        expected="dtype",
    ),
    # raises: the cotangent of a broadcast bias is not summed
    row(
        TPU + "flash_attention.mha_reference: bias of all heads",
        *("f32[1,2,5,4]",) * 3,
        "f32[1,1,5,5]",
        expected="structure",
        quick=True,
    ),
    # with 64-bit types on, value and tangent have different dtypes, which JAX rejects
    row("optax.projections.projection_simplex", "f32[8]", expected="fails"),
    # value and tangent have different dtypes, which JAX rejects
    row("optax.projections.projection_simplex: bfloat16", "bf16[8]", expected="fails", quick=True),
    row("optax.projections.projection_l1_ball", "f32[8] in 1..3"),
    row("optax.losses.safe_softmax_cross_entropy", "f32[4,3]", "f32[4,3] in simplex"),
    row("optax.losses.sigmoid_focal_loss", "f32[4,3]", "f32[4,3] in 0..1"),
    row("optax.losses.log_cosh", "f32[8]", "f32[8]"),
    row(
        *("optax.losses.ctc_loss", "f32[1,6,4]"),
        wrap=fix(np.zeros((1, 6)), np.array([[1, 2, 1]]), np.zeros((1, 3))),
    ),
    # on purpose
    row("optax.scale_gradient", "f32[8]", wrap=fix(0.25), expected="factor", quick=True),
    # on purpose: straight through, with the new scales in place of cotangents
    row(
        *(FP8 + "in_qdq", "f32[4,3]", SCALE, HISTORY),
        wrap=own.fp8,
        expected="affine, dtype, not linear",
    ),
    # on purpose: the cotangent is rounded to fp8; empty arrays raise
    row(
        *(FP8 + "out_qdq", "f32[4,3]", SCALE, HISTORY),
        wrap=own.fp8,
        expected="affine, dtype, not linear, size",
    ),
    row(FP8 + "dot_general_with_precision", "f32[4,3]", "f32[3,5]", wrap=fix(MATMUL)),
    row(
        *("flax.linen.custom_vjp", {"kernel": "f32[4,3]", "bias": "f32[3]"}, "f32[2,4]"),
        wrap=own.dense_layer,
    ),
    row("flax.nnx.custom_vjp", "f32[4]", "f32[4]", wrap=own.scaled_sine_nnx, quick=True),
    row("equinox.filter_custom_vjp", "f32[4]", "f32[4]", wrap=own.scaled_sine_vjp, quick=True),
    row("equinox.filter_custom_jvp", "f32[4]", "f32[4]", wrap=own.scaled_sine_jvp, quick=True),
    row("equinox.error_if", "f32[4]", wrap=lambda f: lambda x: f(x, jnp.any(x > jnp.inf), "never")),
    row("equinox.debug.backward_nan", "f32[4]", statics={"terminate": False}),
    row("equinox.internal.nextafter", "f32[4]", definition=own.step_up),
    row(
        *("equinox.internal.while_loop", "f32[4]"),
        wrap=own.five_steps,
        definition=own.five_steps_unrolled,
    ),
    row(
        *("equinox.internal.scan", "f32[4]", "f32[4]", "f32[5,4]"),
        wrap=lambda scan: own.recurrence(functools.partial(scan, kind="checkpointed")),
        definition=own.recurrence(jax.lax.scan),
    ),
    row("tokamax.layer_norm", "f32[4,8]", "f32[8]", "f32[8]", wrap=XLA),
    row(
        *("tokamax.gated_linear_unit", "f32[4,8]", "f32[8,2,6]"),
        wrap=fix(activation=jax.nn.silu, implementation="xla"),
    ),
    row(
        *("tokamax.dot_product_attention: xla, causal", *HEADS),
        wrap=fix(is_causal=True, implementation="xla"),
    ),
    row(
        *("tokamax.dot_product_attention: xla_chunked", *HEADS),
        wrap=fix(implementation="xla_chunked"),
    ),
    row("tokamax.ragged_dot", "f32[8,4]", "f32[2,4,3]", SIZES, wrap=XLA),
    row(
        *("tokamax.triangle_multiplication", "f32[4,4,6]", "bool[4,4]", *TRIANGLE),
        wrap=fix("incoming"),
    ),
    # bfloat16 logits get float32; with fewer classes the labels lie outside them, as below
    row(
        *("tokamax.linear_softmax_cross_entropy_loss", "f32[4,8]", "i32[4] in 0..5", "f32[8,6]"),
        wrap=XLA,
        expected="broadcast, dtype",
    ),
    # a label of −1 adds nothing to the loss, but its logits get a cotangent
    row(
        "tokamax.linear_softmax_cross_entropy_loss: labels to ignore",
        *("f32[4,8]", np.array([0, -1, 5, -1], np.int32), "f32[8,6]"),
        wrap=XLA,
        expected="dtype, term",
    ),
    row(
        *(OPS + "gated_linear_unit.base.GatedLinearUnitVjp", "f32[4,8]", "f32[8,2,6]"),
        wrap=own.tokamax_rule("gated_linear_unit", "GatedLinearUnit", activation=jax.nn.silu),
    ),
    row(
        *(OPS + "normalization.base.NormalizationVjp", "f32[4,8]", "f32[8]", "f32[8]"),
        wrap=own.tokamax_rule("normalization", "Normalization"),
    ),
    # the scale multiplies the last axis, even if `axis` is another
    row(
        *(OPS + "normalization.base.NormalizationVjp: axis 0", "f32[4,4]", "f32[4]", "f32[4]"),
        wrap=own.tokamax_rule("normalization", "Normalization", axis=0),
        expected="term",
        quick=True,
    ),
]

if BEFORE_0_12:  # later versions have no rule for sinc
    ROWS.append(row("jax.numpy.sinc", "f32[8]"))
