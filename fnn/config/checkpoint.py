"""When checkpoints are written, and which of them are kept."""

from typing import Annotated

from annotated_types import Ge
from pydantic import Field

from .section import Count, Phrase, PositiveInt, Section
from .signature import Number
from .training import Metric


class Checkpoint(Section):
    """A checkpoint is due after so many steps or seconds, whichever comes first.

    It is written at the end of the compiled call in which it falls due; one more when training
    ends or is told to stop. Metrics are those of an epoch's end.
    """

    steps: Count = Field(default=0, description="steps from one to the next; 0 is never")
    seconds: Annotated[Number, Ge(0), Phrase("a number, 0 or more")] = Field(
        default=60.0, description="seconds from one to the next; 0 is never"
    )
    keep_last: PositiveInt = Field(default=2, description="the last so many are kept")
    keep_best: Count = Field(
        default=0, description="and the best so many, each written at its epoch's end"
    )
    metric: Metric = Field(default="test_loss", description="what the best are chosen by")

    def is_due(self, step: int, saved_step: int, seconds: float) -> bool:
        """Say whether one is due after `step` steps, `seconds` after the one of `saved_step`."""
        steps_passed = self.steps and step // self.steps > saved_step // self.steps
        return bool(steps_passed or (self.seconds and seconds >= self.seconds))
