"""What loads an export elsewhere: code that runs, and paths that survive a shell."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path

import pytest

from studio.ui import exportload
from studio.workspace.runs import ExportJob, read_export
from tests.ui.made_exports import done, make_export

FORMATS = ("adapter", "merged", "gguf", "gguf-lora", "ollama", "bnb")


def made(tmp_path: Path, format: str) -> tuple[ExportJob, Path]:
    out = tmp_path / f'it\'s a "{format}" $HOME'
    folder = make_export(out, done(out), format=format)
    (out / "model-f16.gguf").write_bytes(b"")
    return read_export(folder), out


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_says_how_it_is_loaded_and_names_its_place(tmp_path: Path, format: str) -> None:
    job, out = made(tmp_path, format)
    found = exportload.commands(job, out)
    assert found
    for title, code in found:
        if "transformers" in title:
            literals = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
            assert str(out) in literals
        elif not title.startswith("LM Studio"):
            words = [word for line in code.splitlines() for word in shlex.split(line)]
            assert any(str(out) in word for word in words), f"{title} doesn't name the folder whole"


def test_an_adapter_is_laid_over_its_base(tmp_path: Path) -> None:
    job, out = made(tmp_path, "adapter")
    loads = dict(exportload.commands(job, out))
    assert "'/models/base'" in loads["transformers and PEFT"]
    assert "vllm serve /models/base --enable-lora" in loads["vLLM"]


def test_ollama_is_given_the_modelfile_and_the_name_it_then_runs(tmp_path: Path) -> None:
    job, out = made(tmp_path, "ollama")
    create, run = dict(exportload.commands(job, out))["Ollama"].splitlines()
    words = shlex.split(create)
    assert words[:2] == ["ollama", "create"]
    assert words[-1] == str(out / "Modelfile")
    assert run == f"ollama run {words[2]}"
