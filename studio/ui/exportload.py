"""The commands that load an export in other programs, ready to be copied.

In: an export job, where it lies. Out: titles and code. Paths are quoted for the place they stand in.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from studio.core.inputs import Inputs
from studio.ui.text_export import say
from studio.workspace import lmstudio
from studio.workspace.home import slug
from studio.workspace.runs import ExportJob


def commands(job: ExportJob, path: Path) -> list[tuple[str, str]]:
    """What loads this export, the most usual first."""
    format, folder = job.config.format, shlex.quote(str(path))
    name = slug(path.name, "model")
    if format == "adapter":
        base = shlex.quote(base_of(job))
        lora = shlex.quote(f"{name}={path}")
        return [
            (say("export.load.peft"), python(job, path)),
            (say("export.load.vllm"), f"vllm serve {base} --enable-lora --lora-modules {lora}"),
        ]
    if format in ("merged", "bnb"):
        return [
            (say("export.load.transformers"), python(job, path)),
            (say("export.load.vllm"), f"vllm serve {folder}"),
        ]
    file = next(iter(sorted(path.glob("*.gguf"))), path / "model.gguf")
    if format == "gguf-lora":
        return [(say("export.load.llamacpp"), f"llama-cli -m BASE.gguf --lora {shlex.quote(str(file))}")]
    studio = "export.load.lmstudio.here" if lmstudio.is_layout(path) else "export.load.lmstudio"
    name_there = f"{path.parent.name}/{path.name}" if lmstudio.is_layout(path) else str(path)
    loads = [(say("export.load.llamacpp"), f"llama-cli -m {shlex.quote(str(file))}"), (say(studio), name_there)]
    if format == "ollama":
        create = f"ollama create {name} -f {shlex.quote(str(path / 'Modelfile'))}\nollama run {name}"
        return [(say("export.load.ollama"), create), *loads]
    return loads


def python(job: ExportJob, path: Path) -> str:
    """Python that loads an export: whole with transformers, or the adapter onto its base with PEFT."""
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if job.config.format == "adapter":
        lines = ["from peft import PeftModel", *lines, f"base = AutoModelForCausalLM.from_pretrained({base_of(job)!r})"]
        lines.append(f"model = PeftModel.from_pretrained(base, {str(path)!r})")
    else:
        lines.append(f"model = AutoModelForCausalLM.from_pretrained({str(path)!r})")
    return "\n".join([*lines, f"tokenizer = AutoTokenizer.from_pretrained({str(path)!r})"])


def base_of(job: ExportJob) -> str:
    """The base by its folder or its name on the hub."""
    try:
        model = Inputs.read(job.folder.inputs).model
    except (OSError, ValueError, KeyError, TypeError):
        return job.config.run
    return model.path or model.name
