"""Chat against plain `generate`: time to the first token, tokens a second."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.rows import Row
from studio.workspace.chat import Chat
from studio.workspace.launcher import Launcher, worker_env
from studio.workspace.runs import Runs

_ROUNDS = 3
_TOKENS = 64
_PROMPT = "Write a story about a lighthouse keeper and a storm."


def measure(home: Path) -> list[Row]:
    chat = Chat(Launcher(standby=False), Runs())
    chat.open("starter")
    first, speed, plain_first, plain_speed = [], [], [], []
    for _ in range(_ROUNDS):
        began = time.monotonic()
        pieces = chat.stream({"base": [{"role": "user", "content": _PROMPT}]}, temperature=0, max_new_tokens=_TOKENS)
        next(pieces)
        first.append(time.monotonic() - began)
        last = list(pieces)[-1]
        speed.append(last.tokens / last.seconds)
        seconds, rate = _plain(home / "models" / "starter")
        plain_first.append(seconds)
        plain_speed.append(rate)
    chat.unload()
    ours, plain = statistics.median(speed), statistics.median(plain_speed)
    wait, plain_wait = statistics.median(first), statistics.median(plain_first)
    return [
        Row("chat, time to the first word", wait, "s", "plain generate", wait / plain_wait, "through the pipe"),
        Row("chat, generating", ours, "tokens/s", "plain generate", ours / plain),
        Row("plain generate, time to the first token", plain_wait, "s"),
        Row("plain generate", plain, "tokens/s"),
    ]


_SCRIPT = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
batch = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True,
                                      return_tensors="pt", return_dict=True)
with torch.inference_mode():
    model.generate(**batch, max_new_tokens=2, do_sample=False)
    began = time.monotonic(); model.generate(**batch, max_new_tokens=1, do_sample=False)
    first = time.monotonic() - began
    began = time.monotonic(); out = model.generate(**batch, max_new_tokens=count, do_sample=False)
    rate = (out.shape[1] - batch["input_ids"].shape[1]) / (time.monotonic() - began)
print(json.dumps([first, rate]))
"""


def _plain(folder: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", _SCRIPT, str(folder), _PROMPT, str(_TOKENS)]
    done = subprocess.run(command, env=worker_env(), capture_output=True, text=True, check=True)
    first, rate = json.loads(done.stdout.splitlines()[-1])
    return float(first), float(rate)
