"""`python -m bench.bare RUN_FOLDER compact|full STEPS`: a run's arithmetic in plain PyTorch and PEFT.

Prints the tokens a second of each step but the first as JSON. Batches, learning rate, clipping and optimizer are the
run's; `compact` puts only positions that carry loss through the head, as the worker does on a processor, `full` all
of them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.core.config import LoraAdapter
from studio.core.configfile import parse_config, read_yaml
from studio.core.inputs import Inputs
from studio.worker.data.prepare import prepare
from studio.worker.device import resolve
from studio.worker.encode import Encoder
from studio.worker.trainers.build import build_trainer


def batches(run: Path, steps: int) -> list[dict[str, torch.Tensor]]:
    """The first batches that a run's trainer makes."""
    config, inputs = parse_config(read_yaml(run / "run.yaml")), Inputs.read(run / "inputs.json")
    setup, folder = resolve(config), str(inputs.model.path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    data = prepare(
        config.dataset,
        inputs.dataset,
        Encoder(tokenizer),
        max_length=config.training.max_length,
        seed=config.training.seed,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loader = build_trainer(config, setup, model, tokenizer, data, run / "unused").get_train_dataloader()
    found = []
    for batch in loader:
        found.append(dict(batch))
        if len(found) == steps:
            break
    return found


def main(run: Path, variant: str, steps: int) -> None:
    data = batches(run, steps)
    config, inputs = parse_config(read_yaml(run / "run.yaml")), Inputs.read(run / "inputs.json")
    assert isinstance(config.adapter, LoraAdapter), "the quickstart trains a LoRA"
    base = AutoModelForCausalLM.from_pretrained(str(inputs.model.path), dtype=torch.float32)
    lora = LoraConfig(task_type="CAUSAL_LM", r=config.adapter.r, lora_alpha=config.adapter.lora_alpha)
    lora.target_modules = config.adapter.target_modules
    model = get_peft_model(base, lora).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.training.learning_rate, weight_decay=0.0)
    speeds = []
    for batch in data:
        began = time.perf_counter()
        labels = batch["labels"][:, 1:]
        hidden = base.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        states = hidden.last_hidden_state[:, :-1]
        if variant == "compact":
            learnt = labels != -100
            states, labels = states[learnt], labels[learnt]
        logits = base.lm_head(states).float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        speeds.append(int(batch["attention_mask"].sum()) / (time.perf_counter() - began))
    print(json.dumps(speeds[1:]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
