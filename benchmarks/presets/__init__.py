"""Each preset of the tasks: what it reaches, in what time, beside its control."""
