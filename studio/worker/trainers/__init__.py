"""Trainers: for every method of core/sections/method.py the TRL trainer that does it, told everything that matters.

In: a config, a model, prepared data. Out: a trainer with `train()`, and `tokens_seen` for the callback. Every builder
has a row in `build.BUILDERS`.
"""
