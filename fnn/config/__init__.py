"""Experiments as YAML files: read, checked, built, and written out again."""

from .choice import Chain as Chain
from .choice import Choice as Choice
from .config import Config as Config
from .load import dump as dump
from .load import load as load
from .load import parse as parse
from .schema import json_schema as json_schema
