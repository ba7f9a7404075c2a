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
from studio.ui import chat, chatview, data, dataview, export, exportview, form, train, trainview
from studio.ui.chatview import Turn
from studio.ui.context import Studio
from studio.ui.gradio_import import gr
from studio.workspace.chat import Chat
from studio.workspace.datasets import add_dataset, list_datasets
from studio.workspace.presets import list_presets, load_preset
from studio.workspace.supervisor import Supervisor
from tests.fake_worker import FakeWorkers, until
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
    """A run with an adapter to export and to talk to."""
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
        return [self.base, self.faulty, *(self.values[name] for name in form.NAMES)]

    def take(self, updates: dict[Any, Any]) -> dict[Any, Any]:
        """Do with an answer what the page does with it."""
        for name, control in self.tab.form.controls.items():
            if "value" in updates.get(control, {}):
                self.values[name] = updates[control]["value"]
        self.base = updates.get(self.view.base, self.base)
        self.faulty = updates.get(self.view.faulty, self.faulty)
        return updates

    def look(self, **typed: str) -> dict[Any, Any]:
        self.values |= {name.replace("__", "."): text for name, text in typed.items()}
        return self.take(self.tab.looked_at(event(left=True), *self.state))

    def info(self, updates: dict[Any, Any], name: str) -> str:
        return str(updates[self.tab.form.controls[name]]["info"])


@pytest.fixture
def trained(studio: Studio) -> Trained:
    return Trained(studio)


def test_a_look_tells_what_the_run_will_be(trained: Trained) -> None:
    updates = trained.look(training__per_device_train_batch_size="4", training__gradient_accumulation_steps="3")
    assert "12 (4 × 3)" in updates[trained.view.card]
    assert updates[trained.view.effective] == "= 12 rows a step"
    assert "--set training.gradient_accumulation_steps=3" in updates[trained.view.command]
    assert updates[trained.view.problem] == ""


def test_a_mistake_is_told_at_its_field_and_is_gone_once_mended(trained: Trained) -> None:
    bad = trained.look(training__learning_rate="fast")
    control = trained.tab.form.controls["training.learning_rate"]
    assert "Learning rate should be a number" in bad[control]["info"]
    assert "bad" in bad[control]["elem_classes"]
    assert "Learning rate" in bad[trained.view.problem]
    good = trained.look(training__learning_rate="1e-4")
    assert "bad" not in good[control]["elem_classes"]
    assert trained.info(good, "training.learning_rate") == form.note("training.learning_rate")
    assert trained.faulty == ""


def test_half_a_number_is_no_mistake_while_it_is_typed(trained: Trained) -> None:
    trained.values["training.learning_rate"] = "2e-"
    updates = trained.tab.looked_at(event(left=False), *trained.state)
    assert trained.tab.form.controls["training.learning_rate"] not in updates
    assert trained.view.card not in updates


def test_a_mistake_in_a_fold_opens_it(trained: Trained) -> None:
    updates = trained.look(training__weight_decay="-1")
    assert updates[trained.tab.form.folds["optimizer"]]["open"] is True


@pytest.mark.parametrize(
    ("name", "typed"), [("model.name_or_path", "no such model"), ("dataset.path", "nothing"), ("dataset.path", "/")]
)
def test_what_is_not_there_is_told_before_anything_starts(trained: Trained, name: str, typed: str) -> None:
    updates = trained.look(**{name.replace(".", "__"): typed})
    assert "bad" in updates[trained.tab.form.controls[name]]["elem_classes"]
    started = trained.tab.started("", *trained.state)
    assert started[trained.view.run] == ""
    assert trained.tab.studio.supervisor.runs.ids() == []


def test_start_starts_one_run_however_often_it_is_pressed(trained: Trained, workers: FakeWorkers) -> None:
    ids = {trained.tab.started("Mine", *trained.state)[trained.view.run] for _ in range(3)}
    assert len(ids) == 1
    assert trained.tab.studio.supervisor.runs.ids() == list(ids)
    run = trained.tab.studio.supervisor.runs.get(ids.pop())
    assert run.label == "Mine"
    assert run.config == form.laid_over({}, load_preset("quickstart"))
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
    config = form.to_config({**trained.values, "training.seed": "5", "adapter.target_modules": "q_proj, v_proj"})
    (folder / "run.yaml").write_text(config_to_yaml(config), encoding="utf-8")
    updates = trained.take(trained.tab.repeated(folder.name, *trained.state))
    assert form.to_config(trained.values) == config
    assert str(folder / "run.yaml") in updates[trained.view.command]
    assert "Before <i>" in updates[trained.view.preset]["info"]


@pytest.mark.parametrize("run_id", ["gone", "../../etc", "", "a" * 300])
def test_a_run_that_is_not_there_is_told(trained: Trained, run_id: str) -> None:
    updates = trained.tab.repeated(run_id, *trained.state)
    assert "There is no run" in updates[trained.view.problem]


def test_only_what_is_quantized_has_knobs_for_it(trained: Trained) -> None:
    controls, folds = trained.tab.form.controls, trained.tab.form.folds
    for kind, quantized, adapter in (("lora", False, True), ("qlora", True, True), ("full", False, False)):
        updates = trained.look(adapter=kind)
        assert [updates[controls[name]]["visible"] for name in form.ONLY_QUANTIZED] == [quantized, quantized]
        assert updates[folds["adapter"]]["visible"] is adapter


# -- Data --


@pytest.fixture
def looking(studio: Studio) -> data.DataTab:
    return built(lambda: data.DataTab(studio, dataview.build()))


def rows_file(folder: Path, count: int) -> Path:
    path = folder / "mine.jsonl"
    lines = [json.dumps({"instruction": f"ask {i}", "output": f"say {i}"}) for i in range(count)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_an_upload_is_registered_chosen_and_cleared_away(looking: data.DataTab, tmp_path: Path) -> None:
    file = rows_file(tmp_path, 45)
    updates = looking.added(str(file))
    assert "Added" in updates[looking.view.told]
    assert updates[looking.view.at] == ("mine", 0)
    assert updates[looking.view.remove]["visible"] is True
    assert not file.exists()
    assert [entry.name for entry in list_datasets() if not entry.bundled] == ["mine"]


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "x"), ("a.jsonl", "{"), ("a.jsonl", '{"b": 1}'), ("a.csv", "")]
)
def test_an_upload_that_won_t_do_is_refused_in_its_place(
    looking: data.DataTab, tmp_path: Path, name: str, content: str
) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    updates = looking.added(str(file))
    assert set(updates) == {looking.view.told}
    assert "st-error" in updates[looking.view.told]
    assert all(entry.bundled for entry in list_datasets())


def test_pages_end_where_the_rows_end(looking: data.DataTab, tmp_path: Path) -> None:
    name = add_dataset(rows_file(tmp_path, 45)).name
    view = looking.view
    at, start = (name, 0), 0
    seen = []
    for turn in (looking.turned_on, looking.turned_on, looking.turned_on, looking.turned_back):
        updates = turn(at, start)
        at, start = updates[view.at], updates[view.start]
        seen.append((start, updates[view.previous]["interactive"], updates[view.next]["interactive"]))
    assert seen == [(20, True, True), (40, True, False), (40, True, False), (20, True, True)]


@pytest.mark.parametrize(("typed", "at"), [("1", 0), ("45", 44), (" 21 ", 20)])
def test_a_row_is_gone_to_by_its_number(looking: data.DataTab, tmp_path: Path, typed: str, at: int) -> None:
    name = add_dataset(rows_file(tmp_path, 45)).name
    updates = looking.gone_to((name, 0), 0, typed)
    assert updates[looking.view.at] == (name, at)
    assert updates[looking.view.start] == at - at % data.PAGE


@pytest.mark.parametrize("typed", ["0", "46", "-1", "x", "", None, "²", "9" * 5000])
def test_a_number_that_is_no_row_is_refused(looking: data.DataTab, tmp_path: Path, typed: str | None) -> None:
    name = add_dataset(rows_file(tmp_path, 45)).name
    updates = looking.gone_to((name, 0), 0, typed)
    assert set(updates) == {looking.view.told}


@pytest.mark.parametrize("picked", ["/etc/passwd.jsonl", "../x", "", None, "no-such"])
def test_a_click_that_names_no_dataset_opens_none_but_the_first(
    looking: data.DataTab, picked: Any, tmp_path: Path
) -> None:
    outside = rows_file(tmp_path, 3)
    for name in (picked, str(outside)):
        assert looking.dataset_chosen(event(pick=name))[looking.view.at] == ("quickstart-sft", 0)
    assert list(looking.row_shown((str(outside), 0), "raw", "starter", "64")) != []
    assert "say 0" not in "".join(looking.row_shown((str(outside), 0), "raw", "starter", "64"))


def test_removing_asks_first_and_keeps_what_is_shipped(looking: data.DataTab, tmp_path: Path) -> None:
    name = add_dataset(rows_file(tmp_path, 3)).name
    assert looking.removal_asked((name, 0))[looking.view.ask]["visible"] is True
    assert list_datasets()[0].name == name
    updates = looking.removed((name, 0))
    assert updates[looking.view.at] == ("quickstart-sft", 0)
    assert "st-error" in looking.removed(("quickstart-sft", 0))[looking.view.told]
    assert [entry.name for entry in list_datasets()] == ["quickstart-sft"]


def test_a_row_as_trained_says_that_it_is_being_read(looking: data.DataTab, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"tokens": ["a", "b", "c"], "loss": [False, True, True], "cut": 2}
    monkeypatch.setattr(Chat, "show_row", lambda *_args, **_fields: told)
    first, then = looking.row_shown(("quickstart-sft", 0), "trained", "starter", "64")
    assert "loading" in first
    assert "Cut after 2 of 3 tokens" in then


@pytest.mark.parametrize(("length", "model"), [("none", "starter"), ("3", "starter"), ("64", "no such model")])
def test_what_a_row_cannot_be_read_with_is_told(looking: data.DataTab, length: str, model: str) -> None:
    *_, then = looking.row_shown(("quickstart-sft", 0), "trained", model, length)
    assert "st-error" in then


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


# -- Export --


@pytest.fixture
def exporting(studio: Studio) -> export.ExportTab:
    return built(lambda: export.ExportTab(studio, exportview.build()))


def test_without_a_run_it_says_what_to_do(exporting: export.ExportTab) -> None:
    updates = exporting.opened(None, "merged", None, "")
    assert "data-go" in updates[exporting.view.empty]
    assert updates[exporting.view.form]["visible"] is False


def test_an_export_is_started_listed_and_never_aimed_at_twice(exporting: export.ExportTab, studio: Studio) -> None:
    run = finished(studio)
    first = exporting.opened(None, "adapter", None, "")
    target = first[exporting.view.out]["value"]
    updates = exporting.started(run.name, "adapter", target, target, "auto")
    assert "A run, just the adapter" in updates[exporting.view.history]
    assert updates[exporting.view.out]["value"] not in ("", target)
    job = until(lambda: [job for job in studio.supervisor.exports() if job.state.status == "finished"])[0]
    assert (job.config.run, job.config.format, job.config.out) == (run.name, "adapter", target)


@pytest.mark.parametrize("what", ["", "file", "full", "inside"])
def test_a_target_that_won_t_do_is_refused_at_the_field(
    exporting: export.ExportTab, studio: Studio, tmp_path: Path, what: str
) -> None:
    run = finished(studio)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x", encoding="utf-8")
    out = {"": "", "inside": str(run / "there")}.get(what, str(tmp_path / what))
    updates = exporting.started(run.name, "merged", out, "", "auto")
    assert "bad" in updates[exporting.view.out]["elem_classes"]
    assert studio.supervisor.exports() == []


@pytest.mark.parametrize(("format", "dtype"), [("gguf", "auto"), ("merged", "int3")])
def test_what_is_no_choice_is_refused(exporting: export.ExportTab, studio: Studio, format: str, dtype: str) -> None:
    run = finished(studio)
    updates = exporting.started(run.name, format, "/nowhere/at/all", "", dtype)
    assert "st-error" in updates[exporting.view.problem]


def test_a_tick_that_brings_nothing_new_sends_nothing(
    exporting: export.ExportTab, studio: Studio, workers: FakeWorkers, tmp_path: Path
) -> None:
    workers.script = "sign start obey end:stopped"
    run = finished(studio)
    exporting.started(run.name, "merged", str(tmp_path / "out"), "", "auto")
    until(lambda: studio.supervisor.exports()[0].state.status == "running")
    first = exporting.looked_at("")
    assert first[exporting.view.timer].active is True
    assert exporting.looked_at(first[exporting.view.seen]) == {exporting.view.history: gr.skip()}
    exporting.cancelled(event(pick="another"))
    assert studio.supervisor.exports()[0].state.status == "running"
    exporting.cancelled(event(pick=studio.supervisor.exports()[0].id))
    until(lambda: studio.supervisor.exports()[0].state.status == "stopped")
    assert exporting.looked_at(first[exporting.view.seen])[exporting.view.timer].active is False


def test_the_code_that_loads_an_export_is_python(exporting: export.ExportTab, studio: Studio, tmp_path: Path) -> None:
    run = finished(studio)
    for format in exportview.FORMATS:
        exporting.started(run.name, format, str(tmp_path / f'it\'s "{format}"'), "", "auto")
    for job in studio.supervisor.exports():
        code = exportview.snippet(job, Path(job.config.out))
        compile(code, "snippet", "exec")
        assert repr(job.config.out) in code


# -- all of them --


def test_the_forms_bring_none_of_what_trains() -> None:
    code = (
        "import sys, studio.ui.train, studio.ui.data, studio.ui.chat, studio.ui.export\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'peft', 'trl') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert told.stdout.strip() == "[]"
