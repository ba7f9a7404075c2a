"""Models a run can start from: the starter, folders, hub names, earlier runs.

In: the name a person wrote. Out: a ModelInput, or a ConfigError that says what is wrong with it; and the list to pick
from. Nothing is downloaded here, and weights that could run code (pickles) are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from studio.core.chain import refuse_unnamed
from studio.core.errors import ConfigError
from studio.core.inputs import Inputs, ModelInput
from studio.core.job import JobFolder, read_json
from studio.core.packed import HINT, packed_as, refusal
from studio.workspace.home import existing, is_slug, models_dir, runs_dir

STARTER = "starter"
_FIELD = "model.name_or_path"
# Adapters that stand before the text, by PEFT's names: no change of weights.
PROMPTS = frozenset({"PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"})
# Under models/: bases with a run's adapter merged in, made anew whenever they are missing.
MERGED = ".merged"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ModelEntry:
    """A model in the list. `name` goes into run.yaml; `path` is None until it has been fetched."""

    name: str
    title: str
    path: Path | None
    bytes: int
    note: str = ""


def list_models() -> list[ModelEntry]:
    """The starter, the folders under models/, hub models already in the Hugging Face cache, and fully trained runs."""
    starter = models_dir() / STARTER
    there = (starter / "config.json").is_file()
    found = [
        ModelEntry(
            STARTER,
            "SmolLM2-135M-Instruct (the starter)",
            starter if there else None,
            _size(starter) if there else 0,
            "" if there else "fetched at the first run, about 93 MB",
        )
    ]
    for folder in sorted(models_dir().iterdir()):
        if folder.name != STARTER and is_slug(folder.name) and _has_weights(folder):
            found.append(ModelEntry(folder.name, folder.name, folder, _size(folder)))
    for run in sorted(runs_dir().iterdir(), reverse=True):
        model = JobFolder(run).model
        if _has_weights(model):
            found.append(ModelEntry(f"run:{run.name}", f"{run.name} (a run of yours)", model, _size(model)))
    return found + _cached_hub_models()


def resolve_model(name: str, revision: str | None = None) -> ModelInput:
    """What `model.name_or_path` means here and now. Raises ConfigError."""
    name = name.strip()
    if name == STARTER:
        return ModelInput("starter", STARTER, str(models_dir() / STARTER))
    if name.startswith("run:"):
        return _run_model(name)
    own = models_dir() / name
    if is_slug(name) and own.is_dir():
        return ModelInput("folder", name, str(_checked_folder(own)))
    folder = existing(name)
    if folder is not None and folder.is_dir():
        return ModelInput("folder", name, str(_checked_folder(folder.absolute())))
    if _HUB_ID.fullmatch(name):
        cached = cached_snapshot(name, revision)
        if cached is not None:
            _refuse_packed(name, cached)
        return ModelInput("hub", name, None, revision)
    raise ConfigError(
        _FIELD,
        f"there is no model {name!r}.",
        "Give `starter`, a folder with config.json and safetensors, a hub name such as owner/model, or run:<id>.",
    )


def _run_model(name: str) -> ModelInput:
    refuse_unnamed(_FIELD, name)
    run_id = name.removeprefix("run:")
    folder = JobFolder(runs_dir() / run_id)
    if not is_slug(run_id) or not folder.run_config.is_file():
        raise ConfigError(_FIELD, f"there is no run {run_id!r}.", "`studio runs list` shows them.")
    if _has_weights(folder.model):
        return ModelInput("folder", name, str(folder.model))
    if (folder.adapter / "adapter_config.json").is_file():
        return _merged(name, folder)
    raise ConfigError(_FIELD, f"the run {run_id} has no trained model yet.", "Wait until it has finished.")


def _merged(name: str, run: JobFolder) -> ModelInput:
    """A run's base with its adapter merged in, by whoever trains on it first; the folder is named after the two."""
    kind = str((read_json(run.adapter / "adapter_config.json") or {}).get("peft_type", ""))
    if kind in PROMPTS:
        raise ConfigError(
            _FIELD,
            f"the run {run.id} learnt tokens that stand before the text ({kind}), which can't become weights.",
            "Train on its base, and go on from the adapter (adapter.continue_from).",
        )
    try:
        base = Inputs.read(run.inputs).model
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            _FIELD, f"what the run {run.id} was trained on isn't known.", "Choose another model."
        ) from None
    files = sorted(run.adapter.glob("*.safetensors"))
    stamp = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    told = json.dumps([dataclasses.asdict(base), str(run.adapter), stamp], sort_keys=True)
    key = hashlib.sha256(told.encode()).hexdigest()[:16]
    return ModelInput("merged", name, str(models_dir() / MERGED / f"{run.id}-{key}"), None, base, str(run.adapter))


def _checked_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ConfigError(_FIELD, f"{folder} holds no config.json.", "Give the folder of a transformers model.")
    _refuse_packed(folder.name, folder)
    if _has_weights(folder):
        return folder
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ConfigError(
            _FIELD,
            f"{folder} has its weights as pickle files, which can run code when they are opened.",
            "Give a copy with safetensors weights.",
        )
    raise ConfigError(_FIELD, f"{folder} holds no weights.", "Put its *.safetensors files beside config.json.")


def _refuse_packed(name: str, folder: Path) -> None:
    """GPTQ, AWQ and their kin hold weights that no adapter can be merged into, and that nothing here trains on."""
    if method := packed_as(read_json(folder / "config.json")):
        raise ConfigError(_FIELD, refusal(name, method), HINT)


def _has_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def hub_cache() -> Path:
    """Where the Hugging Face cache lies; the studio leaves it where it is."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def cached_snapshot(name: str, revision: str | None = None) -> Path | None:
    """The folder of a hub model in the cache, as far as it has been fetched; None where nothing of it was."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _cached_hub_models() -> list[ModelEntry]:
    """Models in the Hugging Face cache, by its folder names: scanning its blobs takes seconds on large caches."""
    found = []
    for folder in sorted(hub_cache().glob("models--*--*")):
        snapshots = [s for s in folder.glob("snapshots/*") if _has_weights(s)]
        if snapshots and _is_causal_lm(snapshots[-1]):
            name = folder.name.removeprefix("models--").replace("--", "/", 1)
            found.append(ModelEntry(name, name, snapshots[-1], _size(snapshots[-1]), "in the Hugging Face cache"))
    return found


def _is_causal_lm(folder: Path) -> bool:
    architectures = (read_json(folder / "config.json") or {}).get("architectures")
    return isinstance(architectures, list) and any(str(name).endswith("ForCausalLM") for name in architectures)
