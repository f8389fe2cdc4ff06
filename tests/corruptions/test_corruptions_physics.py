"""What a level says is what is done: noise powers, cut-offs, shares, bits, decays, frames."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import signal

from rlbench.core import registry
from rlbench.corruptions import corrupt

RATE = 8000
T = np.arange(4 * RATE) / RATE


def tone(hertz: float, size: float = 0.25) -> torch.Tensor:
    return torch.from_numpy(size * np.sin(2 * np.pi * hertz * T)).view(1, 1, -1)


def heard(x: torch.Tensor, name: str, severity: int) -> np.ndarray:
    return corrupt(x, name, severity, low=-1.0, rate=RATE)[0, 0].numpy()


def grey(value: float = 0.5, size: int = 64) -> torch.Tensor:
    return torch.full((4, 1, size, size), value, dtype=torch.float64)


def levels(name: str) -> tuple[float, ...]:
    return tuple(registry.make("corruption", name).levels)


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_netd_is_the_deviation(severity) -> None:
    noise = corrupt(grey(), "netd", severity) - 0.5
    assert noise.std().item() == pytest.approx(levels("netd")[severity - 1], rel=0.03)


def test_stripes_are_constant_along_themselves_with_half_the_size_in_rows() -> None:
    x = corrupt(grey(size=256), "fixed_pattern_noise", 1) - 0.5
    columns, rows = x.mean(2, keepdim=True), x.mean(3, keepdim=True)
    assert (x - columns - rows + x.mean((2, 3), keepdim=True)).abs().max() < 2 / 255
    assert columns.std().item() == pytest.approx(0.03, rel=0.15)
    assert rows.std().item() == pytest.approx(0.015, rel=0.15)


@pytest.mark.parametrize("severity", range(1, 6))
def test_dead_pixels_are_as_many_as_said_half_of_each(severity) -> None:
    x = corrupt(grey(), "dead_pixels", severity)
    dead, hot = (x == 0).float().mean().item(), (x == 1).float().mean().item()
    share = levels("dead_pixels")[severity - 1]
    assert dead + hot == pytest.approx(round(share * 4096) / 4096)
    assert abs(dead - hot) < 4 * (share / (4 * 4096)) ** 0.5


@pytest.mark.parametrize("severity", range(1, 6))
def test_bits_and_contrast(severity) -> None:
    ramp = torch.linspace(0, 1, 4096, dtype=torch.float64).view(1, 1, 64, 64)
    assert len(corrupt(ramp, "bit_depth", severity).unique()) == levels("bit_depth")[severity - 1]
    narrow = corrupt(ramp, "narrow_range", severity)
    assert (narrow.max() - narrow.min()).item() == pytest.approx(levels("narrow_range")[severity - 1], abs=1 / 255)
    assert narrow.mean().item() == pytest.approx(ramp.mean().item(), abs=1 / 255)


def test_the_gain_control_shifts_and_at_severity_five_inverts_too() -> None:
    x = grey(0.4)
    assert (corrupt(x, "agc_shift", 1) - x).abs().mean().item() == pytest.approx(0.1, abs=1 / 255)
    assert (corrupt(x, "agc_shift", 5) - (1 - x)).abs().mean().item() == pytest.approx(0.36, abs=1 / 255)


def test_a_hot_source_saturates_a_disc_of_its_radius() -> None:
    x = corrupt(grey(0.0, 200), "hot_source", 3)
    radius = ((x == 1).flatten(1).sum(1) / np.pi).sqrt() / 200
    assert radius.max().item() == pytest.approx(0.085, rel=0.02)
    assert radius.min() > 0.04  # a part may lie outside the picture


@pytest.mark.parametrize("name", ["white_noise", "pink_noise", "babble_noise", "click_noise"])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_noise_has_its_signal_to_noise_ratio(name, severity) -> None:
    clean = tone(440)[0, 0].numpy()
    noisy = heard(tone(440), name, severity)
    gain = noisy @ clean / (clean @ clean)  # turned down where the sum would clip
    ratio = 10 * np.log10(np.mean((gain * clean) ** 2) / np.mean((noisy - gain * clean) ** 2))
    assert ratio == pytest.approx(levels(name)[severity - 1], abs=0.5)


def test_pink_noise_has_equal_power_in_every_octave() -> None:
    noise = registry.make("corruption", "pink_noise", {"rate": RATE}).draw_noise(1 << 17, np.random.default_rng(0))
    hertz, power = signal.welch(noise, RATE, nperseg=8192)
    octaves = [power[(hertz >= low) & (hertz < 2 * low)].sum() for low in (50, 100, 200, 400, 800, 1600)]
    assert max(octaves) / min(octaves) < 1.15


def test_filters_pass_and_stop() -> None:
    low = registry.make("corruption", "low_pass", {"rate": RATE})
    assert [low.scale(level) for level in low.levels] == pytest.approx([3600, 2700, 1800, 900, 450])
    assert low.level(3) == "1800 Hz"
    for name, kept, lost in (("low_pass", 200, 1800), ("high_pass", 3200, 400)):
        assert heard(tone(kept), name, 4)[RATE:].std() == pytest.approx(0.25 / 2**0.5, rel=0.05)
        assert heard(tone(lost), name, 4)[RATE:].std() < 0.25 * 0.02
    assert registry.make("corruption", "low_pass", {"rate": 44100}).level(1) == "8000 Hz"


@pytest.mark.parametrize("severity", range(1, 6))
def test_clipping_and_dropout_do_what_they_say(severity) -> None:
    assert np.abs(heard(tone(440), "clipping", severity)).max() == pytest.approx(
        0.25 * levels("clipping")[severity - 1], abs=1e-4
    )
    silent = np.abs(heard(torch.full((1, 1, 4 * RATE), 0.5), "dropout", severity)) < 1e-4
    assert silent.mean() == pytest.approx(levels("dropout")[severity - 1])


def test_speed_raises_the_pitch() -> None:
    spectrum = np.abs(np.fft.rfft(heard(tone(1000), "speed", 5)[: 3 * RATE]))
    assert np.argmax(spectrum) / 3 == pytest.approx(1250, abs=1)


@pytest.mark.parametrize("severity", [1, 3])
def test_reverberation_decays_by_60_db_in_its_time(severity) -> None:
    click = torch.zeros(1, 1, 4 * RATE)
    click[0, 0, 0] = 0.9
    tail = heard(click, "reverberation", severity)[1:]
    decay = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2) + 1e-12)  # Schroeder, 1965
    a, b = (np.argmax(decay < level) for level in (-5, -25))
    assert 3 * (b - a) / RATE == pytest.approx(levels("reverberation")[severity - 1], rel=0.12)


def test_telephone_is_mu_law_at_a_low_rate() -> None:
    loud = heard(tone(440), "telephone", 1)
    error = loud - tone(440)[0, 0].numpy()
    assert 30 < 10 * np.log10(np.mean(loud**2) / np.mean(error[200:-200] ** 2)) < 45  # G.711: about 38 dB
    assert heard(tone(1900), "telephone", 4)[RATE:].std() < 0.25 * 0.1


def test_low_gain_leaves_the_steps_of_a_12_bit_converter() -> None:
    assert len(np.unique(heard(tone(440, 0.9), "low_gain", 5).round(4))) == 2 * round(0.9 * 10 ** (-59 / 20) * 2048) + 1


def clip(frames: int = 8) -> torch.Tensor:
    """Frame t is grey level t / 8."""
    return (torch.arange(frames) / 8).view(1, 1, frames, 1, 1).expand(1, 3, frames, 32, 32).contiguous()


def shown(name: str, severity: int, frames: int = 8) -> list[int]:
    return (8 * corrupt(clip(frames), name, severity)[0, 0, :, 0, 0]).round().int().tolist()


@pytest.mark.parametrize("severity", range(1, 6))
def test_frames_are_lost_held_and_out_of_order(severity) -> None:
    lost = round(8 * levels("frame_drop")[severity - 1])
    assert len(set(shown("frame_drop", severity))) == 8 - lost and shown("frame_drop", severity)[0] == 0
    frozen = shown("freeze", severity)
    assert 8 - len(set(frozen)) == round(8 * levels("freeze")[severity - 1]) and frozen == sorted(frozen)
    shuffled, moved = shown("frame_shuffle", severity), round(8 * levels("frame_shuffle")[severity - 1])
    assert sorted(shuffled) == list(range(8)) and 0 < sum(k != t for t, k in enumerate(shuffled)) <= moved
    backwards = shown("reverse", severity)
    falls = sum(b < a for a, b in pairwise(backwards))
    assert falls == round(8 * levels("reverse")[severity - 1]) - 1


def test_frame_rates() -> None:
    assert [len(set(shown("frame_rate", s))) for s in range(1, 6)] == [5, 4, 3, 2, 1]
    still = [corrupt(clip(8).repeat(1, 1, 4, 1, 1), "frame_rate", s) for s in range(1, 6)]
    changes = [int((x[0, 0, 1:, 0, 0] != x[0, 0, :-1, 0, 0]).sum()) for x in still]
    assert changes[0] == 15 and changes[1] == 7 and changes[4] == 0


def test_h264_of_a_smooth_still_is_close_and_grows_worse() -> None:
    r, c = torch.meshgrid(torch.linspace(0, 1, 48), torch.linspace(0, 1, 33), indexing="ij")
    x = (0.3 + 0.4 * torch.sin(4 * r) * torch.cos(3 * c)).clamp(0, 1).expand(1, 3, 5, 48, 33).contiguous()
    far = [(corrupt(x, "h264", s) - x).abs().mean().item() for s in range(1, 6)]
    assert far[0] < 0.01 and far == sorted(far) and far[4] > 2 * far[0]


def test_h264_gives_the_same_bytes_again() -> None:
    grey = torch.from_numpy(np.random.default_rng(42).integers(0, 256, (1, 1, 6, 32, 32)) / 255)
    assert len({corrupt(grey, "h264", 1).numpy().tobytes() for _ in range(20)}) == 1


def test_packet_loss_keeps_the_first_frame_and_changes_the_share_of_blocks() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 8, 64, 64, generator=g)
    out = corrupt(x, "packet_loss", 5)
    same = (out - x).abs().amax(1)[0] < 1 / 255
    assert same[0].all()
    assert 1 - same[7].float().mean().item() == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(("name", "shared"), [("fog", True), ("motion_blur", True), ("gaussian_noise", False)])
def test_a_clip_has_one_draw_for_weather_and_blur_and_one_a_frame_for_noise(name, shared) -> None:
    g = torch.Generator().manual_seed(1)
    still = torch.rand(1, 3, 1, 32, 32, generator=g).expand(1, 3, 3, 32, 32)
    out = corrupt(still, name, 3)
    assert torch.equal(out[:, :, 0], out[:, :, 2]) == shared
