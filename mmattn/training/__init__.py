"""What the Lightning tasks share; needs the ``tasks`` extra."""
