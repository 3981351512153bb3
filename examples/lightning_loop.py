"""Training by Lightning, on the clips that evl reads; evl loads the result: pip install "evl[examples]"

python examples/lightning_loop.py VIDEOS RUN     # a folder with a folder per class; where the model is saved
"""

import sys

import lightning
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import evl

BACKBONE = "evl_clip_tiny"  # very small, for first steps; evl.list_backbones("clip") lists the others


class Lit(lightning.LightningModule):
    """The decoder and head of ``model`` learn. Its frozen encoder stays in evaluation mode and takes no gradients."""

    def __init__(self, model: evl.VideoClassifier):
        super().__init__()
        self.model = model

    def on_train_epoch_start(self):
        self.trainer.train_dataloader.dataset.set_epoch(self.current_epoch)  # other random clips

    def training_step(self, batch, index):
        clips, labels = batch  # (B,T,C,H,W) and (B)
        loss = cross_entropy(self.model(clips), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, index):
        clips, labels = batch
        right = self.model(clips).argmax(-1) == labels
        self.log("accuracy", right.float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.model.trainable_parameters(), lr=1e-3)


def main(videos: str, out: str, epochs: int = 2) -> evl.VideoClassifier:
    names = evl.read_manifest(videos).class_names
    model = evl.create_model(BACKBONE, names, num_frames=4, stride=4)
    training = evl.ClipDataset(videos, model, split="train")
    validation = evl.ClipDataset(videos, model, split="val")
    trainer = lightning.Trainer(max_epochs=epochs, log_every_n_steps=1, logger=False, enable_checkpointing=False)
    trainer.fit(Lit(model), DataLoader(training, batch_size=4, shuffle=True), DataLoader(validation, batch_size=4))
    model.save_pretrained(out)
    return evl.load(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
