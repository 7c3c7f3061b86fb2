"""Values and gradients against PyTorch's, in float64, where PyTorch has the op and is installed."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import ops

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
F = torch.nn.functional


def first(x):
    """Channels last to channels first, as PyTorch has them."""
    return x.movedim(-1, 1)


def last(y):
    return y.movedim(1, -1)


def weights(w):
    """(*window, in / groups, out) to (out, in / groups, *window)."""
    return w.movedim((-1, -2), (0, 1))


def transposed(w, groups):
    """(*window, in / groups, out) to (in, out / groups, *window)."""
    *window, inputs, outputs = w.shape
    w = w.reshape(*window, inputs, groups, outputs // groups)
    return w.movedim((-2, -3, -1), (0, 1, 2)).reshape(groups * inputs, outputs // groups, *window)


def of_images(theirs, *rest, **statics):
    """Return a function of PyTorch's as one of images with channels last."""
    return lambda x, *arrays: last(theirs(first(x), *arrays, *rest, **statics))


CASES = {}


def case(ours, theirs, *shapes, **statics):
    label = f"{ours.__name__} {shapes[0]} {statics}"
    assert label not in CASES
    CASES[label] = functools.partial(ours, **statics), theirs, shapes


def convolution(theirs, weights, statics):
    return lambda x, w, b: last(theirs(first(x), weights(w), b, **statics))


def convolutions():
    for d, (s, p, dil, g) in itertools.product(
        (1, 2, 3), [(1, 0, 1, 1), (2, 1, 1, 1), (3, 2, 2, 2), (1, 1, 1, 4), (2, 2, 1, 4)]
    ):
        how = {"stride": s, "padding": p, "dilation": dil, "groups": g}
        shapes = (2, *(9, 8, 7)[:d], 4), (*(3, 2, 3)[:d], 4 // g, 8), (8,)
        case(ops.conv, convolution(getattr(F, f"conv{d}d"), weights, how), *shapes, **how)
        how = how | {"output_padding": s - 1}
        shapes = (2, *(4, 3, 3)[:d], 4), (*(4, 3, 5)[:d], 4 // g, 8), (8,)
        reorder = functools.partial(transposed, groups=g)
        theirs = convolution(getattr(F, f"conv_transpose{d}d"), reorder, how)
        case(ops.conv_transpose, theirs, *shapes, **how)


def patches():
    how = {"stride": 2, "padding": 1, "dilation": 2}

    def rows(x):  # (batch, channels taps, places) to (batch, *places, taps channels)
        y = F.unfold(first(x), (3, 2), **how)
        return y.reshape(len(y), -1, 6, 3, 5).movedim((2, 1), (-2, -1)).flatten(-2)

    def images(y):
        columns = y.unflatten(-1, (6, -1)).movedim((-1, -2), (1, 2)).flatten(1, 2).flatten(2)
        return last(F.fold(columns, (8, 9), (3, 2), **how))

    case(ops.unfold, rows, (2, 8, 9, 3), window=(3, 2), **how)
    case(ops.fold, images, (2, 3, 5, 18), size=(8, 9), window=(3, 2), **how)


def images():
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    for mode, theirs in (modes | {"circular": "circular"}).items():
        theirs = of_images(F.pad, (3, 0, 1, 2), theirs)
        case(ops.pad, theirs, (2, 4, 5, 3), padding=((1, 2), (3, 0)), mode=mode)

    def resize(size, shape, method, mode):
        for corners in (False, True):
            theirs = of_images(F.interpolate, size, mode=mode, align_corners=corners)
            case(ops.resize, theirs, shape, size=size, method=method, align_corners=corners)

    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}
    for d, size in itertools.product((1, 2, 3), ((7, 9, 8), (3, 2, 4))):
        resize(size[:d], (2, *(5, 4, 6)[:d], 3), "linear", linear[d])
    for size in ((7, 9), (3, 2)):
        resize(size, (2, 5, 4, 3), "bicubic", "bicubic")
        case(ops.resize, of_images(F.interpolate, size), (2, 5, 4, 3), size=size)
    case(ops.pixel_shuffle, of_images(F.pixel_shuffle, 2), (2, 3, 2, 12), factor=2)
    case(ops.pixel_unshuffle, of_images(F.pixel_unshuffle, 2), (2, 6, 4, 3), factor=2)


def grids():
    for corners, (d, size) in itertools.product((False, True), ((2, (4, 5)), (3, (2, 3, 4)))):
        how = {"align_corners": corners}
        theirs = functools.partial(F.affine_grid, size=(2, 1, *size), **how)
        case(ops.affine_grid, theirs, (2, d, d + 1), size=size, **how)
        shapes = (2, *(5, 4, 3)[:d], 3), (2, *size, d)
        for padding, (method, mode) in itertools.product(
            ("zeros", "border", "reflection"), (("linear", "bilinear"), ("nearest", "nearest"))
        ):
            theirs = of_images(F.grid_sample, mode, padding, **how)
            case(ops.grid_sample, theirs, *shapes, method=method, padding=padding, **how)


def norms():
    shapes = (4, 5, 3, 6), (6,), (6,)
    mean, var = np.linspace(-1, 1, 6), np.linspace(0.5, 2, 6)  # PyTorch has no gradient of these

    def batch_norm(x, g, b):
        return ops.batch_norm(x, g, b, eps=1e-3)[0]

    def batch_norm_inference(x, g, b):
        return ops.batch_norm_inference(x, jnp.asarray(mean), jnp.asarray(var), g, b)

    def theirs(x, g, b):
        return F.batch_norm(x, None, None, g, b, training=True, eps=1e-3)

    def theirs_of_inference(x, g, b):
        return F.batch_norm(x, torch.tensor(mean), torch.tensor(var), g, b, eps=1e-5)

    case(batch_norm, of_images(theirs), *shapes)
    case(batch_norm_inference, of_images(theirs_of_inference), *shapes)
    groups = of_images(lambda x, g, b: F.group_norm(x, 3, g, b, eps=1e-3))
    case(ops.group_norm, groups, *shapes, groups=3, eps=1e-3)
    case(ops.instance_norm, of_images(F.instance_norm, eps=1e-3), shapes[0], eps=1e-3)
    case(ops.layer_norm, lambda x, g, b: F.layer_norm(x, (6,), g, b, 1e-3), *shapes, eps=1e-3)
    case(ops.rms_norm, lambda x, g: F.rms_norm(x, (6,), g, 1e-3), *shapes[:2], eps=1e-3)
    theirs = of_images(F.local_response_norm, 3, alpha=0.3, beta=0.7, k=2.0)
    case(ops.local_response_norm, theirs, shapes[0], size=3, alpha=0.1, beta=0.7, k=2.0)


def max_unpool(x):
    y, places = ops.max_pool_with_indices(x, window=2)
    return ops.max_unpool(y, places, space=x.shape[1:-1])


def their_max_unpool(x):
    return F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)


def pools():
    for d, plain in itertools.product((1, 2, 3), [(2, 2, 0), (3, 2, 1)]):
        how = dict(zip(("window", "stride", "padding"), plain))
        shape = (2, *(7, 6, 5)[:d], 3)
        case(ops.max_pool, of_images(getattr(F, f"max_pool{d}d"), *plain), shape, **how)
        for counted in (True, False):
            theirs = of_images(getattr(F, f"avg_pool{d}d"), *plain, count_include_pad=counted)
            case(ops.avg_pool, theirs, shape, **how, count_padding=counted)
    case(ops.lp_pool, of_images(F.lp_pool2d, 2.0, 3, 2), (2, 7, 6, 3), p=2.0, window=3, stride=2)
    for output in ((3, 4), (9, 2)):
        for kind in ("avg", "max"):
            theirs = of_images(getattr(F, f"adaptive_{kind}_pool2d"), output)
            case(getattr(ops, f"adaptive_{kind}_pool"), theirs, (2, 7, 6, 3), output=output)
    case(max_unpool, of_images(their_max_unpool), (2, 6, 8, 3))


for enter in (convolutions, patches, images, grids, norms, pools):
    enter()


@pytest.mark.parametrize("label", CASES)
def test_values_and_gradients_are_those_of_pytorch(label):
    ours, theirs, shapes = CASES[label]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = theirs(*tensors)
    dy = rng.normal(size=expected.shape)
    expected.backward(torch.tensor(dy))
    with jax.enable_x64(True):
        y, pull = jax.vjp(ours, *map(jnp.asarray, arrays))
        actual = jax.device_get([y, *pull(jnp.asarray(dy))])
    for a, b in zip(actual, [expected, *(t.grad for t in tensors)]):
        b = b.detach().numpy()
        assert a.shape == b.shape
        assert np.max(np.abs(a - b), initial=0) <= 1e-10 * np.max(np.abs(b))
