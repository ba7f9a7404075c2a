"""Every method's losses, step by step, as a plain TRL script has them on the raw rows: nothing is added, nothing lost.

The other side is written with transformers, PEFT and TRL alone: its own model, its own tokenizing, its own arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed

from tests.tiny import CHATML, make_tiny_llama, tiny_tokenizer
from tests.worker.trainers.building import SEED, STEPS, Recorder, build, config, labelled_rows, pair_rows, text_rows

# Ends with the end token and not with a line break, so that TRL's answers end where ours do.
CLOSED = CHATML.replace("'<|im_end|>' + '\n' }}{% endfor %}", "'<|im_end|>' }}{% endfor %}")


def plain(kind: str, folder: Path, rows: list[dict[str, Any]], lora: bool, output: Path, **options: Any) -> Recorder:
    """A script as TRL's documentation has it."""
    import trl.experimental.cpo
    import trl.experimental.orpo

    where: Any = {"ORPO": trl.experimental.orpo, "CPO": trl.experimental.cpo}.get(kind, trl)
    arguments = getattr(where, f"{kind}Config")(
        output_dir=str(output),
        max_steps=STEPS,
        learning_rate=0.1,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        optim="sgd",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_length=256,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=SEED,
        **options,
    )
    scores = kind == "Reward"
    set_seed(SEED)
    if scores:
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, num_labels=1)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    set_seed(SEED)
    task = "SEQ_CLS" if scores else "CAUSAL_LM"
    trainer = getattr(where, f"{kind}Trainer")(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(task_type=task, r=4, lora_alpha=8, target_modules="all-linear") if lora else None,
    )
    recorder = Recorder()
    trainer.add_callback(recorder)
    trainer.train()
    return recorder


PAIRS, LABELLED, TEXTS = pair_rows(16), labelled_rows(16), text_rows(16)
CHAT = [
    {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        **{name: [{"role": "assistant", "content": row[name].strip()}] for name in ("chosen", "rejected")},
    }
    for row in PAIRS
]
CASES: dict[str, tuple[str, str, list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    # the method, TRL's name of it, the rows, what the config says of it, what TRL is told
    "sft": ("sft", "SFT", TEXTS, {}, {}),
    "sft dft": ("sft", "SFT", TEXTS, {"loss_type": "dft"}, {"loss_type": "dft"}),
    "dpo": ("dpo", "DPO", PAIRS, {"precompute_ref_log_probs": False}, {}),
    "dpo precomputed": ("dpo", "DPO", PAIRS, {"precompute_ref_log_probs": True}, {}),
    "dpo chat": ("dpo", "DPO", CHAT, {"beta": 0.3}, {"beta": 0.3}),
    "dpo two losses": (
        "dpo",
        "DPO",
        PAIRS,
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    ),
    "kto": ("kto", "KTO", LABELLED, {"undesirable_weight": 1.3}, {"undesirable_weight": 1.3}),
    "orpo": ("orpo", "ORPO", PAIRS, {"beta": 0.2}, {"beta": 0.2}),
    "cpo": ("cpo", "CPO", PAIRS, {"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    "simpo": ("cpo", "CPO", PAIRS, {"loss_type": "simpo", "cpo_alpha": 0}, {"loss_type": "simpo", "cpo_alpha": 0.0}),
    "reward chat": (
        "reward",
        "Reward",
        CHAT,
        {"center_rewards_coefficient": 0.01},
        {"center_rewards_coefficient": 0.01},
    ),
}
WHOLE_MODEL = ("sft dft", "dpo", "dpo precomputed", "kto", "orpo", "reward chat")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "closed", tokenizer=tiny_tokenizer(CLOSED))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("case", "lora"),
    [
        *((case, True) for case in CASES),
        *(pytest.param(case, False, marks=pytest.mark.nightly) for case in WHOLE_MODEL),
    ],
)
def test_a_run_takes_the_steps_that_a_plain_script_takes(model: Path, tmp_path: Path, case: str, lora: bool) -> None:
    method, kind, rows, said, told = CASES[case]
    expected = plain(kind, model, rows, lora, tmp_path / "plain", **told)
    trainer, found = build(model, rows, config(method, lora, method=said), tmp_path)
    trainer.train()
    assert len(found.losses) == len(expected.losses) == STEPS
    assert len(set(expected.losses)) >= STEPS - 1, "nothing was learnt"  # the first step, warming up, has no rate
    assert found.losses == pytest.approx(expected.losses, rel=1e-6, abs=1e-6)
    for ours, theirs in zip(found.logs, expected.logs, strict=True):
        for name in ("grad_norm", "rewards/margins", "rewards/accuracies", "margin", "accuracy", "kl", "nll_loss"):
            assert (name in ours) == (name in theirs)
            assert ours.get(name, 0) == pytest.approx(theirs.get(name, 0), rel=1e-4, abs=1e-5), name
