"""What a step really holds on a processor, beside the estimate: `python -m bench live_memory [NAME ...]`.

In: nothing; each case trains a small but wide model for two steps in this process, by the worker's own code, under
torch's profiler, which sees every allocation of torch's. Out: a line for each method and adapter with the most bytes
that were live at once, the estimate's `allocated`, and the error. Knows no heap: that is `bench cpu_memory`'s.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.core.config import RunConfig

WIDE: dict[str, Any] = {"vocab_size": 32000, "hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 2}  # fmt: skip
# Where adapters are compared the layers must take the most, not the logits.
DEEP: dict[str, Any] = {**WIDE, "vocab_size": 512, "num_hidden_layers": 6}
ROWS, LENGTH = 4, 96
_WORDS = "the light of early morning comes over the water and seven small boats cross it while a quick fox looks on "


@dataclass(frozen=True)
class Case:
    """A run by its sections; `kind` of rows: said, pairs, scored, labelled or asked."""

    name: str
    kind: str = "said"
    method: dict[str, Any] = field(default_factory=lambda: {"name": "sft"})
    adapter: dict[str, Any] | None = field(default_factory=lambda: {"type": "lora"})
    training: dict[str, Any] = field(default_factory=dict)


_ASKED = {"max_completion_length": 32, "rewards": ["length:20"]}
METHODS: tuple[Case, ...] = (
    Case("sft"),
    Case("sft full", adapter=None),
    Case("dpo", "pairs", {"name": "dpo", "precompute_ref_log_probs": False}),
    Case("dpo full", "pairs", {"name": "dpo", "precompute_ref_log_probs": False}, None),
    Case("dpo precomputed", "pairs", {"name": "dpo", "precompute_ref_log_probs": True}),
    Case("kto", "labelled", {"name": "kto", "precompute_ref_log_probs": False}),
    Case("orpo", "pairs", {"name": "orpo"}),
    Case("orpo full", "pairs", {"name": "orpo"}, None),
    Case("cpo", "pairs", {"name": "cpo"}),
    Case("reward", "scored", {"name": "reward"}),
    Case("grpo", "asked", {"name": "grpo", "num_generations": 2, **_ASKED}),
    Case("grpo beta", "asked", {"name": "grpo", "beta": 0.04, "num_generations": 2, **_ASKED}),
    Case("rloo", "asked", {"name": "rloo", "num_generations": 2, **_ASKED}),
    Case("ppo", "asked", {"name": "ppo", **_ASKED}),
    Case("online_dpo", "asked", {"name": "online_dpo", **_ASKED}),
)
_KINDS = ("adalora", "ia3", "vera", "loha", "lokr", "oft", "boft")
ADAPTERS: tuple[Case, ...] = (
    Case("lora", adapter={"type": "lora"}),
    Case("lora dropout", adapter={"type": "lora", "lora_dropout": 0.1}),
    Case("dora", adapter={"type": "lora", "use_dora": True}),
    *(Case(kind, adapter={"type": kind}) for kind in _KINDS),
)


def config_of(case: Case, model: Path, rows: Path) -> RunConfig:
    """Two steps of full rows."""
    return RunConfig.model_validate(
        {
            "method": case.method,
            "model": {"name_or_path": str(model), "dtype": "float32"},
            "dataset": {"path": str(rows), "validation_split": 0.0,
                        "train_on": "all" if case.kind == "said" else "assistant"},
            "adapter": case.adapter,
            "training": {
                "max_steps": 2, "per_device_train_batch_size": ROWS, "gradient_accumulation_steps": 1,
                "max_length": LENGTH, "save_steps": 1000, "gradient_checkpointing": False, **case.training,
            },
            "hardware": {"device": "cpu"},
        }
    )  # fmt: skip


def write_rows(folder: Path, kind: str) -> Path:
    """Rows that are all cut at LENGTH; questions that are nearly so long."""
    lines, said = [], _WORDS * (LENGTH // 10)
    for number in range(16):
        asked: Any = {"role": "user", "content": f"say {number}"}
        first, second = ({"role": "assistant", "content": start + said} for start in ("", "never "))
        lines.append(
            {
                "said": {"messages": [asked, first]},
                "pairs": {"prompt": [asked], "chosen": [first], "rejected": [second]},
                "scored": {"prompt": [asked], "chosen": [_cut(asked, first)], "rejected": [_cut(asked, second)]},
                "labelled": {"prompt": [asked], "completion": [first], "label": bool(number % 2)},
                "asked": {"prompt": [_cut({"role": "user", "content": f"say {number} {said}"})]},
            }[kind]
        )
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def _cut(*turns: dict[str, str]) -> dict[str, str]:
    """The last turn as long as it may be, where a row that is too long would be left out."""
    from tests.tiny import tiny_tokenizer

    tokenizer, *before = tiny_tokenizer(), *turns[:-1]
    last = dict(turns[-1])
    while True:
        ids = tokenizer.apply_chat_template([*before, last], add_generation_prompt=not before, return_dict=False)
        if len(ids) <= LENGTH:
            return last
        last["content"] = last["content"][:-1]


def live(config: RunConfig, folder: Path) -> int:
    """The most bytes of tensors, weights and all, that were live at once while the run trained."""
    from studio.core.configfile import config_to_yaml
    from studio.core.job import JobFolder
    from studio.worker import train
    from studio.worker.job import run_job
    from studio.workspace.submission import resolve_inputs

    job = JobFolder(folder)
    found: list[int] = []
    folder.mkdir(parents=True)
    job.run_config.write_text(config_to_yaml(config), encoding="utf-8")
    job.inputs.write_text(resolve_inputs(config, "a run")[1].to_json(), encoding="utf-8")
    worker: Any = train
    build = worker.build_trainer

    def watched(*parts: Any, **more: Any) -> Any:
        trainer = build(*parts, **more)
        plain = trainer.train
        trainer.train = lambda *args, **kwargs: _watch(trainer, found, lambda: plain(*args, **kwargs))
        return trainer

    worker.build_trainer = watched
    try:
        code = run_job(folder)
    finally:
        worker.build_trainer = build
    if code or not found:
        raise RuntimeError(job.log.read_text() if job.log.is_file() else "the run failed")
    return found[0]


def _watch(trainer: Any, found: list[int], run: Any) -> Any:
    import torch

    gc.collect()
    models = [m for m in (trainer.model, getattr(trainer, "ref_model", None)) if m is not None]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                for m in models for t in (*m.parameters(), *m.buffers())}  # fmt: skip
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        outcome = run()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = high = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        high = max(high, now)
    found.append(sum(storages.values()) + high)
    return outcome


def estimated(config: RunConfig, folder: Path) -> int:
    """The estimate's word for it."""
    from studio.core.estimate import Device, estimate
    from studio.core.shapes import from_folder

    return estimate(config, from_folder(folder), lengths=[LENGTH] * 16, device=Device("cpu")).allocated


def main(names: list[str]) -> int:
    """Print a line a case. Exit code 1 where one is more than 15 % off."""
    warnings.simplefilter("ignore")
    from tests.tiny import make_tiny_model

    worst = 0.0
    print(f"{'case':<20}{'live':>10}{'estimate':>10}{'error':>9}")
    with tempfile.TemporaryDirectory(prefix="studio-live-") as place:
        wide, deep = (
            make_tiny_model(Path(place) / f"model-{size['vocab_size']}", "llama", **size) for size in (WIDE, DEEP)
        )
        for number, case in enumerate((*METHODS, *ADAPTERS)):
            if names and case.name not in names:
                continue
            model = wide if case in METHODS else deep
            config = config_of(case, model, write_rows(Path(place), case.kind))
            try:
                took = live(config, Path(place) / f"run-{number}")
            except RuntimeError as error:
                print(f"{case.name:<20} failed: {str(error).strip().splitlines()[-1][:200]}", flush=True)
                worst = 1.0
                continue
            told = estimated(config, model)
            worst = max(worst, abs(told / took - 1))
            print(
                f"{case.name:<20}{took / 1e6:>8.1f}MB{told / 1e6:>8.1f}MB{100 * (told / took - 1):>+8.1f}%", flush=True
            )
    return 0 if worst <= 0.15 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
