"""A demo's result as it could be, without running one: 14 motions, 8 categories, every number plausible."""

from pathlib import Path

import numpy as np

from evl.demo.results import EVL, TASKS, VARIANTS, DemoResult, Example, VariantResult
from evl.evaluation import Evaluation, Judged, compute_metrics
from evl.types import Prediction

MOTIONS = (
    "moving [something] left", "moving [something] right", "moving [something] up", "moving [something] down",
    "[something] coming closer", "[something] going away", "turning [something] clockwise",
    "turning [something] counter-clockwise", "[something] appearing", "[something] disappearing",
    "moving [something] past [something]", "[something] colliding with [something] and both stopping",
    "pushing [something] so that it slides", "two somethings swapping places",
)  # fmt: skip
CATEGORIES = (
    "animal", "building", "clothing", "fruit or vegetable", "plant", "prepared food", "tool", "vehicle"
)  # fmt: skip
NAMES = {"motion": MOTIONS, "object": CATEGORIES}
ACCURACY = {"motion": (0.64, 0.79, 0.69, 0.47, 0.31, 0.19), "object": (0.63, 0.64, 0.6, 0.6, 0.55, 0.21)}
TRAINABLE = (1_402_766, 103_662, 103_662, 797_966, 3_214, 1_402_766)


def fake_result(folder="runs/demo", *, num_seeds=1, num_videos=560, accuracy=ACCURACY, names=NAMES, num_examples=8):
    """``accuracy``: task -> what each variant hits, as a share. The same arguments give the same result."""
    generator = np.random.default_rng(7)
    outcomes = [
        fake_outcome(generator, variant, task, seed, accuracy[task][number], num_videos, names[task], TRAINABLE[number])
        for seed in range(num_seeds)
        for task in TASKS
        for number, variant in enumerate(VARIANTS)
    ]
    motions = names["motion"]
    prediction = Prediction(
        f"{folder}/videos/test/000123.mp4", fake_scores(generator, 3, 3, len(motions)), label=None
    )  # fmt: skip
    return DemoResult(
        folder=Path(folder),
        outcomes=tuple(outcomes),
        chance={task: 100 / len(names[task]) for task in TASKS},
        examples=tuple(fake_example(generator, number, motions) for number in range(num_examples)),
        prediction=prediction,
        class_names=motions,
        settings={
            "videos": f"2,000 to train on, {num_videos} to judge by",
            "frames": "8 a clip, one of each eighth of the video, 64×64 pixels",
            "backbone": "evl_clip_tiny, 3.1 M parameters, trained on still pictures and frozen",
            "training": "700 steps of 32 clips, AdamW at 1e-3, cosine",
            "machine": "2 cores, Some Processor at 2.8 GHz, Linux 6.1, Python 3.12",
            "versions": "evl 0.1.0, torch 2.11.0, timm 1.0.26, av 17.0.0",
        },
        seconds={"making videos": 27.3, "reading them": 8.1, "features": 43.9, "training": 83.2, "report": 4.02},
    )


def fake_outcome(generator, variant, task, seed, share, num_videos, names, trainable):
    predictions = []
    for index in range(num_videos):
        label = index % len(names)
        near = (label + int(generator.choice([1, -1]))) % len(names)  # what it is taken for, mostly
        draw = generator.random()
        best = label if draw < share else near if draw < share + 0.6 * (1 - share) else generator.integers(len(names))
        scores = fake_scores(generator, label, best, len(names))
        predictions.append(Prediction(f"videos/test/{index:06d}.mp4", scores, label))
    metrics = compute_metrics(Judged.of(predictions, names))
    steps = np.arange(20, 701, 20)
    rise = 1 - np.exp(-steps / (120 + 60 * VARIANTS.index(variant)))
    losses = np.log(len(names)) * (1 - 0.95 * share * rise) + generator.normal(0, 0.04, len(steps))
    top1 = 100 * (1 / len(names) + (min(1, share + 0.1) - 1 / len(names)) * rise) + generator.normal(0, 2, len(steps))
    return VariantResult(
        variant=variant,
        task=task,
        seed=seed,
        evaluation=Evaluation(
            metrics,
            tuple(predictions),
            {},
            f"8 segment frames, 1x1 views, 64px (bilinear), evl_clip_tiny, fp32, {num_videos} videos",
            tuple(names),
        ),
        curve=tuple(zip(steps.tolist(), losses.tolist(), top1.clip(0, 100).tolist(), strict=True)),
        trainable=trainable,
        seconds=float(generator.uniform(5, 12)),
        folder=Path(f"runs/demo/{task}") if variant == EVL and seed == 0 else None,
    )


def fake_scores(generator, label, best, num_classes):
    """A softmax whose largest entry is ``best``, with something for ``label``."""
    logits = generator.normal(0, 1, num_classes)
    logits[label] += 1.5
    logits[best] = logits.max() + generator.uniform(0.2, 2.5)
    return tuple((np.exp(logits) / np.exp(logits).sum()).tolist())


def fake_example(generator, number, names, *, num_frames=8, size=64, grid=8, num_layers=3):
    """A disc that moves over a wavy ground, and attention that follows it; two of three are right."""
    label = number % len(names)
    best = label if number % 3 else (label + 1) % len(names)
    rows, columns = np.mgrid[:size, :size] / size
    patch_rows, patch_columns = (np.mgrid[:grid, :grid] + 0.5) / grid
    hue, slope = generator.uniform(60, 230, 3), generator.uniform(-20, 20, 2)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    attention = np.empty((num_layers, num_frames, grid, grid))
    for t in range(num_frames):
        x, y = 0.8 - 0.6 * t / max(1, num_frames - 1), 0.35 + 0.3 * generator.random()
        wave = 128 + 50 * np.sin(slope[0] * rows + slope[1] * columns + t / 3)
        picture = wave[..., None] + generator.normal(0, 8, (size, size, 3))
        picture[np.hypot(rows - y, columns - x) < 0.16] = hue
        frames[t] = picture.clip(0, 255)
        near = np.exp(-((patch_rows - y) ** 2 + (patch_columns - x) ** 2) / 0.02)
        attention[:, t] = near * generator.uniform(0.3, 1, (num_layers, 1, 1)) + 0.05 * generator.random(near.shape)
    attention *= 0.9 / attention.sum((1, 2, 3), keepdims=True)
    return Example(
        path=Path(f"runs/demo/videos/test/{number:06d}.mp4"),
        frames=frames,
        attention=attention,
        prefix_share=np.full(num_layers, 0.1),
        label=names[label],
        scores=fake_scores(generator, label, best, len(names)),
        class_names=tuple(names),
    )
