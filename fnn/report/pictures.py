"""Arrays as small PNG pictures inside the page.

Ink and weights are drawn by their opacity, not as shades of white, so one picture serves the light
page, the dark page and paper.
"""

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .run import Array

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

POSITIVE, NEGATIVE = (47, 111, 191), (208, 98, 36)  # blue and orange, for colour-blind readers too
_MOST_TILES = 64
_LARGEST_SIDE = 48  # pixels of a tile; a larger picture is averaged down to it
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG: grey, grey + alpha, RGB, RGBA


class Tile(NamedTuple):
    """One picture of a grid, as a data URI, with a caption."""

    source: str
    caption: str


class Filters(NamedTuple):
    """First-layer weights as pictures, on one scale from -scale to scale."""

    tiles: tuple[Tile, ...]
    scale: float
    features: int


def png(pixels: Bytes) -> str:
    """Encode pixels (height, width, channels) as the data URI of a PNG.

    Source: W3C, Portable Network Graphics (3rd edition), sections 5 and 11.
    """
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    unfiltered = np.zeros((height, 1), np.uint8)  # each row opens with its filter, 0 for none
    rows = np.hstack([unfiltered, pixels.reshape(height, width * channels)])
    data = zlib.compress(rows.tobytes(), 9)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        parts += [struct.pack(">I", len(body)), kind, body]
        parts += [struct.pack(">I", zlib.crc32(kind + body))]
    return "data:image/png;base64," + base64.b64encode(b"".join(parts)).decode()


def image_shape(x_shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return (height, width, channels) where an example is a grey or RGB image, else None."""
    if len(x_shape) == 2:
        x_shape = (*x_shape, 1)
    if len(x_shape) != 3 or x_shape[2] not in (1, 3) or min(x_shape[:2]) < 2:
        return None
    return x_shape[0], x_shape[1], x_shape[2]


def example_pictures(x: Array) -> list[str]:
    """Draw images (m, h, w), (m, h, w, 1) as ink or (m, h, w, 3) in colour, on one scale."""
    values = _finite(x).reshape((*x.shape[:3], -1))
    low, high = float(values.min()), float(values.max())
    pixels = _to_bytes((values - low) / ((high - low) or 1.0))
    if pixels.shape[3] == 1:
        pixels = np.concatenate([np.zeros_like(pixels), pixels], axis=3)  # black, as opaque as lit
    return [png(_averaged_down(picture)) for picture in pixels]


def first_layer_filters(parameters: Mapping[str, Array], x_shape: tuple[int, ...]) -> Filters | str:
    """Draw the first layer's weights (pixels, features), strongest units first.

    Returns a clause that says why where the weights have no picture.
    """
    size = image_shape(x_shape)
    if size is None or size[2] != 1:
        return "the inputs are not grey images, so a unit's weights have no picture"
    path = first_parametric_layer(parameters)
    w = parameters.get(f"{path}/w")
    pixels = size[0] * size[1]
    if w is None or w.ndim != 2 or w.shape[0] != pixels or not w.shape[1]:
        return f"the first layer with parameters does not weigh the {pixels} pixels one by one"
    if w.dtype.kind not in "fiu":  # bfloat16 comes out of an archive as raw bytes
        return f"the first layer's weights are stored as {w.dtype}, which has no plain numbers"
    units = _finite(w).T  # (features, pixels)
    strongest = np.argsort(-np.linalg.norm(units, axis=1), kind="stable")[:_MOST_TILES]
    # One outlier must not fade the rest: the scale ends at the 99.5th percentile.
    scale = float(np.quantile(np.abs(units[strongest]), 0.995)) or 1.0
    tiles = tuple(
        Tile(png(_averaged_down(_signed(units[k].reshape(size[:2]) / scale))), f"unit {k}")
        for k in strongest
    )
    return Filters(tiles, scale, features=w.shape[1])


def first_parametric_layer(parameters: Mapping[str, Array]) -> str:
    """Return the path before the last slash of the first parameter, `1_dense` before `10_dense`."""
    paths = {name.rpartition("/")[0] for name in parameters}
    return min(paths, key=_numbers_first, default="")


def _numbers_first(path: str) -> list[tuple[int, str]]:
    parts = (part.partition("_") for part in path.split("/"))
    return [(int(head) if head.isdecimal() else 0, head + tail) for head, _, tail in parts]


def _signed(values: Floats) -> Bytes:
    """Colour values (h, w): the sign gives the hue, the size the opacity; (h, w, 4)."""
    hue = np.where(values[..., None] >= 0, np.array(POSITIVE), np.array(NEGATIVE))
    opacity = _to_bytes(np.minimum(np.abs(values), 1.0))
    return np.concatenate([hue.astype(np.uint8), opacity[..., None]], axis=2)


def _averaged_down(pixels: Bytes) -> Bytes:
    """Average blocks of pixels (h, w, channels) until neither side is over the largest."""
    block = -(-max(pixels.shape[:2]) // _LARGEST_SIDE)
    if block == 1:
        return pixels
    height, width = (max(1, side // block) for side in pixels.shape[:2])
    cut = pixels[: height * block, : width * block].astype(float)
    blocks = cut.reshape(height, -1, width, cut.shape[1] // width, pixels.shape[2])
    return blocks.mean(axis=(1, 3)).astype(np.uint8)


def _to_bytes(fraction: Floats) -> Bytes:
    return np.rint(255 * fraction).astype(np.uint8)


def _finite(values: Array) -> Floats:
    return np.nan_to_num(values.astype(float), nan=0.0, posinf=0.0, neginf=0.0)
