"""What a comparison looks at beside the logits: each thing is told by its name, and only the one that differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig

from tests.worker.export.made import make_adapter, merge
from tests.worker.export.test_parity import judged

Base = Callable[..., Path]
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("short_replies")]
ALL = {"template", "special", "end", "generation", "tokens"}


def rewritten(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")


@pytest.mark.parametrize("wrong", ["", "template", "special", "end", "generation"])
def test_each_is_told_by_its_name(base: Base, tmp_path: Path, wrong: str) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
    adapter = make_adapter(base("llama"), tmp_path / "adapter", config)
    out = merge(base("llama"), adapter, tmp_path / "out")
    if wrong == "template":
        (out / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    elif wrong == "special":
        rewritten(out / "tokenizer_config.json", bos_token="the")
    elif wrong:
        rewritten(out / "generation_config.json", **({"eos_token_id": 7} if wrong == "end" else {"temperature": 0.1}))
    found = judged(base("llama"), adapter, out)
    assert {name for name, same in found.checks.items() if not same} == ({wrong} if wrong else set())
    assert set(found.checks) == ALL
    assert found.same is not bool(wrong)
    assert len(found.problems) == bool(wrong)


def test_the_adapter_alone_brings_none_of_them(base: Base, tmp_path: Path) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
    adapter = make_adapter(base("llama"), tmp_path / "adapter", config)
    assert set(judged(base("llama"), adapter, adapter, format="adapter").checks) == {"tokens"}
