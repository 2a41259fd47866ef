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
    threads = min(torch.get_num_threads(), samples)
    if threads < 2 or samples * work < threads * _LEAST_SHARE:
        run(slice(0, samples))
        return
    edges = [samples * i // threads for i in range(threads + 1)]
    shares = [slice(*ends) for ends in pairwise(edges)]

    def take(share: slice) -> None:
        # Threads do not inherit the mode; without one, torch would record or refuse `out=`.
        with torch.inference_mode():
            run(share)

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
