"""TextTokens in front of Hugging Face's BERT, by ``inputs_embeds``, with the core plugged into it.

python examples/text_into_bert.py
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

import mmattn
from mmattn import TextTokens


def main() -> Tensor:
    torch.manual_seed(0)
    texts = TextTokens(embed_dim=64).eval()  # bytes; any tokenizer of mmattn.adapters.text will do
    config = BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=8
    )
    bert = BertModel(config).eval()

    def encode(lines: list[str]) -> Tensor:
        padded, real = texts(lines).to_padded()
        out = bert(inputs_embeds=padded, attention_mask=real.long()).last_hidden_state  # 1 = keep
        return out[torch.arange(len(lines)), real.sum(1) - 1]  # what the last byte of each line became

    lines = ["attention is a weighted mean", "heads differ", "日本語"]
    with torch.no_grad():
        host = encode(lines)
        report = mmattn.plug_in(bert)
        plugged = encode(lines)
    print(report)
    print(f"plugged in and not: largest difference {(plugged - host).abs().max():.1e}")
    return plugged - host


if __name__ == "__main__":
    main()
