"""What the custom operators of this folder share.

An operator registered with torch is opaque to `torch.compile`: it runs as written, needs no
compiler, and breaks no graph.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from threading import Barrier
from typing import Any

import torch
from torch import Tensor


# torch passes `output` by name.
def keep_tensors(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    """Save an operator's tensors for its backward, lists of them flattened, without numbers."""
    kept: list[Any] = []
    for value in inputs:
        if isinstance(value, list | tuple):
            kept += value
        elif not isinstance(value, int):
            kept.append(value)
    ctx.save_for_backward(*kept)


def transposed(matrices: Tensor) -> Tensor:
    """Copy contiguous matrices `(n, rows, columns)` to `(n, columns, rows)`.

    As channels shuffled between groups, the one transposition of torch's that is vectorised: a
    third to a quarter of the time of a copy.
    """
    n, rows, columns = matrices.shape
    entries = rows * columns
    # One pixel a sample, its channels next to each other: strides that only `channels_last` has.
    pixels = matrices.as_strided((n, entries, 1, 1), (entries, 1, entries, entries))
    return torch.channel_shuffle(pixels, rows).view(n, columns, rows)


# A share of fewer multiplications is done before a sleeping thread is awake.
_LEAST_SHARE = 10**8


def share_samples(run: Callable[[slice], None], samples: int, work: int) -> None:
    """Call `run` on shares of a batch, one for each of torch's threads, at the same time.

    Torch splits each operation over its threads and waits for the last: a chain of short ones
    gains little, and those it runs on one thread gain nothing. Samples do not depend on each
    other, so here each thread takes some of them through the whole chain.

    Args:
        run: works on a slice of the samples; the operations it calls use one thread.
        samples: how many there are.
        work: multiplications of one sample, roughly; a small batch is not shared out.
    """

    def take(share: slice) -> None:
        # Halves what short operations cost; and threads do not inherit the mode, without which
        # torch would record or refuse `out=`.
        with torch.inference_mode():
            run(share)

    threads = min(torch.get_num_threads(), samples)
    if threads < 2 or samples * work < threads * _LEAST_SHARE:
        take(slice(0, samples))
        return
    edges = [samples * i // threads for i in range(threads + 1)]
    shares = [slice(*ends) for ends in pairwise(edges)]
    list(_workers(threads).map(take, shares))


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    """Threads whose torch operations use one thread each."""
    threads, all_started = torch.get_num_threads(), Barrier(count)

    def start() -> None:
        torch.get_num_threads()  # the first call in a thread undoes what was set before it
        torch.set_num_threads(1)
        all_started.wait()

    workers = ThreadPoolExecutor(count, "fieldmark-samples", start)
    for task in [workers.submit(int) for _ in range(count)]:
        task.result()
    # Torch keeps the last number set, by whichever thread, for threads that are yet to come.
    torch.set_num_threads(threads)
    return workers
