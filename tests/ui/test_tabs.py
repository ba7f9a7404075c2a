"""The forms' handlers, called as Gradio calls them: what they answer, and what they refuse."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from studio.core.configfile import config_to_yaml
from studio.ui import chat, chatview, form, train, trainview
from studio.ui.chatview import Turn
from studio.ui.context import Studio
from studio.ui.gradio_import import gr
from studio.workspace.chat import Chat
from studio.workspace.presets import list_presets, load_preset
from studio.workspace.supervisor import Supervisor
from tests.fake_worker import FakeWorkers
from tests.ui.fake_chat import FakeChat
from tests.ui.made_runs import ended, make_run, metrics

T = TypeVar("T")


@pytest.fixture
def studio(workers: FakeWorkers) -> Iterator[Studio]:
    supervisor = Supervisor()
    yield Studio(supervisor, Chat(supervisor.launcher, supervisor.runs))
    supervisor.close()


def built(make: Callable[[], T]) -> T:
    """A tab's components, made inside a window. Gradio wants an event loop for it, and this thread may have one."""

    async def inside() -> T:
        with gr.Blocks():
            return make()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(inside())).result()


def event(**told: Any) -> Any:
    return gr.EventData(None, told)


def finished(studio: Studio, run_id: str = "20260101-1200-a", label: str = "A run") -> Path:
    """A run with an adapter to talk to."""
    folder = make_run(studio.supervisor.runs.folder, run_id, metrics(100), ended(), label=label)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    return folder


# -- Train --


class Trained:
    """The Train tab with its values, as the page keeps them."""

    def __init__(self, studio: Studio) -> None:
        first = form.to_values(form.laid_over({}, load_preset("quickstart")))
        self.tab = built(lambda: train.TrainTab(studio, trainview.build(first, "quickstart")))
        self.view = self.tab.view
        self.values = first
        self.base, self.faulty = "preset:quickstart", ""

    @property
    def state(self) -> list[Any]:
        picked = [self.values[name] for name in form.PICKED]
        return [self.base, self.faulty, *picked, form.written_page(self.values)]

    def take(self, updates: dict[Any, Any]) -> dict[Any, Any]:
        """Do with an answer what the page does with it."""
        for name, pick in self.view.picks.items():
            if "value" in updates.get(pick, {}):
                self.values[name] = updates[pick]["value"]
        self.values |= self.told(updates).get("values", {})
        self.base = updates.get(self.view.base, self.base)
        self.faulty = updates.get(self.view.faulty, self.faulty)
        return updates

    def told(self, updates: dict[Any, Any]) -> dict[str, Any]:
        """What the page's script is told."""
        found: dict[str, Any] = json.loads(updates.get(self.view.told, "{}"))
        return found

    def look(self, **typed: Any) -> dict[Any, Any]:
        self.values |= {name.replace("__", "."): text for name, text in typed.items()}
        return self.take(self.tab.looked_at(event(left=True), *self.state))

    def info(self, updates: dict[Any, Any], name: str) -> str:
        return str(updates[self.view.picks[name]]["info"])


@pytest.fixture
def trained(studio: Studio) -> Trained:
    return Trained(studio)


def test_a_look_tells_what_the_run_will_be(trained: Trained) -> None:
    updates = trained.look(training__per_device_train_batch_size="4", training__gradient_accumulation_steps="3")
    assert "12 (4 × 3)" in updates[trained.view.card]
    assert trained.told(updates)["effective"] == "= 12 rows a step"
    assert "--set training.gradient_accumulation_steps=3" in updates[trained.view.command]
    assert updates[trained.view.problem] == ""


def test_a_mistake_is_told_at_its_field_and_is_gone_once_mended(trained: Trained) -> None:
    bad = trained.look(training__learning_rate="fast")
    told = trained.told(bad)["bad"]
    assert told["name"] == "training.learning_rate"
    assert "Learning rate should be a number" in told["text"]
    assert "Learning rate" in bad[trained.view.problem]
    good = trained.look(training__learning_rate="1e-4")
    assert trained.told(good)["bad"] is None
    assert good[trained.view.problem] == ""


def test_a_dropdown_at_fault_is_marked_until_it_is_mended(trained: Trained) -> None:
    bad = trained.look(dataset__path="nothing")
    pick = trained.view.picks["dataset.path"]
    assert "bad" in bad[pick]["elem_classes"]
    assert trained.faulty == "dataset.path"
    good = trained.look(dataset__path="quickstart-sft")
    assert "bad" not in good[pick]["elem_classes"]
    assert trained.faulty == ""


def test_a_mistake_in_a_knob_of_one_method_is_told_at_that_method_s(trained: Trained) -> None:
    updates = trained.look(**{"method": "kto", "method.kto.beta": "-1", "method.dpo.beta": "-2"})
    assert trained.told(updates)["bad"]["name"] == "method.kto.beta"


def test_half_a_number_is_no_mistake_while_it_is_typed(trained: Trained) -> None:
    trained.values["training.learning_rate"] = "2e-"
    updates = trained.tab.looked_at(event(left=False), *trained.state)
    assert trained.view.told not in updates
    assert trained.view.card not in updates


@pytest.mark.parametrize(
    ("name", "typed"),
    [("model.name_or_path", "no such model"), ("dataset.path", "nothing"), ("dataset.path", "/etc/hosts")],
)
def test_what_is_not_there_is_told_before_anything_starts(trained: Trained, name: str, typed: str) -> None:
    updates = trained.look(**{name.replace(".", "__"): typed})
    assert "bad" in updates[trained.view.picks[name]]["elem_classes"]
    started = trained.tab.started("", *trained.state)
    assert started[trained.view.run] == ""
    assert trained.tab.studio.supervisor.runs.ids() == []


def test_start_starts_one_run_however_often_it_is_pressed(trained: Trained, workers: FakeWorkers) -> None:
    ids = {trained.tab.started("Mine", *trained.state)[trained.view.run] for _ in range(3)}
    assert len(ids) == 1
    assert trained.tab.studio.supervisor.runs.ids() == list(ids)
    run = trained.tab.studio.supervisor.runs.get(ids.pop())
    assert run.label == "Mine"
    asked = form.laid_over({}, load_preset("quickstart"))
    asked.dataset.exclude = []  # what the dataset leaves out, written down
    assert run.config == asked
    trained.values["training.seed"] = "7"
    other = trained.tab.started("Mine", *trained.state)[trained.view.run]
    assert other not in ids


def test_advice_is_taken_at_a_click(trained: Trained) -> None:
    assert "data-mend" in trained.look(dataset__validation_split="0")[trained.view.advice]
    updates = trained.take(trained.tab.mended(event(mend="no_validation"), *trained.state))
    assert trained.values["dataset.validation_split"] == "0.1"
    assert updates[trained.view.advice] == ""


def test_a_click_on_advice_that_was_never_given_changes_nothing(trained: Trained) -> None:
    before = dict(trained.values)
    trained.take(trained.tab.mended(event(mend="full_rate"), *trained.state))
    trained.take(trained.tab.mended(event(), *trained.state))
    assert trained.values == before


def test_saved_settings_are_a_preset_that_loads_again(trained: Trained) -> None:
    trained.look(training__seed="99")
    updates = trained.take(trained.tab.saved("My <b>own</b>", *trained.state))
    assert "<b>" not in updates[trained.view.saved]
    assert "My <b>own</b>" in [entry.title for entry in list_presets()]
    name = trained.base.partition(":")[2]
    trained.look(training__seed="1")
    trained.take(trained.tab.preset_picked(name, *trained.state))
    assert trained.values["training.seed"] == "99"


def test_a_preset_without_a_name_is_refused_in_its_place(trained: Trained) -> None:
    updates = trained.tab.saved(" ", *trained.state)
    assert "st-error" in updates[trained.view.saved]
    assert all(not entry.own for entry in list_presets())


def test_a_run_is_repeated_with_its_own_settings(trained: Trained, studio: Studio) -> None:
    folder = finished(studio, label="Before <i>")
    config = form.to_config({**trained.values, "training.seed": "5", "adapter.lora.target_modules": "q_proj, v_proj"})
    (folder / "run.yaml").write_text(config_to_yaml(config), encoding="utf-8")
    updates = trained.take(trained.tab.repeated(folder.name, *trained.state))
    assert form.to_config(trained.values) == config
    assert str(folder / "run.yaml") in updates[trained.view.command]
    assert "Before <i>" in updates[trained.view.preset]["info"]


@pytest.mark.parametrize("run_id", ["gone", "../../etc", "", "a" * 300])
def test_a_run_that_is_not_there_is_told(trained: Trained, run_id: str) -> None:
    updates = trained.tab.repeated(run_id, *trained.state)
    assert "There is no run" in updates[trained.view.problem]


def test_a_dataset_is_handed_over_with_its_length(trained: Trained) -> None:
    trained.values |= {"dataset.columns": "instruction: q", "dataset.exclude": "duplicate", "training.seed": "7"}
    given = json.dumps({"dataset": "quickstart-sft", "max_length": 128})
    updates = trained.take(trained.tab.handed(given, *trained.state))
    assert trained.values["dataset.path"] == "quickstart-sft"
    assert trained.values["training.max_length"] == "128"
    assert trained.values["training.seed"] == "7"
    config = form.to_config(trained.values)
    assert (config.dataset.columns, config.dataset.exclude) == ({}, None)
    assert "320 rows" in trained.info(updates, "dataset.path")


@pytest.mark.parametrize("given", ["{", "{}", '{"dataset": ["x"]}', '{"dataset": ""}', '{"max_length": null}'])
def test_what_is_no_dataset_changes_nothing(trained: Trained, given: str) -> None:
    before = dict(trained.values)
    trained.take(trained.tab.handed(given, *trained.state))
    assert trained.values == before


def test_a_run_is_handed_over_as_before(trained: Trained, studio: Studio) -> None:
    updates = trained.take(trained.tab.handed(finished(studio, label="Again").name, *trained.state))
    assert "Again" in updates[trained.view.preset]["info"]


def test_a_method_that_the_rows_don_t_fit_is_told_at_once_with_what_to_do(trained: Trained) -> None:
    updates = trained.look(method="dpo")
    assert set(trained.told(updates)["misfits"]) == {"dpo", "kto", "orpo", "cpo", "reward"}
    assert 'data-mend="misfit"' in updates[trained.view.advice]
    trained.take(trained.tab.mended(event(mend="misfit"), *trained.state))
    assert trained.values["method"] == "sft"
    assert trained.told(trained.look(dataset__path="quickstart-preference"))["misfits"].keys() >= {"sft", "grpo"}


def test_values_of_what_isn_t_chosen_stay_in_the_page_and_out_of_the_config(trained: Trained) -> None:
    trained.look(**{"method.grpo.temperature": "0.3", "adapter.vera.r": "77"})
    config = form.to_config(trained.values)
    assert (config.method.name, getattr(config.adapter, "type", "")) == ("sft", "lora")
    trained.look(method="grpo", adapter="vera")
    config = form.to_config(trained.values)
    assert getattr(config.method, "temperature", 0) == 0.3
    assert getattr(config.adapter, "r", 0) == 77


def test_reward_models_are_offered_where_rewards_are_chosen(trained: Trained, studio: Studio) -> None:
    folder = finished(studio, "20260101-1200-judge", label="Judge <b>")
    (folder / "run.yaml").write_text("method: {name: reward}\n", encoding="utf-8")
    finished(studio, "20260101-1201-other")
    offered = trained.told(trained.look(method="grpo"))["suggestions"]
    assert offered["method.grpo.rewards"] == [["Judge <b>", f"run:{folder.name}"]]
    assert "method.grpo.rewards" not in trained.told(trained.look(method="sft"))["suggestions"]


def test_what_the_page_sends_is_taken_as_far_as_it_is_known(trained: Trained) -> None:
    usual = {**trained.values, "method": "dpo", "unknown": 1}
    for sent, method in (("{", "sft"), ("[]", "sft"), ('{"method": "nope"}', "sft"), (json.dumps(usual), "dpo")):
        values = trained.view.read(["starter", "quickstart-sft", sent])
        assert set(values) == set(form.NAMES)
        assert values["method"] == method


# -- Chat --


class Talk:
    """The Chat tab with its conversation, as the page keeps it."""

    def __init__(self, studio: Studio, fake: FakeChat, target: str) -> None:
        whole = Studio(studio.supervisor, fake)  # type: ignore[arg-type]
        self.tab = built(lambda: chat.ChatTab(whole, chatview.build()))
        self.view, self.fake, self.target = self.tab.view, fake, target
        self.turns: list[Turn] = []

    def ask(self, question: str, system: str = "") -> Iterator[dict[Any, Any]]:
        for updates in self.tab.asked(self.target, self.turns, question, system, 0.0, 0.9, 64):
            self.turns = updates.get(self.view.turns, self.turns)
            yield updates


@pytest.fixture
def talk(studio: Studio) -> Talk:
    return Talk(studio, FakeChat(), f"run:{finished(studio).name}")


def test_both_sides_answer_the_same_question_with_their_own_past(talk: Talk) -> None:
    *_, last = talk.ask("first?", "Be brief.")
    assert "10 tokens, 5.0 tokens/s" in last[talk.view.sides["tuned"]]
    assert last[talk.view.send]["visible"] is True
    talk.turns[0].answers["base"].text = "what the base said"
    list(talk.ask("second?", "Be brief."))
    base, tuned = talk.fake.asked[1]["base"], talk.fake.asked[1]["tuned"]
    assert [message["role"] for message in base] == ["system", "user", "assistant", "user"]
    assert base[2]["content"] == "what the base said"
    assert tuned[2]["content"] == "one two three"
    assert base[-1]["content"] == tuned[-1]["content"] == "second?"
    assert talk.fake.asked[1]["settings"] == {"temperature": 0.0, "top_p": 0.9, "max_new_tokens": 64}


def test_a_model_alone_has_one_side(studio: Studio) -> None:
    talk = Talk(studio, FakeChat(), "starter")
    list(talk.ask("hello"))
    assert set(talk.fake.asked[0]) == {"base", "settings"}
    assert talk.tab.target_chosen("starter")[talk.view.tuned]["visible"] is False


def test_a_question_that_could_not_be_put_is_given_back(studio: Studio) -> None:
    talk = Talk(studio, FakeChat(refuses="There is no memory."), "starter")
    *_, last = talk.ask("hello")
    assert last[talk.view.input] == "hello"
    assert "There is no memory." in last[talk.view.problem]
    assert talk.turns == []
    assert not talk.tab._talking.locked()


def test_what_was_said_before_it_broke_stays(studio: Studio) -> None:
    talk = Talk(studio, FakeChat(breaks="The worker died."), "starter")
    *_, last = talk.ask("hello")
    assert "one" in last[talk.view.sides["base"]]
    assert "The worker died." in last[talk.view.problem]
    assert talk.turns[0].answers["base"].stopped


def test_stop_ends_the_answer_and_says_so(studio: Studio) -> None:
    talk = Talk(studio, FakeChat(endless=True), "starter")
    for updates in talk.ask("hello"):
        if "on and" in updates.get(talk.view.sides["base"], ""):
            talk.tab.stopped()
    assert talk.turns[0].answers["base"].stopped
    assert updates[talk.view.stop]["visible"] is False


def test_leaving_the_page_ends_the_answer_and_lets_others_talk(studio: Studio) -> None:
    talk = Talk(studio, FakeChat(endless=True), "starter")
    answers = talk.ask("hello")
    next(update for update in answers if "on and" in update.get(talk.view.sides["base"], ""))
    answers.close()  # type: ignore[attr-defined]
    assert talk.fake.halted.is_set()
    assert not talk.tab._talking.locked()


def test_two_conversations_take_turns(studio: Studio) -> None:
    fake = FakeChat(endless=True)
    talk = Talk(studio, fake, "starter")
    first = talk.ask("hello")
    next(update for update in first if "on and" in update.get(talk.view.sides["base"], ""))
    second = talk.tab.asked("starter", [], "and I?", "", 0.0, 0.9, 64)
    next(second)
    assert "next" in next(second)[talk.view.status]
    fake.endless = False
    talk.tab.stopped()
    list(first)
    *_, last = second
    assert "one two three" in last[talk.view.sides["base"]]


def test_regenerate_asks_the_last_question_again(talk: Talk) -> None:
    list(talk.ask("first?"))
    *_, last = talk.tab.asked_again(talk.target, talk.turns, "", 0.0, 0.9, 64)
    assert [turn.question for turn in last[talk.view.turns]] == ["first?"]
    assert talk.fake.asked[0]["base"] == talk.fake.asked[1]["base"]


@pytest.mark.parametrize("target", ["run:gone", "run:../../x", "nothing of the kind"])
def test_a_target_that_is_gone_is_replaced_and_told(talk: Talk, target: str) -> None:
    updates = talk.tab.opened(target, [])
    assert updates[talk.view.target]["value"] == talk.target
    assert "st-error" in updates[talk.view.problem]


def test_a_run_is_handed_over(talk: Talk) -> None:
    updates = talk.tab.handed(talk.target.removeprefix("run:"))
    assert updates[talk.view.target]["value"] == talk.target
    assert updates[talk.view.tuned]["visible"] is True


# -- all of them --


def test_the_forms_bring_none_of_what_trains() -> None:
    code = (
        "import sys, studio.ui.train, studio.ui.data, studio.ui.chat, studio.ui.export\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'peft', 'trl') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert told.stdout.strip() == "[]"
