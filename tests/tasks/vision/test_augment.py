"""Random changes of whole batches: what torchvision does to each picture, drawn for each picture on its own."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("timm")
v2 = pytest.importorskip("torchvision.transforms.v2")

from tasks.vision.data.augment import BINS, OPERATIONS, BatchPolicy, PixelAugment, policy_of  # noqa: E402

POLICIES = {"rand": v2.RandAugment, "trivial": v2.TrivialAugmentWide}
SIDES = (13, 17)


def pictures(count: int, sides: tuple[int, int] = SIDES) -> torch.Tensor:
    smooth = torch.nn.functional.interpolate(torch.rand(count, 3, 4, 5), sides, mode="bilinear")
    return (smooth * 200 + torch.rand(count, 3, *sides) * 55).to(torch.uint8)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions_with_the_strength_of_each_picture(policy, name):
    """Reads torchvision's own table of strengths, which is private to it."""
    reference = POLICIES[policy]()
    strengths, signed = reference._AUGMENTATION_SPACE[name]
    values = strengths(BINS, *SIDES)
    before, bins = pictures(6), torch.tensor([0, 4, 9, 17, 25, 30])
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    found = BatchPolicy(policy).apply(name, before, bins, signs)
    for index in range(6):
        strength = 0.0 if values is None else float(values[bins[index]])
        if signed:
            strength *= float(signs[index])
        wanted = reference._apply_image_or_video_transform(
            before[index], name, strength, interpolation=reference.interpolation, fill=reference._fill
        )
        off = (found[index].int() - wanted.int()).abs()
        # blended values may be cut off at another side of a whole number, a warped pixel may lie on a border
        limit = off.max() <= 1 if name in ("Brightness", "Color", "Contrast", "Sharpness") else off.max() == 0
        assert limit or (off > 0).float().mean() < 0.01, f"{name} {index}: {int(off.max())}"


@pytest.mark.parametrize("policy", POLICIES)
def test_each_picture_draws_its_own(policy):
    torch.manual_seed(0)
    same = pictures(1, (16, 16)).expand(400, -1, -1, -1)
    changed = BatchPolicy(policy)(same)
    distinct = {bytes(picture.numpy().tobytes()) for picture in changed}
    # 14 operations in 2 steps with signs give more than a hundred results, 31 strengths as many
    assert len(distinct) > 80
    untouched = (changed == same).flatten(1).all(1).float().mean()
    assert 0 < untouched < 0.25
    assert changed.dtype == torch.uint8
    assert torch.equal(same[0], same[7]), "the batch was changed in place"


def test_operations_are_drawn_alike():
    drawn: dict[str, int] = dict.fromkeys(OPERATIONS, 0)

    class Counting(BatchPolicy):
        def apply(self, name, pixels, bins, signs):
            drawn[name] += len(pixels)
            assert 0 <= int(bins.min()) <= int(bins.max()) < BINS
            return pixels

    torch.manual_seed(0)
    Counting("trivial")(pictures(1400, (8, 8)))
    assert sum(drawn.values()) == 1400
    assert all(60 < count < 150 for count in drawn.values())
    Counting("rand")(pictures(700, (8, 8)))
    assert sum(drawn.values()) == 1400 + 2 * 700


def test_erasing_is_drawn_for_each_picture_and_only_after_normalisation():
    augment = PixelAugment(crop_padding=0, flip=False, random_erasing=0.5)
    raw = pictures(200, (16, 16))
    assert torch.equal(augment.pixels(raw), raw)
    erased = augment.floats(torch.ones(200, 3, 16, 16))
    shares = (erased[:, 0] == 0).flatten(1).float().mean(1)
    assert torch.equal(erased[:, 0], erased[:, 2])
    assert 60 < int((shares > 0).sum()) < 140
    assert float(shares.max()) < 0.45
    assert len(set(shares.tolist())) > 20


def test_what_is_not_asked_for_is_left_out():
    raw = pictures(5, (8, 8))
    plain = PixelAugment(crop_padding=0, flip=False)
    assert plain.pixels(raw) is raw
    floats = torch.rand(2, 3, 4, 4)
    assert plain.floats(floats) is floats


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("crop_padding must not be negative: got -1", {"crop_padding": -1}),
        (r"random_erasing must lie in \[0, 1\]: got 1.5", {"random_erasing": 1.5}),
        ("policy must be 'rand' or 'trivial': got 'auto'", {"policy": "auto"}),
    ],
)
def test_arguments_are_checked(text, options):
    with pytest.raises(ValueError, match=text):
        PixelAugment(**options)


def test_one_policy_at_a_time():
    assert [policy_of(*pair) for pair in ((False, False), (True, False), (False, True))] == [
        "none",
        "rand",
        "trivial",
    ]
    with pytest.raises(ValueError, match="rand_augment and trivial_augment exclude each other: got both"):
        policy_of(True, True)
