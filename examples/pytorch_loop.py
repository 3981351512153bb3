"""A training loop of your own, in plain PyTorch, on the clips that evl reads.

python examples/pytorch_loop.py VIDEOS     # a folder with a folder per class
"""

import sys

import torch
from torch.utils.data import DataLoader

import evl

BACKBONE = "evl_clip_tiny"  # very small, for first steps; evl.list_backbones("clip") lists the others


def main(videos: str, epochs: int = 2) -> float:
    encoder = evl.create_backbone(BACKBONE, taps=1)  # frozen; the last block
    how = dict(num_frames=4, stride=4)
    training = evl.ClipDataset(videos, encoder, split="train", **how)
    validation = evl.ClipDataset(videos, encoder, split="val", **how)
    head = torch.nn.Linear(encoder.spec.width, len(training.class_names))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)

    def logits(clips: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            tokens = encoder(clips)[-1].tokens  # (B,T,L,D)
        return head(tokens.mean((1, 2)))

    for epoch in range(epochs):
        training.set_epoch(epoch)  # other random clips
        for clips, labels in DataLoader(training, batch_size=4, shuffle=True):
            loss = torch.nn.functional.cross_entropy(logits(clips), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")
    hits = sum(
        int((logits(clips).argmax(-1) == labels).sum()) for clips, labels in DataLoader(validation, batch_size=4)
    )
    print(f"{hits} of {len(validation)} validation videos are right")
    return hits / len(validation)


if __name__ == "__main__":
    main(sys.argv[1])
