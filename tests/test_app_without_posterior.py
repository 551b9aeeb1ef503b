"""The page with models that only denoise (l2, n2n, n2c, n2v): no σ, no uncertainty, no estimated PSNR, no crash."""

import asyncio
import html
import re

import numpy as np
import pytest
from denoise_command import HalvingDenoiser

from bsdenoise import images, methods
from bsdenoise.app import texts
from bsdenoise.app.denoising import Workshop
from bsdenoise.app.facts import Denoised, Facts

FACTS = Facts("cat.png", "PNG", (4, 5, 3), np.dtype(np.uint8), (), None)
RANGES = pytest.mark.parametrize("is_known", [True, False], ids=["known", "range"])
MANY = 2**20


def rows(text):
    """The table as a dictionary."""
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    return {html.unescape(name): html.unescape(value) for name, value in found}


def save(path, shape, dtype=np.uint8, value=100):
    images.write(path, np.full(shape, value, dtype))
    return path


# --- the work ------------------------------------------------------------------------------------------------------


@RANGES
def test_an_image_is_only_denoised(tmp_path, is_known):
    model = HalvingDenoiser(3, is_known, method="n2v")
    facts, looked, _ = Workshop(model, MANY).look(save(tmp_path / "a.png", (4, 5, 3)), None, 0)
    assert facts.own_sigma is None
    assert (looked.denoised == 50).all() and (looked.noisy == 100).all()
    assert (looked.ratio, looked.sigmas, looked.origin, looked.estimated_psnr) == (None, (), None, None)
    assert model.sigmas == [None]


@RANGES
def test_a_stack_of_colours_with_a_grey_model(tmp_path, is_known):
    model = HalvingDenoiser(1, is_known, method="l2")
    source = save(tmp_path / "a.npy", (2, 4, 5, 3), np.uint16, 1000)
    _, chosen, _ = Workshop(model, MANY).denoise(source, tmp_path / "b.npy", None, 1)
    assert (images.read_array(tmp_path / "b.npy") == 500).all()
    assert chosen.denoised.shape == (4, 5, 3)
    assert model.shapes == [(4, 5, 1)] * 6 and model.sigmas == [None] * 6


def test_a_sigma_is_checked_and_told_to_be_unused(tmp_path):
    """The page's field is disabled; a request can hold one all the same."""
    model = HalvingDenoiser(3, method="n2n")
    source = save(tmp_path / "a.png", (4, 5, 3))
    _, looked, _ = Workshop(model, MANY).look(source, "51", 0)
    assert looked.origin is None and model.sigmas == pytest.approx([0.2])
    with pytest.raises(ValueError, match="A sigma reads 25"):
        Workshop(model, MANY).look(source, "many", 0)


# --- the words -----------------------------------------------------------------------------------------------------


def test_a_result_tells_nothing_of_sigma():
    pixels = np.zeros((4, 5, 3), np.uint8)
    assert rows(texts.describe_result(FACTS, Denoised(pixels, pixels), 1.26, 0)) == {
        "File": "cat.png (PNG): 5 × 4 pixels, RGB, 8 bits",
        "Display": "full size",
        "Time": "1.3 s",
    }


@pytest.mark.parametrize("facts", [None, FACTS], ids=["no file", "file"])
def test_the_field_of_sigma_says_that_it_is_unused(facts):
    assert texts.about_sigma(facts, has_posterior=False) == "This model does not use it."


def test_every_method_is_explained():
    """In other words than every other one; and what it cannot tell is said."""
    told = {name: texts.about_method(name, methods.get(name).has_posterior) for name in ("full", *texts.METHODS)}
    assert set(texts.METHODS) == {"full", "per_component", "l2", "n2n", "n2c", "n2v"}
    assert len({sentence.partition(", ")[2] for sentence in told.values()}) == 6
    for name, sentence in told.items():
        assert sentence.startswith(f"Method: {name}, ")
        assert ("It only denoises" in sentence) == (name not in ("full", "per_component"))
        assert ("on noisy images only" in sentence) == (name not in ("n2n", "n2c"))


def test_a_method_of_one_s_own_has_its_name():
    assert texts.about_method("darker", has_posterior=True) == "Method: darker."
    assert texts.about_method("darker", has_posterior=False).startswith("Method: darker. It only denoises")


# --- the page ------------------------------------------------------------------------------------------------------


def elements(denoiser, folder):
    """The settings of the page's parts that have an id, by that."""
    pytest.importorskip("gradio")
    from bsdenoise.app import page

    async def parts():  # outside of an event loop Gradio makes one that nobody closes
        built = page.build(Workshop(denoiser, MANY), "A model.", folder)
        return [component["props"] for component in built.get_config_file()["components"]]

    return {props["elem_id"]: props for props in asyncio.run(parts()) if props.get("elem_id")}


@pytest.mark.parametrize(("method", "has_posterior"), [("n2c", False), ("per_component", True)])
def test_the_page_has_what_the_model_can_tell(tmp_path, method, has_posterior):
    found = elements(HalvingDenoiser(3, method=method), tmp_path)
    assert f"<p>A model.</p><p>Method: {method}, " in found["about"]["value"]
    assert found["sigma"]["interactive"] == has_posterior
    assert (found["sigma"]["info"] == "This model does not use it.") != has_posterior
    assert found["uncertainty"]["visible"] == found["legend"]["visible"] == has_posterior
    assert found["slider"]["visible"]


@pytest.mark.parametrize("method", ["l2", "n2n"])
def test_the_handlers_show_the_pair_alone(tmp_path, method):
    pytest.importorskip("gradio")
    from bsdenoise.app import page

    handlers = page.Handlers(Workshop(HalvingDenoiser(3, is_known=False, method=method), MANY), tmp_path)
    source = str(save(tmp_path / "a.npy", (2, 4, 5, 3)))
    *_, sigma, _, start, _ = handlers.take(source)
    assert (sigma["info"], start["interactive"]) == ("This model does not use it.", True)
    alert, facts, pair, uncertainty, download = handlers.denoise(source, "", 1)
    assert not alert["visible"] and "image 1 of 2" in facts["value"] and "σ" not in facts["value"]
    assert (pair[1] == 50).all() and uncertainty is None and download["interactive"]
    alert, facts, pair, uncertainty = handlers.look(source, "", 2, download["value"])
    assert not alert["visible"] and "image 2 of 2" in facts["value"]
    assert (pair[1] == 50).all() and uncertainty is None
