"""Fit a slope to points: the first of two scripts that know nothing of the plugin."""

import json
import pathlib
import sys

points = json.loads(pathlib.Path(sys.argv[1]).read_text())
slope = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
out = pathlib.Path(sys.argv[2])
out.mkdir()
(out / "model.json").write_text(json.dumps({"slope": slope}))
print(f"slope {slope:.3f} in {out.resolve()}")
