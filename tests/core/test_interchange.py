"""Other programs' settings as run.yaml and back: the files are written here after those projects' documented keys."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.configfile import parse_config, parse_yaml
from studio.core.errors import ConfigError
from studio.core.interchange import trl
from studio.core.interchange.axolotl import names as axolotl_names
from studio.core.interchange.llamafactory import names as llamafactory_names
from studio.core.interchange.programs import PROGRAMS, give, recognise, take
from studio.core.interchange.trl import names as trl_names

LLAMAFACTORY = """
model_name_or_path: some/model-8b
trust_remote_code: true
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: q_proj,v_proj
pref_beta: 0.2
pref_loss: sigmoid
pref_ftx: 0.5
dataset: pairs_en,other
template: llama3
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16
output_dir: saves/model-8b/lora/dpo
logging_steps: 10
save_steps: 500
plot_loss: true
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
quantization_bit: 4
flash_attn: fa2
val_size: 0.1
use_badam: true
"""
AXOLOTL = """
base_model: some/model-1b
load_in_4bit: true
adapter: qlora
datasets:
  - path: some/alpaca
    type: alpaca
val_set_size: 0.05
output_dir: ./outputs
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 1e-4
bf16: auto
tf32: false
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: true
flash_attention: true
warmup_steps: 10
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.01
special_tokens:
  pad_token: <pad>
"""
TRL = """
model_name_or_path: some/model-0.5b
dataset_name: some/conversations
learning_rate: 2.0e-4
num_train_epochs: 1
packing: true
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
eval_strategy: steps
eval_steps: 100
use_peft: true
lora_r: 32
lora_alpha: 16
lora_target_modules: all-linear
load_in_4bit: true
dtype: bfloat16
output_dir: out
push_to_hub: true
some_new_option: 7
"""


NAMES = {"llamafactory": llamafactory_names, "axolotl": axolotl_names, "trl": trl_names}
# Keys that say once more what another one says.
IMPLIED = ("do_train", "load_in_4bit", "finetuning_type", "lora_target_linear")


def leaf(config: RunConfig, path: str) -> Any:
    found: Any = config
    for name in path.split("."):
        found = getattr(found, name)
    return found


def read(text: str, **options: Any) -> Any:
    return take(parse_yaml(text, "theirs.yaml"), **options)


def test_a_llamafactory_file_means_the_same_here() -> None:
    pairs = {"ranking": True, "columns": {"prompt": "question", "chosen": "good", "rejected": "bad"}}
    info = {"pairs_en": {"file_name": "pairs.json", **pairs}, "other": {"hf_hub_url": "some/other", **pairs}}
    taken = read(LLAMAFACTORY, dataset_info=info)
    assert taken.program == "llamafactory"
    wanted = {
        "method.name": "dpo",
        "method.beta": 0.2,
        "method.loss_type": ["sigmoid", "sft"],
        "method.loss_weights": [1.0, 0.5],
        "model.name_or_path": "some/model-8b",
        "model.quantization": "nf4",
        "model.dtype": "bfloat16",
        "model.attn_implementation": "flash_attention_2",
        "adapter.r": 8,
        "adapter.lora_alpha": 16.0,  # twice the rank, where it isn't said
        "adapter.target_modules": ["q_proj", "v_proj"],
        "dataset.path": ["data/pairs.json", "some/other"],
        "dataset.max_samples": 1000,
        "dataset.validation_split": 0.1,
        "training.max_length": 2048,
        "training.learning_rate": 5e-6,
        "training.warmup_ratio": 0.1,
        "training.lr_scheduler_type": "cosine",
    }
    assert {path: leaf(taken.config, path) for path in wanted} == wanted
    left = {one.key: one.why for one in taken.left}
    assert "template" in left and "use_badam" in left and "trust_remote_code" in left
    assert not {"lora_rank", "pref_ftx", "bf16", "dataset"} & set(left)


def test_what_a_llamafactory_file_leaves_unsaid_is_what_that_program_would_do() -> None:
    config = read("{stage: sft, finetuning_type: full, model_name_or_path: m, dataset: d}").config
    assert config.adapter is None
    assert (config.training.learning_rate, config.training.per_device_train_batch_size) == (5e-5, 8)
    assert (config.training.lr_scheduler_type, config.training.warmup_ratio) == ("linear", 0.0)
    assert (config.training.max_length, config.dataset.validation_split) == (2048, 0.0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{stage: pt, dataset: d}", {"method.name": "pretrain", "training.packing": True}),
        ("{stage: rm, dataset: d}", {"method.name": "reward"}),
        ("{stage: kto, pref_beta: 0.3, kto_chosen_weight: 2.0}", {"method.beta": 0.3, "method.desirable_weight": 2.0}),
        ("{stage: dpo, pref_loss: orpo, pref_beta: 0.3}", {"method.name": "orpo", "method.beta": 0.3}),
        (
            "{stage: dpo, pref_loss: simpo, pref_beta: 2.0, simpo_gamma: 1.2}",
            {"method.name": "cpo", "method.loss_type": "simpo", "method.cpo_alpha": 0.0, "method.simpo_gamma": 1.2},
        ),
        ("{stage: sft, finetuning_type: freeze, freeze_trainable_layers: 3}", {"adapter.trained_layers": 3}),
        ("{stage: sft, lora_target: all, pissa_init: true}", {"adapter.init_lora_weights": "pissa_niter_16"}),
        ("{stage: sft, quantization_bit: 8}", {"model.quantization": "int8"}),
        ("{stage: sft, mask_history: true}", {"dataset.train_on": "last_assistant"}),
        (
            "{stage: sft, dataset: 'a,b', mix_strategy: interleave_over, interleave_probs: '0.7,0.3'}",
            {"dataset.stopping_strategy": "all_exhausted"},
        ),
    ],
)
def test_each_way_of_a_llamafactory_file(text: str, wanted: dict[str, Any]) -> None:
    config = read(text, program="LLaMA-Factory").config
    assert {path: leaf(config, path) for path in wanted} == wanted


def test_an_axolotl_file_means_the_same_here() -> None:
    taken = read(AXOLOTL)
    assert taken.program == "axolotl"
    wanted = {
        "method.name": "sft",
        "model.name_or_path": "some/model-1b",
        "model.quantization": "nf4",
        "model.attn_implementation": "flash_attention_2",
        "dataset.path": "some/alpaca",
        "dataset.format": "alpaca",
        "dataset.validation_split": 0.05,
        "adapter.r": 32,
        "adapter.lora_alpha": 16.0,
        "adapter.lora_dropout": 0.05,
        "adapter.target_modules": "all-linear",
        "training.max_length": 4096,
        "training.packing": True,
        "training.per_device_train_batch_size": 2,
        "training.num_train_epochs": 4.0,
        "training.optim": "adamw_8bit",
        "training.learning_rate": 1e-4,
        "training.warmup_steps": 10,
        "training.gradient_checkpointing": True,
        "training.use_reentrant": True,
        "training.weight_decay": 0.01,
    }
    assert {path: leaf(taken.config, path) for path in wanted} == wanted
    assert {one.key for one in taken.left} == {
        "output_dir",
        "pad_to_sequence_len",
        "evals_per_epoch",
        "saves_per_epoch",
        "special_tokens",
    }


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{rl: dpo, rl_beta: 0.3, adapter: lora}", {"method.name": "dpo", "method.beta": 0.3}),
        ("{rl: ipo, adapter: lora}", {"method.loss_type": ["ipo"]}),
        ("{rl: simpo, cpo_alpha: 0.5}", {"method.loss_type": "simpo", "method.cpo_alpha": 0.5}),
        ("{rl: orpo, orpo_alpha: 0.2}", {"method.beta": 0.2}),
        ("{base_model: m}", {"adapter": None, "training.per_device_train_batch_size": 1}),
        ("{load_in_8bit: true, adapter: lora}", {"model.quantization": "int8"}),
        ("{train_on_inputs: true}", {"dataset.train_on": "all"}),
        (
            "{datasets: [{path: a, type: chat_template, field_messages: talk, "
            "message_property_mappings: {role: from, content: value}}]}",
            {"dataset.columns": {"messages": "talk"}, "dataset.tags": {"role_tag": "from", "content_tag": "value"}},
        ),
    ],
)
def test_each_way_of_an_axolotl_file(text: str, wanted: dict[str, Any]) -> None:
    config = read(text, program="axolotl").config
    assert {path: leaf(config, path) for path in wanted} == wanted


def test_a_trl_file_means_the_same_here() -> None:
    taken = read(TRL)
    assert taken.program == "trl"
    wanted = {
        "method.name": "sft",
        "model.quantization": "nf4",
        "model.double_quant": False,
        "model.dtype": "bfloat16",
        "dataset.path": "some/conversations",
        "adapter.r": 32,
        "adapter.lora_dropout": 0.05,  # TRL's own default
        "adapter.target_modules": "all-linear",
        "training.packing": True,
        "training.eval_steps": 100,
        "training.optim": "adamw_torch_fused",
    }
    assert {path: leaf(taken.config, path) for path in wanted} == wanted
    left = {one.key: one.why for one in taken.left}
    assert left["some_new_option"] == "there is nothing like it here"
    assert set(left) == {"output_dir", "push_to_hub", "some_new_option"}


def test_trl_files_say_their_method_by_the_command_or_by_their_knobs() -> None:
    assert read("{dataset_name: d, beta: 0.3, loss_type: ipo}").config.method.name == "dpo"
    told = read("{dataset_name: d, beta: 0.3}", method="kto").config
    assert (told.method.name, leaf(told, "method.beta")) == ("kto", 0.3)
    assert read("{dataset_name: d}").config.training.learning_rate == 2e-5  # as SFTConfig has it
    assert read("{dataset_name: d, desirable_weight: 1.2}").config.training.learning_rate == 1e-6


@pytest.mark.parametrize(("text", "program"), [(LLAMAFACTORY, "llamafactory"), (AXOLOTL, "axolotl"), (TRL, "trl")])
def test_every_key_is_either_carried_over_or_named(text: str, program: str) -> None:
    data = parse_yaml(text, "theirs.yaml")
    assert recognise(data) == program
    whole = take(data, program)
    named = {one.key.partition(".")[0] for one in whole.left}
    # Without the key the run differs, or somebody was told of it; a key that says the default may do neither.
    for key in data:
        rest = {name: value for name, value in data.items() if name != key}
        default = NAMES[program].DEFAULTS.get(key) == data[key] or data[key] in (False, "auto")
        without = take(rest, program)
        told_of_it = {str(one) for one in whole.left} != {str(one) for one in without.left}
        assert key in named or told_of_it or without.config != whole.config or default or key in IMPLIED, key


def test_a_file_of_nobody_is_refused_with_the_next_step() -> None:
    with pytest.raises(ConfigError, match="--from"):
        recognise({"something": 1})
    with pytest.raises(ConfigError, match="Choose from"):
        take({"stage": "sft"}, "unsloth")


BACK = {
    "sft": {"adapter": {"r": 8, "lora_alpha": 8}, "training": {"learning_rate": 1e-4, "packing": True, "seed": 7}},
    "qlora": {"model": {"quantization": "nf4"}, "training": {"max_length": 333, "warmup_steps": 9}},
    "full": {"adapter": None, "training": {"num_train_epochs": 2, "weight_decay": 0.1}},
    "dpo": {"method": {"name": "dpo", "beta": 0.3}, "training": {"learning_rate": 5e-6, "lr_scheduler_type": "linear"}},
    "kto": {"method": {"name": "kto", "beta": 0.3, "desirable_weight": 1.5}},
}
# What every one of these programs can say of such a run.
COMMON = (
    "method.name",
    "model.name_or_path",
    "model.quantization",
    "training.learning_rate",
    "training.num_train_epochs",
    "training.max_length",
    "training.per_device_train_batch_size",
    "training.gradient_accumulation_steps",
    "training.lr_scheduler_type",
    "training.warmup_ratio",
    "training.warmup_steps",
    "training.weight_decay",
    "training.packing",
    "training.seed",
)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", BACK)
def test_a_run_given_to_another_program_and_taken_back_is_the_same(program: str, name: str) -> None:
    config = parse_config(
        {"model": {"name_or_path": "some/model"}, "dataset": {"path": "rows.jsonl"}} | _deep(BACK[name])
    )
    module = PROGRAMS[program]
    settings = module.write(config).settings
    back = take(settings, program, config.method.name).config
    common = [path for path in COMMON if path != "training.warmup_ratio" or config.training.warmup_steps is None]
    assert {path: leaf(back, path) for path in common} == {path: leaf(config, path) for path in common}
    if config.adapter is None:
        assert back.adapter is None
    else:
        assert {n: leaf(back, f"adapter.{n}") for n in ("r", "lora_alpha", "lora_dropout", "target_modules")} == {
            n: leaf(config, f"adapter.{n}") for n in ("r", "lora_alpha", "lora_dropout", "target_modules")
        }
    if name in ("dpo", "kto"):
        assert leaf(back, "method.beta") == 0.3


def _deep(over: dict[str, Any]) -> dict[str, Any]:
    """The case with its model and dataset named."""
    model = {"name_or_path": "some/model", **over.get("model", {})}
    return {**over, "model": model, "dataset": {"path": "rows.jsonl"}}


def test_keys_that_are_written_are_ones_that_the_programs_document() -> None:
    """TRL's are held against its own configs, which are installed; the others' against what is read from them."""
    import dataclasses

    import trl as library

    known = {"dataset_name"} | {field.name for field in dataclasses.fields(library.ModelConfig)}
    for name, kind in (("sft", library.SFTConfig), ("dpo", library.DPOConfig), ("kto", library.KTOConfig)):
        config = parse_config(_deep(BACK.get(name, {}) | {"method": {"name": name}}))
        options = set(trl.write(config).settings)
        assert options <= known | {field.name for field in dataclasses.fields(kind)}, name
    for names in (llamafactory_names, axolotl_names):
        readable = {pair.theirs for pair in (*names.PAIRS, *names.LORA)}
        assert readable >= {"learning_rate", "gradient_accumulation_steps", "lora_alpha", "seed"}


def test_a_run_as_a_command_of_trl_is_one_line_a_shell_reads() -> None:
    import shlex

    given = give(parse_config(_deep({"adapter": {"target_modules": ["q_proj", "v_proj"]}})), "trl")
    words = shlex.split(given.command.replace("\\\n", " "))
    assert words[:2] == ["trl", "sft"]
    at = words.index("--lora_target_modules")
    assert words[at + 1 : at + 3] == ["q_proj", "v_proj"]
    assert words[words.index("--model_name_or_path") + 1] == "some/model"
