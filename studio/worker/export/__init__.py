"""Taking a trained model away: one function a format, each writing a folder that is there whole or not at all.

In: a run's output and its base. Out: a folder that other programs load. Inputs are only ever read.
"""
