"""From what is found to an answer or an error for each, read ahead and answered in batches."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from pawmatch.commands.inputs import Found
from pawmatch.commands.records import Result
from pawmatch.errors import PawMatchError
from pawmatch.images.pool import Read, Readers, read_all

if TYPE_CHECKING:
    from pawmatch.predict import Classifier, Examined

BATCH = 16
AHEAD = 3  # batches that may be under way: one that waits for the models, one ready, one being read


def answers(
    classifier: Classifier, found: Iterable[Found], top_k: int, readers: Readers
) -> Generator[tuple[str, Result]]:
    """Each file with its answer or its error, in order, whatever the number of files in constant memory.

    The readers, if there are any, read the next images while the models answer. A batch is BATCH entries of
    `found`, errors included: which images the models take together depends on nothing else.
    """
    with closing(read_all(found, classifier.specs, readers, AHEAD * BATCH)) as read:
        for batch, examined in examine_ahead(classifier, read):
            for file, entry in batch:
                if isinstance(entry, PawMatchError):
                    yield file, entry
                else:
                    yield file, classifier.conclude(next(examined), top_k)


def examine_ahead(
    classifier: Classifier, read: Iterator[Read]
) -> Generator[tuple[list[Read], Iterator[Examined]]]:
    """Each batch with what the models make of its images.

    The models have the next batch before one is given out. Else cores would idle while rows are written.
    """
    begun: tuple[list[Read], Future[list[Examined]]] | None = None
    models = ThreadPoolExecutor(1)
    try:
        while True:
            batch = list(islice(read, BATCH))
            prepared = [entry for _, entry in batch if not isinstance(entry, PawMatchError)]
            following = (batch, models.submit(classifier.examine, prepared)) if batch else None
            if begun is not None:
                yield begun[0], iter(begun[1].result())
            if following is None:
                return
            begun = following
    finally:
        models.shutdown(cancel_futures=True)
