"""Zarr stores come out as they went in: what their files say, pyramids, shards, versions."""

import itertools
import json
import subprocess
import sys
import warnings

import numcodecs
import numpy as np
import pytest
import zarr
from zarr_files import attributes_of, pixels_of, save_ome

from bsdenoise import images
from bsdenoise.images.formats import zarr_pyramid


def copied(source, target, dtype=None):
    """Copies a file in windows of odd sizes."""
    with images.opened(source) as file:
        height, width = file.shape[-3:-1] if len(file.shape) > 2 else file.shape
        with images.writing(target, file.shape, dtype or file.dtype, file) as written:
            for index in range(len(file)):
                for top, left in itertools.product(range(0, height, 13), range(0, width, 21)):
                    window = slice(top, min(top + 13, height)), slice(left, min(left + 21, width))
                    written.write_window(index, *window, file.read_window(index, *window))
        return file


def described(store):
    """Content of all files that describe a store, by their paths."""
    names = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
    return {
        str(path.relative_to(store)): json.loads(path.read_text())
        for path in sorted(store.rglob("*"))
        if path.name in names
    }


def chunks_of(store):
    """Paths of all other files."""
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()} - set(described(store))


SHAPES = {"t": 2, "c": 3, "z": 5, "y": 45, "x": 37}
IMAGES = {
    "0.5": ("tczyx", "0.5", {"labels": ["DAPI", "GFP", "BF"]}),
    "0.5 in shards": ("czyx", "0.5", {"chunks": (1, 2, 8, 8), "shards": (2, 4, 32, 16)}),
    "0.5 grey": ("yx", "0.5", {}),
    "0.4": ("tczyx", "0.4", {"labels": ["a", "b", "c"]}),
    "0.4 with other paths": ("cyx", "0.4", {"paths": ("full", "smaller/half")}),
    "0.4 in deep chunks": ("tzyx", "0.4", {"chunks": (2, 3, 16, 16)}),
    "0.5 in three levels": ("zyx", "0.5", {"paths": ("0", "1", "2")}),
}


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32"])
@pytest.mark.parametrize(("names", "version", "options"), IMAGES.values(), ids=IMAGES)
def test_an_image_comes_out_as_it_went_in(tmp_path, names, version, options, dtype):
    """All files that describe it are equal, the same chunks are there, and so are the pixels of full resolution."""
    pixels = pixels_of(tuple(SHAPES[name] for name in names), dtype)
    save_ome(tmp_path / "a.zarr", pixels, names, version, **({"paths": ("0", "1")} | options))
    file = copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert file.independent_channels == ("c" in names) and file.notes == ()
    before, after = described(tmp_path / "a.zarr"), described(tmp_path / "b.zarr")
    assert after == before
    assert chunks_of(tmp_path / "b.zarr") == chunks_of(tmp_path / "a.zarr")
    full = options.get("paths", ("0",))[0]
    np.testing.assert_array_equal(zarr.open_group(str(tmp_path / "b.zarr"), mode="r")[full][...], pixels)


ARRAYS = {
    "3 in shards": {"shards": (2, 32, 32), "chunks": (1, 16, 8), "fill_value": 9, "dimension_names": ("z", "y", "x")},
    "3 with codecs": {
        "chunks": (1, 20, 20),
        "compressors": zarr.codecs.BloscCodec(cname="lz4", clevel=3),
        "serializer": zarr.codecs.BytesCodec(endian="big"),
        "filters": [zarr.codecs.TransposeCodec(order=(2, 1, 0))],
    },
    "3 with dots": {"chunks": (1, 20, 20), "chunk_key_encoding": {"name": "default", "separator": "."}},
    "3 with keys of 2": {"chunks": (1, 20, 20), "chunk_key_encoding": {"name": "v2", "separator": "."}},
    "2 with dots": {"zarr_format": 2, "chunks": (1, 20, 20), "fill_value": 3},
    "2 with slashes": {"zarr_format": 2, "chunks": (2, 20, 20), "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "2 with filters": {
        "zarr_format": 2,
        "chunks": (1, 20, 20),
        "filters": [numcodecs.Delta("<u2")],
        "compressors": numcodecs.Blosc("zstd", shuffle=numcodecs.Blosc.BITSHUFFLE),
        "order": "F",
    },
    "2 not compressed": {"zarr_format": 2, "chunks": (1, 20, 20), "compressors": None, "fill_value": None},
}


@pytest.mark.parametrize("options", ARRAYS.values(), ids=ARRAYS)
def test_an_array_comes_out_as_it_went_in(tmp_path, options):
    pixels = pixels_of((5, 45, 37))
    attributes = {"lab": 1, "scale": [1, 2]}
    zarr.create_array(str(tmp_path / "a.zarr"), data=pixels, attributes=attributes, **options)
    copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert described(tmp_path / "b.zarr") == described(tmp_path / "a.zarr")
    assert chunks_of(tmp_path / "b.zarr") == chunks_of(tmp_path / "a.zarr")
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "b.zarr"), mode="r")[...], pixels)


@pytest.mark.parametrize(("names", "version", "options"), IMAGES.values(), ids=IMAGES)
def test_uncertainties_have_all_but_the_type(tmp_path, names, version, options):
    """A store of floats like one of integers, as `--std` writes it."""
    pixels = pixels_of(tuple(SHAPES[name] for name in names))
    save_ome(tmp_path / "a.zarr", pixels, names, version, **options)
    copied(tmp_path / "a.zarr", tmp_path / "b.zarr", "float32")
    before, after = described(tmp_path / "a.zarr"), described(tmp_path / "b.zarr")
    for name in before:
        for key in ("data_type", "dtype", "fill_value", "codecs"):
            before[name].pop(key, None)
            after[name].pop(key, None)
    assert after == before
    group = zarr.open_group(str(tmp_path / "b.zarr"), mode="r")
    full = group[options.get("paths", ("0",))[0]]
    assert full.dtype == np.float32
    np.testing.assert_array_equal(full[...], pixels)


@pytest.mark.parametrize("version", [2, 3])
def test_consolidated_metadata_is_written_again(tmp_path, version):
    group = save_ome(tmp_path / "a.zarr", pixels_of((45, 37)), "yx", "0.4" if version == 2 else "0.5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(group.store)
    copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert described(tmp_path / "b.zarr") == described(tmp_path / "a.zarr")


def test_an_image_is_written_as_the_specification_wants_it(tmp_path):
    """Names of dimensions and the separator "/", even if the input lacked them."""
    attributes = attributes_of("cyx", "0.5")
    for dataset in attributes["ome"]["multiscales"][0]["datasets"]:
        del dataset["coordinateTransformations"]
    group = zarr.create_group(str(tmp_path / "a.zarr"), attributes=attributes)
    group.create_array("0", data=pixels_of((3, 45, 37)), chunk_key_encoding={"name": "v2", "separator": "."})
    copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    found = described(tmp_path / "b.zarr")
    assert found["0/zarr.json"]["dimension_names"] == ["c", "y", "x"]
    assert found["0/zarr.json"]["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
    (dataset,) = found["zarr.json"]["attributes"]["ome"]["multiscales"][0]["datasets"]
    assert dataset["coordinateTransformations"] == [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]


# --- earlier and later versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
@pytest.mark.parametrize("is_said", [True, False])
def test_earlier_versions_are_written_as_0_4(tmp_path, version, is_said):
    names = "tczyx" if version != "0.3" else "cyx"
    pixels = pixels_of(tuple(SHAPES[name] for name in names))
    group = save_ome(tmp_path / "a.zarr", pixels, names, version, paths=("0", "1"))
    if not is_said:
        attributes = dict(group.attrs)
        del attributes["multiscales"][0]["version"]
        group.attrs.put(attributes)
    file = copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    said = version if is_said else max(version, "0.2")
    assert file.shape == ((10, 45, 37, 3) if version != "0.3" else (45, 37, 3))
    assert file.notes == (f"OME-Zarr {said}, which is written as 0.4",)
    found = described(tmp_path / "b.zarr")
    image = found[".zattrs"]["multiscales"][0]
    assert image.get("version") == ("0.4" if is_said else None) and image["name"] == "an image"
    assert [axis["name"] for axis in image["axes"]] == list(names)
    assert [axis["type"] for axis in image["axes"][-3:]] == (
        ["space"] * 3 if "z" in names else ["channel", *["space"] * 2]
    )
    halves = [2.0 if name in "yx" else 1.0 for name in names]
    assert [dataset["coordinateTransformations"] for dataset in image["datasets"]] == [
        [{"type": "scale", "scale": [1.0] * len(names)}],
        [{"type": "scale", "scale": halves}],
    ]
    assert found["0/.zarray"]["dimension_separator"] == "/"
    np.testing.assert_array_equal(zarr.open_group(str(tmp_path / "b.zarr"), mode="r")["0"][...], pixels)


@pytest.mark.parametrize("version", ["0.6", "0.6.dev3", "1.0", "two"])
def test_later_versions_are_refused(tmp_path, version):
    attributes = attributes_of("yx", "0.5")
    attributes["ome"]["version"] = version
    group = zarr.create_group(str(tmp_path / "a.zarr"), attributes=attributes)
    group.create_array("0", data=pixels_of((45, 37)))
    with pytest.raises(
        ValueError, match=rf"a\.zarr: .*OME-Zarr {version} is not known; convert it to one of 0.1 to 0.5"
    ):
        images.read(tmp_path / "a.zarr")
    assert images.read(tmp_path / "a.zarr/0").shape == (45, 37)


# --- channels, labels, and what is broken --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "is_rgb"),
    [
        (["red", "Green", "BLUE"], True),
        (["R", "g", "b"], True),
        (["Red dye", "green", "blue"], False),
        (["blue", "green", "red"], False),
        (["DAPI", "GFP", "BF"], False),
        (None, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_are_colours_where_they_are_called_so(tmp_path, labels, is_rgb, version):
    save_ome(tmp_path / "a.zarr", pixels_of((3, 45, 37)), "cyx", version, labels=labels)
    with images.opened(tmp_path / "a.zarr") as file:
        assert file.is_rgb == is_rgb and file.independent_channels == (not is_rgb)
    assert images.read(tmp_path / "a.zarr").independent_channels == (not is_rgb)


def test_axes_by_their_types(tmp_path):
    """Names are free: the last two axes in space are rows and columns, and channels those that are called so."""
    pixels = pixels_of((3, 5, 45, 37))
    attributes = attributes_of("czyx", "0.5")
    for axis, name in zip(attributes["ome"]["multiscales"][0]["axes"], ("dye", "plane", "north", "east"), strict=True):
        axis["name"] = name
    group = zarr.create_group(str(tmp_path / "a.zarr"), attributes=attributes)
    group.create_array("0", data=pixels, dimension_names=("dye", "plane", "north", "east"))
    file = copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert file.shape == (5, 45, 37, 3) and file.independent_channels
    found = zarr.open_group(str(tmp_path / "b.zarr"), mode="r")["0"]
    assert found.metadata.dimension_names == ("dye", "plane", "north", "east")
    np.testing.assert_array_equal(found[...], pixels)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_left_out_with_a_note(tmp_path, version):
    group = save_ome(tmp_path / "a.zarr", pixels_of((45, 37)), "yx", version)
    labels = {"labels": ["cells", "nuclei"]}
    group.create_group("labels", attributes={"ome": labels} if version == "0.5" else labels)
    group = group["labels"]
    save_ome("cells", pixels_of((45, 37), "uint8"), "yx", version, group=group, **{"image-label": {}})
    file = copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert file.notes == ("its labels (cells, nuclei) are left out",)
    assert not (tmp_path / "b.zarr/labels").exists()
    with pytest.raises(ValueError, match="cells: cannot be read as Zarr: it is an image of labels"):
        images.read(tmp_path / "a.zarr/labels/cells")


def test_levels_that_do_not_fit_are_left_out(tmp_path):
    group = save_ome(tmp_path / "a.zarr", pixels_of((45, 37)), "yx", "0.5", paths=("0", "1", "2"))
    group.create_array("1", data=pixels_of((90, 74)), overwrite=True)
    file = copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert file.notes == ("its levels 1, 2 are left out, as they do not fit those above",)
    image = described(tmp_path / "b.zarr")["zarr.json"]["attributes"]["ome"]["multiscales"][0]
    assert [dataset["path"] for dataset in image["datasets"]] == ["0"]
    assert sorted(zarr.open_group(str(tmp_path / "b.zarr"), mode="r").array_keys()) == ["0"]


BROKEN = {
    "no datasets": (lambda image: image.pop("datasets"), "its `multiscales` are not as OME-Zarr has them"),
    "none of them": (lambda image: image.update(datasets=[]), "its `multiscales` are not as OME-Zarr has them"),
    "axes without names": (lambda image: image.update(axes=[{}, {}]), "its `multiscales` are not as OME-Zarr has them"),
    "a missing array": (lambda image: image.update(datasets=[{"path": "9"}]), "its array 9 is missing"),
    "a path outside": (
        lambda image: image.update(datasets=[{"path": "../b.zarr/0"}]),
        "it names .*, which is no path inside of it",
    ),
    "an absolute path": (
        lambda image: image.update(datasets=[{"path": "/tmp/0"}]),
        "it names .*, which is no path inside of it",
    ),
    "other axes": (lambda image: image.update(axes=[{"name": "z"}, {"name": "x"}]), "its axes 'zx' are not those of"),
    "too many axes": (
        lambda image: image.update(axes=[{"name": name} for name in "zyx"]),
        r"its axes 'zyx' are not those of images of the shape \(45, 37\)",
    ),
}


@pytest.mark.parametrize(("damage", "match"), BROKEN.values(), ids=BROKEN)
def test_broken_images(tmp_path, damage, match):
    group = save_ome(tmp_path / "a.zarr", pixels_of((45, 37)), "yx")
    attributes = dict(group.attrs)
    damage(attributes["ome"]["multiscales"][0])
    group.attrs.put(attributes)
    with pytest.raises(ValueError, match=rf"a\.zarr: cannot be read as Zarr: {match}"):
        images.read(tmp_path / "a.zarr")


def test_a_group_of_arrays_names_them(tmp_path):
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    for name in ("wind", "rain"):
        group.create_array(name, data=pixels_of((45, 37)), dimension_names=("lat", "lon"))
    with pytest.raises(ValueError, match="without the `multiscales` of OME-Zarr; name one of its arrays: rain, wind"):
        images.read(tmp_path / "a.zarr")
    assert images.read(tmp_path / "a.zarr/rain").shape == (45, 37)


@pytest.mark.parametrize(
    ("value", "no_data"), [(9, 9.0), ("AAAAAACI00A=", 20000.0), ("AAAAAAAA+H8=", None), ("none", None), (None, None)]
)
def test_a_fill_value_of_the_attributes_marks_no_data(tmp_path, value, no_data):
    zarr.create_array(str(tmp_path / "a.zarr"), data=pixels_of((45, 37)), attributes={"_FillValue": value})
    assert images.read(tmp_path / "a.zarr").no_data == no_data


# --- pyramids ------------------------------------------------------------------------------------------------------


def slow_means(above, shape, block):
    """Means of blocks by loops; the last block of an axis may be cut short."""
    result = np.zeros(shape)
    for place in np.ndindex(*shape):
        box = tuple(slice(at * size, at * size + size) for at, size in zip(place, block, strict=True))
        result[place] = above[box].astype(np.float64).mean()
    return result


LEVELS = {
    "even": ((16, 12), (8, 6), (2, 2)),
    "odd, rounded up": ((45, 37), (23, 19), (2, 2)),
    "odd, rounded down": ((45, 37), (22, 18), (2, 2)),
    "depth too": ((5, 45, 37), (3, 23, 19), (2, 2, 2)),
    "not depth": ((5, 45, 37), (5, 23, 19), (1, 2, 2)),
    "by three": ((46, 37), (16, 13), (3, 3)),
    "by four": ((3, 45, 37), (3, 12, 9), (1, 4, 4)),
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("shape", "lower", "block"), LEVELS.values(), ids=LEVELS)
def test_lower_levels_are_means_of_blocks(tmp_path, monkeypatch, shape, lower, block, dtype):
    monkeypatch.setattr(zarr_pyramid, "BATCH_VALUES", 100)  # many parts
    names = "zyx"[-len(shape) :]
    pixels = pixels_of(shape, dtype)
    group = zarr.create_group(str(tmp_path / "a.zarr"), attributes=attributes_of(names, "0.5", ("0", "1")))
    chunks = (2, 16, 16)[-len(shape) :]
    group.create_array("0", data=pixels, chunks=chunks)
    group.create_array("1", data=np.zeros(lower, dtype), chunks=chunks)
    copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    found = zarr.open_group(str(tmp_path / "b.zarr"), mode="r")["1"][...]
    expected = slow_means(pixels, lower, block)
    assert found.dtype == dtype
    if dtype == "float32":
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        assert np.abs(found - expected).max() <= 0.5 and (found != expected).any()


def test_levels_of_no_whole_ratio_use_every_pixel_once():
    for above, below in [(100, 30), (10, 7), (5, 4), (7, 7)]:
        cuts = zarr_pyramid.edges(above, below)
        assert cuts[0] == 0 and cuts[-1] == above and (np.diff(cuts) >= 1).all() and len(cuts) == below + 1
        assert np.ptp(np.diff(cuts)) <= 1


def test_how_levels_were_made_is_said_as_it_is(tmp_path):
    group = save_ome(tmp_path / "a.zarr", pixels_of((45, 37)), "yx", "0.5", paths=("0", "1"))
    attributes = dict(group.attrs)
    attributes["ome"]["multiscales"][0] |= {"type": "gaussian", "metadata": {"method": "skimage.transform"}}
    group.attrs.put(attributes)
    copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    image = described(tmp_path / "b.zarr")["zarr.json"]["attributes"]["ome"]["multiscales"][0]
    assert image["type"] == "mean" and "metadata" not in image


# --- chunks and shards ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (1, 8, 8), "shards": (4, 32, 16)},
        {"chunks": (5, 64, 64), "shards": (5, 64, 64)},
        {"chunks": (1, 16, 16)},
        {"chunks": (3, 16, 16)},
    ],
    ids=["shards", "one shard", "chunks", "deep chunks"],
)
def test_every_shard_is_written_once_and_never_read(tmp_path, monkeypatch, options):
    zarr.create_array(str(tmp_path / "a.zarr"), data=pixels_of((5, 45, 37)), dimension_names=tuple("zyx"), **options)
    written, read = [], []
    set_one, get_one = zarr.storage.LocalStore.set, zarr.storage.LocalStore.get

    async def noted_set(self, key, *arguments, **more):
        written.append(key)
        return await set_one(self, key, *arguments, **more)

    async def noted_get(self, key, *arguments, **more):
        found = await get_one(self, key, *arguments, **more)
        if found is not None and self.root != tmp_path / "a.zarr":
            read.append(key)
        return found

    monkeypatch.setattr(zarr.storage.LocalStore, "set", noted_set)
    monkeypatch.setattr(zarr.storage.LocalStore, "get", noted_get)
    copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert sorted(written) == sorted(chunks_of(tmp_path / "b.zarr")) != []
    assert set(read) <= {"zarr.json", ".zarray", ".zattrs", ".zgroup"}


def test_images_in_another_order(tmp_path):
    """Deep chunks are filled little by little, whatever comes in between."""
    pixels = pixels_of((2, 5, 45, 37))
    options = {"chunks": (2, 3, 16, 16), "dimension_names": tuple("tzyx")}
    zarr.create_array(str(tmp_path / "a.zarr"), data=pixels, **options)
    with images.opened(tmp_path / "a.zarr") as file:
        with images.writing(tmp_path / "b.zarr", file.shape, file.dtype, file) as written:
            for index in (7, 0, 4, 9, 1, 5, 8, 2, 3, 6):
                written.write_window(index, slice(0, 45), slice(0, 37), file.read(index))
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "b.zarr"), mode="r")[...], pixels)


COPY = """
import sys
from bsdenoise import images
source, target = sys.argv[1:]
peak = lambda: int(dict(line.split(":") for line in open("/proc/self/status"))["VmHWM"].split()[0]) // 1024
with images.opened(source) as file:
    before = peak()
    height, width = file.shape[1:3]
    with images.writing(target, file.shape, file.dtype, file) as written:
        for index in range(len(file)):
            for top in range(0, height, 1000):
                window = slice(top, min(top + 1000, height)), slice(0, width)
                written.write_window(index, *window, file.read_window(index, *window))
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_of_shards_and_pyramids(tmp_path):
    """300 MB in shards through all planes, with a pyramid, pass through less memory; a shard alone is 32 MB."""
    group = zarr.create_group(str(tmp_path / "a.zarr"), attributes=attributes_of("zyx", "0.5", ("0", "1")))
    for name, shape in (("0", (16, 3000, 3000)), ("1", (16, 1500, 1500))):
        array = group.create_array(
            name,
            shape=shape,
            dtype="uint16",
            chunks=(1, 256, 256),
            shards=(16, 1024, 1024),
            dimension_names=tuple("zyx"),
        )
        array[...] = np.broadcast_to(np.arange(100, 116, dtype="uint16")[:, np.newaxis, np.newaxis], shape)
    arguments = [sys.executable, "-c", COPY, str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr")]
    answer = subprocess.run(arguments, check=True, capture_output=True, text=True)
    found = zarr.open_group(str(tmp_path / "b.zarr"), mode="r")
    for level in ("0", "1"):
        assert (found[level][...] == np.arange(100, 116)[:, np.newaxis, np.newaxis]).all()
    assert int(answer.stdout) < 250


# --- as others read them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["yx", "czyx"])
def test_xarray_opens_an_image(tmp_path, names):
    xarray = pytest.importorskip("xarray")
    pixels = pixels_of(tuple(SHAPES[name] for name in names))
    save_ome(tmp_path / "a.zarr", pixels, names)
    copied(tmp_path / "a.zarr", tmp_path / "b.zarr")
    with xarray.open_zarr(tmp_path / "b.zarr", consolidated=False, mask_and_scale=False, chunks=None) as found:
        assert found["0"].dims == tuple(names)
        np.testing.assert_array_equal(found["0"].values, pixels)
