"""What a trainer is put together from, as every builder gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.config import RunConfig
from studio.core.inputs import Inputs
from studio.worker.data.prepare import Prepared
from studio.worker.data.source import Progress, quiet
from studio.worker.device import Setup


@dataclass(frozen=True)
class Parts:
    """`output`: the folder of the checkpoints. `inputs`: what the config's names meant, for methods that read more
    models. `progress(words, done, total)` tells of long work before training; it may raise to end it.
    """

    config: RunConfig
    setup: Setup
    model: Any
    tokenizer: Any
    data: Prepared
    output: Path
    inputs: Inputs | None = None
    progress: Progress = quiet


Builder = Callable[[Parts], Any]
