import codecs
import io
import pickle
import struct
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from trainer.cli import main
from trainer.data import cifar10
from trainer.data.cifar10 import SPLITS, is_cifar10, prepare_cifar10, read_cifar10
from trainer.data.dataset import load_crops
from trainer.data.prepare import CROPS_NAME, MANIFEST_NAME, DataError

COUNT = 8  # pictures per batch; 10,000 in the published files
NAMES = [name for names in SPLITS.values() for name in names]
SCRAMBLED = ["data_batch_4", "test_batch", "data_batch_3", "data_batch_2", "data_batch_5", "data_batch_1"]
PYTHON, BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"
DATA_KEY = b"U\x04dataq\x06"


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(cifar10, "_PICTURES", COUNT)


def noise(seed: int) -> np.ndarray:
    """Create the data of a batch, (COUNT, 3072): noise, which cannot be compressed."""
    return np.random.default_rng(seed).integers(0, 256, (COUNT, 3072), dtype=np.uint8)


def pictures_of(data: np.ndarray) -> np.ndarray:
    """(COUNT, 32, 32, 3): three planes of 1024 bytes, red, green and blue, each row by row."""
    planes = [data[:, start : start + 1024].reshape(-1, 32, 32) for start in (0, 1024, 2048)]
    return np.stack(planes, axis=-1)


def by_python_3(data: object, key: object = b"data") -> bytes:
    content = {
        b"batch_label": b"a batch",
        b"labels": list(range(COUNT)),
        key: data,
        b"filenames": [b"a.png"],
    }
    return pickle.dumps(content, 2)


def by_numpy_1(data: np.ndarray) -> bytes:
    written = by_python_3(data)
    renamed = written.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert renamed != written
    return renamed


def by_python_2(data: np.ndarray) -> bytes:
    """Write the opcodes of the published files: byte strings and an array of old numpy, in protocol 2."""
    rows, columns = data.shape
    array = [
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\x09U\x01bq\n\x87q\x0bRq\x0c",
        b"(K\x01M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns) + b"\x86q\r",
        b"cnumpy\ndtype\nq\x0eU\x02u1q\x0fK\x00K\x01\x87q\x10Rq\x11",
        b"(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x13b\x89",
        b"T" + struct.pack("<I", data.size) + data.tobytes() + b"q\x14tq\x15b",
    ]
    head = b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03"
    labels = b"U\x06labelsq\x04]q\x05(" + b"K\x06K\x09" * (rows // 2) + b"e"
    return head + labels + DATA_KEY + b"".join(array) + b"U\tfilenamesq\x16]q\x17(U\x05a.pngq\x18eu."


def as_binary(data: np.ndarray) -> bytes:
    labels = np.arange(len(data), dtype=np.uint8)[:, None] % 10
    return np.concatenate([labels, data], axis=1).tobytes()


KINDS = {"python 2": by_python_2, "python 3": by_python_3, "numpy 1": by_numpy_1, "binary": as_binary}
CONTAINERS = ["archive.tar.gz", "archive.tar.xz", "archive.tar", "extracted", "parent"]


def files_of(kind: str, order: list[str] = NAMES) -> dict[str, bytes]:
    """Return the files of one version by path, in the given order."""
    folder, suffix = (BINARY, ".bin") if kind == "binary" else (PYTHON, "")
    return {f"{folder}/{name}{suffix}": KINDS[kind](noise(NAMES.index(name))) for name in order}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """Write an archive, or a folder if the path has no suffix."""
    if not path.suffix:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path
    compression = path.suffix.removeprefix(".").removeprefix("tar")
    with tarfile.open(path, f"w:{compression}") as tar:
        if files:
            folder = tarfile.TarInfo(next(iter(files)).split("/")[0])
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def source_of(tmp_path: Path, container: str, files: dict[str, bytes]) -> Path:
    """Pack files as one of `CONTAINERS`."""
    path = pack(tmp_path / container, files)
    return path / next(iter(files)).split("/")[0] if container == "extracted" else path


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", KINDS)
def test_read_cifar10_of_every_version_and_container_is_equal(tmp_path, kind, container):
    folder = BINARY if kind == "binary" else PYTHON
    files = files_of(kind, SCRAMBLED)
    files |= {
        f"{folder}/batches.meta": b"names",
        f"{folder}/readme.html": b"<a>",
        "data_batch_6": b"no batch",
    }
    source = source_of(tmp_path, container, files)
    assert is_cifar10(source)
    splits = read_cifar10(source)
    assert list(splits) == ["train", "test"]
    for split, names in SPLITS.items():
        expected = np.concatenate([pictures_of(noise(NAMES.index(name))) for name in names])
        assert splits[split].dtype == np.uint8
        np.testing.assert_array_equal(splits[split], expected)


def test_splits_match_the_published_files():
    assert SPLITS["train"] == (
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
    )
    assert SPLITS["test"] == ("test_batch",)


@pytest.mark.parametrize("kind", KINDS)
def test_read_cifar10_interprets_bytes_as_color_planes(tmp_path, kind):
    data = np.zeros((COUNT, 3072), np.uint8)
    data[3, 0] = 11  # red, first row, first column
    data[3, 31] = 12  # red, first row, last column
    data[3, 1024 + 32 * 7] = 13  # green, row 7, first column
    data[3, 3071] = 14  # blue, last row, last column
    files = files_of(kind)
    test = next(name for name in files if "test_batch" in name)
    pictures = read_cifar10(source_of(tmp_path, "extracted", files | {test: KINDS[kind](data)}))["test"]
    expected = np.zeros((COUNT, 32, 32, 3), np.uint8)
    expected[3, 0, 0, 0], expected[3, 0, 31, 0] = 11, 12
    expected[3, 7, 0, 1], expected[3, 31, 31, 2] = 13, 14
    np.testing.assert_array_equal(pictures, expected)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", ["python 2", "binary"])
def test_read_cifar10_names_missing_batches(tmp_path, kind, container):
    files = {
        name: content
        for name, content in files_of(kind).items()
        if not any(gone in name for gone in ("data_batch_3", "test_batch"))
    }
    source = source_of(tmp_path, container, files)
    with pytest.raises(DataError) as raised:
        read_cifar10(source)
    assert str(raised.value) == f"{source}: data_batch_3, test_batch not found"


@pytest.mark.parametrize("batch", [1, 3, 6])
@pytest.mark.parametrize("kind", ["python 2", "binary"])
@pytest.mark.parametrize("container", ["archive.tar.gz", "archive.tar.xz", "archive.tar"])
def test_read_cifar10_names_the_batch_where_an_archive_is_cut(tmp_path, container, kind, batch):
    archive = source_of(tmp_path, container, files_of(kind))
    whole = archive.read_bytes()
    size = len(whole) if container != "archive.tar" else sum(map(len, files_of(kind).values()))
    archive.write_bytes(whole[: int(size * (batch - 0.5) / 6)])
    assert is_cifar10(archive)
    with pytest.raises(DataError) as raised:
        read_cifar10(archive)
    message = str(raised.value)
    assert message.startswith(f"{archive}: ")
    assert [name for name in NAMES if name in message] == [NAMES[batch - 1]]
    assert "\n" not in message


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_read_cifar10_detects_a_flipped_bit(tmp_path, place):
    """Only the checksum at the end of the gzip file detects the damage."""
    archive = source_of(tmp_path, "archive.tar.gz", files_of("binary", SCRAMBLED))
    content = bytearray(archive.read_bytes())
    content[int(place * len(content))] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"archive\.tar\.gz"):
        read_cifar10(archive)


def test_read_cifar10_names_an_unreadable_batch(tmp_path, monkeypatch):
    source = source_of(tmp_path, "extracted", files_of("binary"))
    opened = Path.open

    def fail(path: Path, mode: str) -> io.BufferedReader:
        if path.name == "data_batch_2.bin":
            raise PermissionError(13, "Permission denied")
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(DataError, match=r"data_batch_2 .*Permission denied"):
        read_cifar10(source)


def assert_damaged(tmp_path: Path, batch: bytes, *reasons: str, kind: str = "python 2") -> None:
    """Check for one line of error with the batch and the reasons, for an archive and a folder."""
    files = files_of(kind)
    damaged = next(name for name in files if "data_batch_2" in name)
    for container in ("archive.tar.gz", "extracted"):
        source = source_of(tmp_path, container, files | {damaged: batch})
        with pytest.raises(DataError) as raised:
            read_cifar10(source)
        message = str(raised.value)
        assert message.startswith(f"{source}: data_batch_2 is damaged ("), message
        assert all(reason in message for reason in reasons), message
        assert "\n" not in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        by_python_2(noise(1))[:200],
        by_python_2(noise(1))[:-1],
        by_python_3(noise(1))[:-100],
        by_python_2(noise(1)).replace(b"NNNJ", b"NNtJ"),
        b"\x80\x63" + by_python_2(noise(1))[2:],
        pickle.dumps([1, 2], 2),
        pickle.dumps(None, 2),
        by_python_3(noise(1), b"pixels"),
        b"\x80\x02" + b"(" * 10,
        b"\x80\x02cnumpy\nndarray\n(K\x01tR}b.",
    ],
    ids=range(12),
)
def test_read_cifar10_names_a_damaged_pickle(tmp_path, content):
    assert_damaged(tmp_path, content)


def test_read_cifar10_names_a_pickle_of_other_values(tmp_path):
    for data in (noise(1).astype(np.int16), noise(1) / 255, noise(1).tobytes(), list(range(3072)), None):
        assert_damaged(tmp_path, by_python_3(data))
    assert_damaged(tmp_path, by_python_3(np.full((COUNT, 3072), None)))
    for data in (noise(1).astype(np.int8), noise(1).astype(bool), np.asfortranarray(noise(1))):
        assert_damaged(tmp_path, by_python_3(data), f"not an array of {COUNT} x 3072 bytes")


@pytest.mark.parametrize("shape", [(COUNT - 1, 3072), (COUNT, 3071), (COUNT, 3, 32, 32), (COUNT * 3072,), ()])
def test_read_cifar10_names_a_pickle_of_another_shape(tmp_path, shape):
    assert_damaged(tmp_path, by_python_3(np.zeros(shape, np.uint8)), f"not an array of {COUNT} x 3072 bytes")


def calling(module: str, name: str, *arguments: str) -> bytes:
    """Return opcodes that call a function by its name."""
    values = b"".join(b"X" + struct.pack("<I", len(text)) + text.encode() for text in arguments)
    return f"c{module}\n{name}\n".encode() + b"(" + values + b"tR"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "open"),
        ("builtins", "getattr"),
        ("__builtin__", "eval"),
        ("numpy", "fromfile"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "fromfile"),
        ("codecs", "encode"),
        ("_codecs", "decode"),
        ("trainer.data.cifar10", "Path"),
    ],
)
def test_pickle_with_other_globals_is_refused_and_runs_nothing(tmp_path, module, name):
    marker = tmp_path / "marker"
    command = f"touch {marker}" if name == "system" else f"open({str(marker)!r}, 'w')"
    attack = calling(module, name, str(marker) if name in ("open", "fromfile") else command)
    original = by_python_2(noise(1))
    for content in (
        b"\x80\x02" + attack + b".",
        original[:-1] + attack + b"0.",  # after the data
        original.replace(DATA_KEY, DATA_KEY + attack + b"0"),  # before the data
    ):
        assert_damaged(tmp_path, content, f"{module}.{name}")
    assert not marker.exists()


def test_pickle_of_any_protocol_runs_nothing(tmp_path):
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "marker",)

    for protocol in (0, 2, 4, 5):
        content = pickle.dumps({b"data": noise(1), b"more": [Attack()]}, protocol)
        assert_damaged(tmp_path, content)
    assert not (tmp_path / "marker").exists()


def with_dtype_state(state: bytes) -> bytes:
    """Replace the state of the array's dtype, which numpy's `dtype.__setstate__` trusts."""
    original = by_python_2(noise(1))
    start, end = original.index(b"(K\x03U\x01|q\x12"), original.index(b"tq\x13b\x89")
    return original[:start] + b"(" + state + original[end:]


def nested_tuples(levels: int) -> bytes:
    """Return a tuple of twice the tuple before, and so on: hashing it as a key takes 2**levels steps."""
    return b"K\x00\x85q\x01" + b"h\x01h\x01\x86q\x01" * levels


ATTACKS = {
    "fields of a dtype": with_dtype_state(
        b"K\x03U\x01|NU\x01a\x85}U\x01aK\x00\x85sJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
    ),
    "objects in a dtype": with_dtype_state(b"K\x03U\x01|NNNK\x08K\x08K\x3f"),
    "an item size of 2 GB": with_dtype_state(b"K\x03U\x01|NNNJ\xff\xff\xff\x7fK\x01K\x00"),
    "a memo of 2**31 places": b"\x80\x02}r\xff\xff\xff\x7f" + by_python_2(noise(1))[3:],
    "a memo of 2**32 places": b"\x80\x02}r\xff\xff\xff\xff.",
    "strings encoded many times": b"\x80\x02c_codecs\nencode\nq\x01X\x10\x27\x00\x00"
    + b"a" * 10_000
    + b"q\x02"
    + b"h\x01h\x02X\x06\x00\x00\x00latin1\x86R" * 1000
    + b".",
    "a key that takes 2**60 steps": b"\x80\x02}" + nested_tuples(60) + b"K\x00s.",
    "a string of 4 GB": b"\x80\x02T\xff\xff\xff\x7f.",
    "a frame of 2**63 bytes": b"\x80\x04\x95" + b"\xff" * 8 + b".",
    "an array of bytes of 2**62": b"\x80\x05\x96" + b"\xff" * 7 + b"\x3f.",
    "many opcodes": b"\x80\x02" + b"N0" * 1000 + b".",
    "deep lists": b"\x80\x02" + b"]" * 900 + b"a" * 899 + b".",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_pickle_made_to_crash_or_to_fill_memory_is_damaged(tmp_path, attack, monkeypatch):
    """Unpickling such files fills the memory, hangs, or reaches code of numpy that trusts its input."""
    monkeypatch.setattr(cifar10, "_MOST_OPCODES", 1500)
    tracemalloc.start()
    try:
        if attack == "a memo of 2**31 places":  # harmless here, and the rest is intact
            folder = files_of("python 2") | {f"{PYTHON}/data_batch_2": ATTACKS[attack]}
            read_cifar10(source_of(tmp_path, "extracted", folder))
        else:
            assert_damaged(tmp_path, ATTACKS[attack])
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("container", ["archive.tar.gz", "extracted"])
@pytest.mark.parametrize("kind", ["python 2", "binary"])
def test_batch_larger_than_any_is_not_read(tmp_path, monkeypatch, container, kind):
    monkeypatch.setattr(cifar10, "_MOST_BYTES", 100_000)
    files = files_of(kind)
    damaged = next(name for name in files if "data_batch_2" in name)
    source = source_of(tmp_path, container, files | {damaged: bytes(100_001)})
    with pytest.raises(DataError, match=r"data_batch_2 is damaged \(larger than 100000 bytes\)"):
        read_cifar10(source)


@pytest.mark.parametrize("codec", ["spy", "rot13", "zlib", "utf-8", "latin-1"])
def test_pickle_with_another_codec_is_refused_without_lookup(tmp_path, codec):
    """A lookup by name imports modules and executes code."""
    looked_up = []

    def search(name: str) -> None:
        looked_up.append(name)

    codecs.register(search)
    try:
        content = b"\x80\x02}" + calling("_codecs", "encode", "text", codec) + b"K\x01s."
        assert_damaged(tmp_path, content)
    finally:
        codecs.unregister(search)
    assert codec not in looked_up


@pytest.mark.parametrize("change", [-3073, -1, 1, 3073])
def test_binary_batch_of_another_length_is_named(tmp_path, change):
    content = as_binary(noise(1))
    content = content[:change] if change < 0 else content + bytes(change)
    assert_damaged(tmp_path, content, str(len(content)), str(COUNT * 3073), kind="binary")


def test_binary_batch_that_is_empty_is_named(tmp_path):
    assert_damaged(tmp_path, b"", kind="binary")


@pytest.mark.parametrize("place", [0, COUNT - 1])
def test_binary_batch_with_an_unknown_label_is_named(tmp_path, place):
    content = bytearray(as_binary(noise(1)))
    content[3073 * place] = 10
    assert_damaged(tmp_path, bytes(content), "class 10", kind="binary")


def not_cifar10(folder: Path) -> dict[str, Path]:
    """Make other sources that a user may name."""
    folder.mkdir()
    Image.new("RGB", (32, 32), "red").save(folder / "data_batch_1.png")
    (folder / "empty").touch()
    (folder / "text.tar.gz").write_text("cifar-10-batches-py")
    (folder / "nothing").mkdir()
    picture = (folder / "data_batch_1.png").read_bytes()
    return {
        "shard": pack(folder / "cifar-10.tar", {"pictures/data_batch_1.png": picture}),
        "packed shard": pack(folder / "shard.tar.gz", {"pictures/1.png": picture}),
        "empty shard": pack(folder / "empty.tar", {}),
        "folder of pictures": folder,
        "folder of nothing": folder / "nothing",
        "picture": folder / "data_batch_1.png",
        "text": folder / "text.tar.gz",
        "empty": folder / "empty",
        "nowhere": folder / "nowhere",
    }


def test_is_cifar10_of_other_sources_is_false(tmp_path):
    for name, path in not_cifar10(tmp_path / "other").items():
        assert not is_cifar10(path), name


@pytest.mark.parametrize("name", ["data_batch_4", "test_batch.bin"])
def test_is_cifar10_of_a_folder_with_any_batch_is_true(tmp_path, name):
    (tmp_path / name).touch()
    assert is_cifar10(tmp_path)


@pytest.mark.parametrize("kind", ["python 2", "binary"])
def test_prepare_cifar10_writes_both_splits_completely(tmp_path, kind):
    """Unlike `prepare`, which leaves out gray pictures, the official splits stay complete."""
    files = files_of(kind)
    test = next(name for name in files if "test_batch" in name)
    files[test] = KINDS[kind](np.full((COUNT, 3072), 128, np.uint8))
    source = source_of(tmp_path, "archive.tar.gz", files)
    manifests = prepare_cifar10(source, tmp_path / "out")
    assert list(manifests) == ["train", "test"]
    for split, pixels in read_cifar10(source).items():
        manifest, count = manifests[split], COUNT * len(SPLITS[split])
        assert (manifest.size, manifest.crops, manifest.pictures) == (32, count, count)
        assert manifest.sources == [str(source)]
        assert manifest.dropped == {}
        crops = load_crops(tmp_path / "out" / split, torch.device("cpu"))
        np.testing.assert_array_equal(crops.pixels.permute(0, 2, 3, 1).numpy(), pixels)
        assert sorted(p.name for p in (tmp_path / "out" / split).iterdir()) == [CROPS_NAME, MANIFEST_NAME]


def test_prepare_cifar10_of_a_damaged_archive_writes_nothing(tmp_path):
    files = files_of("binary")
    files[f"{BINARY}/test_batch.bin"] = b""
    with pytest.raises(DataError):
        prepare_cifar10(source_of(tmp_path, "archive.tar.gz", files), tmp_path / "out")
    assert not list(tmp_path.glob("out/**/*"))


def invoke(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "500"}).invoke(main, ["prepare", *map(str, arguments)])


@pytest.mark.parametrize("options", [[], ["--size", "32"]])
@pytest.mark.parametrize(("kind", "container"), [("python 2", "archive.tar.gz"), ("binary", "parent")])
def test_command_prepares_both_splits(tmp_path, kind, container, options):
    source, out = source_of(tmp_path, container, files_of(kind)), tmp_path / "out"
    result = invoke(source, out, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert f"{5 * COUNT} pictures of 32 pixels in {out / 'train'}" in result.stderr
    assert f"{COUNT} pictures of 32 pixels in {out / 'test'}" in result.stderr
    for split, names in SPLITS.items():
        crops = load_crops(out / split, torch.device("cpu"))
        expected = np.concatenate([pictures_of(noise(NAMES.index(name))) for name in names])
        np.testing.assert_array_equal(crops.pixels.permute(0, 2, 3, 1).numpy(), expected)


def assert_one_line(result: Result, code: int, *names: object) -> None:
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == code
    assert result.stdout == ""
    errors = result.stderr[result.stderr.index("Error: ") :]
    assert errors.count("\n") == 1, errors
    assert all(str(name) in errors for name in names), errors


def test_command_refuses_another_size_and_other_sources(tmp_path):
    source = source_of(tmp_path, "archive.tar.gz", files_of("binary"))
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "pictures" / "red.png")
    for arguments in (
        [source, tmp_path / "out", "--size", "64"],
        [source, tmp_path / "pictures", tmp_path / "out"],
        [tmp_path / "pictures", source, tmp_path / "out"],
        [source, source, tmp_path / "out"],
    ):
        assert_one_line(invoke(*arguments), 2, "CIFAR-10")
    assert not (tmp_path / "out").exists()


def test_command_names_a_damaged_archive(tmp_path):
    source = source_of(tmp_path, "archive.tar.gz", files_of("python 3"))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert_one_line(invoke(source, tmp_path / "out"), 1, source, "data_batch_")
    folder = source_of(tmp_path, "extracted", files_of("binary"))
    (folder / "test_batch.bin").unlink()
    assert_one_line(invoke(folder, tmp_path / "out"), 1, folder, "test_batch not found")


def test_command_names_an_output_that_cannot_be_written(tmp_path):
    source = source_of(tmp_path, "archive.tar.gz", files_of("binary"))
    (tmp_path / "file").write_text("in the way")
    assert_one_line(invoke(source, tmp_path / "file"), 1, tmp_path / "file")


def test_command_still_prepares_other_sources(tmp_path):
    source = not_cifar10(tmp_path / "other")["shard"]
    result = invoke(source, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert load_crops(tmp_path / "out", torch.device("cpu")).pixels.shape == (1, 3, 128, 128)
