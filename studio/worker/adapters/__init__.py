"""Adapters over a model: every kind of core/sections/adapter.py, as PEFT makes it; for freeze the model's own weights.

In: a config, a loaded model. Out: what is trained, ready for a trainer; later the adapter's files. Knows no trainer's
loss and no export.
"""

from studio.worker.adapters.configs import peft_config

__all__ = ["peft_config"]
