"""From what is found to an answer or an error for each, read ahead and answered in batches."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from pawmatch.commands.inputs import Found
from pawmatch.commands.records import Result
from pawmatch.errors import PawMatchError

if TYPE_CHECKING:
    from pawmatch.predict import Classifier

BATCH = 16
AHEAD = 3  # batches that may be under way: one with the models, one ready, one being read


def answers(
    classifier: Classifier, found: Iterable[Found], top_k: int, readers: int = 0
) -> Generator[tuple[str, Result]]:
    """Each file with its answer or its error, in order, whatever the number of files in constant memory.

    `readers` processes read the next images while the models answer; with 0 it is done in turns. A batch is
    BATCH entries of `found`, errors included: which images the models take together depends on nothing else.
    """
    from pawmatch.readers import read_all

    with closing(read_all(found, classifier.specs, readers, AHEAD * BATCH)) as read:
        while batch := list(islice(read, BATCH)):
            prepared = [entry for _, entry in batch if not isinstance(entry, PawMatchError)]
            examined = iter(classifier.examine(prepared))
            for file, entry in batch:
                if isinstance(entry, PawMatchError):
                    yield file, entry
                else:
                    yield file, classifier.conclude(next(examined), top_k)
