"""Text towers: what we say of class names, against open_clip alone, on tiny random CLIPs of each family."""

import json
import pathlib
import pickle
import sys
import types

import huggingface_hub.constants
import open_clip
import pytest
import safetensors.torch
import timm
import torch
from open_clip.pretrained import _PRETRAINED

import evl
from evl.backbones import create_backbone
from evl.backbones.text.addresses import TEXT_TOWERS
from evl.backbones.text.tower import open_shared_space
from evl.config import BackboneConfig
from evl.errors import BackboneError, ConfigError
from evl.sections import PROMPTS
from tests import towers
from tests.helpers import assert_close

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("opening_a door", "Jump", "x, y (z)")
FAMILIES = {
    "gelu": ("evltest_clip_32", towers.PLAIN),
    "quickgelu": ("evltest_clip_quickgelu_32", {**towers.PLAIN, "quick_gelu": True}),
    "linear behind timm's": ("evltest_clip_32", towers.with_trunk("evltest_clip_32", "token", "linear")),
    "siglip": (
        "evltest_siglip_32",
        towers.with_trunk("evltest_siglip_32", "map", "none", embed_dim=128, init_logit_bias=-10),
    ),
    "mean": ("evltest_mean_32", towers.with_trunk("evltest_mean_32", "avg", "linear")),
    "eva": ("evltest_eva_clip_32", towers.with_trunk("evltest_eva_clip_32", "token", None)),
    "pe core": ("evltest_pe_core_32", towers.with_trunk("evltest_pe_core_32", "map", None)),
}


class Touch:
    """A pickle that would run code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def assert_same(model, clip, class_names=NAMES, prompts=PROMPTS):
    """Frames' embeddings and logits, by us and by open_clip."""
    for shape in ((2, 3), (1, 1)):
        clips = torch.randn(*shape, 3, *model.backbone.spec.image_size)
        spoken = [name.replace("_", " ") for name in class_names]
        frames, logits = towers.by_open_clip(clip, clips, spoken, prompts)
        with torch.no_grad():
            tokens = model.features(clips)[-1].tokens
            assert_close(model.decoder.embedding(tokens.flatten(0, 1)).unflatten(0, shape), frames)
            for _ in range(2):
                assert_close(model(clips), logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_says_what_open_clip_says(family, tmp_path):
    name, settings = FAMILIES[family]
    clip = towers.make(settings)
    file = towers.write(clip, tmp_path, settings)
    model = evl.zero_shot(BackboneConfig(name, weights=str(file)), NAMES)
    assert model.class_names == NAMES
    assert_same(model, clip)


@pytest.mark.parametrize(("quick_gelu", "custom_text"), [(True, False), (False, False), (False, True)])
def test_a_plain_file_is_built_from_its_sizes(quick_gelu, custom_text, tmp_path):
    """No settings beside it: as OpenAI's archives are. The activation is the backbone's."""
    settings = {**towers.PLAIN, "quick_gelu": quick_gelu, "custom_text": custom_text}
    settings["text_cfg"] = {**towers.TEXT, "width": 128, "heads": 2, "context_length": 20, "layers": 1}
    clip = towers.make(settings)
    if quick_gelu:
        backbone = str(towers.write(clip, tmp_path, input_resolution=torch.tensor(32)))
    else:
        backbone = BackboneConfig("evltest_clip_32", weights=str(towers.write(clip, tmp_path)))
    # open_clip's tokenizer has its own length
    model = evl.zero_shot(backbone, NAMES, prompts=("{}", "a {} b"))
    texts = open_clip.SimpleTokenizer(context_length=20)
    rows = []
    for name in ("opening a door", "Jump", "x, y (z)"):
        with torch.no_grad():
            rows.append(clip.encode_text(texts([name, f"a {name} b"]), normalize=True).mean(0))
    assert_close(model.decoder.text, torch.nn.functional.normalize(torch.stack(rows), dim=-1))
    assert model.decoder.logit_scale == pytest.approx(clip.logit_scale.exp().item(), rel=1e-6)


def test_half_precision_and_an_openai_archive(tmp_path):
    """TorchScript in half precision, read for its tensors."""
    clip = towers.make({**towers.PLAIN, "quick_gelu": True}).half().float()

    class Tower(torch.nn.Module):
        def forward(self, x):
            return x

    archive = Tower()
    archive.load_state_dict({})
    for name, value in clip.state_dict().items():
        place, *path = archive, *name.split(".")
        for part in path[:-1]:
            if not hasattr(place, part):
                place.add_module(part, Tower())
            place = getattr(place, part)
        place.register_buffer(path[-1], value.half())
    file = tmp_path / "tiny.pt"
    torch.jit.script(archive).save(str(file))
    assert_same(evl.zero_shot(str(file), NAMES), clip)


def test_from_the_hub_s_cache_without_a_network(tmp_path, monkeypatch):
    settings = {**towers.PLAIN, "quick_gelu": True}
    clip = towers.make(settings)
    snapshot = tmp_path / "models--evl-tests--clip/snapshots/0123"
    towers.write(clip, snapshot, {**settings, "quick_gelu": False})  # some say so; the backbone's activation decides
    (tmp_path / "models--evl-tests--clip/refs").mkdir()
    (tmp_path / "models--evl-tests--clip/refs/main").write_text("0123")
    image = timm.models.vision_transformer.checkpoint_filter_fn(
        dict(clip.state_dict()), timm.create_model("evltest_clip_quickgelu_32")
    )
    safetensors.torch.save_file(
        {name: value.contiguous().clone() for name, value in image.items()}, snapshot / "model.safetensors"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert_same(evl.zero_shot("evltest_clip_quickgelu_32.x", NAMES), clip)
    (snapshot / "open_clip_model.safetensors").unlink()
    (snapshot / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps({"text.x": Touch(tmp_path / "touched")}, 2))
    with pytest.raises(BackboneError, match="hold code"):
        evl.zero_shot("evltest_clip_quickgelu_32.x", NAMES)
    assert not (tmp_path / "touched").exists()
    (snapshot / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(BackboneError, match=r"could not be fetched from evl-tests/clip .*open_clip_config\.json"):
        evl.zero_shot("evltest_clip_quickgelu_32.x", NAMES)


def test_another_image_size(tmp_path):
    """Positions are interpolated by both sides alike."""
    clip = towers.make(towers.PLAIN)
    file = towers.write(clip, tmp_path)
    model = evl.zero_shot(BackboneConfig("evltest_clip_32", weights=str(file), image_size=(40, 48)), NAMES)
    settings = {**towers.PLAIN, "vision_cfg": {**towers.PLAIN["vision_cfg"], "image_size": (40, 48)}}
    larger, state = open_clip.CLIP(**settings).eval(), dict(clip.state_dict())
    open_clip.model.resize_pos_embed(state, larger)
    larger.load_state_dict(state)
    assert_same(model, larger)
    for family in ("siglip", "pe core"):  # timm's towers
        name, settings = FAMILIES[family]
        clip = towers.make(settings)
        config = BackboneConfig(name, weights=str(towers.write(clip, tmp_path / family, settings)), image_size=(48, 40))
        model = evl.zero_shot(config, NAMES)
        clip.visual.set_input_size((48, 40))
        assert_same(model, clip)


def test_tokens_of_hugging_face(tmp_path, monkeypatch):
    """SigLIP's: by the name in the settings, or from the folder where they lie there; told how to clean text."""
    name, settings = FAMILIES["siglip"]
    more = {"hf_tokenizer_name": "evl-tests/words", "tokenizer_kwargs": {"clean": "canonicalize"}}
    file = towers.write(towers.make(settings), tmp_path, {**settings, "text_cfg": {**towers.TEXT, **more}})
    asked = []

    def hugging_face(source, **options):
        asked.append((source, options))
        return open_clip.SimpleTokenizer(context_length=options["context_length"])

    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", hugging_face)
    config = BackboneConfig(name, weights=str(file))
    text = evl.zero_shot(config, NAMES).decoder.text
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert torch.equal(evl.zero_shot(config, NAMES).decoder.text, text)
    options = {"context_length": 77, "clean": "canonicalize", "tokenizer_mode": None, "trust_remote_code": False}
    assert asked == [("evl-tests/words", options), (str(tmp_path), options)]
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackboneError, match=r'another package .*pip install "evl\[clip\]"'):
        evl.zero_shot(config, NAMES)


CODE_BESIDE = {
    "tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]}}),
    "configuration": ("config.json", {"auto_map": {"AutoConfig": "evil.EvilConfig"}}),
    "another version": ("config.4.0.0.json", {"auto_map": {"AutoConfig": "evil.EvilConfig"}}),
    "below": ("config.json", {"text_config": [{"auto_map": None}]}),
    "of another repository": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a/b--evil.Evil", None]}}),
}


@pytest.fixture
def unasked(monkeypatch):
    """Neither transformers nor the terminal may be asked."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", lambda *_, **__: pytest.fail("transformers was asked"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))


@pytest.mark.parametrize("case", CODE_BESIDE)
def test_code_beside_the_weights_is_refused_unasked(case, tmp_path, unasked):
    name, settings = FAMILIES["siglip"]
    text = {**towers.TEXT, "hf_tokenizer_name": "evl-tests/words"}
    config = BackboneConfig(name, weights=str(towers.write(towers.make(settings), tmp_path, settings)))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    file, content = CODE_BESIDE[case]
    written = json.dumps(content).replace("auto_map", "auto\\u005fmap")
    (tmp_path / file).write_text(written)
    evl.zero_shot(config, NAMES)  # CLIP's own words come with open_clip: nothing beside the weights is read for them
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**settings, "text_cfg": text}}))
    with pytest.raises(BackboneError, match=rf"refused: {file} beside it has an auto_map, which loads code"):
        evl.zero_shot(config, NAMES)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"hf_model_name": "HERE"}, "its hf_model_name is '.*Only a name on the hub"),
        ({"hf_model_name": "HERE/tower"}, "its hf_model_name"),
        ({"hf_model_name": "./tower"}, "its hf_model_name"),
        ({"hf_model_name": ".."}, "its hf_model_name"),
        ({"hf_model_name": "owner/../tower"}, "its hf_model_name"),
        ({"hf_model_name": "local/tower"}, "its hf_model_name"),  # lies in the working directory
        ({"hf_model_name": "a\\b"}, "its hf_model_name"),
        ({"hf_model_name": "owner/name\n"}, "its hf_model_name"),
        ({"hf_model_name": ["owner/name"]}, "its hf_model_name"),
        ({"hf_tokenizer_name": "HERE"}, "its hf_tokenizer_name"),
        ({"hf_tokenizer_name": "~/words"}, "its hf_tokenizer_name"),
        ({"hf_tokenizer_name": "a/b", "tokenizer_kwargs": {"trust_remote_code": True}}, "have .'trust_remote_code'"),
        ({"tokenizer_kwargs": {"clean": "lower", "bpe_path": "/etc/passwd"}}, "have .'bpe_path'.; only clean"),
    ],
)  # fmt: skip
def test_settings_cannot_lead_to_code(more, sentence, tmp_path, unasked, monkeypatch):
    name, settings = FAMILIES["siglip"]
    (tmp_path / "local/tower").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    more = {key: value.replace("HERE", str(tmp_path)) if type(value) is str else value for key, value in more.items()}
    text = {"text_cfg": {**towers.TEXT, **more}}
    file = towers.write(towers.make(settings), tmp_path, {**settings, **text})
    with pytest.raises(BackboneError, match=sentence):
        evl.zero_shot(BackboneConfig(name, weights=str(file)), NAMES)


@pytest.mark.parametrize("found", ["a class of its own", "more than the configuration", "nothing"])
def test_a_text_model_of_the_hub_brings_no_code(found, tmp_path, monkeypatch):
    """open_clip asks transformers for it in words that let it ask back; so it is looked at first."""
    asked = []

    class AutoConfig:
        @staticmethod
        def from_pretrained(name, trust_remote_code=None):
            asked.append((name, trust_remote_code))
            if found == "a class of its own":
                raise ValueError("contains custom code … pass the argument `trust_remote_code=True` …")
            return types.SimpleNamespace(**({} if found == "nothing" else {"auto_map": {"AutoModel": "evil.Evil"}}))

    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(AutoConfig=AutoConfig))
    name, settings = FAMILIES["siglip"]
    text = {"text_cfg": {**towers.TEXT, "hf_model_name": "evl-tests/tower"}}
    file = towers.write(towers.make(settings), tmp_path, {**settings, **text})
    # open_clip was imported without transformers, and says so: it was reached
    sentence = "could not be built" if found == "nothing" else "evl-tests/tower is refused: it loads code"
    with pytest.raises(BackboneError, match=sentence):
        evl.zero_shot(BackboneConfig(name, weights=str(file)), NAMES)
    assert asked == [("evl-tests/tower", False)]


def test_the_wrong_tower_is_refused(tmp_path):
    """Settings and sizes fit, but text and images come from different trainings."""
    name, settings = FAMILIES["gelu"]
    ours, other = (towers.write(towers.make(settings, seed), tmp_path / str(seed)) for seed in (0, 1))
    backbone = create_backbone(BackboneConfig(name, weights=str(ours)), 1)
    open_shared_space(backbone, BackboneConfig(name, weights=str(ours)), NAMES, PROMPTS)
    with pytest.raises(BackboneError, match="belongs to another image tower"):
        open_shared_space(backbone, BackboneConfig(name, weights=str(other)), NAMES, PROMPTS)


def test_random_state_is_left_alone(tmp_path):
    name, settings = FAMILIES["gelu"]
    config = BackboneConfig(name, weights=str(towers.write(towers.make(settings), tmp_path)))
    backbone, before = create_backbone(config, 1), torch.get_rng_state()
    open_shared_space(backbone, config, NAMES, PROMPTS)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_has_no_text_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    for name in ("vit_small_patch14_dinov2.lvd142m", "vit_base_patch16_siglip_gap_224.webli",
                 "vit_base_patch16_clip_224.openai_ft_in1k"):  # fmt: skip
        with pytest.raises(BackboneError, match=f"{name} has no text tower"):
            evl.zero_shot(name, NAMES)
    with pytest.raises(BackboneError, match="has no text tower"):
        evl.zero_shot(BackboneConfig("vit_base_patch16_clip_224.openai", pretrained=False), NAMES)
    with pytest.raises(BackboneError, match="did you mean"):
        evl.zero_shot("vit_base_patch16_clpi_224", NAMES)
    clip = towers.make(towers.PLAIN)
    state = {name: value for name, value in clip.state_dict().items() if name.startswith("visual.")}
    safetensors.torch.save_file(state, tmp_path / "image.safetensors")
    with pytest.raises(BackboneError, match="but no text tower"):
        evl.zero_shot(BackboneConfig("evltest_clip_32", weights=str(tmp_path / "image.safetensors")), NAMES)
    siglip = towers.write(towers.make(FAMILIES["siglip"][1]), tmp_path / "siglip")
    with pytest.raises(BackboneError, match=r"put the open_clip_config\.json of its repository"):
        evl.zero_shot(BackboneConfig("evltest_siglip_32", weights=str(siglip)), NAMES)
    words = {**towers.PLAIN, "text_cfg": {**towers.TEXT, "vocab_size": 1000}}
    file = towers.write(towers.make(words), tmp_path / "words")
    with pytest.raises(BackboneError, match="differs from that of OpenAI's CLIP"):
        evl.zero_shot(BackboneConfig("evltest_clip_32", weights=str(file)), NAMES)
    broken = json.dumps({"model_cfg": {**towers.PLAIN, "embed_dim": 47}})
    file = towers.write(clip, tmp_path / "broken")
    (tmp_path / "broken/open_clip_config.json").write_text(broken)
    with pytest.raises(BackboneError, match="could not be built: RuntimeError"):
        evl.zero_shot(BackboneConfig("evltest_clip_32", weights=str(file)), NAMES)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(BackboneError, match=r'pip install "evl\[clip\]"'):
        evl.zero_shot("vit_base_patch16_clip_224.openai", NAMES)


def test_class_names_that_cannot_be(tmp_path):
    for names, sentence in (
        ("a, b", "a list of them"),
        (("a",), "at least two"),
        (("a", "b", "a"), "'a' is given twice"),
        (("a b", "a_b"), "'a b' is given twice"),
        (("a", " "), "empty"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            evl.zero_shot("vit_base_patch16_clip_224.openai", names)


def test_the_table_names_what_timm_and_open_clip_know():
    """Each name is timm's; the repository is open_clip's, for a model of the same size and kind."""
    of_repository = {}
    for name, tags in _PRETRAINED.items():
        for settings in tags.values():
            of_repository.setdefault(settings.get("hf_hub", "").strip("/"), []).append(open_clip.get_model_config(name))
    for name, repository in TEXT_TOWERS.items():
        known = timm.get_pretrained_cfg(name)
        assert f"{known.architecture}.{known.tag}" == name
        fitting = [
            settings
            for settings in of_repository[repository]
            if settings["vision_cfg"]["image_size"] == known.input_size[1]
            and known.num_classes in (0, settings["embed_dim"])
            and settings["vision_cfg"].get("timm_model_name", "vit").split("_")[0] in known.architecture
        ]
        assert fitting, f"{name}: {repository}"
