"""What an image and a text tower know of drawings by an artist they never saw."""

import torch
from pictures_with_texts import MEAN, STD, Drawings, Maker, Places, backgrounds, put, with_article


@torch.no_grad()
def judge(model, held_out: Drawings, names: list[dict], seen: Drawings) -> dict[str, float]:
    """Percentages of top-1 and top-5, chance in percent, and how well places can be read.

    ``plain``: each drawing alone in the middle of a grey picture; ``scene``: anywhere, of any size and turn, on a made
    background. ``text``: from names to drawings. ``pixels`` and ``nearest``: the name of the nearest seen drawing, by
    pixels and by embeddings of images, without any text. ``place``: R² of centre, side and turn by ridge regression
    from the mean of patch tokens of the last three blocks, fitted on seen drawings, judged on the artist's.
    """
    training = model.training
    model.eval()
    texts = model.embed_texts([with_article(name["label"]) for name in names])
    of = torch.tensor(held_out.of)
    plain = model.embed_images(_alone(held_out, model.sizes.image_size))
    scene_pixels, places = _scenes(held_out, model.sizes.image_size, seed=1)
    result = {
        "names": len(names), "drawings": len(of), "chance": 100 / len(names),
        **_ranks("plain", plain @ texts.T, of),
        **_ranks("scene", model.embed_images(scene_pixels) @ texts.T, of),
        **_ranks("text", texts[of] @ plain.T, torch.arange(len(of))),
    }  # fmt: skip
    known, known_of = _alone(seen, model.sizes.image_size), torch.tensor(seen.of)
    for key, pixels in (("plain", _alone(held_out, model.sizes.image_size)), ("scene", scene_pixels)):
        near = _nearest(pixels.flatten(1), known.flatten(1))
        result[f"pixels_{key}_top1"] = 100 * (known_of[near] == of).float().mean().item()
        near = _nearest(model.embed_images(pixels), model.embed_images(known))
        result[f"nearest_{key}_top1"] = 100 * (known_of[near] == of).float().mean().item()
    train_pixels, train_places = _scenes(seen, model.sizes.image_size, seed=2, count=3000)
    r2 = _ridge_r2(_tokens(model, train_pixels), _targets(train_places), _tokens(model, scene_pixels), _targets(places))
    model.train(training)
    return result | dict(zip(("place_x", "place_y", "place_side", "place_turn"), r2, strict=True))


def _ranks(key: str, scores: torch.Tensor, right: torch.Tensor) -> dict[str, float]:
    order = scores.topk(5, dim=1).indices == right[:, None]
    return {
        f"{key}_top1": 100 * order[:, 0].float().mean().item(),
        f"{key}_top5": 100 * order.any(1).float().mean().item(),
    }


def _nearest(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Which of ``known`` (n,d) is nearest to each of ``x``: |k|² − 2 x·k is least."""
    return torch.cat([(known.square().sum(1) - 2 * part @ known.T).argmin(1) for part in x.split(256)])


def _alone(drawings: Drawings, size: int) -> torch.Tensor:
    n = len(drawings.of)
    places = Places(torch.full((n, 2), 0.5), torch.full((n,), 0.7), torch.zeros(n), torch.zeros(n, dtype=torch.bool))
    layer = put(drawings, torch.arange(n), places, size)
    return (0.6 * (1 - layer[:, 3:]) + layer[:, :3] - MEAN) / STD


def _scenes(drawings: Drawings, size: int, seed: int, count: int | None = None):
    maker = Maker(drawings, [], size, seed)
    n = count or len(drawings.of)
    which = torch.arange(n) if count is None else torch.randint(len(drawings.of), (n,), generator=maker.torch_rng)
    places = maker.places(n, torch.ones(n, dtype=torch.bool))
    layer = put(drawings, which, places, size)
    picture = backgrounds(n, size, maker.torch_rng).clamp(0, 1) * (1 - layer[:, 3:]) + layer[:, :3]
    return (picture - MEAN) / STD, places


def _targets(places: Places) -> torch.Tensor:
    return torch.cat([places.centre, places.side.log()[:, None], places.turn[:, None] / 50], 1)


def _tokens(model, pixels: torch.Tensor) -> torch.Tensor:
    last = min(3, model.sizes.depth)
    parts = [
        torch.cat([x.mean(1) for x in model.visual.get_intermediate_layers(part, n=last)], 1)
        for part in pixels.split(256)
    ]
    return torch.cat(parts).float()


def _ridge_r2(x, y, x_test, y_test) -> list[float]:
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, x_test = ((one - mean) / std for one in (x, x_test))
    x, x_test = (torch.cat([one, torch.ones(len(one), 1)], 1).double() for one in (x, x_test))
    weight = torch.linalg.solve(x.T @ x + 10 * torch.eye(x.shape[1], dtype=torch.float64), x.T @ y.double())
    error = ((x_test @ weight - y_test) ** 2).mean(0)
    return (1 - error / y_test.double().var(0)).tolist()
