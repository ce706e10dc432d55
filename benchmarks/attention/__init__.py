"""``python -m benchmarks.attention``: attention, encoders and windows beside what people use today."""
