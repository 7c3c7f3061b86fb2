"""Datasets, splits, synthetic sets and transforms; others: test_data_*.py."""

import gzip
import hashlib
import inspect
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fnn import data
from fnn.data import DATASETS, TRANSFORMS, Dataset, digits, none_of_the_above, stratified_split
from fnn.errors import DataError

SELF_CONTAINED = [
    name
    for name, load in DATASETS.items()
    if all(p.default is not p.empty for p in inspect.signature(load).parameters.values())
]
IN_ONE_FOLDER = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100
)


def same(a: Dataset, b: Dataset) -> bool:
    pairs = ((getattr(d, k) for d in (a, b)) for k in ("x_train", "y_train", "x_test", "y_test"))
    return a.classes == b.classes and all(np.array_equal(*pair) for pair in pairs)


def expect_error(words, call, *args, **kwargs) -> str:
    """Call, and check that the DataError holds every word."""
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    return message


def packed(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def expect_bomb(words, call, *args, **kwargs):
    """Expect an error before more than a few bytes are inflated."""
    tracemalloc.start()
    expect_error(words, call, *args, **kwargs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def fuzz(draws, content: bytes, read) -> None:
    """Read a file with some bytes changed, and perhaps cut."""
    changed = bytearray(content)
    for _ in range(draws.draw(st.integers(1, 4))):
        place = draws.draw(st.integers(0, len(changed) - 1) | st.integers(0, 15))
        changed[place % len(changed)] = draws.draw(st.integers(0, 255))
    end = draws.draw(st.just(len(changed)) | st.integers(0, len(changed)))
    with suppress(DataError):
        assert isinstance(read(bytes(changed[:end])), Dataset)


def write_files(folder: Path, files: dict[str, bytes | None]) -> str:
    """Write files of these names (None: left out) into a folder, and return it."""
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return str(folder)


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file and return its path."""

    def write(content: str | bytes, name: str = "table.csv") -> str:
        content = content.encode() if isinstance(content, str) else content
        write_files(tmp_path, {name: content})
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("name", [*DATASETS, *TRANSFORMS])
def test_rows_are_documented_and_typed_for_configs(name):
    function = (DATASETS | TRANSFORMS)[name]
    assert function.__name__ == name
    assert "Raises DataError" in function.__doc__
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.kind is parameter.KEYWORD_ONLY or parameter.name == "dataset"


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_defaults_are_valid_and_deterministic(name):
    dataset = DATASETS[name]()
    assert dataset.name == name
    assert set(dataset.y_train) == set(range(len(dataset.classes)))
    assert same(dataset, DATASETS[name]())


def arrays(**changes):
    x, y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1], np.int32)
    good = {"x_train": x, "y_train": y, "x_test": x[:2], "y_test": y[:2], "classes": ("a", "b")}
    return {"name": "toy"} | good | changes


NAN = np.array([[0, 0], [0, np.nan], [0, 0], [0, 0]], np.float32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": np.zeros((4, 2))}, ["x_train", "float64", "float32"]),
        ({"x_train": [[0.0]]}, ["x_train", "list", "NumPy array"]),
        ({"x_train": np.zeros(4, np.float32)}, ["x_train", "(4,)", "features"]),
        ({"x_train": np.zeros((4, 0), np.float32)}, ["x_train", "empty", "(4, 0)"]),
        ({"x_test": np.zeros((0, 2), np.float32)}, ["x_test", "empty"]),
        ({"x_test": np.zeros((2, 3), np.float32)}, ["(2,)", "(3,)", "one shape"]),
        ({"x_train": NAN}, ["x_train[1, 1]", "nan", "finite"]),
        ({"y_train": np.zeros(4, np.int64)}, ["y_train", "int64", "int32"]),
        ({"y_train": np.zeros((4, 1), np.int32)}, ["y_train", "(4, 1)", "(n,)"]),
        ({"y_train": np.zeros(3, np.int32)}, ["4 examples", "3 labels"]),
        ({"y_test": np.array([0, 2], np.int32)}, ["y_test[1]", "is 2", "0 to 1"]),
        ({"y_test": np.array([-1, 0], np.int32)}, ["y_test[0]", "is -1"]),
        ({"classes": ()}, ["classes", "at least one"]),
        ({"classes": ("a", "a")}, ["classes", "twice"]),
    ],
)
def test_dataset_names_the_fault(changes, words):
    expect_error(["'toy'", *words], Dataset, **arrays(**changes))


def test_dataset_shape_and_identity():
    dataset, other = (Dataset(**arrays()) for _ in range(2))
    assert dataset.x_shape == (2,)
    assert dataset == dataset != other


LABELS = st.lists(st.integers(0, 5), min_size=2, max_size=80).map(np.array)


@given(y=LABELS, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_split_is_a_stratified_partition(y, fraction, seed):
    sizes, arguments = np.bincount(y), {"test_fraction": fraction, "seed": seed}
    if sizes.max() < 2:
        expect_error(["no test example"], stratified_split, y, **arguments)
        return
    train, test = stratified_split(y, **arguments)
    assert sorted([*train, *test]) == list(range(len(y)))
    for k, size in enumerate(sizes):
        count = (y[test] == k).sum()
        assert abs(count - size * fraction) <= 1
        assert count >= 1 if size >= 2 else count == 0
        assert count < max(size, 1) or size == 0


def test_split_changes_with_the_seed_and_is_pinned_for_ever():
    y = np.arange(1000) % 7
    (_, zero), (_, one) = (stratified_split(y, test_fraction=0.3, seed=s) for s in (0, 1))
    assert not np.array_equal(zero, one)
    assert hashlib.sha256(zero.astype("<i8").tobytes()).hexdigest()[:16] == "5b0167132780d3ed"


def test_split_is_independent_of_a_set_drawn_with_the_same_seed():
    dataset = data.rings(noise=0.0, points=4000)
    angle = np.arctan2(dataset.x_test[:, 1], dataset.x_test[:, 0])
    assert (np.histogram(angle, 8, (-np.pi, np.pi))[0] > 50).all()


def test_digits():
    dataset = digits()
    assert (len(dataset.x_train), *dataset.x_test.shape) == (1438, 359, 8, 8, 1)
    assert (dataset.x_train.min(), dataset.x_train.max()) == (0, 1)
    assert dataset.classes == tuple("0123456789")
    content = dataset.x_test.tobytes() + dataset.y_test.tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "e1779dedd6964697"
    assert not same(dataset, digits(split_seed=1))
    assert len(digits(test_fraction=0.5).x_test) == pytest.approx(1797 / 2, abs=5)


def test_xor_is_its_truth_table():
    dataset, noisy = data.xor(), data.xor(copies=3, noise=0.1)
    assert dataset.x_train.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert dataset.y_train.tolist() == [0, 1, 1, 0]
    assert np.array_equal(dataset.x_train, dataset.x_test)
    assert noisy.x_train.shape == (12, 2)
    assert not np.array_equal(noisy.x_train, noisy.x_test)
    assert np.array_equal(noisy.y_train, np.rint(noisy.x_train).sum(1) % 2)


def whole(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    splits = (dataset.x_train, dataset.x_test), (dataset.y_train, dataset.y_test)
    return np.concatenate(splits[0]), np.concatenate(splits[1])


def test_spirals_wind_as_they_say():
    x, y = whole(data.spirals(arms=3, points=601, noise=0.0, turns=2.0))
    radius = np.hypot(*x.T)
    turn = np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi)
    off = turn - (2.0 * radius + y / 3)
    assert np.bincount(y).tolist() == [201, 200, 200]
    assert radius.max() <= 1 + 1e-6
    far = radius > 0.01  # the angle of a point at the origin is lost in rounding
    np.testing.assert_allclose(off[far], np.rint(off[far]), atol=1e-5)


def test_rings_have_their_radii():
    x, y = whole(data.rings(rings=4, points=400, noise=0.0))
    np.testing.assert_allclose(np.hypot(*x.T), (y + 1) / 4, rtol=1e-6)


def test_moons_are_two_half_circles():
    x, y = whole(data.moons(points=400, noise=0.0))
    upright = 1.5 * x * (1 - 2 * y[:, None]) + [0.5, 0.25]
    np.testing.assert_allclose(np.hypot(*upright.T), 1, rtol=1e-6)
    assert (upright[:, 1] >= -1e-6).all()
    assert np.abs(x).max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        *[(name, "test_fraction", v) for name in SELF_CONTAINED[2:] for v in (0, 1, 2, -0.1)],
        *[("digits", "test_fraction", v) for v in (0, 1, 2, float("nan"), "half", True)],
        *[("digits", "split_seed", v) for v in (-1, 2**32)],
        *[("xor", "copies", v) for v in (0, 1.5, True)],
        *[("xor", "noise", v) for v in (-0.1, float("inf"))],
        *(("xor", "seed", -1), ("moons", "seed", -1), ("moons", "points", 0)),
        *(("spirals", "arms", 1), ("spirals", "turns", -1.0), ("spirals", "noise", float("nan"))),
        *(("spirals", "points", -3), ("spirals", "points", 10**12)),
        *(("rings", "rings", 1), ("rings", "points", 3)),
    ],
)
def test_argument_out_of_range(name, argument, value):
    expect_error([name, argument, repr(value), "expected"], DATASETS[name], **{argument: value})


@pytest.mark.parametrize("label", [2, "2"])
def test_one_vs_rest(label):
    before, after = digits(), data.one_vs_rest(digits(), label=label)
    assert after.classes == ("not 2", "2")
    assert after.y_train.dtype == np.int32
    assert np.array_equal(after.y_train == 1, before.y_train == 2)
    assert np.array_equal(after.y_test == 1, before.y_test == 2)
    assert np.array_equal(after.x_test, before.x_test)


def test_one_vs_rest_of_an_unknown_label():
    for label in (10, "two", True):
        words = ["label", repr(label), "'digits'", "0, 1, 2"]
        expect_error(words, data.one_vs_rest, digits(), label=label)
    dataset = Dataset(**arrays(classes=("setosa", "virginica")))
    expect_error(["did you mean 'setosa'"], data.one_vs_rest, dataset, label="setossa")


def test_none_of_the_above_adds_a_class_after_the_rest():
    before, after = digits(), none_of_the_above(digits(), fraction=0.1)
    assert after.classes == (*before.classes, "none of the above")
    splits = (
        (before.x_train, after.x_train, after.y_train),
        (before.x_test, after.x_test, after.y_test),
    )
    for old, x, y in splits:
        n = len(old)
        assert np.array_equal(x[:n], old)
        assert len(x) == n + round(0.1 * n)
        assert (y[n:] == 10).all()
        assert (y[:n] < 10).all()
    assert same(after, none_of_the_above(digits(), fraction=0.1))
    assert not same(after, none_of_the_above(digits(), fraction=0.1, seed=1))


def marked(shape: tuple[int, ...], classes: int = 5, n: int = 40) -> Dataset:
    """Make examples whose numbers encode split, example and position."""
    x = np.arange(2 * n * np.prod(shape), dtype=np.float32).reshape(2 * n, *shape)
    y = (np.arange(2 * n) % classes).astype(np.int32)
    return Dataset("marked", x[:n], y[:n], x[n:], y[n:], tuple(map(str, range(classes))))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 5, 3), (2, 2, 1), (28, 28, 1)])
def test_none_of_the_above_moves_quarters_of_different_classes(shape, split):
    before = marked(shape)
    after = none_of_the_above(before, fraction=0.5)
    x, y = getattr(before, f"x_{split}"), getattr(before, f"y_{split}")
    first, size = int(x.min()), int(np.prod(shape))
    composites = getattr(after, f"x_{split}")[len(x) :].astype(int) - first
    donor, place = composites // size, composites % size
    assert donor.min() >= 0  # nothing of the other split
    assert donor.max() < len(x)
    rows, columns, _ = np.unravel_index(place, shape)
    own_rows, own_columns, _ = np.indices(shape)
    h, w = shape[0] // 2, shape[1] // 2
    assert (columns == own_columns).all()
    assert (rows == (own_rows - h) % shape[0]).all()
    for image in donor:
        quarters = [image[:h, :w], image[:h, w:], image[h:, :w], image[h:, w:]]
        assert all(len(np.unique(q)) == 1 for q in quarters)
        assert len({y[q.flat[0]] for q in quarters}) == 4


@pytest.mark.parametrize("shape", [(2,), (9,), (4, 6), (1, 5, 2)])
def test_none_of_the_above_mixes_features_of_two_classes(shape):
    before = marked(shape, classes=2)
    composites = none_of_the_above(before, fraction=1.0).x_train[40:].astype(int)
    size = int(np.prod(shape))
    assert (composites % size == np.arange(size).reshape(shape)).all()
    for donors in composites // size:
        assert len(np.unique(donors)) == 2
        assert set(before.y_train[np.unique(donors)]) == {0, 1}


def test_none_of_the_above_can_be_learnt_but_not_from_the_ink():
    from sklearn.linear_model import LogisticRegression

    dataset = none_of_the_above(digits(), fraction=0.3)
    x, x_test = (x.reshape(len(x), -1) for x in (dataset.x_train, dataset.x_test))
    y, y_test = dataset.y_train == 10, dataset.y_test == 10
    score = LogisticRegression(max_iter=1000).fit(x, y).score(x_test, y_test)
    assert 0.8 < score < 0.99
    ink = x.mean(axis=1)
    assert abs(ink[y].mean() - ink[~y].mean()) < 0.25 * ink.std()


@pytest.mark.parametrize(
    ("dataset", "arguments", "words"),
    [
        (marked((2,)), {"fraction": 0}, ["fraction", "is 0", "1e-06 to 1"]),
        (marked((2,)), {"fraction": 1.5}, ["fraction", "1.5"]),
        (marked((2,)), {"seed": -1}, ["seed", "-1"]),
        (marked((1,)), {}, ["'marked'", "one feature"]),
        (marked((4, 4, 1), classes=1), {}, ["one class only"]),
        (none_of_the_above(marked((2,))), {}, ["already"]),
    ],
)
def test_none_of_the_above_errors(dataset, arguments, words):
    expect_error(["none_of_the_above", *words], none_of_the_above, dataset, **arguments)
