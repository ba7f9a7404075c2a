"""Scripts letter by letter, languages where they can be told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.worker.data.languages import known_languages, language_of, main_script, script_of, scripts_of

# Article 1 of the Universal Declaration of Human Rights, its first sentence.
ARTICLE = {
    "en": "All human beings are born free and equal in dignity and rights.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "uk": "Всі люди народжуються вільними і рівними у своїй гідності та правах.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "zh": "人人生而自由,在尊严和权利上一律平等。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
}
SCRIPTS = {
    "ru": "Cyrillic", "uk": "Cyrillic", "el": "Greek", "ar": "Arabic", "he": "Hebrew", "hi": "Devanagari",
    "th": "Thai", "zh": "Han", "ja": "Hiragana", "ko": "Hangul",
}  # fmt: skip


@pytest.mark.parametrize("code", ARTICLE)
def test_a_sentence_is_in_its_language_and_script(code: str) -> None:
    assert language_of(ARTICLE[code]) == code
    assert main_script(ARTICLE[code]) == SCRIPTS.get(code, "Latin")
    assert code in known_languages()


@pytest.mark.parametrize("text", ["", "42", "2 + 2 = 4", "def f(x):\n    return [i for i in range(x)]", "Hello", "???"])
def test_what_is_no_prose_or_too_short_is_of_unknown_language(text: str) -> None:
    assert language_of(text) == "unknown"
    assert "unknown" in known_languages()


def test_letters_are_counted_by_script_and_nothing_else_is() -> None:
    assert scripts_of("Ab, я 你好 42!") == {"Latin": 2, "Cyrillic": 1, "Han": 2}
    assert main_script("42!?") == "none"
    assert [script_of(letter) for letter in "Aﬁ々ー𝐀"] == ["Latin", "Latin", "Han", "Katakana", "none"]


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    assert language_of(text) in known_languages()
    assert sum(scripts_of(text).values()) <= len(text)


def test_half_a_character_is_no_reason_to_fail() -> None:
    assert language_of("\ud800 and some words of English beside it") in known_languages()
