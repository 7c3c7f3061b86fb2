"""Models of signatures, and the tables of optax's optimisers and schedules."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
import pytest
from annotated_types import Ge
from pydantic import TypeAdapter, ValidationError

from fnn.config import Choice
from fnn.config.choice import KINDS, LEFT_OUT, arguments_of, chooser, form_of_choice, table
from fnn.config.section import Phrase
from fnn.config.signature import NotWritableError, arguments_model

OPTIMIZERS, SCHEDULES = table("optimizer"), table("schedule")


@pytest.mark.parametrize(
    ("annotation", "phrase", "good", "bad"),
    [
        (int, "an integer", [1, -3], [True, 1.0, "1", None, [1]]),
        (float, "a number", [1, 2.5], [True, "1", None, float("nan"), float("inf")]),
        (bool, "true or false", [True], [1, "yes", None]),
        (str, "a text", ["a"], [1, None]),
        (int | None, "an integer or null", [1, None], ["1", True]),
        (str | int, "a text or an integer", ["a", 1], [1.5, None, True]),
        (Literal["a", "b"], "'a' or 'b'", ["a"], ["c", 1]),
        (tuple[int, ...], "a list, each an integer", [[], [1, 2]], [1, ["a"], [True]]),
        (list[float], "a list, each a number", [[1, 2.5]], [[None]]),
        (dict[int, float], "a mapping from an integer to a number", [{1: 2.0}], [{"a": 1}, []]),
        (Annotated[int, Ge(2)], "an integer", [2], [1]),
        (jax.typing.ArrayLike, "a number", [1, 0.5], ["a", True]),
        (int | Callable, "an integer", [1], ["a"]),
    ],
)
def test_forms(annotation, phrase, good, bad):
    def function(*, argument):
        pass

    function.__annotations__["argument"] = annotation
    model = arguments_model(function, "function", form_of_choice)
    (note,) = [note for note in model.model_fields["argument"].metadata if isinstance(note, Phrase)]
    assert note.text == phrase
    for value in good:
        written = model.model_validate({"argument": value}).argument
        assert (list(written) if isinstance(value, list) else written) == value
    for value in bad:
        with pytest.raises(ValidationError):
            model.model_validate({"argument": value})


@pytest.mark.parametrize("annotation", [Callable, Any, object, jax.Array, Callable | None, list])
def test_what_cannot_be_written_is_left_out_or_refused(annotation):
    def optional(*, argument=len):
        pass

    def required(*, argument):
        pass

    optional.__annotations__["argument"] = required.__annotations__["argument"] = annotation
    assert not arguments_model(optional, "optional", form_of_choice).model_fields
    with pytest.raises(NotWritableError, match="argument"):
        arguments_model(required, "required", form_of_choice)


def test_a_number_stays_what_it_is():
    model = arguments_of("optimizer", "sgd")
    assert type(model.model_validate({"learning_rate": 1}).learning_rate) is int


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_of_every_table_has_a_model(kind):
    for name, function in table(kind).items():
        model = arguments_of(kind, name)
        assert set(model.model_fields) <= set(inspect.signature(function).parameters)


SAMPLES = {
    "key": 0,  # of the noise; optax warns where there is none
    "schedules": [{"constant_schedule": {"value": 0.1}}, {"constant_schedule": {"value": 0.2}}],
    "boundaries": [5],
    "cosine_kwargs": [{"init_value": 0.0, "peak_value": 1.0, "decay_steps": 9, "warmup_steps": 3}],
    "inner": {"sgd": {"learning_rate": 0.1}},
    "step_size_fn": {"constant_schedule": {"value": 0.1}},
    "interpolate_type": "linear",
    "decay_steps": 20,
    "max_consecutive_errors": 2,
}


def build(kind: str, name: str):
    """Build a row with its required arguments from SAMPLES, or 3 where an integer will do."""
    fields = arguments_of(kind, name).model_fields
    required = [field for field in fields if fields[field].is_required() or field == "key"]
    numbers = {f: 3 if "an integer" in str(fields[f].metadata) else 0.5 for f in required}
    arguments = {field: SAMPLES.get(field, number) for field, number in numbers.items()}
    choice = TypeAdapter(Annotated[Choice, *chooser(kind)])
    return choice.validate_python({name: arguments}).build()


@pytest.fixture
def standard_promotion():
    """optax mixes dtypes and ranks inside; the suite's strict rules are for fnn's own code."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_step(name):
    tx = optax.with_extra_args_support(build("optimizer", name))
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    step = jax.eval_shape(lambda p: tx.update(p, tx.init(p), p, value=1.0)[0], params)
    assert {key: leaf.shape for key, leaf in step.items()} == {"w": (2, 3), "b": (3,)}


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_gives_a_number(name):
    assert jnp.shape(build("schedule", name)(jnp.asarray(1))) == ()


def test_the_tables_hold_the_names_people_know():
    assert {"sgd", "adam", "adamw", "rmsprop", "lion", "clip_by_global_norm"} <= set(OPTIMIZERS)
    assert {"constant_schedule", "join_schedules", "exponential_decay"} <= set(SCHEDULES)
    assert not {"chain", "masked", "partition", *LEFT_OUT} & set(OPTIMIZERS)
    assert set(vars(optax)) >= set(LEFT_OUT)
