"""Imports what every job needs, before there is a job.

Importing torch, transformers, peft and trl takes 7 to 10 seconds; a standby worker does it while a person fills in a
form. Nothing here touches a device: a CUDA context made now would hold memory that the job may not want.
"""

from __future__ import annotations


def preload() -> None:
    """Import the training stack and what its first use would import lazily."""
    import peft  # noqa: F401
    import torch
    import transformers
    import trl  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401 - the commonest architecture
    from trl import SFTConfig, SFTTrainer  # noqa: F401 - trl imports its trainers at first touch

    from studio.worker import train  # noqa: F401

    transformers.utils.logging.set_verbosity_warning()
    torch.nn.functional.cross_entropy(
        torch.zeros(2, 2, requires_grad=True), torch.zeros(2, dtype=torch.long)
    ).backward()
