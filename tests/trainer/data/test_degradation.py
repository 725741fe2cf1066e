import io
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import fft, ndimage
from torch import Generator, Tensor

from trainer.config import DegradationConfig
from trainer.data.degradation import LOOKS, age, contrast, damage, fading, grain, jpeg, softness, spectral
from trainer.lab import rgb_to_lab

NAMES = [field.name for field in fields(DegradationConfig)]
EVERY = DegradationConfig(**dict.fromkeys(NAMES, 1.0))
QUALITIES = range(15, 81)  # JPEG qualities


def stream(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def textured(count: int = 1, height: int = 48, width: int = 48, low: float = 10, high: float = 90) -> Tensor:
    """Lightness of different pictures of fine noise."""
    return torch.empty(count, 1, height, width).uniform_(low, high, generator=stream(1))


def flat(level: float, count: int = 1, height: int = 64, width: int = 64) -> Tensor:
    return torch.full((count, 1, height, width), float(level))


def colored(count: int = 1, height: int = 48, width: int = 48) -> Tensor:
    """sRGB of pictures of fine noise, away from black and white."""
    return torch.empty(count, 3, height, width).uniform_(0.1, 0.9, generator=stream(2))


def colorful(lightness: Tensor, random: Generator) -> Tensor:
    """Apply `spectral` to colors that depend on the lightness alone."""
    return spectral(torch.cat((lightness, 100 - lightness, lightness.flip(-1)), dim=1) / 100, random)


def own_lightness(rgb: Tensor) -> Tensor:
    return rgb_to_lab(rgb)[:, :1]


def aged(rgb: Tensor, film: DegradationConfig, seed: int = 0) -> Tensor:
    return age(rgb, own_lightness(rgb), film, stream(seed))


def touched(before: Tensor, after: Tensor) -> Tensor:
    """Return a mask of the samples that changed."""
    return (before != after).flatten(1).any(1)


def deviation(pictures: Tensor) -> Tensor:
    """Return the standard deviation of each picture."""
    return pictures.flatten(1).std(1)


EVERY_LOOK = pytest.mark.parametrize(
    "look", [colorful, *LOOKS.values()], ids=lambda look: getattr(look, "__name__", None)
)


@EVERY_LOOK
@pytest.mark.parametrize("shape", [(1, 1, 48, 48), (1, 1, 40, 24), (3, 1, 17, 33), (2, 1, 10, 70)])
def test_look_keeps_shape_and_dtype(look, shape):
    looked = look(textured(shape[0], *shape[2:]), stream())
    assert looked.shape == shape
    assert looked.dtype == torch.float32
    assert looked.isfinite().all()


@EVERY_LOOK
def test_look_changes_its_output_but_not_its_input(look):
    lightness = textured(16)
    before = lightness.clone()
    assert touched(before, look(lightness, stream())).all()
    assert torch.equal(lightness, before)


@EVERY_LOOK
def test_look_depends_on_its_stream_only(look):
    state = torch.get_rng_state()
    first = look(textured(2), stream(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(look(textured(2), stream(3)), first)
    assert touched(look(textured(2), stream(4)), first).all()


@EVERY_LOOK
def test_look_is_drawn_separately_for_every_sample(look):
    looked = look(textured(1).expand(8, -1, -1, -1).contiguous(), stream()).flatten(1)
    distances = torch.cdist(looked, looked, p=float("inf"))
    assert (distances + torch.eye(8) > 1e-4).all()


@EVERY_LOOK
def test_look_of_a_sample_is_independent_of_the_others(look):
    lightness = textured(3, 20, 28)
    looked = look(lightness, stream())
    lightness[1] = 100 - lightness[1]
    others = look(lightness, stream())
    assert touched(looked, others).tolist() == [False, True, False]


def test_config_has_a_share_for_every_look():
    assert {"spectral", *LOOKS} == set(NAMES)
    assert {name: look.__name__ for name, look in LOOKS.items()} == {name: name for name in LOOKS}


def test_age_without_film_keeps_the_lightness():
    rgb = colored(4)
    assert torch.equal(aged(rgb, DegradationConfig()), own_lightness(rgb))


@pytest.mark.parametrize("name", NAMES)
def test_age_with_share_1_changes_every_sample(name):
    rgb = colored(32)
    assert touched(own_lightness(rgb), aged(rgb, DegradationConfig(**{name: 1.0}))).all()


@pytest.mark.parametrize("name", NAMES)
def test_age_with_a_share_changes_that_share_of_samples(name):
    rgb = colored(300, 12, 12)
    changed = touched(own_lightness(rgb), aged(rgb, DegradationConfig(**{name: 0.25})))
    assert 50 < changed.sum() < 100


@pytest.mark.parametrize("name", LOOKS)
def test_age_applies_a_share_to_its_look(name, monkeypatch):
    monkeypatch.setitem(LOOKS, name, lambda lightness, _: torch.full_like(lightness, 7))
    rgb = colored(64, 12, 12)
    lightness, looked = own_lightness(rgb), aged(rgb, DegradationConfig(**{name: 0.5}))
    taken = touched(lightness, looked)
    assert 16 < taken.sum() < 48
    assert (looked[taken] == 7).all(), "a look takes samples whole"


def test_age_with_spectral_keeps_grays():
    gray = textured(8).expand(-1, 3, -1, -1) / 100
    torch.testing.assert_close(
        aged(gray, DegradationConfig(spectral=1)), own_lightness(gray), atol=1e-3, rtol=0
    )


def test_age_draws_looks_independently(monkeypatch):
    for name, step in (("softness", 1), ("jpeg", 2)):
        monkeypatch.setitem(LOOKS, name, lambda lightness, _, step=step: lightness + step)
    lightness = flat(50, 1000, 2, 2)
    film = DegradationConfig(softness=0.5, jpeg=0.5)
    steps = age(lightness.expand(-1, 3, -1, -1) / 100, lightness, film, stream())[:, 0, 0, 0] - 50
    counts = steps.int().bincount(minlength=4)
    assert (counts > 200).all()
    assert (counts < 300).all()


def test_age_applies_looks_in_photographic_order(monkeypatch):
    order = []
    for name in LOOKS:
        monkeypatch.setitem(LOOKS, name, lambda lightness, _, name=name: order.append(name) or lightness)
    aged(colored(), EVERY)
    assert order == ["softness", "contrast", "grain", "fading", "damage", "jpeg"]


def test_age_applies_spectral_before_all_other_looks(monkeypatch):
    seen = []
    monkeypatch.setitem(LOOKS, "softness", lambda lightness, _: seen.append(lightness) or lightness)
    rgb = colored(4)
    looked = aged(rgb, DegradationConfig(spectral=1, softness=1))
    assert touched(own_lightness(rgb), seen[0]).all()
    assert torch.equal(looked, seen[0])


@pytest.mark.parametrize("rgb", [colored(16), torch.zeros(16, 3, 32, 40), torch.ones(16, 3, 32, 40)])
def test_age_returns_valid_lightness(rgb):
    looked = aged(rgb, EVERY)
    assert looked.shape == (16, 1, *rgb.shape[2:])
    assert looked.dtype == torch.float32
    assert looked.min() >= 0
    assert looked.max() <= 100


def test_age_does_not_change_its_inputs():
    rgb = colored(4)
    lightness = own_lightness(rgb)
    before = rgb.clone(), lightness.clone()
    age(rgb, lightness, EVERY, stream())
    assert torch.equal(rgb, before[0])
    assert torch.equal(lightness, before[1])


def test_age_depends_on_its_stream_only():
    rgb = colored(4)
    assert torch.equal(aged(rgb, EVERY), aged(rgb, EVERY))
    assert touched(aged(rgb, EVERY), aged(rgb, EVERY, seed=1)).all()


def test_spectral_keeps_grays():
    gray = torch.linspace(0, 1, 256).expand(50, 3, 1, 256)
    torch.testing.assert_close(spectral(gray, stream()), own_lightness(gray), atol=1e-3, rtol=0)


def exposed(color: tuple[float, float, float], count: int = 2000) -> Tensor:
    """Return the lightness of a color on `count` emulsions."""
    return spectral(torch.tensor(color).view(1, 3, 1, 1).expand(count, 3, 1, 1), stream()).flatten()


def test_spectral_darkens_red_and_brightens_blue():
    red, green, blue = (exposed(color) for color in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    assert red.mean() < 53.24 - 5
    assert green.mean() < 87.73 - 5
    assert blue.min() > 32.30
    assert blue.mean() > 32.30 + 30


def test_spectral_draws_nearly_half_of_emulsions_blind_to_red():
    red = exposed((1, 0, 0))
    assert 0.40 < (red < 38).float().mean() < 0.50
    assert ((red < 38) | (red > 43)).all(), "no emulsion between the panchromatic and the others"


def test_spectral_is_linear_in_light():
    """The luminances of the three primaries add up to the luminance of white."""
    light = [((exposed(color, 50) + 16) / 116) ** 3 for color in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    bright = torch.stack(light) > 216 / 24389  # where L* is a cube root
    total = torch.where(bright, torch.stack(light), 0).sum(0)
    torch.testing.assert_close(total[bright.all(0)], torch.ones(int(bright.all(0).sum())), atol=1e-4, rtol=0)
    assert bright.all(0).sum() > 25


def test_softness_ranges_from_none_to_a_binomial_blur():
    lightness = textured(64, 24, 30)
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    blurred = lightness.double().numpy()
    for axis in (2, 3):
        blurred = ndimage.correlate1d(blurred, kernel, axis, mode="nearest")
    whole = torch.from_numpy(blurred) - lightness
    change = softness(lightness, stream()) - lightness
    part = ((change * whole).sum((2, 3)) / whole.square().sum((2, 3))).unsqueeze(-1).unsqueeze(-1)
    torch.testing.assert_close(change.double(), part * whole, atol=1e-3, rtol=0)
    assert 0 <= part.min() < 0.1
    assert 0.9 < part.max() <= 1


def test_softness_keeps_a_flat_picture():
    torch.testing.assert_close(softness(flat(37, 8), stream()), flat(37, 8), atol=1e-4, rtol=0)


def test_softness_keeps_the_mean_and_lowers_the_variance():
    lightness = textured(32)
    soft = softness(lightness, stream())
    torch.testing.assert_close(soft.mean((2, 3)), lightness.mean((2, 3)), atol=0.5, rtol=0)
    assert (deviation(soft) < deviation(lightness)).all()
    assert deviation(soft).min() < 0.4 * deviation(lightness).min()


def toned(count: int = 200) -> Tensor:
    """Apply `contrast` to the tones from 0 to 100: (count, 1001)."""
    return contrast(torch.linspace(0, 100, 1001).expand(count, 1, 1, 1001), stream())[:, 0, 0]


def test_contrast_keeps_black_and_white_and_the_order_of_tones():
    tones = toned()
    torch.testing.assert_close(tones[:, 0], torch.zeros(200), atol=1e-4, rtol=0)
    torch.testing.assert_close(tones[:, -1], torch.full((200,), 100.0), atol=1e-4, rtol=0)
    assert (tones.diff(dim=1) > -1e-4).all()
    assert (tones[:, 100::100].diff(dim=1) > 0.5).all(), "tones stay distinct"


def test_contrast_clamps_tones_beyond_black_and_white():
    beyond = torch.tensor([-20.0, 0.0, 100.0, 120.0]).expand(8, 1, 1, 4)
    looked = contrast(beyond, stream())
    assert torch.equal(looked[..., 0], looked[..., 1])
    assert torch.equal(looked[..., 3], looked[..., 2])


def test_contrast_ranges_from_darker_to_lighter():
    middle = toned()[:, 500]
    assert middle.min() < 35
    assert middle.max() > 65
    assert 45 < middle.mean() < 55


def test_contrast_ranges_from_flatter_to_steeper():
    """Without the gamma, a straight curve would leave 50 L* between the quarters."""
    spreads = []
    places = np.linspace(0, 1, 1001)
    for tones in toned().numpy():
        gamma = np.log(0.5) / np.log(np.interp(50, tones, places))  # the curve keeps the middle
        low, high = np.interp(np.array([0.25, 0.75]) ** (1 / gamma), places, tones)
        spreads.append(high - low)
    assert 40 < min(spreads) < 44
    assert 65 < max(spreads) < 69


def test_grain_keeps_the_mean():
    grainy = grain(flat(50, 64), stream())
    torch.testing.assert_close(grainy.mean((1, 2, 3)), torch.full((64,), 50.0), atol=0.6, rtol=0)
    assert grainy.mean() == pytest.approx(50, abs=0.05)


def test_grain_ranges_from_weak_to_strong():
    strengths = deviation(grain(flat(50, 300), stream()))
    assert 0.35 < strengths.min() < 0.8
    assert 3.5 < strengths.max() < 4.3


@pytest.mark.parametrize("level", [0, 100])
def test_grain_is_strongest_in_the_mid_tones(level):
    extreme, quarter, middle = (
        deviation(grain(flat(tone, 16), stream())) for tone in (level, (level + 50) / 2, 50)
    )
    torch.testing.assert_close(extreme / middle, torch.full((16,), 0.4), atol=0.01, rtol=0)
    assert (extreme < quarter).all()
    assert (quarter < middle).all()


def test_grain_beyond_black_and_white_is_not_stronger():
    extreme, beyond = (deviation(grain(flat(tone, 8), stream())) for tone in (100, 130))
    torch.testing.assert_close(extreme, beyond, atol=1e-3, rtol=0)


@pytest.mark.parametrize("axis", [1, 2])
def test_grain_ranges_from_single_pixels_to_clumps(axis):
    noise = (grain(flat(50, 200), stream()) - 50).squeeze(1)
    length = noise.shape[axis]
    pairs = (noise.narrow(axis, 0, length - 1) * noise.narrow(axis, 1, length - 1)).mean((1, 2))
    correlations = pairs / noise.square().mean((1, 2))
    assert -0.05 < correlations.min() < 0.05
    assert 0.45 < correlations.max() < 0.6


def faded_board(count: int = 300, height: int = 32, width: int = 48) -> tuple[Tensor, Tensor]:
    """Return blacks and whites of faded checkerboards: (count, height, width), NaN at the other tone."""
    board = torch.arange(height).view(-1, 1) + torch.arange(width)
    lightness = 100.0 * (board % 2)
    faded = fading(lightness.expand(count, 1, height, width), stream()).squeeze(1)
    return (torch.where(lightness == level, faded, torch.nan) for level in (0, 100))


def test_fading_raises_blacks_to_30_and_lowers_whites_to_70():
    blacks, whites = (tones.nanmean((1, 2)) for tones in faded_board())
    assert -1e-3 < blacks.min() < 3
    assert 27 < blacks.max() < 30.001
    assert 69.999 < whites.min() < 73
    assert 97 < whites.max() < 100.001


def test_fading_compresses_the_range_and_keeps_tone_order():
    ramp = torch.linspace(0, 100, 11).view(1, 11, 1, 1).expand(-1, -1, 24, 32)
    for seed in range(20):  # the same draw for each tone
        tones = torch.cat([fading(tone.unsqueeze(0), stream(seed)) for tone in ramp[0].unsqueeze(1)], dim=1)
        steps = tones.diff(dim=1)
        torch.testing.assert_close(steps, steps.mean().expand_as(steps), atol=1e-3, rtol=0)
        assert 4 <= steps.mean() <= 10


def test_fading_is_uneven_at_the_corners_only():
    faded = fading(flat(50, 300, 33, 49), stream()).squeeze(1)
    corners = faded[:, [0, 0, -1, -1], [0, -1, 0, -1]] - faded[:, 16, 24].unsqueeze(1)
    torch.testing.assert_close(corners[:, 0], -corners[:, 3], atol=1e-3, rtol=0)
    torch.testing.assert_close(corners[:, 1], -corners[:, 2], atol=1e-3, rtol=0)
    assert 10 < corners.abs().max() < 12.001
    most = corners.argmax(1).bincount(minlength=4)
    assert most.min() > 40, "any corner may be the lightest"


def test_damage_keeps_most_pixels_exactly():
    lightness = textured(200, 64, 64)
    marked = (damage(lightness, stream()) != lightness).float().mean((1, 2, 3))
    assert marked.min() > 0
    assert marked.max() < 0.25
    assert marked.mean() < 0.1


def test_damage_moves_towards_light_or_dark_tones_only():
    lightness = textured(200, 64, 64, 0, 100)
    damaged = damage(lightness, stream())
    assert (damaged >= lightness.clamp(max=5) - 1e-3).all()
    assert (damaged <= lightness.clamp(min=97) + 1e-3).all()
    assert ((damaged - lightness).abs() > 80).any(), "some marks hide what was there"


def test_damage_is_lighter_more_often_than_darker():
    damaged = damage(flat(51, 800, 32, 32), stream())  # half-way between both tones
    light, dark = (damaged > 51).sum(), (damaged < 51).sum()
    assert 1.6 < light / dark < 2.5


def spans(picture: Tensor) -> tuple[bool, bool]:
    """Return whether a mark spans the full height, and whether it spans the full width."""
    labels, _ = ndimage.label(picture.numpy(), structure=np.ones((3, 3)))
    edges = [set(edge[edge > 0].tolist()) for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1])]
    return bool(edges[0] & edges[1]), bool(edges[2] & edges[3])


def test_damage_scratches_run_mostly_along_the_film():
    down, across = np.mean([spans(marked) for marked in damage(flat(50, 200), stream())[:, 0] != 50], axis=0)
    assert 0.6 < down < 0.95
    assert 0.1 < across < 0.5


def test_damage_dust_consists_of_small_spots():
    spots = []
    for marked in (damage(flat(50, 100, 100, 100), stream())[:, 0] != 50).numpy():
        places = ndimage.find_objects(ndimage.label(marked, structure=np.ones((3, 3)))[0])
        spots += [max(side.stop - side.start for side in place) for place in places]
    small = [extent for extent in spots if extent <= 11]  # twice the largest radius, and its soft edge
    assert len(small) > 200
    assert max(small) >= 8
    assert np.median(small) <= 5


def saved(picture: np.ndarray, quality: int) -> Image.Image:
    """Encode and decode a gray JPEG with Pillow."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


def test_jpeg_keeps_a_flat_picture_flat_at_any_size():
    looked = jpeg(flat(43, 32, 13, 22), stream())
    assert deviation(looked).max() < 1e-3
    assert (looked - 43).abs().max() < 1.4, "half a step of the coarsest table"
    assert (looked - 43).abs().max() > 0.1


def test_jpeg_uses_blocks_of_8_from_the_upper_left():
    lightness = textured(1, 29, 35)
    before = jpeg(lightness, stream())
    lightness[0, 0, 17, 33] += 50
    changed = (jpeg(lightness, stream()) - before).abs().squeeze() > 1e-3
    assert changed[16:24, 32:35].any()
    changed[16:24, 32:35] = False
    assert not changed.any()


def test_jpeg_quantizes_scipys_dct_by_pillows_table():
    """Each of 64 blocks contains one basis function, which is rounded to a step of the table."""
    amplitude = 400.0
    blocks = np.zeros((8, 8, 8, 8), np.float32)  # frequency down and right, then the block
    for down, right in np.ndindex(8, 8):
        blocks[down, right, down, right] = amplitude
    gray = fft.idctn(blocks, axes=(2, 3), norm="ortho").transpose(0, 2, 1, 3).reshape(64, 64) + 128
    looked = jpeg(torch.from_numpy(gray / 2.55).float().expand(48, 1, 64, 64), stream())
    shifted = 2.55 * looked.squeeze(1).numpy() - 128
    found = fft.dctn(shifted.reshape(-1, 8, 8, 8, 8).swapaxes(2, 3), axes=(3, 4), norm="ortho")
    own = np.einsum("nuvuv->nuv", found).copy()
    np.einsum("nuvuv->nuv", found)[...] = 0  # a view of the expected coefficients
    np.testing.assert_allclose(found, 0, atol=2e-3)

    table = np.reshape(saved(np.zeros((8, 8), np.uint8), 50).quantization[0], (8, 8))
    quality = np.arange(15, 80, 0.005)[:, None, None]
    steps = np.clip(table * np.where(quality < 50, 50 / quality, 2 - quality / 50), 1, 255)
    predicted = steps * np.round(amplitude / steps)
    nearest = [np.abs(predicted - values).max((1, 2)) for values in own]
    assert max(errors.min() for errors in nearest) < 0.2
    drawn = [quality[errors.argmin()].item() for errors in nearest]
    assert 15 <= min(drawn) < 25
    assert 70 < max(drawn) <= 80


def test_jpeg_agrees_with_pillow(gray_photo):
    picture = gray_photo[:117, 9:]  # neither side is a multiple of 8
    pillow = np.stack([np.asarray(saved(picture, quality), np.float32) for quality in QUALITIES])
    looked = 2.55 * jpeg(torch.from_numpy(picture / 2.55).float().expand(24, 1, *picture.shape), stream())
    drawn = []
    for ours in looked.squeeze(1).numpy().clip(0, 255):
        differences = np.sqrt(np.square(ours - pillow).mean((1, 2)))
        drawn.append(differences.argmin())
        theirs = pillow[drawn[-1]]
        ours_lost, theirs_lost = (np.sqrt(np.square(lossy - picture).mean()) for lossy in (ours, theirs))
        assert differences.min() < 0.5 * theirs_lost
        assert ours_lost == pytest.approx(theirs_lost, rel=0.02)
    assert len(set(drawn)) > 12, "each sample has a quality of its own"
