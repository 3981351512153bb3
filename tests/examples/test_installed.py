"""Examples that need more packages: pip install -e ".[examples]"; pytest -m examples."""

import json

import pytest
import torch

import evl
from tests.examples.test_examples import EXAMPLES, load
from tests.examples.test_own_parts import SMALL, run

pytestmark = pytest.mark.examples


@pytest.mark.parametrize("name", ["lightning_loop", "hf_trainer"])
def test_loops_of_others(videos, tmp_path, name, monkeypatch):
    """Decoder and head learn, the encoder does not, each epoch has other clips, and evl loads what was trained."""
    example, made = load(name), []
    create = evl.create_model
    monkeypatch.setattr(evl, "create_model", lambda *given, **how: made.append(create(*given, **how)) or made[-1])
    epochs, set_epoch = [], evl.ClipDataset.set_epoch
    monkeypatch.setattr(
        evl.ClipDataset, "set_epoch", lambda data, epoch: epochs.append(epoch) or set_epoch(data, epoch)
    )
    torch.manual_seed(0)
    model = example.main(str(videos), str(tmp_path / "model"), epochs=2)
    assert set(epochs) == {0, 1}
    torch.manual_seed(0)
    before = create("evl_clip_tiny", ["bright", "dark"], num_frames=4, stride=4)
    assert not made[0].backbone.training
    assert all(one.grad is None for one in made[0].backbone.parameters())
    assert model.backbone.weights_hash == before.backbone.weights_hash
    state, start = model.trainable_state(), before.trainable_state()
    assert sum(not torch.equal(state[key], start[key]) for key in state) > len(state) / 2
    video = next((videos / "bright").iterdir())
    assert model.predict(video).class_name in model.class_names == ("bright", "dark")


@pytest.fixture
def vjepa2(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import vjepa2_encoder

    return vjepa2_encoder


def sharp(encoder):
    """The encoder with larger queries and keys, so that its attention is far from uniform."""
    for block in encoder.encoder.layer:
        for part in (block.attention.query, block.attention.key):
            part.weight.data.mul_(30)
    return encoder


def of_transformers(encoder):
    """A VJEPA2Model with the encoder's weights, made from a config of its own."""
    from transformers import VJEPA2Config, VJEPA2Model

    model = VJEPA2Model(VJEPA2Config(**encoder.encoder.config.to_dict())).eval()
    model.encoder.load_state_dict(encoder.encoder.state_dict())
    return model


@pytest.mark.parametrize("size", [64, 96])
def test_vjepa2_gives_what_transformers_gives(vjepa2, size):
    """Tokens are its hidden states; queries and keys make its attention; 64 is the size that the weights are of."""
    encoder = sharp(vjepa2.VJEPA2Encoder("all", image_size=size))
    clips = torch.randn(2, 6, 3, size, size, generator=torch.Generator().manual_seed(1))
    features = encoder(clips)
    model = of_transformers(encoder)
    with torch.no_grad():
        states = model(clips, output_hidden_states=True, skip_predictor=True).hidden_states
        model.set_attn_implementation("eager")
        attentions = model(clips, output_attentions=True, skip_predictor=True).attentions
    places = (size // 16) ** 2
    assert len(features) == len(states) - 1 == 3
    for one, state, attention in zip(features, states[1:], attentions, strict=True):
        assert one.tokens.shape == (2, 3, places, 96)
        torch.testing.assert_close(one.tokens.flatten(1, 2), state, atol=1e-5, rtol=0)
        query, key = (part.flatten(1, 2).transpose(1, 2) for part in (one.query, one.key))
        assert attention.max() > 10 / (3 * places)
        torch.testing.assert_close((query @ key.mT / 48**0.5).softmax(-1), attention, atol=1e-5, rtol=0)
    deep = vjepa2.VJEPA2Encoder([2], image_size=size)
    torch.testing.assert_close(sharp(deep)(clips)[0].tokens, features[1].tokens)


def test_vjepa2_reads_a_folder_of_transformers(vjepa2, tmp_path):
    """The sizes and weights of a ``save_pretrained`` folder; and what it refuses."""
    first = vjepa2.VJEPA2Encoder(1)
    model = of_transformers(first)
    torch.nn.init.normal_(model.encoder.layer[0].mlp.fc1.weight)
    model.save_pretrained(tmp_path / "weights")
    read = vjepa2.VJEPA2Encoder(1, weights=str(tmp_path / "weights"))
    assert torch.equal(read.encoder.layer[0].mlp.fc1.weight, model.encoder.layer[0].mlp.fc1.weight)
    assert read.weights_hash != first.weights_hash == vjepa2.VJEPA2Encoder(1).weights_hash
    with pytest.raises(evl.EVLError, match="takes square ones"):
        vjepa2.VJEPA2Encoder(1, image_size=(64, 32))


@pytest.mark.parametrize(
    "decoder",
    [("model.decoder=attentive", "model.probe_blocks=1"), ("model.decoder=evl", "model.taps=last 1")],
    ids=["attentive", "evl"],
)
def test_vjepa2_with_a_decoder_of_depth_one(vjepa2, videos, tmp_path, decoder):
    """Trained from a folder of weights by the command, judged, loaded, explained, saved whole."""
    of_transformers(vjepa2.VJEPA2Encoder(1)).save_pretrained(tmp_path / "weights")
    settings = [one for one in SMALL if not one.startswith(("clip.num_frames", "backbone", "model"))]
    own = ("backbone.name=vjepa2_encoder:VJEPA2Encoder", f"backbone.weights={tmp_path / 'weights'}", *decoder)
    run("train", "--data", videos, "--out", tmp_path / "run", "--set", *settings, *own, "clip.num_frames=6")
    video = next((videos / "bright").iterdir())
    said = json.loads(run("predict", tmp_path / "run", video, "--json"))
    model = evl.load(tmp_path / "run")
    assert len(model.encoder.taps) == 1
    assert said["predictions"][0]["class"] == model.predict(video).class_name
    clips = torch.randn(2, 6, 3, 64, 64)
    assert evl.explain(model, clips).attention.shape == (1, 2, 3, 4, 4)
    model.save_pretrained(tmp_path / "whole", with_backbone=True)
    assert torch.equal(evl.load(tmp_path / "whole")(clips), model(clips))


def test_the_notebook(videos, tmp_path):
    """It runs from its first cell to its last, with bars and pictures; an error of evl is two lines; it is stored
    without outputs."""
    import nbclient
    import nbformat

    notebook = nbformat.read(EXAMPLES / "folder_to_report.ipynb", 4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert cells[0].metadata.tags == ["parameters"]
    settings = dict(num_frames=3, stride=2, image_size=32, num_workers=0, steps=3, training={"batch_size": 4})
    cells[0].source = f"VIDEOS, RUN, SETTINGS = {str(videos)!r}, {str(tmp_path / 'run')!r}, {settings}"
    cells[0].source += "\nimport evl.runtime.progress\nevl.runtime.progress.QUICK = 0.0"
    notebook.cells.append(
        nbformat.v4.new_code_cell("x = 1\nevl.load('nowhere')", metadata={"tags": ["raises-exception"]})
    )
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    assert (tmp_path / "run/model.safetensors").is_file()

    checked, trained, scored, confused, _, predicted, explained, listed = (
        [one.get("data", {}) for one in cell.outputs] for cell in cells[1:]
    )
    assert "12/12" in checked[0]["text/html"]
    assert checked[-1]["text/plain"] == "{'bright': (6, 0), 'dark': (6, 0)}"
    assert any("3/3" in one.get("text/html", "") for one in trained)
    assert any("trainable parameters" in one.get("text/plain", "") for one in trained)
    assert "most often taken for" in scored[-1]["text/html"]
    assert all("image/png" in one[-1] for one in (confused, explained))
    assert "bright" in predicted[-1]["text/plain"]
    assert "confusion.png" in listed[-1]["text/plain"]
    (error,) = notebook.cells[-1].outputs
    assert error.ename == "CheckpointError"
    assert error.traceback == ["line 2: evl.load('nowhere')", f"CheckpointError: {error.evalue}"]
    assert "expected the folder of a finished run" in error.evalue
