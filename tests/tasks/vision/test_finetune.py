"""A checkpoint of timm or torchvision under the task: its tokens and its encoder, with a head of ours."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning")
vision_transformer = pytest.importorskip("timm.models.vision_transformer")
torchvision_vit = pytest.importorskip("torchvision.models.vision_transformer")

from mmattn.training.cli import TaskCLI  # noqa: E402
from mmattn.vit import encoder_of, tokens_of  # noqa: E402
from tasks.vision.module import ImageClassification  # noqa: E402

pytestmark = pytest.mark.usefixtures("aside")


def test_a_checkpoint_is_named_on_the_command_line(tmp_path):
    theirs = vision_transformer.VisionTransformer(
        16, 8, embed_dim=24, depth=3, num_heads=3, num_classes=5
    ).eval()
    path = str(tmp_path / "vit.pth")
    torch.save(theirs.state_dict(), path)
    arguments = [
        "--data",
        "tasks.vision.data.Digits",
        "--trainer.accelerator",
        "cpu",
        "--trainer.logger",
        "false",
    ]
    for part, function in (("adapter", "tokens_of"), ("encoder", "encoder_of")):
        arguments += [f"--model.{part}", f"mmattn.vit.{function}", f"--model.{part}.checkpoint", path]
        arguments += [f"--model.{part}.num_heads", "3"]
    arguments += ["--model.encoder.drop_path", "0.2"]
    task = TaskCLI(ImageClassification, arguments, run=False).model
    assert task.recipe["init_args"]["adapter"]["init_args"]["checkpoint"] == path
    assert [block.drop_path.p for block in task.encoder.blocks] == [0.0, 0.1, 0.2]
    assert task.training
    assert task.encoder.training
    task.eval()
    x = torch.randn(2, 3, 16, 16)
    tokens = task.encoder(task.tokens(x))
    torch.testing.assert_close(tokens.values.view(2, 5, 24), theirs.forward_features(x), atol=1e-5, rtol=1e-5)
    assert task([torch.randn(3, 24, 16), torch.randn(3, 8, 8)]).shape == (2, 10)


def test_torchvision_and_what_does_not_exist(tmp_path):
    theirs = torchvision_vit.VisionTransformer(16, 8, 2, 3, 24, 30).eval()
    path = str(tmp_path / "vit.pth")
    torch.save(theirs.state_dict(), path)
    x = torch.randn(2, 3, 16, 16)
    tokens = encoder_of(path, "torchvision", 3).eval()(tokens_of(path, "torchvision", 3).eval()(x))
    logits = theirs.heads(tokens.values.view(2, 5, 24)[:, 0])
    torch.testing.assert_close(logits, theirs(x), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="library must be 'timm' or 'torchvision': got 'jax'"):
        tokens_of(path, "jax")
    with pytest.raises(FileNotFoundError):
        tokens_of("none.pth")
