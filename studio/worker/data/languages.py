"""Which scripts and which language a text is in.

In: text. Out: names. Scripts are counted letter by letter from Unicode's own names; the language is told by
py3langid (a naive Bayes classifier over 139 languages, whose model comes with the package: nothing is downloaded) and
is `unknown` where the text is too short for it or is no prose, such as code.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache, lru_cache
from typing import Any

UNKNOWN = "unknown"
NO_LETTERS = "none"

# A language is told from so many characters; more make it slower, hardly surer.
_ENOUGH = 600
# Below this probability the classifier's first guess is often wrong: "Hello" is Breton at 0.06, a line of Python
# Nigerian Pidgin at 0.21, while short true sentences stand above 0.4.
_SURE = 0.35
# What the classifier calls text that is in no language.
_NOTHING = {"und", "zxx"}

# The first words of Unicode's letter names that aren't the script's name.
_SCRIPTS = {
    "CJK": "Han",
    "IDEOGRAPHIC": "Han",
    "KANGXI": "Han",
    "HALFWIDTH": "Katakana",
    "FULLWIDTH": "Latin",
    "MODIFIER": NO_LETTERS,
    "MATHEMATICAL": NO_LETTERS,
    "DOUBLE": NO_LETTERS,
    "SCRIPT": NO_LETTERS,
    "BLACK": NO_LETTERS,
    "FEMININE": "Latin",
    "MASCULINE": "Latin",
    "KELVIN": "Latin",
    "ANGSTROM": "Latin",
    "MICRO": NO_LETTERS,
    "OHM": "Greek",
    "CANADIAN": "Canadian Aboriginal",
    "TAI": "Tai Le",
    "HENTAIGANA": "Hiragana",
}
# Where a text is written without spaces, so that words can't be told by them.
UNSPACED = frozenset({"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"})


@lru_cache(maxsize=1 << 16)
def script_of(character: str) -> str:
    """The script of a letter: Latin, Cyrillic, Han, ...; `none` for whatever is no letter of a script."""
    if not character.isalpha():
        return NO_LETTERS
    first = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    return _SCRIPTS.get(first, first.capitalize() or NO_LETTERS)


def scripts_of(text: str) -> Counter[str]:
    """Script -> how many of the text's letters are of it."""
    found: Counter[str] = Counter()
    for character, times in Counter(text).items():
        script = script_of(character)
        if script != NO_LETTERS:
            found[script] += times
    return found


def main_script(text: str) -> str:
    """The script of most letters; `none` where there are no letters."""
    return max(scripts_of(text).items(), key=lambda item: item[1], default=(NO_LETTERS, 0))[0]


def language_of(text: str) -> str:
    """An ISO 639 code, or `unknown`."""
    language, _ = _classifier().classify(text[:_ENOUGH])
    return UNKNOWN if language in _NOTHING else str(language)


def known_languages() -> list[str]:
    """Every code that `language_of` may give."""
    return sorted({UNKNOWN, *_classifier().labels} - _NOTHING)


@cache
def _classifier() -> Any:
    # A second of loading: only where a language is asked for.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=_SURE)
