"""TRL's command line (`trl sft --config FILE`), read and written.

In: its YAML's mapping, whose names are those of TRL's configs, or a RunConfig. Out: a Carried. Which method a file is
for stands in the command, not in the file: it is told, or guessed from the knobs that only one method has.
"""

from studio.core.interchange.trl.names import NAME, SIGNS
from studio.core.interchange.trl.reading import read
from studio.core.interchange.trl.writing import write

__all__ = ["NAME", "SIGNS", "read", "write"]
