"""The machine's figures: the real NVML bindings over a fake driver, in their own process; the rest on made-up files."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from studio.workspace import hardware, memory, nvml
from tests.fake_nvml import FakeDriver, build_fake_nvml

PROJECT = Path(__file__).parents[2]
GIB = 1 << 30
NO_GPU = "No NVIDIA GPU found; training runs on the processor."

# Takes one order a line and answers each with one line of JSON. Snapshots are kept only where an order says so, and
# what else is on this computer (other cards, control groups) is out of sight.
READER = """
import dataclasses, json, sys, threading
from pathlib import Path
from studio.workspace import hardware
hardware.ROOT = Path(sys.argv[1])

def read(order):
    hardware.SNAPSHOT_SECONDS = order["keep"]
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(hardware.read_machine(hardware.ROOT)))
               for _ in range(order["readers"])]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return {"machines": [dataclasses.asdict(machine) for machine in seen], "threads": threading.active_count()}

def torch(order):
    return {"problem": hardware.torch_build_problem(), "imported": "torch" in sys.modules}

for line in sys.stdin:
    order = json.loads(line)
    print(json.dumps({"read": read, "torch": torch}[order["do"]](order)), flush=True)
"""


class Reader:
    """A process that reads the machine when told to."""

    def __init__(self, environment: dict[str, str], root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", READER, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=environment,
        )

    def order(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the reader ended: {self.process.stderr.read() if self.process.stderr else ''}"
        return dict(json.loads(answer))

    def read(self) -> dict[str, Any]:
        """One fresh look at the machine."""
        return dict(self.order(do="read", readers=1, keep=0)["machines"][0])

    def read_until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for _ in range(200):
            machine = self.read()
            if wanted(machine):
                return machine
            time.sleep(0.05)
        raise AssertionError(f"never came: {machine}")

    def end(self) -> None:
        """Ends it as a program ends by itself; whatever it had to complain about fails the test."""
        try:
            _, complaints = self.process.communicate(timeout=30)
        finally:
            self.process.kill()
        assert (self.process.returncode, complaints) == (0, "")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux":
        pytest.skip("the fake driver is a Linux library")
    return build_fake_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def driver(library: Path, tmp_path: Path) -> FakeDriver:
    return FakeDriver(library, tmp_path)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Reader]]:
    readers: list[Reader] = []
    root = tmp_path / "root"
    root.mkdir()

    def start_reader(environment: dict[str, str]) -> Reader:
        readers.append(Reader(environment, root))
        return readers[-1]

    yield start_reader
    for reader in readers:
        if reader.process.poll() is None:
            reader.end()


@pytest.fixture
def reader(driver: FakeDriver, start: Callable[[dict[str, str]], Reader]) -> Reader:
    return start(driver.environment())


def test_figures_of_a_card_come_as_the_driver_gives_them(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(total=16 * GIB, used=5 * GIB, load=37, temperature=71, power=212_500, limit=300_000)
    machine = reader.read()
    (gpu,) = machine["gpus"]
    assert machine["gpu_note"] is None
    assert (gpu["memory_total"], gpu["memory_used"], gpu["memory_free"]) == (16 * GIB, 5 * GIB, 11 * GIB)
    assert (gpu["load"], gpu["temperature"], gpu["power"], gpu["power_limit"]) == (37, 71, 212.5, 300)
    assert "RTX 4090" in gpu["name"]
    assert machine["driver"].startswith("580.")
    assert machine["cuda"] == "13.1"


def test_every_card_has_figures_of_its_own(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(gpus=2, load=10, gpu1_load=90, gpu1_total=8 * GIB)
    gpus = reader.read()["gpus"]
    assert [(gpu["index"], gpu["load"], gpu["memory_total"]) for gpu in gpus] == [(0, 10, 24 * GIB), (1, 90, 8 * GIB)]


def test_processes_are_named_and_listed_once(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(processes=3)
    processes = reader.read()["gpus"][0]["processes"]
    memory = {process["pid"]: process["memory_bytes"] for process in processes}
    assert memory == {900: None, 4000: GIB, 4001: 2 * GIB, 4002: 3 * GIB}
    assert len(processes) == len(memory)
    assert {process["name"] for process in processes} == {"python3"}


def test_clocks_link_energy_and_limits_come_as_the_driver_gives_them(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(
        clock=1410, clockmost=1980, memclock=5001, memclockmost=9501, pcie=1, pciemost=4, lanes=8, lanesmost=16
    )
    (gpu,) = reader.read()["gpus"]
    assert (gpu["clock"], gpu["clock_most"], gpu["memory_clock"], gpu["memory_clock_most"]) == (1410, 1980, 5001, 9501)
    assert [gpu[f"pcie_{name}"] for name in ("generation", "generation_most", "width", "width_most")] == [1, 4, 8, 16]
    driver.behaves(energy=3_600_000_000, least=100_000, most=450_000)
    (gpu,) = reader.read()["gpus"]
    assert (gpu["energy"], gpu["power_range"]) == (3_600_000, [100, 450])
    assert (gpu["mig"], gpu["parts"], gpu["slowed"]) == (None, [], [])


# nvml.h: NVML_CLOCKS_EVENT_REASON_...
@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x0, []),
        (0x1 | 0x2 | 0x10 | 0x100, []),  # idle, set so by somebody, in step with others, drawing: nothing is amiss
        (0x4, ["power_limit"]),
        (0x8 | 0x40, ["hardware", "heat_hardware"]),
        (0x20 | 0x80, ["heat", "power_brake"]),
        (1 << 40, []),
    ],
)
def test_why_a_card_is_slow_is_told_by_name(driver: FakeDriver, reader: Reader, bits: int, reasons: list[str]) -> None:
    for behaviour in ({}, {"nvmlDeviceGetCurrentClocksEventReasons": 13}):  # the call's name until 2023
        driver.behaves(slowed=bits, **behaviour)
        assert sorted(reader.read()["gpus"][0]["slowed"]) == sorted(reasons)


def test_a_card_that_is_shared_out_tells_of_its_parts(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(gpus=2, gpu1_mig=1, gpu1_parts=2, gpu0_mig=0)
    whole, shared = reader.read()["gpus"]
    assert (whole["mig"], whole["parts"]) == (False, [])
    assert shared["mig"] is True
    assert [(part["memory_total"], part["memory_used"]) for part in shared["parts"]] == [(5 * GIB, GIB)] * 2
    assert "1g.5gb" in shared["parts"][0]["name"]
    driver.behaves(mig=1, parts=2, nvmlDeviceGetMaxMigDeviceCount=3)
    assert reader.read()["gpus"][0]["parts"] == []


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("nvmlDeviceGetMemoryInfo", "memory_total"),
        ("nvmlDeviceGetUtilizationRates", "load"),
        ("nvmlDeviceGetPowerUsage", "power"),
        ("nvmlDeviceGetEnforcedPowerLimit", "power_limit"),
        ("nvmlDeviceGetPowerManagementLimitConstraints", "power_range"),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy"),
        ("nvmlDeviceGetClockInfo", "clock"),
        ("nvmlDeviceGetMaxClockInfo", "memory_clock_most"),
        ("nvmlDeviceGetCurrPcieLinkGeneration", "pcie_generation"),
        ("nvmlDeviceGetMaxPcieLinkWidth", "pcie_width_most"),
    ],
)
def test_a_figure_that_the_driver_refuses_is_unknown_and_the_others_stay(
    driver: FakeDriver, reader: Reader, call: str, field: str
) -> None:
    for code in (3, 4, 13, 999, 12345):  # not supported, no permission, no such call, unknown to all, to the bindings
        driver.behaves("ok", temperature=55, **{call: code})
        machine = reader.read()
        assert machine["gpus"][0][field] is None, code
        assert machine["gpus"][0]["temperature"] == 55
        assert machine["gpu_note"] is None
    driver.behaves()
    assert reader.read()["gpus"][0][field] is not None


def test_a_driver_without_the_old_temperature_call_is_asked_by_the_new_one(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(temperature=64, nvmlDeviceGetTemperature=13)
    assert reader.read()["gpus"][0]["temperature"] == 64


def test_garbage_becomes_unknown(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves("garbage", processes=2, mig=1, parts=1)
    machine = reader.read()
    (gpu,) = machine["gpus"]
    sums = ("memory_used", "memory_free", "load", "temperature", "power", "power_limit", "power_range", "energy")
    clocks = ("clock", "clock_most", "memory_clock", "memory_clock_most")
    link = ("pcie_generation", "pcie_generation_most", "pcie_width", "pcie_width_most")
    for field in (*sums, *clocks, *link, "mig"):
        assert gpu[field] is None, field
    assert (gpu["slowed"], gpu["parts"]) == ([], [])
    assert gpu["memory_total"] == 24 * GIB
    assert gpu["name"] == "NVIDIA GPU 0"
    assert (machine["driver"], machine["cuda"]) == (None, None)
    assert gpu["processes"]
    assert {(process["name"], process["memory_bytes"]) for process in gpu["processes"]} == {("unknown", None)}


def test_more_used_than_there_is_becomes_unknown(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(total=8 * GIB, used=8 * GIB + 1)
    gpu = reader.read()["gpus"][0]
    assert (gpu["memory_total"], gpu["memory_used"], gpu["memory_free"]) == (8 * GIB, None, None)
    driver.behaves(total=8 * GIB, used=8 * GIB)
    assert reader.read()["gpus"][0]["memory_used"] == 8 * GIB


def test_an_absurd_number_of_cards_is_not_believed(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(gpus=2**32 - 1)
    machine = reader.read()
    assert machine["gpus"] == []
    assert "can't be" in machine["gpu_note"]
    driver.behaves()
    assert len(reader.read()["gpus"]) == 1


def test_a_lost_card_is_noted_and_found_again(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(gpus=2, load=20)
    assert [gpu["load"] for gpu in reader.read()["gpus"]] == [20, 20]
    driver.behaves("lost", gpus=2, load=20)
    machine = reader.read()
    assert [gpu["load"] for gpu in machine["gpus"]] == [None, 20]
    assert "lost GPU 0" in machine["gpu_note"]
    driver.behaves(gpus=2, load=30)
    machine = reader.read()
    assert ([gpu["load"] for gpu in machine["gpus"]], machine["gpu_note"]) == ([30, 30], None)


def test_a_reloaded_driver_is_opened_again(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(load=20)
    assert reader.read()["gpus"][0]["load"] == 20
    driver.behaves("uninitialized")
    machine = reader.read()
    assert machine["gpus"] == []
    assert "asked again" in machine["gpu_note"]
    driver.behaves(load=30)
    machine = reader.read()
    assert (machine["gpus"][0]["load"], machine["gpu_note"]) == (30, None)


def test_a_driver_that_comes_back_between_two_readings_is_there_at_the_next(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves()
    assert reader.read()["gpus"]
    driver.behaves("uninitialized", nvmlDeviceGetCount_v2=9)
    assert reader.read()["gpus"] == []
    driver.behaves()
    assert reader.read()["gpus"]


def test_a_driver_that_vanishes_between_two_figures_gives_none_of_them(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(gpus=2, nvmlDeviceGetPowerUsage=1)
    machine = reader.read()
    assert machine["gpus"] == []
    assert "asked again" in machine["gpu_note"]


def test_a_card_that_is_lost_between_two_figures_has_none_of_them(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(nvmlDeviceGetPowerUsage=15)
    machine = reader.read()
    (gpu,) = machine["gpus"]
    assert (gpu["memory_total"], gpu["load"], gpu["power"]) == (None, None, None)
    assert "lost GPU 0" in machine["gpu_note"]


def test_a_driver_that_is_unloaded_and_loaded_under_a_running_studio(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves()
    assert reader.read()["gpus"]
    driver.behaves("uninitialized", nvmlDeviceGetCount_v2=9, nvmlInitWithFlags=9)
    for _ in range(2):
        machine = reader.read()
        assert (machine["gpus"], machine["gpu_note"]) == ([], NO_GPU)
    driver.behaves()
    assert reader.read()["gpus"]


@pytest.mark.parametrize(
    ("code", "words"),
    [(4, "may not"), (18, "restart the computer"), (15, "lost its card"), (999, "NVML error 999"), (777, "error 777")],
)
def test_a_driver_that_refuses_to_open_is_explained_and_asked_again(
    driver: FakeDriver, reader: Reader, code: int, words: str
) -> None:
    driver.behaves(nvmlInitWithFlags=code)
    machine = reader.read()
    assert machine["gpus"] == []
    assert words in machine["gpu_note"]
    driver.behaves()
    assert reader.read()["gpu_note"] is None


def test_a_card_that_this_account_may_not_open_is_listed_without_figures(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(nvmlDeviceGetHandleByIndex_v2=4)
    machine = reader.read()
    (gpu,) = machine["gpus"]
    assert gpu["memory_total"] is None
    assert "may not read GPU 0" in machine["gpu_note"]


def test_a_hanging_driver_gives_the_last_figures_with_their_time(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(load=42)
    before = int(time.time())
    good = reader.read()
    moments = {time.strftime("%H:%M:%S", time.localtime(second)) for second in range(before, int(time.time()) + 1)}
    driver.behaves("hang")
    stale = reader.read()
    assert stale["gpus"] == good["gpus"]
    match = re.fullmatch(r"The NVIDIA driver doesn't answer; figures are from (\d\d:\d\d:\d\d)\.", stale["gpu_note"])
    assert match is not None
    assert match[1] in moments
    assert stale["ram_total"] == good["ram_total"]

    driver.behaves(load=43)
    machine = reader.read_until(lambda machine: machine["gpu_note"] is None)
    assert machine["gpus"][0]["load"] == 43


def test_a_driver_that_hangs_from_the_start_is_noted_and_recovers(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves("hang")
    machine = reader.read()
    assert (machine["gpus"], machine["gpu_note"]) == ([], "The NVIDIA driver doesn't answer.")
    driver.behaves()
    assert reader.read_until(lambda machine: machine["gpu_note"] is None)["gpus"]


def test_a_hanging_driver_holds_one_thread_and_delays_readers_only_once(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves("hang")
    alone = reader.order(do="read", readers=1, keep=0)["threads"]
    began = time.monotonic()
    answer = reader.order(do="read", readers=40, keep=0)
    # Were each to wait for itself, it would be 40 deadlines.
    assert time.monotonic() - began < 10 * nvml.DEADLINE_SECONDS
    assert len(answer["machines"]) == 40
    assert all(machine["gpu_note"] for machine in answer["machines"])
    assert answer["threads"] == alone
    assert driver.calls("nvmlInitWithFlags") == 1


def test_a_hanging_driver_does_not_keep_the_program_from_ending(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves("hang")
    assert reader.read()["gpu_note"]
    reader.end()


def test_who_has_more_patience_gets_the_slow_drivers_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def ask() -> nvml.DriverReading:
        answered.wait()
        return nvml.DriverReading(gpus=(hardware.Gpu(0, "card"),))

    monkeypatch.setattr(nvml, "DEADLINE_SECONDS", 0)
    watch = nvml.DriverWatch(ask)
    assert watch.read().note == "The NVIDIA driver doesn't answer."
    threading.Timer(0.1, answered.set).start()
    assert watch.read(deadline=60).gpus


def test_many_viewers_cost_one_reading(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves()
    machines = reader.order(do="read", readers=25, keep=600)["machines"]
    assert len(machines) == 25
    assert all(machine == machines[0] for machine in machines)
    assert driver.calls("nvmlDeviceGetCount_v2") == 1
    reader.read()
    assert driver.calls("nvmlDeviceGetCount_v2") == 2


def test_the_driver_is_opened_once_for_many_readings(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves()
    for _ in range(3):
        reader.read()
    assert driver.calls("nvmlInitWithFlags") == 1


def test_a_machine_without_the_library_says_that_training_runs_on_the_processor(
    start: Callable[[dict[str, str]], Reader], driver: FakeDriver, tmp_path: Path
) -> None:
    # A file that is no library: the loader stops there, so this holds on a computer with a real driver, too.
    folder = tmp_path / "nothing"
    folder.mkdir()
    (folder / "libnvidia-ml.so.1").write_text("no library")
    machine = start({**driver.environment(), "LD_LIBRARY_PATH": str(folder)}).read()
    assert (machine["gpus"], machine["gpu_note"], machine["driver"]) == ([], NO_GPU, None)


def test_a_driver_without_a_card_says_that_training_runs_on_the_processor(driver: FakeDriver, reader: Reader) -> None:
    driver.behaves(gpus=0)
    machine = reader.read()
    assert (machine["gpus"], machine["gpu_note"]) == ([], NO_GPU)
    driver.behaves(gpus=1)
    assert len(reader.read()["gpus"]) == 1


def test_without_a_compiler_the_fake_driver_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="install gcc"):
        build_fake_nvml(tmp_path)


# Other cards ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty tree in place of /, and every look a fresh one."""
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(hardware, "ROOT", folder)
    monkeypatch.setattr(hardware, "SNAPSHOT_SECONDS", 0)
    return folder


@pytest.fixture
def no_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    """This computer may have a card; these tests are about one that hasn't."""
    monkeypatch.setattr(hardware, "_watch", hardware._MachineWatch())
    monkeypatch.setattr(hardware._watch, "driver", nvml.DriverWatch(nvml.DriverReading))


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def put_card(root: Path, slot: str, vendor: str, kind: str) -> None:
    put(root / f"sys/bus/pci/devices/{slot}/vendor", vendor + "\n")
    put(root / f"sys/bus/pci/devices/{slot}/class", kind + "\n")


@pytest.mark.usefixtures("no_nvidia")
@pytest.mark.skipif(sys.platform != "linux", reason="cards are found in /sys")
class TestOtherCards:
    def note(self, tmp_path: Path) -> str:
        return hardware.read_machine(tmp_path).gpu_note or ""

    @pytest.mark.parametrize(("vendor", "maker"), [("0x1002", "AMD"), ("0x8086", "Intel")])
    def test_figures_of_other_makers_are_said_not_to_be_read(
        self, root: Path, tmp_path: Path, vendor: str, maker: str
    ) -> None:
        put_card(root, "0000:00:02.0", vendor, "0x030000")
        assert self.note(tmp_path).endswith(f"Figures of {maker} GPUs aren't read here.")

    def test_a_torch_for_the_other_card_is_not_said_to_run_on_the_processor(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_card(root, "0000:00:02.0", "0x1002", "0x120000")
        monkeypatch.setattr(hardware, "_torch_build", lambda: hardware._TorchBuild(None, "7.1", None))
        assert "processor" not in self.note(tmp_path)
        monkeypatch.setattr(hardware, "_torch_build", lambda: hardware._TorchBuild(None, None, None))
        assert "processor" in self.note(tmp_path)

    def test_other_devices_of_those_makers_are_no_cards(self, root: Path, tmp_path: Path) -> None:
        put_card(root, "0000:00:1f.3", "0x8086", "0x040300")  # sound
        put_card(root, "0000:01:00.0", "0x10de", "0x040300")
        assert self.note(tmp_path) == NO_GPU

    def test_an_nvidia_card_without_its_driver_is_named(self, root: Path, tmp_path: Path) -> None:
        put_card(root, "0000:01:00.0", "0x10de", "0x030200")
        assert "Install NVIDIA's driver" in self.note(tmp_path)


@pytest.mark.usefixtures("no_nvidia", "root")
class TestCardsByTorch:
    def test_other_makers_cards_are_named_as_torch_named_them(self, studio_home: Path, tmp_path: Path) -> None:
        cards = [{"name": "AMD Radeon RX 7900 XTX", "memory_total": 24 * GIB}, {"name": "Arc", "memory_total": 8 * GIB}]
        put(studio_home / "calibration.json", json.dumps({"cards": cards}))
        machine = hardware.read_machine(tmp_path)
        assert [(g.index, g.name, g.memory_total, g.memory_free, g.load) for g in machine.gpus] == [
            (0, "AMD Radeon RX 7900 XTX", 24 * GIB, None, None),
            (1, "Arc", 8 * GIB, None, None),
        ]
        assert "torch names" in (machine.gpu_note or "")

    @pytest.mark.parametrize(
        "cards", ["", "{", '{"cards": 7}', '{"cards": [1, null]}', '{"cards": []}', '{"schema": 1, "rates": {}}']
    )
    def test_a_damaged_answer_names_none(self, studio_home: Path, tmp_path: Path, cards: str) -> None:
        put(studio_home / "calibration.json", cards)
        assert hardware.read_machine(tmp_path).gpus == ()
        assert hardware.read_machine(tmp_path).gpu_note == NO_GPU

    def test_odd_names_and_sizes_are_unknown(self, studio_home: Path, tmp_path: Path) -> None:
        put(studio_home / "calibration.json", json.dumps({"cards": [{"name": "\x1b[2J", "memory_total": -1}]}))
        (card,) = hardware.read_machine(tmp_path).gpus
        assert (card.name, card.memory_total) == ("unknown", None)


@pytest.mark.usefixtures("no_nvidia", "root")
def test_an_apple_computer_is_told_that_its_figures_are_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    hardware._os_name.cache_clear()
    note = hardware.read_machine(tmp_path).gpu_note
    hardware._os_name.cache_clear()
    assert note == "No NVIDIA GPU found. Figures of Apple GPUs aren't read here."


# Memory ---------------------------------------------------------------------------------------------------------------

V2_MOUNT = "35 24 0:30 {root} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "36 24 0:32 {root} /sys/fs/cgroup/memory rw,nosuid shared:13 - cgroup cgroup rw,memory\n"


def put_group_v2(folder: Path, limit: int | str, used: int, inactive: int = 0) -> None:
    put(folder / "memory.max", f"{limit}\n")
    put(folder / "memory.current", f"{used}\n")
    put(folder / "memory.stat", f"anon 4096\ninactive_file {inactive}\nactive_file 8192\n")


def put_group_v1(folder: Path, limit: int, used: int, inactive: int = 0) -> None:
    put(folder / "memory.limit_in_bytes", f"{limit}\n")
    put(folder / "memory.usage_in_bytes", f"{used}\n")
    put(folder / "memory.stat", f"cache 4096\ninactive_file 1\ntotal_inactive_file {inactive}\n")


def ram(tmp_path: Path) -> tuple[int | None, int | None, int | None]:
    machine = hardware.read_machine(tmp_path)
    return machine.ram_total, machine.ram_used, machine.ram_available


MIB = 1 << 20  # small limits, so that they are lower than any computer's memory


@pytest.mark.usefixtures("no_nvidia")
class TestMemory:
    def test_without_a_limit_all_memory_counts(self, root: Path, tmp_path: Path) -> None:
        total, used, available = ram(tmp_path)
        assert total == psutil.virtual_memory().total
        assert used is not None and available is not None
        assert used + available == total
        assert 0 < available < total

    def test_a_container_limit_counts_and_cache_that_can_go_is_not_used(self, root: Path, tmp_path: Path) -> None:
        put(root / "proc/self/cgroup", "0::/\n")
        put(root / "proc/self/mountinfo", V2_MOUNT.format(root="/"))
        put_group_v2(root / "sys/fs/cgroup", 64 * MIB, used=40 * MIB, inactive=10 * MIB)
        assert ram(tmp_path) == (64 * MIB, 30 * MIB, 34 * MIB)

    def test_the_limit_of_a_group_around_ours_counts(self, root: Path, tmp_path: Path) -> None:
        put(root / "proc/self/cgroup", "0::/user.slice/job\n")
        put(root / "proc/self/mountinfo", V2_MOUNT.format(root="/"))
        put_group_v2(root / "sys/fs/cgroup/user.slice", 64 * MIB, used=50 * MIB)
        put_group_v2(root / "sys/fs/cgroup/user.slice/job", "max", used=5 * MIB)
        assert ram(tmp_path) == (64 * MIB, 50 * MIB, 14 * MIB)

    def test_version_1_limits_count_beside_an_empty_version_2(self, root: Path, tmp_path: Path) -> None:
        put(root / "proc/self/cgroup", "8:pids:/\n4:cpu,memory:/batch/7\n0::/\n")
        put(
            root / "proc/self/mountinfo",
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
            + V1_MOUNT.format(root="/")
            + V2_MOUNT.format(root="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
        )
        put_group_v1(root / "sys/fs/cgroup/memory", (1 << 63) - 4096, used=GIB)
        put_group_v1(root / "sys/fs/cgroup/memory/batch/7", 128 * MIB, used=100 * MIB, inactive=20 * MIB)
        assert ram(tmp_path) == (128 * MIB, 80 * MIB, 48 * MIB)

    def test_a_container_that_knows_its_group_by_the_hosts_name(self, root: Path, tmp_path: Path) -> None:
        put(root / "proc/self/cgroup", "4:memory:/docker/3f9a\n")
        put(root / "proc/self/mountinfo", V1_MOUNT.format(root="/docker/3f9a"))
        put_group_v1(root / "sys/fs/cgroup/memory", 32 * MIB, used=8 * MIB)
        assert ram(tmp_path) == (32 * MIB, 8 * MIB, 24 * MIB)

    @pytest.mark.parametrize("limit", ["max", str(1 << 62), "-1", "", "lots"])
    def test_a_limit_above_the_memory_or_none_at_all_changes_nothing(
        self, root: Path, tmp_path: Path, limit: str
    ) -> None:
        put(root / "proc/self/cgroup", "0::/a\n")
        put(root / "proc/self/mountinfo", V2_MOUNT.format(root="/"))
        put_group_v2(root / "sys/fs/cgroup/a", limit, used=MIB)
        assert ram(tmp_path)[0] == psutil.virtual_memory().total

    def test_more_in_use_than_the_limit_leaves_nothing(self, root: Path, tmp_path: Path) -> None:
        put(root / "proc/self/cgroup", "0::/\n")
        put(root / "proc/self/mountinfo", V2_MOUNT.format(root="/"))
        put_group_v2(root / "sys/fs/cgroup", 64 * MIB, used=70 * MIB)
        assert ram(tmp_path) == (64 * MIB, 64 * MIB, 0)

    def test_a_host_with_less_left_than_the_limit_allows_leaves_that(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(root / "proc/self/cgroup", "0::/\n")
        put(root / "proc/self/mountinfo", V2_MOUNT.format(root="/"))
        put_group_v2(root / "sys/fs/cgroup", 64 * MIB, used=4 * MIB)
        host = SimpleNamespace(total=512 * MIB, available=3 * MIB)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: host)
        assert ram(tmp_path) == (64 * MIB, 4 * MIB, 3 * MIB)

    @pytest.mark.parametrize("path", ["", "\x00", "/../../outside", "/a/../../../etc"])
    def test_a_group_path_that_leads_nowhere_is_survived(self, root: Path, tmp_path: Path, path: str) -> None:
        put(root / "proc/self/cgroup", f"0::{path}\nnonsense\n")
        put(root / "proc/self/mountinfo", "nonsense\n - \n" + V2_MOUNT.format(root="/"))
        put_group_v2(root / "sys/fs/cgroup", 64 * MIB, used=MIB)
        put_group_v2(root / "sys/outside", 2 * MIB, used=MIB)
        assert ram(tmp_path)[0] == 64 * MIB


def test_those_who_hold_the_most_memory_are_named_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = memory.holders(3)
    assert len(found) <= 3
    assert [holder.memory_bytes for holder in found] == sorted((h.memory_bytes for h in found), reverse=True)
    mine = next(holder for holder in memory.holders(100_000) if holder.pid == os.getpid())
    assert mine.memory_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)

    def hidden(*_: object) -> None:
        raise PermissionError("hidden")

    monkeypatch.setattr(psutil, "process_iter", hidden)
    assert memory.holders(3) == ()


# The rest of the machine ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_nvidia")
class TestMachine:
    def test_the_processors_name_is_the_systems(self, root: Path, tmp_path: Path) -> None:
        put(root / "proc/cpuinfo", "processor\t: 0\nmodel name\t: Example 9000 @ 4 GHz\n\nprocessor\t: 1\n")
        assert hardware.read_machine(tmp_path).cpu_name == "Example 9000 @ 4 GHz"

    def test_a_processor_without_a_name_still_has_one_shown(self, root: Path, tmp_path: Path) -> None:
        put(root / "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 50.00\n")
        assert hardware.read_machine(tmp_path).cpu_name

    def test_load_is_the_share_of_time_spent_working(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seconds = iter([(10.0, 100.0), (13.0, 104.0), (13.0, 104.0), (13.0, 108.0)])
        monkeypatch.setattr(hardware._Processor, "_seconds", staticmethod(lambda: next(seconds)))
        monkeypatch.setattr(hardware._watch, "_processor", hardware._Processor())
        # The third look comes before any time has passed: the load seen last stands.
        assert [hardware.read_machine(tmp_path).cpu_load for _ in range(3)] == [75.0, 75.0, 0.0]

    def test_a_machine_that_tells_nothing_is_read_all_the_same(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def silent(*_: object) -> None:
            raise PermissionError("hidden")

        monkeypatch.setattr(psutil, "virtual_memory", silent)
        monkeypatch.setattr(psutil, "cpu_times", silent)
        monkeypatch.setattr(shutil, "disk_usage", silent)
        machine = hardware.read_machine(tmp_path)
        assert (machine.ram_total, machine.ram_used, machine.ram_available) == (None, None, None)
        assert (machine.cpu_load, machine.disk_total, machine.disk_free) == (None, None, None)
        assert machine.cpu_count >= 1

    def test_the_disk_is_that_of_the_nearest_folder_that_exists(self, root: Path, tmp_path: Path) -> None:
        there, below = hardware.read_machine(tmp_path), hardware.read_machine(tmp_path / "not" / "there" / "yet")
        assert there.disk_total == below.disk_total == shutil.disk_usage(tmp_path).total
        assert there.disk_free is not None
        assert 0 < there.disk_free <= shutil.disk_usage(tmp_path).total

    def test_a_snapshot_is_of_the_path_that_was_asked_for(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Path] = []

        def disk(path: Path) -> tuple[int, int]:
            asked.append(path)
            return 1, 1

        monkeypatch.setattr(hardware, "SNAPSHOT_SECONDS", 600)
        monkeypatch.setattr(hardware, "_disk", disk)
        for path in (tmp_path, tmp_path, root):
            hardware.read_machine(path)
        assert asked == [tmp_path, root]

    # The thread's traceback goes to the log, which is what this warning stands for.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_fault_of_our_own_on_the_drivers_thread_reaches_no_reader(self) -> None:
        failing = True

        def ask() -> nvml.DriverReading:
            if failing:
                raise AttributeError("a slip")
            return nvml.DriverReading(gpus=(hardware.Gpu(0, "card"),))

        watch = nvml.DriverWatch(ask)
        assert watch.read().note == "The NVIDIA driver doesn't answer."
        for thread in threading.enumerate():
            if thread.name == "nvidia-driver":
                thread.join()
        failing = False
        assert watch.read().gpus


# Versions and torch's build -------------------------------------------------------------------------------------------


def test_versions_name_what_is_there_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_PACKAGES", (*hardware._PACKAGES, "no-such-package-anywhere"))
    found = hardware.versions()
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert found["no-such-package-anywhere"] == "missing"
    assert set(found) >= {"torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate", "gradio"}
    assert re.match(r"\d+\.\d", found["nvidia-ml-py"])


def install_torch(folder: Path, version: str, version_module: str | None) -> Path:
    """A torch in `folder` that breaks when it is imported."""
    put(folder / "torch/__init__.py", "raise AssertionError('torch was imported')\n")
    put(folder / f"torch-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    if version_module is not None:
        put(folder / "torch/version.py", version_module)
    return folder


WITHOUT_CUDA = "from typing import Optional\n__version__ = '2.13.0'\ncuda: Optional[str] = None\nhip = None\n"
WITH_CUDA = "from typing import Optional\n__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip = None\n"


@pytest.mark.parametrize(
    ("version", "version_module", "is_problem"),
    [
        ("2.13.0+cpu", WITHOUT_CUDA, True),
        ("2.13.0", WITHOUT_CUDA, True),  # as on Windows, where the index's torch has no CUDA and doesn't say so
        ("2.13.0+cpu", None, True),
        ("2.13.0+cpu", "cuda = = None", True),
        ("2.13.0+cu130", WITH_CUDA, False),
        ("2.13.0", WITH_CUDA, False),
        ("2.13.0", WITH_CUDA.replace(": Optional[str]", ""), False),
        ("2.13.0", None, False),
    ],
)
def test_a_torch_without_cuda_beside_a_card_is_a_problem(
    driver: FakeDriver,
    start: Callable[[dict[str, str]], Reader],
    tmp_path: Path,
    version: str,
    version_module: str | None,
    is_problem: bool,
) -> None:
    folder = install_torch(tmp_path / "packages", version, version_module)
    driver.behaves()
    answer = start({**driver.environment(), "PYTHONPATH": str(folder)}).order(do="torch")
    assert (answer["problem"] is not None) == is_problem
    assert not answer["imported"]
    if is_problem:
        assert "without CUDA" in answer["problem"]
        assert f"{sys.executable} -m pip" in answer["problem"]


@pytest.mark.parametrize("figures", [{"gpus": 0}, {"nvmlInitWithFlags": 9}])
def test_a_torch_without_cuda_is_no_problem_without_a_card(
    driver: FakeDriver, start: Callable[[dict[str, str]], Reader], tmp_path: Path, figures: dict[str, int]
) -> None:
    folder = install_torch(tmp_path / "packages", "2.13.0+cpu", WITHOUT_CUDA)
    driver.behaves("ok", **figures)
    assert start({**driver.environment(), "PYTHONPATH": str(folder)}).order(do="torch")["problem"] is None


def test_a_missing_torch_is_not_this_problem(
    driver: FakeDriver, start: Callable[[dict[str, str]], Reader], tmp_path: Path
) -> None:
    # An entry of None in sys.modules is how Python itself marks a module that can't be had.
    put(tmp_path / "packages/sitecustomize.py", "import sys\nsys.modules['torch'] = None\n")
    driver.behaves()
    reader = start({**driver.environment(), "PYTHONPATH": str(tmp_path / "packages")})
    assert reader.order(do="torch")["problem"] is None
