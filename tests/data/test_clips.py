from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qsci_plugins.data import write_image
from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.data.sequences import grey, read_sequence, sequences
from qsci_plugins.data.snapshots import SensorNoise, bayer_mosaic, measure, mixed_masks, random_mask
from qsci_plugins.errors import UserError


def _sequence(frames: int, height: int = 40, width: int = 50, color: bool = False) -> np.ndarray:
    """Every frame is one number, its own, in all pixels."""
    numbers = np.arange(frames, dtype=np.uint8).reshape(-1, 1, 1)
    plain = np.broadcast_to(numbers, (frames, height, width)).copy()
    return plain[..., None].repeat(3, 3) if color else plain


@pytest.fixture(params=[True, False], ids=["resized", "cut"])
def clips(request: pytest.FixtureRequest) -> SnapshotClips:
    generator = np.random.default_rng(0)
    videos = [generator.integers(0, 256, (frames, 40, 50), np.uint8) for frames in (9, 4, 30)]
    return SnapshotClips(videos, random_mask(4, 32, 32), 16, resize=request.param)


def test_a_draw_depends_on_seed_and_step_alone(clips: SnapshotClips) -> None:
    batch = clips.draw(1, 5, 4)
    assert [tuple(part.shape) for part in batch] == [(4, 16, 16), (4, 4, 16, 16), (4, 16, 16), (4, 4, 16, 16)]
    torch.manual_seed(99)
    assert all(torch.equal(part, again) for part, again in zip(batch, clips.draw(1, 5, 4), strict=True))
    assert not torch.equal(clips.draw(1, 6, 4).frames, batch.frames)
    assert not torch.equal(clips.draw(2, 5, 4).frames, batch.frames)


def test_ranks_share_the_global_batch(clips: SnapshotClips) -> None:
    whole = clips.draw(0, 0, 6)
    parts = [clips.draw(0, 0, 6, rank, 3) for rank in range(3)]
    for index, part in enumerate(whole):
        assert torch.equal(torch.stack([piece[index] for piece in parts], 1).flatten(0, 1), part)


def test_the_measurement_is_that_of_the_frames_and_the_mask(clips: SnapshotClips) -> None:
    measurement, mask, mask_sum, frames = clips.draw(0, 0, 3)
    torch.testing.assert_close(measurement, (mask * frames).sum(1))
    assert torch.equal(mask_sum, mask.sum(1).clamp(min=1))
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_frames_follow_each_other_and_every_beginning_comes() -> None:
    clips = SnapshotClips([_sequence(5), _sequence(3), _sequence(2)], random_mask(3, 16, 16), 16)
    assert len(clips) == 4  # three in the first, one in the second, the third is too short
    numbers = (clips.draw(0, 0, 200).frames[..., 0, 0] * 255).round().long()
    assert torch.equal(numbers, numbers[:, :1] + torch.arange(3))
    assert numbers[:, 0].bincount().tolist() == pytest.approx([100, 50, 50], abs=30)


def test_all_symmetries_of_a_square_come_where_clips_are_cut_as_they_are() -> None:
    corner = np.zeros((1, 16, 16), np.uint8)
    corner[0, 0, 3] = 255
    clips = SnapshotClips([corner], random_mask(1, 16, 16), 16, resize=False)
    assert len({tuple(place.flatten().nonzero().flatten().tolist()) for place in clips.draw(0, 0, 100).frames}) == 8


def test_a_large_mask_is_seen_at_different_places() -> None:
    whole = random_mask(4, 32, 32)
    masks = SnapshotClips([_sequence(4)], whole, 16).draw(0, 0, 2).mask
    assert not torch.equal(masks[0], masks[1])
    places = torch.from_numpy(whole).unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    assert (places == masks[0]).flatten(1).all(1).any()


def test_each_clip_is_seen_through_another_of_several_masks() -> None:
    several = mixed_masks(4, 16, 16)
    batch = SnapshotClips([_sequence(4)], several, 16).draw(0, 0, 64)
    seen = {next(number for number, mask in enumerate(several) if np.array_equal(mask, part)) for part in batch.mask}
    assert seen == set(range(8))
    assert torch.equal(batch.measurement, measure(batch.frames, batch.mask))


def test_one_mask_of_several_draws_what_it_draws_alone() -> None:
    mask = random_mask(4, 32, 32)
    alone, listed = (SnapshotClips([_sequence(6)], given, 16).draw(3, 2, 4) for given in (mask, mask[None]))
    assert all(torch.equal(first, second) for first, second in zip(alone, listed, strict=True))


def test_clips_are_exposed_differently() -> None:
    """Up to twice as bright or dark, as often the one as the other; what would be brighter than white is white."""
    video = np.random.default_rng(0).integers(60, 256, (6, 40, 50), np.uint8)
    plain, exposed = (
        SnapshotClips([video], random_mask(4, 16, 16), 16, exposure=exposure).draw(0, 0, 400) for exposure in (1.0, 2.0)
    )
    assert torch.equal(plain.mask, exposed.mask)
    darkest = plain.frames.flatten(1).argmin(1, keepdim=True)
    gains = (exposed.frames.flatten(1).gather(1, darkest) / plain.frames.flatten(1).gather(1, darkest)).flatten()
    assert 0.5 <= gains.min() < 0.51
    assert 1.96 < gains.max() <= 2
    assert 0.45 < (gains > 1).float().mean() < 0.55
    torch.testing.assert_close(exposed.frames, (plain.frames * gains.reshape(-1, 1, 1, 1)).clamp_max(1))
    assert (exposed.frames == 1).any()
    torch.testing.assert_close(exposed.measurement, measure(exposed.frames, exposed.mask))


def test_colour_clips_are_measured_through_a_bayer_filter() -> None:
    video = np.random.default_rng(0).integers(0, 256, (6, 40, 50, 3), np.uint8)
    batch = SnapshotClips([video], random_mask(4, 16, 16), 16).draw(0, 0, 2)
    assert batch.frames.shape == (2, 3, 4, 16, 16)
    torch.testing.assert_close(batch.measurement, (batch.mask * bayer_mosaic(batch.frames)).sum(1))


def test_noise_is_drawn_with_the_clip() -> None:
    video = _sequence(6) + np.uint8(100)
    mask = random_mask(4, 16, 16)
    clean = SnapshotClips([video], mask, 16).draw(0, 0, 2)
    clips = SnapshotClips([video], mask, 16, noise=SensorNoise(gaussian=0.1))
    noisy = clips.draw(0, 0, 2)
    assert torch.equal(noisy.frames, clean.frames)
    assert (noisy.measurement - clean.measurement).std() == pytest.approx(0.1, rel=0.2)
    assert torch.equal(clips.draw(0, 0, 2, 1, 2).measurement, noisy.measurement[1:])


def test_what_cannot_be_trained_on_is_said() -> None:
    with pytest.raises(UserError, match="mask is 16x16 pixels, smaller than a training patch of 32x32"):
        SnapshotClips([_sequence(4)], random_mask(4, 16, 16), 32)
    with pytest.raises(UserError, match="no sequence has 9 frames of at least 32x32"):
        SnapshotClips([_sequence(8), _sequence(20, 31, 50)], random_mask(9, 32, 32), 32, resize=False)


def test_folders_of_frames_are_sequences(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(3):
            write_image(tmp_path / name / f"{index:05}.png", np.full((20, 24, 3), 10 * index, np.uint8))
    assert sequences(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert read_sequence(tmp_path / "a")[:, 0, 0].tolist() == [0, 10, 20]
    assert read_sequence(tmp_path / "a", color=True, downsize=2, limit=2).shape == (2, 10, 12, 3)
    assert len(SnapshotClips(map(read_sequence, sequences(tmp_path)), random_mask(2, 16, 16), 16)) == 4
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="no sequence in"):
        sequences(tmp_path / "c")
    with pytest.raises(UserError, match="not a folder"):
        sequences(tmp_path / "missing")
    write_image(tmp_path / "b" / "99.png", np.zeros((20, 26, 3), np.uint8))
    with pytest.raises(UserError, match="frame 4 is 26x20 pixels, the first one 24x20"):
        read_sequence(tmp_path / "b")


def test_grey_is_full_range_luma() -> None:
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    assert grey(colours).tolist() == [0, 255, 76, 150, 29]
