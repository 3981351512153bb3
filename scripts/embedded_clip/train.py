"""Trains the embedded CLIP: python scripts/embedded_clip/train.py --minutes 60 --out BUILD/clip.pt

Image tower and text tower by the contrastive loss of CLIP (Radford et al. 2021, figure 3) on still pictures only.
"""

import argparse
import json
import math
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

from evl.backbones.word_text import WordTextTower


@dataclass(frozen=True)
class Sizes:
    """Of both towers. ``pool``: timm's ``global_pool``."""

    image_size: int = 64
    patch_size: int = 8
    width: int = 128
    depth: int = 6
    pool: str = "token"
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
        self.text = WordTextTower(words, sizes.text_width, sizes.text_layers, sizes.embed_width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed_images(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.projection(self.visual(pixels)).float(), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return self.text(self.text.numbers(texts)).float()

    def loss(self, pixels: Tensor, texts: list[str]) -> Tensor:
        """Both directions; texts that are word for word the same are all right for each of their pictures."""
        images, words = self.embed_images(pixels), self.embed_texts(texts)
        logits = self.logit_scale.exp().clamp(max=100) * images @ words.T
        number = {text: i for i, text in enumerate(texts)}
        same = torch.tensor([number[text] for text in texts])
        target = (same[:, None] == same).float()
        target /= target.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", type=Path, default=HERE / "build")
    parser.add_argument("--out", type=Path, default=HERE / "build" / "clip.safetensors")
    parser.add_argument("--sizes", type=json.loads, default={}, help='for example {"width": 192}')
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, help="steps are set by what the first twenty take, instead of --steps")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--hold-out", nargs="*", default=[HELD_OUT], help="artists not trained on; the first is judged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    names = load_names(options.build)
    artists = [artist for artist in SETS if artist not in options.hold_out]
    maker = Maker(Drawings.load(options.build, artists), names, 64, options.seed)
    sizes = Sizes(**options.sizes)
    maker.image_size = sizes.image_size
    model = SmallCLIP(sizes, vocabulary(names))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98), eps=1e-6)
    held_out = Drawings.load(options.build, options.hold_out[:1])
    narrow = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    steps, step, started, total, curve = options.steps, 0, time.time(), 0.0, []
    while step < steps:
        if step == 20 and options.minutes:
            steps = int(20 * 60 * options.minutes / (time.time() - started))
        done = step / steps
        rate = options.lr * min(
            1, (step + 1) / max(1, min(200, steps // 10)), max(0.0, 0.5 + 0.5 * math.cos(math.pi * done))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels, texts = maker.batch(options.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            loss = model.loss(pixels, texts)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.item()
        step += 1
        if step % 100 == 0 or step == steps:
            point = {"step": step, "steps": steps, "seconds": round(time.time() - started), "loss": total / 100}
            if step % 1000 == 0 or step == steps:
                point |= judge(model, held_out, names, maker.drawings)
                save(model, options, curve, options.out)
            curve.append(point)
            total = 0.0
            print(json.dumps(point), flush=True)
    save(model, options, curve, options.out)


def save(model: SmallCLIP, options: argparse.Namespace, curve: list[dict], path: Path) -> None:
    state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    recipe = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    told = {"sizes": asdict(model.sizes), "words": model.text.vocabulary, "recipe": recipe, "curve": curve}
    save_file(state, path, {"clip": json.dumps(told)})


if __name__ == "__main__":
    main()
