"""Axolotl's YAML, read and written.

In: its mapping (src/axolotl/utils/schemas documents names and defaults), or a RunConfig. Out: a Carried.
"""

from studio.core.interchange.axolotl.names import NAME, SIGNS
from studio.core.interchange.axolotl.reading import read
from studio.core.interchange.axolotl.writing import write

__all__ = ["NAME", "SIGNS", "read", "write"]
