"""lockdec.evaluation.metrics against pycocoevalcap, sacrebleu and torchmetrics, and the laws that each metric obeys."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockdec.data.text import WikipediaLeads, sentences
from lockdec.evaluation import metrics

VOCABULARY = (
    "woman",
    "man",
    "firefighter",
    "medium-light",
    "skin",
    "tone",
    "flag",
    "germany",
    "red",
    "heart",
)
caption = st.lists(st.sampled_from(VOCABULARY), max_size=7).map(" ".join)
wordy = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=7).map(" ".join)
wild = st.text(st.characters(codec="utf-8"), max_size=20)
UPPER = {"cider_d": 10.0, "chrf": 100.0}
# A caption can reach the top of these however short it is; BLEU-n and CIDEr-D need n words.
PERFECT_AT_ANY_LENGTH = ("bleu1", "rouge_l", "chrf", "token_f1", "exact")


def corpora(texts: st.SearchStrategy[str], least: int = 1) -> st.SearchStrategy[list[tuple[str, list[str]]]]:
    return st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=least, max_size=8)


def split(corpus: Sequence[tuple[str, list[str]]]) -> tuple[list[str], list[list[str]]]:
    return [candidate for candidate, _ in corpus], [references for _, references in corpus]


def pycocoevalcap_cider(candidates: list[str], references: list[list[str]]) -> float:
    from pycocoevalcap.cider.cider import Cider  # by its clipping and its length penalty this is CIDEr-D

    mean, _ = Cider().compute_score(dict(enumerate(references)), {i: [text] for i, text in enumerate(candidates)})
    return float(mean)


def coco_rouge_l(candidates: list[str], references: list[list[str]]) -> float:
    from pycocoevalcap.rouge.rouge import Rouge

    mean, _ = Rouge().compute_score(dict(enumerate(references)), {i: [text] for i, text in enumerate(candidates)})
    return float(mean)


def test_words_keeps_joined_parts_together_and_drops_punctuation() -> None:
    text = "Woman-Firefighter: medium-light Skin Tone, don't; 3.5 km. (ÄRZTIN)"
    assert metrics.words(text) == (
        "woman-firefighter",
        "medium-light",
        "skin",
        "tone",
        "don't",
        "3.5",
        "km",
        "ärztin",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("काला कोली", ("काला", "कोली")),  # vowels are marks
        ("cafe\u0301", ("caf\u00e9",)),  # NFD
        ("\u0645\u06cc\u200c\u062e", ("\u0645\u06cc\u200c\u062e",)),  # Persian: a non-joiner within a word
        ("🐶🐱 \u2764\ufe0f \u2764", ("🐶", "🐱", "\u2764", "\u2764")),
        ("👩🏽\u200d🚒, 👍🏿!", ("👩🏽\u200d🚒", "👍🏿")),
        ("🇩🇪🇫🇷", ("🇩🇪", "🇫🇷")),
        ("\U0001f3f4\U000e0067\U000e0062\U000e007f", ("\U0001f3f4\U000e0067\U000e0062\U000e007f",)),
        ("5 € + 3 $", ("5", "€", "+", "3", "$")),
        ("一只红色的猫\uff0c坐着。", tuple("一只红色的猫坐着")),
        ("iPhone手机", ("iphone", "手", "机")),
        ("แมวสีดำ", ("แ", "ม", "ว", "สี", "ด", "ำ")),
    ],
)
def test_words_beyond_latin_letters(text: str, expected: tuple[str, ...]) -> None:
    assert metrics.words(text) == expected


@pytest.mark.parametrize(
    ("one", "other"), [("🐶", "🐱"), ("काला", "कोली"), ("", "🐶"), ("一只猫", "一只狗"), ("5 €", "5 $")]
)
def test_texts_that_differ_are_not_exact(one: str, other: str) -> None:
    assert metrics.exact([one], [[other]]) == 0
    assert metrics.token_f1([one], [[other]]) < 1


def test_equal_texts_without_blanks_are_perfect() -> None:
    texts = ["一只红色的猫", "两只黑狗在草地上"]
    assert metrics.bleu4(texts, [[text] for text in texts]) == 1
    assert metrics.score(["cafe\u0301"], [["caf\u00e9"]])["exact"] == 1


def test_references_are_prepared_once_for_all_lists_of_captions() -> None:
    texts = [["a red hat", "hat"], ["blue sky"], ["a red sky", "red", "sky at night"]]
    references = metrics.References(texts)
    for candidates in (["a hat", "sky", "red sky"], ["red", "", "a sky at night"]):
        assert metrics.score(candidates, references) == metrics.score(candidates, texts)
    assert references.cider is references.cider
    assert references.bleu is references.bleu


@settings(max_examples=60, deadline=None)
@given(corpora(wordy))
def test_cider_d_equals_pycocoevalcap(corpus: list[tuple[str, list[str]]]) -> None:
    candidates, references = split(corpus)
    expected = pycocoevalcap_cider(candidates, references)
    assert metrics.cider_d(candidates, references) == pytest.approx(expected, abs=1e-9)


def test_cider_d_equals_pycocoevalcap_with_empty_candidates_and_long_captions() -> None:
    draw = random.Random(0)
    references = [
        [" ".join(draw.choices(VOCABULARY, k=draw.randint(1, 14))) for _ in range(draw.randint(1, 5))]
        for _ in range(40)
    ]
    candidates = ["" if i % 7 == 0 else draw.choice(draw.choice(references)) for i in range(40)]
    expected = pycocoevalcap_cider(candidates, references)
    assert expected > 0.1
    assert metrics.cider_d(candidates, references) == pytest.approx(expected, rel=1e-12)


def test_cider_d_of_four_different_words_matched_is_ten() -> None:
    texts = ["woman firefighter skin tone", "flag germany red heart"]
    assert metrics.cider_d(texts, [[text] for text in texts]) == pytest.approx(10.0)


@settings(max_examples=60, deadline=None)
@given(corpora(wordy))
def test_bleu_equals_the_coco_scorer(corpus: list[tuple[str, list[str]]]) -> None:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    candidates, references = split(corpus)
    reference_scorer = BleuScorer(n=4)
    for candidate, several in corpus:
        reference_scorer += (candidate, several)
    expected, _ = reference_scorer.compute_score(option="closest", verbose=0)
    for order, value in enumerate(expected, start=1):
        ours = metrics.METRICS[f"bleu{order}"](candidates, references)
        if ours:
            assert ours == pytest.approx(value, rel=1e-6)
        else:  # that scorer counts 1e-15 matches in 1e-9 n-grams where there are none: at most 1e-6 ** (1/4)
            assert value < 0.032


@settings(max_examples=60, deadline=None)
@given(corpora(caption))
def test_rouge_l_equals_the_coco_scorer(corpus: list[tuple[str, list[str]]]) -> None:
    candidates, references = split(corpus)
    assert metrics.rouge_l(candidates, references) == pytest.approx(coco_rouge_l(candidates, references), abs=1e-12)


HINDI = ("एक काला कुत्ता घास पर दौड़ता है", "काला कुत्ता मैदान में दौड़ रहा है", "एक लड़की लाल गेंद पकड़ती है", "लड़की के हाथ में गेंद है")
CHINESE = ("一只黑狗在草地上奔跑", "黑狗跑过草地", "女孩拿着红色的球", "一个小女孩在玩球")
THAI = ("หมาสีดำวิ่งบนหญ้า", "สุนัขดำวิ่งในสนาม", "เด็กหญิงถือลูกบอลสีแดง", "เด็กเล่นลูกบอล")
EMOJI = ("🐶 runs 🌿🌿", "🐕 on 🌿", "👧🏽 holds a 🔴 ball", "👧🏽⚽")


def human_texts() -> tuple[list[str], list[list[str]]]:
    """Of 300 Wikipedia articles: the second sentence, and as its references the first one and the description."""
    articles = json.loads(WikipediaLeads._path().read_text(encoding="utf-8"))
    candidates, references = [], []
    for _, article in sorted(articles.items()):
        found = sentences(article["extract"])
        if article.get("description") and len(found) > 1:
            candidates.append(found[1])
            references.append([found[0], article["description"]])
    return candidates[:300], references[:300]


def written_elsewhere(texts: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Each second text for the first and the third, on all of which the scorers give neither 0 nor the top."""
    first, second, third, fourth = texts
    return [second, third], [[first, fourth], [fourth, second + " " + third, third]]


@pytest.mark.parametrize(
    "corpus",
    [human_texts(), *map(written_elsewhere, (HINDI, CHINESE, THAI, EMOJI))],
    ids=["English prose", "Hindi", "Chinese", "Thai", "emoji"],
)
def test_texts_of_people_score_as_with_the_coco_scorer(corpus: tuple[list[str], list[list[str]]]) -> None:
    """That scorer splits at blanks: it is given the words of `words`, and so are its n-grams."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    candidates, references = corpus
    split_candidates = [" ".join(metrics.words(text)) for text in candidates]
    split_references = [[" ".join(metrics.words(text)) for text in several] for several in references]
    bleu = BleuScorer(n=4)
    for candidate, several in zip(split_candidates, split_references, strict=True):
        bleu += (candidate, several)
    found = metrics.score(candidates, references)
    expected = {f"bleu{order}": value for order, value in enumerate(bleu.compute_score("closest", verbose=0)[0], 1)}
    expected |= {
        "rouge_l": coco_rouge_l(split_candidates, split_references),
        "cider_d": pycocoevalcap_cider(split_candidates, split_references),
    }
    assert found["token_f1"] < 1
    for name, value in expected.items():
        if found[name] or not name.startswith("bleu"):
            assert found[name] == pytest.approx(value, rel=1e-6), name
            assert value > 0
        else:  # as above
            assert value < 0.032


@settings(max_examples=40, deadline=None)
@given(corpora(wordy))
def test_token_f1_equals_torchmetrics_squad(corpus: list[tuple[str, list[str]]]) -> None:
    from torchmetrics.functional.text import squad

    predictions = [{"prediction_text": text, "id": str(i)} for i, (text, _) in enumerate(corpus)]
    targets: list[dict[str, Any]] = [
        {"answers": {"text": several, "answer_start": [0] * len(several)}, "id": str(i)}
        for i, (_, several) in enumerate(corpus)
    ]
    expected = squad(predictions, targets)
    candidates, references = split(corpus)
    assert metrics.token_f1(candidates, references) == pytest.approx(float(expected["f1"]) / 100, abs=1e-6)
    assert metrics.exact(candidates, references) == pytest.approx(float(expected["exact_match"]) / 100, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(corpora(wordy))
def test_chrf_equals_sacrebleu_for_one_reference(corpus: list[tuple[str, list[str]]]) -> None:
    import sacrebleu

    candidates = [candidate for candidate, _ in corpus]
    first = [several[0] for _, several in corpus]
    expected = sacrebleu.corpus_chrf(candidates, [first]).score
    assert metrics.chrf(candidates, [[text] for text in first]) == pytest.approx(expected, abs=1e-9)


def test_each_metric_by_hand() -> None:
    candidates = ["woman firefighter", "flag of germany"]
    references = [["Woman firefighter: medium skin tone"], ["flag germany", "a flag"]]
    # words in common 2 of (2, 5), then 2 of (3, 2): F1 = 4/7 and 4/5.
    assert metrics.token_f1(candidates, references) == pytest.approx((4 / 7 + 4 / 5) / 2)
    # In the same order, with F = 2.44 P R / (R + 1.44 P).
    f = 2.44 * 0.4 / (0.4 + 1.44), 2.44 * 2 / 3 / (1 + 1.44 * 2 / 3)
    assert metrics.rouge_l(candidates, references) == pytest.approx(sum(f) / 2)
    # The best precision is over "flag", the best recall over the longer one.
    assert metrics.rouge_l(["a flag"], [["flag", "a big flag"]]) == 1
    assert metrics.token_f1(["tone skin"], [["skin tone"]]) == 1.0
    assert metrics.rouge_l(["tone skin"], [["skin tone"]]) == 0.5
    # 4 of 5 words occur in the references; lengths 5 against 5 + 2 (the closest): penalty exp(1 - 7/5).
    assert metrics.bleu1(candidates, references) == pytest.approx(4 / 5 * math.exp(1 - 7 / 5))
    assert metrics.exact(["Flag: GERMANY!", "flag"], [["a flag", "flag germany"], ["a flag"]]) == 0.5
    assert metrics.distinct(["a flag", "A flag.", "flag"], [["x"]] * 3) == pytest.approx(2 / 3)


@settings(max_examples=60, deadline=None)
@given(corpora(caption) | corpora(wild))
def test_every_metric_stays_in_its_range(corpus: list[tuple[str, list[str]]]) -> None:
    for name, value in metrics.score(*split(corpus)).items():
        assert 0.0 <= value <= UPPER.get(name, 1.0) * (1 + 1e-12), name


@settings(max_examples=40, deadline=None)
@given(corpora(wordy))
def test_a_caption_equal_to_a_reference_is_perfect(corpus: list[tuple[str, list[str]]]) -> None:
    candidates = [several[-1].upper() + " !" for _, several in corpus]
    result = metrics.score(candidates, [several for _, several in corpus])
    for name in PERFECT_AT_ANY_LENGTH:
        assert result[name] == pytest.approx(UPPER.get(name, 1.0)), name


@settings(max_examples=40, deadline=None)
@given(corpora(caption), st.randoms(use_true_random=False))
def test_order_of_captions_and_of_references_does_not_matter(
    corpus: list[tuple[str, list[str]]], draw: random.Random
) -> None:
    shuffled = [(candidate, draw.sample(several, len(several))) for candidate, several in corpus]
    draw.shuffle(shuffled)
    assert metrics.score(*split(shuffled)) == pytest.approx(metrics.score(*split(corpus)), rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(corpora(caption))
def test_metrics_depend_on_the_words_alone(corpus: list[tuple[str, list[str]]]) -> None:
    candidates, references = split(corpus)
    noisy = [f"  {text.upper().replace(' ', ', ')}!" for text in candidates]
    assert metrics.score(noisy, references) == metrics.score(candidates, references)


def test_no_captions_and_wordless_captions_are_defined() -> None:
    assert metrics.score([], []) == dict.fromkeys(metrics.METRICS, 0.0)
    wordless = metrics.score(["", "..."], [["a flag"], ["red heart", "heart"]])
    assert wordless.pop("distinct") == 0.5
    assert wordless == dict.fromkeys(wordless, 0.0)
    alike = metrics.score([""], [["?"]])
    assert {name for name in alike if alike[name] == 1} == {"rouge_l", "token_f1", "exact", "distinct"}


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        (["a"], [], "1 candidates for 0 lists"),
        (["a", "b"], [["a"], []], r"references\[1\]"),
        (["a"], ["a"], r"references\[0\]='a'"),
    ],
)
def test_missing_references_are_refused(candidates: list[str], references: list[list[str]], message: str) -> None:
    for metric in metrics.METRICS.values():
        with pytest.raises(ValueError, match=message):
            metric(candidates, references)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(caption, st.lists(wordy, min_size=1, max_size=3)), min_size=2, max_size=6))
def test_each_metric_without_an_input_is_that_of_the_others(corpus: list[tuple[str, list[str]]]) -> None:
    """CIDEr-D aside, whose document frequencies would change: it is the mean of the others' scores."""
    left = metrics.score_without_each(*split(corpus))
    assert left.keys() == metrics.METRICS.keys() - {"distinct"}
    for row in range(len(corpus)):
        others = metrics.score(*split(corpus[:row] + corpus[row + 1 :]))
        for name in left.keys() - {"cider_d"}:
            assert left[name][row] == pytest.approx(others[name], abs=1e-9), name
    assert sum(left["cider_d"]) / len(corpus) == pytest.approx(metrics.cider_d(*split(corpus)), abs=1e-9)


def test_without_its_only_input_a_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="1 candidates"):
        metrics.score_without_each(["a"], [["a"]])


def test_importing_metrics_does_not_import_torch() -> None:
    code = "import sys, lockdec.evaluation.metrics; print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "False\n"


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcde"), max_size=12))
def test_rouge_l_has_the_longest_common_subsequence_of_the_table(candidate: list[str], reference: list[str]) -> None:
    """By the textbook's table of all pairs of words."""
    table = [[0] * (len(reference) + 1) for _ in range(len(candidate) + 1)]
    for row, word in enumerate(candidate):
        for column, wanted in enumerate(reference):
            above, left = table[row][column + 1], table[row + 1][column]
            table[row + 1][column + 1] = table[row][column] + 1 if word == wanted else max(above, left)
    longest = table[-1][-1]
    # With one reference F = 2.44 P R / (R + 1.44 P) = 2.44 L / (candidate + 1.44 reference).
    f = 2.44 * longest / (len(candidate) + 1.44 * len(reference)) if candidate or reference else 1.0
    assert metrics.rouge_l([" ".join(candidate)], [[" ".join(reference)]]) == pytest.approx(f)


def test_rouge_l_of_20_000_words_takes_no_minutes() -> None:
    started = time.process_time()
    assert metrics.rouge_l(["a b " * 10_000], [["b c " * 10_000]]) == pytest.approx(0.5, abs=1e-3)
    assert time.process_time() - started < 20  # less than a second; the table of all pairs takes five minutes
