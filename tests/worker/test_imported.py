"""Settings of LLaMA-Factory, Axolotl and TRL, imported and trained: the run does what those programs would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from studio.core.configfile import load_config
from studio.core.interchange.programs import take
from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress
from studio.core.schedule import optimizer_steps
from tests.tiny import tiny_rows, write_rows
from tests.worker.conftest import MakeRun

# After what the projects document; {model} and {rows} are put in below.
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "llamafactory": (
        """
model_name_or_path: {model}
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 4
lora_target: q_proj,v_proj
dataset: mine
dataset_dir: {folder}
template: chatml
cutoff_len: 128
output_dir: saves/tiny
logging_steps: 1
save_steps: 100
per_device_train_batch_size: 2
gradient_accumulation_steps: 2
learning_rate: 3.0e-2
num_train_epochs: 2.0
lr_scheduler_type: constant
""",
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    ),
    "axolotl": (
        """
base_model: {model}
adapter: lora
lora_r: 8
lora_alpha: 16
lora_target_linear: true
datasets:
  - path: {rows}
    type: chat_template
val_set_size: 0
sequence_len: 128
micro_batch_size: 4
gradient_accumulation_steps: 1
num_epochs: 1
optimizer: adamw_torch
lr_scheduler: constant
learning_rate: 3e-2
logging_steps: 1
output_dir: ./out
""",
        {"r": 8, "lora_alpha": 16},
    ),
    "trl": (
        """
model_name_or_path: {model}
dataset_name: {rows}
learning_rate: 3.0e-2
num_train_epochs: 1
per_device_train_batch_size: 2
gradient_accumulation_steps: 1
max_length: 128
use_peft: true
lora_r: 4
lora_alpha: 8
lora_target_modules: all-linear
logging_steps: 1
eval_strategy: "no"
output_dir: out
bf16: false
""",
        {"r": 4, "lora_alpha": 8, "lora_dropout": 0.05},
    ),
}


@pytest.mark.parametrize("program", FILES)
def test_an_imported_file_trains_as_it_says(
    program: str,
    make_run: MakeRun,
    in_process: Callable[[JobFolder], int],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    text, wanted = FILES[program]
    rows = write_rows(tmp_path / "mine.jsonl", tiny_rows(24, turns=1))
    file = yaml.safe_load(text.format(model=tiny_model, rows=rows, folder=tmp_path))
    info = {"mine": {"file_name": "mine.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}}}
    taken = take(file, dataset_info=info)
    assert taken.program == program
    data = taken.config.model_dump(mode="json")
    sections = {name: data[name] for name in ("method", "adapter", "training")}
    job = make_run(rows=tiny_rows(24, turns=1), dataset={"validation_split": 0}, **sections)
    assert in_process(job) == 0
    seen = Progress()
    for event in EventTail(job.events).read():
        seen.fold(event)
    config = load_config(job.run_config)
    assert seen.step == optimizer_steps(config, 24)
    losses = [value for _, value in seen.series["loss"]]
    half = len(losses) // 2
    assert sum(losses[half:]) / len(losses[half:]) < sum(losses[:half]) / half
    kept = json.loads((job.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    found = {name: sorted(kept[name]) if isinstance(kept[name], list) else kept[name] for name in wanted}
    assert found == wanted
    assert taken.config.dataset.path == str(rows)
