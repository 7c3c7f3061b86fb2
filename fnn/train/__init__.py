"""Training: state, step, loop, evaluation, and what is known before any of it."""

from .comparison import compare as compare
from .comparison import compare_run as compare_run
from .evaluate import make_evaluate as make_evaluate
from .feed import make_feed as make_feed
from .loop import resume as resume
from .loop import train as train
from .optimizer import evaluated_params as evaluated_params
from .plan import layer_table as layer_table
from .plan import step_memory as step_memory
from .precision import Precision as Precision
from .replay import replay as replay
from .run import Experiment as Experiment
from .run import prepare as prepare
from .step import TrainState as TrainState
from .step import init as init
from .step import make_steps as make_steps
from .step import make_update as make_update
from .step import order as order
from .step import value_and_grad as value_and_grad
