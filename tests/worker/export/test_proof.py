"""The comparison's process ends with the one that asked for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ASKER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
print(child.pid, flush=True)
time.sleep(60)
"""
CHILD = """
import threading, time
from studio.worker.export.proof import end_with_the_asker
threading.Thread(target=end_with_the_asker, daemon=True).start()
time.sleep(60)
"""


def test_F01_a_comparison_whose_asker_was_killed_ends(tmp_path: Path) -> None:
    import psutil

    with subprocess.Popen([sys.executable, "-c", ASKER, CHILD], stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdout is not None
        child = psutil.Process(int(asker.stdout.readline()))
        asker.kill()
    child.wait(timeout=50)  # TimeoutExpired fails
