"""The map: planted topics are found, points lead to their rows, odd datasets still have a map or a plain refusal."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.core.config import DatasetSection
from studio.core.errors import DataError, ModelError
from studio.core.inputs import DatasetInput
from studio.worker.data.source import Source, open_source
from studio.worker.data.topics import map_op, topic_map, words_of
from studio.worker.data.wordvectors import find_static_model, static_vectors
from tests.tiny import tiny_tokenizer, write_rows

TOPICS = {
    "kitchen": "oven butter flour sugar bake recipe simmer garlic onion salt pepper whisk dough pan soup stew",
    "space": "orbit planet rocket galaxy star telescope comet lunar gravity nebula astronaut launch eclipse",
    "court": "judge contract clause plaintiff verdict appeal statute tort liability witness jury counsel",
}
FILLER = "the a of to and in is it that you for with on as are this be what how can please tell me about explain why"


def planted(count: int, *, share: float = 0.35) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of which `share` of the words are their topic's, and their topics."""
    chance = random.Random(3)
    rows, topics = [], []
    for _ in range(count):
        topic = chance.choice(list(TOPICS))
        own, filler = TOPICS[topic].split(), FILLER.split()
        words = [chance.choice(own if chance.random() < share else filler) for _ in range(chance.randint(25, 60))]
        rows.append({"prompt": " ".join(words[:10]), "completion": " ".join(words[10:])})
        topics.append(topic)
    return rows, topics


def source_of(folder: Path, rows: list[dict[str, Any]]) -> Source:
    return open_source(DatasetInput("made", str(write_rows(folder / "rows.jsonl", rows))))


def test_three_planted_topics_are_three_groups_apart_on_the_map(tmp_path: Path) -> None:
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    rows, topics = planted(240)
    found = topic_map(source_of(tmp_path, rows), DatasetSection())
    assert found["method"] == "tf-idf"
    assert len(found["clusters"]) == 3
    by_position = {position: group for _, _, group, position in found["points"]}
    assert sorted(by_position) == list(range(240))
    assert adjusted_rand_score(topics, [by_position[i] for i in range(240)]) >= 0.9
    places = np.array([point[:2] for point in found["points"]])
    assert places.min() >= 0 and places.max() <= 1
    assert silhouette_score(places, [point[2] for point in found["points"]]) > 0.5, "the groups lie over each other"
    for number, cluster in enumerate(found["clusters"]):
        assert cluster["rows"] == sum(group == number for group in by_position.values())
        topic = topics[cluster["example"]]
        assert by_position[cluster["example"]] == number
        assert set(cluster["label"].split()) <= set(TOPICS[topic].split()), "a label is made of the topic's own words"
    assert [c["rows"] for c in found["clusters"]] == sorted((c["rows"] for c in found["clusters"]), reverse=True)
    json.dumps(found)


def test_the_same_rows_give_the_same_map_and_a_number_of_groups_is_kept(tmp_path: Path) -> None:
    source = source_of(tmp_path, planted(60)[0])
    first = topic_map(source, DatasetSection(), clusters=5)
    assert first == topic_map(source, DatasetSection(), clusters=5)
    assert len(first["clusters"]) == 5


def test_many_rows_are_drawn_evenly_and_the_rest_is_placed_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.worker.data import topics

    monkeypatch.setattr(topics, "_LAID_OUT", 100)
    rows, planted_topics = planted(900)
    found = topic_map(source_of(tmp_path, rows), DatasetSection(), most=300, clusters=3)
    positions = [point[3] for point in found["points"]]
    assert len(positions) == 300
    assert [position // 3 for position in positions] == list(range(300)), "one from each stretch of three rows"
    assert "300 rows, drawn evenly from 900" in found["explained"]
    centre = {
        topic: np.mean([p[:2] for p in found["points"] if planted_topics[p[3]] == topic], axis=0) for topic in TOPICS
    }
    nearest = [min(centre, key=lambda topic: np.linalg.norm(centre[topic] - p[:2])) for p in found["points"]]
    right = sum(near == planted_topics[p[3]] for near, p in zip(nearest, found["points"], strict=True))
    assert right >= 270, "rows stand with their topic, also those that t-SNE didn't place"


def test_rows_that_cannot_be_used_or_are_left_out_are_not_on_the_map(tmp_path: Path) -> None:
    rows, _ = planted(40)
    rows[5] = {"prompt": "no completion here", "completion": None}
    found = topic_map(source_of(tmp_path, rows), DatasetSection(exclude_rows=[7, 8]))
    assert {point[3] for point in found["points"]} == set(range(40)) - {5, 7, 8}


@pytest.mark.parametrize("rows", [3, 4, 7, 12])
def test_few_rows_have_a_map_too(tmp_path: Path, rows: int) -> None:
    found = topic_map(source_of(tmp_path, planted(rows)[0]), DatasetSection())
    assert len(found["points"]) == rows
    assert sum(cluster["rows"] for cluster in found["clusters"]) == rows


def test_equal_rows_have_a_map_or_a_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no words"):
        topic_map(source_of(tmp_path, [{"text": "all the same"}] * 80), DatasetSection())
    with pytest.raises(DataError, match="needs 3 rows"):
        topic_map(source_of(tmp_path, [{"text": "only one"}]), DatasetSection())
    halves = [{"text": f"{'night moon' if i % 2 else 'day sun'}"} for i in range(80)]
    found = topic_map(source_of(tmp_path, halves), DatasetSection())
    assert sorted(cluster["rows"] for cluster in found["clusters"]) == [40, 40]


def test_scripts_without_spaces_have_topics_too(tmp_path: Path) -> None:
    said = ["今天天气很好我们去公园散步", "股票市场今天大幅下跌投资者担心", "这道菜需要加盐和酱油然后炒"]
    rows = [{"text": said[i % 3] + str(i)} for i in range(60)]
    found = topic_map(source_of(tmp_path, rows), DatasetSection())
    assert [cluster["rows"] for cluster in found["clusters"]] == [20, 20, 20]
    for _, _, group, position in found["points"]:
        assert position % 3 == found["clusters"][group]["example"] % 3


def test_words_are_told_in_any_script() -> None:
    assert words_of("The CAT's 9 lives, 2024") == ["the", "cat", "lives"]
    assert words_of("GPU加速训练v2") == ["gpu", "加速", "速训", "训练", "v2"]


# -- a static embedding model -----------------------------------------------------------------------------------------


def static_model(folder: Path) -> tuple[Path, np.ndarray, Any]:
    """A made model2vec folder: a table of random vectors under the tiny tokenizer."""
    from safetensors.numpy import save_file

    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    table = np.random.default_rng(0).normal(size=(len(tokenizer), 16)).astype(np.float16)
    save_file({"embeddings": table}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}), encoding="utf-8")
    return folder, table.astype(np.float32), tokenizer


def test_a_static_model_that_the_user_has_is_used(tmp_path: Path, studio_home: Path) -> None:
    rows = planted(30)[0]
    (studio_home / "models" / "causal").mkdir(parents=True)
    (studio_home / "models" / "causal" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    assert topic_map(source_of(tmp_path, rows), DatasetSection())["method"] == "tf-idf"
    folder, _, _ = static_model(studio_home / "models" / "potion")
    assert find_static_model() == folder
    found = topic_map(source_of(tmp_path, rows), DatasetSection())
    assert found["method"] == "model2vec"
    assert len(found["points"]) == 30


def test_a_static_vector_is_the_mean_of_its_tokens(tmp_path: Path) -> None:
    folder, table, tokenizer = static_model(tmp_path / "potion")
    texts = ["the quick brown fox", ""]
    vectors = static_vectors(folder, texts)
    mean = table[tokenizer(texts[0], add_special_tokens=False)["input_ids"]].mean(axis=0)
    assert np.allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-5)
    assert not vectors[1].any()


def test_tokens_may_share_a_vector_and_weigh_differently(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder, table, tokenizer = static_model(tmp_path / "potion")
    ids = tokenizer("fox dog", add_special_tokens=False)["input_ids"]
    mapping = np.arange(len(table))[::-1].copy()
    weights = np.linspace(0.1, 2, len(table)).astype(np.float32)
    save_file({"embeddings": table, "mapping": mapping, "weights": weights}, folder / "model.safetensors")
    mean = np.mean([table[mapping[token]] * weights[token] for token in ids], axis=0)
    assert np.allclose(static_vectors(folder, ["fox dog"])[0], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_damaged_static_model_is_named(tmp_path: Path, file: str) -> None:
    folder, _, _ = static_model(tmp_path / "potion")
    (folder / file).write_bytes(b"{")
    with pytest.raises(ModelError, match="potion"):
        static_vectors(folder, ["a"])


def test_the_op_answers_with_the_map(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", planted(30)[0])
    heard: list[dict[str, Any]] = []
    request = {"dataset": {"name": "made", "path": str(path)}, "section": {}, "clusters": 2, "most": 20}
    answer = map_op(request, heard.append)
    assert len(answer["points"]) == 20 and len(answer["clusters"]) == 2
    assert {"text", "done", "total"} == set(heard[0])
