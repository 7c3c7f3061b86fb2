"""Named models: functions that return a `Serial`. `MODELS` is the table a config names them by.

    model, x_shape = fnn.models.resnet(depth=20), (128, 32, 32, 3)
    params, state, y_shape = model.init(jax.random.key(0), x_shape)

Each ends in one number per class, without softmax: the loss `softmax_cross_entropy` has it.
"""

from collections.abc import Callable

from . import ops
from .init import he_normal
from .layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Residual,
    Serial,
)

MAX_DEPTH = 1202  # of the deepest network in the paper

RELU, TANH = Activation(ops.relu), Activation(ops.tanh)


def lenet5(*, classes: int = 10) -> Serial:
    """Read digits: two convolutions with pools, three dense layers, tanh throughout.

    For images of 28×28×1: 61,706 parameters, 416,520 multiply-adds. As it is mostly built today:
    the paper pads to 32×32, scales and biases its pools, connects the second convolution to parts
    of the first, and ends in radial basis functions.

    Source: LeCun, Bottou, Bengio & Haffner 1998, doi:10.1109/5.726791.
    """
    layers: list[Layer] = [Conv(6, 5, padding=2), TANH, AvgPool(2)]
    layers += [Conv(16, 5), TANH, AvgPool(2), Flatten()]
    layers += [Dense(120), TANH, Dense(84), TANH, Dense(classes)]
    return Serial(layers, "lenet5")


def small_cnn(*, classes: int = 10) -> Serial:
    """See small images: convolutions of 32 and 64 channels, each pooled, and 128 units.

    For images of 28×28×1: 421,642 parameters, 4,241,152 multiply-adds.
    """
    layers: list[Layer] = []
    for features in (32, 64):
        conv = Conv(features, 3, padding="SAME", w_init=he_normal())
        layers += [conv, RELU, MaxPool(2)]
    layers += [Flatten(), Dense(128, w_init=he_normal()), RELU, Dense(classes)]
    return Serial(layers, "small_cnn")


def resnet(*, depth: int = 20, width: int = 16, classes: int = 10) -> Serial:
    """Stack residual blocks in three stages of `width`, 2 `width` and 4 `width` channels.

    The CIFAR form, of `depth` = 6 n + 2 layers with weights, n blocks per stage; depth 20 has
    272,474 parameters and 40,813,184 multiply-adds for images of 32×32×3. Where channels and
    stride change, the shortcut is a convolution of window 1 (the paper's option B).

    Raises ValueError where no n gives the depth.
    Source: He, Zhang, Ren & Sun 2016, arXiv:1512.03385.
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest or depth > MAX_DEPTH:
        raise ValueError(
            f"resnet: depth must be 6 n + 2 (8, 14, 20, 32, 44, 56, …, {MAX_DEPTH}), got {depth}"
        )
    layers = [*_normalised(width, 3), RELU]
    inputs = width
    for stage in range(3):
        for block in range(blocks):
            features, stride = width << stage, 2 if stage and not block else 1
            body = [*_normalised(features, 3, stride), RELU, *_normalised(features, 3)]
            changed = (inputs, 1) != (features, stride)
            shortcut = _normalised(features, 1, stride) if changed else []
            layers += [Residual(body, shortcut), RELU]
            inputs = features
    return Serial([*layers, GlobalAvgPool(), Dense(classes)], "resnet")


def alexnet(*, classes: int = 1000) -> Serial:
    """See the thousand classes of ImageNet: five convolutions, three dense layers, relu.

    For images of 227×227×3: 60,965,224 parameters, 724,406,816 multiply-adds. Three convolutions
    have two groups, which the paper kept on two devices.

    Source: Krizhevsky, Sutskever & Hinton 2012, NIPS.
    """
    pool, start = MaxPool(3, stride=2), he_normal()
    layers: list[Layer] = [Conv(96, 11, stride=4, w_init=start), RELU, LocalResponseNorm(), pool]
    layers += [Conv(256, 5, padding=2, groups=2, w_init=start), RELU, LocalResponseNorm(), pool]
    for features, groups in ((384, 1), (384, 2), (256, 2)):
        layers += [Conv(features, 3, padding=1, groups=groups, w_init=start), RELU]
    layers += [pool, Flatten()]
    for _ in range(2):
        layers += [Dense(4096, w_init=start), RELU, Dropout(0.5)]
    return Serial([*layers, Dense(classes)], "alexnet")


def mobilenet(*, width: float = 1.0, classes: int = 1000) -> Serial:
    """Part each convolution: one window per channel, then a mixture of the channels at each place.

    `width` scales the channels of all layers. For images of 224×224×3 and width 1: 4,231,976
    parameters and 568,740,352 multiply-adds, a ninth of what whole convolutions would take.

    Raises ValueError where the width leaves a layer without channels.
    Source: Howard et al. 2017, arXiv:1704.04861.
    """
    if not width * 32 >= 1:
        raise ValueError(f"mobilenet: width must be at least 1/32, got {width}")
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    plan += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    inputs = int(32 * width)
    layers = [*_normalised(inputs, 3, stride=2), RELU]
    for channels, stride in plan:
        features = int(channels * width)
        layers += [*_normalised(inputs, 3, stride, groups=inputs), RELU]
        layers += [*_normalised(features, 1), RELU]
        inputs = features
    return Serial([*layers, GlobalAvgPool(), Dense(classes)], "mobilenet")


def _normalised(features: int, window: int, stride: int = 1, groups: int = 1) -> list[Layer]:
    """A convolution that keeps the size, but for its stride, and a batch norm with its bias."""
    conv = Conv(
        features,
        window,
        stride,
        padding=window // 2,
        groups=groups,
        use_bias=False,
        w_init=he_normal(),
    )
    return [conv, BatchNorm()]


MODELS: dict[str, Callable[..., Serial]] = {
    "lenet5": lenet5,
    "small_cnn": small_cnn,
    "resnet": resnet,
    "alexnet": alexnet,
    "mobilenet": mobilenet,
}
