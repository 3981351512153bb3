"""Files of other tools with any value or byte changed: a sentence, or samples that can be written and read again."""

import copy
import json
import random

import pytest

from tests.data.test_boris import project, tabular
from tests.data.test_fuzzed_manifest import answers
from tests.data.test_segment_layouts import annotation, detections, eaf, region, row, task
from tests.mutations import change, torn

WALK = [
    ("", "walk", "", kind, time, "a.mp4") for time, kind in ((1, "START"), (2, "STOP"), (3, "START"), (9.5, "STOP"))
]
CONTENTS = {
    "activitynet.json": {**detections(row(0, 1.5), row(3, 4, "jump")), "paths": {"a": "/videos/a.mp4"}},
    "truth.json": {"database": {"a": {"subset": "training", "annotations": [row(0, 1.5), row(1, 2)]},
                                "b": {"subset": "validation", "annotations": [row(0, 1)]}}, "version": "1.3"},
    "labels.json": [task(annotation(region(), region(3, 9, "jump"))), task(predictions=[{"result": [region()]}])],
    "timeline.boris": project((1, "", "walk", "", ""), (2, "", "peck", "", ""), (3.5, "", "walk", "", "", 90)),
    "events.csv": tabular(*WALK),
    "a.eaf": eaf([(0, 1500, "eat"), (1500, 3000, ""), (None, 5, "x")]),
}  # fmt: skip


def check(tmp_path, seed):
    rng = random.Random(seed)
    name = rng.choice(list(CONTENTS))
    content = copy.deepcopy(CONTENTS[name])
    if not isinstance(content, str):
        if rng.random() < 0.8:
            holder = [content, 0]
            change(holder, rng)
            content = holder[0] if holder else None
        content = json.dumps(content)
    content = content.encode("utf-8", "surrogatepass")
    if name.endswith((".csv", ".eaf")) or rng.random() < 0.3:
        content = torn(content, rng)
    (tmp_path / name).write_bytes(content)
    answers(tmp_path / name)


@pytest.mark.parametrize("seed", range(30))
def test_a_few(tmp_path, seed):
    check(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30, 1500))
def test_any_value_and_any_bytes(tmp_path, seed):
    check(tmp_path, seed)
