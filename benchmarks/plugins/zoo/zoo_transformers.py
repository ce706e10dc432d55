"""Small models of transformers, made from their configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from benchmarks.plugins.zoo.case import Case, Inputs, tensors_of

VOCABULARY, TOKENS = 97, 9


def built(model_type: str, name: str, config: dict[str, Any]) -> nn.Module:
    """The class of transformers with that name, with random weights."""
    kind = getattr(transformers, name)
    return kind(transformers.AutoConfig.for_model(model_type, **config))  # type: ignore[no-any-return]


def steeper(model: nn.Module) -> nn.Module:
    """Larger logits where norms of queries and keys keep them small, whatever the weights."""
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), float):
            module.scaling *= 3  # type: ignore[operator, assignment]
    return model


def spelled_out(model: nn.Module) -> None:
    """The implementation that writes the weights down."""
    for part in model.modules():
        if isinstance(part, transformers.PreTrainedModel):
            for config in (part.config, *(getattr(part.config, key) for key in part.config.sub_configs)):
                if config is not None:
                    config._attn_implementation_internal = "eager"


def padding(left: bool = False) -> Tensor:
    """``[2, 9]``: the second sequence is four tokens shorter."""
    mask = torch.ones(2, TOKENS, dtype=torch.long)
    mask[1, slice(4) if left else slice(5, None)] = 0
    return mask


def tokens(**more: Any) -> Callable[[], Inputs]:
    """Token numbers, padded on the right."""
    return lambda: Inputs(
        kwargs={"input_ids": torch.randint(3, VOCABULARY, (2, TOKENS)), "attention_mask": padding(), **more}
    )


def prompts() -> Inputs:
    """Token numbers, padded on the left, as decoders want them."""
    ids = torch.randint(3, VOCABULARY, (2, TOKENS))
    return Inputs(kwargs={"input_ids": ids, "attention_mask": padding(left=True), "use_cache": False})


def of_tokens(left: bool) -> Callable[[Any], list[Tensor]]:
    """What is given for tokens, not for padding: hosts disagree about queries that see no key."""
    return lambda output: [x[padding(left).bool()] for x in tensors_of(output)]


def pairs() -> Inputs:
    """Token numbers for an encoder and a decoder."""
    found = tokens(use_cache=False)()
    return Inputs(kwargs={**found.kwargs, "decoder_input_ids": torch.randint(3, VOCABULARY, (2, 6))})


def waves() -> Inputs:
    """``[2, 800]``: sound, the second recording shorter."""
    mask = torch.ones(2, 800, dtype=torch.long)
    mask[1, 480:] = 0
    return Inputs(kwargs={"input_values": torch.randn(2, 800), "attention_mask": mask})


def spoken() -> Inputs:
    """What prenets make of sound, for an encoder and a decoder."""
    return Inputs(
        kwargs={"input_values": torch.randn(2, 11, 32), "decoder_input_values": torch.randn(2, 6, 32)}
    )


def pictures(size: int = 32, **more: Any) -> Callable[[], Inputs]:
    """``[2, 3, size, size]``."""
    return lambda: Inputs(kwargs={"pixel_values": torch.randn(2, 3, size, size), **more})


def _half() -> Tensor:
    mask = torch.ones(2, 64, 64, dtype=torch.long)
    mask[1, 40:] = 0
    return mask


def captions() -> Inputs:
    """Pictures and token numbers."""
    return Inputs(kwargs={**tokens()().kwargs, **pictures()().kwargs})


def case(
    model_type: str,
    name: str,
    config: dict[str, Any],
    inputs: Callable[[], Inputs],
    steep: bool = False,
    **more: Any,
) -> Case:
    """One entry: a configuration for a class of transformers; ``steep``: with larger logits."""
    if inputs is prompts:
        more.setdefault("outputs", of_tokens(left=True))
    return Case(
        f"transformers/{model_type}",
        lambda: steeper(built(model_type, name, config)) if steep else built(model_type, name, config),
        inputs,
        explicit=spelled_out,
        **more,
    )


# numbers of transformers' configurations, under the names that most of them use
BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 40, "pad_token_id": 1,
}  # fmt: skip
LLAMA = BERT | {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
BART: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 40,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "scale_embedding": False,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "decoder_start_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
GPT: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}
SOUND: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 4), "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0,
    "num_feat_extract_layers": 2, "vocab_size": VOCABULARY,
}  # fmt: skip
SPEECH: dict[str, Any] = {
    "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_layers": 2,
    "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "max_text_positions": 40,
}  # fmt: skip
VIT: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
SWIN: dict[str, Any] = {
    "image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4,
}  # fmt: skip
MLA: dict[str, Any] = {
    "kv_lora_rank": 8, "q_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "num_key_value_heads": 4,
}  # fmt: skip
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16}

ENCODERS = [
    case("bert", "BertModel", BERT, tokens(), quick=True),
    case("roberta", "RobertaModel", BERT, tokens()),
    case("xlm-roberta", "XLMRobertaModel", BERT, tokens()),
    case("distilbert", "DistilBertModel", {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4,
                                           "hidden_dim": 48, "max_position_embeddings": 40}, tokens()),
    case("albert", "AlbertModel", BERT | {"embedding_size": 16}, tokens()),
    case("electra", "ElectraModel", BERT | {"embedding_size": 16}, tokens()),
    case("mpnet", "MPNetModel", BERT, tokens()),
    case("layoutlm", "LayoutLMModel", BERT, tokens(), gain=2.0),
    case("deberta", "DebertaModel", BERT | DISENTANGLED, tokens(), outputs=of_tokens(left=False), gain=2.0),
    case("deberta-v2", "DebertaV2Model", BERT | DISENTANGLED, tokens(), outputs=of_tokens(left=False)),
    case("roformer", "RoFormerModel", BERT | {"embedding_size": 32}, tokens()),
    case("esm", "EsmModel", BERT | {"position_embedding_type": "rotary", "mask_token_id": 2}, tokens()),
    case("modernbert", "ModernBertModel", BERT | {"local_attention": 4, "global_attn_every_n_layers": 2}, tokens(),
         outputs=of_tokens(left=False)),
    case("xlnet", "XLNetModel", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
         tokens(), host_made=("*.rel_attn",), gain=2.5),
    case("longformer", "LongformerModel", BERT | {"attention_window": 4}, tokens(), mixes=False,
         left_alone=tuple(f"encoder.layer.{i}.attention.self" for i in (0, 1))),
    case("fnet", "FNetModel", BERT | {"max_position_embeddings": 9, "tpu_short_seq_length": 9},
         lambda: Inputs(kwargs={"input_ids": torch.randint(3, VOCABULARY, (2, TOKENS))}), mixes=False),
]  # fmt: skip
BOTH = [
    case("t5", "T5Model", T5, pairs, quick=True),
    case("mt5", "MT5Model", T5, pairs),
    case("umt5", "UMT5Model", T5, pairs),
    case("bart", "BartModel", BART, pairs),
    case("mbart", "MBartModel", BART, pairs),
    case("marian", "MarianModel", BART, pairs, gain=2.5),
    case("pegasus", "PegasusModel", BART, pairs),
    case("blenderbot", "BlenderbotModel", BART, pairs),
]
DECODERS = [
    case("gpt2", "GPT2Model", GPT, prompts, gain=3.0, quick=True),
    case("gpt_neo", "GPTNeoModel", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4,
                                    "attention_types": [[["global", "local"], 1]], "window_size": 4,
                                    "max_position_embeddings": 40}, prompts),
    case("gptj", "GPTJModel", GPT | {"rotary_dim": 4}, prompts),
    case("gpt_neox", "GPTNeoXModel", BERT | {"rotary_pct": 0.5}, prompts),
    case("codegen", "CodeGenModel", GPT | {"rotary_dim": 4}, prompts),
    case("opt", "OPTModel", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 48,
                             "num_attention_heads": 4, "max_position_embeddings": 40, "word_embed_proj_dim": 32},
         prompts),
    case("bloom", "BloomModel", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}, prompts),
    case("mpt", "MptModel", {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4,
                             "max_seq_len": 40}, prompts),
    case("falcon", "FalconModel", LLAMA | {"multi_query": True}, prompts),
    case("llama", "LlamaModel", LLAMA, prompts, quick=True),
    case("mistral", "MistralModel", LLAMA | {"sliding_window": 4}, prompts),
    case("mixtral", "MixtralModel", LLAMA | {"num_local_experts": 2}, prompts),
    case("qwen2", "Qwen2Model", LLAMA, prompts),
    case("qwen3", "Qwen3Model", LLAMA | {"head_dim": 12}, prompts, steep=True),
    case("gemma", "GemmaModel", LLAMA | {"head_dim": 8}, prompts),
    case("gemma2", "Gemma2Model", LLAMA | {"head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8,
                                           "attn_logit_softcapping": 2.0}, prompts, quick=True),
    case("gemma3_text", "Gemma3TextModel", LLAMA | {"head_dim": 8, "sliding_window": 4}, prompts, steep=True),
    case("phi", "PhiModel", BERT, prompts),
    case("phi3", "Phi3Model", LLAMA, prompts),
    case("stablelm", "StableLmModel", LLAMA, prompts),
    case("cohere", "CohereModel", LLAMA, prompts),
    case("olmo2", "Olmo2Model", LLAMA, prompts, steep=True),
    case("starcoder2", "Starcoder2Model", LLAMA, prompts),
    case("deepseek_v3", "DeepseekV3Model", BERT | MLA, prompts),
    case("gpt_oss", "GptOssModel", LLAMA | {"head_dim": 8, "sliding_window": 4, "num_local_experts": 2,
                                            "num_experts_per_tok": 1}, prompts, sinks=True, quick=True),
]  # fmt: skip
SOUNDS = [
    case("whisper", "WhisperModel", BART | {"num_mel_bins": 8, "max_source_positions": 20,
                                            "max_target_positions": 40}, lambda: Inputs(kwargs={
        "input_features": torch.randn(2, 8, 40), "decoder_input_ids": torch.randint(3, VOCABULARY, (2, 6)),
        "use_cache": False}), quick=True),
    case("wav2vec2", "Wav2Vec2Model", SOUND | {"feat_extract_norm": "layer"}, waves),
    case("hubert", "HubertModel", SOUND | {"feat_extract_norm": "layer"}, waves, gain=2.0),
    case("wavlm", "WavLMModel", SOUND | {"feat_extract_norm": "layer", "num_buckets": 8}, waves, quick=True),
    case("wav2vec2-conformer", "Wav2Vec2ConformerModel", SOUND | {"feat_extract_norm": "layer"}, waves),
    case("speecht5", "SpeechT5Model", SOUND | SPEECH, spoken, heads={"*attn": 4, "*attention": 4}),
    case("audio-spectrogram-transformer", "ASTModel", VIT | {"max_length": 40, "num_mel_bins": 16,
         "frequency_stride": 8, "time_stride": 8}, lambda: Inputs(kwargs={"input_values": torch.randn(2, 40, 16)})),
]  # fmt: skip
PICTURES = [
    case("vit", "ViTModel", VIT, pictures(), quick=True),
    case("deit", "DeiTModel", VIT, pictures()),
    case("beit", "BeitModel", VIT | {"use_relative_position_bias": True}, pictures()),
    case("dinov2", "Dinov2Model", VIT, pictures()),
    case("swin", "SwinModel", SWIN, pictures(64), quick=True),
    case("swinv2", "Swinv2Model", SWIN, pictures(64)),
    case("videomae", "VideoMAEModel", VIT | {"num_frames": 4}, lambda: Inputs(
        kwargs={"pixel_values": torch.randn(2, 4, 3, 32, 32)})),
    case("yolos", "YolosModel", VIT | {"image_size": [32, 32], "num_detection_tokens": 5}, pictures()),
    case("segformer", "SegformerModel", {"depths": [1, 1], "hidden_sizes": [16, 32], "num_encoder_blocks": 2,
         "num_attention_heads": [2, 4], "sr_ratios": [4, 2], "patch_sizes": [7, 3], "strides": [4, 2],
         "mlp_ratios": [2, 2]}, pictures(64)),
    case("clip", "CLIPModel", {"text_config": BERT | {"eos_token_id": 2}, "vision_config": VIT,
                               "projection_dim": 16}, captions),
    case("siglip", "SiglipModel", {"text_config": BERT | {"projection_size": 32}, "vision_config": VIT}, captions),
    case("blip", "BlipForImageTextRetrieval", {"text_config": BERT | {"encoder_hidden_size": 32},
                                               "vision_config": VIT, "image_text_hidden_size": 16}, captions),
    case("detr", "DetrModel", {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "num_queries": 5,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "use_timm_backbone": False,
        "use_pretrained_backbone": False, "backbone": None, "backbone_config": {
            "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
            "layer_type": "basic", "out_features": ["stage2"]}}, lambda: Inputs(kwargs={
                "pixel_values": torch.randn(2, 3, 64, 64), "pixel_mask": _half()})),
]  # fmt: skip
CASES: list[Case] = ENCODERS + BOTH + DECODERS + SOUNDS + PICTURES
