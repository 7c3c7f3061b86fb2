"""Experiments as YAML files: read, checked, built, and written out again."""

from .choice import Chain as Chain
from .choice import Choice as Choice
from .choice import plain as plain
from .config import Config as Config
from .config import dump as dump
from .config import load as load
from .config import parse as parse
from .schema import json_schema as json_schema
from .source import SourceLocations as SourceLocations
