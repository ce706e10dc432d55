"""The arms: what they change, how large they are, and how tokens are mixed in them."""

from __future__ import annotations

import pytest
import torch

from mmattn import TokenBatch, build_classifier, build_encoder
from mmattn.training.cli import TaskCLI
from tasks.compare.arms import ARMS, CONTROLS, overrides
from tasks.compare.measuring.trunk import attentions, kind_of
from tasks.compare.mixing import (
    KERNEL,
    build_convolution_encoder,
    build_deeper_encoder,
    build_tokenwise_encoder,
    parameters,
)
from tasks.compare.suite import domain_task


def built(arm, *extra):
    part = domain_task("vision")
    quiet = ["--trainer.logger=false", "--trainer.callbacks=null"]
    given = [f"--config={part.config_path}", *quiet, *extra, *overrides(arm, "vision")]
    return TaskCLI(part.task_class(), given, run=False).model


@pytest.fixture(scope="module")
def tasks():
    pytest.importorskip("sklearn")
    smaller = "--model.encoder.init_args.embed_dim=64", "--model.adapter.init_args.embed_dim=64"
    return {arm: built(arm, *smaller) for arm in ARMS}


def test_arms_of_equal_size_have_as_many_parameters(tasks):
    sizes = {arm: parameters(task.encoder) + parameters(task.head) for arm, task in tasks.items()}
    for arm in set(ARMS) - {"deep_1"}:
        assert sizes[arm] == pytest.approx(sizes["attention"], rel=0.02), arm
    for arm in ("uniform", "heads_1", "heads_2", "heads_8"):
        assert sizes[arm] == sizes["attention"]
    assert sizes["deep_1"] > sizes["attention"]


def test_arms_are_what_they_are_called(tasks):
    heads = {arm: {module.num_heads for module in attentions(task).values()} for arm, task in tasks.items()}
    assert heads == {
        "attention": {4}, "uniform": {4}, "convolution": set(), "mlp": set(),
        "heads_1": {1}, "heads_2": {2}, "heads_8": {8}, "deep_1": {1},
    }  # fmt: skip
    kinds = {arm: kind_of(task) for arm, task in tasks.items()}
    assert {arm for arm, kind in kinds.items() if kind == "none"} == {"convolution", "mlp"}
    assert {arm for arm, kind in kinds.items() if kind == "uniform"} == {"uniform"}
    assert {arm: len(task.encoder.blocks) for arm, task in tasks.items()} == {
        arm: 4 if arm == "deep_1" else 3 for arm in ARMS
    }


def test_arms_answer_pictures_and_learn(tasks):
    pictures = torch.rand(2, 1, 32, 32)
    for arm, task in tasks.items():
        task.eval()
        task(pictures).sum().backward()
        missing = [name for name, p in task.named_parameters() if p.requires_grad and p.grad is None]
        # nothing passes through queries and keys whose weights are equal
        assert not missing or arm == "uniform", arm
        task.zero_grad()


@pytest.mark.parametrize("embed_dim", [32, 64, 96, 192])
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("mlp_ratio", [2.0, 4.0])
def test_sizes_are_equal_for_all_widths(embed_dim, depth, mlp_ratio):
    wanted = parameters(build_encoder(embed_dim, depth, 4, mlp_ratio=mlp_ratio))
    wanted += parameters(build_classifier(embed_dim, 10))
    for axes in KERNEL:
        encoder = build_convolution_encoder(embed_dim, depth, mlp_ratio=mlp_ratio, axes=axes)
        size = parameters(encoder) + parameters(build_classifier(embed_dim, 10, pool="mean"))
        assert size == pytest.approx(wanted, rel=0.02)
    encoder = build_tokenwise_encoder(embed_dim, depth, mlp_ratio=mlp_ratio)
    assert parameters(encoder) + 10 * (embed_dim + 1) == pytest.approx(wanted, rel=0.02)


def reach(encoder, tokens, index):
    """Which tokens the output of one depends on."""
    values = tokens.values.clone().requires_grad_()
    (encoder(tokens.replace(values)).values[index] * torch.arange(8)).sum().backward()
    return values.grad.abs().sum(1).nonzero()[:, 0].tolist()


def test_a_convolution_sees_its_neighbours_where_they_stand():
    encoder = build_convolution_encoder(8, depth=1)
    tokens = TokenBatch(torch.randn(20, 8), [13, 7])
    assert reach(encoder, tokens, 6) == list(range(3, 10))
    assert reach(encoder, tokens, 12) == list(range(9, 13))  # not into the next sequence
    assert reach(encoder, tokens, 13) == list(range(13, 17))
    gaps = TokenBatch(torch.randn(4, 8), [4], torch.tensor([[0], [2], [6], [7]]))
    assert reach(encoder, gaps, 0) == [0, 1]
    assert reach(encoder, gaps, 2) == [2, 3]


def test_a_convolution_of_pictures_goes_along_both_axes():
    encoder = build_convolution_encoder(8, depth=1, axes=2)
    grid = torch.cartesian_prod(torch.arange(6), torch.arange(7))
    tokens = TokenBatch(torch.randn(42, 8), [42], grid)
    expected = [i for i, (row, column) in enumerate(grid.tolist()) if row <= 3 and 2 <= column <= 6]
    assert reach(encoder, tokens, 1 * 7 + 4) == expected


def test_one_sequence_does_not_change_another():
    torch.manual_seed(0)
    for encoder in (build_convolution_encoder(8, depth=2), build_tokenwise_encoder(8, depth=2)):
        tokens = TokenBatch(torch.randn(18, 8), [11, 7])
        parts = [encoder(one).values for one in tokens.split()]
        torch.testing.assert_close(encoder(tokens).values, torch.cat(parts), rtol=1e-5, atol=1e-5)


def test_tokenwise_blocks_mix_nothing():
    tokens = TokenBatch(torch.randn(9, 8), [9])
    assert reach(build_tokenwise_encoder(8, depth=3), tokens, 4) == [4]


def test_no_tokens_are_no_trouble():
    for encoder in (build_convolution_encoder(8, depth=1), build_tokenwise_encoder(8, depth=1)):
        assert encoder(TokenBatch(torch.zeros(0, 8), [0, 0])).values.shape == (0, 8)


def test_the_deeper_arm_has_one_head_and_a_block_more():
    encoder = build_deeper_encoder(8, depth=2, rotary_base=100.0)
    assert [block.attention.num_heads for block in encoder.blocks] == [1, 1, 1]
    assert encoder.blocks[0].attention.positions.base == 100.0


def test_what_does_not_fit_is_refused():
    assert not set(ARMS) & set(CONTROLS)
    with pytest.raises(ValueError, match=r"^arm must be one of attention, uniform, .*: got 'linear'$"):
        overrides("linear", "text")
    with pytest.raises(ValueError, match=r"^axes must be 1 or 2: got 3$"):
        build_convolution_encoder(8, depth=1, axes=3)
    with pytest.raises(ValueError, match=r"^depth must be at least 1: got 0$"):
        build_tokenwise_encoder(8, depth=0)
    with pytest.raises(ValueError, match=r"^tokens must stand on 1 axes: got 2$"):
        build_convolution_encoder(8, depth=1)(TokenBatch(torch.randn(2, 8), [2], torch.zeros(2, 2)))
    with pytest.raises(ValueError, match=r"^an encoder without attention takes packed tokens and no mask"):
        build_convolution_encoder(8, depth=1)(torch.randn(1, 2, 8))
