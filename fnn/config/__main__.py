"""Print the JSON Schema: `python -m fnn.config > configs/schema.json`."""

import json

from . import json_schema

print(json.dumps(json_schema(), indent=1))
