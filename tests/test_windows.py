"""Windows of image files: read without the rest, written one after the other, and equal to the whole."""

import errno
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr

from bsdenoise import atomic, images
from bsdenoise.images.formats import tiff_writing


def pixels_of(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def tiff(**options):
    return lambda path, pixels: tifffile.imwrite(path, pixels, **options)


def save_npy(path, pixels):
    np.save(path, pixels)


def save_zarr(path, pixels):
    chunks = tuple(min(side, 16) for side in pixels.shape)
    zarr.create_array(str(path), data=pixels, chunks=chunks)


def save_zarr_2(path, pixels):
    zarr.create_array(str(path), data=pixels, chunks=tuple(min(side, 16) for side in pixels.shape), zarr_format=2)


def save_ome_zarr(axes, version="0.5"):
    def save(path, pixels):
        image = {"axes": [{"name": name} for name in axes], "datasets": [{"path": "full"}, {"path": "half"}]}
        attributes = (
            {"multiscales": [image]} if version == "0.4" else {"ome": {"version": version, "multiscales": [image]}}
        )
        group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3, attributes=attributes)
        group.create_array("full", data=pixels, chunks=tuple(min(side, 16) for side in pixels.shape))
        half = np.ascontiguousarray(pixels[..., ::2, ::2])
        group.create_array("half", data=half)

    return save


TILED = {"tile": (16, 32), "compression": "deflate", "predictor": True}
FILES = {
    "png": ("a.png", (45, 37, 3), "uint8", lambda path, pixels: images.write(path, pixels), False),
    "npy": ("a.npy", (45, 37, 3), "uint16", save_npy, True),
    "npy-grey": ("a.npy", (45, 37), "float32", save_npy, True),
    "npy-stack": ("a.npy", (3, 45, 37), "uint8", save_npy, True),
    "npy-big-endian": ("a.npy", (2, 45, 37, 3), ">u2", save_npy, True),
    "npy-fortran": (
        "a.npy",
        (45, 37, 3),
        "uint8",
        lambda path, pixels: np.save(path, np.asfortranarray(pixels)),
        True,
    ),
    "tiff-bare": ("a.tif", (45, 37, 3), "uint8", tiff(photometric="rgb"), True),
    "tiff-bare-big-endian": ("a.tif", (45, 37), "uint16", tiff(byteorder=">"), True),
    "tiff-tiles": ("a.tif", (45, 37, 3), "uint8", tiff(photometric="rgb", **TILED), True),
    "tiff-tiles-grey-float": ("a.tif", (45, 37), "float32", tiff(**TILED), True),
    "tiff-tiles-inverted": ("a.tif", (45, 37), "uint8", tiff(photometric="miniswhite", **TILED), True),
    "tiff-tiles-alpha": (
        "a.tif",
        (45, 37, 4),
        "uint8",
        tiff(photometric="rgb", extrasamples=["unassalpha"], **TILED),
        True,
    ),
    "tiff-tiles-planar": (
        "a.tif",
        (3, 45, 37),
        "uint8",
        tiff(photometric="rgb", planarconfig="separate", **TILED),
        True,
    ),
    "tiff-tiles-stack": (
        "a.tif",
        (3, 45, 37),
        "uint16",
        tiff(photometric="minisblack", metadata={"axes": "ZYX"}, **TILED),
        True,
    ),
    "tiff-tiles-hyperstack": (
        "a.tif",
        (2, 4, 45, 37),
        "uint8",
        tiff(photometric="minisblack", metadata={"axes": "TCYX"}, **TILED),
        True,
    ),
    "tiff-strips": ("a.tif", (45, 37), "uint8", tiff(rowsperstrip=8, compression="lzw"), True),
    "tiff-one-strip": ("a.tif", (45, 37), "uint8", tiff(rowsperstrip=45, compression="lzw"), True),
    "tiff-imagej": ("a.tif", (2, 3, 45, 37), "uint16", tiff(imagej=True, metadata={"axes": "TCYX"}), True),
    "tiff-big": ("a.tif", (45, 37, 3), "uint8", tiff(photometric="rgb", bigtiff=True, **TILED), True),
    "zarr": ("a.zarr", (45, 37), "uint8", save_zarr, True),
    "zarr-colour": ("a.zarr", (45, 37, 3), "uint16", save_zarr, True),
    "zarr-stack": ("a.zarr", (3, 45, 37), "float32", save_zarr, True),
    "zarr-2": ("a.zarr", (2, 45, 37, 3), "uint8", save_zarr_2, True),
    "ome-zarr": ("a.zarr", (2, 3, 4, 45, 37), "uint8", save_ome_zarr("tczyx"), True),
    "ome-zarr-0.4": ("a.zarr", (3, 45, 37), "uint16", save_ome_zarr("cyx", "0.4"), True),
    "ome-zarr-grey": ("a.zarr", (45, 37), "float32", save_ome_zarr("yx"), True),
}
every_file = pytest.mark.parametrize("name, shape, dtype, save, has_parts", FILES.values(), ids=FILES.keys())


def windows(height, width, rows=13, columns=20):
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))


@every_file
def test_windows_put_together_are_the_image(name, shape, dtype, save, has_parts, tmp_path):
    save(tmp_path / name, pixels_of(shape, dtype))
    whole = images.read(tmp_path / name).array
    with images.opened(tmp_path / name) as file:
        assert (file.window is not None) == has_parts
        for index in range(len(file)):
            expected = whole[index] if whole.ndim == 4 else whole
            result = np.zeros_like(expected)
            for rows, columns in windows(45, 37):
                part = file.read_window(index, rows, columns)
                assert part.dtype == expected.dtype == file.dtype
                result[rows, columns] = part
            np.testing.assert_array_equal(result, expected)


@every_file
@pytest.mark.parametrize("target", ["same", "b.npy", "b.tif", "b.zarr"])
def test_windows_that_are_written_make_the_file(name, shape, dtype, save, has_parts, target, tmp_path):
    """The same pixels and metadata as if the whole had been written at once."""
    save(tmp_path / name, pixels_of(shape, dtype))
    source = images.read(tmp_path / name)
    suffix = tmp_path.joinpath(name).suffix if target == "same" else "." + target.split(".")[1]
    whole, windowed = tmp_path / f"whole{suffix}", tmp_path / f"windowed{suffix}"
    images.write(whole, source.array, like=source)
    with images.opened(tmp_path / name) as file, images.writing(windowed, file.shape, file.dtype, file) as written:
        assert not windowed.exists()
        for index in range(len(file)):
            for rows, columns in windows(45, 37):
                written.write_window(index, rows, columns, file.read_window(index, rows, columns))
    for path in (whole, windowed):
        np.testing.assert_array_equal(images.read(path).array, source.array)
    if suffix != ".zarr":
        assert whole.read_bytes() == windowed.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({name, whole.name, windowed.name})


def test_ome_zarr_keeps_axes_chunks_and_attributes(tmp_path):
    pixels = pixels_of((2, 3, 45, 37), "uint8")
    save_ome_zarr("zcyx")(tmp_path / "a.zarr", pixels)
    source = images.read(tmp_path / "a.zarr")
    assert source.shape == (2, 45, 37, 3)
    images.write(tmp_path / "b.zarr", source.array, like=source)
    group = zarr.open_group(str(tmp_path / "b.zarr"), mode="r")
    np.testing.assert_array_equal(group["full"][:], pixels)
    assert group["full"].chunks == (2, 3, 16, 16)
    image = group.attrs["ome"]["multiscales"][0]
    assert [axis["name"] for axis in image["axes"]] == list("zcyx")
    assert [dataset["path"] for dataset in image["datasets"]] == ["full", "half"]


@pytest.mark.parametrize("layout", ["new", "like", "planar"])
def test_large_pages_are_written_in_tiles(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_writing, "TILED_PIXELS", 1000)
    monkeypatch.setattr(tiff_writing, "TILE", 32)
    pixels = pixels_of((45, 67, 3), "uint8")
    if layout == "planar":
        tifffile.imwrite(tmp_path / "a.tif", pixels.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    else:
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    like = None if layout == "new" else images.read(tmp_path / "a.tif")
    images.write(tmp_path / "b.tif", pixels, like=like)
    np.testing.assert_array_equal(images.read(tmp_path / "b.tif").array, pixels)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert tif.pages.first.is_tiled and len(tif.pages.first.dataoffsets) == 6 * (3 if layout == "planar" else 1)


def test_stores_are_found_like_files(tmp_path):
    save_zarr(tmp_path / "in/a.zarr", pixels_of((20, 20), "uint8"))
    (tmp_path / "in/a.zarr/b.png").write_bytes(b"")
    images.write(tmp_path / "in/c.png", pixels_of((20, 20), "uint8"))
    expected = [tmp_path / "in/a.zarr", tmp_path / "in/c.png"]
    assert images.find(tmp_path / "in") == expected
    assert images.find(f"{tmp_path}/in/*") == images.find(f"{tmp_path}/**/*") == expected
    assert images.find(tmp_path / "in/a.zarr") == expected[:1]
    assert images.base_of(tmp_path / "in/a.zarr") == tmp_path / "in"
    assert images.count(tmp_path / "in/a.zarr") == 1


def test_a_store_is_replaced_whole_or_not_at_all(tmp_path):
    old = pixels_of((20, 20), "uint8")
    images.write(tmp_path / "a.zarr", old)
    with pytest.raises(KeyError), images.writing(tmp_path / "a.zarr", (20, 20), "uint8") as written:
        written.write_window(0, slice(0, 5), slice(0, 20), old[:5])
        raise KeyError
    np.testing.assert_array_equal(images.read_array(tmp_path / "a.zarr"), old)
    images.write(tmp_path / "a.zarr", old[:10])
    np.testing.assert_array_equal(images.read_array(tmp_path / "a.zarr"), old[:10])
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".zarr", ".png"])
def test_errors_leave_nothing_behind(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(OSError, match="cannot be written: No space left on device"):
        with images.writing(path, (20, 20), "uint8") as written:
            written.write_window(0, slice(0, 20), slice(0, 20), np.zeros((20, 20), "uint8"))
            if suffix == ".png":
                raise OSError(errno.ENOSPC, "cannot be written: No space left on device", str(path))
            raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def broken_stores(path):
    zarr.create_group(str(path / "group.zarr"))
    save_ome_zarr("yyx")(path / "axes.zarr", np.zeros((2, 4, 4), "uint8"))
    save_zarr(path / "five.zarr", np.zeros((1, 1, 1, 4, 4), "uint8"))
    save_zarr(path / "int.zarr", np.zeros((4, 4), "int64"))
    (path / "nothing.zarr").mkdir()
    (path / "text.zarr").mkdir()
    (path / "text.zarr/zarr.json").write_text("{")


@pytest.mark.parametrize(
    "name, match",
    [
        ("group", "without the `multiscales` of OME-Zarr"),
        ("axes", "its axes 'yyx' are not those of images"),
        ("five", "the shape must be"),
        ("int", "Pixels must be uint8, uint16 or floats"),
        ("nothing", "cannot be read as Zarr"),
        ("text", "cannot be read as Zarr"),
    ],
)
def test_stores_that_cannot_be_read(name, match, tmp_path):
    broken_stores(tmp_path)
    with pytest.raises(ValueError, match=rf"{name}\.zarr: cannot be read as Zarr: .*") as caught:
        images.read(tmp_path / f"{name}.zarr")
    assert match in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.zarr"])
def test_windows_refuse_what_is_not_there(name, tmp_path):
    images.write(tmp_path / name, pixels_of((20, 30), "uint8"))
    with images.opened(tmp_path / name) as file:
        for rows, columns in [((0, 21), (0, 5)), ((5, 5), (0, 5)), ((0, 5), (-1, 5)), ((0, 5), (0, 31))]:
            with pytest.raises(ValueError, match="there is no window of rows"):
                file.read_window(0, slice(*rows), slice(*columns))
        with pytest.raises(ValueError, match="there is no image 1"):
            file.read_window(1, slice(0, 5), slice(0, 5))


@pytest.mark.parametrize("name", ["a.npy", "a.zarr"])
def test_windows_refuse_infinite_values(name, tmp_path):
    pixels = np.zeros((20, 30), "float32")
    pixels[15, 3], pixels[2, 2] = -np.inf, np.nan  # the latter is no measurement, and no fault
    (save_npy if name == "a.npy" else save_zarr)(tmp_path / name, pixels)
    with images.opened(tmp_path / name) as file:
        np.testing.assert_array_equal(file.read_window(0, slice(0, 10), slice(0, 30)), pixels[:10])
        with pytest.raises(ValueError, match="it holds infinite values"):
            file.read_window(0, slice(10, 20), slice(0, 30))
    with images.opened(tmp_path / name, no_data=-np.inf) as file:
        assert file.no_data == -np.inf
        np.testing.assert_array_equal(file.read_window(0, slice(10, 20), slice(0, 30)), pixels[10:])


def test_beside_names_the_file(tmp_path):
    with pytest.raises(OSError, match="cannot be written: Input/output error") as caught:
        with atomic.beside(tmp_path / "a.tif", ".npy") as temporary:
            temporary.write_bytes(b"1")
            raise OSError(errno.EIO, "Input/output error")
    assert caught.value.filename == str(tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


COPY = """
import resource, sys
from bsdenoise import images
source, target = sys.argv[1:]
peak = lambda: int(dict(line.split(":") for line in open("/proc/self/status"))["VmHWM"].split()[0]) // 1024
with images.opened(source) as file:
    before = peak()
    height, width = file.shape[:2]
    with images.writing(target, file.shape, file.dtype, file) as written:
        for top in range(0, height, 1000):
            for left in range(0, width, 1000):
                window = slice(top, min(top + 1000, height)), slice(left, min(left + 1000, width))
                written.write_window(0, *window, file.read_window(0, *window))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".tif", ".npy", ".zarr"])
def test_memory_of_large_files(suffix, tmp_path):
    """60 megapixels, 180 MB, pass through far less memory."""
    path = tmp_path / f"a{suffix}"
    pixels = np.zeros((6000, 10000, 3), "uint8")
    pixels[::7, ::5] = 200
    images.write(path, pixels)
    answer = subprocess.run(
        [sys.executable, "-c", COPY, str(path), str(tmp_path / f"b{suffix}")],
        check=True,
        capture_output=True,
        text=True,
    )
    np.testing.assert_array_equal(images.read_array(tmp_path / f"b{suffix}"), pixels)
    # A TIFF is made out of a file beside it, whose pages count though the system may take them back at any time.
    assert int(answer.stdout) < (240 if suffix == ".tif" else 90)
