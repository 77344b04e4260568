from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lockdec.data.openmoji import OpenMoji
from lockdec.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer, pad, real_targets, train_tokenizer
from lockdec.errors import StoreError
from tests.faults.warm import Warm

NAMES = OpenMoji().references("train")
TOKENIZER = train_tokenizer(NAMES, 1024)

lower = st.text().map(str.lower).filter(lambda text: text == text.lower())


@given(lower)
def test_lower_case_text_comes_back_as_it_was(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode_batch([text])[0]) == text


@given(st.text())
def test_no_text_encodes_to_a_special_token(text: str) -> None:
    for ids in TOKENIZER.encode_batch([text, f"{text}<eos>{text}", "<pad><bos>"]):
        assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids)
        assert max(ids) < TOKENIZER.vocab_size


@given(st.lists(st.text(), min_size=1), st.integers(2, 12))
def test_sequences_are_bos_text_eos_cut_at_max_len(texts: list[str], max_len: int) -> None:
    for ids, sequence in zip(TOKENIZER.encode_batch(texts), TOKENIZER.sequences(texts, max_len), strict=True):
        assert sequence == [BOS_ID, *ids, EOS_ID][:max_len]


def test_case_is_folded() -> None:
    assert TOKENIZER.encode_batch(["Woman"]) == TOKENIZER.encode_batch(["woman"])


def test_a_word_is_the_same_token_wherever_it_stands() -> None:
    (alone,), (_, inside) = TOKENIZER.encode_batch(["woman", "man woman"])
    assert alone == inside


def test_a_name_takes_few_tokens() -> None:
    names = TOKENIZER.encode_batch(NAMES)
    words = sum(len(name.split()) for name in NAMES)
    assert sum(map(len, names)) < 1.8 * words


def test_decoding_stops_at_the_end_and_skips_padding() -> None:
    ids = TOKENIZER.encode_batch(["red hat"])[0]
    more = TOKENIZER.encode_batch(["blue"])[0]
    assert TOKENIZER.decode([BOS_ID, *ids, EOS_ID, PAD_ID, *more]) == "red hat"
    assert TOKENIZER.decode([]) == ""
    batch = TOKENIZER.batch(["red hat", "a"], max_len=48)
    assert batch.dtype == torch.int64
    assert TOKENIZER.decode_batch(batch) == ["red hat", "a"]
    assert TOKENIZER.decode_batch(batch.tolist()) == ["red hat", "a"]


def test_words_end_only_at_white_space() -> None:
    frequent = train_tokenizer(["medium-dark o'clock"] * 50, 300)
    assert [len(ids) for ids in frequent.encode_batch(["medium-dark", "o'clock", "o'clock medium-dark"])] == [1, 1, 2]


def test_targets_are_the_text_and_its_end_but_neither_bos_nor_prompt_nor_padding() -> None:
    tokens = torch.tensor([[BOS_ID, 5, 6, EOS_ID, PAD_ID], [BOS_ID, 7, EOS_ID, EOS_ID, EOS_ID], [BOS_ID, 5, 6, 7, 8]])
    assert real_targets(tokens, EOS_ID).int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert real_targets(tokens, EOS_ID, prompt_length=2).int().tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_padding_is_on_the_right() -> None:
    assert pad([[1, 5, 2], [1, 2]]).tolist() == [[1, 5, 2], [1, 2, PAD_ID]]


def test_saving_and_loading_changes_nothing(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    texts = [*NAMES[:500], "<eos> ß \n  x"]
    assert loaded.vocab_size == TOKENIZER.vocab_size
    assert loaded.encode_batch(texts) == TOKENIZER.encode_batch(texts)
    assert loaded.decode_batch(loaded.encode_batch(texts)) == texts


def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    (tmp_path / "pickle.json").write_bytes(b"\x80\x04K\x01.")
    for name in ("bad.json", "pickle.json", "missing.json"):
        with pytest.raises(StoreError, match=name):
            Tokenizer.load(tmp_path / name)


def test_the_vocabulary_has_room_for_every_byte() -> None:
    assert train_tokenizer(["a"], 259).vocab_size == 259
    assert train_tokenizer(NAMES, 300).vocab_size == 300


def test_it_is_the_same_in_another_process(warm: Warm, tmp_path: Path) -> None:
    code = (
        "import os; os.environ['TOKENIZERS_PARALLELISM'] = 'true'; from pathlib import Path; "
        "from lockdec.data.openmoji import OpenMoji; from lockdec.data.tokenizer import train_tokenizer; "
        "train_tokenizer(OpenMoji().references('train'), 1024).save(Path('there.json')); "
        "print(hash('a'))"
    )
    done = warm.python(code, cwd=tmp_path)
    assert int(done.stdout) != hash("a"), f"{done.stderr}: sets have the same order in both processes"
    TOKENIZER.save(tmp_path / "here.json")
    assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()
    assert Tokenizer.load(tmp_path / "there.json").encode_batch(NAMES) == TOKENIZER.encode_batch(NAMES)
