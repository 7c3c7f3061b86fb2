"""`fnn bench`: rows, their judgement, refusals. No time is asserted."""

import functools
import json
import math
import os

import jax
import jax.numpy as jnp
import pytest

from fnn.bench import command as measuring
from fnn.bench import measure
from fnn.bench.row import BAR, faults
from fnn.bench.timing import calls, hopeful, ratio, rounds
from fnn.custom_op import Op
from fnn.errors import FnnError
from fnn.example import example, integers, normal

from .runs import command as command
from .runs import python, sampled

BENCH = example(x=normal(6, 4), w=normal(4, 2), tags={"bench"})
ROUNDS = 7
DTYPES = sorted(measuring.DTYPES, key=lambda dtype: dtype != "bfloat16")


def halved(x, w, labels=None, *, scale=1.0):
    """Half of tanh(x W)."""
    y = scale * jnp.tanh(x @ w) / 2
    return y if labels is None else jnp.where((labels > 0)[:, None], y, 0)


def halved_fwd(x, w, labels, *, scale):
    y = halved(x, w, labels, scale=scale)
    return y, (x, w, y, labels)


def halved_bwd(residuals, dy, *, scale):
    x, w, y, labels = residuals
    dz = (scale / 2 - 2 * y * y / scale) * dy
    dz = dz if labels is None else jnp.where((labels > 0)[:, None], dz, 0)
    return dz @ w.T, x.T @ dz, None


def toy(*examples, fwd=halved_fwd, bwd=halved_bwd, **more):
    op = Op(halved, examples=examples, **more)
    op.def_fwd(fwd)
    op.def_bwd(bwd)
    return op


def by_einsum(x, w, labels, *, scale):
    return halved(jnp.eye(len(x)) @ x, w, labels, scale=scale)


def test_a_row():
    (row,) = measure(toy(BENCH, reference=by_einsum), seconds=0)
    assert (row.op, row.call, row.dtype) == ("halved", "x 6×4, w 4×2", "float32")
    assert row.rounds == ROUNDS
    assert row.seconds.keys() >= {"manual", "autodiff"}
    assert row.fastest in ("autodiff", "reference")
    for number in (*row.seconds.values(), row.over_autodiff.median, row.over_fastest.median):
        assert math.isfinite(number)
        assert number > 0
    assert row.over_fastest.interval[0] <= row.over_fastest.median <= row.over_fastest.interval[1]
    assert row.temp_bytes.keys() == {"manual", "autodiff", "reference"}
    assert row.residual_bytes["manual"] == 4 * (6 * 4 + 4 * 2 + 6 * 2)  # x, W and y
    assert row.beside_output["manual"] == 4 * (6 * 4 + 4 * 2)


def test_a_row_of_each_bench_example_and_no_other():
    labelled = {"x": normal(6, 4), "w": normal(4, 2), "labels": integers(6, high=2)}
    op = toy(BENCH, example(x=normal(2, 4), w=normal(4, 2)))
    assert len(measure(op, seconds=0)) == 1
    op = toy(BENCH, example(**labelled, scale=0.5, tags={"bench"}))
    assert measure(op, seconds=0)[1].call == "x 6×4, w 4×2, labels 6, scale=0.5"


@pytest.mark.parametrize("dtype", sampled(*DTYPES))
def test_a_dtype(dtype):
    (row,) = measure(toy(BENCH), dtype, seconds=0)
    assert row.dtype == dtype
    assert row.residual_bytes["manual"] == jnp.dtype(dtype).itemsize * 44


# The forms


def timed(*examples, **more):
    """Return the forms that are timed on the example."""
    (row,) = measure(toy(*(examples or [BENCH]), **more), seconds=0)
    return set(row.temp_bytes)


def other_gradient(x, w, labels, *, scale):
    return jax.lax.stop_gradient(halved(x, w, labels, scale=scale))


def numpy_only(x, w, labels, *, scale):
    return x.__array__()


def loop(x, w, labels, *, scale):
    return sum(halved(x, w, labels, scale=scale) / 1000 for _ in range(1000))


def test_a_reference_is_a_rival_where_jax_differentiates_it_to_the_same():
    assert timed() == {"manual", "autodiff"}
    assert timed(reference=by_einsum) == {"manual", "autodiff", "reference"}
    for reference in (other_gradient, numpy_only, loop):
        assert timed(reference=reference) == {"manual", "autodiff"}
    unlike = example(x=normal(6, 4), w=normal(4, 2), tags={"bench", "no reference"})
    other = timed(unlike, reference=lambda x, w, labels, *, scale: x)
    assert other == {"manual", "autodiff"}


def doubled(x, w, labels, *, scale):
    return 2 * halved(x, w, labels, scale=scale)


def twice_the_scale(*arguments, scale):
    return halved_bwd(*arguments, scale=2 * scale)


UNLIKE = example(x=normal(6, 4), w=normal(3, 2), tags={"bench"})


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (toy(), 'halved has no example tagged "bench"'),
        (toy(BENCH, reference=doubled), r"halved \(reference\) has other values"),
        (
            toy(BENCH, bwd=twice_the_scale),
            r"halved \(manual\) has other gradients .*`fnn verify halved` says more",
        ),
        (toy(UNLIKE), r"halved cannot run its bench example .*: TypeError"),
    ],
)
def test_a_form_that_cannot_be_measured_is_named(op, words):
    with pytest.raises(FnnError, match=words):
        measure(op, seconds=0)


# How times are compared, and judged


def test_a_ratio_is_of_the_rounds_own_times():
    result = ratio([2.0, 4.0, 8.0, 6.0, 3.0], [1.0, 2.0, 4.0, 3.0, 1.0])
    assert (result.median, result.quartiles, result.interval) == (2.0, (2.0, 2.0), (2.0, 3.0))
    assert not result.settled
    assert ratio([2.0] * 9, [1.0] * 9).settled
    noise = [1.0 + 0.1 * math.sin(37 * i) for i in range(1000)]
    few, many = (ratio(noise[:n], [1.0] * n).half_width for n in (20, 1000))
    assert many < few / 4, "an interval narrows with the rounds"


def test_rounds_end_when_settled_or_at_the_fewest():
    programs = {"a": lambda: 0, "b": lambda: 1}
    times = rounds(programs, (), 2, 0.0, settled=lambda times: False)
    assert {name: len(each) for name, each in times.items()} == {"a": ROUNDS, "b": ROUNDS}
    assert len(rounds(programs, (), 1, 60.0, settled=lambda times: True)["a"]) == ROUNDS
    assert (calls(1e-4), calls(1.0)) == (20, 1), "short calls are repeated"
    assert hopeful({"a": 1.0, "b": 1.9, "c": 2.1}) == ["a", "b"], "slow rivals are left out"


@pytest.mark.parametrize(
    ("speed", "beside", "expected"),
    [
        (1.0, 8, []),
        (1.001 / BAR, 8, []),
        (0.999 / BAR, 8, ["slower"]),
        (2.0, 9, ["keeps more"]),
        (0.5, 9, ["slower", "keeps more"]),
    ],
)
def test_the_bar(speed, beside, expected):
    assert faults(speed, beside, 8) == expected


# The command


def wasteful_fwd(x, w, labels, *, scale):
    y, residuals = halved_fwd(x, w, labels, scale=scale)
    return y, (residuals, jnp.zeros((100, 100), x.dtype))


def wasteful_bwd(residuals, dy, *, scale):
    return halved_bwd(residuals[0], dy, scale=scale)


@pytest.fixture
def bench(monkeypatch, command):
    """Return the command, on a table of a good op and one that keeps too much."""
    wasteful = toy(BENCH, fwd=wasteful_fwd, bwd=wasteful_bwd)
    wasteful.name = "wasteful"
    monkeypatch.setattr("fnn.OPS", {"halved": toy(BENCH), "wasteful": wasteful, "bare": toy()})
    return functools.partial(command, "bench", "--seconds", "0")


def test_the_table(bench):
    status, out, err = bench()
    assert (status, err) == (0, "")
    assert "halved(x 6×4, w 4×2)" in out
    assert "128 B + y" in out
    assert "bare" not in out
    assert "above 1 the rules win" in " ".join(out.lower().split())


def test_json_is_one_object(bench):
    status, out, err = bench("wasteful", "--json", "--check")
    printed = json.loads(out)
    assert (status, err) == (1, "")
    assert printed.keys() == {"ok", "bar", "device", "cores", "jax", "rows", "failures"}
    assert printed["ok"] is False
    (row,) = printed["rows"]
    assert "keeps more" in row["verdict"]
    assert not row["ok"]
    assert row["residual_bytes"]["manual"] == 4 * (44 + 100 * 100)
    assert row["beside_output"]["manual"] == 4 * (32 + 100 * 100)
    assert row["over_autodiff"].keys() == {"median", "interval", "quartiles"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("halvd",), "there is no op 'halvd'; did you mean 'halved'?"),
        (("bare",), 'halved has no example tagged "bench"'),
        (("halved", "--dtype", "float23"), "got 'float23'; did you mean 'float32'?"),
        (("halved", "--dtype", "int32"), "expected one of float64, float32, bfloat16, float16"),
        (("halved", "--cores", "4096"), "--cores 4096: this process may use"),
    ],
)
def test_a_wrong_call_is_one_message(bench, arguments, words):
    status, out, err = bench(*arguments)
    assert status == 2
    assert words in " ".join(err.split())
    assert out == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot pin a process")
def test_one_core_in_a_process_of_its_own():
    code = (
        "import os, fnn.bench.cores as c; c.pin(1); import jax; jax.numpy.ones(2) + 1; "
        "print(c.available(), len(os.sched_getaffinity(0)))"
    )
    process = python("-c", code)
    assert process.communicate() == ("1 1\n", "")
