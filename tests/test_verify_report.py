"""How a report reads: in a terminal, in pytest, as JSON, as a page with its error maps."""

import io
import json
import re
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from fnn.errors import FnnError
from fnn.verifier import command, maps, page, words
from fnn.verifier.defects import DEFECTS
from fnn.verifier.report import Finding, Picture, Report

FACTOR = Finding(
    *("factor", "gamma", "", (3,), 1.25, 0.625, 1e-11, "float64", "normal numbers"),
    call="layer_norm(f64[1,2], f64[2], f64[2])",
    why="2 times the right one",
)


FACTS = {
    "resolution": {"x": 6e-11, "gamma": None},
    "errors": {"bfloat16": 8e-3, "float64": 3e-16},
    "capabilities": {"jvp": False, "hessian": True, "shard_map": None},
    "cost": {"residuals": (128, 256), "temporary": (1024, 2150)},
    "notes": ["the mask is an integer"],
    "probes": 1038,
    "seconds": 0.82,
}


def picture(expected, got, tolerance=1e-9):
    expected, got = np.asarray(expected), np.asarray(got)
    return Picture(got, expected, np.broadcast_to(tolerance, expected.shape))


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def spoilt(shape, at, by=1.0):
    """Random numbers, and the same with one element changed."""
    expected = normal(shape)
    got = expected.copy()
    got[at] += by
    return expected, got


def report(*findings, name="layer_norm", **changes):
    return Report(name, list(findings), **(FACTS | changes))


def test_a_right_rule_in_a_terminal():
    assert str(report()).splitlines() == [
        f"layer_norm: ok{'1,038 probes, 0.8 s':>86}",
        "  resolution   x 6e-11   gamma always 0",
        "  error        bfloat16 8e-3   float64 3e-16",
        "  can          hessian",
        "  cannot       jvp",
        "  not tried    shard_map",
        "  keeps        residuals 128 B (autodiff 256 B)   temporary 1.0 KiB (autodiff 2.1 KiB)",
        "  note         the mask is an integer",
    ]


def test_a_finding_in_a_terminal():
    same = [
        Finding("factor", "gamma", dtype=dtype, probe="large numbers")
        for dtype in ("float32", "float32", "bfloat16")
    ]
    lines = str(report(FACTOR, *same)).splitlines()
    assert lines[0].startswith("layer_norm: 1 finding   ")
    assert lines[1:9] == [
        "  value / factor             d gamma [3]",
        "      got 1.25, expected 0.625 ± 1e-11 (tolerance/signal 1.6e-11)",
        "      the cotangent is the right one, times a constant; 2 times the right one",
        "      probe   float64, normal numbers",
        "      also    float32, large numbers; bfloat16, large numbers",
        "      call    layer_norm(f64[1,2], f64[2], f64[2])",
        f"      advice  {DEFECTS['factor'].advice}",
        "",
    ]


def test_no_line_is_too_long_and_no_word_is_lost():
    many = {f"params['layer{i}']['w']": 1e-10 for i in range(30)}
    long = Finding("fails", "x", why="because " * 40 + "\nin bwd", call="f(\n  f64[3],\n)")
    text = str(report(long, resolution=many, notes=["remark " * 40]))
    assert max(map(len, text.splitlines())) <= words.WIDTH
    assert text.count("because") == text.count("remark") == 40
    assert all(name in text for name in many)
    assert re.search(r"call    f\(\n +f64\[3\],\n +\)\n", text)


def test_the_first_line_of_a_failure_says_what_is_wrong():
    fails = Finding("fails", why="TypeError: no")
    affine = Finding("affine", "beta", "out[1]", (0, 2), 1e-3, 0.0, 0.0)
    lines = report(FACTOR, affine, fails).failure().splitlines()
    findings = "factor in d gamma, affine in d beta via out[1], fails"
    assert lines[0] == f"layer_norm: 3 findings ({findings})"
    line = "d beta via out[1] [0, 2]  got 0.001, expected 0 exactly"
    assert line in report(affine).failure()
    assert "cannot" not in report(FACTOR).failure()


@pytest.mark.parametrize(
    ("got", "expected", "text"),
    [
        *((1.25, 0.625, ("1.25", "0.625")), (1.0 + 1e-12, 1.0, ("1.000000000001", "1"))),
        *((float("nan"), 1.0, ("nan", "1")), (float("-inf"), None, ("-inf", ""))),
        *((1 - 2j, 1 + 2j, ("1-2j", "1+2j")), (True, 0, ("1", "0"))),
        (np.float32(0.5), jnp.bfloat16(0.25), ("0.5", "0.25")),
    ],
)
def test_numbers_have_the_digits_that_tell_them_apart(got, expected, text):
    assert Finding("term", got=got, expected=expected).numbers == text


def test_short_numbers():
    values = [None, 0.0, 6.04e-11, 1.19e-7, 0.25, 12.0, 1e300, float("nan"), float("inf")]
    texts = "– 0 6e-11 1.2e-7 0.25 12 1e300 nan inf"
    assert " ".join(map(words.short, values)) == texts


def test_tolerance_is_relative_to_the_size_of_the_whole_array():
    huge = picture([3e200, 4e200, np.inf], [0.0, 0.0, 0.0])
    finding = Finding("term", "x", tolerance=1e190, expected=3e200, got=0.0, picture=huge)
    assert finding.tolerance_over_signal == pytest.approx(1e-10 / np.sqrt(12.5))
    assert Finding("term", tolerance=0.5, expected=2.0).tolerance_over_signal == 0.25
    assert Finding("affine", tolerance=0.0, expected=0.0).tolerance_over_signal is None


def test_json_holds_everything_but_pictures():
    odd = Finding("nan", "z", "y", (1,), float("nan"), 1 - 2j, 1e-9, picture=picture([1], [2]))
    plain = report(FACTOR, odd, errors={"float64": np.float64("inf")}).as_json()
    plain = json.loads(json.dumps(plain, allow_nan=False))
    assert plain["ok"] is False
    assert plain["errors"] == {"float64": "inf"}
    for fact in ("resolution", "capabilities"):
        assert plain[fact] == FACTS[fact]
    assert plain["cost"]["residuals"] == {"rule": 128, "autodiff": 256}
    first, second = plain["findings"]
    assert (first["got"], first["expected"], first["index"]) == (1.25, 0.625, [3])
    assert first["tolerance_over_signal"] == pytest.approx(1.6e-11)
    assert first["advice"] == DEFECTS["factor"].advice
    assert (second["got"], complex(second["expected"])) == ("nan", 1 - 2j)
    assert "picture" not in first


def test_the_table_has_one_row_per_report():
    out = io.StringIO()
    reports = [report(), report(FACTOR, name="a[bold]b", errors={}, cost={}, resolution={})]
    Console(file=out, width=100).print(command.table(reports))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines() if line.strip()]
    assert lines[0] == "op resolution float64 bfloat16 residuals temporary s"
    assert lines[2] == "layer_norm ok 6e-11 3e-16 8e-3 0.50× 0.48× 0.8"
    assert lines[3] == "a[bold]b FAILED – – – – – 0.8"


@pytest.mark.parametrize(
    ("shape", "at", "cells", "says"),
    [
        ((7,), (3,), (1, 7), ""),
        ((70,), (69,), (3, 32), ""),
        ((10**6,), (733_211,), (48, 32), "worst of 652 elements"),
        ((3, 5), (2, 1), (3, 5), "3 × 5 elements"),
        ((1000, 2), (999, 1), (48, 2), "worst of 21 × 1 elements"),
        ((2, 3, 4, 5), (1, 2, 3, 4), (4, 5), "the slice [1, 2, :, :] is shown"),
    ],
)
def test_an_error_map_shows_the_one_wrong_element(shape, at, cells, says):
    error_map = maps.error_map(picture(*spoilt(shape, at)))
    (wrong,) = [p for p in error_map.panels[2].layers if p.name == "wrong"]
    ((x, y, length),) = re.findall(r"M(\S+) (\S+)h(\S+)", wrong.path)
    (width, height), (left, top, wide, high) = error_map.cell, error_map.mark
    assert (error_map.worst, int(length), error_map.width) == (at, width, cells[1] * width)
    assert -(-error_map.height // height) <= cells[0]
    assert left < int(x) < left + wide
    assert top < float(y) < top + high
    assert error_map.outside.startswith(f"1 of {np.prod(shape):,} elements")
    assert says in error_map.layout


def test_the_frame_surrounds_the_finding_or_else_the_largest_error():
    expected, got = spoilt((4, 4), (1, 2))
    assert maps.error_map(picture(expected, got), (3, 3)).worst == (3, 3)
    for elsewhere in ((), (4, 0), (1,), (-1, 0)):
        assert maps.error_map(picture(expected, got), elsewhere).worst == (1, 2)


@pytest.mark.parametrize(
    ("expected", "got", "bad"),
    [
        *(([1.0, np.nan], [1.0, np.nan], 0), ([1.0, np.inf], [1.0, np.inf], 0)),
        *(([1.0, 2.0], [1.0, np.nan], 1), ([1.0, 2.0], [-np.inf, np.nan], 2)),
        *(([1.0, np.inf], [1.0, 2.0], 1), ([1j, 2.0], [1j, complex(0, np.nan)], 1)),
    ],
)
def test_numbers_that_are_not_finite_are_wrong_where_the_two_differ(expected, got, bad):
    error_map = maps.error_map(picture(expected, got))
    assert error_map.outside.startswith(f"{bad} of 2 elements")
    assert error_map.panels[2].broken == bool(bad)


@pytest.mark.parametrize("tolerance", [0.0, 5e-324, 1e-9, 1e308, np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float64, np.float16, jnp.bfloat16, np.complex64, np.int32])
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1e4])
def test_every_magnitude_is_drawn(dtype, tolerance, scale):
    expected, got = ((scale * normal((3, 4), seed)).astype(dtype) for seed in (0, 1))
    error_map = maps.error_map(picture(expected, got, tolerance))
    assert all(panel.ends for panel in error_map.panels)


def test_the_limits_of_float64_are_drawn():
    largest, least = np.finfo(float).max, 5e-324
    for tolerance in (0.0, least):
        error_map = maps.error_map(
            picture([least, 0, largest], [-least, least, -largest], tolerance)
        )
        assert error_map.outside.startswith(f"{3 if tolerance == 0 else 2} of 3")


def test_of_complex_numbers_the_part_that_differs_is_shown():
    z = normal((3, 3), 0) + 1j * normal((3, 3), 1)
    assert maps.error_map(picture(z, z.conj())).panels[0].title == "expected, imaginary part"
    assert maps.error_map(picture(z, z + 1)).panels[1].title == "got, real part"
    assert maps.error_map(picture(z.real, z)).panels[0].title == "expected, imaginary part"


@pytest.mark.parametrize(
    ("expected", "got"), [(1.0, 2.0), ([1.0], [2.0]), (np.ones((2, 3)), np.ones((3, 2)))]
)
def test_there_is_no_map_of_a_single_number_or_of_two_shapes(expected, got):
    assert maps.error_map(picture(expected, got)) is None


class Tags(HTMLParser):
    """All tags of a page, which must be nested and closed, and the text between them."""

    void = frozenset(("meta", "link", "br", "hr", "img", "path", "rect", "line"))

    def __init__(self, html):
        super().__init__()
        self.tags, texts, self._open = [], [], []
        self.handle_data = texts.append
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(texts).split())
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.void:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def reports(**worst):
    """A right rule, with these pictures of its largest errors, and three wrong ones."""
    conv = ("nan", "params['w']", "out", (2, 1, 3, 2), float("nan"), 1.0, 1e-6, "float32")
    conv = Finding(*conv, picture=picture(*spoilt((4, 3, 8, 8), (2, 1, 3, 2), np.nan)))
    cumsum = ("element", "x", "", (123_456,), 3.0, 2.0, 1e-9)
    cumsum = Finding(*cumsum, picture=picture(*spoilt(10**6, 123_456)))
    return [
        report(name="relu", worst=worst),
        report(FACTOR, Finding("dtype", "gamma")),
        report(conv, name="conv", capabilities={"vmap": False}),
        report(cumsum, name="cumsum", errors={"float64": float("nan")}),
    ]


def test_the_page_says_what_is_wrong_and_what_is_right():
    html = Tags(page.page(reports()))
    assert "3 of 4 rules are wrong" in html.text
    assert "value 2 · types 1 · numerics 1" in html.text
    assert "Largest error, float64 nan cumsum" in html.text
    assert "Time 3.3 s" in html.text
    assert [s["id"] for s in html.all("section")] == ["ops", "findings", "right"]
    assert len(html.all("article")) == len(html.all("a")) == 4
    for finding in (f for r in reports() for f in r.findings):
        assert words.sentence(finding.advice) in html.text
    assert FACTOR.call in html.text
    cells = [td for td in html.all("td") if td.get("class", "").startswith("can ")]
    missing = [td["title"] for td in cells if td["class"] == "can no"]
    assert (len(cells), missing) == (4 * 4, ["jvp: no", "jvp: no", "vmap: no", "jvp: no"])


def test_every_map_is_described_and_every_id_is_its_own():
    expected, got = spoilt((5, 6), (1, 1), 1e-10)
    html = Tags(page.page(reports(**{"d x": picture(expected, got)})))
    ids = [attrs["id"] for _, attrs in html.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    drawings = [svg for svg in html.all("svg") if svg.get("role") == "img"]
    assert len(drawings) == 9
    assert {i for svg in drawings for i in svg["aria-labelledby"].split()} <= set(ids)
    assert {a["href"].removeprefix("#") for a in html.all("a")} <= set(ids)
    assert "0 of 30 elements lie outside the tolerance" in html.text


def test_the_page_needs_no_other_file_and_is_small_and_reproducible():
    html = page.page(reports())
    assert html == page.page(reports())
    assert len(html) < 200_000
    for attrs in (attrs for _, attrs in Tags(html).tags):
        assert "src" not in attrs
        assert attrs.get("href", "#")[:1] == "#" or attrs["href"] == "data:,"
    assert "@import" not in html
    assert set(re.findall(r"url\(([^)]*)\)", html)) == {"#broken"}


def test_everything_on_the_page_is_escaped():
    evil = '<script>alert("x")</script>\'"><img src=x onerror=alert(1)>{{ 7 * 7 }}'
    finding = Finding(
        *("term", evil, evil, (0, 0), 1.0, 2.0, 1e-9, evil, evil, evil, evil),
        picture=picture(*spoilt((2, 2), (0, 0))),
    )
    facts = {"resolution": {evil: 1.0}, "capabilities": {evil: True}, "cost": {evil: (1, 2)}}
    both = [
        report(finding, name=evil, errors={evil: 1.0}, notes=[evil], **facts),
        report(name="ok", notes=[evil], worst={evil: picture([1.0, 2.0], [1.0, 3.0])}),
    ]
    html = Tags(page.page(both))
    assert not html.all("script")
    assert not html.all("img")
    assert "{{ 7 * 7 }}" in html.text


def test_the_page_of_nothing_and_of_nothing_wrong():
    assert "nothing was verified" in Tags(page.page([])).text
    html = Tags(page.page([report()]))
    assert "1 of 1 rule is right" in html.text
    assert html.all("title")
    assert "Every rule is right · fnn verify" in html.text
    assert [s["id"] for s in html.all("section")] == ["ops", "right"]


def test_a_page_is_written_or_an_error_says_where_it_cannot_be(tmp_path):
    where = page.write_page([report()], tmp_path / "verify.html")
    assert where.read_text("utf-8") == page.page([report()])
    with pytest.raises(FnnError, match=r"none/verify\.html: cannot be written: No such file"):
        page.write_page([report()], tmp_path / "none" / "verify.html")
