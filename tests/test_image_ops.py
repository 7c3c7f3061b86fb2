"""What the table of ops cannot ask of ops over space: conventions, refusals, large arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import ops
from fnn.errors import ShapeError
from fnn.ops.correlation import weigh, weigh_by_xla
from fnn.ops.geometry import windows

ROW = np.arange(1, 5, dtype="f").reshape(1, 4, 1)


@pytest.mark.parametrize(
    ("size", "statics", "resized"),
    [
        (7, {"method": "linear", "align_corners": True}, [1, 1.5, 2, 2.5, 3, 3.5, 4]),
        (1, {"method": "bicubic", "align_corners": True}, [1]),
        (2, {"method": "bicubic"}, [1.40625, 3.59375]),
    ],
)
def test_resize_without_a_reference_follows_its_docstring(size, statics, resized):
    np.testing.assert_allclose(ops.resize(ROW, size=size, **statics).ravel(), resized, rtol=1e-6)


proven = pytest.mark.prove


@pytest.mark.parametrize(
    ("n", "m", "channels"),
    [
        *((1, 40, 1), (3, 300, 1), (5000, 3, 1), pytest.param(70, 2200, 1, marks=proven)),
        *(pytest.param(n, m, 9, marks=proven) for n, m in [(3, 300), (70, 2200), (5000, 3)]),
        pytest.param(1, 40, 9, marks=proven),
    ],
)
def test_resize_of_extreme_ratios_is_the_transpose_on_its_way_back(n, m, channels):
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(size=(1, k, channels)).astype("float32") for k in (n, m))

    @jax.jit
    def both(x, dy):
        y, pull = jax.vjp(lambda x: ops.resize(x, size=m, method="linear"), x)
        want = ops.resize.definition(x, size=m, method="linear", align_corners=False)
        return y, want, *pull(dy)

    y, want, dx = both(x, dy)
    np.testing.assert_allclose(y, want, atol=1e-5)
    np.testing.assert_allclose(np.vdot(y, dy), np.vdot(x, dx), rtol=1e-3, atol=1e-3)


def test_pixel_shuffle_spreads_the_second_half_of_the_channel_index():
    x = jnp.arange(8.0).reshape(1, 1, 1, 8)
    y = ops.pixel_shuffle(x, factor=2)
    np.testing.assert_array_equal(y[0].transpose(2, 0, 1), [[[0, 1], [2, 3]], [[4, 5], [6, 7]]])
    np.testing.assert_array_equal(ops.pixel_unshuffle(y, factor=2), x)


@pytest.mark.parametrize(
    "shape", [(2, 5, 3), (2, 4, 5, 3), pytest.param((1, 2, 3, 4, 2), marks=proven)]
)
def test_the_identity_samples_every_number_where_it_is(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    d = x.ndim - 2
    theta = np.broadcast_to(np.eye(d, d + 1, dtype="float32"), (shape[0], d, d + 1))

    def sampled(x):
        for corners in (False, True):
            grid = ops.affine_grid(theta, size=shape[1:-1], align_corners=corners)
            for padding in ("zeros", "border", "reflection"):
                yield ops.grid_sample(x, grid, padding=padding, align_corners=corners)

    for y in jax.jit(lambda x: list(sampled(x)))(x):
        np.testing.assert_allclose(y, x, atol=1e-5)


def test_the_width_comes_first_in_a_grid():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    right = jnp.asarray([[[[1.0, -1.0]]]])
    assert ops.grid_sample(x, right, align_corners=True).item() == 2
    grid = ops.affine_grid(jnp.eye(2, 3)[None], size=(2, 3), align_corners=True)
    np.testing.assert_array_equal(grid[0, 0, :, 0], [-1, 0, 1])


@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_coordinates_that_are_no_places_read_nothing_out_of_bounds(method):
    @jax.jit  # one program for all grids
    def both(x, grid):
        y, pull = jax.vjp(lambda x: ops.grid_sample(x, grid, method=method), x)
        return y, *pull(y)

    x = np.ones((1, 3, 3, 1), "f")
    for bad in (np.nan, np.inf, -np.inf, 1e38):
        y, dx = both(x, np.full((1, 2, 2, 2), bad, "f"))
        assert (y.shape, dx.shape) == ((1, 2, 2, 1), x.shape)
        assert np.isnan(bad) or not np.any(y), bad


X, G = np.zeros((2, 4, 5, 3), "f"), np.zeros((2, 2, 2, 2), "f")
REFUSED = {
    ShapeError: [
        (lambda: ops.pad(X, padding=4, mode="reflect"), "axis of 4"),
        (lambda: ops.pad(X, padding=(5, 0), mode="circular"), "asks for 5"),
        (lambda: ops.pad(X[:, :0], padding=1, mode="edge"), "axis of 0"),
        (lambda: ops.pad(X, padding=(1, 1, 1)), "3 spatial axes"),
        (lambda: ops.resize(X, size=(1, 2, 3)), "3 numbers"),
        (lambda: ops.resize(X[:, :0], size=3), "empty spatial axis"),
        (lambda: ops.resize(X[0, 0], size=2), "axes of space"),
        (lambda: ops.pixel_shuffle(X, factor=2), "3 channels"),
        (lambda: ops.pixel_unshuffle(X, factor=2), "multiples of factor 2"),
        (lambda: ops.affine_grid(jnp.zeros((2, 3)), size=2), "theta must be"),
        (lambda: ops.affine_grid(G[0], size=(2, 2)), "theta must be"),
        (lambda: ops.grid_sample(X, G[..., :1]), "2 spatial axes"),
        (lambda: ops.grid_sample(X, G[:1]), "2 spatial axes"),
        (lambda: ops.grid_sample(X[:, :0], G), "empty spatial axis"),
    ],
    ValueError: [
        (lambda: ops.pad(X, padding=1, mode="wrap"), "'wrap'"),
        (lambda: ops.pad(X, padding="SAME"), "'SAME'"),
        (lambda: ops.resize(X, size=0), "at least 1"),
        (lambda: ops.resize(X, size=2, method="cubic"), "'cubic'"),
        (lambda: ops.resize(X, size=2, align_corners=True), "align_corners"),
        (lambda: ops.grid_sample(X, G, method="cubic"), "'cubic'"),
        (lambda: ops.grid_sample(X, G, padding="wrap"), "'wrap'"),
    ],
}


@pytest.mark.parametrize(
    ("error", "call", "words"), [(e, *row) for e, rows in REFUSED.items() for row in rows]
)
def test_what_cannot_be_is_refused_in_words(error, call, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    ("batch", "dtype", "close"),
    [
        (9, "float32", 1e-5),
        *(
            pytest.param(*row, marks=proven)
            for row in [(8, "float32", 1e-5), (17, "bfloat16", 3e-3)]
        ),
    ],
)
def test_a_weight_gradient_in_blocks_is_the_whole(batch, dtype, close):
    """Images this large are summed a few at a time; of an odd number, one is left over."""
    rng = np.random.default_rng(0)
    at = windows("conv", (40, 40), 3, padding="SAME")
    x, dy = (
        jnp.asarray(rng.normal(size=(batch, 40, 40, n)).astype(jnp.dtype(dtype))) for n in (8, 32)
    )
    program = jax.jit(lambda x, dy: weigh(x, dy, at, 1)).lower(x, dy).compile()
    assert "while" in program.as_text()
    want = weigh_by_xla(x.astype(jnp.float32), dy.astype(jnp.float32), at, 1)
    apart = program(x, dy).astype(jnp.float32) - want
    assert float(jnp.linalg.norm(apart) / jnp.linalg.norm(want)) < close
