"""Prompt debiasing: which words go, and what a masked language model is asked."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from guidance.conditioning.debias import RATIO_THRESHOLD, LanguageModel, debias_prompt
from guidance.priors.views import VIEW_LABELS

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] this image is depicting a view of front side back overhead smiling bear red"


def view_softmax(**logits: float) -> dict[str, float]:
    """Chances of the views with these logits, 0 for the others."""
    weights = {view: math.exp(logits.get(view, 0.0)) for view in VIEW_LABELS}
    return {view: weight / sum(weights.values()) for view, weight in weights.items()}


# --- which words go ---


def test_removes_words_that_lower_the_view_probability() -> None:
    def views(text: str) -> dict[str, float]:
        return view_softmax(front=2.0) if "smiling" in text else view_softmax()

    left = debias_prompt("a smiling bear", views)
    assert left == {"front": "a smiling bear", **dict.fromkeys(("side", "back", "overhead"), "a bear")}


def test_keeps_neutral_words() -> None:
    assert set(debias_prompt("a  red\nbear", lambda text: view_softmax(front=1.0)).values()) == {"a red bear"}


def test_keeps_the_prompt_when_no_word_would_remain() -> None:
    """Each word alone argues against the back."""
    left = debias_prompt("smiling face", lambda text: view_softmax(back=-len(text.split())))
    assert left["back"] == "smiling face" and left["front"] == "smiling face"


def test_threshold_uses_the_mean_of_both_probabilities() -> None:
    """chance / (0.5 chance + 0.5 without) < 0.95 where without / chance > 2 / 0.95 - 1."""
    edge = 2 / RATIO_THRESHOLD - 1
    for factor, saved in ((edge - 0.01, True), (edge + 0.01, False)):

        def views(text: str, factor: float = factor) -> dict[str, float]:
            back = 0.2 if "smiling" in text else 0.2 * factor
            return {"front": 0.8 - back, "side": 0.1, "back": back, "overhead": 0.1}

        assert ("smiling" in debias_prompt("smiling bear", views)["back"]) == saved


def test_words_are_tested_one_at_a_time() -> None:
    calls: list[str] = []

    def views(text: str) -> dict[str, float]:
        calls.append(text)
        return view_softmax()

    debias_prompt("a red bear", views)
    assert calls == ["a red bear", "red bear", "a bear", "a red"]


# --- a language model ---


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT of random weights, outspoken ones."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS.split()) + "\n")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(WORDS.split()), initializer_range=1.0, **sizes)
    network = transformers.BertForMaskedLM(config)
    with torch.no_grad():
        network.cls.predictions.transform.LayerNorm.weight.fill_(2.0)
        layer = network.bert.encoder.layer[0].attention
        layer.output.dense.weight.mul_(10.0)
        layer.self.query.weight.zero_()  # every word is heard
    network.save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(bert: Path) -> LanguageModel:
    return LanguageModel.load(str(bert))


def test_probabilities_cover_the_four_views(model: LanguageModel) -> None:
    result = model.view_probabilities("a smiling bear")
    assert tuple(result) == VIEW_LABELS and sum(result.values()) == pytest.approx(1)
    assert result == model.view_probabilities("a smiling bear") != model.view_probabilities("a bear")


def test_probabilities_match_the_mask_logits(model: LanguageModel) -> None:
    """By hand: the sentence in numbers, a softmax over all words, renormalised over four."""
    vocabulary = WORDS.split()
    sentence = ["[CLS]", "this", "image", "is", "depicting", "a", "[MASK]", "view", "of", "a", "bear", "[SEP]"]
    numbers = torch.tensor([[vocabulary.index(word) for word in sentence]])
    with torch.no_grad():
        shares = model.model(input_ids=numbers).logits[0, 6].softmax(-1)
    four = torch.stack([shares[vocabulary.index(view)] for view in VIEW_LABELS])
    expected = dict(zip(VIEW_LABELS, (four / four.sum()).tolist(), strict=True))
    assert model.view_probabilities("a bear") == pytest.approx(expected, rel=1e-4)


def test_prompt_is_debiased_with_a_language_model(model: LanguageModel) -> None:
    left = debias_prompt("a smiling red bear", model.view_probabilities)
    assert set(left) == set(VIEW_LABELS) and all(left.values())
    assert any(text != "a smiling red bear" for text in left.values()), "random weights are sure to mind some word"


def test_loading_prints_nothing(bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    LanguageModel.load(str(bert))
    assert capfd.readouterr() == ("", "")


def test_load_errors_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(OSError, match=r"debias: .* can not be opened") as refused:
        LanguageModel.load(str(tmp_path / "nothing"))
    assert "\n" not in str(refused.value)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises((OSError, ValueError), match="debias: ") as refused:
        LanguageModel.load(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_rejects_models_without_view_tokens(bert: Path, tmp_path: Path) -> None:
    words = [word for word in WORDS.split() if word not in ("back", "overhead")]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    pytest.importorskip("transformers").BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((bert / name).read_bytes())
    with pytest.raises(ValueError, match="does not know back, overhead as a single word"):
        LanguageModel.load(str(tmp_path))


def test_missing_transformers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'transformers>=4\.45'"):
        LanguageModel.load("bert-base-uncased")
