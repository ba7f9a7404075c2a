"""Merging: a run of the starter; then a random Llama of 3 billion parameters in six shards, against PEFT and copying.

In: a studio's home. Out: seconds and peak memory of our merge, of PEFT's, of a copy that is on the disk when it ends;
and the same at twice the size, where the peak must stay what it was.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from bench.rows import Row
from studio.core.config import ExportConfig, MergeConfig
from studio.core.configfile import load_config
from studio.worker.export.shards import ShardWriter
from studio.workspace.follow import follow_export, wait_until_ended
from studio.workspace.home import bundled
from studio.workspace.supervisor import Supervisor

_HIDDEN, _MIDDLE, _LAYERS, _TOKENS, _HEADS, _KV = 3072, 8192, 28, 32000, 24, 8
_LINEAR = {
    "self_attn.q_proj": (_HIDDEN, _HIDDEN),
    "self_attn.k_proj": (_KV * 128, _HIDDEN),
    "self_attn.v_proj": (_KV * 128, _HIDDEN),
    "self_attn.o_proj": (_HIDDEN, _HIDDEN),
    "mlp.gate_proj": (_MIDDLE, _HIDDEN),
    "mlp.up_proj": (_MIDDLE, _HIDDEN),
    "mlp.down_proj": (_HIDDEN, _MIDDLE),
}
_ROOM = 40e9


def measure(home: Path) -> list[Row]:
    rows = _measure_run(home)
    free = shutil.disk_usage(home).free
    if free < _ROOM:
        print(f"  skipped the large models: {free / 1e9:.0f} GB free, {_ROOM / 1e9:.0f} needed", file=sys.stderr)
        return rows
    for layers, title, with_peft in ((_LAYERS, "6 GB", True), (2 * _LAYERS, "12 GB", False)):
        folder = home / "large"
        base, adapter = make_base(folder / "base", layers), make_adapter(folder / "adapter", layers)
        rows += _measure_merge(base, adapter, folder, title, with_peft)
        shutil.rmtree(folder)
    return rows


def _measure_run(home: Path) -> list[Row]:
    supervisor = Supervisor()
    preset = bundled("presets") / "quickstart.yaml"
    shorten = ["training.max_steps=1", "dataset.validation_split=0", "dataset.max_samples=16"]
    run_id = supervisor.submit(load_config(preset, shorten))
    run = wait_until_ended(supervisor, run_id)
    assert run.output is not None, run.state.cause
    rows = []
    for format in ("merged", "gguf"):
        job = supervisor.export(ExportConfig(run=run_id, format=format, out=str(home / format)))
        job = follow_export(supervisor, job, lambda text: None)
        parity = job.result["parity"]
        rows += [
            Row(f"export {format} of the starter", float(job.result["seconds"]), "s"),
            Row(
                f"export {format}: greatest difference of logits",
                parity["max_logit_diff"],
                "",
                note=str(parity["same"]),
            ),
        ]
    supervisor.close()
    return rows


def _measure_merge(base: Path, adapter: Path, folder: Path, title: str, with_peft: bool) -> list[Row]:
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    copied = _copy(base, folder / "copy")
    supervisor = Supervisor()
    config = MergeConfig(
        base=str(base), adapters=[str(adapter)], out=str(folder / "ours"), shard_size=1.1, parity=False
    )
    job = follow_export(supervisor, supervisor.merge(config), lambda text: None)
    supervisor.close()
    assert job.state.status == "finished", job.state.cause
    ours, peak = float(job.result["seconds"]), float(job.result["peak_rss"])
    rows = [
        Row(f"copying {title} of shards, to the disk", copied, "s", note=f"{size / copied / 1e6:.0f} MB/s"),
        Row(f"merging {title}: ours", ours, "s", "copying", ours / copied),
        Row(f"merging {title}: ours, peak memory of its process", peak / 1e6, "MB"),
    ]
    shutil.rmtree(folder / "ours")
    if with_peft:
        seconds, most = _by_peft(base, adapter, folder / "theirs")
        rows.append(Row(f"merging {title}: PEFT in bfloat16", seconds, "s", "copying", seconds / copied))
        rows.append(Row(f"merging {title}: PEFT, peak memory", most / 1e6, "MB"))
        shutil.rmtree(folder / "theirs")
    return rows


def _copy(base: Path, target: Path) -> float:
    target.mkdir()
    began = time.monotonic()
    for path in base.glob("*.safetensors"):
        shutil.copyfile(path, target / path.name)
        handle = os.open(target / path.name, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    seconds = time.monotonic() - began
    shutil.rmtree(target)
    return seconds


def _by_peft(base: Path, adapter: Path, out: Path) -> tuple[float, float]:
    """Seconds without the imports, and the peak of the process."""
    command = [sys.executable, "-m", "bench.export", str(base), str(adapter), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["seconds"], answer["peak"]


def make_base(folder: Path, layers: int) -> Path:
    """A random Llama in bfloat16, six shards (or twelve), written without ever being held."""
    folder.mkdir(parents=True)
    plan: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "model.embed_tokens.weight": (torch.bfloat16, (_TOKENS, _HIDDEN))
    }
    for layer in range(layers):
        for name, matrix in _LINEAR.items():
            plan[f"model.layers.{layer}.{name}.weight"] = (torch.bfloat16, matrix)
        for name in ("input_layernorm", "post_attention_layernorm"):
            plan[f"model.layers.{layer}.{name}.weight"] = (torch.bfloat16, (_HIDDEN,))
    plan |= {
        "model.norm.weight": (torch.bfloat16, (_HIDDEN,)),
        "lm_head.weight": (torch.bfloat16, (_TOKENS, _HIDDEN)),
    }
    noise = 0.02 * torch.randn(2**22, generator=torch.Generator().manual_seed(0))
    writer = ShardWriter(folder, plan, 1_050_000_000, lambda done, total: None)
    for name, (_, shape) in plan.items():
        numbers = torch.Size(shape).numel()
        rows = (noise[: min(len(noise), numbers - first)] for first in range(0, numbers, len(noise)))
        writer.write(name, rows)
    writer.finish()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": _HIDDEN,
        "intermediate_size": _MIDDLE,
        "num_hidden_layers": layers,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KV,
        "head_dim": 128,
        "vocab_size": _TOKENS,
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def make_adapter(folder: Path, layers: int, rank: int = 16) -> Path:
    """A random LoRA on every linear layer."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    tensors = {}
    for layer in range(layers):
        for name, (rows, columns) in _LINEAR.items():
            place = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{place}.lora_A.weight"] = 0.02 * torch.randn(rank, columns)
            tensors[f"{place}.lora_B.weight"] = 0.02 * torch.randn(rows, rank)
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = [name.rpartition(".")[2] for name in _LINEAR]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 32, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _merge_by_peft(base: str, adapter: str, out: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    began = time.monotonic()
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), adapter)
    model.merge_and_unload().save_pretrained(out, max_shard_size="1100MB")
    for path in Path(out).glob("*.safetensors"):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": time.monotonic() - began, "peak": peak}))


if __name__ == "__main__":
    _merge_by_peft(*sys.argv[1:])
