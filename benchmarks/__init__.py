"""Measurements of the library beside hand-written floors: ``make bench``."""
