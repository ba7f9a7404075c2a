"""What a worker measures of itself: on this processor for true, on a card over a fake driver and the real bindings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from studio.core.events import Ended, Metrics
from studio.core.job import EventTail, JobFolder, read_json
from studio.worker import measure as module
from studio.worker.measure import Measure
from tests.fake_nvml import FakeDriver, build_fake_nvml

PROJECT = Path(__file__).parents[2]
GIB = 1 << 30
CPU = torch.device("cpu")
MakeRun = Callable[..., JobFolder]
InProcess = Callable[[JobFolder], int]


def figures(folder: JobFolder) -> dict[str, Any]:
    found = read_json(folder.memory)
    assert found is not None
    return found


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path)


# -- a real run -------------------------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_took_at_each_step_of_the_ladder(make_run: MakeRun, in_process: InProcess) -> None:
    job = make_run(training={"max_steps": 6})
    assert in_process(job) == 0
    found = figures(job)
    assert (found["device_name"], found["device_kind"], found["kind"]) == ("cpu", "cpu", "cpu/float32/lora")
    rss = [found[rung]["rss"] for rung in ("start", "loaded", "first_step", "peak")]
    total = psutil.virtual_memory().total
    assert all(100_000_000 < size < total for size in rss)
    assert rss[-1] >= rss[2]
    assert found["peak"] | {"rss": 0} == {"allocated": None, "reserved": None, "device": None, "rss": 0}
    assert (found["steps"], found["weights"]) == (6, "float32")

    events = list(EventTail(job.events).read())
    (ended,) = [event for event in events if isinstance(event, Ended)]
    assert ended.result["memory"]["peak"] == found["peak"]
    assert ended.result["peak_rss"] >= found["peak"]["rss"]
    logged = [event.values for event in events if isinstance(event, Metrics) and event.step > 1]
    speeds = [values["tokens_per_second"] for values in logged if "tokens_per_second" in values]
    assert min(speeds) <= found["tokens_per_second"] <= max(speeds)


# -- one figure at a time ---------------------------------------------------------------------------------------------


def test_the_first_step_counts_for_nothing_in_the_pace(folder: JobFolder) -> None:
    measure = Measure(folder)
    measure.on(CPU, torch.float32, "cpu/auto/lora")
    for seconds, tokens in ((60.0, 1000), (1.0, 1100), (3.0, 1200), (2.0, 1500)):
        measure.step(seconds, tokens)
    measure.finish()
    found = figures(folder)
    assert found["seconds_per_step"] == 2.0
    assert found["tokens_per_second"] == pytest.approx(500 / 6, abs=0.001)
    assert found["steps"] == 4


def test_memory_that_came_and_went_is_in_the_peak(folder: JobFolder) -> None:
    measure = Measure(folder)
    measure.on(CPU, torch.float32, "")
    measure.mark("loaded")
    block = bytearray(300_000_000)
    del block
    measure.finish()
    found = figures(folder)
    assert found["peak"]["rss"] >= found["loaded"]["rss"] + 250_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't count anew")
def test_what_loading_took_for_a_moment_is_not_trainings_peak(folder: JobFolder) -> None:
    measure = Measure(folder)
    measure.on(CPU, torch.float32, "")
    block = bytearray(700_000_000)
    del block
    high = measure.highest_rss
    measure.mark("loaded")
    measure.finish()
    assert figures(folder)["peak"]["rss"] < high - 500_000_000
    assert measure.highest_rss >= high


def test_energy_of_all_attempts_is_added(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tank:
        count = 0.0

        def joules(self) -> float:
            self.count += 3.6e6
            return self.count

        def watts(self) -> float:
            return 100.0

    monkeypatch.setattr(module.Processor, "find", lambda: Tank())
    kwh = []
    for _ in range(2):
        measure = Measure(folder)
        measure.on(CPU, torch.float32, "")
        measure.begin()
        measure.finish()
        kwh.append(figures(folder)["energy_kwh"])
        assert measure.result()["energy_kwh"] == kwh[-1]
    assert kwh == [1.0, 2.0]
    assert figures(folder)["most_watts"] == 100.0


@pytest.mark.parametrize("missing", ["energy_kwh", "memory.json", "the folder"])
def test_measuring_fails_no_run(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, missing: str, tmp_path: Path
) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("a driver of our time")

    monkeypatch.setattr(module, "in_use", broken)
    monkeypatch.setattr(module.Card, "find", broken)
    monkeypatch.setattr(module.Processor, "find", broken)
    if missing == "energy_kwh":
        folder.memory.write_text('{"energy_kwh": "lots"}', encoding="utf-8")
    if missing == "memory.json":
        folder.memory.mkdir()
    if missing == "the folder":
        folder = JobFolder(tmp_path / "gone")
    measure = Measure(folder)
    measure.on(CPU, torch.float32, "")
    measure.mark("loaded")
    measure.begin()
    measure.wait()
    measure.step(1.0, 5)
    measure.finish()
    assert set(measure.result()) == {"memory"}
    assert folder.path.exists() == (missing != "the folder")


# -- on a card --------------------------------------------------------------------------------------------------------

# A torch with a card whose allocator holds what the orders say; the driver is the fake one, the bindings are real.
ON_A_CARD = """
import json, sys, types
from pathlib import Path
import torch
from studio.core.job import JobFolder
from studio.worker import nvidia
from studio.worker.measure import Measure

held = {}
torch.version.cuda = "13.0"
torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(
    uuid=held["uuid"], pci_domain_id=0, pci_bus_id=1, pci_device_id=0)
torch.cuda.get_device_name = lambda device: "a card by torch"
for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
    setattr(torch.cuda, name, lambda device, name=name: held[name])
torch.accelerator.synchronize = lambda device: None
measure = None
for line in sys.stdin:
    order = json.loads(line)
    held.update(order.get("held", {}))
    if "patience" in order:
        nvidia.PATIENCE = order["patience"]
    folder = JobFolder(Path(order["folder"]))
    if order["do"] == "new":
        measure = Measure(folder)
    elif order["do"] == "on":
        measure.on(torch.device("cuda", 1), torch.bfloat16, "cuda/auto/lora")
    else:
        getattr(measure, order["do"])(*order.get("with", []))
    print(folder.memory.read_text().replace(chr(10), " ") if folder.memory.exists() else "{}", flush=True)
"""


class OnACard:
    def __init__(self, driver: FakeDriver, folder: Path) -> None:
        self.driver, self.folder = driver, folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_A_CARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=driver.environment(),
        )

    def order(self, do: str, *arguments: Any, folder: Path | None = None, **more: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        order = {"do": do, "with": arguments, "folder": str(folder or self.folder), **more}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="module")
def on_a_card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnACard]:
    if sys.platform != "linux":
        pytest.skip("the fake driver is a Linux library")
    place = tmp_path_factory.mktemp("card")
    library = build_fake_nvml(tmp_path_factory.mktemp("nvml"))
    card = OnACard(FakeDriver(library, place), place)
    yield card
    card.process.kill()
    card.process.communicate()


def held(uuid: str = "00000001", allocated: int = 3, reserved: int = 4, most: int = 9) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "memory_allocated": allocated * GIB,
        "memory_reserved": reserved * GIB,
        "max_memory_allocated": (most - 1) * GIB,
        "max_memory_reserved": most * GIB,
    }


def climb(card: OnACard, folder: Path, **behaviour: int) -> dict[str, Any]:
    """A run on card 1 of two; what it left."""
    folder.mkdir()
    card.driver.behaves(gpus=2, gpu1_used=2 * GIB, energy=1_000_000)
    card.order("new", folder=folder)
    card.driver.behaves(gpus=2, gpu1_used=7 * GIB, energy=1_000_000, **behaviour)
    card.order("on", folder=folder, held=held())
    card.order("mark", "loaded", folder=folder)
    card.order("begin", folder=folder)
    card.order("step", 1.0, 100, folder=folder)
    card.driver.behaves(gpus=2, gpu1_used=7 * GIB, energy=73_000_000, power=250_000, **behaviour)
    return card.order("finish", folder=folder)


def test_F62_a_card_is_measured_by_torch_and_by_its_driver(on_a_card: OnACard, tmp_path: Path) -> None:
    found = climb(on_a_card, tmp_path / "run", mine=5 * GIB)
    assert found["device_name"] == "NVIDIA GeForce RTX 4090"
    assert found["loaded"] | {"rss": 0} == {"allocated": 3 * GIB, "reserved": 4 * GIB, "device": 5 * GIB, "rss": 0}
    # The driver keeps no peak: 9 GiB at most by torch's allocator, and the GiB that is held beside it.
    assert found["peak"] | {"rss": 0} == {"allocated": 8 * GIB, "reserved": 9 * GIB, "device": 10 * GIB, "rss": 0}
    assert found["energy_kwh"] == pytest.approx(72_000 / 3.6e6)
    assert found["most_watts"] == 250.0


def test_in_a_container_what_was_taken_since_the_start_is_ours(on_a_card: OnACard, tmp_path: Path) -> None:
    found = climb(on_a_card, tmp_path / "run", processes=2)
    assert found["loaded"]["device"] == 5 * GIB


def test_a_card_without_its_uuid_is_found_by_its_place(on_a_card: OnACard, tmp_path: Path) -> None:
    on_a_card.driver.behaves(gpus=2, gpu1_mine=6 * GIB)
    on_a_card.order("new")
    found = on_a_card.order("on", held=held(uuid=""))
    assert found["start"]["device"] == 6 * GIB


def test_figures_that_the_driver_refuses_are_null(on_a_card: OnACard, tmp_path: Path) -> None:
    refused = {"nvmlDeviceGetComputeRunningProcesses_v3": 3, "nvmlDeviceGetMemoryInfo": 4, "nvmlDeviceGetName": 999}
    found = climb(on_a_card, tmp_path / "run", nvmlDeviceGetTotalEnergyConsumption=3, **refused)
    assert (found["peak"]["device"], found["peak"]["reserved"]) == (None, 9 * GIB)
    assert found["device_name"] == "a card by torch"
    assert 119 < found["mean_watts"] < 251  # from looks at the draw alone, which rose meanwhile


def test_without_a_driver_torch_speaks_alone(on_a_card: OnACard, tmp_path: Path) -> None:
    found = climb(on_a_card, tmp_path / "run", nvmlInitWithFlags=9, nvmlDeviceGetHandleByUUID=6)
    assert (found["peak"]["device"], found["peak"]["allocated"], found["energy_kwh"]) == (None, 8 * GIB, None)


def test_a_driver_that_hangs_is_waited_for_once(on_a_card: OnACard, tmp_path: Path) -> None:
    on_a_card.driver.behaves(gpus=2, mine=GIB)
    on_a_card.order("new", patience=0.2)
    on_a_card.order("on", held=held())
    on_a_card.driver.behaves("hang")
    try:
        assert on_a_card.order("mark", "loaded")["loaded"]["device"] is None
    finally:
        on_a_card.driver.behaves(gpus=2, mine=GIB)
    found = on_a_card.order("mark", "first_step", patience=2.0)
    assert found["first_step"]["device"] is None
    assert found["first_step"]["reserved"] == 4 * GIB
    shutil.rmtree(tmp_path)
