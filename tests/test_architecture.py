"""The house rules that no single module can keep by itself."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import skae
from skae import corruptions, distributions, optimizers, penalties

PACKAGE = Path(skae.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}
#: A package that other modules use as a whole.
MODULES["skae.distributions"] = PACKAGE / "distributions" / "__init__.py"
TESTS = Path(__file__).parent

#: Every module imports from floors below its own only.
FLOORS = [
    {"skae._validation", "skae._version", "skae.interrupts", "skae.layout"},
    {
        "skae.archives",
        "skae.blas",
        "skae.component",
        "skae.crew",
        "skae.thresholds",
    },
    {
        "skae.activations",
        "skae.checkpoints",
        "skae.corruptions",
        "skae.draws",
        "skae.optimizers",
        "skae.rows",
    },
    {"skae.distributions._numbers", "skae.penalties"},
    {"skae.bottlenecks", "skae.distributions._distribution", "skae.network"},
    {
        "skae.distributions.bounded",
        "skae.distributions.counts",
        "skae.distributions.losses",
        "skae.distributions.positive",
        "skae.distributions.real",
    },
    {"skae.distributions"},
    {"skae.automatic", "skae.composite"},
    {"skae.objective"},
    {"skae.shares"},
    {"skae.model", "skae.training"},
    {
        "skae.displays._common",
        "skae.estimators._fitted",
        "skae.exemplars",
        "skae.marginal",
        "skae.revival",
        "skae.stacking",
    },
    {"skae.estimators._watch"},
    {"skae.estimators._mlp", "skae.estimators._trained"},
    {"skae.estimators._base"},
    {"skae.estimators._scores", "skae.estimators._stack"},
    {"skae.estimators._held_out", "skae.estimators._supervised"},
    {
        "skae.displays.explanation",
        "skae.displays.latent_manifold",
        "skae.displays.latent_space",
        "skae.displays.loss_curve",
        "skae.displays.reconstruction",
        "skae.estimators.classifier",
        "skae.estimators.denoising",
        "skae.estimators.regressor",
        "skae.estimators.sparse",
        "skae.estimators.stacked",
        "skae.estimators.variational",
    },
    {"skae.distributed", "skae.estimators.outlier"},
]

#: Modules that may know scikit-learn.
KNOW_SKLEARN = (
    "skae._validation",
    "skae.component",
    "skae.displays",
    "skae.estimators",
)

FAMILIES = [
    (corruptions.Corruption, corruptions.CORRUPTIONS, corruptions),
    (distributions.Distribution, distributions.DISTRIBUTIONS, distributions),
    (optimizers.Optimizer, optimizers.OPTIMIZERS, optimizers),
    (penalties.Penalty, penalties.PENALTIES, penalties),
]


def imports(path):
    """Return the names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


def names(path):
    """Return what a file imports from scikit-learn, with the module's name."""
    return {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("sklearn")
        for alias in node.names
    }


def floor(name):
    return next(k for k, names in enumerate(FLOORS) if name in names)


def test_every_module_has_a_floor():
    assert set(MODULES) == set.union(*FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    ours = {other for other in imports(MODULES[name]) if other.startswith("skae")}
    ours -= {name}  # a package names its own modules
    assert all(floor(other) < floor(name) for other in ours)


@pytest.mark.parametrize("name", MODULES)
def test_scikit_learn_stays_at_the_border(name):
    foreign = {other for other in imports(MODULES[name]) if other.startswith("sklearn")}
    assert name.startswith(KNOW_SKLEARN) or not foreign
    private = {other for other in names(MODULES[name]) if "._" in f".{other}"}
    assert name == "skae._validation" or not private


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_test_file(name):
    _, package, stem = f"skae.{name}".rsplit(".", 2)
    # Distributions share their tests, which run over the registry.
    stem = package if package == "distributions" else stem.strip("_")
    assert (TESTS / f"test_{stem}.py").exists()


def subclasses(base):
    """Return the classes below one that can be used."""
    below = {cls for child in base.__subclasses__() for cls in subclasses(child)}
    return below if inspect.isabstract(base) else below | {base}


@pytest.mark.parametrize(("base", "registry", "module"), FAMILIES)
def test_every_member_is_registered_and_public(base, registry, module):
    home = module.__name__
    for name in MODULES:
        importlib.import_module(name)
    members = {cls for cls in subclasses(base) if cls.__module__.startswith(home)}
    assert members == set(registry.values())
    assert {cls.__name__ for cls in members} <= set(module.__all__)
    assert list(registry) == sorted(registry)


@pytest.mark.parametrize(("base", "registry", "module"), FAMILIES)
def test_every_class_is_abstract_or_final(base, registry, module):
    assert inspect.isabstract(base)
    for cls in registry.values():
        assert all(inspect.isabstract(parent) for parent in cls.__bases__)


def test_functions_are_short():
    lengths = sorted(
        (body_length(node), f"{path.name}:{node.name}")
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and not only_stores(node)
    )
    assert lengths[len(lengths) // 2][0] < 9
    assert lengths[-1][0] <= 40, lengths[-1]


def only_stores(node):
    """Tell a constructor that keeps what it is given: as long as the list of it."""
    stored = [f"self.{a.arg} = {a.arg}" for a in node.args.args + node.args.kwonlyargs]
    return [ast.unparse(line) for line in node.body] == stored[1:]


def body_length(node):
    """Count the lines of a function, its docstring aside."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_importing_needs_nothing_optional():
    code = (
        "import sys, skae; "
        "bad = {'dask', 'distributed', 'matplotlib', 'polars', 'rich', 'torch'}; "
        "bad &= set(sys.modules); "
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
