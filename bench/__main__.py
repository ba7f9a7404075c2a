"""`python -m bench [startup first_step throughput export chat data]`: measure all, or only what is named.

`python -m bench memory [exact]` holds the estimate of memory against published measurements instead,
`python -m bench cpu_memory [blind]` against runs on this processor, `live_memory` against the live tensors of short
ones, method by method. `python -m bench switches` measures what switches of memory and speed bring.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from bench.rows import Row, fresh_home, save, table

# What prints a table of its own.
ALONE = ("memory", "cpu_memory", "live_memory", "switches")
PARTS = ("startup", "first_step", "throughput", "export", "chat", "data")


def main(names: list[str]) -> int:
    if names and names[0] in ALONE:
        return importlib.import_module(f"bench.{names[0]}").main(names[1:])  # type: ignore[no-any-return]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"There is no {unknown[0]}; choose from {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    rows: list[Row] = []
    with fresh_home() as home:
        for name in names or PARTS:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            rows += importlib.import_module(f"bench.{name}").measure(home)
    print(table(rows))
    print(f"\n{save(rows, Path(__file__).parent / 'results')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
