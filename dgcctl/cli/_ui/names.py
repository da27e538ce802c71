"""One name for one thing, in text, Markdown, LaTeX, JSON and CSV, and in the dashboard.

The table in docs/names.md; a test holds every column of the command line to it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Name:
    """`key` in JSON, CSV and filters; `head` over a column, in words."""

    key: str
    head: str
    meaning: str


NAMES = (
    Name("run", "run", "the id of a run: <utc>-<recipe>-<hex>; in a list of runs its key is `id`"),
    Name("sweep", "sweep", "the id of the sweep whose trial a run is"),
    Name("search", "search", "the id of the search whose trial a run is"),
    Name("trial", "trial", "the number of a trial in its sweep or search"),
    Name(
        "state",
        "state",
        "queued, running, done, stopped, failed, died, unreadable; a trial: pending, removed",
    ),
    Name("reason", "reason", "why it ended, or cannot be read"),
    Name("values", "values", "what a sweep or a search sets: key=value, separated by blanks"),
    Name("seed", "seed", "the seed of the run"),
    Name("lr", "lr", "optim.lr, the learning rate that it begins with"),
    Name("epoch", "epoch", "epochs that are finished"),
    Name("epochs", "epochs", "epochs that are asked for"),
    Name("batch", "batch", "images of a batch"),
    Name("top1_error", "top-1 error", "percent of the images whose first guess is wrong"),
    Name("top5_error", "top-5 error", "percent of the images that are in none of five guesses"),
    Name(
        "loss", "loss", "mean loss of the last evaluation; of a script without one as logged last"
    ),
    Name("macs_dense", "MACs dense", "multiply-adds of the network without leaving channels out"),
    Name("macs_promised", "MACs promised", "multiply-adds as the authors count them"),
    Name("macs_executed", "MACs executed", "multiply-adds that are really done"),
    Name("parameters", "parameters", "numbers that are trained"),
    Name("images_per_s", "images/s", "images a second"),
    Name("seconds", "took", "how long it ran, without its stops; in files in seconds"),
    Name("age", "age", "since it began; in files in seconds"),
    Name("started", "started", "when it began; in files in seconds since 1970"),
    Name("repeats", "repeats", "the id of the run that it is a repetition of"),
    Name("host", "host", "the machine that it ran on"),
    Name("owner", "owner", "whose folder it is"),
    Name("tags", "tags", "tags of its recipe, and those given afterwards"),
    Name("note", "note", "what a person wrote about it"),
    Name("runs", "runs", "the runs that a mean is of; in CSV all their ids are `run_ids`"),
    Name("n", "n", "of how many runs a mean is"),
)
HEADS = {name.key: name.head for name in NAMES}
# keys that name what their table lists: a class, a layer, a recipe, a sweep
OF_THE_TABLE = frozenset({"id", "name", "file", "key", "share", "a", "b", "level", "value"})


def as_markdown() -> str:
    """The rows of docs/names.md."""
    lines = ["| in words | in JSON, CSV and filters | what it is |", "|---|---|---|"]
    lines += [f"| {name.head} | `{name.key}` | {name.meaning} |" for name in NAMES]
    return "\n".join(lines) + "\n"
