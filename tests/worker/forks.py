"""Fresh processes without the wait: one that has imported the training stack forks itself for each.

In: the name of a function here or elsewhere, plain arguments. Out: a `Fork`: a process of its own session that can be
killed and waited for. Nothing that a test did before is in it. Importing torch, transformers, peft and trl anew takes
seven seconds a process; `test_job` and `test_chat` also start real workers.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0  # seconds that no process here should need


class Zygote:
    """The process that forks. It runs nothing but imports itself, so that its children start clean."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, call: str, *arguments: Any, log: Path) -> Fork:
        """Call `module:function` in a new process; its output goes to `log`, its environment is this one's."""
        words = [str(a) if isinstance(a, Path) else a for a in arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return Fork(self, self.ask(call=call, arguments=words, log=str(log), environment=environment))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=PATIENCE)
        self._process.stdout.close()


@dataclass
class Fork:
    """A started process."""

    zygote: Zygote
    pid: int

    def poll(self) -> int | None:
        """Its exit code (negative: the signal that ended it), None while it runs."""
        code: int | None = self.zygote.ask(poll=self.pid)
        return code

    def wait(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, "the process doesn't end"
            time.sleep(0.02)
        return code

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _serve() -> None:
    import peft  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401
    from trl import SFTTrainer  # noqa: F401

    from studio.worker import train  # noqa: F401
    from studio.worker.export import run  # noqa: F401

    ended: dict[int, int] = {}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if "call" in request:
            answer: int | None = os.fork()
            if answer == 0:
                _become(request)
        else:
            pid = request["poll"]
            if pid not in ended:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended.get(pid)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _become(request: dict[str, Any]) -> None:
    """In the child: never returns."""
    code = 1
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(request["environment"])
        with open(request["log"], "ab") as log, open(os.devnull, "rb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        module, _, name = request["call"].partition(":")
        code = getattr(importlib.import_module(module), name)(*request["arguments"]) or 0
    except BaseException:  # noqa: BLE001 - the child's edge
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# -- what to call -----------------------------------------------------------------------------------------------------


def run_job(folder: str) -> int:
    from studio.worker import job

    return job.run_job(Path(folder))


def run_job_until(folder: str, step: int) -> int:
    """A job that is asked to stop while it does this step."""
    from studio.worker import job

    said = job.Job.metrics

    def metrics(self: Any, event: Any) -> None:
        said(self, event)
        if event.step == step:
            self.folder.stop.touch()

    job.Job.metrics = metrics  # type: ignore[method-assign]
    return job.run_job(Path(folder))


def export_and_hang(folder: str, tensors: int, mark: str) -> int:
    """An export that hangs after so many tensors; `mark` appears when it does."""
    from studio.worker import job
    from studio.worker.export.shards import ShardWriter

    write, written = ShardWriter.write, 0

    def hang(self: Any, *words: Any) -> None:
        nonlocal written
        write(self, *words)
        written += 1
        if written == tensors:
            Path(mark).touch()
            time.sleep(PATIENCE)

    ShardWriter.write = hang  # type: ignore[method-assign]
    return job.run_job(Path(folder))


def logits(model: str, adapter: str, ids: list[int], out: str) -> None:
    """A model's logits for some tokens, with an adapter laid over it ("" for none), as anybody would load it."""
    import torch
    from peft import PeftModel
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        loaded = PeftModel.from_pretrained(loaded, adapter)
    with torch.no_grad():
        found = loaded.eval()(input_ids=torch.tensor([ids])).logits[0]
    save_file({"logits": found.contiguous()}, out)


if __name__ == "__main__":
    _serve()
