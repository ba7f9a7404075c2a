"""Models and tokenizers, fetched where need be and loaded right.

In: a ModelInput, a Setup. Out: transformers objects. Only safetensors are opened and no code that comes with a model
is run. How the model is then trained isn't known here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from studio.core.config import ModelSection
from studio.core.errors import ModelError
from studio.core.inputs import ModelInput
from studio.core.job import read_json
from studio.core.packed import HINT, packed_as, refusal
from studio.worker.checkpoints import check_header
from studio.worker.device import Setup

Report = Callable[[str, "int | None", "int | None"], None]

# What a causal language model needs; pickled weights and modelling code are never downloaded.
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.tiktoken", "merges.txt", "vocab.txt"]

_PATIENCE = 10.0  # seconds for the hub to answer a question


def fetch(model: ModelInput, report: Report) -> Path:
    """The model's folder on this machine, downloaded first if it isn't here. Raises ModelError."""
    if model.kind == "starter":
        from studio.worker.starter import fetch_starter

        return fetch_starter(Path(os.environ["STUDIO_HOME"]) / "models", report)
    if model.kind == "hub":
        return _fetch_from_hub(model, report)
    folder = Path(model.path or "")
    if model.kind == "merged" and not (folder / "config.json").is_file():
        from studio.worker.adapters.merged import merge_into

        assert model.base is not None and model.adapter is not None
        merge_into(folder, fetch(model.base, report), Path(model.adapter), report)
    if not (folder / "config.json").is_file():
        raise ModelError(f"The model folder {folder} is gone.", "Put it back, or choose another model.")
    return folder


def _fetch_from_hub(model: ModelInput, report: Report) -> Path:
    """A hub model's snapshot, whole; the copy in the cache where the hub can't be asked."""
    from huggingface_hub import HfApi, get_session, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    report(f"Downloading {model.name}", None, None)
    options: dict[str, Any] = {"revision": model.revision, "allow_patterns": HUB_FILES}
    # By itself the hub's client would wait for ever for a server that takes a question and never answers.
    get_session().timeout = _PATIENCE
    try:
        HfApi().model_info(model.name, revision=model.revision, timeout=_PATIENCE)
        _refuse_packed(model)
        folder = snapshot_download(model.name, **options, tqdm_class=_progress_bar(model.name, report))
    except ModelError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, (HfHubHTTPError, OfflineModeIsEnabled)):
            raise  # a full disk, say
        try:
            folder = snapshot_download(model.name, **options, local_files_only=True)
        except (LocalEntryNotFoundError, ValueError):
            raise _refusal(model, error) from None
    path = Path(folder)
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"{model.name} has no safetensors weights.", "Choose a model that has them.")
    return path


def _refuse_packed(model: ModelInput) -> None:
    """Looks at config.json alone, before gigabytes are fetched. Raises ModelError, and what the hub raises."""
    from huggingface_hub import hf_hub_download

    config = read_json(Path(hf_hub_download(model.name, "config.json", revision=model.revision)))
    if method := packed_as(config):
        raise ModelError(refusal(model.name, method), HINT)


def _refusal(model: ModelInput, error: Exception) -> ModelError:
    """What the hub said, in a sentence with the next step."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{model.name} asks you to accept its licence first.",
            "Open its page on the Hugging Face hub, accept, and set a token with `hf auth login`.",
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelError(f"{model.name} has no revision {model.revision!r}.", "Check model.revision.")
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return ModelError(
            f"The Hugging Face hub has no model {model.name!r}, or it is private.",
            "Check the spelling; for a private model set a token with `hf auth login`.",
        )
    if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
        status = error.response.status_code
        hint = "Check your token with `hf auth whoami`." if status in (401, 403) else "Try again later."
        return ModelError(f"The Hugging Face hub refused {model.name} (status {status}).", hint)
    return ModelError(
        f"{model.name} isn't on this machine and the Hugging Face hub can't be reached.",
        "Connect to the internet, or choose a model that is here.",
    )


def _progress_bar(name: str, report: Report) -> type:
    """A tqdm class that reports bytes instead of drawing."""
    from tqdm.auto import tqdm

    class Reporting(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["file"] = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives as long as the bar
            kwargs["disable"] = False
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self.unit == "B":
                report(f"Downloading {name}", int(self.n), int(self.total) if self.total else None)
            return shown

    return Reporting


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model's folder. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(f"The tokenizer in {folder} can't be loaded ({_short(error)}).", _REPAIR) from None
    if not tokenizer.is_fast:
        raise ModelError(
            f"The tokenizer in {folder} is a slow one, which can't tell where in the text a token stands.",
            "Choose a model that comes with tokenizer.json.",
        )
    return tokenizer


def load_model(folder: Path, section: ModelSection, setup: Setup, scores: bool = False) -> Any:
    """The causal language model in a folder, on its device, in the setup's dtype or quantized. Raises ModelError.

    `scores`: with a head that gives a text one number instead of its next word, new unless the folder has one.
    """
    options: dict[str, Any] = {
        "dtype": setup.weights,
        "attn_implementation": setup.attention,
        "use_safetensors": True,
        "trust_remote_code": False,
        "device_map": {"": setup.device},
    }
    if section.quantization != "none":
        options["quantization_config"] = quantization(section, setup)
    try:
        for path in sorted(folder.glob("*.safetensors")):
            check_header(path)
        config = read_json(folder / "config.json")
        _refuse_foreign_code(config)
        if not scores and gives_scores(config):
            raise scores_only(folder.name)
        model, found = _from_pretrained(folder, options, section, scores)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, SafetensorError) as error:
        raise ModelError(f"The model in {folder} can't be loaded ({_short(error)}).", _REPAIR) from error
    new = _head_names(model) if scores else ()
    if missing := sorted(key for key in found["missing_keys"] if not key.startswith(new)):
        # transformers fills them with random numbers and goes on
        raise ModelError(f"The model in {folder} lacks {len(missing)} of its weights, {missing[0]} first.", _REPAIR)
    return model


def gives_scores(config: Any) -> bool:
    """Whether a model's (or an adapter's) config says that it gives texts a number."""
    told = config if isinstance(config, dict) else {}
    kinds = told.get("architectures") or []
    return told.get("task_type") == "SEQ_CLS" or any(str(kind).endswith("ForSequenceClassification") for kind in kinds)


def scores_only(name: str) -> ModelError:
    """What is said where words are asked of a reward model."""
    return ModelError(
        f"{name} is a reward model: it gives answers a number and can't write any.",
        "Choose a model that answers; a reward model serves as a reward (method.rewards: model:run:<id>).",
    )


def _head_names(model: Any) -> tuple[str, ...]:
    """The weights that stand before or behind a model's trunk."""
    return tuple(f"{name}." for name, _ in model.named_children() if name != model.base_model_prefix)


def _from_pretrained(
    folder: Path, options: dict[str, Any], section: ModelSection, scores: bool = False
) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    options = {**options, "num_labels": 1} if scores else options
    try:
        model, found = kind.from_pretrained(str(folder), **options, output_loading_info=True)
    except ValueError as error:
        if section.attn_implementation != "auto" or "attention implementation" not in str(error):
            raise
        # Every architecture has eager attention; some (Gemma 2) have no other.
        options = {**options, "attn_implementation": "eager"}
        model, found = kind.from_pretrained(str(folder), **options, output_loading_info=True)
    return model, found


def _refuse_foreign_code(config: Any) -> None:
    """A config may name a kernel on the hub, which transformers would fetch and run, whatever else it was told."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key.endswith("_implementation") and "/" in str(value):
                raise ModelError(f"The model's config names code on the hub ({value}), which isn't run here.", _REPAIR)
            _refuse_foreign_code(value)


def quantization(section: ModelSection, setup: Setup) -> Any:
    """bitsandbytes' config for `model.quantization`; products are computed in the setup's dtype."""
    from transformers import BitsAndBytesConfig

    if section.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=section.quantization,
        bnb_4bit_use_double_quant=section.double_quant,
        bnb_4bit_compute_dtype=setup.autocast or setup.weights,
        bnb_4bit_quant_storage=torch.uint8,
    )


_REPAIR = "Check that the folder is whole, or fetch the model again."


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
