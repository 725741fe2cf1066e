import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from trainer.data.prepare import CROPS_NAME, MANIFEST_NAME, DataError, crop_picture, prepare, read_sources

FORMATS = {
    "a.jpg": "JPEG",
    "b.jpeg": "JPEG",
    "c.png": "PNG",
    "d.webp": "WEBP",
    "e.avif": "AVIF",
    "F.PNG": "PNG",
}
RED, BLUE = (220, 30, 30), (30, 30, 220)


def encoded(picture, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def halves(width: int, height: int) -> Image.Image:
    """Create a picture with red on the left and blue on the right."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def read(out):
    return np.load(out / CROPS_NAME), json.loads((out / MANIFEST_NAME).read_text())


@pytest.fixture
def folder(tmp_path, picture):
    """Six usable pictures in two levels of folders, and one of every unusable kind."""
    source = tmp_path / "pictures"
    (source / "deep" / "er").mkdir(parents=True)
    for index, (name, kind) in enumerate(FORMATS.items()):
        (source / ("deep/er" if index % 2 else ".") / name).write_bytes(encoded(picture(index), kind))
    good = encoded(picture(9, 64, 64), "JPEG")
    bad = {
        "truncated.jpg": good[: len(good) // 2],
        "empty.png": b"",
        "text.webp": b"not a picture",
        "tiny.png": encoded(picture(1, 15, 40)),
        "gray.png": encoded(Image.linear_gradient("L").resize((40, 40))),
        "toned.png": encoded(Image.new("RGB", (40, 40), (120, 121, 120))),
    }
    for name, data in bad.items():
        (source / name).write_bytes(data)
    (source / "notes.txt").write_text("not looked at")
    return source


def test_prepare_reads_folders_and_tar_files_of_all_formats(folder, tmp_path):
    shard = make_tar(tmp_path / "shard.tar", {p.name: p.read_bytes() for p in sorted(folder.rglob("*.*"))})
    manifest = prepare([folder, shard], tmp_path / "out", 32)
    assert manifest.pictures == manifest.crops == 2 * len(FORMATS)
    crops, _ = read(tmp_path / "out")
    assert crops.shape == (12, 32, 32, 3)
    assert crops.dtype == np.uint8


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_prepare_accepts_a_single_picture(name, tmp_path):
    halves(20, 20).save(tmp_path / name)
    assert prepare([tmp_path / name], tmp_path / "out", 16).pictures == 1


def test_prepare_lists_dropped_pictures_by_reason(folder, tmp_path):
    dropped = prepare([folder], tmp_path / "out", 32).dropped
    assert sorted(dropped.pop("gray")) == ["gray.png", "toned.png"]
    assert dropped.pop("smaller than 16 pixels") == ["tiny.png"]
    assert all(reason.startswith("unreadable") for reason in dropped)
    assert sorted(name for names in dropped.values() for name in names) == [
        "empty.png",
        "text.webp",
        "truncated.jpg",
    ]


def test_manifest_agrees_with_the_crops_and_the_return_value(folder, tmp_path):
    returned = prepare([folder], tmp_path / "out", 32)
    crops, written = read(tmp_path / "out")
    assert written == vars(returned)
    assert written["crops"] == len(crops)
    assert written["size"] == crops.shape[1]
    assert written["sources"] == [str(folder)]


def test_prepare_progress_counts_every_picture(folder, tmp_path):
    calls = []
    manifest = prepare([folder], tmp_path / "out", 32, progress=lambda: calls.append(1))
    assert len(calls) == manifest.pictures + sum(map(len, manifest.dropped.values())) == 12


def test_prepare_output_is_independent_of_workers(folder, tmp_path):
    for workers in (1, 7):
        prepare([folder], tmp_path / str(workers), 32, workers=workers)
    for name in (CROPS_NAME, MANIFEST_NAME):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "7" / name).read_bytes()


def test_prepare_keeps_the_order_of_many_pictures(tmp_path):
    files = {f"{i:03d}.png": encoded(Image.new("RGB", (16, 16), (i, 255 - i, 0))) for i in range(150)}
    prepare([make_tar(tmp_path / "shard.tar", files)], tmp_path / "out", 16, workers=3)
    assert read(tmp_path / "out")[0][:, 0, 0, 0].tolist() == list(range(150))


def test_read_sources_orders_folders_by_name_and_tar_by_entry(tmp_path):
    names = ["b/2.png", "b.png", "a.png"]
    for name in names:
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        halves(20, 20).save(tmp_path / "pictures" / name)
    shard = make_tar(tmp_path / "shard.tar", dict.fromkeys(names, b""))
    assert [name for name, _ in read_sources([shard])] == names
    assert [name for name, _ in read_sources([tmp_path / "pictures"])] == ["a.png", "b/2.png", "b.png"]


@pytest.mark.parametrize("transpose", [None, Image.Transpose.ROTATE_90])
def test_crop_picture_of_a_long_picture_gives_both_ends(transpose):
    picture = halves(80, 40)
    crops = crop_picture(encoded(picture.transpose(transpose) if transpose else picture), 20)
    assert crops.shape == (2, 20, 20, 3)
    ends = sorted(tuple(crop.reshape(-1, 3).mean(0).astype(int)) for crop in crops)
    assert ends == [BLUE, RED]


@pytest.mark.parametrize(("width", "height"), [(40, 40), (48, 40), (40, 47)])
def test_crop_picture_of_a_squarish_picture_gives_its_center(width, height):
    assert crop_picture(encoded(halves(width, height)), 20).shape == (1, 20, 20, 3)
    crop = crop_picture(encoded(halves(48, 40)), 20)[0]
    np.testing.assert_array_equal(crop[5, 0], RED)
    np.testing.assert_array_equal(crop[5, -1], BLUE)


@pytest.mark.parametrize("size", [(200, 40), (41, 40), (16, 300), (17, 16), (333, 217)])
@pytest.mark.parametrize("side", [16, 33, 128])
def test_crop_picture_returns_the_requested_size(size, side):
    assert crop_picture(encoded(halves(*size)), side).shape[1:] == (side, side, 3)


def test_crop_picture_applies_exif_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    crop = crop_picture(encoded(halves(40, 40), "JPEG", exif=exif, quality=95), 40)[0].astype(int)
    assert crop[:15, :, 0].mean() > 200, "the left half is at the top"
    assert crop[-15:, :, 2].mean() > 200


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_crop_picture_converts_other_color_modes(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    crop = crop_picture(encoded(halves(40, 40).convert(mode), kind), 40)[0]
    assert np.abs(crop[20, 5].astype(int) - RED).max() < 40


def test_crop_picture_with_a_small_color_patch_is_not_gray():
    picture = Image.new("RGB", (40, 40), (128, 128, 128))
    picture.paste(RED, (0, 0, 10, 10))
    assert not isinstance(crop_picture(encoded(picture), 20), str)


@pytest.mark.parametrize("name", ["nowhere", "notes.txt", "damaged.tar"])
def test_prepare_names_an_unreadable_source(name, tmp_path):
    (tmp_path / "notes.txt").write_text("not a tar file")
    (tmp_path / "damaged.tar").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(DataError, match=name):
        prepare([tmp_path / name], tmp_path / "out", 32)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_prepare_names_a_truncated_tar_file(mode, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    shard = make_tar(tmp_path / "shard.tar", {f"{i}.png": encoded(noise) for i in range(4)}, mode)
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=r"shard\.tar"):
        prepare([shard], tmp_path / "out", 32)


@pytest.mark.parametrize("name", ["nowhere", "notes.txt"])
def test_prepare_with_a_bad_last_source_writes_nothing(name, folder, tmp_path):
    (tmp_path / "notes.txt").write_text("not a tar file")
    with pytest.raises(DataError, match=name):
        prepare([folder, tmp_path / name], tmp_path / "out", 32)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("name", ["shard.tar", "Shard.TAR.GZ"])
def test_prepare_reads_tar_files_in_a_folder(name, folder, picture, tmp_path):
    alone = prepare([folder], tmp_path / "alone", 32)
    make_tar(folder / "deep" / name, {"one.png": encoded(picture(1)), "two.png": encoded(picture(2))})
    assert prepare([folder], tmp_path / "out", 32).pictures == alone.pictures + 2


def test_prepare_names_a_folder_without_pictures(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no usable picture \(none found\)"):
        prepare([tmp_path / "empty"], tmp_path / "out", 32)


def test_prepare_without_usable_pictures_writes_nothing(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("L", (40, 40), 7).save(tmp_path / "pictures" / "gray.png")
    with pytest.raises(DataError, match=r"pictures.*no usable picture.*gray"):
        prepare([tmp_path / "pictures"], tmp_path / "out", 32)
    assert not list((tmp_path / "out").glob("*"))


def test_prepare_replaces_an_earlier_output(folder, tmp_path):
    prepare([folder], tmp_path / "out", 32)
    manifest = prepare([folder / "deep"], tmp_path / "out", 16)
    crops, written = read(tmp_path / "out")
    assert crops.shape == (manifest.crops, 16, 16, 3)
    assert written["sources"] == [str(folder / "deep")]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [CROPS_NAME, MANIFEST_NAME]


def test_prepare_interrupted_keeps_the_earlier_output(folder, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    prepare([folder], tmp_path / "out", 32)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        prepare([folder], tmp_path / "out", 16, progress=interrupt)
    for name, content in before.items():
        assert (tmp_path / "out" / name).read_bytes() == content
