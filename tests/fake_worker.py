"""A stand-in for `python -m studio.worker`: does what a script says, in milliseconds, without torch.

In: a job folder, `--standby`, `--serve` or `--data`, as the real one; the script in FAKE_WORKER. Out: a worker's files,
answers on the pipe. `FakeWorkers` puts it in the real one's place, below the launcher, so that everything above it
is the studio's own. A script is words, done from left to right:

    sign  start[:FROM]  step:N  judge:N  save:N  adapter  note:TEXT  tear                what a worker writes
    say:TEXT  result:NAME=JSON  end:STATUS
    wait:FILE  obey (waits for a stop)  work (steps until a stop)                        how long it takes
    deaf (ignores SIGTERM)  child (starts one)  kill:SIGNAL  exit:CODE                   how it misbehaves
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import yaml

from studio.core.events import CheckpointSaved, Ended, Metrics, Note, Stage
from studio.core.job import EventLog, JobFolder, create_text

GOOD = "sign start step:1 step:2 adapter end:finished"
STEPS = 10
_LONGEST = 60.0  # seconds: no fake outlives a test that lost it


def until(true: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until `true()` is, and give what it gave; an AssertionError if it never was."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


class FakeWorkers:
    """Starts fakes wherever the studio means to start workers.

    `scripts` maps a job's label to its script, `script` is for all others; both are read when a worker is started (a
    standby's, when it is made). `commands` are the arguments that real workers would have got, `processes` the fakes.
    `readers` are those for questions about datasets, which are answered with "done", whatever they are; with
    `real_data`, by the real worker.
    """

    def __init__(self) -> None:
        self.script = GOOD
        self.scripts: dict[str, str] = {}
        self.real_data = False
        self.commands: list[list[str]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.readers: list[subprocess.Popen[bytes]] = []

    def install(self) -> None:
        """Take the place of `subprocess` in the launcher's module, for good: in a process made for it."""
        from studio.workspace import launcher

        launcher.subprocess = self.as_subprocess()  # type: ignore[assignment]

    def as_subprocess(self) -> Any:
        return SimpleNamespace(**{**vars(subprocess), "Popen": self._start})

    def _start(self, command: list[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
        arguments = command[command.index("studio.worker") + 1 :]
        kept = self.readers if arguments == ["--data"] else self.processes
        if arguments == ["--data"] and self.real_data:
            kept.append(subprocess.Popen(command, env=env, **options))
            return kept[-1]
        if kept is self.processes:
            self.commands.append(command)
        env = {**env, "FAKE_WORKER": self._script(arguments[0]), "PYTHONPATH": str(Path(__file__).parents[1])}
        process = subprocess.Popen([sys.executable, __file__, *arguments], env=env, **options)
        kept.append(process)
        return process

    def _script(self, argument: str) -> str:
        try:
            label = json.loads((Path(argument) / "inputs.json").read_text(encoding="utf-8"))["label"]
        except OSError:
            return self.script
        return self.scripts.get(label, self.script)

    def end(self) -> None:
        """End every fake that is left."""
        for process in self.processes + self.readers:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None and not pipe.closed:
                    pipe.close()


class _Job:
    def __init__(self, path: Path) -> None:
        self.folder = JobFolder(path)
        self.attempt = 1 + len(list(path.glob("process-*.json")))
        self.step_now = 0
        self.found: dict[str, Any] = {}

    def do(self, script: str) -> int:
        for word in script.split():
            name, _, argument = word.partition(":")
            getattr(self, name)(*([argument] if argument else []))
        return 0

    def sign(self) -> None:
        me = psutil.Process()
        record = {"pid": me.pid, "create_time": me.create_time(), "attempt": self.attempt}
        # Every worker that came to this job leaves its name, whether it got the job or not.
        with (self.folder.path / "came").open("a", encoding="utf-8") as file:
            file.write(f"{me.pid}\n")
        if not create_text(self.folder.process, json.dumps(record)):
            sys.exit(0)
        self.log = EventLog(self.folder.events)

    def start(self, step: str = "0") -> None:
        self.log.append(Stage("starting", "Starting", attempt=self.attempt, from_step=int(step)))

    def step(self, number: str) -> None:
        self.step_now = int(number)
        values = {"loss": 3.0 - self.step_now / 10}
        self.log.append(Metrics(self.step_now, STEPS, self.step_now / STEPS, float(self.step_now), values))

    def judge(self, number: str) -> None:
        """A validation whose loss falls with the steps and is lowest at a learning rate of 1e-3."""
        self.step_now = int(number)
        rate = float(yaml.safe_load(self.folder.run_config.read_text(encoding="utf-8"))["training"]["learning_rate"])
        values = {"eval_loss": (math.log10(rate) + 3) ** 2 + 1 / self.step_now}
        self.log.append(Metrics(self.step_now, STEPS, self.step_now / STEPS, float(self.step_now), values))

    def save(self, number: str) -> None:
        name = f"checkpoints/checkpoint-{number}"
        (self.folder.path / name).mkdir(parents=True)
        self.log.append(CheckpointSaved(int(number), name))

    def adapter(self) -> None:
        self.folder.adapter.mkdir()
        (self.folder.adapter / "adapter_config.json").write_text("{}", encoding="utf-8")

    def note(self, text: str) -> None:
        self.log.append(Note("warning", text))

    def tear(self) -> None:
        with self.folder.events.open("ab") as file:
            file.write(b'{"event": "metrics", "step":')

    def say(self, text: str) -> None:
        sys.stderr.write(text + "\n")

    def end(self, status: str) -> None:
        cause = "The cause that the worker gave." if status == "failed" else ""
        self.log.append(Ended(status, cause, "And the hint." if cause else "", self.found))  # type: ignore[arg-type]

    def result(self, told: str) -> None:
        name, _, value = told.partition("=")
        self.found[name] = json.loads(value)

    def wait(self, name: str) -> None:
        until(lambda: (self.folder.path / name).exists(), _LONGEST)

    def obey(self) -> None:
        self.wait(self.folder.stop.name)

    def work(self) -> None:
        while not self.folder.stop.exists():
            self.step(str(self.step_now + 1))
            time.sleep(0.02)
        self.save(str(self.step_now))

    def deaf(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def child(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({_LONGEST})"])
        (self.folder.path / "child").write_text(str(child.pid), encoding="utf-8")

    def kill(self, number: str) -> None:
        os.kill(os.getpid(), int(number))
        time.sleep(_LONGEST)

    def exit(self, code: str) -> None:
        os._exit(int(code))


class _Pipe:
    """Answers as the request itself asks: its `parts`, then it may `die`, `babble` until a stop, or `fail`."""

    def __init__(self) -> None:
        self.requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self.stopped = threading.Event()

    def run(self) -> int:
        threading.Thread(target=self._answer_all, daemon=True).start()
        for line in sys.stdin:
            request = json.loads(line)
            if request["op"] == "stop":
                self.stopped.set()
            else:
                self.requests.put(request)
        return 0

    def _answer_all(self) -> None:
        print("a library's greeting, which is no JSON", flush=True)
        while True:
            request = self.requests.get()
            self._answer(request, request.get("parts") or _PARTS.get(request["op"], lambda _: [])(request))

    def _answer(self, request: dict[str, Any], parts: list[dict[str, Any]]) -> None:
        for part in parts:
            self._send(request, "part", **part)
        if request.get("die"):
            os._exit(1)
        while request.get("babble") and not self.stopped.wait(0.01):
            self._send(request, "part", text="bla ")
        if request.get("fail"):
            self._send(request, "error", message=request["fail"], hint="A hint.")
        else:
            self._send(request, "done", asked=request, pid=os.getpid())

    @staticmethod
    def _send(request: dict[str, Any], event: str, **fields: Any) -> None:
        print(json.dumps({"id": request["id"], "event": event, **fields}), flush=True)


_PARTS: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "load": lambda request: [{"text": "Loading"}],
    "generate": lambda request: [
        {"column": column, "text": f"{column} heard {said[-1]['content']}", "done": True, "tokens": 3, "seconds": 0.5}
        for column, said in request["conversations"].items()
    ],
}


def _stand_by(script: str) -> int:
    line = sys.stdin.readline()
    if not line.strip():
        return 0
    task = json.loads(line)
    return _Pipe().run() if task.get("serve") else _Job(Path(task["job"])).do(script)


def _run(argument: str) -> int:
    timer = threading.Timer(_LONGEST, os._exit, (98,))
    timer.daemon = True
    timer.start()
    script = os.environ["FAKE_WORKER"]
    if argument == "--standby":
        return _stand_by(script)
    return _Pipe().run() if argument in ("--serve", "--data") else _Job(Path(argument)).do(script)


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1]))
