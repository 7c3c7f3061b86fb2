"""Datasets, splits, transforms, tables and archives; the IDX reader is in test_data_idx.py."""

import ast
import hashlib
import inspect
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fnn.data import (
    DATASETS,
    TRANSFORMS,
    Dataset,
    csv,
    digits,
    moons,
    none_of_the_above,
    npz,
    one_vs_rest,
    rings,
    spirals,
    stratified_split,
    xor,
)
from fnn.errors import DataError

SELF_CONTAINED = ("digits", "xor", "spirals", "rings", "moons")
IN_ONE_FOLDER = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def same(a: Dataset, b: Dataset) -> bool:
    arrays = ("x_train", "y_train", "x_test", "y_test")
    return a.classes == b.classes and all(
        np.array_equal(getattr(a, k), getattr(b, k)) for k in arrays
    )


def expect_error(words, call, *args, **kwargs) -> str:
    """Call, and check that the DataError holds every word."""
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    return message


# The tables


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


def test_import_needs_neither_jax_nor_sklearn():
    root = Path(__file__).parents[1] / "fnn" / "data"
    imported = set()
    for file in root.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
    assert "jax" not in imported
    code = "import sys, fnn.data; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root.parents[1]).returncode == 0


# Dataset


def arrays(**changes):
    good = {
        "name": "toy",
        "x_train": np.zeros((4, 2), np.float32),
        "y_train": np.array([0, 1, 0, 1], np.int32),
        "x_test": np.zeros((2, 2), np.float32),
        "y_test": np.array([0, 1], np.int32),
        "classes": ("a", "b"),
    }
    return good | changes


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
def test_dataset_names_what_is_wrong(changes, words):
    expect_error(["'toy'", *words], Dataset, **arrays(**changes))


def test_dataset_shape_and_identity():
    dataset = Dataset(**arrays())
    assert dataset.x_shape == (2,)
    assert dataset == dataset
    assert dataset != Dataset(**arrays())


# The split


@given(
    y=st.lists(st.integers(0, 5), min_size=2, max_size=80),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_split_is_a_stratified_partition(y, fraction, seed):
    y = np.array(y)
    sizes = np.bincount(y)
    if sizes.max() < 2:
        expect_error(["no test example"], stratified_split, y, test_fraction=fraction, seed=seed)
        return
    train, test = stratified_split(y, test_fraction=fraction, seed=seed)
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
    dataset = rings(noise=0.0, points=4000)
    angle = np.arctan2(dataset.x_test[:, 1], dataset.x_test[:, 0])
    assert (np.histogram(angle, 8, (-np.pi, np.pi))[0] > 50).all()


# Bundled and synthetic sets


def test_digits():
    dataset = digits()
    assert dataset.x_train.shape == (1438, 8, 8, 1)
    assert dataset.x_test.shape == (359, 8, 8, 1)
    assert dataset.x_train.min() == 0
    assert dataset.x_train.max() == 1
    assert dataset.classes == tuple("0123456789")
    content = dataset.x_test.tobytes() + dataset.y_test.tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "e1779dedd6964697"
    assert not same(dataset, digits(split_seed=1))
    assert len(digits(test_fraction=0.5).x_test) == pytest.approx(1797 / 2, abs=5)


def test_xor_is_its_truth_table():
    dataset = xor()
    assert dataset.x_train.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert dataset.y_train.tolist() == [0, 1, 1, 0]
    assert np.array_equal(dataset.x_train, dataset.x_test)
    noisy = xor(copies=3, noise=0.1)
    assert noisy.x_train.shape == (12, 2)
    assert not np.array_equal(noisy.x_train, noisy.x_test)
    assert np.array_equal(noisy.y_train, np.rint(noisy.x_train).sum(1) % 2)


def whole(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate([dataset.x_train, dataset.x_test]),
        np.concatenate([dataset.y_train, dataset.y_test]),
    )


def test_spirals_wind_as_they_say():
    x, y = whole(spirals(arms=3, points=601, noise=0.0, turns=2.0))
    radius = np.hypot(*x.T)
    turn = np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi)
    off = turn - (2.0 * radius + y / 3)
    assert np.bincount(y).tolist() == [201, 200, 200]
    assert radius.max() <= 1 + 1e-6
    far = radius > 0.01  # the angle of a point at the origin is lost in rounding
    np.testing.assert_allclose(off[far], np.rint(off[far]), atol=1e-5)


def test_rings_have_their_radii():
    x, y = whole(rings(rings=4, points=400, noise=0.0))
    np.testing.assert_allclose(np.hypot(*x.T), (y + 1) / 4, rtol=1e-6)


def test_moons_are_two_half_circles():
    x, y = whole(moons(points=400, noise=0.0))
    upright = 1.5 * x * (1 - 2 * y[:, None]) + [0.5, 0.25]
    np.testing.assert_allclose(np.hypot(*upright.T), 1, rtol=1e-6)
    assert (upright[:, 1] >= -1e-6).all()
    assert np.abs(x).max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        *[(name, "test_fraction", v) for name in SELF_CONTAINED[2:] for v in (0, 1, 2, -0.1)],
        *[("digits", "test_fraction", v) for v in (0, 1, 2, float("nan"), "half", True)],
        ("digits", "split_seed", -1),
        ("digits", "split_seed", 2**32),
        ("xor", "copies", 0),
        ("xor", "copies", 1.5),
        ("xor", "copies", True),
        ("xor", "noise", -0.1),
        ("xor", "noise", float("inf")),
        ("xor", "seed", -1),
        ("spirals", "arms", 1),
        ("spirals", "points", -3),
        ("spirals", "points", 10**12),
        ("spirals", "turns", -1.0),
        ("spirals", "noise", float("nan")),
        ("rings", "rings", 1),
        ("rings", "points", 3),
        ("moons", "points", 0),
        ("moons", "seed", -1),
    ],
)
def test_argument_out_of_range(name, argument, value):
    expect_error([name, argument, repr(value), "expected"], DATASETS[name], **{argument: value})


# Transforms


@pytest.mark.parametrize("label", [2, "2"])
def test_one_vs_rest(label):
    before, after = digits(), one_vs_rest(digits(), label=label)
    assert after.classes == ("not 2", "2")
    assert after.y_train.dtype == np.int32
    assert np.array_equal(after.y_train == 1, before.y_train == 2)
    assert np.array_equal(after.y_test == 1, before.y_test == 2)
    assert np.array_equal(after.x_test, before.x_test)


@pytest.mark.parametrize("label", [10, "two", True])
def test_one_vs_rest_unknown_label(label):
    expect_error(["label", repr(label), "'digits'", "0, 1, 2"], one_vs_rest, digits(), label=label)


def test_one_vs_rest_suggests():
    dataset = Dataset(**arrays(classes=("setosa", "virginica")))
    expect_error(["did you mean 'setosa'"], one_vs_rest, dataset, label="setossa")


def test_none_of_the_above_adds_a_class_after_the_rest():
    before, after = digits(), none_of_the_above(digits(), fraction=0.1)
    assert after.classes == (*before.classes, "none of the above")
    for split in ("train", "test"):
        x, y = getattr(after, f"x_{split}"), getattr(after, f"y_{split}")
        n = len(getattr(before, f"x_{split}"))
        assert np.array_equal(x[:n], getattr(before, f"x_{split}"))
        assert len(x) == n + round(0.1 * n)
        assert (y[n:] == 10).all()
        assert (y[:n] < 10).all()
    assert same(after, none_of_the_above(digits(), fraction=0.1))
    assert not same(after, none_of_the_above(digits(), fraction=0.1, seed=1))


def marked(shape: tuple[int, ...], classes: int = 5, n: int = 40) -> Dataset:
    """Make examples whose every number tells split, example and position apart."""
    size = int(np.prod(shape))
    x = np.arange(2 * n * size, dtype=np.float32).reshape(2 * n, *shape)
    y = (np.arange(2 * n) % classes).astype(np.int32)
    names = tuple(str(k) for k in range(classes))
    return Dataset("marked", x[:n], y[:n], x[n:], y[n:], names)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 5, 3), (2, 2, 1), (28, 28, 1)])
def test_none_of_the_above_moves_quarters_of_different_classes(shape, split):
    before = marked(shape)
    after = none_of_the_above(before, fraction=0.5)
    x, y = getattr(before, f"x_{split}"), getattr(before, f"y_{split}")
    first, size = int(x.min()), int(np.prod(shape))
    made = getattr(after, f"x_{split}")[len(x) :].astype(int) - first
    donor, place = made // size, made % size
    assert donor.min() >= 0  # nothing of the other split
    assert donor.max() < len(x)
    rows, columns = place // (shape[1] * shape[2]), place // shape[2] % shape[1]
    own_rows, own_columns = np.indices(shape)[:2]
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
    made = none_of_the_above(before, fraction=1.0).x_train[40:].astype(int)
    size = int(np.prod(shape))
    assert (made % size == np.arange(size).reshape(shape)).all()
    for donors in made // size:
        assert len(np.unique(donors)) == 2
        assert set(before.y_train[np.unique(donors)]) == {0, 1}


def test_none_of_the_above_can_be_learnt_but_not_from_the_ink():
    from sklearn.linear_model import LogisticRegression

    dataset = none_of_the_above(digits(), fraction=0.3)
    x, y = dataset.x_train.reshape(len(dataset.x_train), -1), dataset.y_train == 10
    x_test, y_test = dataset.x_test.reshape(len(dataset.x_test), -1), dataset.y_test == 10
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


# CSV


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file and return its path."""

    def write(content: str | bytes, name: str = "table.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


PLAIN = "1,2,0\n3,4,1\n5,6,0\n7,8,1\n"
NAMED = "width,height,kind\n1,2,cat\n3,4,dog\n5,6,cat\n7,8,dog\n"


def rows_of(dataset: Dataset) -> list[tuple]:
    x, y = whole(dataset)
    return sorted((*row, dataset.classes[k]) for row, k in zip(x.tolist(), y, strict=True))


NUMBERS = [(1, 2, "0"), (3, 4, "1"), (5, 6, "0"), (7, 8, "1")]
WORDS = [(1, 2, "cat"), (3, 4, "dog"), (5, 6, "cat"), (7, 8, "dog")]


@pytest.mark.parametrize(
    ("text", "arguments", "rows"),
    [
        (PLAIN, {}, NUMBERS),
        (PLAIN, {"label": 2}, NUMBERS),
        (PLAIN, {"header": False}, NUMBERS),
        ("a,b,c\n" + PLAIN, {}, NUMBERS),
        ("a,b,c\n" + PLAIN, {"label": "c"}, NUMBERS),
        ("0,1,label\n" + PLAIN, {}, NUMBERS),  # pandas numbers columns without names
        ("9,9,9\n" + PLAIN, {"header": True}, NUMBERS),
        (",b,c\n" + PLAIN, {}, NUMBERS),
        (NAMED, {}, WORDS),
        (NAMED, {"label": "kind"}, WORDS),
        (NAMED.split("\n", 1)[1], {}, WORDS),
        (NAMED.replace(",", ";"), {"delimiter": ";"}, WORDS),
        (NAMED.replace(",", "\t"), {"delimiter": "\t"}, WORDS),
        (NAMED.replace(",", " "), {"delimiter": " "}, WORDS),
        (NAMED.replace(",", " , "), {}, WORDS),
        (NAMED.replace("\n", "\r\n"), {}, WORDS),
        (NAMED.replace("cat", '"cat"'), {}, WORDS),
        ("\ufeff" + NAMED + "\n,,\n\n", {}, WORDS),
        (NAMED.encode(), {"scale": 0.5}, [(a / 2, b / 2, c) for a, b, c in WORDS]),
        ("0,1,2\n1,3,4\n0,5,6\n1,7,8", {"label": 0}, NUMBERS),
        ("1e0,2.0,0.0\n3,4,1.0\n+5,6,0e0\n7,8,1.", {}, NUMBERS),
    ],
)
def test_csv_reads(write, text, arguments, rows):
    dataset = csv(path=write(text), **arguments)
    assert rows_of(dataset) == rows
    assert dataset.name == "table"


def test_csv_orders_classes_as_numbers_or_as_words(write):
    numbers = "".join(f"{i},{label}\n" for i, label in enumerate([10, 2, -1] * 2))
    assert csv(path=write(numbers)).classes == ("-1", "2", "10")
    words = "".join(f"{i},{label}\n" for i, label in enumerate(["b", "10", "2"] * 2))
    assert csv(path=write(words)).classes == ("10", "2", "b")


def test_csv_shape_makes_images(write):
    text = "".join(f"{','.join(str(10 * i + k) for k in range(6))},{i % 2}\n" for i in range(8))
    dataset = csv(path=write(text), shape=(3, 2, 1))
    assert dataset.x_shape == (3, 2, 1)
    assert (np.diff(dataset.x_train.reshape(-1, 6)) == 1).all()


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("", {}, ["empty", "one example a row"]),
        ("\n\n,,\n", {}, ["empty"]),
        ("a,b,c\n", {}, ["header only"]),
        ("1,2,0\n3,x,1\n", {}, ["line 2", "column 2", "'x'", "not a number"]),
        ("1,2,0\n3,,1\n", {}, ["line 2", "column 2", "''"]),
        ("a,b,c\n1,2,0\n\n3,x,1\n", {}, ["line 4", "column 2 ('b')", "'x'"]),
        ("1,x,0\n3,4,1\n", {}, ["line 1", "header: true"]),
        ("1,2,0\n3,4\n", {}, ["line 2", "2 columns", "expected 3"]),
        ("1,2,0\n3,4,5,6\n", {}, ["line 2", "4 columns", "expected 3"]),
        ("1,2,0\n3,nan,1\n", {}, ["line 2", "column 2", "nan", "finite"]),
        ("1,2,0\n-inf,1,1\n", {}, ["line 2", "column 1", "-inf"]),
        ("1,2,0\n1e39,1,1\n", {}, ["line 2", "column 1", "1e39"]),
        ("1,2,0\n1e30,1,1\n", {"scale": 1e20}, ["line 2", "1e30", "scale 1e+20"]),
        ("1;2;0\n", {}, ["line 1", "one column", "delimiter ','"]),
        ("1,2,\n3,4,1\n", {}, ["line 1", "column 3", "label is missing"]),
        ("1,2,0.5\n3,4,1\n", {}, ["line 1", "label is 0.5", "integer or a word"]),
        ("1,2,0\n3,4,inf\n", {}, ["line 2", "label is inf"]),
        ("1,2,0\n3,4,1\n", {}, ["no test example", "2 classes"]),
        (PLAIN, {"label": 3}, ["label is 3", "-3 to 2"]),
        (PLAIN, {"label": -4}, ["label is -4", "-3 to 2"]),
        (PLAIN, {"label": "kind", "header": False}, ["label is 'kind'", "header is false"]),
        (NAMED, {"label": "knd"}, ["'knd'", "width, height", "did you mean 'kind'"]),
        (NAMED.replace("height", "kind"), {"label": "kind"}, ["2 columns", "'kind'"]),
        ("0,1,kind\n1,2,cat\n3,4,cat\n", {}, ["line 1", "'kind'", "header: true or false"]),
        (PLAIN, {"shape": (3,)}, ["shape is (3,)", "2 features"]),
        (PLAIN, {"shape": (-1, -2)}, ["shape is (-1, -2)", "positive"]),
        (PLAIN, {"shape": ()}, ["shape is ()"]),
        (PLAIN, {"delimiter": ""}, ["delimiter is ''"]),
        (PLAIN, {"delimiter": "\\t"}, ["delimiter", "double quotes"]),
        (PLAIN, {"delimiter": "\n"}, ["delimiter"]),
        (PLAIN, {"delimiter": "1"}, ["delimiter is '1'"]),
        (PLAIN, {"scale": float("nan")}, ["scale is nan"]),
        (PLAIN, {"scale": 0}, ["scale is 0"]),
        (PLAIN, {"test_fraction": 1}, ["test_fraction is 1"]),
        (PLAIN, {"split_seed": -1}, ["split_seed is -1"]),
        ('1,2,0\n3,"4,1\n', {}, ["line", "quote"]),
        ('1,2,0\n3,"4"4,1\n', {}, ["line 2", "quote"]),
        (b"1,2,0\n3,\xff,1\n", {}, ["0xff", "UTF-8"]),
        (f"1,2,0\n{'9' * 200_000},1,1\n", {}, ["line 2", "field"]),
    ],
)
def test_csv_errors(write, text, arguments, words):
    expect_error(words, csv, path=write(text), **arguments)


def test_csv_error_names_the_absolute_path(write, tmp_path, monkeypatch):
    write("1,x,0\n")
    monkeypatch.chdir(tmp_path)
    expect_error([str(tmp_path / "table.csv")], csv, path="table.csv")


def test_files_that_are_none(write, tmp_path):
    write(PLAIN)
    (tmp_path / "loop").symlink_to("loop")
    for path, words in [
        ("tabel.csv", ["no such file", "did you mean 'table.csv'"]),
        ("nowhere/table.csv", ["no such file", "folder", "does not exist"]),
        ("table.csv/x", ["no such file"]),
        (".", ["is a folder", "a CSV file"]),
        ("loop", ["cannot be read", "symbolic links"]),
        ("a\0b", ["cannot be read"]),
    ]:
        expect_error(words, csv, path=f"{tmp_path}/{path}")
    expect_error(["device"], csv, path="/dev/null")


def test_folder_that_cannot_be_listed(write, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", refuse)
    expect_error(["no such file", "check the path"], csv, path=write(PLAIN) + "x")


def test_file_the_system_will_not_open(write, monkeypatch):
    path = write(PLAIN)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    expect_error([path, "cannot be read", "Permission denied"], csv, path=path)


CELLS = st.sampled_from(["0", "1", "-2.5", "1e9", "nan", "inf", "", "x", '"', '"a"', " 3 ", "1_0"])
TABLES = st.lists(st.lists(CELLS, min_size=1, max_size=4).map(",".join), max_size=8).map("\n".join)


@IN_ONE_FOLDER
@given(
    content=TABLES | st.text(max_size=60) | st.binary(max_size=60),
    label=st.sampled_from([-1, 0, "x"]),
)
def test_any_csv_is_a_dataset_or_a_data_error(write, content, label):
    with suppress(DataError):
        assert isinstance(csv(path=write(content), label=label), Dataset)


# NPZ


@pytest.fixture
def save(tmp_path):
    """Save arrays and return the file's path."""

    def save(**named) -> str:
        path = tmp_path / "arrays.npz"
        np.savez(path, **named)
        return str(path)

    return save


X, Y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
def test_npz_with_its_own_split(tmp_path, savez):
    path = str(tmp_path / "own.npz")
    savez(path, x_train=X, y_train=Y, x_test=X[:2] + 0.5, y_test=[0, 2], comment="not read")
    dataset = npz(path=path)
    assert dataset.name == "own"
    assert dataset.classes == ("0", "1", "2")
    assert np.array_equal(dataset.x_train, X)
    assert np.array_equal(dataset.x_test, X[:2] + 0.5)
    assert dataset.y_test.tolist() == [0, 2]


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", "<i8", ">i2", "u2", "?"])
def test_npz_is_split_and_converted(save, dtype):
    values = X.astype(dtype)
    dataset = npz(path=save(x=values, y=Y.astype("u1")), test_fraction=0.34)
    assert len(dataset.x_test) == 2
    x, _ = whole(dataset)
    assert sorted(x.tolist()) == sorted(values.astype(float).tolist())


def test_npz_pixels(save):
    pixels = np.full((6, 4, 3), 51, np.uint8)
    dataset = npz(path=save(x=pixels, y=Y))
    assert dataset.x_shape == (4, 3, 1)
    assert (dataset.x_train == np.float32(0.2)).all()
    assert npz(path=save(x=pixels.astype(float), y=Y)).x_shape == (4, 3)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"x": X}, ["holds x;", "x_train, y_train, x_test, y_test", "x, y"]),
        ({}, ["holds nothing"]),
        ({"x": np.array([[1], [2, 3]], object), "y": Y[:2]}, ["x is an object array", "pickle"]),
        ({"x": X.astype(str), "y": Y}, ["x is <U32", "real numbers"]),
        ({"x": X + 1j, "y": Y}, ["x is complex128"]),
        ({"x": X[:, 0], "y": Y}, ["x has shape (6,)", "x[:, None]"]),
        ({"x": X[:0], "y": Y[:0]}, ["x has shape (0, 2)"]),
        ({"x": X, "y": Y[:, None]}, ["y has shape (6, 1)", "argmax"]),
        ({"x": X, "y": Y.astype(float)}, ["y is float64", "integers"]),
        ({"x": X, "y": Y - 1}, ["y: the label at index [0] is -1", "0 to 65535"]),
        ({"x": X, "y": Y.astype("u8") << 40}, ["index [1]", str(1 << 40)]),
        ({"x": X, "y": Y[:5]}, ["6 examples", "5 labels"]),
        ({"x": np.where(X == 5, np.inf, X), "y": Y}, ["x: the value at index [2, 1] is inf"]),
        ({"x": X * 1e300, "y": Y}, ["index [0, 1]", "1e+300"]),
        ({"x": X, "y": np.arange(6)}, ["no test example"]),
    ],
)
def test_npz_errors(save, named, words):
    expect_error(["arrays", *words], npz, path=save(**named))


def test_npz_is_no_archive(write):
    expect_error(["damaged", "not a zip file"], npz, path=write("hello", "text.npz"))
    expect_error(["no such file"], npz, path="/nowhere.npz")
    expect_error(["test_fraction is 0"], npz, path="/nowhere.npz", test_fraction=0)


def header(shape: str, dtype: str = "'<f8'", version: bytes = b"\x01\0") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (header("(1099511627776, 1024)"), ["x is damaged", "1099511627776", "holds 0"]),
        (header("(6, 2)") + bytes(90), ["x is damaged", "96 bytes", "holds 90"]),
        (header("(6, 2)") + bytes(97), ["x is damaged", "96 bytes", "holds 97"]),
        (header("(6, -2)") + bytes(96), ["damaged"]),
        (header("(6, 2)", version=b"\x09\0") + bytes(96), ["damaged"]),
        (header("(6, 2)", dtype="[('a', '<f8')]") + bytes(96), ["real numbers"]),
        (header("(((((((((", dtype="'"), ["damaged"]),
        (b"", ["damaged"]),
    ],
)
def test_npz_header_is_not_believed(tmp_path, save, x, words):
    path = str(tmp_path / "false.npz")
    with zipfile.ZipFile(save(y=Y)) as good, zipfile.ZipFile(path, "w") as archive:
        archive.writestr("y.npy", good.read("y.npy"))
        archive.writestr("x.npy", x)
    expect_error([path, *words], npz, path=path)


def test_npz_of_another_packing(tmp_path):
    path = str(tmp_path / "packed.npz")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", header("(6, 2)") + bytes(96))
        archive.writestr("y.npy", header("(6,)", "'<i8'") + bytes(48))
    expect_error(["x is packed by method 12"], npz, path=path)


@IN_ONE_FOLDER
@given(data=st.data())
def test_any_mutated_npz_is_a_dataset_or_a_data_error(save, data):
    path = Path(save(x=X, y=Y))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(DataError):
        assert isinstance(npz(path=str(path)), Dataset)
