"""What the reader calls the domains and the arms."""

from __future__ import annotations

_DOMAINS = {
    "vision": "Vision",
    "speech": "Speech",
    "text": "Text",
    "joint": "All at once",
    "speed": "Speed",
}
_ARMS = {
    "attention": "attention",
    "uniform": "uniform mixing",
    "convolution": "convolution",
    "mlp": "no mixing (MLP)",
    "heads_1": "1 head",
    "heads_2": "2 heads",
    "heads_8": "8 heads",
    "deep_1": "1 head, one more block",
    "linear": "linear model",
    "majority": "most frequent class",
    "joint": "one trunk for all",
    "separate": "a trunk of its own",
    "third": "a trunk of its own, a third of the blocks",
    "separate_vision": "own trunk, vision",
    "separate_speech": "own trunk, speech",
    "separate_text": "own trunk, text",
    "third_vision": "a third, vision",
    "third_speech": "a third, speech",
    "third_text": "a third, text",
    "speed": "timings",
}
_MEANINGS = {
    "attention": "the model of the material: every token looks at every other with 4 heads",
    "uniform": "the same network, but every token looks at all others alike",
    "convolution": "mixes each token with its neighbours only; equal number of parameters",
    "mlp": "tokens do not meet before the mean at the end; equal number of parameters",
    "heads_1": "attention with 1 head of full width; equal parameters, depth and compute",
    "heads_2": "attention with 2 heads; equal parameters, depth and compute",
    "heads_8": "attention with 8 heads; equal parameters, depth and compute",
    "deep_1": "1 head, but one block more, so that depth stands in for heads",
    "joint": "the trunk learns from pictures, speech and text in every step",
    "separate": "as large, as many steps, but one sense: three trunks have three times its parameters",
    "third": "a third of the blocks for each sense: three trunks have as many parameters as the one",
    "linear": "a linear model on simple features: what needs no network",
    "majority": "always the most frequent class: what needs no input",
}


def domain_name(domain: str) -> str:
    """``vision`` as ``Vision``."""
    return _DOMAINS.get(domain, domain.capitalize())


def arm_name(arm: str) -> str:
    """``heads_1`` as ``1 head``."""
    return _ARMS.get(arm, arm.replace("_", " "))


def arm_meaning(arm: str) -> str:
    """What an arm is, in a few words; empty where nothing is known of it."""
    return _MEANINGS.get(arm, "")


def domain_order(domain: str) -> tuple[int, str]:
    """Sorts domains as the page shows them."""
    known = list(_DOMAINS)
    return (known.index(domain) if domain in known else len(known), domain)


def arm_order(arm: str) -> tuple[int, str]:
    """Sorts arms as the page shows them."""
    known = list(_ARMS)
    return (known.index(arm) if arm in known else len(known), arm)
