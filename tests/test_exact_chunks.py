"""Stages: what they keep of coarse maps, and what they count. That they are exact, test_inference.py shows."""

import tracemalloc

import numpy as np
import pytest

from bsdenoise import blind_spot_network, progress
from bsdenoise.inference import engine, exact_chunks

SIGMA = np.full(1, 0.1, "float32")
MAPS = 4  # of each encoder convolution; what leaves a level are twice as many
FLOAT32_BYTES = 4
SIDE = 48  # of an image, and of the chunks


@pytest.fixture(scope="module")
def stages():
    network = blind_spot_network(width=MAPS, depth=2)
    return exact_chunks.Stages(
        network.levels(), engine.Compiled, lambda outputs, image, sigma: (outputs[0][..., :3],), (0,)
    )


@pytest.fixture
def image():
    """One whose maps of a quarter of the size do not fit into a chunk."""
    image = np.random.default_rng(0).random((1, 820, SIDE, 3), dtype="float32")
    assert image[..., 0].size > 4**exact_chunks.AT_ONCE * SIDE**2
    return image


def test_no_coarse_maps_are_kept_whole(stages, image):
    """NumPy holds beside the result less than the maps of half the resolution of two of the four directions."""
    stages.compute(image, SIGMA, SIDE**2)  # traced from here on
    tracemalloc.start()
    (result,) = stages.compute(image, SIGMA, SIDE**2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - result.nbytes < 2 * image[..., 0].size / 4 * 2 * MAPS * FLOAT32_BYTES


def test_of_coarse_maps_only_the_rows_in_reach_are_computed(stages, image, monkeypatch):
    rows = []
    leave = stages._leave

    def counted(*maps):
        rows.append(maps[0].shape[1])
        return leave(1, 0)(*maps)

    (whole,) = stages.compute(image, SIGMA, SIDE**2)
    monkeypatch.setattr(stages, "_leave", lambda *place: counted if place == (1, 0) else leave(*place))
    (part,) = stages.compute(image, SIGMA, SIDE**2, kept=(slice(400, 440), slice(0, SIDE)))
    np.testing.assert_allclose(part[:, 400:440], whole[:, 400:440], atol=1e-6)
    assert 20 <= sum(rows) < 120  # with halos; of all they are 410 and more


@pytest.mark.parametrize("height", [820, 100], ids=["in bands", "at once from half the resolution on"])
def test_shares_add_up(stages, image, height):
    """By themselves: what the end is topped up with is rounding."""
    steps = []
    with progress.watched_by(steps.append):
        stages.compute(image[:, :height], SIGMA, SIDE**2)
    assert sum(steps[:-1]) == pytest.approx(sum(steps)) == pytest.approx(1)
    assert max(steps) < 0.3
