"""The table over timm's names: what it says of one name of each kind."""

from __future__ import annotations

import pytest

from benchmarks.plugins.timm_names import Row, bars, row, table


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("vit_tiny_patch16_224", "core"),
        ("levit_conv_128s", "core"),
        ("efficientvit_m0", "core"),
        ("xcit_nano_12_p16_224", "core"),
        ("cait_xxs24_224", "partly core, observed"),
        ("convit_tiny", "partly core, observed"),
        ("edgenext_xx_small", "other mixing"),
        ("resnet18", "no attention"),
    ],
)
def test_a_name_is_in_its_group(name: str, group: str):
    found = row(name)
    assert (found.group, found.error) == (group, "")


def test_a_name_that_is_not_known_fails_by_its_row():
    assert row("no_such_model").group == "failed"


def test_shares_are_of_the_names_with_attention_over_tokens():
    rows = [
        Row("a", calls=2, core=2, seen=2, seen_unplugged=2),
        Row("b", calls=2, core=1, seen=2, seen_unplugged=2, missing={"x.Talking": "softmax"}),
        Row("c", calls=2, core=2, seen=1, seen_unplugged=2, unseen=["x.Blind"]),
        Row("d", error="it broke"),
        Row("e"),
    ]
    assert [bar.value for bar in bars(rows)] == [50.0, 50.0]
    text = table(rows)
    assert "| x.Talking (softmax) | 1 |" in text
    assert "| unseen: x.Blind | 1 |" in text
