"""ImagePatches: any sizes, right places, and no picture knows its batch mates."""

from __future__ import annotations

import pytest
import torch

from mmattn import ImagePatches

D, C = 11, 3
SIZES = [(13, 7), (8, 20), (13, 7), (1, 1), (20, 8)]


@pytest.fixture
def pictures() -> list[torch.Tensor]:
    return [torch.randn(C, height, width) for height, width in SIZES]


def test_a_linear_patch_is_a_product_with_its_pixels():
    patches, picture = ImagePatches(D, patch_size=4), torch.randn(C, 8, 12)
    tokens = patches([picture])
    assert tokens.sizes == (6,)
    for value, (row, column) in zip(tokens.values, tokens.coords.tolist(), strict=True):
        pixels = picture[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        want = (patches.embed.weight * pixels).sum((1, 2, 3)) + patches.embed.bias
        torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_mixed_sizes_are_each_picture_alone(pictures, stem):
    patches = ImagePatches(D, patch_size=4, stem=stem)
    tokens = patches(pictures)
    assert tokens.sizes == (8, 10, 8, 1, 10)
    for part, picture in zip(tokens.split(), pictures, strict=True):
        alone = patches([picture])
        torch.testing.assert_close(part.values, alone.values, rtol=1e-5, atol=1e-5)
        assert torch.equal(part.coords, alone.coords)
    assert tokens.split()[1].coords.tolist() == [[row, column] for row in range(2) for column in range(5)]


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_a_stack_is_a_list(stem):
    patches, stack = ImagePatches(D, patch_size=4, stem=stem), torch.randn(5, C, 8, 12)
    one, other = patches(stack), patches(list(stack))
    torch.testing.assert_close(one.values, other.values)
    assert torch.equal(one.coords, other.coords)
    assert one.sizes == other.sizes == (6,) * 5


def test_filled_up_with_zeros_on_the_right_and_below():
    patches, picture = ImagePatches(D, patch_size=4), torch.randn(C, 5, 7)
    whole = torch.zeros(C, 8, 8)
    whole[:, :5, :7] = picture
    assert torch.equal(patches([picture]).values, patches([whole]).values)


def test_regions_are_where_a_token_comes_from(pictures):
    patches = ImagePatches(D, patch_size=4)
    boxes = patches.regions(pictures)
    assert [len(box) for box in boxes] == [8, 10, 8, 1, 10]
    assert boxes[0][3].tolist() == [4, 4, 8, 8]
    top, left, bottom, right = boxes[1][7].tolist()
    changed = pictures[1].clone()
    changed[:, top:bottom, left:right] += 1.0
    moved = (patches([changed]).values - patches([pictures[1]]).values).abs().amax(1)
    assert moved.nonzero()[:, 0].tolist() == [7]


def test_gradients_reach_the_pixels(pictures):
    picture = pictures[0].requires_grad_()
    ImagePatches(D, patch_size=4)(pictures).values.sum().backward()
    assert picture.grad.abs().amin() > 0


def test_the_conv_stem_has_the_stride_of_the_patch():
    patches = ImagePatches(24, patch_size=8, in_channels=1, stem="conv", stem_dim=5)
    widths = [layer.weight.shape[:2] for layer in patches.embed if hasattr(layer, "weight")]
    assert widths == [(5, 1), (6, 5), (12, 6), (24, 12), (24, 24)]
    assert patches(torch.randn(2, 1, 24, 40)).sizes == (15, 15)


@pytest.mark.parametrize(
    ("error", "text", "items"),
    [
        (
            ValueError,
            r"pictures must be \[B, C, H, W\] with C=3 .* got shape \[2, 1, 8, 8\]",
            torch.zeros(2, 1, 8, 8),
        ),
        (ValueError, r"a picture must be \[C, H, W\] with C=3 .* got shape \[8, 8\]", [torch.zeros(8, 8)]),
        (ValueError, r"at least one pixel: got shape \[3, 0, 8\]", [torch.zeros(3, 0, 8)]),
        (ValueError, r"at least one picture: got none", []),
        (TypeError, r"must be floating-point .* got torch.uint8", [torch.zeros(3, 8, 8, dtype=torch.uint8)]),
    ],
)
def test_items_that_do_not_fit(error, text, items):
    with pytest.raises(error, match=text):
        ImagePatches(D)(items)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (r"patch_size must be at least 1: got 0", {"patch_size": 0}),
        (r"stem must be 'linear' or 'conv': got 'resnet'", {"stem": "resnet"}),
        (r"power of two above 1 for a conv stem: got 12", {"patch_size": 12, "stem": "conv"}),
        (r"power of two above 1 for a conv stem: got 1", {"patch_size": 1, "stem": "conv"}),
    ],
)
def test_errors(text, options):
    with pytest.raises(ValueError, match=text):
        ImagePatches(D, **options)
