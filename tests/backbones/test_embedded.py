"""The CLIP that comes with evl: its file, its words, and what it says of class names."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

import evl
from evl.backbones import create_backbone
from evl.backbones.embedded import FILE, load_embedded, open_embedded_text, unknown_words_on_one_line
from evl.backbones.text.embeddings import END, LENGTH, PAD, WordTextTower, words_of
from evl.config import BackboneConfig
from evl.errors import BackboneError
from tests.helpers import assert_close

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "evl_clip_tiny"


def test_the_file_is_small_and_holds_half_precision_only():
    assert FILE.stat().st_size < 8e6
    with safe_open(FILE, "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_untrained_twin_has_the_same_sizes_and_other_weights():
    trained, twin = (create_backbone(BackboneConfig(NAME, pretrained=flag), 3) for flag in (True, False))
    again = create_backbone(NAME, "last 3")
    assert trained.spec == twin.spec == again.spec
    assert trained.weights_hash == again.weights_hash != twin.weights_hash
    assert (trained.origin.kind, twin.origin.kind) == ("embedded", "random")
    for backbone in (trained, twin):
        assert all(parameter.isfinite().all() for parameter in backbone.parameters())


def test_weights_from_elsewhere_are_refused():
    with pytest.raises(BackboneError, match="comes with its weights"):
        load_embedded(BackboneConfig(NAME, weights="other.safetensors"))


def test_words():
    assert words_of("Père_Noël's 2 T-shirts!") == ["pere", "noel", "s", "2", "t", "shirts"]
    tower = WordTextTower(["a", "dog"], 64, 1, 8)
    assert tower.numbers(["A dog", "a cat, dog", "", "dog " * 40]).tolist() == [
        [2, 3, END] + [PAD] * (LENGTH - 3),
        [2, 3, END] + [PAD] * (LENGTH - 3),  # what is not known is left out
        [END] + [PAD] * (LENGTH - 1),
        [3] * (LENGTH - 1) + [END],
    ]


@torch.no_grad()
def test_text_tower_against_a_plain_one():
    """Each text alone, without padding or mask arithmetic: softmax over earlier words written out."""
    tower = WordTextTower(["a", "red", "dog", "left", "of"], 128, 2, 24).eval()
    for parameter in tower.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    texts = ["a red dog", "dog", "a dog left of a red dog of a dog", ""]
    expected = torch.stack([_plain(tower, text) for text in texts])
    for _ in range(2):
        assert_close(tower(tower.numbers(texts)), expected)
    assert_close(tower(tower.numbers(texts[:1])), expected[:1])


def _plain(tower: WordTextTower, text: str) -> torch.Tensor:
    numbers = [tower.number_of[word] for word in text.split()] + [END]
    x = tower.token_embedding.weight[numbers] + tower.positional_embedding[: len(numbers)]
    for block in tower.blocks.layers:
        attention = block.self_attn
        qkv = F.linear(block.norm1(x), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = (part.unflatten(1, (attention.num_heads, -1)).transpose(0, 1) for part in qkv.chunk(3, 1))  # (N,L,K)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        later = torch.ones(len(x), len(x)).triu(1).bool()
        mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ v
        x = x + attention.out_proj(mixed.transpose(0, 1).flatten(1))
        x = x + block.linear2(F.gelu(block.linear1(block.norm2(x))))
    return F.normalize(tower.projection(tower.blocks.norm(x)[-1]), dim=0)


@torch.no_grad()
def test_zero_shot_needs_nothing_and_says_what_the_towers_say():
    names = ("dog", "fire_engine", "red apple")
    model = evl.zero_shot(NAME, names, prompts=("a {}", "a photo of a {}"))
    clips = torch.randn(2, 3, 3, *model.backbone.spec.image_size)
    tower, projection, scale = open_embedded_text(names)
    rows = tower(tower.numbers([p.format(n.replace("_", " ")) for n in names for p in ("a {}", "a photo of a {}")]))
    text = F.normalize(rows.view(3, 2, -1).mean(1), dim=-1)
    frames = F.linear(model.backbone.vit(clips.flatten(0, 1)), projection)
    frames = F.normalize(frames, dim=-1).view(2, 3, -1)
    expected = scale * F.normalize(frames.mean(1), dim=-1) @ text.T
    for _ in range(2):
        assert_close(model(clips), expected)


def test_words_that_are_left_out_are_told(caplog):
    evl.zero_shot(NAME, ("qwrtz dog", "red apple"))
    (said,) = caplog.messages
    assert "does not know: qwrtz; they are in 1 class name, such as 'qwrtz dog'" in said
    assert "apple" not in said


def test_many_words_that_are_left_out_are_told_on_one_line(caplog):
    with unknown_words_on_one_line():
        open_embedded_text([f"{word} dog" for word in ("qa", "qb", "qc", "qd")])
        open_embedded_text(["cat", "qc qe cat", "qf cat"])
    (said,) = caplog.messages
    assert "qa, qb, qc, qd, qe, … (6 words); they are in 6 class names, such as 'qa dog'" in said
    assert len(said) < 200


def test_names_of_which_no_word_is_known_are_refused():
    with pytest.raises(BackboneError, match="knows no word of the class name 'qwrtz'"):
        evl.zero_shot(NAME, ("dog", "qwrtz"))
    with pytest.raises(BackboneError, match="knows no word of the class name 'the qwrtz'"):
        evl.zero_shot(NAME, ("dog", "the qwrtz"))  # "the" it knows
    with pytest.raises(BackboneError, match="with random weights has no text tower"):
        evl.zero_shot(BackboneConfig(NAME, pretrained=False), ("dog", "cat"))
