"""A map of the rows by topic: points in a plane, near each other where the rows speak of the same things.

In: a Source. Out: plain values, ready for JSON and a picture; a point carries its row's position, so that a click
finds the row. Rows become vectors by the words in them (TF-IDF, then SVD), or by a static embedding model where the
user has one; k-means finds the groups, t-SNE lays them out. The same rows give the same map.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from typing import Any

import numpy as np

# Imported at once: threads can be limited only of what is loaded.
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from studio.core.config import DatasetSection
from studio.core.errors import DataError
from studio.core.example import RowProblem
from studio.core.formats import to_example
from studio.core.inputs import DatasetInput
from studio.worker.data.languages import UNSPACED, script_of
from studio.worker.data.parts import parts_of
from studio.worker.data.source import (
    Cancelled,
    Progress,
    Source,
    Stopped,
    layouts,
    never,
    open_source,
    quiet,
    reporting,
)
from studio.worker.data.wordvectors import find_static_model, static_vectors

MOST = 5000  # rows on a map
_READ = 2000  # characters of a row
_FEATURES = 20_000  # different words
_DIMENSIONS = 50
_LAID_OUT = 1500  # rows that t-SNE places (2.5 s; its time grows faster than its rows); the others follow them
_GROUPS = 12  # tried at most, with ten rows a group at least
_LABEL = 4  # words
_SEED = 0

_WORD = re.compile(r"\w+")
_FIRST_UNSPACED = "\u0e00"  # Thai; scripts before it have spaces between words


def map_op(request: dict[str, Any], part: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Answers as `topic_map`. Fields of the request: `dataset`, `section`, `clusters` (or null), `most` (or null)."""

    report = reporting(part)
    return topic_map(
        open_source(DatasetInput.from_dict(request["dataset"])),
        DatasetSection(**request["section"]),
        clusters=request.get("clusters"),
        most=int(request.get("most") or MOST),
        progress=report,
    )


def topic_map(
    source: Source,
    section: DatasetSection,
    *,
    clusters: int | None = None,
    most: int = MOST,
    progress: Progress = quiet,
    stopped: Stopped = never,
) -> dict[str, Any]:
    """{"points": [[x, y, cluster, position], ...], "clusters": [{"label", "rows", "example"}], "explained", "method"}.

    Coordinates run from 0 to 1; clusters are numbered by size, `example` is the position of their most typical row.
    `clusters` fixes their number, else the silhouette chooses it. Raises DataError, Cancelled.
    """

    def step(text: str) -> None:
        progress(text, None, None)
        if stopped():
            raise Cancelled()

    positions, texts = _drawn(source, section, most, progress, stopped)
    if len(texts) < 3:
        raise DataError(f"A map needs 3 rows that can be used; there are {len(texts)}.", "Look at the check first.")
    step("Comparing words")
    model = find_static_model()
    # One thread: where cores are busy, OpenMP's threads wait for each other five times as long as one of them needs.
    with threadpool_limits(1):
        vectors, words = word_vectors(texts)
        vectors = static_vectors(model, texts) if model is not None else vectors
        step("Looking for groups")
        groups = _groups(vectors, clusters)
        step("Drawing the map")
        places = _laid_out(vectors)
    names = _labels(words, groups)
    found = []
    for number, label in enumerate(names):
        members = np.flatnonzero(groups == number)
        centre = vectors[members].mean(axis=0)
        typical = members[np.argmax(vectors[members] @ centre)]
        found.append({"label": label, "rows": len(members), "example": positions[typical]})
    return {
        "points": [
            [round(float(x), 4), round(float(y), 4), int(group), position]
            for (x, y), group, position in zip(places, groups, positions, strict=True)
        ],
        "clusters": found,
        "explained": _explained(len(texts), source.total, len(found), model is not None),
        "method": "model2vec" if model is not None else "tf-idf",
    }


def _explained(rows: int, total: int | None, groups: int, static: bool) -> str:
    what = "mean alike, by a static embedding model" if static else "use the same uncommon words"
    drawn = f"{rows} rows, drawn evenly from {total}," if total is not None and total > rows else f"{rows} rows"
    return f"{drawn} in {groups} groups: rows stand near each other when they {what}; the axes mean nothing else."


# -- which rows -------------------------------------------------------------------------------------------------------


def _drawn(
    source: Source, section: DatasetSection, most: int, progress: Progress, stopped: Stopped
) -> tuple[list[int], list[str]]:
    """Positions and texts of the usable rows among at most `most`, one from each of as many equal stretches."""
    chosen = layouts(section, source)
    if source.total is None:
        source.build_index(progress, stopped)
    total = source.total or 0
    if section.max_samples is not None:
        total = min(total, section.max_samples)
    count = min(most, total)
    chance = np.random.default_rng(_SEED)
    edges = np.linspace(0, total, count + 1).astype(np.int64)
    drawn = edges[:-1] + np.floor(chance.random(count) * np.diff(edges)).astype(np.int64)
    excluded = set(section.exclude_rows)
    positions, texts = [], []
    for number, line in enumerate(source.rows([int(p) for p in drawn if int(p) not in excluded])):
        if number % 500 == 0:
            progress("Reading rows", number, count)
            if stopped():
                raise Cancelled()
        if line.problem:
            continue
        try:
            text = parts_of(to_example(line.row, chosen[line.part], None)).whole[:_READ]
        except RowProblem:
            continue
        positions.append(line.position)
        texts.append(text)
    return positions, texts


# -- vectors ----------------------------------------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    """Lower-case words of two letters and more; pairs of characters where a script has no spaces between words."""
    found: list[str] = []
    for run in _WORD.findall(text.lower()):
        if max(run) < _FIRST_UNSPACED:
            found.append(run)
            continue
        for unspaced, letters in groupby(run, key=lambda letter: script_of(letter) in UNSPACED):
            word = "".join(letters)
            found.extend([word[i : i + 2] for i in range(max(len(word) - 1, 1))] if unspaced else [word])
    return [word for word in found if _tells(word)]


def _tells(word: str) -> bool:
    return (len(word) > 1 and not word.isdigit()) or script_of(word[0]) in UNSPACED


def word_vectors(texts: list[str]) -> tuple[np.ndarray, tuple[Any, list[str]]]:
    """Unit vectors (rows x <= 50) by TF-IDF and SVD; and the TF-IDF matrix with its words, for labels."""

    options: dict[str, Any] = {"max_features": _FEATURES, "sublinear_tf": True, "dtype": np.float32}
    texts_words = [words_of(text) for text in texts]
    matrix = None
    # Words that most rows have tell no topic; but where there are no others, they are better than none.
    for commonest, rare in ((0.5, 2 if len(texts) >= 50 else 1), (1.0, 1)):
        vectorizer = TfidfVectorizer(analyzer=list, max_df=commonest, min_df=rare, **options)
        with suppress(ValueError):  # no word is left
            matrix = vectorizer.fit_transform(texts_words)
            break
    if matrix is None or abs(matrix - matrix[[0] * matrix.shape[0]]).nnz == 0:
        raise DataError(
            "The rows differ in no words, so there are no topics to tell apart.", "Look at the check for duplicates."
        )
    size = min(_DIMENSIONS, min(matrix.shape) - 1)
    reduced = TruncatedSVD(size, random_state=_SEED).fit_transform(matrix) if size >= 1 else matrix.toarray()
    return _unit(reduced), (matrix, list(vectorizer.get_feature_names_out()))


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: np.ndarray = vectors / np.where(norms > 0, norms, 1)
    return units


# -- groups and their places ------------------------------------------------------------------------------------------


def _groups(vectors: np.ndarray, clusters: int | None) -> np.ndarray:
    """A group for each row, numbered by size."""

    best, best_score = np.zeros(len(vectors), np.int64), -2.0
    candidates = [clusters] if clusters else range(2, min(_GROUPS, max(len(vectors) // 10, 2)) + 1)
    for k in candidates:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than groups
            labels = KMeans(min(k, len(vectors)), n_init=4, random_state=_SEED).fit(vectors).labels_
        if len(candidates) == 1:
            best = labels
        elif len(set(labels.tolist())) > 1:
            score = silhouette_score(vectors, labels, sample_size=min(1500, len(vectors)), random_state=_SEED)
            if score > best_score:
                best, best_score = labels, score
    sizes = np.bincount(best)
    order = [k for k in np.argsort(-sizes, kind="stable") if sizes[k]]
    renumbered = np.zeros(len(sizes), np.int64)
    renumbered[order] = np.arange(len(order))
    return renumbered[best]


def _laid_out(vectors: np.ndarray) -> np.ndarray:
    """A place in the unit square for each row. t-SNE places some; each other row stands amid its nearest of those."""

    chance = np.random.default_rng(_SEED)
    count = len(vectors)
    first = np.sort(chance.permutation(count)[:_LAID_OUT])
    if len(first) < 10:
        flat = np.zeros((count, 2))
        flat[:, : min(2, vectors.shape[1])] = PCA(min(2, *vectors.shape), random_state=_SEED).fit_transform(vectors)
        return _in_square(flat)
    perplexity = min(30.0, (len(first) - 1) / 3)
    options: dict[str, Any] = {"init": "pca" if vectors.shape[1] >= 2 else "random", "random_state": _SEED}
    places = np.zeros((count, 2))
    # 500 steps and a coarse angle: half the time of the defaults, and the same picture.
    places[first] = TSNE(2, perplexity=perplexity, max_iter=500, angle=0.8, **options).fit_transform(vectors[first])
    rest = np.setdiff1d(np.arange(count), first)
    for chunk in np.array_split(rest, len(rest) // 500 + 1):
        if len(chunk):
            likeness = vectors[chunk] @ vectors[first].T
            nearest = np.argpartition(-likeness, 3, axis=1)[:, :3]
            weights = np.clip(np.take_along_axis(likeness, nearest, axis=1), 1e-3, None) ** 4
            amid = (places[first][nearest] * weights[..., None]).sum(axis=1) / weights.sum(axis=1, keepdims=True)
            places[chunk] = amid + chance.normal(0, 0.3, amid.shape)  # rows with the same neighbours stay apart
    return _in_square(places)


def _in_square(places: np.ndarray) -> np.ndarray:
    low, high = places.min(axis=0), places.max(axis=0)
    square: np.ndarray = (places - low) / np.where(high > low, high - low, 1)
    return square


def _labels(words: tuple[Any, list[str]], groups: np.ndarray) -> list[str]:
    """For each group the words that stand out in it against all rows; "of" and "the" are everywhere alike."""
    matrix, names = words
    everywhere = np.asarray(matrix.mean(axis=0)).ravel()
    labels = []
    for number in range(int(groups.max()) + 1):
        ahead = np.asarray(matrix[groups == number].mean(axis=0)).ravel() - everywhere
        best = [index for index in np.argsort(-ahead)[:_LABEL] if ahead[index] > 0]
        labels.append(" ".join(names[index] for index in best))
    return labels
