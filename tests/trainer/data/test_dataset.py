import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.config import AugmentConfig, DegradationConfig
from trainer.data.dataset import Crops, draw_batch, load_crops, resize, to_batch
from trainer.data.prepare import CROPS_NAME, MANIFEST_NAME, DataError
from trainer.lab import lab_to_rgb

CPU = torch.device("cpu")
STILL = AugmentConfig(min_scale=1.0, aspect=0.0, flip=False)
OLD = DegradationConfig(**{field.name: 1.0 for field in fields(DegradationConfig)})
SIDE = 120


def numbered(count: int, size: int = 16) -> Crops:
    """Gray crops of different levels, which identify the crops in a batch."""
    levels = torch.arange(count, dtype=torch.uint8) * (255 // count)
    return Crops(levels.view(-1, 1, 1, 1).expand(-1, 3, size, size))


def numbers(batch, count: int) -> list[int]:
    rgb = lab_to_rgb(torch.cat(batch[:2], dim=1))
    return (rgb[:, 0, 0, 0] * 255 / (255 // count)).round().int().tolist()


def ramps(count: int = 64) -> Crops:
    """Crops with the column in red and the row in green, which locate the windows of a batch."""
    place = torch.arange(SIDE, dtype=torch.uint8)
    red, green = place.expand(SIDE, SIDE), place.view(-1, 1).expand(SIDE, SIDE)
    return Crops(torch.stack((red, green, torch.full_like(red, 100))).expand(count, 3, SIDE, SIDE))


def windows(batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return widths and heights of the windows of `ramps` in pixels; flipped windows have negative widths."""
    rgb = 255 * lab_to_rgb(torch.cat(batch[:2], dim=1))
    size = rgb.shape[-1]
    middle = slice(2, -2)  # away from the edge of the resizing filter
    red, green = rgb[:, 0, size // 2, middle], rgb[:, 1, middle, size // 2]
    part = size / (size - 5)
    return (red[:, -1] - red[:, 0]) * part, (green[:, -1] - green[:, 0]) * part


def draw(crops, seen=0, count=4, size=16, augment=STILL, seed=0):
    return draw_batch(crops, seen, count, size, augment, seed, CPU)


def test_batch_values_are_in_their_ranges(prepared):
    batch = draw(load_crops(prepared, CPU), count=5, size=32, augment=AugmentConfig())
    assert batch.lightness.shape == (5, 1, 32, 32)
    assert batch.ab.shape == (5, 2, 32, 32)
    assert batch.lightness.dtype == batch.ab.dtype == torch.float32
    assert batch.lightness.min() >= 0
    assert batch.lightness.max() <= 100.001
    assert 10 < batch.ab.abs().max() < 110


def test_batch_without_augmentation_holds_the_crops(prepared):
    crops = load_crops(prepared, CPU)
    batch = draw(crops, count=len(crops), size=48)
    drawn = (lab_to_rgb(torch.cat(batch[:2], dim=1)) * 255).round().byte()
    assert sorted(map(repr, drawn.flatten(1).tolist())) == sorted(map(repr, crops.pixels.flatten(1).tolist()))


def test_batch_colors_equal_those_of_the_crops():
    red = Crops(torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 20, 20))
    batch = draw(red, count=1, augment=AugmentConfig())
    torch.testing.assert_close(batch.lightness, torch.full((1, 1, 16, 16), 53.24), atol=0.01, rtol=0)
    torch.testing.assert_close(batch.ab[:, 0], torch.full((1, 16, 16), 80.09), atol=0.01, rtol=0)


def test_batch_is_determined_by_its_place_in_the_stream(prepared):
    crops = load_crops(prepared, CPU)
    one, other = (draw(crops, seen=12, count=8, augment=AugmentConfig()) for _ in range(2))
    assert torch.equal(one.lightness, other.lightness)
    assert torch.equal(one.ab, other.ab)


def test_batch_does_not_use_the_global_random_state(prepared):
    before = torch.get_rng_state()
    draw(load_crops(prepared, CPU), augment=AugmentConfig(film=OLD))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch_size", [1, 7, 25])
def test_batch_passes_are_permutations_at_any_batch_size(batch_size):
    crops = numbered(10)
    stream = [n for seen in range(0, 50, batch_size) for n in numbers(draw(crops, seen, batch_size), 10)][:50]
    passes = [stream[start : start + 10] for start in range(0, 50, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == 5, "each pass has an order of its own"
    assert stream == numbers(draw(crops, 0, 50), 10)


@pytest.mark.parametrize("seed", [1, 2**20, 2**31])
def test_batch_order_depends_on_the_seed(seed):
    crops = numbered(20)
    assert numbers(draw(crops, count=20), 20) != numbers(draw(crops, count=20, seed=seed), 20)


def test_windows_depend_on_the_seed():
    crops, augment = ramps(8), AugmentConfig()
    assert not torch.equal(draw(crops, augment=augment).ab, draw(crops, augment=augment, seed=1).ab)


def test_windows_stay_within_scale_and_aspect():
    crops, augment = ramps(2), AugmentConfig(min_scale=0.6, aspect=0.15, flip=False)
    sizes = [windows(draw(crops, seen, 2, 48, augment)) for seen in range(0, 240, 2)]
    widths, heights = (torch.cat(kind) for kind in zip(*sizes, strict=True))
    ratios = heights / widths
    assert ratios.max() == pytest.approx(1.15, abs=0.02)
    assert ratios.min() == pytest.approx(1 / 1.15, abs=0.02)
    sides = torch.maximum(widths, heights)
    assert sides.min() == pytest.approx(0.6 * SIDE, rel=0.05)
    assert sides.max() == pytest.approx(SIDE, rel=0.05)


def test_flip_mirrors_about_half_of_the_samples():
    crops = ramps()
    widths, heights = windows(draw(crops, 0, 64, 32, replace(STILL, flip=True)))
    assert 16 < (widths < 0).sum() < 48
    assert (heights > 0).all()


def test_flip_disabled_mirrors_nothing():
    assert (windows(draw(ramps(), 0, 64, 32))[0] > 0).all()


def test_flip_gives_exact_mirror_images():
    still, flipped = (draw(ramps(), 0, 64, SIDE, replace(STILL, flip=flip)) for flip in (False, True))
    mirrored = windows(flipped)[0] < 0
    assert torch.equal(flipped.ab[mirrored], still.ab[mirrored].flip(-1))
    assert torch.equal(flipped.lightness[~mirrored], still.lightness[~mirrored])


def test_film_changes_lightness_only(prepared):
    crops = load_crops(prepared, CPU)
    clean, old = (
        draw(crops, count=16, size=32, augment=AugmentConfig(film=film))
        for film in (DegradationConfig(), OLD)
    )
    assert torch.equal(old.ab, clean.ab)
    assert torch.equal(old.clean, clean.lightness)
    assert torch.equal(clean.clean, clean.lightness)
    assert (old.lightness != clean.lightness).flatten(1).any(1).all()
    assert old.lightness.shape == clean.lightness.shape
    assert old.lightness.dtype == torch.float32
    assert old.lightness.min() >= 0
    assert old.lightness.max() <= 100


def test_film_with_a_share_keeps_other_samples_clean(prepared):
    crops, half = load_crops(prepared, CPU), replace(STILL, film=DegradationConfig(contrast=0.5))
    clean, old = (draw(crops, count=64, augment=augment).lightness for augment in (STILL, half))
    changed = (old != clean).flatten(1).any(1)
    assert 16 < changed.sum() < 48


def test_film_uses_the_colors_of_the_drawn_window():
    """Grays are the same on every emulsion."""
    levels = torch.randint(0, 256, (8, 1, 40, 40), generator=torch.Generator().manual_seed(0))
    crops = Crops(levels.byte().expand(-1, 3, -1, -1))
    clean, old = (
        draw(crops, count=8, augment=AugmentConfig(film=film)).lightness
        for film in (DegradationConfig(), DegradationConfig(spectral=1))
    )
    torch.testing.assert_close(old, clean, atol=2e-3, rtol=0)


def test_film_is_determined_by_the_place_in_the_stream(prepared):
    crops, augment = load_crops(prepared, CPU), AugmentConfig(film=OLD)
    undisturbed = [draw(crops, seen, 8, augment=augment) for seen in range(0, 32, 8)]
    draw(crops, 8, 5, augment=augment, seed=1)
    torch.rand(3)
    resumed = [draw(crops, seen, 8, augment=augment) for seen in (16, 24)]
    for one, other in zip(undisturbed[2:], resumed, strict=True):
        assert torch.equal(one.lightness, other.lightness)
        assert torch.equal(one.ab, other.ab)


@pytest.mark.parametrize(("seen", "seed"), [(4, 0), (0, 1)])
def test_film_depends_on_place_and_seed(seen, seed):
    crops, augment = Crops(numbered(2).pixels[1:]), replace(STILL, film=OLD)
    one, other = draw(crops, augment=augment), draw(crops, seen, augment=augment, seed=seed)
    torch.testing.assert_close(one.ab, other.ab)
    assert (one.lightness != other.lightness).flatten(1).any(1).all()


@pytest.mark.parametrize("size", [8, 16, 48])
def test_resize_keeps_the_range_and_the_mean(size):
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    resized = resize(pixels, size)
    assert resized.shape == (2, 3, size, size)
    assert resized.min() >= 0
    assert resized.max() <= 1
    torch.testing.assert_close(resized.mean((2, 3)), pixels.float().mean((2, 3)) / 255, atol=0.03, rtol=0)


def test_resize_to_a_smaller_size_filters_aliasing():
    board = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).repeat(32, 32).expand(1, 3, 64, 64)
    assert (resize(board, 8) - 0.5).abs().max() < 0.05


def test_to_batch_of_gray_has_no_chroma():
    assert to_batch(torch.full((1, 3, 4, 4), 0.5)).ab.abs().max() < 1e-3


def test_load_crops_returns_the_prepared_crops(prepared):
    crops = load_crops(prepared, CPU)
    assert len(crops) == 16
    assert crops.size == 48
    assert crops.pixels.dtype == torch.uint8
    np.testing.assert_array_equal(crops.pixels.permute(0, 2, 3, 1).numpy(), np.load(prepared / CROPS_NAME))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_load_crops_maps_the_file_itself(prepared):
    """Pages of the file are shared by all processes, and memory is not reserved for them."""
    crops = load_crops(prepared, CPU)
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if CROPS_NAME in line]
    spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps if " r--s " in line]
    assert any(start <= crops.pixels.data_ptr() < end for start, end in spans)


def shorten(folder):
    data = (folder / CROPS_NAME).read_bytes()
    (folder / CROPS_NAME).write_bytes(data[:-1])


def set_field(name, value):
    def damage(folder):
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest | {name: value}))

    return damage


DAMAGES = {
    "no crops": lambda folder: (folder / CROPS_NAME).unlink(),
    "no manifest": lambda folder: (folder / MANIFEST_NAME).unlink(),
    "empty crops": lambda folder: (folder / CROPS_NAME).write_bytes(b""),
    "short crops": shorten,
    "crops of text": lambda folder: (folder / CROPS_NAME).write_text("text"),
    "crops of another type": lambda folder: np.save(folder / CROPS_NAME, np.zeros((16, 48, 48, 3))),
    "crops of another shape": lambda folder: np.save(folder / CROPS_NAME, np.zeros((16, 9), np.uint8)),
    "empty manifest": lambda folder: (folder / MANIFEST_NAME).write_text(""),
    "manifest without fields": lambda folder: (folder / MANIFEST_NAME).write_text("{}"),
    "manifest of another kind": lambda folder: (folder / MANIFEST_NAME).write_text("[]"),
    "another number of crops": set_field("crops", 17),
    "another size of crops": set_field("size", 64),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_load_crops_names_a_damaged_folder(damage, prepared, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for name in (CROPS_NAME, MANIFEST_NAME):
        (folder / name).write_bytes((prepared / name).read_bytes())
    damage(folder)
    with pytest.raises(DataError, match="damaged"):
        load_crops(folder, CPU)


def test_load_crops_names_a_missing_folder(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        load_crops(tmp_path / "nowhere", CPU)


def peak_memory() -> int:
    """Return the peak of the resident memory in bytes, since it was reset."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_crops_larger_than_memory_stay_on_disk(tmp_path):
    """64 GB of crops, as a sparse file: each batch reads no more than its own."""
    count, size = 1_000_000, 144
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    with (tmp_path / CROPS_NAME).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + count * size * size * 3)
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({"crops": count, "size": size}))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak_memory()
    crops = load_crops(tmp_path, CPU)
    for seen in (0, 16):
        assert draw_batch(crops, seen, 16, 32, AugmentConfig(), 0, CPU).ab.shape == (16, 2, 32, 32)
    assert peak_memory() - before < 200 << 20
