"""CSV and NPZ files: reading, and the error of each damaged file."""

import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn.data import Dataset, csv, npz
from fnn.errors import DataError

from .test_data import IN_ONE_FOLDER, expect_error, fuzz, whole
from .test_data import write as write

PLAIN = "1,2,0\n3,4,1\n5,6,0\n7,8,1\n"
NAMED = "width,height,kind\n1,2,cat\n3,4,dog\n5,6,cat\n7,8,dog\n"


def rows_of(dataset: Dataset) -> list[tuple]:
    x, y = whole(dataset)
    return sorted((*row, dataset.classes[k]) for row, k in zip(x.tolist(), y, strict=True))


QUOTED = ("cat", '"cat"')
NUMBERS = [(1, 2, "0"), (3, 4, "1"), (5, 6, "0"), (7, 8, "1")]
WORDS = [(1, 2, "cat"), (3, 4, "dog"), (5, 6, "cat"), (7, 8, "dog")]


@pytest.mark.parametrize(
    ("text", "arguments", "rows"),
    [
        *((PLAIN, arguments, NUMBERS) for arguments in ({}, {"label": 2}, {"header": False})),
        *(("a,b,c\n" + PLAIN, arguments, NUMBERS) for arguments in ({}, {"label": "c"})),
        ("0,1,label\n" + PLAIN, {}, NUMBERS),  # pandas numbers columns without names
        ("9,9,9\n" + PLAIN, {"header": True}, NUMBERS),
        (",b,c\n" + PLAIN, {}, NUMBERS),
        (NAMED, {"label": "kind"}, WORDS),
        *((NAMED.replace(",", sign), {"delimiter": sign}, WORDS) for sign in "; \t"),
        *((text, {}, WORDS) for text in (NAMED, NAMED.split("\n", 1)[1])),
        *((NAMED.replace(*pair), {}, WORDS) for pair in ((",", " , "), ("\n", "\r\n"), QUOTED)),
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
    for labels, classes in (([10, 2, -1], ("-1", "2", "10")), (["b", "10", "2"], ("10", "2", "b"))):
        rows = (f"{i},{label}\n" for i, label in enumerate(labels * 2))
        assert csv(path=write("".join(rows))).classes == classes


def test_csv_shape_makes_images(write):
    text = "".join(f"{','.join(str(10 * i + k) for k in range(6))},{i % 2}\n" for i in range(8))
    dataset = csv(path=write(text), shape=(3, 2, 1))
    assert dataset.x_shape == (3, 2, 1)
    assert (np.diff(dataset.x_train.reshape(-1, 6)) == 1).all()


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("", {}, ["empty", "one example per row"]),
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
        *((PLAIN, {"label": k}, [f"label is {k}", "-3 to 2"]) for k in (3, -4)),
        (PLAIN, {"label": "kind", "header": False}, ["label is 'kind'", "header is false"]),
        (NAMED, {"label": "knd"}, ["'knd'", "width, height", "did you mean 'kind'"]),
        (NAMED.replace("height", "kind"), {"label": "kind"}, ["2 columns", "'kind'"]),
        ("0,1,kind\n1,2,cat\n3,4,cat\n", {}, ["line 1", "'kind'", "header: true or false"]),
        (PLAIN, {"shape": (3,)}, ["shape is (3,)", "2 features"]),
        (PLAIN, {"shape": (-1, -2)}, ["shape is (-1, -2)", "positive"]),
        (PLAIN, {"shape": ()}, ["shape is ()"]),
        *((PLAIN, {"delimiter": sign}, [f"delimiter is {sign!r}"]) for sign in ("", "1", "\n")),
        (PLAIN, {"delimiter": "\\t"}, ["delimiter", "double quotes"]),
        *((PLAIN, {"scale": x}, [f"scale is {x}"]) for x in (float("nan"), 0)),
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


def test_files_that_are_none(write, tmp_path, monkeypatch):
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
    monkeypatch.chdir(tmp_path)
    write("1,x,0\n")
    expect_error([str(tmp_path / "table.csv")], csv, path="table.csv")


@pytest.mark.parametrize(
    ("function", "name", "words"),
    [
        ("os.listdir", "tabel.csv", ["no such file", "check the path"]),
        ("builtins.open", "table.csv", ["table.csv", "cannot be read", "Permission denied"]),
    ],
)
def test_files_that_the_system_refuses(write, tmp_path, monkeypatch, function, name, words):
    write(PLAIN)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(function, refuse)
    expect_error(words, csv, path=str(tmp_path / name))


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


@pytest.fixture
def save(tmp_path):
    """Save arrays and return the file's path."""
    path = str(tmp_path / "arrays.npz")

    def save(**named) -> str:
        np.savez(path, **named)
        return path

    return save


X, Y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
def test_npz_with_its_own_split(tmp_path, savez):
    path, x_test, y_test = str(tmp_path / "own.npz"), X[:2] + 0.5, [0, 2]
    savez(path, x_train=X, y_train=Y, x_test=x_test, y_test=y_test, comment="not read")
    dataset = npz(path=path)
    assert (dataset.name, dataset.classes) == ("own", ("0", "1", "2"))
    assert np.array_equal(dataset.x_train, X)
    assert np.array_equal(dataset.x_test, x_test)
    assert dataset.y_test.tolist() == y_test


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
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (header("(1099511627776, 1024)"), ["x is truncated", "1099511627776", "holds 0"]),
        (header("(6, 2)") + bytes(90), ["x is truncated", "96 bytes", "holds 90"]),
        (header("(6, 2)") + bytes(97), ["x is truncated", "96 bytes", "holds 97"]),
        (header("(6, -2)") + bytes(96), ["damaged"]),
        (header("(6, 2)", version=b"\x09\0") + bytes(96), ["damaged"]),
        (header("(6, 2)", dtype="[('a', '<f8')]") + bytes(96), ["real numbers"]),
        (header("(((((((((", dtype="'"), ["damaged"]),
        (b"", ["damaged"]),
    ],
)
def test_npz_header_is_not_believed(tmp_path, x, words):
    path = zipped(tmp_path / "false.npz", x)
    expect_error([path, *words], npz, path=path)


def zipped(path, x, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", header("(6,)", "'<i8'") + bytes(48))
    return str(path)


def test_npz_of_another_packing(tmp_path):
    path = zipped(tmp_path / "packed.npz", header("(6, 2)") + bytes(96), zipfile.ZIP_BZIP2)
    expect_error(["x is packed by method 12"], npz, path=path)


@IN_ONE_FOLDER
@given(data=st.data())
def test_any_mutated_npz_is_a_dataset_or_a_data_error(save, data):
    path = Path(save(x=X, y=Y))

    def read(content):
        path.write_bytes(content)
        return npz(path=str(path))

    fuzz(data, path.read_bytes(), read)
