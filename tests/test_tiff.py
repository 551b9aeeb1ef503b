"""TIFF files: kinds and axes that survive a round trip, what is changed on reading, and what it costs."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from tiff_files import RGB, random_pixels, save

from bsdenoise import images
from bsdenoise.images.formats import tiff_writing

ICC_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ALPHA_NOTE = ("its alpha channel is dropped",)


def describe(path):
    """Everything about a file that must survive, in tifffile's view."""
    with tifffile.TiffFile(path) as tif:
        (series,) = tif.series
        page = series.keyframe
        return {
            "kind": series.kind,
            "axes": series.axes,
            "shape": series.shape,
            "type": series.dtype,
            "photometric": page.photometric,
            "planarconfig": page.planarconfig,
            "samples": page.samplesperpixel,
            "extrasamples": page.extrasamples,
            "compression": page.compression,
            "predictor": page.predictor,
            "byteorder": tif.byteorder,
            "big": tif.is_bigtiff,
            "colormap": None if page.colormap is None else page.colormap.tolist(),
            "resolution": (page.tags.valueof(282), page.tags.valueof(283), page.tags.valueof(296)),
        }


def survives(path):
    """What must be found in the copy of a file: all of the above, but floats are written little-endian."""
    found = describe(path)
    return {**found, "byteorder": "<"} if found["type"].kind == "f" else found


def canonical(pixels, axes):
    """Channels last, all other axes flattened to one: a slow twin of what the package does."""
    channel = "S" if "S" in axes else "C" if "C" in axes else ""
    outer = [name for name in axes if name not in f"YX{channel}"]
    sizes = [pixels.shape[axes.index(name)] for name in outer]
    found = []
    for position in np.ndindex(*sizes):
        taken = tuple(position[outer.index(name)] if name in outer else slice(None) for name in axes)
        left = [name for name in axes if name not in outer]
        found.append(np.einsum(pixels[taken], [left.index(n) for n in left], [left.index(n) for n in f"YX{channel}"]))
    array = np.stack(found)
    return array[0] if len(array) == 1 else array if channel else array[..., np.newaxis]


# --- round trips ---------------------------------------------------------------------------------------------------

LABELS = [f"slice {number}" for number in range(12)]
KINDS = {
    # name: shape, type, options of tifffile.imwrite, axes that these mean
    "grey": ((20, 30), "u1", {"metadata": None}, "YX"),
    "one pixel": ((1, 1), "u2", {"metadata": None}, "YX"),
    "rgb": ((20, 30, 3), "u1", {**RGB, "metadata": None}, "YXS"),
    "rgb of 16 bits in planes": ((3, 20, 30), "u2", {**RGB, "planarconfig": "separate"}, "SYX"),
    "rgb float": ((20, 30, 3), "f4", RGB, "YXS"),
    "5 samples": ((20, 30, 5), "u2", {"planarconfig": "contig"}, "YXS"),
    "2 samples in planes": ((2, 20, 30), "f8", {"planarconfig": "separate"}, "SYX"),
    "pages": ((4, 20, 30), "u2", {"metadata": None}, "IYX"),
    "pages of lzw": ((4, 20, 30), "u2", {"metadata": None, "compression": "lzw", "predictor": True}, "IYX"),
    "pages of deflate": ((4, 20, 30), "f2", {"compression": "zlib", "byteorder": ">"}, "QYX"),
    "tiles of deflate": ((2, 50, 40), "f4", {"compression": "zlib", "tile": (16, 32), "predictor": True}, "QYX"),
    "big-endian BigTIFF": (
        (2, 3, 20, 30),
        "f4",
        {"byteorder": ">", "bigtiff": True, "metadata": {"axes": "TCYX"}},
        "TCYX",
    ),
    "channels beside samples": ((2, 9, 8, 3), "u1", {**RGB, "metadata": {"axes": "CYXS"}}, "CYXS"),
    "rows counted in pages": ((20, 30, 5), "u1", {"metadata": {"axes": "YXC"}}, "YXC"),
    "columns first": ((9, 8), "u1", {"metadata": {"axes": "XY"}}, "XY"),
    "axes of length one": ((2, 1, 20, 30), "u1", {"metadata": {"axes": "TCYX"}}, "TCYX"),
    "volume": ((4, 32, 32), "u1", {"volumetric": True, "tile": (2, 16, 16), "metadata": None}, "ZYX"),
    "white is zero": ((20, 30), "u2", {"photometric": "miniswhite", "metadata": None}, "YX"),
    "imagej": (
        (2, 3, 2, 20, 30),
        "u2",
        {
            "imagej": True,
            "resolution": (2.5, 4.5),
            "metadata": {
                "axes": "TZCYX",
                "unit": "um",
                "spacing": 0.5,
                "Labels": LABELS,
                "Ranges": (1.0, 2.0, 3.0, 4.0),
            },
        },
        "TZCYX",
    ),
    "imagej rgb": ((3, 20, 30, 3), "u1", {**RGB, "imagej": True, "metadata": {"axes": "ZYXS"}}, "ZYXS"),
    "imagej float, big-endian": (
        (3, 9, 8),
        "f4",
        {"imagej": True, "byteorder": ">", "metadata": {"axes": "TYX"}},
        "TYX",
    ),
    "imagej with a colour table": (
        (20, 30),
        "u1",
        {"imagej": True, "photometric": None, "colormap": random_pixels((3, 256), "u2")},
        "YX",
    ),
    "imagej of 16 bits with a colour table": (
        (3, 20, 30),
        "u2",
        {"imagej": True, "colormap": random_pixels((3, 256), "u2"), "metadata": {"axes": "ZYX"}},
        "ZYX",
    ),
    "ome": (
        (2, 3, 2, 20, 30),
        "u2",
        {"ome": True, "metadata": {"axes": "TZCYX", "PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "µm"}},
        "TZCYX",
    ),
    "ome rgb": ((3, 20, 30, 3), "u1", {**RGB, "ome": True, "metadata": {"axes": "ZYXS"}}, "ZYXS"),
    "ome, channels first": (
        (2, 3, 20, 30),
        "f4",
        {"ome": True, "metadata": {"axes": "CZYX"}, "compression": "zlib"},
        "CZYX",
    ),
    "ome, modulo": ((2, 3, 5, 20, 30), "u1", {"ome": True, "metadata": {"axes": "TQCYX"}}, "TQCYX"),
}


@pytest.mark.parametrize(("shape", "dtype", "options", "axes"), KINDS.values(), ids=KINDS)
def test_everything_survives_a_round_trip(tmp_path, shape, dtype, options, axes):
    pixels = save(tmp_path / "a.tif", shape, dtype, **options)
    picture = images.read(tmp_path / "a.tif")
    is_inverted = options.get("photometric") == "miniswhite"
    expected = canonical(65535 - pixels if is_inverted else pixels, axes)
    assert (picture.format, picture.array.dtype, picture.notes) == ("TIFF", np.dtype(dtype), ())
    np.testing.assert_array_equal(picture.array, expected)
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    assert describe(tmp_path / "b.tif") == survives(tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), tifffile.imread(tmp_path / "a.tif"))


@pytest.mark.parametrize(("shape", "dtype", "options", "axes"), KINDS.values(), ids=KINDS)
def test_one_image_is_read_as_out_of_the_whole(tmp_path, shape, dtype, options, axes):
    save(tmp_path / "a.tif", shape, dtype, **options)
    whole = images.read(tmp_path / "a.tif").array
    count = images.count(tmp_path / "a.tif")
    assert count == (len(whole) if whole.ndim == 4 else 1)
    for index in {0, count // 2, count - 1}:
        part = images.read_image(tmp_path / "a.tif", index)
        np.testing.assert_array_equal(part.array, whole[index] if whole.ndim == 4 else whole)
    with pytest.raises(ValueError, match=rf"a\.tif: .*there is no image {count}"):
        images.read_image(tmp_path / "a.tif", count)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_axes_survive_a_round_trip(tmp_path, data):
    outer = data.draw(st.lists(st.sampled_from("TZCRHQ"), unique=True, max_size=3))
    samples = data.draw(st.sampled_from(["none", "contig", "separate"]))
    sizes = data.draw(st.tuples(*[st.integers(1, 3)] * len(outer)))
    height, width = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    dtype = data.draw(st.sampled_from(["u1", "u2", "f2", "f4", "f8"]))
    options = {"byteorder": data.draw(st.sampled_from("<>")), "bigtiff": data.draw(st.booleans())}
    options["compression"] = data.draw(st.sampled_from([None, "zlib", "lzw"]))
    options["predictor"] = bool(options["compression"]) and data.draw(st.booleans())
    shape = {"none": (height, width), "contig": (height, width, 3), "separate": (3, height, width)}[samples]
    axes = "".join(outer) + {"none": "YX", "contig": "YXS", "separate": "SYX"}[samples]
    if samples != "none":
        options |= {"photometric": "rgb", "planarconfig": samples}
    pixels = save(tmp_path / "a.tif", (*sizes, *shape), dtype, metadata={"axes": axes}, **options)
    picture = images.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.array, canonical(pixels, axes))
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    assert describe(tmp_path / "b.tif") == survives(tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), pixels)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_axes_of_microscopes_survive_a_round_trip(tmp_path, data):
    kind = data.draw(st.sampled_from(["imagej", "ome"]))
    outer = data.draw(st.lists(st.sampled_from("TZC"), unique=True, max_size=3))
    outer = sorted(outer, key="TZC".index) if kind == "imagej" else outer
    sizes = data.draw(st.tuples(*[st.integers(1, 3)] * len(outer)))
    height, width = data.draw(st.tuples(st.integers(2, 9), st.integers(2, 9)))
    dtype = data.draw(st.sampled_from(["u1", "u2", "f4"]))
    save(tmp_path / "a.tif", (*sizes, height, width), dtype, **{kind: True}, metadata={"axes": f"{''.join(outer)}YX"})
    picture = images.read(tmp_path / "a.tif")
    axes = describe(tmp_path / "a.tif")["axes"]  # without those of length one
    np.testing.assert_array_equal(picture.array, canonical(tifffile.imread(tmp_path / "a.tif"), axes))
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    assert describe(tmp_path / "b.tif") == survives(tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), tifffile.imread(tmp_path / "a.tif"))


def test_imagej_keeps_its_labels_and_units(tmp_path):
    shape, dtype, options, _ = KINDS["imagej"]
    save(tmp_path / "a.tif", shape, dtype, **options)
    images.write(tmp_path / "b.tif", (picture := images.read(tmp_path / "a.tif")).array, like=picture)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        known = tif.imagej_metadata
    assert (known["Labels"], known["unit"], known["spacing"]) == (LABELS, "um", 0.5)
    assert known["Ranges"] == (1.0, 2.0, 3.0, 4.0)


def test_ome_keeps_its_names_and_sizes_letter_by_letter(tmp_path):
    channels = {"Name": ["DAPI", "Zwölf"]}
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "µm", "Channel": channels}
    save(tmp_path / "a.tif", (2, 9, 8), "u2", ome=True, metadata=metadata)
    images.write(tmp_path / "b.tif", (picture := images.read(tmp_path / "a.tif")).array, like=picture)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        description = tif.ome_metadata
    for text in ('Name="DAPI"', "Zwölf", 'PhysicalSizeX="0.3"', 'PhysicalSizeXUnit="µm"', 'Type="uint16"'):
        assert text in description
    assert "UUID" not in description  # it would be that of the other file


def test_ome_planes_in_any_order_come_in_that_of_the_axes(tmp_path):
    # Written by hand: the file's first page is the second plane.
    xml = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">
    <Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="4" SizeY="3" SizeZ="2"
    SizeC="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData FirstZ="1" IFD="0" PlaneCount="1"/>
    <TiffData FirstZ="0" IFD="1" PlaneCount="1"><UUID FileName="a.tif">urn:uuid:1</UUID></TiffData></Pixels></Image>
    </OME>"""
    pixels = random_pixels((2, 3, 4), "u1")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", metadata=None, description=xml.encode())
    picture = images.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.array[..., 0], pixels[::-1])
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), pixels[::-1])
    assert describe(tmp_path / "b.tif") == survives(tmp_path / "a.tif")


def test_texts_and_profiles_are_kept(tmp_path):
    extra = [(315, 2, 0, "someone", True), (274, 3, 1, 6, True)]
    options = {"description": "a text", "software": "scanner 1", "iccprofile": ICC_PROFILE, "extratags": extra}
    save(tmp_path / "a.tif", (9, 8, 3), "u1", **RGB, resolution=(300, 150), resolutionunit="INCH", **options)
    picture = images.read(tmp_path / "a.tif")
    assert (picture.metadata["icc_profile"], picture.metadata["dpi"]) == (ICC_PROFILE, (300, 150))
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    with Image.open(tmp_path / "b.tif") as image:
        assert image.info["dpi"] == (300, 150)
        assert image.info["icc_profile"] == ICC_PROFILE
        assert [image.tag_v2[code] for code in (305, 315, 274)] == ["scanner 1", "someone", 6]
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].description.startswith("a text")


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_other_compressions_become_deflate(tmp_path, tile):
    save(tmp_path / "a.tif", (40, 48, 3), "u1", **RGB, compression="jpeg", tile=tile)
    picture = images.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.array, tifffile.imread(tmp_path / "a.tif"))
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    found = describe(tmp_path / "b.tif")
    assert (found["compression"].name, found["photometric"].name) == ("ADOBE_DEFLATE", "RGB")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), picture.array)


@pytest.mark.parametrize("kind", ["plain", "imagej"])
def test_large_stacks_become_bigtiff(tmp_path, monkeypatch, kind):
    options = {"metadata": None} if kind == "plain" else {"imagej": True, "metadata": {"axes": "ZYX"}}
    save(tmp_path / "a.tif", (3, 9, 8), "u2", **options)
    picture = images.read(tmp_path / "a.tif")
    monkeypatch.setattr(tiff_writing, "MAX_CLASSIC_BYTES", picture.array.nbytes - 1)
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    assert describe(tmp_path / "b.tif") == {**describe(tmp_path / "a.tif"), "big": True}


# --- alpha, palettes, pyramids -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "axes"),
    [
        ((9, 8, 4), RGB, "YXS"),
        ((4, 9, 8), {**RGB, "planarconfig": "separate", "extrasamples": ["assocalpha"]}, "SYX"),
        ((2, 9, 8, 4), {**RGB, "ome": True, "metadata": {"axes": "ZYXS"}}, "ZYXS"),
        ((9, 8, 2), {"planarconfig": "contig", "extrasamples": ["unassalpha"]}, "YX"),
        ((9, 8, 5), {**RGB, "extrasamples": ["unspecified", "unassalpha"]}, "YXS"),
    ],
    ids=["rgba", "rgba in planes", "ome", "grey", "another sample"],
)
def test_alpha_is_dropped_with_a_note(tmp_path, shape, options, axes):
    pixels = save(tmp_path / "a.tif", shape, "u1", **options)
    picture = images.read(tmp_path / "a.tif")
    samples = canonical(pixels, axes if "S" in axes else "YXS")[..., :-1]
    np.testing.assert_array_equal(picture.array, samples if "S" in axes else samples[..., 0])
    assert picture.notes == ALPHA_NOTE
    assert images.read_image(tmp_path / "a.tif").notes == ALPHA_NOTE
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    again = images.read(tmp_path / "b.tif")
    np.testing.assert_array_equal(again.array, picture.array)
    assert again.notes == ()
    assert (describe(tmp_path / "b.tif")["axes"], describe(tmp_path / "b.tif")["kind"]) == (
        axes,
        describe(tmp_path / "a.tif")["kind"],
    )


@pytest.mark.parametrize("is_grey", [False, True], ids=["rgb", "grey"])
def test_palettes_become_colours_with_a_note(tmp_path, is_grey):
    colours = random_pixels((256, 1 if is_grey else 3), "u1") * np.ones((1, 3), np.uint8)
    pixels = random_pixels((7, 9), "u1")
    image = Image.fromarray(pixels).convert("P")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.tif", compression="tiff_lzw")
    picture = images.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.array, colours[pixels][..., 0] if is_grey else colours[pixels])
    (note,) = picture.notes
    assert note.startswith(f"its palette is turned into {'grey' if is_grey else 'RGB'}")
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    again = images.read(tmp_path / "b.tif")
    np.testing.assert_array_equal(again.array, picture.array)
    assert again.notes == ()


@pytest.mark.parametrize("is_ome", [False, True])
def test_of_a_pyramid_the_full_resolution_is_used(tmp_path, is_ome):
    pixels = random_pixels((64, 48), "u1")
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=is_ome) as writer:
        writer.write(pixels, subifds=1, photometric="minisblack")
        writer.write(pixels[::2, ::2], subfiletype=1, photometric="minisblack")
    picture = images.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.array, pixels)
    assert picture.notes == ("only the full resolution of its pyramid is used",)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_files_by_pillow_are_read_as_pillow_reads_them(tmp_path, mode, compression):
    dtype = {"I;16": "u2", "F": "f4"}.get(mode, "u1")
    pixels = random_pixels((17, 23, 3) if mode == "RGB" else (17, 23), dtype)
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif").array, pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_stacks_by_pillow_are_read(tmp_path, mode):
    pixels = random_pixels((3, 17, 23, 4) if mode == "RGBA" else (3, 17, 23), "u1")
    first, *others = map(Image.fromarray, pixels)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others, compression="tiff_lzw")
    picture = images.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.array, pixels[..., :3] if mode == "RGBA" else pixels[..., np.newaxis])
    assert picture.notes == (ALPHA_NOTE if mode == "RGBA" else ())
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    with Image.open(tmp_path / "b.tif") as image:
        for index in range(3):
            image.seek(index)
            np.testing.assert_array_equal(
                np.asarray(image), pixels[index][..., :3] if mode == "RGBA" else pixels[index]
            )


def test_stacks_are_read_in_threads(tmp_path):
    names = [tmp_path / f"{number}.tif" for number in range(3)]
    stacks = [save(name, (8, 40, 30), "u2", compression="zlib") for name in names]
    with ThreadPoolExecutor(8) as pool:
        places = [(number % 3, number % 8) for number in range(48)]
        found = pool.map(lambda place: images.read_image(names[place[0]], place[1]).array, places)
        for (name, index), array in zip(places, found, strict=True):
            np.testing.assert_array_equal(array[..., 0], stacks[name][index])


# --- across formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 3)], ids=str)
@pytest.mark.parametrize("other", ["png", "jpg"])
def test_profile_resolution_and_orientation_go_to_other_formats_and_back(tmp_path, shape, other):
    options = {**RGB, "iccprofile": ICC_PROFILE} if len(shape) == 3 else {"iccprofile": ICC_PROFILE}
    extra = [(274, 3, 1, 6, True)]
    save(
        tmp_path / "a.tif", shape, "u1", resolution=(100, 100), resolutionunit="CENTIMETER", extratags=extra, **options
    )
    picture = images.read(tmp_path / "a.tif")
    images.write(tmp_path / f"b.{other}", picture.array, like=picture)
    middle = images.read(tmp_path / f"b.{other}")
    images.write(tmp_path / "c.tif", middle.array, like=middle)
    for name in (f"b.{other}", "c.tif"):
        with Image.open(tmp_path / name) as image:
            assert image.info["icc_profile"] == ICC_PROFILE
            assert image.info["dpi"] == pytest.approx((254, 254), abs=0.1)
            assert image.getexif()[274] == 6
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "c.tif"), middle.array)  # Pillow would turn it


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((9, 8), "YX"),
        ((9, 8, 1), "YX"),
        ((9, 8, 3), "YXS"),
        ((9, 8, 5), "CYX"),
        ((2, 9, 8, 1), "QYX"),
        ((2, 9, 8, 3), "QYXS"),
        ((2, 9, 8, 5), "QCYX"),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_arrays_are_written_as_new_files(tmp_path, shape, axes, dtype):
    pixels = random_pixels(shape, dtype)
    images.write(tmp_path / "a.tif", pixels)
    found = describe(tmp_path / "a.tif")
    assert (found["axes"], found["compression"].name) == (axes, "ADOBE_DEFLATE")
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif").array.reshape(shape), pixels)


def test_a_stack_does_not_fit_into_a_png(tmp_path):
    save(tmp_path / "a.tif", (2, 9, 8), "u1")
    picture = images.read(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"b\.png: PNG holds grey or RGB images. Received: shape=\(2, 9, 8, 1\)"):
        images.check_writable(tmp_path / "b.png", picture.shape, picture.array.dtype)


def test_a_tiff_of_another_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"b\.tif: Pixels must be uint8, uint16 or floats. Received: dtype=int32"):
        images.write(tmp_path / "b.tif", np.zeros((3, 3), np.int32))


@pytest.mark.parametrize("kind", ["imagej rgb", "ome", "rgb"])
def test_floats_may_take_the_place_of_integers(tmp_path, kind):
    shape, dtype, options, axes = KINDS[kind]
    save(tmp_path / "a.tif", shape, dtype, **options)
    with images.opened(tmp_path / "a.tif") as file:
        images.write(tmp_path / "b.tif", np.full(file.shape, 0.5, np.float32), like=file)
    found = describe(tmp_path / "b.tif")
    assert (found["axes"], found["type"]) == (axes, np.float32)
    assert (tifffile.imread(tmp_path / "b.tif") == 0.5).all()


# --- costs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_one_image_costs_the_memory_of_one_image(tmp_path, compression):
    pixels = np.zeros((64, 128, 128), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", compression=compression)
    images.read_image(tmp_path / "a.tif", 0)
    tracemalloc.start()
    images.read_image(tmp_path / "a.tif", 63)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * pixels[0].nbytes


def test_a_stack_is_written_without_a_copy(tmp_path):
    save(tmp_path / "a.tif", (32, 2, 64, 64), "f4", metadata={"axes": "ZCYX"})
    with images.opened(tmp_path / "a.tif") as file:
        array = file.read_all()
        tracemalloc.start()
        images.write(tmp_path / "b.tif", array, like=file)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < array.nbytes / 2


def test_images_of_one_page_do_not_share_memory(tmp_path):
    pixels = save(tmp_path / "a.tif", *KINDS["volume"][:2], **KINDS["volume"][2])
    with images.opened(tmp_path / "a.tif") as file:
        file.read(1)[...] = 0
        np.testing.assert_array_equal(file.read(1)[..., 0], pixels[1])


def test_a_file_that_has_changed_is_read_anew(tmp_path):
    save(tmp_path / "a.tif", (2, 9, 8), "u1")
    assert images.count(tmp_path / "a.tif") == 2
    save(tmp_path / "a.tif", (5, 7, 6), "u2")
    assert images.count(tmp_path / "a.tif") == 5
    assert images.read_image(tmp_path / "a.tif", 4).array.shape == (7, 6, 1)
