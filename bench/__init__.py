"""Measurements of the studio on the machine at hand: `python -m bench`.

In: the installed studio and the starter model. Out: a table, and the same as JSON in bench/results/. Every ratio
compares two things measured in this very run, alternating; medians throughout. Not a test: nothing here passes or
fails.
"""
