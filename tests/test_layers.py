"""The house: who may import whom, what files may be called, and that every tool is content with the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
STUDIO = PROJECT / "studio"
MODULES = sorted(STUDIO.rglob("*.py"))

# Beside cli.py: a file for each group of commands.
COMMANDS = sorted(path.stem for path in STUDIO.glob("cli_*.py"))

# DESIGN's table. The standard library is everyone's, and so is what core may import.
OURS = {
    "core": {"core"},
    "workspace": {"core", "workspace"},
    "worker": {"core", "worker"},
    "ui": {"core", "workspace", "ui"},
    "cli": {"core", "workspace", "worker", "ui", "cli", *COMMANDS, "say"},
}
OTHERS = {
    "core": {"pydantic", "annotated_types", "yaml"},
    "workspace": {"psutil", "pynvml", "huggingface_hub", "pyarrow", "filelock", "optuna"},
    "worker": {
        "accelerate", "bitsandbytes", "datasets", "datasketch", "filelock", "gguf", "huggingface_hub", "jinja2",
        "numpy", "peft", "psutil", "py3langid", "pyarrow", "pynvml", "regex", "safetensors", "sklearn", "threadpoolctl",
        "tokenizers", "torch", "tqdm", "transformers", "trl", "zstandard",
    },
    "ui": {"gradio", "fastapi", "starlette", "uvicorn"},
    "cli": {"typer"},
}  # fmt: skip
HEAVY = {"torch", "transformers", "datasets", "trl", "peft", "bitsandbytes", "accelerate"}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "tools", "base"}


def wing(path: Path) -> str:
    """The part of the house that a module belongs to."""
    first = path.relative_to(STUDIO).parts[0]
    return (
        "cli"
        if first in ("cli.py", "say.py", "__main__.py", "__init__.py", *(f"{name}.py" for name in COMMANDS))
        else first
    )


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, wherever it stands; `from a import b` may mean the module a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides where it leads"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "studio" else [node.module]
            )
            yield from ((node.lineno, str(name)) for name in names)


def refused(path: Path, source: str) -> list[str]:
    """What a module of this place may not import, as `line: name`."""
    place, found = wing(path), []
    for line, name in imports(ast.parse(source)):
        first, *rest = name.split(".")
        if first == "studio":
            allowed = not rest or rest[0] in OURS[place] or rest[0] == "__version__"
        else:
            allowed = first in sys.stdlib_module_names or first in OTHERS["core"] | OTHERS[place]
        if not allowed:
            found.append(f"{line}: {name}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(STUDIO)))
def test_a_module_imports_only_what_its_wing_may(path: Path) -> None:
    assert refused(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("core/rows.py", "import torch"),
        ("core/rows.py", "from studio.workspace import home"),
        ("core/rows.py", "from studio import workspace"),
        ("core/rows.py", "import psutil"),
        ("workspace/runs.py", "from studio.worker.job import Job"),
        ("workspace/runs.py", "def f():\n    import transformers.utils"),
        ("workspace/runs.py", "import gradio"),
        ("worker/job.py", "from studio.workspace.home import home"),
        ("worker/export/run.py", "import studio.ui.server"),
        ("ui/runs.py", "from studio.worker import train"),
        ("ui/runs.py", "import datasets"),
        ("ui/runs.py", "import huggingface_hub.constants"),
        ("cli.py", "import torch"),
    ],
)
def test_the_table_refuses_what_it_should(place: str, line: str) -> None:
    assert refused(STUDIO / place, line) != []


def test_every_wing_is_in_the_table_and_is_used() -> None:
    assert {wing(path) for path in MODULES} == set(OURS) == set(OTHERS)


@pytest.mark.parametrize("module", ["cli.py", "say.py", *(f"{name}.py" for name in COMMANDS)])
def test_the_command_line_imports_our_wings_only_when_it_is_called(module: str) -> None:
    """So that `studio --help` answers at once. Errors are what it catches."""
    tree = ast.parse((STUDIO / module).read_text(encoding="utf-8"))
    at_once = {name for node in tree.body for _, name in imports(node) if not isinstance(node, ast.FunctionDef)}
    ours = {name for name in at_once if name.startswith("studio")}
    assert ours <= {"studio.core.errors", "studio.say", *(f"studio.{name}" for name in COMMANDS)}


@pytest.mark.parametrize("module", ["studio.cli", "studio.ui.build", "studio.ui.server", "studio.workspace.supervisor"])
def test_what_answers_a_person_leaves_the_heavy_libraries_alone(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# -- names and docstrings ---------------------------------------------------------------------------------------------


def test_no_file_is_called_after_nothing() -> None:
    everything = [*MODULES, *(PROJECT / "tests").rglob("*.py"), *(PROJECT / "bench").rglob("*.py")]
    assert [str(path) for path in everything if path.stem in VAGUE] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(STUDIO)))
def test_a_module_says_what_it_is_in_ten_lines(path: Path) -> None:
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False)
    assert words, "it has no docstring"
    lines = words.strip().splitlines()
    # A tree that is drawn counts as a drawing.
    assert len([line for line in lines if not re.match(r"\s*[│├└]", line)]) <= 10
    assert lines[0].endswith((".", ":")), "its first line is a sentence"


# -- tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join)
def test_the_code_pleases_its_tools(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=PROJECT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
