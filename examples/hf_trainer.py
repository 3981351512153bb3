"""Training by the Trainer of Hugging Face transformers, on the clips that evl reads: pip install "evl[examples]"

python examples/hf_trainer.py VIDEOS RUN     # a folder with a folder per class; where the model is saved
"""

import sys
import tempfile

import torch
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments

import evl

BACKBONE = "evl_clip_tiny"  # very small, for first steps; evl.list_backbones("clip") lists the others


class WithLoss(torch.nn.Module):
    """What Trainer wants of a model: a loss among its outputs."""

    def __init__(self, model: evl.VideoClassifier):
        super().__init__()
        self.model = model

    def forward(self, clips, labels):
        logits = self.model(clips)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


def batch_of(items) -> dict[str, torch.Tensor]:
    clips, labels = zip(*items, strict=True)
    return {"clips": torch.stack(clips), "labels": torch.tensor(labels)}


def accuracy(found) -> dict[str, float]:
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def main(videos: str, out: str, epochs: int = 2) -> evl.VideoClassifier:
    names = evl.read_manifest(videos).class_names
    model = evl.create_model(BACKBONE, names, num_frames=4, stride=4)
    arguments = TrainingArguments(
        tempfile.gettempdir(),  # of its own checkpoints, of which it writes none here
        num_train_epochs=epochs, per_device_train_batch_size=4, learning_rate=1e-3, eval_strategy="epoch",
        save_strategy="no", report_to="none", remove_unused_columns=False,
    )  # fmt: skip
    trainer = Trainer(
        WithLoss(model),
        arguments,
        data_collator=batch_of,
        train_dataset=evl.ClipDataset(videos, model, split="train"),  # each epoch has other random clips
        eval_dataset=evl.ClipDataset(videos, model, split="val"),
        compute_metrics=accuracy,
    )
    trainer.train()
    model.save_pretrained(out)
    return evl.load(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
