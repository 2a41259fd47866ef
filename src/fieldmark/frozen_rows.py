"""What a frozen backbone gives for photos: computed once, kept, and read again."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from fieldmark.build import Task, content_ids, features_key
from fieldmark.data.dataset import Photo, listed
from fieldmark.data.loader import batches
from fieldmark.errors import TrainingError
from fieldmark.layers.backbone import frozen_copy
from fieldmark.layers.together import seen_together
from fieldmark.predict import EVAL_BATCH, frozen_maps
from fieldmark.scratch import empty_rows
from fieldmark.training.features import Compute, FeatureStore
from fieldmark.training.memory import Passes, in_passes
from fieldmark.training.world import world

Progress = Callable[[int, int], None]


@torch.no_grad()
def frozen_rows(
    task: Task,
    store: FeatureStore,
    photos: Sequence[Photo],
    networks: Sequence[nn.Module],
    progress: Progress,
    passes: Passes | None = None,
    number: int = 0,
) -> list[Tensor]:
    """What each of several networks makes of the frozen backbone's maps, in one pass over photos.

    Args:
        task: whose backbone and views.
        store: has the maps that were computed before, and keeps the others.
        photos: N of them.
        networks: each from maps (n, C, H, W) in float32 to (n, ...).
        progress: is told how many photos are done.
        passes: how many photos memory has room for at once, where that is not all of a batch.
        number: of the view, see `features_key`.

    Returns:
        (N, ...) for each network, in the photos' order; memory-mapped where they are large.
    """
    passes = passes or Passes()

    def compute(positions: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        # Not where all maps are there.
        eyes = frozen_copy(task.model.backbone, task.dtype).to(task.device)
        return frozen_maps(eyes, view, photos, positions, task.dtype, passes, number)

    view = task.train_view if number else task.eval_view
    ids = content_ids(photos, view)
    if number:  # chance goes by the photo's name
        ids = [f"{content} {photo.key}" for content, photo in zip(ids, photos, strict=True)]
    rows = [torch.empty(0) for _ in networks]
    done, key = 0, features_key(task, number)
    if world().size > 1:
        _share_work(store, key, ids, compute)
    for positions, maps in store.features(key, ids, compute):
        for start in range(0, len(positions), EVAL_BATCH):
            part = slice(start, start + EVAL_BATCH)
            seen = in_passes(partial(seen_together, networks), maps[part].float(), passes)
            for place, pooled in enumerate(seen):
                if not done and not start:
                    shape, held = (len(photos), *pooled.shape[1:]), sum(r.nbytes for r in rows)
                    rows[place] = empty_rows(shape, store.folder, held=held)
                rows[place][positions[part]] = pooled
        done += len(positions)
        progress(done, len(photos))
    for of_network in rows:
        _check_finite(of_network, photos)
    return rows


def _check_finite(rows: Tensor, photos: Sequence[Photo]) -> None:
    """Refuse features that are no numbers: a classifier would learn nothing from them but more."""
    bad = [photo.key for photo, row in zip(photos, rows, strict=True) if not row.isfinite().all()]
    if bad:
        raise TrainingError(
            f"The features of {listed(bad)} are infinite or nan. Look at these photos and at the "
            "backbone's weights, or try `precision: float32`."
        )


def _share_work(store: FeatureStore, key: str, ids: Sequence[str], compute: Compute) -> None:
    """Have every process add its part of what the store lacks, in the batches of one alone."""
    missing = store.missing(key, ids)
    world().wait()  # until all have looked
    store.add(key, ids, list(chain(*world().turns(batches(missing, EVAL_BATCH)))), compute)
    world().wait()


def are_kept(task: Task, store: FeatureStore, number: int = 0) -> bool:
    """Whether the store has maps of as many photos as train and val are, in one of their views.

    Their files are not read for it, so that in a folder whose photos were exchanged it may err.
    """
    return store.count(features_key(task, number)) >= len(task.split.train) + len(task.split.val)
