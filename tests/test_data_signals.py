"""Signals: the order of the word and of its reverse, and their places."""

import numpy as np
import pytest

from fnn.data import keyword

from .test_data import expect_error, whole


def places(x: np.ndarray) -> np.ndarray:
    """Return where the word begins in signals (n, length, 1) without noise."""
    return (x[..., 0] != 0).argmax(axis=1)


def test_shapes_and_classes():
    dataset = keyword(points=501, length=50, word=10)
    other = keyword(points=501, length=50, word=10, seed=1)
    assert (len(dataset.x_train), *dataset.x_test.shape) == (401, 100, 50, 1)
    assert dataset.classes == ("none", "keyword")
    assert np.bincount(whole(dataset)[1]).tolist() == [251, 250]
    assert not np.array_equal(dataset.x_test, other.x_test)


def test_the_word_lies_within_its_part_and_reaches_all_of_it():
    dataset = keyword(points=1000, length=40, word=8, noise=0.0, test_part=(0.5, 1.0))
    assert set(places(dataset.x_train)) == set(range(6, 13))
    assert set(places(dataset.x_test)) == set(range(20, 33))
    filled = keyword(length=16, word=16, noise=0.0, train_part=[0, 1], test_part=[0, 1])
    assert set(places(filled.x_train)) == {0}
    assert set(places(keyword(noise=0.0, test_part=(0.84, 1.0)).x_test)) == {84}  # as long as it


def test_word_and_reverse_differ_only_in_the_order_of_time():
    x, y = whole(keyword(noise=0.0))
    signals = x[..., 0]
    for same in (np.sort(signals), np.abs(np.fft.rfft(signals))):
        np.testing.assert_allclose(same, same[:1].repeat(len(x), 0), atol=1e-5)
    word, reverse = (signals[i, places(x)[i] :][:16] for i in (y.argmax(), y.argmin()))
    np.testing.assert_array_equal(word, reverse[::-1])
    assert np.correlate(word, reverse, "full").max() < 0.8 * (word @ word)
    crossings = np.flatnonzero(np.diff(np.sign(word)))
    assert (np.diff(crossings) <= np.diff(crossings)[0]).all()  # it rises


def test_noise_has_its_deviation():
    noisy, clean = (keyword(noise=noise).x_train for noise in (0.5, 0.0))
    assert (noisy - clean).std() == pytest.approx(0.5, rel=0.01)


def test_a_scan_hears_the_word_anywhere_and_a_plain_network_only_where_it_was():
    from sklearn.neural_network import MLPClassifier

    dataset, elsewhere = keyword(), (0.15, 0.5)
    clean = keyword(noise=0.0).x_train[..., 0]
    word = clean[dataset.y_train.argmax()]
    word = word[word != 0]
    windows = np.lib.stride_tricks.sliding_window_view(dataset.x_test[..., 0], 16, axis=1)
    heard = (windows @ word).max(axis=1) > (windows @ word[::-1]).max(axis=1)
    assert (heard == dataset.y_test).mean() > 0.99
    plain = MLPClassifier(64, max_iter=20, random_state=0)
    with pytest.warns(match="Maximum iterations"):
        plain.fit(dataset.x_train[..., 0], dataset.y_train)
    there = keyword(seed=1, test_part=elsewhere)
    assert plain.score(there.x_test[..., 0], there.y_test) > 0.9
    assert plain.score(dataset.x_test[..., 0], dataset.y_test) < 0.6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *(({"points": n}, [f"points is {n}", "4 to 500000"]) for n in (3, 10**12)),
        ({"points": 10**6, "length": 60}, ["points", "4 to 833333"]),
        *(({"length": n}, [f"length is {n}", "8 to 100000"]) for n in (7, 10**6)),
        *(({"word": n}, [f"word is {n}", "8 to 100"]) for n in (7, 101)),
        ({"word": 8.0}, ["word is 8.0", "an integer"]),
        *(({"noise": x}, [f"noise is {x}"]) for x in (-1, float("nan"))),
        ({"seed": -1}, ["seed is -1"]),
        ({"test_fraction": 1}, ["test_fraction is 1"]),
        *(({"train_part": x}, [f"train_part is {x}", "two numbers"]) for x in ((0.5,), 0.5)),
        ({"test_part": (0, 1.5)}, ["test_part is 1.5", "0 to 1"]),
        ({"test_part": (0.0, "end")}, ["test_part is 'end'"]),
        ({"test_part": (0.9, 1)}, ["test_part is (0.9, 1)", "90 to 100 of 100", "a word of 16"]),
        ({"train_part": (1, 0)}, ["train_part is (1, 0)", "100 to 0", "widen"]),
    ],
)
def test_argument_out_of_range(arguments, words):
    expect_error(["keyword", *words], keyword, **arguments)
