"""A folder with an image file of every kind that can be trained on."""

import numpy as np
import tifffile
import zarr
from PIL import Image


def write_all(folder):
    """Writes files of one image and stacks, of 19 images in all, one of them broken."""
    rng = np.random.default_rng(0)

    def pixels(*shape, dtype="uint8"):
        return rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)

    (folder / "more").mkdir(parents=True)
    Image.fromarray(pixels(20, 30, 3)).save(folder / "a.png")
    Image.fromarray(pixels(21, 30, 4)).save(folder / "alpha.png")
    Image.fromarray(pixels(22, 30, 3)).convert("P").save(folder / "palette.png")
    Image.fromarray(pixels(23, 30, dtype="uint16")).save(folder / "deep.png")
    Image.fromarray(pixels(24, 30, 3)).save(folder / "more" / "b.jpg")
    Image.fromarray(pixels(24, 31, 3)).save(folder / "more" / "jpeg-named.png", "JPEG")
    (folder / "more" / "broken.png").write_bytes((folder / "a.png").read_bytes()[:500])
    tifffile.imwrite(folder / "one.tif", pixels(25, 30, 3))
    tifffile.imwrite(folder / "stack.tif", pixels(3, 26, 30, dtype="uint16"), photometric="minisblack")
    np.save(folder / "channels.npy", pixels(2, 27, 30, 4))
    names = ("t", "y", "x", "c")  # without them an image of it alone would pass for a stack
    many = zarr.create_array(folder / "many.zarr", shape=(2, 19, 30, 20), dtype="uint8", dimension_names=names)
    many[:] = pixels(2, 19, 30, 20)
    np.save(folder / "batch-of-one.npy", pixels(1, 28, 30, 3))
    np.save(folder / "float.npy", rng.normal(size=(29, 30)).astype(">f8"))
    store = zarr.create_array(folder / "store.zarr", shape=(2, 30, 31), dtype="uint8", chunks=(1, 30, 31))
    store[:] = pixels(2, 30, 31)
    return folder
