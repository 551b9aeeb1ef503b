"""Answers of a real TensorFlow-Serving, recorded: the local server gives the same."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import urllib3
from rest_server import listening

from bsdenoise.server.limits import Gate, Limits
from bsdenoise.server.metrics import Metrics
from bsdenoise.server.prediction import House
from bsdenoise.server.rest import make_app
from bsdenoise.server.servable import Servable
from bsdenoise.server.versions import Models, ModelSettings

GOLDEN = Path(__file__).with_name("golden")
EXCHANGES = [json.loads(line) for line in (GOLDEN / "exchanges.jsonl").read_text().splitlines()]
# Which answers may differ, what they are then, and why.
DIFFERENCES = {
    42: (
        "slice index 0 of dimension 0 out of bounds",
        "two ops of this graph refuse a scalar; which is first is chance",
    ),
}


@pytest.fixture(scope="module")
def address():
    limits = Limits()
    models = Models([ModelSettings("den", GOLDEN / "model" / "den")], Servable)
    models.start()
    with listening(make_app(House(models, Gate(limits), limits, Metrics()))) as (host, port):
        yield f"http://{host}:{port}"
    models.close()


def same(one, other):
    """Compares JSON values, numbers to 1e-5."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return isinstance(other, float) and math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-5)
    return type(one) is type(other) and one == other


def test_all_exchanges_are_there():
    assert len(EXCHANGES) == 50
    assert set(DIFFERENCES) <= set(range(50))


@pytest.mark.parametrize("number", range(len(EXCHANGES)))
def test_the_answer_is_the_recorded_one(number, address):
    exchange = EXCHANGES[number]
    with urllib3.PoolManager() as pool:
        body = exchange["request"]
        answer = pool.request(exchange["method"], address + exchange["path"], body=body and body.encode())
    assert answer.status == exchange["status"]
    expected = {name.lower(): value for name, value in exchange["headers"].items()}
    assert re.sub(" ", "", answer.headers["Content-Type"]).lower() == expected["content-type"].replace(" ", "").lower()
    if expected["content-type"] == "application/json":
        answered, recorded = json.loads(answer.data), json.loads(exchange["body"])
        is_other = number in DIFFERENCES and DIFFERENCES[number][0] in answered["error"]
        if "NaN" in (body or "") and "predictions" in recorded:
            # What a rectifier makes of NaN, NaN or 0, depends on how TensorFlow happens to vectorise it.
            answered, recorded = (np.shape(one["predictions"]) for one in (answered, recorded))
        assert is_other or same(answered, recorded), (answered, recorded)
    else:
        assert answer.data.decode() == exchange["body"]
