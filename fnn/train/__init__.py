"""The training step: state, update, optimiser, feed, evaluation, and its layout over devices."""

from .evaluate import make_evaluate as make_evaluate
from .feed import make_feed as make_feed
from .optimizer import evaluated_params as evaluated_params
from .plan import layer_table as layer_table
from .plan import step_memory as step_memory
from .precision import Precision as Precision
from .step import TrainState as TrainState
from .step import init as init
from .step import make_steps as make_steps
from .step import make_update as make_update
from .step import order as order
from .step import value_and_grad as value_and_grad
