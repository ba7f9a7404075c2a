"""The sheet that the page draws the form from has everything that core has, and words for it."""

from __future__ import annotations

from studio.core.config import EXPERIMENTAL
from studio.core.packages import available_optimizers
from studio.ui import form, knobsheet


def test_every_knob_is_on_the_sheet_in_a_fold_that_there_is() -> None:
    told = {knob["name"]: knob for knob in knobsheet.sheet()["knobs"]}
    assert set(told) == set(form.KNOBS) - set(form.PICKED)
    folds = {fold["name"] for fold in knobsheet.sheet()["folds"]}
    assert {knob["fold"] for knob in told.values()} - {""} <= folds
    assert told["method.dpo.beta"]["rule"].startswith("Rule of thumb: 0.1 to 0.5")
    assert told["adapter.lora.use_dora"]["rule"] == "arXiv:2402.09353"
    assert [knob["help"] for knob in told.values() if not knob["help"]] == []


def test_every_method_and_adapter_is_told_of() -> None:
    groups = knobsheet.sheet()["methods"]
    methods = {method["name"]: method for group in groups for method in group["methods"]}
    assert set(methods) == set(form.METHODS)
    assert {name for name, method in methods.items() if method["experimental"]} == set(EXPERIMENTAL)
    assert "better and a worse" in methods["dpo"]["rows"]
    assert {adapter["name"] for adapter in knobsheet.sheet()["adapters"]} == set(form.KINDS)


def test_what_needs_a_package_that_isn_t_here_says_so() -> None:
    told = {knob["name"]: knob for knob in knobsheet.sheet()["knobs"]}
    labels = dict(told["training.optim"]["choices"])
    missing = {choice: package for choice, package in available_optimizers().items() if package}
    assert missing
    for choice, package in missing.items():
        assert labels[choice] == f"{choice} (needs {package})"
    assert labels["adamw_torch"] == "adamw_torch"
