"""llama.cpp's quantizer: the number formats that it makes, how large they are, where it is on this machine.

In: the environment. Out: a table; a program's path, or None. Starts nothing.
"""

from __future__ import annotations

import os
import shutil

VARIABLE = "STUDIO_LLAMA_QUANTIZE"
PROGRAM = "llama-quantize"

# Bits a weight of Llama 3.1 8B, from llama.cpp's own tables (tools/quantize/README.md; q4_0 and q3_k_m from the sizes
# that the program itself names, in GiB for 8.03 billion weights).
QUANTIZED = {
    "q6_k": 6.5633,
    "q5_k_m": 5.7036,
    "q5_k_s": 5.5704,
    "q4_k_m": 4.8944,
    "q4_k_s": 4.6672,
    "q4_0": 4.6427,
    "q3_k_l": 4.2979,
    "q3_k_m": 4.0009,
    "q3_k_s": 3.6429,
    "q2_k": 3.1593,
}


def quantizer() -> str | None:
    """The program that is named in STUDIO_LLAMA_QUANTIZE, else llama-quantize on the PATH; None where neither is."""
    return shutil.which(os.environ.get(VARIABLE) or PROGRAM)
