"""What the tests' fork server has imported before its first worker process: a worker is forked and imports no more."""

import evl.collections.check
import evl.collections.loading_speed
import evl.collections.prepare
import evl.data.dataset
import evl.data.loader
import evl.datasets.motions
import evl.video.augment  # noqa: F401
from evl.video.decode import missing

missing.PAUSES = (0.001, 0.001, 0.001)  # many tests ask for a video that is not there
