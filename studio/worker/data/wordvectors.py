"""Vectors of texts by a static embedding model that the user has: the mean of its tokens' vectors.

In: a folder in $STUDIO_HOME/models whose config.json says `model2vec` (Tulkens and van Dongen 2024), and texts. Out:
unit vectors. Only safetensors and tokenizer.json are opened. Without such a folder there is no vector: nothing is
downloaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from studio.core.errors import ModelError
from studio.core.job import read_json

_BATCH = 256


def find_static_model() -> Path | None:
    """The first such model by name; None where there is none."""
    home = os.environ.get("STUDIO_HOME")
    for config in sorted(Path(home, "models").glob("*/config.json")) if home else ():
        said: Any = read_json(config)
        folder = config.parent
        whole = (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file()
        if whole and isinstance(said, dict) and said.get("model_type") == "model2vec":
            return folder
    return None


def static_vectors(folder: Path, texts: list[str]) -> np.ndarray:
    """One unit vector a text; zeros for a text of which the model knows no token. Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    try:
        tensors = load_file(folder / "model.safetensors")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        table = tensors["embeddings"].astype(np.float32)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise ModelError(
            f"The embedding model in {folder} can't be loaded ({error}).", "Fetch it again, or take it away."
        ) from None
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception for a damaged file
        raise ModelError(
            f"The tokenizer in {folder} can't be loaded ({error}).", "Fetch it again, or take it away."
        ) from None
    # Distilled vocabularies may share rows (mapping) and weigh tokens apart from their vectors (weights).
    rows = tensors.get("mapping", np.arange(len(table)))
    weights = tensors.get("weights", np.ones(len(rows), np.float32)).astype(np.float32)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    vectors = np.zeros((len(texts), table.shape[1]), np.float32)
    for start in range(0, len(texts), _BATCH):
        batch = tokenizer.encode_batch(texts[start : start + _BATCH], add_special_tokens=False)
        for number, encoding in enumerate(batch, start=start):
            ids = np.array([token for token in encoding.ids if token < len(rows)], np.int64)
            if len(ids):
                vectors[number] = (table[rows[ids]] * weights[ids, None]).mean(axis=0)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: np.ndarray = vectors / np.where(norms > 0, norms, 1)
    return units
