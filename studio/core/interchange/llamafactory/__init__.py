"""LLaMA-Factory's training YAML, read and written.

In: its mapping (src/llamafactory/hparams documents names and defaults), or a RunConfig. Out: a Carried. Datasets are
named in its dataset_info.json, which is read where it is given.
"""

from studio.core.interchange.llamafactory.names import NAME, SIGNS
from studio.core.interchange.llamafactory.reading import read
from studio.core.interchange.llamafactory.writing import write

__all__ = ["NAME", "SIGNS", "read", "write"]
