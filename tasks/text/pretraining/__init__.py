"""Masked language modelling on texts, to be fine-tuned by ``tasks.text``."""
