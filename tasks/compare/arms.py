"""The arms of the comparison: what each changes in a domain's configuration.

All arms of a domain have the same tokens, width, training and data. Those of attention differ in what they say; the
convolution and the MLP have as many parameters (within 2 %) and pool by the mean.
"""

from __future__ import annotations

_ENCODER = "--model.encoder"


def _heads(count: int) -> list[str]:
    return [f"{_ENCODER}.init_args.num_heads={count}", f"--model.pool_heads={count}"]


ARMS: dict[str, list[str]] = {
    "attention": [],
    "uniform": [f"{_ENCODER}.init_args.attention=uniform", "--model.pool_attention=uniform"],
    "convolution": [
        f"{_ENCODER}.class_path=tasks.compare.mixing.build_convolution_encoder", "--model.pool=mean",
    ],
    "mlp": [f"{_ENCODER}.class_path=tasks.compare.mixing.build_tokenwise_encoder", "--model.pool=mean"],
    "heads_1": _heads(1),
    "heads_2": _heads(2),
    "heads_8": _heads(8),
    "deep_1": [f"{_ENCODER}.class_path=tasks.compare.mixing.build_deeper_encoder", "--model.pool_heads=1"],
}  # fmt: skip
"""For each arm that is trained, arguments of the command line; they come after all others."""

CONTROLS = ("linear", "majority")
"""Arms without a Lightning run; see :func:`tasks.compare.measuring.measure_linear`."""


def overrides(arm: str, domain: str) -> list[str]:
    """Arguments of the command line that make an arm out of a domain's configuration, to come after all others.

    Raises:
        ValueError: the arm is unknown, or not one that is trained.
    """
    if arm not in ARMS:
        raise ValueError(f"arm must be one of {', '.join(ARMS)}: got {arm!r}")
    if arm == "convolution" and domain == "vision":
        return [*ARMS[arm], f"{_ENCODER}.init_args.axes=2"]
    return list(ARMS[arm])
