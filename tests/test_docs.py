"""The docs say what is there: the README's tree and commands, CONTRIBUTING's places, links, no path of one machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/LOG.md", "docs/DATA.md"]


def tree_of_readme() -> set[str]:
    """Every Python file that the README's tree names, as a path."""
    block = re.search(r"<!-- tree -->\n```text\n(.*?)```", README, re.DOTALL)
    assert block, "the README has no tree"
    folders: list[str] = []
    found = set()
    for line in block[1].splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        del folders[depth:]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        elif name.endswith(".py"):
            found.add("/".join([*folders, name]))
    return found


def test_the_readme_draws_the_tree_that_is_there() -> None:
    there = {
        path.relative_to(ROOT).as_posix()
        for folder in ("studio", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert tree_of_readme() == there | {"launch.py"}


def test_every_command_of_the_readme_exists_and_the_other_way_round() -> None:
    block = re.search(r"```\n(studio ui.*?)```", README, re.DOTALL)
    assert block
    told = set()
    for line in block[1].splitlines():
        words = re.match(r"studio ([\w-]+)((?: \w+)?(?: ID| NAME| PATH)?(?: \| \w+(?: ID| NAME)?)*)", line)
        assert words, line
        subcommands = re.findall(r"\b(list|show|stop|resume|delete|get|check|stats|convert|split|prefer)\b", words[2])
        told |= {f"{words[1]} {sub}" for sub in subcommands} or {words[1]}
    from studio import cli

    there = {c.name or c.callback.__name__ for c in cli.app.registered_commands if c.callback}
    for group in cli.app.registered_groups:
        assert group.typer_instance is not None
        there |= {f"{group.name} {command.name}" for command in group.typer_instance.registered_commands}
    assert told == there


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page} points to {target}"


def test_contributing_names_places_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for place in re.findall(r"`((?:studio|tests|docs)/[\w/]+\.(?:py|md))`", text):
        assert (ROOT / place).exists(), place
    for name, module in (
        ("FORMATS", "core/formats.py"),
        ("BUILDERS", "worker/trainers/build.py"),
        ("WRITERS", "worker/export/run.py"),
    ):
        assert name in text
        assert re.search(rf"^{name}\b", (ROOT / "studio" / module).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_on_data_names_every_layout_and_every_problem() -> None:
    from studio.core.formats import FORMATS
    from studio.core.problems import PROBLEMS

    page = (ROOT / "docs" / "DATA.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    layouts = {row[0]: (row[1], row[3]) for row in rows if len(row) == 4}
    problems = {row[0]: row[1:] for row in rows if len(row) == 3 and row[1] in ("error", "warning")}
    for format in FORMATS.values():
        assert layouts[f"`{format.name}`"] == (", ".join(f"`{column}`" for column in format.needs), format.type)
    assert problems == {f"`{p.kind}`": [p.severity, p.help] for p in PROBLEMS.values()}
    assert len(layouts) == len(FORMATS)


def test_every_shipped_preset_is_a_valid_run_and_says_for_whom() -> None:
    from studio.core.configfile import load_config

    presets = sorted((ROOT / "presets").glob("*.yaml"))
    assert presets
    for preset in presets:
        load_config(preset)
        assert preset.read_text(encoding="utf-8").startswith("# "), f"{preset.name} doesn't say for whom it is"


def test_no_file_carries_a_path_of_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"/(?:work|root|home/\w+)/\w|pypi\.org|files\.pythonhosted")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".js", ".css"} and path.is_file() and path != Path(__file__):
            found = pattern.search(path.read_text(encoding="utf-8"))
            assert not found, f"{name}: {found[0] if found else ''}"


def test_the_help_of_every_command_works() -> None:
    done = subprocess.run([sys.executable, "-m", "studio", "--help"], capture_output=True, text=True, check=True)
    for command in ("ui", "train", "data", "models", "runs", "chat", "export"):
        assert command in done.stdout
