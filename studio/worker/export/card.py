"""The README.md in an export: what was trained, on what, how, how well, and how to load it.

In: an export's task and result. Out: a model card, and the loss curves as a picture beside it. Data are named and
counted, never quoted.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from studio.core.config import RunConfig
from studio.core.inputs import DatasetInput
from studio.core.job import EventTail, JobFolder, read_json
from studio.core.progress import Progress
from studio.worker.export.outcome import curves, outcome
from studio.worker.export.task import Export


def write_card(task: Export, target: Path, parity: dict[str, Any] | None) -> None:
    """Write README.md, and curves.svg where the run's events have curves."""
    progress = _progress(task)
    picture = curves(progress) if progress else ""
    if picture:
        (target / "curves.svg").write_text(picture, encoding="utf-8")
    parts = [_front(task), f"# {task.label}", _what(task), _data(task), _method(task)]
    if progress:
        parts.append(outcome(JobFolder(Path(task.where["run"])), progress, bool(picture)))
    parts += [_parity(parity), _loading(task), _versions(task)]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (target / "README.md").write_text(text, encoding="utf-8")


def _progress(task: Export) -> Progress | None:
    if "run" not in task.where:
        return None
    progress = Progress()
    for event in EventTail(JobFolder(Path(task.where["run"])).events).read():
        progress.fold(event)
    return progress


def licence(base: Path) -> str:
    """The licence that the base's own card names, "" where it has none."""
    card = base / "README.md"
    if not card.is_file():
        return ""
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:\s*(\S+)\s*$", front[1], re.MULTILINE) if front else None
    return found[1] if found else ""


def _front(task: Export) -> str:
    """What a model page reads: the base, its licence, the library."""
    lines = ["---", f"base_model: {json.dumps(task.base_name)}"]
    if name := licence(task.source.base):
        lines.append(f"license: {json.dumps(name)}")
    library = {"adapter": "peft", "gguf": "gguf", "gguf-lora": "gguf", "ollama": "gguf"}
    lines.append(f"library_name: {library.get(task.config.format, 'transformers')}")
    return "\n".join([*lines, "---"])


def _what(task: Export) -> str:
    kinds = {
        "adapter": "The adapter alone; it is loaded onto its base.",
        "merged": f"The base with what was learnt merged into its weights, in {task.rounding()}.",
        "gguf": f"The merged model as GGUF, in {task.rounding()}.",
        "gguf-lora": "The adapter alone, as GGUF.",
        "ollama": f"The merged model as GGUF, in {task.rounding()}, with a Modelfile for Ollama.",
        "bnb": f"The merged model, held by bitsandbytes in {task.rounding()}.",
    }
    name = licence(task.source.base)
    lines = [kinds[task.config.format], f"Base: {task.base_name}" + (f" (licence {name})." if name else ".")]
    if task.source.quantized is not None:
        lines.append("Merged into what the quantized base stands for, which is what it was trained on.")
    elif task.run_config is not None and task.run_config.model.quantization != "none":
        kind = task.run_config.model.quantization
        lines.append(f"Trained on the base in {kind}, merged into the base as published: replies may differ slightly.")
    return "\n".join(lines)


def _data(task: Export) -> str:
    if task.run_config is None:
        return ""
    lines = ["## Data", ""]
    state = read_json(JobFolder(Path(task.where["run"])).path / "data.json") or {}
    parts: list[DatasetInput] = list(task.inputs.dataset.parts) or [task.inputs.dataset]
    for part in parts:
        size = _size(Path(part.path)) if part.path else 0
        lines.append(f"- {part.name}" + (f", {size:,} bytes" if size else ""))
    if isinstance(state.get("sha256"), str):
        lines.append(f"- SHA-256 {state['sha256']}")
    return "\n".join(lines)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) if path.is_dir() else 0


def _method(task: Export) -> str:
    config = task.run_config
    if config is None:
        return "## Method\n\nAdapters trained elsewhere: " + ", ".join(p.name for p in task.source.adapters) + "."
    kind = config.adapter.type if config.adapter else "the whole model"
    lines = ["## Method", "", f"{config.method.name}, {kind}. Every setting that isn't the default:", ""]
    changed = differences(config)
    lines += [f"- `{name}`: {value}" for name, value in changed.items()] or ["- none"]
    return "\n".join(lines)


def differences(config: RunConfig) -> dict[str, Any]:
    """Every knob that differs from its default, by its dotted name; folders of this machine only by their last part."""
    found: dict[str, Any] = {}
    mine, standard = config.model_dump(mode="json"), RunConfig().model_dump(mode="json")
    for section, values in mine.items():
        usual = standard[section]
        if not isinstance(values, dict) or not isinstance(usual, dict):
            if values != usual:
                found[section] = values
            continue
        for name, value in values.items():
            if name not in usual or usual[name] != value:
                found[f"{section}.{name}"] = _without_folders(value)
    return found


def _without_folders(value: Any) -> Any:
    if isinstance(value, str) and "/" in value and (value.startswith(("/", "~", ".")) or Path(value).exists()):
        return Path(value).name
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    return value


def _parity(parity: dict[str, Any] | None) -> str:
    if not parity or parity.get("explained") is None:
        return ""
    first = {"diff": parity["max_logit_diff"], "what": "the logits differ"}
    told = ["Loaded back and compared with base and adapter: "]
    if proven := parity.get("proven"):
        told.append(
            f"before llama.cpp's quantizer, in {proven}, the logits differed by {parity['proven_diff']:.3g} at most "
            f"(rounding explains {parity['explained']:.3g}). "
        )
        first["what"] = "After it they differ"
    if first["diff"] is None:
        told.append(parity["skipped"])
    else:
        rounding = "" if proven else f" (rounding explains {parity['explained']:.3g})"
        told.append(
            f"{first['what']} by {first['diff']:.3g} at most{rounding}, the likeliest token is the same in "
            f"{100 * parity['greedy_match']:.1f} % of places."
        )
    problems = [f"\n**{problem}**" for problem in parity["problems"]]
    return "\n".join(["## The same model?\n\n" + "".join(told), *problems])


def _loading(task: Export) -> str:
    name, file = Path(task.config.out).name, task.gguf_name
    head = "## How to load it\n\n"
    if task.config.format == "adapter":
        return head + _code(
            "python",
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
            f"base = AutoModelForCausalLM.from_pretrained({task.base_name!r})\n"
            f"model = PeftModel.from_pretrained(base, {name!r})",
        )
    if task.config.format == "gguf-lora":
        return head + _code("sh", "llama-cli -m BASE.gguf --lora adapter-f32.gguf")
    if task.config.format in ("gguf", "ollama"):
        ollama = f"ollama create {name} -f Modelfile\nollama run {name}\n" if task.config.format == "ollama" else ""
        studio = f"LM Studio finds it under models/YOU/{name}/{file}."
        return head + _code("sh", f"{ollama}llama-cli -m {file}") + f"\n\n{studio}"
    python = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({name!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({name!r})"
    )
    return head + _code("python", python) + "\n\n" + _code("sh", f"vllm serve {name}")


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _versions(task: Export) -> str:
    record = read_json(task.job.folder.process) or {}
    known = {"python": record.get("python"), **record.get("versions", {})}
    return "## Written with\n\n" + ", ".join(f"{name} {version}" for name, version in known.items() if version)
