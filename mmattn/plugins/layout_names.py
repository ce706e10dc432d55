"""Names and words by which the layouts of other libraries' attention are known."""

from __future__ import annotations

import re

#: Names of the projections to queries, keys and values.
TRIPLES = [
    ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q", "k", "v"),
    ("wq", "wk", "wv"), ("query_proj", "key_proj", "value_proj"), ("linear_q", "linear_k", "linear_v"),
    ("to_q", "to_k", "to_v"),
]  # fmt: skip
#: Names of the projections to queries, and to keys and values together.
PAIRS = [("q", "kv"), ("emb_to_query", "emb_to_key_value"), ("q_attn", "c_attn"), ("q_proj", "kv_proj")]
#: Names of the projection to all three.
FUSED = ("qkv", "to_qkv", "c_attn", "query_key_value")
#: Names of the output projection.
OUT = (
    "out_proj",
    "o_proj",
    "out_lin",
    "proj",
    "o",
    "c_proj",
    "merge",
    "wo",
    "to_out",
    "linear_out",
    "dense",
)

#: Norms of the sum with the tokens, after the output projection.
LATER_NORMS = ("LayerNorm", "layer_norm")

#: Tensors with a place for each head, by name, and the axis of the heads.
TABLES = {
    "relative_position_bias_table": 1, "logit_scale": 0, "tau": 0, "gru_rel_pos_const": 1, "sinks": 0,
    "cpb_mlp.2.weight": 0, "meta_mlp.fc2.weight": 0, "meta_mlp.fc2.bias": 0,
    "rel_pos.relative_position_bias_table": 1,
    "q_bias": 0, "v_bias": 0,
}  # fmt: skip

#: Of a module's source: queries, keys and values one after the other, or head by head.
IN_BLOCKS = re.compile(r"\b3,\s*(?:self\.)?(?:num_heads|num_attention_heads|heads|n_heads|num_head)\b")
BY_HEAD = re.compile(r"heads,\s*3,|\b3 \* self\.head|heads,\s*self\.\w+ \* 3|heads, 3 \*")
PAIR_IN_BLOCKS = re.compile(
    r"\b2,\s*self\.(?:num_heads|heads|num_attention_heads)\b|chunk\((?:chunks=)?2|split_size"
)


#: Classes whose heads are no slices of their parameters, and why.
NO_SLICES: dict[str, str] = {
    "timm.models.cait.TalkingHeadAttn": "it mixes its heads before and after the softmax",
    "timm.models.mvitv2.MultiScaleAttention": "it adds the pooled queries to the results of its heads",
    "timm.models.mvitv2.MultiScaleAttentionPool": "it adds the pooled queries to the results of its heads",
    "torchvision.models.video.mvit.MultiscaleAttention": "it adds the pooled queries to the results of its heads",
    "timm.layers.diff_attention.DiffAttention": "its heads are differences of two attentions",
    "timm.models.nest.Attention": "it gives the output projection features before heads",
    "timm.models.efficientvit_msra.CascadedGroupAttention": "each of its heads takes the result of the one before",
}

#: Classes with queries, keys and values one after the other in one projection, whose source does not show it.
BLOCKS: frozenset[str] = frozenset(
    {
        "torchvision.models.swin_transformer.ShiftedWindowAttention",
        "torchvision.models.swin_transformer.ShiftedWindowAttentionV2",
        "torchvision.models.video.swin_transformer.ShiftedWindowAttention3d",
        "transformers.models.gpt2.modeling_gpt2.GPT2Attention",
    }
)

#: Classes that run with any number of heads: none of their shapes comes from the width of the model.
NARROW: frozenset[str] = frozenset(
    {
        "timm.layers.attention.Attention",
        "timm.layers.attention.AttentionRope",
        "timm.models.swin_transformer.WindowAttention",
        "timm.models.visformer.Attention",
        "timm.models.vision_transformer_sam.Attention",
        "torchaudio.models.wav2vec2.components.SelfAttention",
        "transformers.models.gpt2.modeling_gpt2.GPT2Attention",
    }
)

#: More classes whose heads were found where these tables say, by comparing with masks.
CHECKED: frozenset[str] = NARROW | {
    *(f"timm.models.{name}" for name in (
        "beit.Attention", "cait.ClassAttn", "convit.MHSA", "crossvit.CrossAttention", "davit.WindowAttention",
        "eva.EvaAttention", "gcvit.WindowAttentionLocal", "hiera.MaskUnitAttention", "maxxvit.Attention2d",
        "maxxvit.AttentionCl", "metaformer.Attention", "pvt_v2.Attention", "swin_transformer_v2.WindowAttention",
        "swin_transformer_v2_cr.WindowMultiHeadAttention", "twins.GlobalSubSampleAttn",
        "twins.LocallyGroupedAttn", "vision_transformer_relpos.RelPosAttention", "volo.Attention",
        "volo.ClassAttention",
    )),
    "timm.layers.attention_pool.AttentionPoolLatent",
    "torchvision.models.maxvit.RelativePositionalMultiHeadAttention",
    "torchvision.models.swin_transformer.ShiftedWindowAttention",
    "torchvision.models.swin_transformer.ShiftedWindowAttentionV2",
    "torchaudio.models.emformer._EmformerAttention",
    *(f"transformers.models.{name}" for name in (
        "bloom.modeling_bloom.BloomAttention", "deberta_v2.modeling_deberta_v2.DisentangledSelfAttention",
        "gpt_neox.modeling_gpt_neox.GPTNeoXAttention", "mpnet.modeling_mpnet.MPNetSelfAttention",
        "opt.modeling_opt.OPTAttention", "segformer.modeling_segformer.SegformerAttention",
        "swin.modeling_swin.SwinSelfAttention", "wavlm.modeling_wavlm.WavLMAttention",
    )),
}  # fmt: skip
