"""Make the environment on the first start, then hand the arguments to the studio inside it.

In: `launch.py ARGS` is `studio ARGS` (none: `studio ui`); `launch.py test ARGS` runs the tests.
Out: `.venv` beside this file, with the project installed, `install.log` (pip's whole output) and `stamp.json`.
The stamp is written last and tells for which pyproject.toml, Python, folder and extras the install was finished:
without it `.venv` counts as half-made and is made anew; with it a start only reads it and executes.
It does not know the studio. Standard library only, little of it (every start waits for these imports), and in a
syntax that old Pythons parse too, so that they can be turned away in a sentence.
"""

import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

OLDEST, NEWEST = (3, 10), (3, 13)
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP, LOG = VENV / "stamp.json", VENV / "install.log"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
BASE = getattr(sys, "_base_executable", None) or sys.executable  # never an environment's own
GIB, DISK_CPU, DISK_NVIDIA = 2**30, 3, 8
BEGUN = "Installing collected packages: "  # up to this line pip changes nothing
FILE = r"\s*(?:Downloading|Using cached|Processing) (?:\S*/)?([\w.]+)-(\d[^\s-]*)-\S+\.whl(?!\S)(?: (\([\d.]+ \w+\)))?"
DISK = r"No space left on device|\[Errno 28\]|WinError 112|not enough space|Disk quota exceeded"
NETWORK = (
    "connection broken by|NewConnectionError|Max retries exceeded|[Rr]ead ?[Tt]imed ?out|ConnectTimeout|ProxyError"
    "|ConnectionResetError|IncompleteRead|incomplete-download|name resolution|getaddrinfo failed|Network is unreachable"
)


class Refusal(Exception):
    """There is no environment to start in; the message is one sentence with the next step."""


def say(text: str, end: str = "\n") -> None:
    """Speak on stderr: stdout belongs to the studio (`--json`)."""
    print(text, end=end, file=sys.stderr, flush=True)


def facts() -> "dict[str, object]":
    """What an environment is made for: when one of these changes, it has to be installed again."""
    return {
        "pyproject": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
        "python": "{}.{}".format(*sys.version_info),
        "root": str(ROOT),
    }


def read_stamp() -> "tuple[dict[str, object], set[str]]":
    """What the finished environment was made for, and the extras in it; nothing if there is none."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        if Path(stamp["base"]).exists():  # the Python it was made from may have been removed since
            return stamp, set(stamp["extras"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}, set()


def write_stamp(stamp: "dict[str, object]") -> None:
    half = STAMP.with_suffix(".tmp")
    half.write_text(json.dumps(stamp), encoding="utf-8")
    half.replace(STAMP)


def ready(extras: "set[str]") -> bool:
    stamp, installed = read_stamp()
    return facts().items() <= stamp.items() and extras <= installed


def prepare(extras: "set[str]") -> None:
    """Make `.venv` ready for a start that needs these extras; one launcher at a time."""
    VENV.mkdir(exist_ok=True)
    with (VENV / "install.lock").open("a") as lock:
        if not try_lock(lock.fileno()):
            say("Another start is installing into .venv; waiting for it to end.")
            while not try_lock(lock.fileno()):
                time.sleep(0.2)
        if ready(extras):
            return
        began, wanted, installed = time.monotonic(), facts(), read_stamp()[1]
        if not reusable():
            make_venv(lock.fileno())
        install(extras | installed, lock.fileno())
        write_stamp(dict(wanted, base=BASE, extras=sorted(extras | installed)))
    say("Installed in {}.".format(clock(time.monotonic() - began)))
    advise_on_cuda()


def try_lock(handle: int) -> bool:
    """Take the lock on an open file, unless another process has it.

    The system's lock, not a process id in a file: it ends with its holder, however that died, no other process can be
    taken for the holder, and pip, which inherits it, holds it still when only its launcher was killed.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Anything else is a file system without locks: better no lock than no start.
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def reusable() -> bool:
    """Whether pip can add to what is there: finished once, for this Python, in this folder, and pip still runs."""
    stamp, wanted = read_stamp()[0], facts()
    if (stamp.get("python"), stamp.get("root")) != (wanted["python"], wanted["root"]):
        return False
    try:
        ask = subprocess.run([str(PYTHON), "-m", "pip", "--version"], cwd=str(ROOT), capture_output=True)
    except OSError:
        return False
    return ask.returncode == 0


def make_venv(lock: int) -> None:
    """An empty environment with pip, in place of whatever was there."""
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        raise Refusal(
            "This Python lacks the modules that make an environment (venv, ensurepip): install them "
            "(Debian, Ubuntu: apt install python3-venv) and start again."
        )
    for old in VENV.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(str(old))
        elif old.name != "install.lock":  # others may be waiting on this very file
            old.unlink()
    if shutil.disk_usage(str(VENV)).free < disk_needed() * GIB:
        raise Refusal(no_space())
    say("Making .venv with Python {}.{}.{}.".format(*sys.version_info))
    code, lines = run([BASE, "-m", "venv", str(VENV)], lock)
    if code:
        raise Refusal(explain(lines))


def install(extras: "set[str]", lock: int) -> None:
    project = ".[{}]".format(",".join(sorted(extras))) if extras else "."
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    say("Installing the project into .venv; only a first start takes this long.")
    code, lines = run([str(PYTHON), "-m", "pip", "install", *options, "-e", project], lock)
    if code:
        raise Refusal(explain(lines))


def run(command: "list[str]", *inherited: int) -> "tuple[int, list[str]]":
    """Run a command, its output whole in the log and condensed on the terminal; gives its exit code and output."""
    # The user's pip configuration holds, but `user` can't work in an environment and `quiet` would hide the progress.
    env = dict(os.environ, PIP_USER="0", PIP_QUIET="0", PYTHONUTF8="1", DEBIAN_FRONTEND="noninteractive")
    lines: "list[str]" = []
    with LOG.open("a", buffering=1, encoding="utf-8") as log, subprocess.Popen(
        command, cwd=str(ROOT), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace", pass_fds=inherited if os.name != "nt" else (),
    ) as child:  # fmt: skip
        live = Live()
        try:
            for line in child.stdout or ():
                log.write(line)
                if line.startswith(BEGUN) and STAMP.exists():
                    STAMP.unlink()  # until this install has ended, the environment is unfinished again
                lines.append(line.rstrip())
                live.tell(lines[-1])
        finally:
            live.end()
            try:
                child.wait(10)  # Ctrl-C has reached it too, and it cleans up after itself
            except subprocess.TimeoutExpired:
                child.kill()
    return child.returncode, lines


class Live:
    """pip's output in brief: on a terminal one line that changes, elsewhere a line a package."""

    def __init__(self) -> None:
        self.text, self.ended = "", threading.Event()
        self.width = shutil.get_terminal_size().columns - 1 if sys.stderr.isatty() else 0
        self.drawing = threading.Thread(target=self.draw, daemon=True)
        self.drawing.start()

    def tell(self, line: str) -> None:
        text, passing = brief(line)
        self.text = text or self.text
        if text and not passing and not self.width:
            say("  " + text)

    def draw(self) -> None:
        began = time.monotonic()
        while self.width and not self.ended.wait(0.25):
            line = "  {}  {}".format(clock(time.monotonic() - began), self.text)
            say("\r" + line[: self.width].ljust(self.width), end="")

    def end(self) -> None:
        self.ended.set()
        self.drawing.join()
        if self.width:
            say("\r" + " " * self.width + "\r", end="")


def brief(line: str) -> "tuple[str, bool]":
    """What a line of pip's says, if anything, and whether that is only worth a passing look."""
    file = re.match(FILE, line)
    if file:
        return " ".join(part for part in file.groups() if part), False
    if line.startswith(BEGUN):
        return "unpacking {} packages".format(line.count(",") + 1), False
    if line.startswith("Collecting "):
        return "looking for " + re.split(r"[^\w.-]", line[11:])[0], True
    return ("no answer from the package index, trying again" if "Retrying (" in line else ""), True


def clock(seconds: float) -> str:
    return "{}:{:02}".format(int(seconds) // 60, int(seconds) % 60)


def explain(lines: "list[str]") -> str:
    """One sentence for what a failed command printed."""
    said = [line.strip() for line in lines if line.strip() and not re.match(r"\s*(note|hint|\[notice\]|\[end)", line)]
    errors = [line for line in said if re.match("ERROR: |error: ", line)]
    verdict = "\n".join(errors + [line for line in said if not line.startswith("WARNING: ")][-3:])
    if re.search(DISK, verdict):
        return no_space()
    missing = re.search("from versions: none|No matching distribution", verdict)
    if re.search(NETWORK, "\n".join(said) if missing else verdict):
        return (
            "The Python package index can't be reached: check the network (or pip's proxy and index settings) "
            "and start again; pip's own words are in {}.".format(LOG)
        )
    telling = [line for line in errors if not re.search(r"Exception:$|subprocess-exited|metadata-generation", line)]
    last = re.sub("^(ERROR|error): ", "", (telling or said or ["it printed nothing"])[-1]).rstrip(".")
    return "The installation failed ({}): mend that and start again; the whole log is {}.".format(last, LOG)


def advise_on_cuda() -> None:
    """On Windows the package index has PyTorch for CPUs only."""
    if os.name == "nt" and shutil.which("nvidia-smi"):
        say(
            'To use the NVIDIA card, install PyTorch again with CUDA: take the pip command under "Get started" on '
            'pytorch.org and run it as "{}" -m pip, with --force-reinstall.'.format(PYTHON)
        )


def disk_needed() -> int:
    """GiB that the environment takes; PyTorch for NVIDIA cards brings CUDA."""
    return DISK_NVIDIA if shutil.which("nvidia-smi") or Path("/dev/nvidiactl").exists() else DISK_CPU


def no_space() -> str:
    return (
        "There is too little disk space: the environment needs about {} GB in {} ({:.1f} GB are free), and the "
        "downloads some in the temporary folder (TMPDIR can name another): make room and start again."
    ).format(disk_needed(), ROOT, shutil.disk_usage(str(ROOT)).free / GIB)


def no_access(error: OSError) -> str:
    """One sentence for what the system refused to us, rather than to pip."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space()
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            "{} can't be written ({}): end any running studio, or move the project to a folder that you may write to, "
            "and start again."
        ).format(error.filename or VENV, error.strerror)
    return "The environment can't be made ({}): mend that, or remove {}, and start again.".format(error, VENV)


def provide_chromium() -> None:
    """A browser for the tests that need one, where that can be had without asking; otherwise a word on how."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    if os.environ.get("STUDIO_CHROMIUM") or any(shutil.which(name) for name in names):
        return
    if sys.platform == "linux" and os.geteuid() == 0 and shutil.which("apt-get"):
        say("Installing Debian's chromium and chromium-driver for the browser tests.")
        run(["apt-get", "update"])
        if run(["apt-get", "install", "-y", "chromium", "chromium-driver"])[0] == 0:
            return
    say(
        "The browser tests need Chromium: install it (Debian: apt install chromium chromium-driver), "
        "or name its program in STUDIO_CHROMIUM."
    )


def hand_over(command: "list[str]") -> int:
    """Become the command; on Windows, where that can't be done, wait for it and give its exit code."""
    if os.name != "nt":
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command itself
    return subprocess.call(command)


def start(args: "list[str]") -> int:
    testing = args[:1] == ["test"]
    extras = {"test"} if testing else set()
    if not ready(extras):
        prepare(extras)
    # The tests are found from the project's folder; the studio runs where the user is and, where Python lets it (-P),
    # imports nothing from there.
    command = [str(PYTHON), "-m", "pytest", *args[1:]]
    if testing:
        provide_chromium()
        os.chdir(str(ROOT))
    else:
        command = [str(PYTHON), *(["-P"] if sys.version_info >= (3, 11) else []), "-m", "studio", *(args or ["ui"])]
    try:
        return hand_over(command)
    except OSError:
        # The interpreter is there, but the system can't run it: a broken copy, or another machine's.
        STAMP.unlink()
        prepare(extras)
        return hand_over(command)


def main(args: "list[str]") -> int:
    version = "{}.{}.{}".format(*sys.version_info)
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        say(
            "This is Python {}, and the studio needs Python 3.10, 3.11, 3.12 or 3.13: install one of these "
            "(python.org, or your system's packages) and start launch.py with it.".format(version)
        )
        return 1
    try:
        return start(args)
    except Refusal as refusal:
        say(str(refusal))
    except OSError as error:
        say(no_access(error))
    except KeyboardInterrupt:
        say("Stopped; the next start goes on with the installation.")
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
