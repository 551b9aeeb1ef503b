"""`tfds:NAME[/CONFIG]:SPLIT` → images of a data set of tensorflow_datasets, by number.

What is read from a record are the bytes of the image file that went in, decoded by `bsdenoise.images`; so pixels equal
those of the same file in a folder.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from bsdenoise import images
from bsdenoise.data import tfds_preparation
from bsdenoise.images import Picture

PREFIX = "tfds:"
PREFERRED_FEATURE = "image"  # where there are several
_SPLIT = r"[^:\[\]+]+(?:\[[^\[\]]*\])?"


@dataclass(frozen=True)
class TfdsSource:
    """Images of one split.

    Attributes:
        spec: The SOURCE that was given.
        records: Serialised examples, by number; safe in threads.
        example: The feature that parses an example down to its image.
        path: Where in the parsed example the image is.
        decoders: How tensorflow_datasets is told to leave the image's bytes alone.
        no_data: Value of pixels that hold no measurement, as for `images.opened`.
    """

    spec: str
    records: Sequence[bytes]
    example: Any
    path: tuple[str, ...]
    decoders: dict[str, Any] | None
    no_data: float | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    def name(self, index: int) -> str:
        """Return SOURCE and the number."""
        return f"{self.spec}[{index}]"

    def short_name(self, index: int) -> str:
        """Return the same as `name`: there is no path in it."""
        return self.name(index)

    def content(self, index: int) -> bytes | None:
        """Return the bytes of the image file that went in; `None` for float images, which have none."""
        value = self._value(index)
        return None if isinstance(value, np.ndarray) else value

    def read(self, index: int) -> Picture:
        """Decode one image."""
        value = self._value(index)
        if isinstance(value, np.ndarray):
            return Picture(value, "NPY", no_data=self.no_data)
        return images.decode(value, self.name(index), self.no_data)

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width from the header of the image's bytes."""
        value = self._value(index)
        if isinstance(value, np.ndarray):
            return value.shape[0], value.shape[1]
        try:
            with Image.open(io.BytesIO(value)) as image:
                return image.height, image.width
        except Exception as error:  # Pillow answers odd bytes with errors of every type
            raise ValueError(f"{self.name(index)}: cannot be read: its content is no image of a known kind.") from error

    def _value(self, index: int) -> Any:
        """Return the bytes of an image file; of float images the pixels."""
        try:
            value = self.example.deserialize_example_np(self.records[index], decoders=self.decoders)
            for name in self.path:
                value = value[name]
        except Exception as error:  # of native code that meets a damaged file
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise ValueError(f"{self.name(index)}: the record cannot be read: {reason}.") from error
        return value


def open_tfds(spec: str, no_data: float | None = None) -> TfdsSource:
    """Open `tfds:NAME[/CONFIG][:VERSION]:SPLIT`, such as `tfds:imagenet2012:validation[:80%]`.

    A data set that is not there yet is downloaded and prepared first, or prepared from files placed by hand; a line
    says so, and at a terminal progress bars show it.

    Args:
        spec: The SOURCE.
        no_data: Value of pixels that hold no measurement, as for `images.opened`.

    Raises:
        ValueError: If SPEC, data set, configuration, split or image feature cannot be found, or the data set cannot be
            prepared; the message says what to place where.
    """
    match = re.fullmatch(rf"{PREFIX}([^\[\]]+):({_SPLIT}(?:\+{_SPLIT})*)", spec)
    if not match:
        raise ValueError(
            "A data set of tensorflow_datasets reads tfds:NAME[/CONFIG]:SPLIT, such as tfds:imagenet2012:validation "
            f"or tfds:my_set/config:train[:80%]. Received: {spec!r}."
        )
    name, split = match.groups()
    tfds = tfds_preparation.load_library(spec)
    builder = tfds_preparation.prepared_builder(tfds, spec, name, split)
    records = tfds_preparation.open_records(tfds, builder, spec, split)
    path, is_float = _find_feature(tfds, builder.info.features, spec)
    wanted: Any = True
    decoders = None if is_float else tfds.decode.SkipDecoding()
    for part in reversed(path):
        wanted = {part: wanted}
        decoders = decoders and {part: decoders}
    with tfds_preparation.quiet():
        example = tfds.decode.PartialDecoding(wanted).extract_features(builder.info.features)
    return TfdsSource(spec, records, example, path, decoders, no_data)


def _find_feature(tfds: Any, features: Any, spec: str) -> tuple[tuple[str, ...], bool]:
    """Find the image in an example, and say whether it has floats, which have no image file's bytes."""
    found = dict(sorted(_image_features(tfds, features), key=lambda pair: pair[0]))
    names = ", ".join("/".join(path) for path in found)
    if not found:
        raise ValueError(f"{spec}: this data set has no images among its features ({', '.join(sorted(features))}).")
    if len(found) == 1:
        path = next(iter(found))
    elif (PREFERRED_FEATURE,) in found:
        path = (PREFERRED_FEATURE,)
        tqdm.write(f"note: {spec} has several kinds of images ({names}); {PREFERRED_FEATURE!r} is used")
    else:
        raise ValueError(f"{spec}: this data set has several kinds of images ({names}), none of them named 'image'.")
    return path, np.dtype(found[path].np_dtype).kind == "f"


def _image_features(tfds: Any, features: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Return the features that are images, but no label masks, at any depth of dictionaries."""
    for name, feature in features.items():
        if isinstance(feature, tfds.features.Image) and not isinstance(feature, tfds.features.LabeledImage):
            yield (*path, name), feature
        elif isinstance(feature, tfds.features.FeaturesDict):
            yield from _image_features(tfds, feature, (*path, name))
