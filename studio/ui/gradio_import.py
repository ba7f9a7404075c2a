"""Imports Gradio fast: the one place that does it first.

In: nothing. Out: `gradio`, as `from studio.ui.gradio_import import gr`. Gradio writes a .pyi stub beside the source of
every component while it is imported: it parses each source file and renders a template, for editors' sake, which takes
half of the import and touches files that may not be ours. The stubs have no use at run time, so the function that makes
them is replaced, through an import hook that is gone again afterwards, before any component is defined. No class of
Gradio is touched. If a later Gradio moves the function, the hook finds nothing and the import is merely slower.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read while gradio is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_MODULE = "gradio.component_meta"


class _StublessLoader(importlib.abc.Loader):
    """Runs the module as its own loader would, then takes the writer of stub files out of it."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if hasattr(module, "create_or_modify_pyi"):
            vars(module)["create_or_modify_pyi"] = lambda *_args: None


class _StublessFinder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _StublessLoader(spec.loader)
        return spec


def _import_gradio() -> Any:
    if "gradio" in sys.modules:
        return sys.modules["gradio"]
    finder = _StublessFinder()
    collecting = gc.isenabled()
    gc.disable()  # nothing made by an import is garbage; looking for it takes a sixth of the time
    sys.meta_path.insert(0, finder)
    try:
        import gradio
    finally:
        sys.meta_path.remove(finder)
        if collecting:
            gc.enable()
    return gradio


gr = _import_gradio()
