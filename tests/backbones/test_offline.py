"""Weights out of the caches without a network, and sentences that say what to fetch where they are not there."""

import socket

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file

import tests.backbones.tiny  # noqa: F401
from evl.backbones import create_backbone
from evl.backbones.weights.fetch import weights_on_disk
from evl.config import BackboneConfig
from evl.errors import BackboneError
from tests.backbones.test_weights_in import timm_state
from tests.helpers import run_command

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of the hub and of torch, and no network: whoever asks for it is told so."""

    def refused(*_):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def on_hub(caches, repository, file, state, revision="main"):
    """A file in the hub's cache as the hub's client leaves it: blobs, snapshots with links, refs."""
    folder = caches / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / revision).write_text(COMMIT)
    blob, link = folder / "blobs" / "e3b0", folder / "snapshots" / COMMIT / file
    (save_file if file.endswith(".safetensors") else torch.save)(state, blob)
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    return link


@pytest.mark.parametrize("offline", [False, True])
def test_a_name_works_from_the_cache_without_a_network(caches, monkeypatch, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    state = timm_state("tiny_vit_16")
    link = on_hub(caches, "timm/tiny_vit_16.on_hub", "model.safetensors", state)
    assert weights_on_disk("tiny_vit_16.on_hub") == link
    for name in ("tiny_vit_16.on_hub", "tiny_vit_16"):  # on_hub is its default
        backbone = create_backbone(name, 2)
        assert torch.equal(backbone.vit.blocks[1].attn.qkv.weight, state["blocks.1.attn.qkv.weight"])
        assert (backbone.origin.kind, backbone.origin.source) == ("hub", "timm/tiny_vit_16.on_hub")
        assert (backbone.origin.layout, backbone.origin.license) == ("timm", "mit")


def test_other_file_names_revisions_and_addresses(caches):
    state = timm_state("tiny_vit_16")
    on_hub(caches, "someone/else", "weights/tiny.bin", state, "v2")
    folder = caches / "torch" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / "tiny-vit.pth")
    by_hub, by_address = (create_backbone(f"tiny_vit_16.{tag}", 2) for tag in ("elsewhere", "at_an_address"))
    assert by_hub.weights_hash == by_address.weights_hash
    assert by_hub.origin.source == "someone/else@v2"
    assert by_address.origin.source == "https://weights.invalid/files/tiny-vit.pth"
    assert by_address.origin.kind == "url"


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    ("tag", "address", "where"),
    [
        (
            "on_hub",
            "/timm/tiny_vit_16.on_hub/resolve/main/model.safetensors",
            "'hf download timm/tiny_vit_16.on_hub model.safetensors'",
        ),
        (
            "elsewhere",
            "/someone/else/resolve/v2/weights/tiny.safetensors",
            "'hf download someone/else weights/tiny.safetensors --revision v2'",
        ),
        ("at_an_address", "https://weights.invalid/files/tiny-vit.pth", "checkpoints/tiny-vit.pth"),
    ],
)
def test_what_is_missing_is_named(caches, monkeypatch, tag, address, where, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(BackboneError) as caught:
        create_backbone(f"tiny_vit_16.{tag}", 2)
    said = str(caught.value)
    assert f"the weights of tiny_vit_16.{tag} are not on this machine" in said
    assert ("HF_HUB_OFFLINE is set" if offline else "cannot be found: Name or service not known") in said
    assert f"{address}, put it anywhere, and add `backbone.weights=PATH`; or " in said
    assert where in said
    assert weights_on_disk(f"tiny_vit_16.{tag}") is None
    assert not any(caches.rglob("*"))  # nothing left behind


def test_the_file_named_is_the_one_that_loads(caches):
    """Following the sentence works: the same weights by name from the cache, and by file from anywhere."""
    link = on_hub(caches, "timm/tiny_vit_16.on_hub", "model.safetensors", timm_state("tiny_vit_16"))
    (caches / "elsewhere.safetensors").write_bytes(link.read_bytes())
    by_file = create_backbone(BackboneConfig("tiny_vit_16.on_hub", weights=str(caches / "elsewhere.safetensors")), 2)
    assert by_file.weights_hash == create_backbone("tiny_vit_16.on_hub", 2).weights_hash


def test_what_the_hub_answers(caches, monkeypatch):
    state = timm_state("tiny_vit_16")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    asked = []

    def answering(repository, file, **_):
        asked.append(file)
        if file == "model.safetensors":
            raise EntryNotFoundError("404")
        torch.save(state, caches / "downloaded.bin")
        return str(caches / "downloaded.bin")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answering)
    assert create_backbone("tiny_vit_16.on_hub", 2).origin.kind == "hub"
    assert asked == ["model.safetensors", "pytorch_model.bin"]

    def silent(*_, **__):
        asked.append("again")
        raise LocalEntryNotFoundError("an error happened\nand more") from ConnectionError("connection reset")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", silent)
    with pytest.raises(BackboneError, match=r"could not be fetched \(ConnectionError: connection reset\)\. Fetch http"):
        create_backbone("tiny_vit_16.on_hub", 2)
    assert asked[2:] == ["again"]  # no other name is tried where nobody answers


def test_a_damaged_download_names_its_file(caches):
    link = on_hub(caches, "timm/tiny_vit_16.on_hub", "model.safetensors", timm_state("tiny_vit_16"))
    link.resolve().write_bytes(link.read_bytes()[:2000])
    with pytest.raises(BackboneError, match=r"snapshots/.*/model\.safetensors: not a readable weights file"):
        create_backbone("tiny_vit_16.on_hub", 2)


def test_a_file_that_is_not_there(caches):
    with pytest.raises(BackboneError) as caught:
        create_backbone(BackboneConfig("tiny_vit_16.on_hub", weights="nowhere/w.safetensors"), 2)
    said = str(caught.value)
    assert said.startswith("nowhere/w.safetensors: no such weights file; ")
    assert said.endswith("/timm/tiny_vit_16.on_hub/resolve/main/model.safetensors")
    with pytest.raises(BackboneError, match="timm has no weights for tiny_dinov3; set backbone"):
        create_backbone("tiny_dinov3", 2)


def test_the_command_says_it_in_one_sentence(caches, capsys, tmp_path):
    from tests.helpers import numbered_frames, write_video

    for name in ("a", "b"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for index in range(2):
            write_video(tmp_path / "videos" / name / f"{index}.mp4", numbered_frames(12))
    code, out, err = run_command(
        capsys, "train", "--data", tmp_path / "videos", "--out", tmp_path / "run", "--backbone", "tiny_vit_16.on_hub"
    )
    assert code != 0
    said = " ".join((out + err).split())
    assert "resolve/main/model.safetensors, put it anywhere, and add --set backbone.weights=PATH" in said
