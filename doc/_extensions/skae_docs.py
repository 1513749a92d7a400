"""Two directives that keep the pages true.

``family`` writes the page of a family from its registry, so that a new member appears
by itself. ``report`` shows a Markdown file of measurements, as the benchmark wrote it.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


def summary(member: object) -> str:
    """Return the first sentence of a docstring, on one line."""
    lines = inspect.getdoc(member).split("\n\n")[0].split()
    return " ".join(lines)


def literal(text: str) -> str:
    """Return `text` with its single backquotes doubled."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text)


def table(head: list[str], rows: list[list[str]], name: str) -> list[str]:
    """Return the lines of a table."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :class: {name}", ""]
    for row in [head, *rows]:
        for k, cell in enumerate(row):
            lines.append(f"   {'*' if k == 0 else ' '} - {cell}")
    return [*lines, ""]


# --- one row for each member of a registry ----------------------------------------


def reference(member: type) -> str:
    """Return a link to a class, which is public in the module of its registry."""
    module = ".".join(member.__module__.split(".")[:2])
    return f":class:`~{module}.{member.__name__}`"


def activation_row(name: str, member: object) -> list[str]:
    function, derivative = summary(member.apply), summary(member.chain)
    formula = re.search(r"``.*", function)
    words = {"softplus": "``f(z) = log(1 + exp(z))``"}
    derivative = re.sub(r"^(Multiply by|Leave `d` as it is:) ", "", derivative)
    return [
        f"``{name!r}``",
        words.get(name, formula and formula[0].rstrip(".")) or literal(function),
        literal(derivative).rstrip("."),
        literal(summary(member.bound)),
    ]


def what(method: object) -> str:
    """Return the formula of what a method returns, or its words if there is none."""
    words = literal(re.sub(r"^Return ", "", summary(method))).rstrip(".")
    formula = re.match(r"``[^`]+``", words)
    return formula[0] if formula else words


def unit(member: type) -> str:
    """Return what happens to columns inside, if `standardize` is true."""
    if member.has_location:
        return "centred and scaled"
    return "scaled" if member.has_unit else "left alone"


def distribution_row(name: str, member: type) -> list[str]:
    return [
        f"``{name!r}``",
        reference(member),
        literal(summary(member)),
        f"``{member.support}``",
        f"{member.outputs_per_feature} + {member.shared_per_feature}",
        what(member.mean),
        unit(member),
    ]


def distribution_formulas(name: str, member: type) -> list[str]:
    """Return the entry of a definition list: the docstrings of class and methods."""
    lines = [f"``{name!r}``", *indented(inspect.getdoc(member)), ""]
    found = {"Derivative": member.gradient, "Start": member.start}
    if member.is_likelihood:
        found["Fisher information"] = member.information
    if member.has_scale:
        found["Deviation"], found["Scale"] = member.deviation, member.scale
    for title, method in found.items():
        words = re.sub(r"^(Return|Write) ", "", inspect.getdoc(method))
        words = " ".join(words.split())
        lines.append(f"   - {title}: {words}")
    return [*lines, ""]


def indented(text: str) -> list[str]:
    return [f"   {line}".rstrip() for line in text.splitlines()]


def corruption_row(name: str, member: type) -> list[str]:
    levels = f"``{member.levels}``"
    return [f"``{name!r}``", reference(member), literal(summary(member)), levels]


def penalty_row(name: str, member: type) -> list[str]:
    usual = member.code_activation
    others = sorted(member.activations - {usual})
    fits = [usual, *others] if len(others) < 5 else [usual, "or any other"]
    return [
        f"``{name!r}``",
        reference(member),
        literal(summary(member)),
        ", ".join(f"``{a!r}``" if " " not in a else a for a in fits),
        str(len(member().start)),
    ]


def optimizer_row(name: str, member: type) -> list[str]:
    return [f"``{name!r}``", reference(member), literal(summary(member))]


def schedule_row(name: str, member: object) -> list[str]:
    return [f"``{name!r}``", literal(summary(member))]


FAMILIES = {
    "ACTIVATIONS": (
        "skae.activations",
        ["Name", "Function", "Derivative, from the output a", "Where weights start"],
        activation_row,
    ),
    "DISTRIBUTIONS": (
        "skae.distributions",
        ["Name", "Class", "For", "Support", "Parameters", "Mean", "Unit"],
        distribution_row,
    ),
    "CORRUPTIONS": (
        "skae.corruptions",
        ["Name", "Class", "What it does", "Levels"],
        corruption_row,
    ),
    "PENALTIES": (
        "skae.penalties",
        ["Name", "Class", "What it does", "Activations", "Numbers of a unit"],
        penalty_row,
    ),
    "OPTIMIZERS": (
        "skae.optimizers",
        ["Name", "Class", "What it does"],
        optimizer_row,
    ),
    "SCHEDULES": (
        "skae.optimizers",
        ["Name", "Factor on the learning rate"],
        schedule_row,
    ),
}


class Family(SphinxDirective):
    """``.. family:: DISTRIBUTIONS`` writes a table.

    ``:classes:`` writes the reference of each class instead, ``:formulas:`` what the
    docstrings of a distribution's class and methods say. ``:likelihoods:`` and
    ``:losses:`` leave the other distributions out.
    """

    required_arguments = 1
    option_spec: ClassVar = dict.fromkeys(
        ("classes", "formulas", "likelihoods", "losses"), directives.flag
    )

    def run(self) -> list[nodes.Node]:
        module_name, head, row = FAMILIES[self.arguments[0]]
        module = importlib.import_module(module_name)
        members = self.chosen(getattr(module, self.arguments[0]))
        for name in {module_name, *(m.__module__ for m in members.values())}:
            self.env.note_dependency(inspect.getfile(sys.modules[name]))
        if "formulas" in self.options:
            entries = ["\n".join(distribution_formulas(*m)) for m in members.items()]
            return self.parse_text_to_nodes("\n".join(entries))
        if "classes" not in self.options:
            rows = [row(name, member) for name, member in members.items()]
            return self.parse_text_to_nodes("\n".join(table(head, rows, "family")))
        lines = []
        for member in members.values():
            lines += [f".. autoclass:: {module_name}.{member.__name__}", ""]
        return self.parse_text_to_nodes("\n".join(lines))

    def chosen(self, members: dict[str, type]) -> dict[str, type]:
        """Return the likelihoods, the losses, or all."""
        if not self.options.keys() & {"likelihoods", "losses"}:
            return members
        wanted = "likelihoods" in self.options
        return {k: cls for k, cls in members.items() if cls.is_likelihood == wanted}


# --- reports written by the benchmarks --------------------------------------------


def inline(text: str) -> str:
    """Turn Markdown's code, links and emphasis into reStructuredText."""
    text = re.sub(r"\[([^\]]+)\]\((https?://[^)]+)\)", r"`\1 <\2>`__", text)
    parts = re.split(r"(`[^`]+`(?:__)?)", text)
    for k, part in enumerate(parts):
        if part.startswith("`") and not part.endswith("__"):
            parts[k] = f"`{part}`"
        elif not part.startswith("`"):
            part = re.sub(r"(?<![\w*])_([^_]+)_(?!\w)", r"*\1*", part)
            parts[k] = part.replace("|", r"\|")
    return "".join(parts)


def cells(line: str) -> list[str]:
    """Return the cells of one line of a Markdown table."""
    line = line.strip().removeprefix("|").removesuffix("|")
    parts = re.split(r"(?<!\\)\|", line)
    return [inline(part.strip().replace(r"\|", "|")) for part in parts]


def from_markdown(text: str) -> list[str]:
    """Return reStructuredText: headings, paragraphs, lists, tables and code blocks."""
    lines, rst, k = text.splitlines(), [], 0
    while k < len(lines):
        line = lines[k]
        if line.startswith("#"):
            rst += ["", f".. rubric:: {inline(line.lstrip('# '))}", ""]
        elif line.startswith("```"):
            rst += ["", ".. code-block:: text", ""]
            while k + 1 < len(lines) and not lines[k + 1].startswith("```"):
                k += 1
                rst.append(f"   {lines[k]}")
            rst, k = [*rst, ""], k + 1
        elif line.startswith("|"):
            rows = []
            while k < len(lines) and lines[k].startswith("|"):
                rows.append(cells(lines[k]))
                k += 1
            rows = [rows[0], *rows[2:]]
            width = max(map(len, rows))
            rows = [row + [""] * (width - len(row)) for row in rows]
            rst += ["", *table(rows[0], rows[1:], "report")]
            continue
        else:
            starts = re.match(r"\s*([-*]|\d+\.)\s", line)
            if starts and k and not re.match(r"\s*([-*]|\d+\.)\s|\s+\S", lines[k - 1]):
                rst.append("")
            rst.append(inline(line))
        k += 1
    return rst


class Report(SphinxDirective):
    """``.. report:: benchmarks/defaults.md`` shows the file, which must be there."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir, self.arguments[0])
        self.env.note_dependency(str(path))
        if not path.exists():
            raise self.error(f"There is no report {self.arguments[0]}.")
        return self.parse_text_to_nodes("\n".join(from_markdown(path.read_text())))


def quote_shapes(app, what, name, obj, options, lines: list[str]) -> None:
    """Quote fitted names in shapes: a trailing underscore would make them links."""
    for k, line in enumerate(lines):
        lines[k] = re.sub(r"(of shape \()(\w+_)(,\)|\))", r"\1`\2`\3", line)


def setup(app) -> dict[str, bool]:
    """Register the directives."""
    # Before numpydoc, which has the priority 500 and rewrites these lines.
    app.connect("autodoc-process-docstring", quote_shapes, priority=400)
    app.add_directive("family", Family)
    app.add_directive("report", Report)
    return {"parallel_read_safe": True}
