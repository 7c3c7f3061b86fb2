"""From a file to a Config, or to one ConfigError that lists every mistake; and back to YAML."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..errors import ConfigError, printable
from .choice import plain
from .config import Config
from .loader import Reader, read_file, read_yaml
from .origin import Origins, dotted
from .overrides import override
from .section import places, shown

MAX_LISTED = 20  # mistakes; a reader mends the first ones first


def load(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a config from a YAML file and apply overrides such as `train.epochs=5`.

    Everything that does not read the data is checked: names, arguments, values; the layers, the
    loss and the optimiser are built once.

    Raises ConfigError: one line a mistake, each with the file and line or the override it is in.
    """
    return parse(read_file(path), str(path), overrides)


def parse(text: str, filename: str = "<config>", overrides: Sequence[str] = ()) -> Config:
    """Read a config from YAML text; `filename` is how messages call it. See `load`."""
    data, origins = read_yaml(text, filename)
    if data is None:
        raise ConfigError(f"{filename}: empty; a config has the sections {_sections()}")
    if not isinstance(data, dict):
        raise ConfigError(
            f"{filename}: expected a mapping with the sections {_sections()}, got {shown(data)}"
        )
    for text in overrides:
        data = override(data, origins, text)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_listed(error, origins)) from None
    config._origins = origins
    return config


def dump(config: Config) -> str:
    """Return YAML that says the same config, with every default written out, one layer a line."""
    return "".join(_dumped(key, value) for key, value in plain(config.model_dump()).items())


def _sections() -> str:
    return ", ".join(Config.model_fields)


def _listed(error: ValidationError, origins: Origins) -> str:
    found = sorted(places(error), key=lambda found: origins.order(found[0]))
    lines = [
        printable(f"{origins.where(place)}: {dotted(place)}: {message}") for place, message in found
    ]
    more = [f"... and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    return "\n".join(lines[:MAX_LISTED] + more)


class _Writer(yaml.SafeDumper):
    """Quotes a text that YAML 1.1 or 1.2 would read as something else, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Writer.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        *Reader.yaml_implicit_resolvers.get(first, []),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *Reader.yaml_implicit_resolvers}
}


def _dumped(key: str, value: Any) -> str:
    if isinstance(value, list):
        return f"{key}:\n" + "".join(f"  - {_item(item)}\n" for item in value)
    return f"{key}: {_line(value)}\n"


def _item(choice: Any) -> str:
    """Return `dense: {features: 10}`, without the outer braces."""
    if isinstance(choice, str):
        return _line(choice)
    return ", ".join(f"{_line(name)}: {_line(arguments)}" for name, arguments in choice.items())


def _line(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Writer, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
