"""A fake NVIDIA driver under the real bindings.

In: a folder. Out: `libnvidia-ml.so.1` built there from fake_nvml.c, and FakeDriver, which says how it behaves (the
manners stand in fake_nvml.c). A program started with FakeDriver.environment() believes that it has NVIDIA cards.
It knows no system but Linux.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("fake_nvml.c")
_CARD = re.compile(r"^(gpu\d+)_")


def build_fake_nvml(folder: Path) -> Path:
    """The library, compiled into `folder`; RuntimeError when there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("The fake NVIDIA driver needs a C compiler: install gcc (apt install gcc) and test again.")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode != 0:
        raise RuntimeError(f"The fake NVIDIA driver didn't compile:\n{built.stderr}")
    return library


class FakeDriver:
    """One fake driver: a built library, and the file that tells it how to behave."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.library = library
        self.control = folder / "fake_nvml.txt"
        self.log = folder / "fake_nvml.log"

    def behaves(self, manner: str = "ok", **figures: int) -> None:
        """From the next call on; a key with a card's number, such as gpu1_load, is meant for that card alone."""
        words = [manner, *(_CARD.sub(r"\1.", key) + f"={value}" for key, value in figures.items())]
        draft = self.control.with_suffix(".draft")
        draft.write_text(" ".join(words) + "\n")
        draft.replace(self.control)  # the driver never reads half a file

    def calls(self, name: str) -> int:
        """How often the library's function of that name was called."""
        return self.log.read_text().splitlines().count(name) if self.log.exists() else 0

    def environment(self) -> dict[str, str]:
        """What a program needs around it to find this driver instead of a real one."""
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.library.parent),
            "FAKE_NVML": str(self.control),
            "FAKE_NVML_LOG": str(self.log),
        }
