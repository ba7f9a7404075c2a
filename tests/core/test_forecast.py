"""Forecasts: the range and what is made of it, the largest that fits, what stands beside memory."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.correction import Correction
from studio.core.estimate import Device, estimate
from studio.core.forecast import Forecast, Surroundings, again, forecast, make_it_fit
from studio.core.shapes import from_config
from studio.core.work import work, work_kind
from tests.core.published import LLAMA_8B

GIB = 2**30
LLAMA = from_config(LLAMA_8B)
SMALL = from_config({**LLAMA_8B, "hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8,
                     "num_key_value_heads": 2, "num_hidden_layers": 6, "vocab_size": 8000})  # fmt: skip


def config_of(**training: Any) -> RunConfig:
    return RunConfig.model_validate({"training": training, "dataset": {"path": None}, "hardware": {"device": "cuda"}})


def told(free: float | None, config: RunConfig | None = None, **more: Any) -> Forecast:
    """Llama 8B on a card of which so many GiB are free."""
    memory = None if free is None else round(free * GIB)
    return forecast(config or config_of(), LLAMA, device=Device(memory=memory, free=memory), **more)


def test_the_range_is_the_corrections_around_what_the_device_shows() -> None:
    found = told(24, correction=Correction(low=-0.1, high=0.2, reserved_ratio=1.1, overhead=10**9))
    plain = estimate(config_of(), LLAMA, device=Device(overhead=10**9))
    assert found.device == round(plain.reserved * 1.1) + 10**9
    assert (found.low, found.high) == (round(found.device * 0.9), round(found.device * 1.2))
    assert found.estimate.allocated == plain.allocated  # never scaled


@pytest.mark.parametrize(
    ("free", "verdict", "fits"), [(24.0, "fits", True), (19.0, "tight", True), (12.0, "over", False)]
)
def test_the_verdict_is_the_ranges_against_what_is_free(free: float, verdict: str, fits: bool) -> None:
    found = told(free)
    assert (found.verdict, found.fits) == (verdict, fits)
    assert (found.high <= free * GIB) == (verdict == "fits")


def test_where_nobody_knows_what_is_free_nothing_is_promised() -> None:
    found = told(None)
    assert (found.verdict, found.fits, found.free) == ("unknown", None, None)
    assert found.largest_micro_batch is None and found.largest_max_length is None
    assert make_it_fit(found) == (found.config, [])


def test_the_largest_fits_and_one_more_does_not() -> None:
    found = told(24)
    batch, length = found.largest_micro_batch, found.largest_max_length
    assert batch is not None and length is not None
    for knob, most in (("per_device_train_batch_size", batch), ("max_length", length)):
        assert again(found, config_of(**{knob: most})).fits
        assert not again(found, config_of(**{knob: most + 1})).fits


def test_rows_that_are_short_take_less_than_the_longest_row_there_may_be() -> None:
    config = config_of(per_device_train_batch_size=8, max_length=4096, gradient_checkpointing=False)
    long, short = told(80, config), told(80, config, lengths=[300] * 5000)
    assert short.estimate.length == 300 and long.estimate.length == 4096
    assert short.device < long.device and short.lengths_known and not long.lengths_known
    assert short.estimate.allocated == told(80, config, lengths=[300] * 8).estimate.allocated


def test_made_to_fit_all_of_the_range_does() -> None:
    found = told(9.5, config_of(per_device_train_batch_size=8, gradient_checkpointing=False))
    assert found.verdict == "over"
    config, made = make_it_fit(found)
    assert made and again(found, config).verdict == "fits"
    assert config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps == 32


def test_time_and_energy_follow_from_what_was_measured() -> None:
    config = config_of(max_length=128, num_train_epochs=1)
    whole = work(config, LLAMA, rows=1000)
    assert whole is not None
    rates = {work_kind(config, "cuda"): 5e13}
    unknown = told(24, config, rows=1000, surroundings=Surroundings(power_limit=300.0))
    assert (unknown.seconds, unknown.kwh, unknown.steps) == (None, None, whole.steps)
    known = told(24, config, rows=1000, correction=Correction(rates=rates))
    assert known.seconds == pytest.approx((whole.flops + whole.evaluation) / 5e13) and known.kwh is None
    limited = told(24, config, rows=1000, correction=Correction(rates=rates), surroundings=unknown.surroundings)
    measured = told(24, config, rows=1000, correction=Correction(rates=rates, draw=100.0),
                    surroundings=unknown.surroundings)  # fmt: skip
    assert limited.kwh == pytest.approx(known.seconds * 300 / 3.6e6)
    assert measured.kwh == pytest.approx(limited.kwh / 3)


def test_it_is_told_under_the_names_that_were_promised() -> None:
    promised = {"allocated", "reserved", "device", "parts", "peak_moment", "fits", "free", "largest_micro_batch",
                "largest_max_length", "advice", "host_ram", "disk", "steps", "tokens", "seconds", "kwh"}  # fmt: skip
    found = told(24).to_dict()
    assert promised <= set(found)
    assert sum(found["parts"].values()) == found["allocated"]
    assert all({"change", "saves", "cost"} == set(one) for one in found["advice"])
    assert promised - set(told(24).quick()) == {"largest_micro_batch", "largest_max_length", "advice"}


# -- beside the device ------------------------------------------------------------------------------------------------


def test_disk_is_what_a_run_writes() -> None:
    config = config_of(save_total_limit=3)
    found = told(24, config, surroundings=Surroundings(download=123, disk_free=10**12))
    # r 16 on the seven matrices of 32 layers, in float32; Adam holds two more of each
    numbers = 16 * 32 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    disk = found.disk
    assert disk["download"] == 123 and disk["free"] == 10**12
    assert disk["final"] == pytest.approx(4 * numbers, rel=0.07)
    assert disk["checkpoints"] == pytest.approx(4 * 3 * 4 * numbers, rel=0.03)
    assert disk["merge"] == pytest.approx(LLAMA.bytes, rel=0.001)
    assert disk["total"] == sum(disk[part] for part in ("download", "checkpoints", "final", "merge"))


def test_a_whole_models_result_is_a_model_and_nothing_is_merged() -> None:
    config = RunConfig.model_validate({"adapter": None, "model": {"dtype": "float32"}, "dataset": {"path": None}})
    found = forecast(config, SMALL, device=Device())
    assert found.disk["final"] == pytest.approx(4 * SMALL.numel, rel=0.15)
    assert (found.disk["merge"], found.host_ram["merging"]) == (0, 0)


def test_learnt_prompts_are_never_merged() -> None:
    config = RunConfig.model_validate({"adapter": {"type": "prefix_tuning"}, "dataset": {"path": None}})
    found = forecast(config, SMALL, device=Device())
    assert (found.disk["merge"], found.host_ram["merging"]) == (0, 0)


def test_a_paged_optimizer_takes_the_computers_memory_instead() -> None:
    plain, paged = (told(24, config_of(optim=optim)).host_ram for optim in ("adamw_8bit", "paged_adamw_8bit"))
    assert paged["training"] > plain["training"]
    assert told(24, config_of(optim="paged_adamw_8bit")).disk["checkpoints"] == pytest.approx(
        told(24, config_of(optim="adamw_8bit")).disk["checkpoints"], rel=0.02
    )


def test_on_a_processor_the_device_is_the_computers_memory() -> None:
    found = forecast(
        config_of(), SMALL, device=Device("cpu", free=8 * GIB), surroundings=Surroundings(ram_free=8 * GIB)
    )
    assert found.host_ram["training"] == found.estimate.device
    assert found.host_ram["peak"] >= found.estimate.device and found.host_ram["free"] == 8 * GIB
