"""Apply the slope: the second of two scripts that know nothing of the plugin."""

import json
import pathlib
import sys

model = json.loads((pathlib.Path(sys.argv[1]) / "model.json").read_text())
print(json.dumps([model["slope"] * float(word) for word in sys.argv[2:]]))
