"""A studio for fine-tuning language models on one's own machine.

The wings: `core` says what a run is, `workspace` where it lives, `worker` what it does, `ui` how it is seen.
They import one another only along `core <- workspace <- ui` and `core <- worker`.
"""

__version__ = "0.1.0"
