"""Tests of `tfds:` sources, on small data sets that are prepared for real."""

import socket
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from bsdenoise.data import tfds_preparation
from bsdenoise.data.sources import open_source, select
from bsdenoise.data.tfds_source import TfdsSource
from bsdenoise.images import read_image


class BsdenoiseSmall(tfds.core.GeneratorBasedBuilder):
    """A few images with masks, in several configurations; counts how often it is generated."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("nested", "several", "none", "floats", "deep")]
    pkg_dir_path = Path(__file__).parent
    num_generated = 0

    def _info(self):
        images = {
            "nested": {"pair": {"photo": tfds.features.Image(encoding_format="png")}},
            "several": {"image": tfds.features.Image(encoding_format="png"), "before": tfds.features.Image()},
            "none": {"value": tfds.features.Scalar(np.int64)},
            "floats": {"field": tfds.features.Image(shape=(None, None, 1), dtype=np.float32)},
            "deep": {"left": tfds.features.Image(dtype=np.uint16), "right": tfds.features.Image()},
        }[self.builder_config.name]
        mask = tfds.features.LabeledImage(labels=["a", "b"], shape=(None, None, 1))
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(images | {"mask": mask}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(10), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        type(self).num_generated += 1
        for number in range(count):
            photo = np.full((20 + number, 30, 3), number, "uint8")
            example = {
                "nested": {"pair": {"photo": photo}},
                "several": {"image": photo, "before": photo + 100},
                "none": {"value": number},
                "floats": {"field": np.full((8, 9, 1), number - 4.5, "float32")},
                "deep": {"left": photo.astype("uint16") * 257, "right": photo},
            }[self.builder_config.name]
            yield number, example | {"mask": np.zeros((20, 30, 1), "uint8")}


class BsdenoiseManual(BsdenoiseSmall):
    """A data set that has to be placed by hand, or fails."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="nested")]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put the\n  archive there."

    def _split_generators(self, dl_manager):
        """Fails."""
        raise AssertionError(f"no archive in\n{dl_manager.manual_dir}\n\nLong explanation.")


@pytest.fixture(name="shared", scope="module")
def _shared(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(autouse=True)
def _data_dir(shared, monkeypatch):
    """One folder of data sets for all tests that do not ask for `empty`."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(shared))


@pytest.fixture(name="empty")
def _empty(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(name="imagenet", scope="module")
def _imagenet(tmp_path_factory):
    """A folder with a small ILSVRC2012_img_val.tar, laid out as the real one, and its files beside."""
    folder = tmp_path_factory.mktemp("imagenet")
    manual = folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    rng = np.random.default_rng(0)
    (folder / "files").mkdir()
    with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as tar:
        for number in range(1, 9):
            shape = (100 + 20 * number, 200, 3) if number != 5 else (200, 150)  # one is grey, as some of the real ones
            path = folder / "files" / f"ILSVRC2012_val_{number:08d}.JPEG"
            Image.fromarray(rng.integers(256, size=shape, dtype="uint8")).save(path, "JPEG", quality=80 + number)
            tar.add(path, arcname=path.name)
    return folder


def test_imagenet_validation_needs_only_its_archive(imagenet, monkeypatch, capfd):
    monkeypatch.setenv("TFDS_DATA_DIR", str(imagenet))
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: pytest.fail("no network is needed"))
    source = open_source("tfds:imagenet2012:validation")
    assert source.name(7) == "tfds:imagenet2012:validation[7]"
    output = capfd.readouterr()
    lines = output.out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("preparing tfds:imagenet2012:validation: a copy goes into")
    assert "WARNING:absl" not in output.err and "examples" not in output.err
    # The order is tensorflow_datasets' own; pixels are those of the files.
    expected = {path.name: read_image(path).array for path in (imagenet / "files").iterdir()}
    found = [source.read(index).array for index in range(len(source))]
    assert len(found) == 8
    for name, array in expected.items():
        assert sum(np.array_equal(array, other) for other in found) == 1, name
    assert [source.size(index) for index in range(8)] == [array.shape[:2] for array in found]
    kept = select(source, 150, 220)
    assert sorted(kept.size(index) for index in range(len(kept))) == [
        (160, 200), (180, 200), (200, 150), (220, 200),
    ]  # fmt: skip
    # A second time nothing is prepared, and parts of splits can be had.
    assert len(open_source("tfds:imagenet2012:validation[:50%]+validation[-1:]")) == 5
    assert capfd.readouterr().out == ""
    with pytest.raises(ValueError, match=r"no split 'train'; .* holds validation.*ILSVRC2012_img_train\.tar"):
        open_source("tfds:imagenet2012:train")


def test_imagenet_without_its_archive(empty):
    with pytest.raises(ValueError, match=r"place ILSVRC2012_img_val\.tar in .*downloads/manual .*no other archive"):
        open_source("tfds:imagenet2012:validation[:10]")
    assert list(empty.iterdir()) == []


def test_broken_archive(empty):
    manual = empty / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "ILSVRC2012_img_val.tar").write_bytes(b"no tar")
    with pytest.raises(ValueError, match=r"tfds:imagenet2012:validation: cannot be prepared: .* belong in .*manual"):
        open_source("tfds:imagenet2012:validation")
    assert not (empty / "imagenet2012" / "5.1.0").exists()


def test_any_example_at_any_time_from_threads():
    import concurrent.futures

    source = open_source("tfds:bsdenoise_small/nested:train")
    order = [7, 0, 9, 3, 3, 8, 1] * 20
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(lambda index: source.read(index).array, order))
    first = {index: source.read(index).array for index in set(order)}
    assert sorted(int(source.read(index).array[0, 0, 0]) for index in range(10)) == list(range(10))
    for index, array in zip(order, arrays, strict=True):
        np.testing.assert_array_equal(array, first[index])
        assert array.shape == (20 + array[0, 0, 0], 30, 3)


def test_prepared_once():
    open_source("tfds:bsdenoise_small/nested:test")
    before = BsdenoiseSmall.num_generated
    assert len(open_source("tfds:bsdenoise_small/nested:1.0.0:test")) == 3
    assert BsdenoiseSmall.num_generated == before


def test_of_several_images_the_one_named_image_is_used(capsys):
    source = open_source("tfds:bsdenoise_small/several:train")
    assert "several kinds of images (before, image); 'image' is used" in capsys.readouterr().out
    assert max(source.read(index).array.max() for index in range(10)) == 9


def test_float_images_keep_their_values():
    source = open_source("tfds:bsdenoise_small/floats:train")
    arrays = [source.read(index).array for index in range(10)]
    assert {array.dtype for array in arrays} == {np.dtype("float32")} and source.size(0) == (8, 9)
    assert sorted(float(array.max()) for array in arrays) == [number - 4.5 for number in range(10)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tfds:bsdenoise_small", "reads tfds:NAME"),
        ("tfds:a:b]", "reads tfds:NAME"),
        ("tfds:imagnet2012:validation", r"no data set 'imagnet2012'.*TFDS_DATA_DIR.*Did you mean imagenet2012"),
        ("tfds:bsdenoise_small/nosuch:train", r"cannot open 'bsdenoise_small/nosuch': BuilderConfig nosuch not found"),
        ("tfds:bsdenoise_small/nested:9.0.0:train", "cannot be loaded at version 9.0.0"),
        ("tfds:bsdenoise_small/nested:valid", "no split 'valid'; .* holds test, train"),
        ("tfds:bsdenoise_small/nested:train[:x%]", r"the split 'train\[:x%\]' cannot be read"),
        ("tfds:bsdenoise_small/nested:train[:0]", r"the split 'train\[:0\]' is empty"),
        ("tfds:bsdenoise_small/none:train", r"no images among its features \(mask, value\)"),
        ("tfds:bsdenoise_small/deep:train", r"several kinds of images \(left, right\), none of them named 'image'"),
        ("tfds:bsdenoise_manual:train", "placed in .*manual by hand: Put the archive there."),
    ],
    ids=lambda value: value if value.startswith("tfds") else "",
)
def test_what_cannot_be_opened(spec, message):
    with pytest.raises(ValueError, match=message) as error:
        open_source(spec)
    assert "\n" not in str(error.value)


def test_code_of_a_data_set_that_fails(empty):
    (empty / "downloads" / "manual").mkdir(parents=True)
    (empty / "downloads" / "manual" / "other.txt").write_text("")
    with pytest.raises(
        ValueError, match=r"cannot be prepared: no archive in \S+manual\. Files that it needs belong in"
    ):
        open_source("tfds:bsdenoise_manual:train")


def test_download_without_a_network(empty, monkeypatch):
    """A server that cannot be reached is found out at once, and the files are named."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # nobody listens
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    info = tfds.download.checksums.UrlInfo(checksum="0" * 64, size=1, filename="pictures.zip")
    monkeypatch.setattr(BsdenoiseSmall, "url_infos", {f"http://127.0.0.1:{port}/a.zip": info})
    with pytest.raises(
        ValueError, match=r"127\.0\.0\.1 cannot be reached .*Place its files \(pictures\.zip\) in .*manual"
    ):
        open_source("tfds:bsdenoise_small/nested:train")
    (empty / "downloads" / "manual").mkdir(parents=True)
    (empty / "downloads" / "manual" / "pictures.zip").write_bytes(b"x")
    assert len(open_source("tfds:bsdenoise_small/nested:train")) == 10


def test_files_without_random_access(empty):
    tfds.builder("bsdenoise_small/nested", data_dir=empty, file_format="tfrecord").download_and_prepare()
    with pytest.raises(ValueError, match=r"holds no array_record files.*Set TFDS_DATA_DIR to another"):
        open_source("tfds:bsdenoise_small/nested:train")


def test_files_that_cannot_be_opened(monkeypatch):
    open_source("tfds:bsdenoise_small/nested:test")

    def fail(self, **kwargs):
        raise RuntimeError("damaged")

    monkeypatch.setattr(BsdenoiseSmall, "as_data_source", fail)
    with pytest.raises(ValueError, match=r"the split 'test' cannot be opened: damaged\."):
        open_source("tfds:bsdenoise_small/nested:test")


class _Example:
    """Stands for the parser: gives the record as the image's bytes."""

    def deserialize_example_np(self, record, decoders):
        return {"image": record}


@pytest.mark.parametrize("use", [TfdsSource.read, TfdsSource.size], ids=["read", "size"])
@pytest.mark.parametrize(
    ("records", "message"),
    [({}, "my set.2.: the record cannot be read: 2"), ({2: b"no image"}, "my set.2.: cannot be read: its content is")],
    ids=["record", "image"],
)
def test_damaged_records(use, records, message):
    source = TfdsSource("my set", records, _Example(), ("image",), None)
    with pytest.raises(ValueError, match=message):
        use(source, 2)


def test_library_is_missing(monkeypatch):
    def fail(name):
        raise ImportError("No module named 'array_record'")

    monkeypatch.setattr(tfds_preparation.importlib, "import_module", fail)
    with pytest.raises(ValueError, match="pip install tensorflow-datasets array_record"):
        open_source("tfds:bsdenoise_small/nested:train")


def test_library_is_imported_only_when_needed(tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), "uint8")).save(tmp_path / "a.png")
    script = """
        import sys
        from bsdenoise.data.sources import open_source
        assert len(open_source(sys.argv[1])) == 1
        print("tensorflow_datasets" in sys.modules)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.stdout == "False\n", result.stderr
