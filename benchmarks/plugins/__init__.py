"""Other people's models with the core inside: coverage, agreement, cost."""
