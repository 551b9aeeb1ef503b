"""What a file of another format cannot hold is said, and nothing that it holds."""

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin
from tiff_files import RGB, random_pixels, save

from bsdenoise import images

ICC_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta/>"
IPTC = b"\x1c\x02\x05\0\x05title"


def said(path, target):
    with images.opened(path) as file:
        return images.not_kept_in(target, file)


def test_nothing_is_said_of_a_plain_file(tmp_path):
    save(tmp_path / "a.tif", (9, 8, 3), "u1", **RGB, metadata=None, iccprofile=ICC_PROFILE, software="a")
    images.write(tmp_path / "a.png", random_pixels((9, 8), "u1"))
    images.write(tmp_path / "a.jpg", random_pixels((9, 8), "u1"))
    for name in ("a.tif", "a.png", "a.jpg"):
        for target in ("b.tif", "b.png", "b.jpg"):
            assert said(tmp_path / name, target) == ()


def test_tags_of_tiff_are_named(tmp_path):
    extra = [
        (315, 2, 0, "someone", True),
        (700, 1, len(XMP), XMP, True),
        (33550, 12, 3, (1.0, 1.0, 0.0), True),
        (33723, 7, len(IPTC), IPTC, True),
        (42113, 2, 0, "0", True),
    ]
    save(tmp_path / "a.tif", (9, 8), "u1", metadata=None, description="a text", extratags=extra)
    assert said(tmp_path / "a.tif", "b.tif") == ()
    expected = "its IPTC data, description, GeoTIFF tags, Artist and no-data value are not kept in b.png"
    assert said(tmp_path / "a.tif", "b.png") == (expected,)
    assert said(tmp_path / "a.tif", "b.jpg") == (expected.replace("IPTC data, ", "").replace("png", "jpg"),)
    picture = images.read(tmp_path / "a.tif")
    images.write(tmp_path / "b.jpg", picture.array, like=picture)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["xmp"] == XMP
        assert image.info["photoshop"][0x0404] == IPTC


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_descriptions_of_microscopes_are_said(tmp_path, kind):
    save(tmp_path / "a.tif", (9, 8), "u1", **{kind: True})
    word = {"ome": "OME description", "imagej": "ImageJ description"}[kind]
    assert said(tmp_path / "a.tif", "b.tif") == ()
    assert said(tmp_path / "a.tif", "b.png") == (f"its {word} is not kept in b.png",)


def test_private_tags_are_said_from_tiff_to_tiff(tmp_path):
    extra = [(51123, 2, 0, '{"a": 1}', True), (65000, 3, 1, 7, True), (280, 3, 1, 0, True), (281, 3, 1, 255, True)]
    save(tmp_path / "a.tif", (9, 8), "u1", metadata=None, extratags=extra)
    assert said(tmp_path / "a.tif", "b.tif") == (
        "its tag 51123 (MicroManagerMetadata) and tag 65000 (65000) are not kept in b.tif",
    )


def test_exif_of_a_tiff_by_pillow_is_said(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[34665] = {0x829A: (1, 60)}  # of exposure, in a list of tags of its own
    Image.fromarray(random_pixels((9, 8), "u1")).save(tmp_path / "a.tif", tiffinfo=tags)
    assert said(tmp_path / "a.tif", "b.tif") == ("its tag 34665 (ExifTag) is not kept in b.tif",)


def test_texts_of_png(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a title")
    info.add_text("Comment", "a comment")
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    Image.fromarray(random_pixels((9, 8), "u1")).save(tmp_path / "a.png", pnginfo=info)
    assert said(tmp_path / "a.png", "b.png") == ()
    assert said(tmp_path / "a.png", "b.jpg") == ("its texts are not kept in b.jpg",)
    assert said(tmp_path / "a.png", "b.tif") == ("its comments and texts are not kept in b.tif",)
    picture = images.read(tmp_path / "a.png")
    images.write(tmp_path / "b.jpg", picture.array, like=picture)
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    with Image.open(tmp_path / "b.jpg") as image:
        assert (image.info["xmp"], image.info["comment"]) == (XMP, b"a comment")
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert tif.pages.first.tags[700].value == XMP


@pytest.mark.parametrize("name", ["gAMA", "cHRM"])
def test_colours_that_png_alone_describes(tmp_path, name):
    info = PngImagePlugin.PngInfo()
    info.add(name.encode(), bytes(4 if name == "gAMA" else 32))
    Image.fromarray(random_pixels((9, 8), "u1")).save(tmp_path / "a.png", pnginfo=info)
    assert said(tmp_path / "a.png", "b.png") == ()
    assert said(tmp_path / "a.png", "b.jpg") == ("its gamma and chromaticities are not kept in b.jpg",)


def test_exif_in_tiff(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    image = Image.fromarray(random_pixels((9, 8), "u1"))
    image.save(tmp_path / "a.jpg", exif=exif)
    assert said(tmp_path / "a.jpg", "b.tif") == ()
    exif.get_ifd(0x8769)[0x829A] = (1, 60)
    image.save(tmp_path / "b.jpg", exif=exif)
    assert said(tmp_path / "b.jpg", "b.tif") == ("its EXIF is not kept in b.tif",)
    assert said(tmp_path / "b.jpg", "b.png") == ()


def test_what_pixels_mean_is_said(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6), "u2"), bitspersample=12, photometric="minisblack")
    assert said(tmp_path / "a.tif", "b.tif") == ()
    (note,) = said(tmp_path / "a.tif", "b.png")
    assert note == "its 12-bit values are not scaled: PNG has 8 or 16 bits, and shows them dark"
    save(tmp_path / "c.tif", (3, 9, 8), "u1", metadata={"axes": "CYX"})
    assert said(tmp_path / "c.tif", "b.jpg") == (
        "its independent channels become red, green and blue: JPEG has no others",
    )
    assert said(tmp_path / "c.tif", "b.tif") == ()


@pytest.mark.parametrize(("samples", "axes"), [(4, "CYXS"), (4, "ZYXS"), (2, "ZYXS")])
def test_alpha_of_an_ome_file_leaves_its_description(tmp_path, samples, axes):
    options = {**(RGB if samples == 4 else {"planarconfig": "contig"}), "extrasamples": ["unassalpha"]}
    metadata = {"axes": axes, "PhysicalSizeX": 0.5, "Channel": {"Name": ["a", "b"][: 1 + (axes[0] == "C")]}}
    pixels = save(tmp_path / "a.tif", (2, 9, 8, samples), "u1", **options, ome=True, metadata=metadata)
    assert said(tmp_path / "a.tif", "b.tif") == ()
    picture = images.read(tmp_path / "a.tif")
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        (series,) = tif.series
        assert (series.kind, series.axes) == ("ome", axes if samples == 4 else "ZYX")
        assert 'PhysicalSizeX="0.5"' in tif.ome_metadata
        assert 'Name="a"' in tif.ome_metadata
        np.testing.assert_array_equal(
            series.asarray(), pixels[..., : samples - 1].squeeze(-1) if samples == 2 else pixels[..., : samples - 1]
        )
    assert images.read(tmp_path / "b.tif").notes == ()


@pytest.mark.parametrize("bigtiff", [False, True])
def test_texts_of_further_pages_are_said(tmp_path, bigtiff):
    for name, texts in {
        "own": ("first", "second page"),
        "same": ("all alike", "all alike"),
        "short": ("a", "b"),
    }.items():
        with tifffile.TiffWriter(tmp_path / f"{name}.tif", bigtiff=bigtiff) as writer:
            for text in texts:
                writer.write(random_pixels((9, 8), "u1"), description=text, metadata=None, photometric="minisblack")
    save(tmp_path / "none.tif", (3, 9, 8), "u1", metadata=None, description="of the first")
    expected = ("its texts of further pages are not kept in b.tif",)
    found = {name: said(tmp_path / f"{name}.tif", "b.tif") for name in ("own", "same", "short", "none")}
    assert found == {"own": expected, "same": (), "short": expected, "none": ()}
