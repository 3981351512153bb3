"""Videos → predictions, by a model or the run of one."""

from __future__ import annotations

from evl.api.models import open_model, workers_for
from evl.data.manifests.manifest import AnyPath, Videos, videos_at
from evl.inference.predictor import Predictions, predict_videos
from evl.runtime.progress import Report, counting, showing
from evl.saving import VideoClassifier


def predict(
    model: VideoClassifier | AnyPath,
    paths: Videos,
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    wait_seconds: float | None = None,
    device: str | None = None,
    progress: bool | Report = True,
    **sizes,
) -> Predictions:
    """Scores of videos without labels; those that cannot be used are in ``.damaged``.

        for one in evl.predict("runs/mine", ["a.mp4", "folder/", "list.csv"]).predictions: print(one.class_name)

    Args:
        model: a model, or the folder of a run (or owner/name on the hub), which ``evl.load`` loads with ``sizes``.
        paths: one or several files, folders (all videos in them), manifests (every row, a file or a part of one), and
            samples.
        num_clips, num_crops, batch_size: None for the model's own.
        num_workers: processes that read videos; None: one a core, but 0 for a few videos.
        wait_seconds: wait for files that are still being written, at most so long; None: do not wait.
        device: None: the model's own, for a run CUDA if there is one.
        progress: as for ``evl.train``.

    Raises PathTypeError for what is no path, DataError for a folder or manifest without videos.
    """
    samples = videos_at(paths)
    model = open_model(model, device, sizes)
    how = dict(num_clips=num_clips, num_crops=num_crops, batch_size=batch_size, wait_seconds=wait_seconds)
    with showing(progress) as report:
        count = counting(report, "predicting", len(samples))
        return predict_videos(model, samples, num_workers=workers_for(len(samples), num_workers), progress=count, **how)
