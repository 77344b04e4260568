"""Secrets that are known by their format, and words that only look like them."""

from __future__ import annotations

import base64
import hashlib
import random
import string

import pytest

from lockdec.redaction.formats import REDACTED, is_generated, without_formats


@pytest.mark.parametrize(
    "key",
    [
        *("gldt-", "GOCSPX-", "figd_", "tgp_v1_", "pplx-", "xai-", "lsv2_pt_", "rpa_", "jina_", "pcsk_", "KGAT_"),
        *("dp.pt.", "vercel_blob_rw_", "phx_", "ATBB", "LTAI", "ops_eyJ"),
        *("dckr_pat_", "glsa_", "shpat_", "sq0csp-", "xoxc-", "lin_api_", "whsec_", "tskey-auth-", "nvapi-", "hvs."),
        *("sntrys_", "ATATT3", "sk-ant-api03-", "hf_", "npm_"),
    ],
)
def test_formats_of_keys(key: str) -> None:
    """Without a name before them; the digits are nobody's."""
    assert without_formats(f"sent {key}{'0a1b2c3d' * 5} there") == f"sent {REDACTED} there"


@pytest.mark.parametrize(
    "line",
    [
        *("pretrain/0123456789abcdef0123456789abcdef01234567", "commit 6f1ed002ab5595859014ebf0951522d9f0e5c1d4"),
        *("run 2b3c4d5e-6f70-8192-a3b4-c5d6e7f80910", "outputs/runs/first/2026-11-26_08-10-13/captions.jsonl"),
        *("/home/Anna/Data2/GPT2XLModels/EfficientNetLite0.safetensors", "LlamaForCausalLMWithCrossAttention2B4Heads"),
        *(
            "GPT2LMHeadModelForSequenceClassification3",
            "transformer.h.11.attn.c_attn.weight",
        ),
        *(
            "4uLU6hMCjMI75M1A2tKUQC",
            "rqu8iB22I_Y",
            "person_walking_tone5_woman_2026_07_31",
            "1234567890123456789012345678",
        ),
        *("hf_transformers_v5_of_2024", "sk-learn-contrib-classifiers", "fw_layer_norm_12_of_the_encoder"),
        *(
            "npm_config_user_agent_version_10",
            "live_2026-01-01_session_three",
            "key-pair-of-2048-bits",
            "API-reference-2024",
        ),
        *("SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8", "a basic directory collector", "Basic knowledge"),
        *("64-5x3", "ConvTranspose2d(in_channels=3, kernel_size=3)", "mailto:anna@example.org", "12:30@home"),
    ],
)
def test_hashes_paths_names_and_numbers_stay(line: str) -> None:
    assert without_formats(line) == line


def test_content_hashes_in_base64_stay() -> None:
    for content in map(str, range(200)):
        digest = base64.b64encode(hashlib.sha384(content.encode()).digest()).decode()
        for line in (f"integrity=sha384-{digest}", f"SHA384:{digest}"):
            assert without_formats(line) == line


@pytest.mark.parametrize(("length", "least"), [(24, 0.8), (32, 0.9), (40, 0.95), (64, 0.95)])
def test_generated_words_are_found_and_hexadecimal_ones_are_not(length: int, least: float) -> None:
    """Of random letters and digits, most; which words are ordinary is tested above."""
    rng = random.Random(length)
    words = ["".join(rng.choices(string.ascii_letters + string.digits, k=length)) for _ in range(500)]
    assert sum(without_formats(f"with {word}.") == f"with {REDACTED}." for word in words) >= least * len(words)
    assert not any(is_generated(f"{rng.getrandbits(4 * length):x}") for _ in range(500))
