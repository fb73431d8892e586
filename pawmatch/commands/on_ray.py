"""`pawmatch classify --on ray`: the same rows by many processes, on as many computers as a Ray cluster has.

The images are cut into partitions, each of so many whole batches in the order of one run on one computer, and
each becomes one Parquet file. A partition's name has the digest of the images in it, and its file is there
whole or not at all: a run that goes on does what is missing, and a worker that dies has its partition done
again by another. Names of images stream to the workers, and nothing else stays in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from pawmatch.commands.console import complain, load_models, note, progress
from pawmatch.commands.output import MAX_LISTED, REMEDY, check_settings, kept_record, manifest_of
from pawmatch.commands.rows import check_parquet, write_parquet
from pawmatch.errors import BadOption, PawMatchError
from pawmatch.evaluation.folders import BATCH, Found, examine_files, find_shard

ROWS = 64 * BATCH  # in one partition: what a worker that dies has done for nothing
MANIFEST = "_run.json"  # a name that readers of Parquet folders pass over, as they do "_new-..."
NOTED_S = 30.0  # between two lines about the rate where there is no terminal
OBJECT_STORE = 256 * 2**20  # bytes of shared memory on one computer: names of images pass through it


class Partition(NamedTuple):
    """So many images in a row, by the name of the file that their results will have."""

    name: str
    found: list[Found]


def partitions(found: Iterator[Found], rows: int) -> Iterator[Partition]:
    """Cut what is found, in its order, with constant memory."""
    for number in count():
        some = list(islice(found, rows))
        if not some:
            return
        lines = "\0".join(file if error is None else f"{file}\0{error}" for file, error in some)
        digest = hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        yield Partition(f"part-{number:08}-{digest}.parquet", some)


class Destination:
    """A folder of Parquet files, on a disk or in an object store."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self.store, self.root = fsspec.core.url_to_fs(url)
            self.store.makedirs(self.root, exist_ok=True)
        except (OSError, ValueError, ImportError) as exc:
            raise BadOption(f"Nothing can be written to {url} ({exc}); name another --out.") from exc

    def begin(self, settings: dict[str, Any], *, fresh: bool) -> set[str]:
        """The parts that are there, of a run with these settings. Raises BadOption for those of another."""
        there = [
            str(name).rsplit("/", 1)[-1] for name in self.store.ls(self.root, detail=False, refresh=True)
        ]
        if fresh or MANIFEST not in there:
            if not fresh and any(name.startswith("part-") for name in there):
                raise BadOption(f"{self.root} holds parts, and no run that could go on; {REMEDY}.")
            self.remove(name for name in there if name.startswith(("part-", "_new-")))
            self.store.pipe_file(f"{self.root}/{MANIFEST}", (json.dumps(settings, indent=1) + "\n").encode())
            return set()
        found = json.loads(self.store.cat_file(f"{self.root}/{MANIFEST}"))
        check_settings(self.root, found, settings)
        self.remove(name for name in there if name.startswith("_new-"))  # of workers that died
        return {name for name in there if name.startswith("part-")}

    def remove(self, names: Iterable[str]) -> None:
        """Delete files of the folder."""
        for name in names:
            self.store.rm_file(f"{self.root}/{name}")

    def put(self, file: Path, name: str) -> None:
        """Bring a file to the folder under its name, whole or not at all."""
        new = f"{self.root}/_new-{os.getpid()}-{name}"
        self.store.put_file(str(file), new)
        self.store.mv(new, f"{self.root}/{name}")


class Worker:
    """An actor that holds the models and turns partitions into files."""

    def __init__(self, args: Namespace, engines: dict[str, str], out: str) -> None:
        self.args = args
        self.classifier = load_models(args, engines)
        self.out = Destination(out)
        # A reader is a new process, which would begin by running Ray's own main file.
        main = vars(sys.modules["__main__"])
        if main.get("__file__", "").endswith("default_worker.py"):
            del main["__file__"]

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """What was done: rows, errors, and the first errors with their messages."""
        done: dict[str, list[Any]] = {"rows": [], "errors": [], "first": []}
        for name, found in zip(batch["name"], map(pickle.loads, batch["found"]), strict=True):
            errors: list[tuple[str, str]] = []
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "rows.parquet"
                write_parquet(self.records(found, errors), path, self.classifier.variants)
                self.out.put(path, str(name))
            done["rows"].append(len(found))
            done["errors"].append(len(errors))
            done["first"].append(json.dumps(errors[:MAX_LISTED]))
        return done

    def records(self, found: list[Found], errors: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """The rows of one partition, by the code that makes those of one computer."""
        from pawmatch.calibration.facts import given_facts
        from pawmatch.images.pool import Readers

        facts = given_facts(self.classifier.table, self.args.facts)
        with Readers(1) as readers:
            for file, entry in examine_files(self.classifier, found, readers):
                if isinstance(entry, PawMatchError):
                    errors.append((file, str(entry)))
                    yield kept_record(file, entry)
                else:
                    yield kept_record(file, self.classifier.to_prediction(entry, self.args.top_k, facts))


def run_on_ray(args: Namespace) -> int:
    """Do what is missing; 1 if some images failed."""
    check_parquet()
    out = args.out if "://" in args.out else str(Path(args.out).absolute())
    classifier = load_models(args)
    engines = classifier.engines
    settings = manifest_of(classifier, args.top_k, BATCH, args.facts)
    settings |= {"images": args.images, "shard": args.shard, "rows": ROWS}
    del classifier
    destination = Destination(out)
    there = destination.begin(settings, fresh=args.fresh)
    names, images, waiting = set(), 0, 0
    for part in partitions(find_shard(args.images, args.shard), ROWS):
        names.add(part.name)
        images += len(part.found)
        waiting += 0 if part.name in there else len(part.found)
    kept = images - waiting
    errors = 0
    if waiting:
        errors = do_missing(args, engines, out, names - there, kept, images)
    destination.remove(gone := there - names)
    if gone:
        note(f"{len(gone)} parts were about other images than there are now; they were removed.")
    if not waiting:
        note(f"{args.out} was finished before: {images} rows in {len(names)} parts.")
    return 1 if errors else 0


def do_missing(
    args: Namespace, engines: dict[str, str], out: str, missing: set[str], kept: int, images: int
) -> int:
    """Hand the missing partitions to the workers and follow what they do; gives the number of errors."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    import ray
    from ray.exceptions import RayError

    if not ray.is_initialized():
        here = {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        if args.workers:
            here["num_cpus"] = args.workers
        ray.init(
            **({} if os.environ.get("RAY_ADDRESS") else here), log_to_driver=False, logging_level="error"
        )
    workers = args.workers or int(ray.cluster_resources()["CPU"])
    needs = {"num_gpus": 1} if args.device.startswith("cuda") else {"num_cpus": 1}
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = 1  # a block is one partition, however short its names are
    data = ray.data.read_datasource(listing(args, missing), override_num_blocks=1, num_cpus=0).map_batches(
        Worker,
        fn_constructor_args=(args, engines, out),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        **needs,
    )
    done, errors, first, started, said = 0, 0, list[tuple[str, str]](), time.monotonic(), time.monotonic()
    parts = progress(data.iter_rows(), "parts", count=len(missing))
    try:
        for part in parts:
            done += int(part["rows"])
            errors += int(part["errors"])
            first += json.loads(part["first"])[: MAX_LISTED - len(first)]
            if time.monotonic() - said > NOTED_S:
                said = time.monotonic()
                note(f"{kept + done} of {images} images, {done / (said - started):.1f} a second.")
    except RayError as exc:
        reason = str(exc).strip().splitlines()[-1]
        raise BadOption(
            f"The run on Ray ended early ({reason}); the same command goes on from there."
        ) from exc
    seconds = time.monotonic() - started
    for file, message in first:
        complain(f"{file}: {message}")
    if errors > len(first):
        note(f"{errors - len(first)} more errors are in {args.out}.")
    before = f", {kept} of them by the run before" if kept else ""
    note(f"wrote {kept + done} rows to {args.out}, {errors} of the new ones errors{before}.")
    note(f"{done} images in {seconds:.1f} s, {done / seconds:.1f} a second, by {workers} workers.")
    return errors


def listing(args: Namespace, missing: set[str]) -> Any:
    """A source of Ray Data that streams the missing partitions; the images are found a second time."""
    import pyarrow as pa
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    images, shard, rows = args.images, args.shard, ROWS  # this process's, whichever one lists

    def blocks() -> Iterator[Any]:
        for part in partitions(find_shard(images, shard), rows):
            if part.name in missing:
                yield pa.table({"name": [part.name], "found": [pickle.dumps(part.found)]})

    class Listing(Datasource):  # type: ignore[misc]
        """One task that yields a block for each partition."""

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[Any]:
            return [ReadTask(blocks, BlockMetadata(None, None, None, None))]

    return Listing()
