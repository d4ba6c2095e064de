"""The test file of the foreign project; each test of the harness changes it in one place."""

import json
import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
SLOPE_ERROR = 0.0


@pytest.fixture(scope="session")
def workflow_commands():
    def commands(archive, folder):
        (folder / "points.json").write_text(json.dumps([[1, 3], [2, 6]]))
        archive.input(folder / "points.json")
        archive.artifact(folder / "model", caption="the fitted slope")
        yield [sys.executable, HERE / "train.py", "points.json", "model"]
        yield [sys.executable, HERE / "infer.py", "model", "10"]

    return commands


def test_slope(workflow):
    model = json.loads((workflow.folder / "model/model.json").read_text())
    error = abs(model["slope"] + SLOPE_ERROR - 3)
    workflow.archive.metric("slope", error, better="lower", tolerance=0.01)


def test_prediction(workflow):
    value = json.loads(workflow.results[1].stdout)[0]
    workflow.archive.metric("prediction", value, better="equal", tolerance=0.5)
    with workflow.archive.assertions("the prediction is right"):
        assert value == 30


def test_missing_model(run_command):
    result = run_command([sys.executable, HERE / "infer.py", "nowhere", "10"], check=False)
    assert result.exit_status == 1


def test_parts(subtests):
    for part in range(3):
        with subtests.test(part=part):
            assert part < 3


def test_environment():
    assert os.environ.get("FOREIGN", "green") == "green"
