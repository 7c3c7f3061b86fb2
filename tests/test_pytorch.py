"""Values and gradients against PyTorch's, in float64, where PyTorch has the op and is installed."""

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


def of_images(theirs):
    return lambda x, *rest: last(theirs(first(x), *rest))


CASES = {}


def case(label, ours, theirs, *shapes):
    CASES[label] = ours, theirs, shapes


def convolutions():
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
    back = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
    for d, (s, p, dil, g) in itertools.product(
        (1, 2, 3), [(1, 0, 1, 1), (2, 1, 1, 1), (3, 2, 2, 2), (1, 1, 1, 4), (2, 2, 1, 4)]
    ):
        how = {"stride": s, "padding": p, "dilation": dil, "groups": g}
        shapes = (2, *(9, 8, 7)[:d], 4), (*(3, 2, 3)[:d], 4 // g, 8), (8,)
        case(
            f"conv {d}d {how}",
            lambda x, w, b, how=how: ops.conv(x, w, b, **how),
            lambda x, w, b, how=how, f=conv[d]: last(f(first(x), weights(w), b, **how)),
            *shapes,
        )
        more = how | {"output_padding": s - 1}
        shapes = (2, *(4, 3, 3)[:d], 4), (*(4, 3, 5)[:d], 4 // g, 8), (8,)
        case(
            f"conv_transpose {d}d {more}",
            lambda x, w, b, how=more: ops.conv_transpose(x, w, b, **how),
            lambda x, w, b, how=more, f=back[d]: last(
                f(first(x), transposed(w, how["groups"]), b, **how)
            ),
            *shapes,
        )


def patches():
    how = {"stride": 2, "padding": 1, "dilation": 2}

    def rows(y, space, taps):  # (batch, channels taps, places) to (batch, *places, taps channels)
        y = y.reshape(len(y), -1, taps, *space)
        return y.movedim((2, 1), (-2, -1)).flatten(-2)

    def columns(y, taps):
        return y.unflatten(-1, (taps, -1)).movedim((-1, -2), (1, 2)).flatten(1, 2).flatten(2)

    case(
        "unfold",
        lambda x: ops.unfold(x, window=(3, 2), **how),
        lambda x: rows(F.unfold(first(x), (3, 2), **how), (3, 5), 6),
        (2, 8, 9, 3),
    )
    case(
        "fold",
        lambda y: ops.fold(y, size=(8, 9), window=(3, 2), **how),
        lambda y: last(F.fold(columns(y, 6), (8, 9), (3, 2), **how)),
        (2, 3, 5, 18),
    )


def images():
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    modes["circular"] = "circular"
    for mode, theirs in modes.items():
        case(
            f"pad {mode}",
            lambda x, m=mode: ops.pad(x, padding=((1, 2), (3, 0)), mode=m),
            of_images(lambda x, m=theirs: F.pad(x, (3, 0, 1, 2), mode=m)),
            (2, 4, 5, 3),
        )
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}
    for d, size, corners in itertools.product((1, 2, 3), ((7, 9, 8), (3, 2, 4)), (False, True)):
        case(
            f"resize linear {d}d {size} {corners}",
            lambda x, m=size[:d], c=corners: ops.resize(
                x, size=m, method="linear", align_corners=c
            ),
            of_images(
                lambda x, m=size[:d], c=corners, mode=linear[d]: F.interpolate(
                    x, m, mode=mode, align_corners=c
                )
            ),
            (2, *(5, 4, 6)[:d], 3),
        )
    for size, corners in itertools.product(((7, 9), (3, 2)), (False, True)):
        case(
            f"resize bicubic {size} {corners}",
            lambda x, m=size, c=corners: ops.resize(x, size=m, method="bicubic", align_corners=c),
            of_images(
                lambda x, m=size, c=corners: F.interpolate(x, m, mode="bicubic", align_corners=c)
            ),
            (2, 5, 4, 3),
        )
        case(
            f"resize nearest {size} {corners}",
            lambda x, m=size: ops.resize(x, size=m),
            of_images(lambda x, m=size: F.interpolate(x, m)),
            (2, 5, 4, 3),
        )
    case(
        "pixel_shuffle",
        lambda x: ops.pixel_shuffle(x, factor=2),
        of_images(lambda x: F.pixel_shuffle(x, 2)),
        (2, 3, 2, 12),
    )
    case(
        "pixel_unshuffle",
        lambda x: ops.pixel_unshuffle(x, factor=2),
        of_images(lambda x: F.pixel_unshuffle(x, 2)),
        (2, 6, 4, 3),
    )
    for corners in (False, True):
        for d, size in ((2, (4, 5)), (3, (2, 3, 4))):
            case(
                f"affine_grid {d}d {corners}",
                lambda t, m=size, c=corners: ops.affine_grid(t, size=m, align_corners=c),
                lambda t, m=size, c=corners: F.affine_grid(t, (2, 1, *m), align_corners=c),
                (2, d, d + 1),
            )
            for padding, method in itertools.product(
                ("zeros", "border", "reflection"), ("linear", "nearest")
            ):
                mode = {"linear": "bilinear"}.get(method, method)
                how = {"padding": padding, "align_corners": corners}
                case(
                    f"grid_sample {d}d {method} {how}",
                    lambda x, g, m=method, how=how: ops.grid_sample(x, g, method=m, **how),
                    lambda x, g, m=mode, p=padding, c=corners: last(
                        F.grid_sample(first(x), g, m, p, align_corners=c)
                    ),
                    (2, *(5, 4, 3)[:d], 3),
                    (2, *size, d),
                )


def norms():
    shapes = (4, 5, 3, 6), (6,), (6,)
    case(
        "batch_norm",
        lambda x, g, b: ops.batch_norm(x, g, b, eps=1e-3)[0],
        of_images(lambda x, g, b: F.batch_norm(x, None, None, g, b, training=True, eps=1e-3)),
        *shapes,
    )
    mean, var = np.linspace(-1, 1, 6), np.linspace(0.5, 2, 6)  # PyTorch has no gradient of these
    case(
        "batch_norm_inference",
        lambda x, g, b: ops.batch_norm_inference(x, jnp.asarray(mean), jnp.asarray(var), g, b),
        of_images(
            lambda x, g, b: F.batch_norm(x, torch.tensor(mean), torch.tensor(var), g, b, eps=1e-5)
        ),
        *shapes,
    )
    case(
        "group_norm",
        lambda x, g, b: ops.group_norm(x, g, b, groups=3, eps=1e-3),
        of_images(lambda x, g, b: F.group_norm(x, 3, g, b, eps=1e-3)),
        *shapes,
    )
    case(
        "instance_norm",
        lambda x: ops.instance_norm(x, eps=1e-3),
        of_images(lambda x: F.instance_norm(x, eps=1e-3)),
        shapes[0],
    )
    case(
        "layer_norm",
        lambda x, g, b: ops.layer_norm(x, g, b, eps=1e-3),
        lambda x, g, b: F.layer_norm(x, (6,), g, b, eps=1e-3),
        *shapes,
    )
    case(
        "rms_norm",
        lambda x, g: ops.rms_norm(x, g, eps=1e-3),
        lambda x, g: F.rms_norm(x, (6,), g, eps=1e-3),
        *shapes[:2],
    )
    case(
        "local_response_norm",
        lambda x: ops.local_response_norm(x, size=3, alpha=0.1, beta=0.7, k=2.0),
        of_images(lambda x: F.local_response_norm(x, 3, alpha=0.3, beta=0.7, k=2.0)),
        shapes[0],
    )


def pools():
    largest = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
    mean = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
    for d, plain in itertools.product((1, 2, 3), [(2, 2, 0), (3, 2, 1)]):
        how = dict(zip(("window", "stride", "padding"), plain))
        shape = (2, *(7, 6, 5)[:d], 3)
        case(
            f"max_pool {d}d {how}",
            lambda x, how=how: ops.max_pool(x, **how),
            of_images(lambda x, f=largest[d], how=plain: f(x, *how)),
            shape,
        )
        for counted in (True, False):
            case(
                f"avg_pool {d}d {how} {counted}",
                lambda x, how=how, c=counted: ops.avg_pool(x, **how, count_padding=c),
                of_images(
                    lambda x, f=mean[d], how=plain, c=counted: f(x, *how, count_include_pad=c)
                ),
                shape,
            )
    case(
        "lp_pool",
        lambda x: ops.lp_pool(x, p=2.0, window=3, stride=2),
        of_images(lambda x: F.lp_pool2d(x, 2.0, 3, 2)),
        (2, 7, 6, 3),
    )
    for output in ((3, 4), (9, 2)):
        case(
            f"adaptive_avg_pool {output}",
            lambda x, m=output: ops.adaptive_avg_pool(x, output=m),
            of_images(lambda x, m=output: F.adaptive_avg_pool2d(x, m)),
            (2, 7, 6, 3),
        )
        case(
            f"adaptive_max_pool {output}",
            lambda x, m=output: ops.adaptive_max_pool(x, output=m),
            of_images(lambda x, m=output: F.adaptive_max_pool2d(x, m)),
            (2, 7, 6, 3),
        )


def unpooled(x):
    y, where = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, where, 2)


def unpool():
    def ours(x):
        y, where = ops.max_pool_with_indices(x, window=2)
        return ops.max_unpool(y, where, space=x.shape[1:-1])

    case("max_unpool", ours, of_images(unpooled), (2, 6, 8, 3))


convolutions()
patches()
images()
norms()
pools()
unpool()


@pytest.mark.parametrize("label", CASES)
def test_values_and_gradients_are_those_of_pytorch(label):
    ours, theirs, shapes = CASES[label]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    wanted = theirs(*tensors)
    dy = rng.normal(size=wanted.shape)
    wanted.backward(torch.tensor(dy))
    with jax.enable_x64(True):
        y, pull = jax.vjp(ours, *map(jnp.asarray, arrays))
        came = jax.device_get([y, *pull(jnp.asarray(dy))])
    for a, b in zip(came, [wanted, *(t.grad for t in tensors)]):
        b = b.detach().numpy()
        assert a.shape == b.shape
        assert np.max(np.abs(a - b), initial=0) <= 1e-10 * np.max(np.abs(b))
