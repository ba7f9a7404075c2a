"""The sections of run.yaml, one noun a file: every knob once, with its default, its bounds and its help.

In: nothing. Out: pydantic models, inert; `studio.core.config` puts them together. Names are those of TRL, PEFT and
transformers.
"""
