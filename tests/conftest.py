"""Every test has a studio's folder of its own, an empty Hugging Face cache and no hub.

In: nothing. Out: STUDIO_HOME, HF_HOME and HF_HUB_OFFLINE for this process and the ones it starts; the starter model
for tests that ask for it. huggingface_hub reads its variables once, when it is imported, so they are set before that.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fake_worker import FakeWorkers

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job; whoever is started inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)

_HUB = tempfile.TemporaryDirectory(prefix="studio-tests-hub-")
os.environ["HF_HOME"] = _HUB.name
os.environ["HF_HUB_OFFLINE"] = "1"
# For what is made once for many tests, such as a trained run; each test then has a folder of its own.
_HOME = tempfile.TemporaryDirectory(prefix="studio-tests-home-")
os.environ["STUDIO_HOME"] = _HOME.name
for _variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "STUDIO_TOKEN"):
    os.environ.pop(_variable, None)


# A busy machine is no fault: what hypothesis tries may take as long as it takes.
settings.register_profile("studio", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("studio")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Heavy sweeps run where they are asked for (`-m nightly`), and nowhere else."""
    if "nightly" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("nightly")]


@pytest.fixture(autouse=True)
def studio_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A studio's folder that no other test has seen."""
    home = tmp_path_factory.mktemp("studio-home")
    monkeypatch.setenv("STUDIO_HOME", str(home))
    monkeypatch.setenv("HF_HOME", _HUB.name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return home


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWorkers]:
    """Whatever starts a worker in this test starts a fake one; all are ended with it."""
    from studio.workspace import launcher

    fakes = FakeWorkers()
    monkeypatch.setattr(launcher, "subprocess", fakes.as_subprocess())
    yield fakes
    fakes.end()


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The starter model's folder in the tests' cache, fetched at the first use (mark such tests `slow`)."""
    from studio.worker.starter import fetch_starter

    cache = os.environ.get("STUDIO_TEST_CACHE") or Path.home() / ".cache" / "finetuning-studio-tests"
    return fetch_starter(Path(cache), lambda text, done, total: None)
