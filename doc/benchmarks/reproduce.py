"""Published results, reproduced: one recipe after the other, from the data to a table.

``python doc/benchmarks/reproduce.py NAME --data PATH`` trains the recipe of that name
and prints what it reaches beside what was published, with the seed, the epochs, the
time and the largest memory. Names are those of `RECIPES` in recipes.py, or all.

A recipe has parts, which are models to be trained. Each keeps a checkpoint in the
folder of ``--work``; after an interruption, ``--resume`` goes on from there, and leaves
parts alone that have come to their end. With ``--anew`` they begin anew, and what was
there is lost.

Usage::

    python doc/benchmarks/reproduce.py --list
    python doc/benchmarks/reproduce.py vae-fixed --data PATH
    python doc/benchmarks/reproduce.py iwae --data PATH --resume --parts 0 2 --jobs 2
    python doc/benchmarks/reproduce.py all --data PATH --quick
    python doc/benchmarks/reproduce.py --report

PATH is the folder of the data; a recipe whose files are not there says which it needs.
Each part runs in one thread and in a process of its own. The results are added to
reproduce.json, and all that are known written to reproduce.md beside this script, which
``--report`` does alone; with ``--quick``, which takes some seconds a part, they are
only printed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import inspect
import json
import multiprocessing
import os
import re
import resource
import shutil
import sys
import threading
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import choices
import joblib
import k_sparse
import likelihood
import numpy as np
import recipe_models
import sklearn
import stacked_mnist
from recipe_models import mean_and_error
from recipes import RECIPES
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

import skae
from skae.checkpoints import described

RESULTS = Path(__file__).with_suffix(".json")
REPORT = Path(__file__).with_suffix(".md")
SAVED_EVERY = 60.0
INTRO = """\
Made by

```
python doc/benchmarks/reproduce.py all --data PATH
```

({versions}; one thread for each line.) Minutes are those of a clock, and count what
other work took meanwhile; memory is the largest that the process had, data included.
Numbers in brackets are standard errors of means over test rows, of *frey* over folds;
they say nothing about another fit. Likelihoods are estimated by importance sampling:
first as skae does, then "plain", with draws from the encoder's posterior, as in the
literature. "Annealed" are values of annealed importance sampling, which needs no
encoder; the error in brackets is then its own. "Ahead of" another model is the mean of
differences row by row, in nats, with its own error over rows. "Active" are components
whose posterior mean varies.
"""
HEAD = """
| model | seed | epochs | measured | published | minutes | GiB |
|---|---:|---:|---:|---:|---:|---:|
"""


class Run:
    """The training of one part: what it has, what it keeps, and what it has cost.

    A ``with`` block keeps other processes out of the folder, and the costs in it.

    Attributes
    ----------
    seed : int
    quick : bool
        Whether to do as little as shows that it works.
    """

    def __init__(self, folder, seed, quick):
        self.folder, self.seed, self.quick = folder, seed, quick
        self._open = contextlib.ExitStack()

    def __enter__(self):
        self._open.enter_context(only_one(self.folder))
        self.folder.mkdir(exist_ok=True)
        self._before, self._began = self._read_clock(), time.monotonic()
        end = threading.Event()
        self._open.callback(end.set)
        threading.Thread(target=self._watch_the_clock, args=[end], daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._open.close()

    # --- models ---------------------------------------------------------------------

    def fit(self, model, X, y=None, name="fit"):
        """Fit a model, or go on with it; `name` is for parts with several fits."""
        model.set_params(checkpoint=self.folder / f"{name}.ckpt", verbose=True)
        with contextlib.redirect_stdout(sys.stderr):
            return model.fit(X, y)

    def train(self, model, rows, rates):
        """Go through ``rows(epoch)`` once for each learning rate; return the model."""
        file, saved, begun = self.folder / "model.joblib", time.monotonic(), 0
        plan = described([model, list(rates)])
        if file.exists():
            model, begun, old_plan = joblib.load(file)
            if old_plan != plan:
                raise RuntimeError(
                    f"{file} is of another model or schedule: --anew begins anew."
                )
        for epoch in range(begun, len(rates)):
            model.set_params(learning_rate_init=rates[epoch]).partial_fit(rows(epoch))
            self.note(f"epoch {epoch + 1} of {len(rates)}: {model.loss_curve_[-1]:.2f}")
            if time.monotonic() - saved > SAVED_EVERY or epoch + 1 == len(rates):
                part = file.with_suffix(".part")
                joblib.dump((model, epoch + 1, plan), part)
                part.replace(file)
                saved = time.monotonic()
        return model

    def keep_scores(self, scores):
        """Keep the score of each test row, for comparisons with other parts."""
        np.save(self.folder / "scores.npy", scores)

    def note(self, text):
        """Report progress."""
        note(f"{self.folder.name}: {text}")

    # --- costs ----------------------------------------------------------------------

    def _read_clock(self):
        file = self.folder / "clock.json"
        if not file.exists():
            return {"seconds": 0.0, "gib": 0.0}
        return json.loads(file.read_text(encoding="utf-8"))

    def costs(self):
        """Return seconds and the largest memory in GiB, earlier attempts included."""
        scale = 2**30 if sys.platform == "darwin" else 2**20
        gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
        seconds = self._before["seconds"] + time.monotonic() - self._began
        return {"seconds": seconds, "gib": max(gib, self._before["gib"])}

    def _watch_the_clock(self, end):
        """Write the costs down from time to time, as a part may end at any moment.

        Without the process that asked for it, a part ends, lest it be forgotten.
        """
        parent = os.getppid()
        while not end.wait(20):
            write(self.folder / "clock.json", self.costs())
            if os.getppid() != parent:
                os._exit(1)


@contextlib.contextmanager
def only_one(folder):
    """Keep other processes out of a folder, which may be removed meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"Another process works in {folder}.") from None
        yield


def note(text):
    """Say something beside the results."""
    print(text, file=sys.stderr, flush=True)


def write(file, content):
    """Write JSON, so that there is a whole file at any moment."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def folder_of(name, i, options):
    """Return where a part keeps what it has."""
    part = re.sub("[^a-z0-9]+", "-", RECIPES[name].parts[i].name.lower())
    quick = "-quick" * options.quick
    return options.work / f"{name}-{part}-seed{options.seed}{quick}"


def do_part(name, i, options):
    """Train one part, unless it is done; return its line as a dictionary."""
    recipe, folder = RECIPES[name], folder_of(name, i, options)
    part, done = recipe.parts[i], folder / "done.json"
    if done.exists():
        line = json.loads(done.read_text(encoding="utf-8"))
        if not is_current(line):
            note(f"{folder}: done by another state of the scripts; --anew repeats it.")
        return line
    # Found before training: the scripts may be changed meanwhile.
    made = made_of(part)
    run = Run(folder, options.seed, options.quick)
    with run, threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        measured, epochs = part.train(run, recipe.load(options.data))
    line = {
        "recipe": name,
        "part": part.name,
        "seed": options.seed,
        "epochs": epochs,
        "measured": measured,
        **run.costs(),
        "versions": f"NumPy {np.__version__}, scikit-learn {sklearn.__version__}",
        "made_of": made,
    }
    write(done, line)
    return line


def made_of(part):
    """Return a text that changes with what a part is trained and judged by."""
    used = recipe_models, k_sparse, likelihood, stacked_mnist, choices.squared_error
    sources = [inspect.getsource(each) for each in used]
    given = getattr(part.train, "args", ()), skae.__version__
    return hashlib.sha256("".join([*sources, str(given)]).encode()).hexdigest()[:12]


def is_current(line):
    """Tell whether a result is of the present state of the scripts."""
    parts = {part.name: part for part in RECIPES[line["recipe"]].parts}
    return line.get("made_of") == made_of(parts[line["part"]])


def scores_of(name, i, options):
    """Return the scores of a part that these scripts have brought to its end, or None.

    Those of another state of the scripts may be of other rows or another training.
    """
    folder = folder_of(name, i, options)
    done, scores = folder / "done.json", folder / "scores.npy"
    if not (done.exists() and scores.exists()):
        return None
    if not is_current(json.loads(done.read_text(encoding="utf-8"))):
        return None
    return np.load(scores).astype(float)


def advantage(name, i, options):
    """Return by how much a part's scores are ahead of its rival's, or nothing."""
    rival = rival_of(name, i)
    mine, other = (scores_of(name, j, options) for j in (i, rival))
    if mine is None or other is None:
        return ""
    mean, error = mean_and_error(mine - other)
    verb = "ahead of" if mean > 0 else "behind"
    return (
        f"{verb} *{RECIPES[name].parts[rival].name}* by {abs(mean):.2f} ({error:.2f})"
    )


def rival_of(name, i):
    """Return the number of the part with which another one is compared, or None."""
    parts = RECIPES[name].parts
    names = [part.name for part in parts]
    return names.index(parts[i].rival) if parts[i].rival else None


def pairs(todo):
    """Yield the parts whose own results, or whose rival's, may be new."""
    for name in dict.fromkeys(name for name, _ in todo):
        for i in range(len(RECIPES[name].parts)):
            rival = rival_of(name, i)
            if rival is not None and {(name, i), (name, rival)} & set(todo):
                yield name, i


# --- the report ---------------------------------------------------------------------


def table(name, lines):
    """Return the lines of one recipe as a table, in the order of its parts."""
    recipe, text = RECIPES[name], HEAD
    for part in recipe.parts:
        same = [line for line in lines if line["part"] == part.name]
        for line in sorted(same, key=lambda line: line["seed"]):
            measured = ", ".join(filter(None, (line["measured"], line.get("ahead"))))
            text += f"| {part.name} | {line['seed']} | {line['epochs']} "
            text += f"| {measured} | {part.published} "
            text += f"| {line['seconds'] / 60:.1f} | {line['gib']:.1f} |\n"
    return text


def missing(recipe, lines):
    """Return a sentence on the parts that have no line."""
    found = {line["part"] for line in lines}
    names = [part.name for part in recipe.parts if part.name not in found]
    return f"\nNot measured by this script yet: {'; '.join(names)}.\n" if names else ""


def report(lines):
    """Return all results as Markdown."""
    versions = dict.fromkeys(line["versions"] for line in lines)
    text = INTRO.format(versions="; ".join(versions))
    for name, recipe in RECIPES.items():
        same = [line for line in lines if line["recipe"] == name]
        text += f"\n**{name}**: {recipe.about}\n"
        text += table(name, same) if same else ""
        text += missing(recipe, same)
        text += f"\nOtherwise than published: {recipe.departs}\n"
        text += f"\n{recipe.found}\n" if recipe.found else ""
    return text


def key(line):
    """Return what tells a line from others."""
    return line["recipe"], line["part"], line["seed"]


def keep(line):
    """Put a line in the place of its elder, and write the report anew.

    A result that is the same as before keeps the comparison that was made of it;
    comparisons with one that is not are removed. Other processes that want to do the
    same wait.
    """
    with open(__file__, encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = {key(each): each for each in known()}
        elder = lines.get(key(line), {})
        if elder.get("measured") != line["measured"]:
            forget_comparisons(lines, line)
        elif "ahead" in elder:
            line = {"ahead": elder["ahead"], **line}
        lines[key(line)] = line
        write(RESULTS, sorted(lines.values(), key=key))
        write_report()


def forget_comparisons(lines, rival):
    """Remove what was found in comparison with an older result of a rival."""
    for part in RECIPES[rival["recipe"]].parts:
        if part.rival == rival["part"]:
            lines.get((rival["recipe"], part.name, rival["seed"]), {}).pop("ahead", "")


def known():
    """Return all results so far."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []


def write_report():
    """Write what is known as Markdown."""
    REPORT.write_text(report(known()), encoding="utf-8")


def tell(line, options):
    """Print a line and keep it, unless in a hurry or of older scripts."""
    print(f"{line['recipe']}\n{table(line['recipe'], [line])}", flush=True)
    if not options.quick and is_current(line):
        keep(line)


# --- the command line ---------------------------------------------------------------


def arguments():
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes, or all")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--data", type=Path, help="the folder with all data")
    parser.add_argument("--work", type=Path, default=Path("reproduce-work"))
    parser.add_argument("--report", action="store_true", help="write reproduce.md")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with what is there")
    how.add_argument("--anew", action="store_true", help="remove what is there")
    parser.add_argument("--parts", type=int, nargs="+", help="these parts only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="parts at a time")
    parser.add_argument("--quick", action="store_true", help="seconds, to try it out")
    options = parser.parse_args()
    if "all" in options.names:
        options.names = list(RECIPES)
    unknown = sorted(set(options.names) - set(RECIPES))
    if unknown:
        parser.error(f"there is no recipe {unknown[0]!r}, but {', '.join(RECIPES)}")
    if options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}, but has to be at least 1")
    return options


def tasks(options):
    """Return what is to be trained; end with a message where it cannot be."""
    found = []
    for name in dict.fromkeys(options.names):
        recipe = RECIPES[name]
        lacking = recipe.lacking(options.data)
        if lacking:
            sys.exit(f"{name} needs {', '.join(map(str, lacking))} in --data.")
        for i in dict.fromkeys(options.parts or range(len(recipe.parts))):
            if not 0 <= i < len(recipe.parts):
                sys.exit(f"{name} has no part {i}, but 0 to {len(recipe.parts) - 1}.")
            found.append((name, i))
    return found


def make_room(todo, options):
    """Remove what earlier runs have left, if that is asked for."""
    for folder in (folder_of(*task, options) for task in todo):
        if folder.exists() and not (options.resume or options.anew or options.quick):
            sys.exit(f"{folder} exists: --resume goes on with it, --anew removes it.")
        if not options.resume:
            with only_one(folder):
                shutil.rmtree(folder, ignore_errors=True)


def do_all(todo, options):
    """Train all parts and tell each; return how many have failed."""
    failed = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, max_tasks_per_child=1) as pool:
        waiting = [pool.submit(do_part, *task, options) for task in todo]
        for future in as_completed(waiting):
            try:
                tell(future.result(), options)
            except Exception:
                failed += 1
                traceback.print_exc()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for name, i in pairs(todo):
        if ahead := advantage(name, i, options):
            tell(do_part(name, i, options) | {"ahead": ahead}, options)
    return failed


def main():
    """Run the benchmark from the command line."""
    options = arguments()
    if options.report:
        write_report()
    elif options.list or not options.names:
        for name, recipe in RECIPES.items():
            parts = "; ".join(f"{i} {p.name}" for i, p in enumerate(recipe.parts))
            print(f"{name:12s} {recipe.about}\n{'':12s} Parts: {parts}")
    else:
        todo = tasks(options)
        make_room(todo, options)
        sys.exit(1 if do_all(todo, options) else 0)


if __name__ == "__main__":
    main()
