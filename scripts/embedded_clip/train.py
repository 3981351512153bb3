"""Trains the embedded CLIP: python scripts/embedded_clip/train.py

Image tower and text tower by the contrastive loss of CLIP (Radford et al. 2021, figure 3) on still pictures only.
"""

import argparse
import json
import math
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from judge import judge
from pictures import HELD_OUT, HERE, SETS
from pictures_with_texts import Drawings, Maker, load_names, vocabulary
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from evl.backbones.embedded import start_weights_
from evl.backbones.text.embeddings import WordTextTower

EVERY = 50  # steps between points of the curve


@dataclass(frozen=True)
class Sizes:
    """Of both towers. ``pool``: timm's ``global_pool``."""

    image_size: int = 64
    patch_size: int = 8
    width: int = 128
    depth: int = 5
    pool: str = "avg"
    text_width: int = 128
    text_layers: int = 2
    embed_width: int = 128


class SmallCLIP(nn.Module):
    def __init__(self, sizes: Sizes, words: list[str]):
        super().__init__()
        self.sizes = sizes
        self.visual = VisionTransformer(
            img_size=sizes.image_size, patch_size=sizes.patch_size, embed_dim=sizes.width, depth=sizes.depth,
            num_heads=sizes.width // 64, num_classes=0, global_pool=sizes.pool, fc_norm=False,
        )  # fmt: skip
        self.projection = nn.Linear(sizes.width, sizes.embed_width, bias=False)
        start_weights_(self.visual)  # by fan-in: timm's own, std 0.02, is too small at this width to start
        self.text = WordTextTower(words, sizes.text_width, sizes.text_layers, sizes.embed_width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed_images(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.projection(self.visual(pixels)).float(), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return self.text(self.text.numbers(texts)).float()

    def loss(self, pixels: Tensor, texts: list[list[str]]) -> Tensor:
        """Both directions, the mean over the lists of texts, one of each a picture. Texts that are word for word the
        same are all right for each of their pictures."""
        images = self.embed_images(pixels)
        words = self.embed_texts([text for kind in texts for text in kind]).unflatten(0, (len(texts), -1))
        losses = []
        for kind, rows in zip(texts, words, strict=True):
            logits = self.logit_scale.exp().clamp(max=100) * images @ rows.T
            number = {text: i for i, text in enumerate(kind)}
            same = torch.tensor([number[text] for text in kind])
            target = (same[:, None] == same).float()
            target /= target.sum(1, keepdim=True)
            losses.append((F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2)
        return torch.stack(losses).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", type=Path, default=HERE / "build")
    parser.add_argument("--out", type=Path, default=HERE / "build" / "clip.safetensors")
    parser.add_argument("--sizes", type=json.loads, default={}, help='for example {"width": 192}')
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--hold-out", nargs="*", default=[HELD_OUT], help="artists not trained on; the first is judged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run, (options, f"file://{folder}/meet"), options.processes)


def run(rank: int, options: argparse.Namespace, meet: str) -> None:
    """One process of several, a thread each, which at this size is faster than one with several threads."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=options.processes)
    torch.manual_seed(options.seed)
    names = load_names(options.build)
    artists = [artist for artist in SETS if artist not in options.hold_out]
    sizes = Sizes(**options.sizes)
    maker = Maker(Drawings.load(options.build, artists), names, sizes.image_size, 1000 * options.seed + rank)
    held_out = Drawings.load(options.build, options.hold_out[:1])
    model = SmallCLIP(sizes, vocabulary(names))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98), eps=1e-6)
    narrow = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    started, total, curve = time.time(), 0.0, []
    for step in range(1, options.steps + 1):
        rate = options.lr * min(step / min(200, options.steps), 0.5 + 0.5 * math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels, texts = maker.batch(options.batch // options.processes)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            loss = model.loss(pixels, texts)
        loss.backward()
        average_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.item()
        if rank == 0 and (step % EVERY == 0 or step == options.steps):
            point = {"step": step, "seconds": round(time.time() - started), "loss": round(total / EVERY, 4)}
            if step % 1000 == 0 or step == options.steps:
                point |= judge(model, held_out, names, maker.drawings)
            curve.append(point)
            total = 0.0
            print(json.dumps(point), flush=True)
            if step % 500 == 0 or step == options.steps:
                save(model, options, curve)
    torch.distributed.destroy_process_group()


def average_gradients(model: nn.Module) -> None:
    """Over all processes: each has contrasted its own part of the batch."""
    gradients = [p.grad for p in model.parameters()]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient) / torch.distributed.get_world_size())


def save(model: SmallCLIP, options: argparse.Namespace, curve: list[dict]) -> None:
    state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    recipe = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    told = {"sizes": asdict(model.sizes), "words": model.text.vocabulary, "recipe": recipe, "curve": curve}
    save_file(state, options.out, {"clip": json.dumps(told)})


if __name__ == "__main__":
    main()
