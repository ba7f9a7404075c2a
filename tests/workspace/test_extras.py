"""Reward models, teachers and reward files: what their names mean when a run is submitted, and stay meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.core.inputs import Inputs
from studio.worker.trainers.rewards import reward_functions
from studio.workspace.extras import resolve_extras
from studio.workspace.home import models_dir
from studio.workspace.supervisor import Supervisor
from tests.fake_worker import FakeWorkers
from tests.workspace.test_models import make_model


def test_a_reward_file_that_is_changed_later_is_not_the_one_that_runs(workers: FakeWorkers, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def reward(completions, prompts, answers):\n    return [7] * len(completions)\n", encoding="utf-8")
    rewards = ["json", f"file:{path}"]
    make_model(models_dir() / "own")
    method = {"name": "grpo", "num_generations": 2, "rewards": rewards, "allow_code": True}
    supervisor = Supervisor()
    run_id = supervisor.submit(parse_config({"method": method, "model": {"name_or_path": "own"}}))
    supervisor.close()
    path.write_text("raise SystemExit", encoding="utf-8")
    folder = supervisor.runs.get(run_id).folder.path
    path.unlink()
    _, judge = reward_functions(rewards, folder, lambda name: pytest.fail(name))
    assert judge(completions=["a", "b"], prompts=["p", "p"], answer=["", ""]) == [7, 7]


def test_models_beside_the_trained_one_are_kept_by_their_names() -> None:
    for name in ("own", "judge"):
        make_model(models_dir() / name)
    method = {"name": "grpo", "num_generations": 2, "rewards": ["model:judge"]}
    found = resolve_extras(parse_config({"method": method}))
    assert found["model:judge"].model.path == str(models_dir() / "judge")
    teacher = parse_config({"method": {"name": "distill", "teacher_model_name_or_path": "judge"}})
    assert resolve_extras(teacher)["teacher"].model.name == "judge"
    inputs = Inputs("", found["model:judge"].model, None, extras=found)  # type: ignore[arg-type]
    assert inputs.extras == found


@pytest.mark.parametrize(
    ("method", "field", "words"),
    [
        ({"name": "grpo", "rewards": ["model:run:nothing"]}, "method.rewards", "no run 'nothing'"),
        ({"name": "grpo", "rewards": ["model:run:@2"]}, "method.rewards", "run of file 2 of several"),
        ({"name": "ppo", "rewards": ["model:nowhere"]}, "method.rewards", "no model 'nowhere'"),
        ({"name": "distill"}, "method.teacher_model_name_or_path", "no teacher yet"),
        ({"name": "distill", "teacher_model_name_or_path": "x"}, "method.teacher_model_name_or_path", "no model 'x'"),
    ],
)
def test_a_model_that_isnt_there_is_told_at_its_knob(method: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        resolve_extras(parse_config({"method": method}))
    assert told.value.field == field
