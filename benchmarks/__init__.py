"""Figures that the project promises, one command a topic; each ends with ``bars: N of M hold``."""
