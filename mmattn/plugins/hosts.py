"""What is known of the attention classes of other libraries, by name, so that none of them is imported."""

from __future__ import annotations

_CHANNELS = "it mixes channels, not tokens"
_SPARSE = "it keeps weights of its own form, of the keys around each query and of global ones"
_LINEAR = "it is linear attention, without a softmax over tokens"

#: Classes that are to be left alone, and why.
LEFT_ALONE: dict[str, str] = {
    "timm.models.xcit.XCA": _CHANNELS,
    "timm.models.volo.OutlookAttention": "it weighs neighbours by a convolution, without keys",
    "timm.models.coat.FactorAttnConvRelPosEnc": "it factorises the softmax over keys and queries",
    "timm.models.efficientvim.HSMSSD": "it is a state-space model",
    "timm.models.mobilevit.LinearSelfAttention": _LINEAR,
    "timm.models.davit.ChannelAttention": _CHANNELS,
    "timm.models.davit.ChannelAttentionV2": _CHANNELS,
    "timm.models.edgenext.CrossCovarianceAttn": _CHANNELS,
    "timm.layers.lambda_layer.LambdaLayer": _LINEAR,
    "timm.models.efficientvit_mit.LiteMLA": _LINEAR,
    "timm.models.swiftformer.EfficientAdditiveAttention": "it is additive attention, without a softmax over tokens",
    "torchaudio.models.tacotron2._Attention": "it is additive, location-sensitive attention",
    "transformers.models.longformer.modeling_longformer.LongformerSelfAttention": _SPARSE,
    "transformers.models.led.modeling_led.LEDEncoderSelfAttention": _SPARSE,
    "transformers.models.big_bird.modeling_big_bird.BigBirdBlockSparseAttention": _SPARSE,
    "transformers.models.bigbird_pegasus.modeling_bigbird_pegasus.BigBirdPegasusBlockSparseAttention": _SPARSE,
    "transformers.models.reformer.modeling_reformer.LSHSelfAttention": "it sorts tokens into buckets by hashing",
    "transformers.models.reformer.modeling_reformer.LocalSelfAttention": _SPARSE,
    "transformers.models.nystromformer.modeling_nystromformer.NystromformerSelfAttention": "it approximates softmax "
    "attention by landmarks",
    "transformers.models.yoso.modeling_yoso.YosoSelfAttention": "it estimates attention by hashing",
}

#: Classes that call attention themselves although others that could lie inside them.
NAMED: frozenset[str] = frozenset(
    {
        "torch.nn.modules.activation.MultiheadAttention",
        "torchaudio.models.wav2vec2.wavlm_attention.WavLMSelfAttention",
        "torchvision.models.swin_transformer.ShiftedWindowAttention",
        "torchvision.models.swin_transformer.ShiftedWindowAttentionV2",
        "torchvision.models.video.swin_transformer.ShiftedWindowAttention3d",
    }
)

#: Classes whose heads call attention one after the other: no axis of a call is that of the heads.
ONE_HEAD_A_CALL: frozenset[str] = frozenset({"timm.models.efficientvit_msra.CascadedGroupAttention"})

#: Classes that mix the weights of a softmax with others, and sum values by the mixture.
BLENDS: frozenset[str] = frozenset({"timm.models.convit.GPSA"})

#: The axis of the heads in calls with more than four axes, where it is not 1.
HEADS_AXES: dict[str, int] = {
    "torchvision.models.maxvit.RelativePositionalMultiHeadAttention": 2,
}
