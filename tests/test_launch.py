"""launch.py, driven as a person drives it, with `venv`, `pip`, the studio and pytest replaced by small fakes.

The fakes come before the real modules on PYTHONPATH. The fake venv makes a real environment without pip; the fake pip
notes its calls, prints what `pip.out` holds and ends with the code in `pip.code`; while `pip.hold` exists, it waits and
makes `pip.held`.
"""

import ast
import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no exec, and hands no open file to a child")

FAKE_VENV = """
import importlib, os, sys
here = os.path.dirname(os.path.abspath(__file__))
sys.path = [folder for folder in sys.path if os.path.abspath(folder) != here]
sys.modules.pop("venv", None)
importlib.import_module("venv").create(sys.argv[1], symlinks=os.name != "nt")
"""
FAKE_PIP = """
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
if sys.argv[1:] == ["--version"]:
    sys.exit((here / "pip.missing").exists())
with (here / "pip.calls").open("a") as calls:
    print(*sys.argv[1:], sep="\\t", file=calls)
print("Collecting torch\\n  Downloading torch-2.13.0-cp311-cp311-any.whl (198.3 MB)", flush=True)
print((here / "pip.out").read_text(), flush=True)
until = time.monotonic() + 60  # so that a failed test leaves no process behind for long
while (here / "pip.hold").exists() and time.monotonic() < until:
    (here / "pip.held").touch()
    time.sleep(0.02)
sys.exit(int((here / "pip.code").read_text()))
"""
FAKE_STUDIO = """
import json, os, sys
print(json.dumps([os.path.basename(os.path.dirname(__file__)), sys.argv[1:], os.getcwd(), sys.prefix]))
sys.exit(int(os.environ.get("FAKE_EXIT", 0)))
"""
BEGUN = "Installing collected packages: torch, finetuning-studio"


class Sandbox:
    """A project folder with the real launch.py, and the fakes beside it."""

    def __init__(self, folder: Path) -> None:
        self.project, self.fakes = folder / "my project", folder / "fakes"
        self.venv = self.project / ".venv"
        self.python = self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.project.mkdir()
        shutil.copy(ROOT / "launch.py", self.project)
        (self.project / "pyproject.toml").write_text("[project]\nname = 'first'\n")
        for name in ("studio", "pytest"):
            (self.fakes / name).mkdir(parents=True)
            (self.fakes / name / "__init__.py").touch()
            (self.fakes / name / "__main__.py").write_text(FAKE_STUDIO)
        (self.fakes / "venv.py").write_text(FAKE_VENV)
        (self.fakes / "pip.py").write_text(FAKE_PIP)
        self.pip(BEGUN)

    def pip(self, out: str, code: int = 0) -> None:
        """What the next calls of pip print, and how they end."""
        (self.fakes / "pip.out").write_text(out)
        (self.fakes / "pip.code").write_text(str(code))

    def calls(self) -> list[list[str]]:
        """The arguments of every `pip install` so far."""
        calls = self.fakes / "pip.calls"
        return [line.split("\t") for line in calls.read_text().splitlines()] if calls.exists() else []

    def environment(self, **more: str) -> dict[str, str]:
        # STUDIO_CHROMIUM: no test may install a browser.
        return {**os.environ, "PYTHONPATH": str(self.fakes), "STUDIO_CHROMIUM": sys.executable, **more}

    def popen(self, *args: str) -> "subprocess.Popen[str]":
        command = [sys.executable, str(self.project / "launch.py"), *args]
        # In a session of its own, so that a test can send Ctrl-C to the launcher and pip as a terminal does.
        return subprocess.Popen(
            command,
            env=self.environment(),
            cwd=self.fakes,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *args: str, cwd: Path | None = None, **more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(self.project / "launch.py"), *args]
        cwd = cwd or self.fakes  # not where the real studio is: Python 3.10 would take it from there
        return subprocess.run(command, env=self.environment(**more), cwd=cwd, capture_output=True, text=True)

    def refused(self, *args: str) -> str:
        """The one sentence that a start ends with when it can't go on."""
        ended = self.run(*args)
        assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stderr.splitlines()[-1]

    def starts(self, *args: str) -> None:
        ended = self.run(*args)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)[3] == str(self.venv)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path.resolve())


@pytest.fixture
def launch(sandbox: Sandbox) -> Iterator[ModuleType]:
    """The sandbox's launch.py as a module, for what can't be brought about from outside."""
    spec = importlib.util.spec_from_file_location("launch_under_test", sandbox.project / "launch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


def wait_until(true: Callable[[], bool]) -> None:
    while not true():  # pytest's own timeout ends a wait in vain
        time.sleep(0.02)


# What a start hands over


def test_arguments_exit_code_and_folder_pass_through(sandbox: Sandbox, tmp_path: Path) -> None:
    args = ["train", "a b.yaml", "--set", "x=ü\"'$HOME"]
    for _ in range(2):  # a first and a second start alike
        ended = sandbox.run(*args, cwd=tmp_path, FAKE_EXIT="130")
        assert ended.returncode == 130
        assert json.loads(ended.stdout) == ["studio", args, str(tmp_path.resolve()), str(sandbox.venv)]


def test_no_arguments_open_the_window(sandbox: Sandbox) -> None:
    assert json.loads(sandbox.run().stdout)[:2] == ["studio", ["ui"]]


def test_test_runs_pytest_in_the_project_with_the_test_extra(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = sandbox.run("test", "-k", "x y", cwd=tmp_path, FAKE_EXIT="5")
    assert ended.returncode == 5
    assert json.loads(ended.stdout)[:3] == ["pytest", ["-k", "x y"], str(sandbox.project)]
    assert [call[-2:] for call in sandbox.calls()] == [["-e", ".[test]"]]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no -P")
def test_the_studio_imports_nothing_from_where_the_user_is(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the current folder')")
    assert sandbox.run(cwd=tmp_path).returncode == 0


def test_progress_is_a_line_a_package_on_stderr(sandbox: Sandbox) -> None:
    ended = sandbox.run()
    assert "  torch 2.13.0 (198.3 MB)\n  unpacking 2 packages\n" in ended.stderr
    assert "Downloading torch-2.13.0" in (sandbox.venv / "install.log").read_text()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("  Downloading gradio-6.31.0-py3-none-any.whl.metadata (16 kB)", ""),
        ("Downloading gradio-6.31.0-py3-none-any.whl (31.4 MB)", "gradio 6.31.0 (31.4 MB)"),
        ("  Using cached h11-0.16-py3-none-any.whl (37 kB)", "h11 0.16 (37 kB)"),
        ("Processing /wheels/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl (from a->b)", "torch 2.13.0+cpu"),
        ("Collecting torch<2.14,>=2.13 (from x)", "looking for torch"),
        ("Requirement already satisfied: pip in ./lib", ""),
    ],
)
def test_what_a_line_of_pip_becomes(launch: ModuleType, line: str, shown: str) -> None:
    assert launch.brief(line)[0] == shown


def test_where_exec_is_missing_the_exit_code_passes_through(
    launch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(launch, "os", SimpleNamespace(name="nt"))
    try:
        assert launch.hand_over([sys.executable, "-c", "raise SystemExit(9)"]) == 9
    finally:
        signal.signal(signal.SIGINT, before)


# When a start installs


def test_the_stamp_decides(sandbox: Sandbox) -> None:
    sandbox.starts()
    sandbox.starts()
    assert len(sandbox.calls()) == 1
    (sandbox.project / "pyproject.toml").write_text("[project]\nname = 'second'\n")
    (sandbox.venv / "kept").touch()
    sandbox.starts()
    assert len(sandbox.calls()) == 2
    assert (sandbox.venv / "kept").exists()  # pip adds to a whole environment
    sandbox.starts()
    assert len(sandbox.calls()) == 2


def test_base_and_test_extra_need_no_second_install(sandbox: Sandbox) -> None:
    for args in ([], ["test"], [], ["test"]):
        sandbox.starts(*args)
    assert [call[-1] for call in sandbox.calls()] == [".", ".[test]"]
    (sandbox.project / "pyproject.toml").write_text("[project]\nname = 'second'\n")
    for args in ([], ["test"]):
        sandbox.starts(*args)
    assert [call[-1] for call in sandbox.calls()] == [".", ".[test]", ".[test]"]


def test_a_moved_folder_is_installed_again(sandbox: Sandbox) -> None:
    sandbox.starts()
    moved = sandbox.project.with_name("moved")
    sandbox.project.rename(moved)
    sandbox.project, sandbox.venv = moved, moved / ".venv"
    sandbox.starts()
    assert len(sandbox.calls()) == 2


def no_stamp(sandbox: Sandbox) -> None:
    (sandbox.venv / "stamp.json").unlink()


def torn_stamp(sandbox: Sandbox) -> None:
    (sandbox.venv / "stamp.json").write_text('{"python": ')


def foreign_stamp(sandbox: Sandbox) -> None:
    (sandbox.venv / "stamp.json").write_text("[1]")


def no_interpreter(sandbox: Sandbox) -> None:
    sandbox.python.unlink()


def dangling_interpreter(sandbox: Sandbox) -> None:
    sandbox.python.unlink()
    sandbox.python.symlink_to(sandbox.project / "gone")


def unusable_interpreter(sandbox: Sandbox) -> None:
    sandbox.python.unlink()
    sandbox.python.write_bytes(b"\0not a program")
    sandbox.python.chmod(0o755)


def base_gone(sandbox: Sandbox) -> None:
    stamp = json.loads((sandbox.venv / "stamp.json").read_text())
    (sandbox.venv / "stamp.json").write_text(json.dumps({**stamp, "base": str(sandbox.project / "gone")}))


def no_pip(sandbox: Sandbox) -> None:
    (sandbox.fakes / "pip.missing").touch()
    (sandbox.project / "pyproject.toml").write_text("[project]\nname = 'second'\n")


def other_python(sandbox: Sandbox) -> None:
    stamp = json.loads((sandbox.venv / "stamp.json").read_text())
    (sandbox.venv / "stamp.json").write_text(json.dumps({**stamp, "python": "3.9"}))


@pytest.mark.parametrize(
    "damage",
    [
        no_stamp,
        torn_stamp,
        foreign_stamp,
        no_interpreter,
        base_gone,
        no_pip,
        other_python,
        pytest.param(dangling_interpreter, marks=posix),
        pytest.param(unusable_interpreter, marks=posix),
    ],
)
def test_a_half_made_environment_is_made_anew(sandbox: Sandbox, damage: Callable[[Sandbox], None]) -> None:
    sandbox.starts()
    damage(sandbox)
    (sandbox.venv / "leftover" / "deep").mkdir(parents=True)
    sandbox.starts()
    assert len(sandbox.calls()) == 2
    assert not (sandbox.venv / "leftover").exists()
    sandbox.starts()
    assert len(sandbox.calls()) == 2


# Two at once, and ends in the middle


@posix
def test_the_second_of_two_starts_waits_and_installs_nothing(sandbox: Sandbox) -> None:
    (sandbox.fakes / "pip.hold").touch()
    with sandbox.popen("one") as first:
        wait_until((sandbox.fakes / "pip.held").exists)
        with sandbox.popen("two") as second:
            assert second.stderr is not None
            assert "waiting" in second.stderr.readline()
            (sandbox.fakes / "pip.hold").unlink()
            said = [json.loads(start.communicate()[0])[1] for start in (first, second)]
    assert said == [["one"], ["two"]]
    assert (first.returncode, second.returncode, len(sandbox.calls())) == (0, 0, 1)


@posix
def test_the_lock_of_a_killed_start_is_taken_over_once_its_pip_has_ended(sandbox: Sandbox) -> None:
    (sandbox.fakes / "pip.hold").touch()
    with sandbox.popen() as first:
        wait_until((sandbox.fakes / "pip.held").exists)
        first.kill()
    with sandbox.popen() as second:
        assert second.stderr is not None
        assert "waiting" in second.stderr.readline()  # the killed start's pip is still writing
        (sandbox.fakes / "pip.hold").unlink()
        second.communicate()
    assert (second.returncode, len(sandbox.calls())) == (0, 2)


def test_a_lock_file_left_behind_locks_nothing(sandbox: Sandbox) -> None:
    sandbox.venv.mkdir()
    (sandbox.venv / "install.lock").write_text("4194305")
    sandbox.starts()


@posix
def test_ctrl_c_stops_and_the_next_start_goes_on(sandbox: Sandbox) -> None:
    (sandbox.fakes / "pip.hold").touch()
    with sandbox.popen() as first:
        wait_until((sandbox.fakes / "pip.held").exists)
        os.killpg(first.pid, signal.SIGINT)
        stderr = first.communicate()[1]
    assert first.returncode == 130
    assert stderr.splitlines()[-1].startswith("Stopped; the next start goes on")
    assert "Traceback" not in stderr
    (sandbox.fakes / "pip.hold").unlink()
    sandbox.starts()


# Refusals: one sentence, and the next try recovers

OFFLINE = """
  error: subprocess-exited-with-error
  × pip subprocess to install build dependencies did not run successfully.
      WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('Name or service not known')'
      ERROR: Could not find a version that satisfies the requirement hatchling (from versions: none)
      ERROR: No matching distribution found for hatchling
      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
error: subprocess-exited-with-error
note: This error originates from a subprocess, and is likely not a problem with pip.
"""
CUT = "ERROR: Exception:\nTraceback (most recent call last):\nReadTimeoutError: HTTPSConnectionPool: Read timed out."
FULL = f"{BEGUN}\nERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
# A hiccup of the network on the way to another failure is not the failure.
UNMET = "WARNING: Retrying (Retry(total=4)) after connection broken by 'X'\n" + (
    "ERROR: Package 'finetuning-studio' requires a different Python: 3.9 not in '>=3.10'\n\n[notice] A new pip exists"
)


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (OFFLINE, ["index can't be reached", "start again"]),
        (CUT, ["index can't be reached", "start again"]),
        (FULL, ["disk space", "GB are free", "start again"]),
        (UNMET, ["requires a different Python: 3.9 not in '>=3.10'", "install.log", "start again"]),
        ("strange", ["(strange)", "install.log", "start again"]),
    ],
)
def test_a_failing_pip_is_told_in_a_sentence_and_tried_again(sandbox: Sandbox, out: str, words: list[str]) -> None:
    sandbox.pip(out, code=1)
    sentence = sandbox.refused()
    assert [word for word in words if word not in sentence] == []
    sandbox.pip(BEGUN)
    sandbox.starts()


def test_a_whole_environment_outlives_a_try_to_add_to_it_offline(sandbox: Sandbox) -> None:
    sandbox.starts()
    sandbox.pip(OFFLINE, code=1)
    assert "can't be reached" in sandbox.refused("test")
    sandbox.starts()
    assert len(sandbox.calls()) == 2


def test_a_whole_environment_counts_as_half_made_once_pip_has_begun_to_change_it(sandbox: Sandbox) -> None:
    sandbox.starts()
    sandbox.pip(FULL, code=1)
    assert "disk space" in sandbox.refused("test")
    sandbox.pip(BEGUN)
    (sandbox.venv / "leftover").touch()
    sandbox.starts()
    assert len(sandbox.calls()) == 3
    assert not (sandbox.venv / "leftover").exists()


def test_too_little_disk_is_told_before_anything_is_made(
    sandbox: Sandbox, launch: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2**40, 2**40, 3 * 2**29))
    monkeypatch.setattr(launch, "disk_needed", lambda: 3)
    assert launch.main([]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "about 3 GB" in sentence and "1.5 GB are free" in sentence
    assert not sandbox.python.exists()


def test_an_nvidia_card_asks_for_more_disk(launch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    assert launch.disk_needed() == 8


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "can't be written"),
        (errno.EROFS, "can't be written"),
        (errno.ENOSPC, "too little disk space"),
        (errno.EIO, "can't be made"),
    ],
)
def test_a_folder_that_refuses_is_told_in_a_sentence(
    launch: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, words: str
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert launch.main([]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert words in sentence and str(launch.ROOT) in sentence and "start again" in sentence


def test_a_file_named_venv_is_told_in_a_sentence(sandbox: Sandbox) -> None:
    sandbox.venv.touch()
    assert "start again" in sandbox.refused()
    sandbox.venv.unlink()
    sandbox.starts()


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_venv_is_told_what_to_install(
    launch: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else object())
    assert launch.main([]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "apt install python3-venv" in sentence


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6, 15), (3, 9, 18), (3, 14, 0), (4, 0, 0)])
def test_a_wrong_python_is_turned_away(
    sandbox: Sandbox,
    launch: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    version: tuple[int, ...],
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert launch.main([]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    for word in (".".join(map(str, version)), "3.10", "3.11", "3.12", "3.13"):
        assert word in sentence
    assert not sandbox.venv.exists()


def test_old_pythons_can_parse_it() -> None:
    tree = ast.parse((ROOT / "launch.py").read_text(encoding="utf-8"), feature_version=(3, 6))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    arguments = [each.annotation for node in functions for each in (*node.args.args, *node.args.kwonlyargs)]
    annotations = [each for each in [*arguments, *(node.returns for node in functions)] if each is not None]
    # They evaluate annotations: only plain names and quoted ones mean the same to them.
    plain = [ast.Name, ast.Constant]
    assert [ast.unparse(each) for each in annotations if type(each) not in plain] == []


# What every start pays

WATCH = """
import errno, hashlib, importlib.util, json, os, pathlib, re, shutil, signal, subprocess, sys, threading, time
if os.name != "nt":
    import fcntl
before, ran = set(sys.modules), []

def watch(event, args):
    if event in ("subprocess.Popen", "os.system", "os.fork", "os.posix_spawn", "os.spawn", "socket.connect"):
        ran.append(event)
    if event == "os.exec":
        print(json.dumps([ran, sorted(set(sys.modules) - before), [os.fsdecode(each) for each in args[1]]]), flush=True)
        os._exit(0)

sys.addaudithook(watch)
sys.argv = sys.argv[1:]
source = pathlib.Path(sys.argv[0]).read_text(encoding="utf-8")
exec(compile(source, sys.argv[0], "exec"), {"__name__": "__main__", "__file__": sys.argv[0]})
"""


@posix
def test_a_second_start_imports_little_and_runs_nothing_but_the_studio(sandbox: Sandbox) -> None:
    sandbox.starts()
    watched = subprocess.run(
        [sys.executable, "-c", WATCH, str(sandbox.project / "launch.py"), "runs", "list"],
        env=sandbox.environment(),
        capture_output=True,
        text=True,
    )
    assert watched.stderr == ""
    ran, imported, command = json.loads(watched.stdout)
    assert ran == []
    assert imported == []  # nothing beyond the modules that WATCH names
    assert (command[0], command[-4:]) == (str(sandbox.python), ["-m", "studio", "runs", "list"])


# A card that Windows' PyTorch doesn't use


@pytest.mark.parametrize(
    ("system", "card", "told"), [("nt", "smi", True), ("nt", None, False), ("posix", "smi", False)]
)
def test_windows_with_an_nvidia_card_is_told_how_to_use_it(
    launch: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    system: str,
    card: str | None,
    told: bool,
) -> None:
    monkeypatch.setattr(launch, "os", SimpleNamespace(name=system))
    monkeypatch.setattr(shutil, "which", lambda name: card)
    launch.advise_on_cuda()
    said = capsys.readouterr().err
    assert ("pytorch.org" in said and str(launch.PYTHON) in said) == told == bool(said)


# Chromium for the browser tests


def chromium(launch: ModuleType, monkeypatch: pytest.MonkeyPatch, has: set[str], user: int, code: int) -> list[str]:
    """The programs run to provide Chromium on a machine that has these."""
    ran: list[str] = []

    def run(command: list[str]) -> tuple[int, list[str]]:
        ran.append(" ".join(command))
        return code, []

    monkeypatch.delenv("STUDIO_CHROMIUM", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: name if name in has else None)
    monkeypatch.setattr(launch, "run", run)
    launch.provide_chromium()
    return ran


def test_chromium_is_installed_where_that_can_be_done(
    launch: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = chromium(launch, monkeypatch, {"apt-get"}, user=0, code=0)
    assert ran == ["apt-get update", "apt-get install -y chromium chromium-driver"]
    assert len(capsys.readouterr().err.splitlines()) == 1  # it says so


@pytest.mark.parametrize(("has", "user", "code"), [({"apt-get"}, 1000, 0), (set(), 0, 0), ({"apt-get"}, 0, 100)])
def test_otherwise_a_sentence_says_how_to_get_it(
    launch: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has: set[str],
    user: int,
    code: int,
) -> None:
    ran = chromium(launch, monkeypatch, has, user, code)
    assert bool(ran) == (code != 0)
    assert "STUDIO_CHROMIUM" in capsys.readouterr().err.splitlines()[-1]


def test_a_chromium_that_is_there_is_left_alone(
    launch: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chromium(launch, monkeypatch, {"chromium", "apt-get"}, user=0, code=0) == []
    assert capsys.readouterr().err == ""


def test_ci_runs_the_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert script.read_text().splitlines()[-1] == "exec python3 launch.py test"
    assert os.name == "nt" or os.access(script, os.X_OK)
