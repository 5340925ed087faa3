"""The import law (DESIGN, The laws, 1-3), read from the source of every package."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("cluster", "actors", "tune", "serve")
TOP = (*OURS, "benchmarks", "tests")

ALLOWED = {
    "cluster": {"cluster"},
    "actors": {"cluster", "actors"},
    "tune": {"cluster", "actors", "tune"},
    "serve": {"cluster", "actors", "serve"},
}
"""Which of our packages a package may import: cluster <- actors <- tune, cluster <- actors <- serve."""

INSIDE_ACTORS = {
    "features": {"features"},
    "bandits": {"features", "bandits"},
    "generator": {"features", "bandits", "generator"},
}
"""Inside actors: features <- bandits <- generator; any other folder sees itself, features and bandits."""

HEAVY = ("torch", "transformers", "tokenizers", "peft", "ray.rllib", "ray.data", "ray.train")
ONLY_IN_TUNE = ("ray.data", "ray.train", "ray.tune", "ray.rllib")


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, also inside functions: (line, dotted name)."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the package's name"
            module = node.module or ""
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def within(module: str, *names: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def breaches(paths: list[Path], forbidden) -> list[str]:
    """`file:line: module` for each import that `forbidden(path, module)` refuses."""
    return [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in paths
        for line, module in imports(path)
        if forbidden(path, module)
    ]


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("package", OURS)
def test_packages_import_in_one_direction(package: str) -> None:
    def forbidden(_path: Path, module: str) -> bool:
        top = module.partition(".")[0]
        return top in TOP and top not in ALLOWED[package]

    assert breaches(sources(package), forbidden) == []


def test_inside_actors_features_then_bandits_then_generator() -> None:
    def forbidden(path: Path, module: str) -> bool:
        parts = module.split(".")
        if parts[0] != "actors" or len(parts) < 2:
            return False
        folder = path.relative_to(ROOT).parts[1]
        return parts[1] not in INSIDE_ACTORS.get(folder, {folder, "features", "bandits"})

    assert breaches(sources("actors"), forbidden) == []


def test_in_actors_only_actor_py_imports_ray() -> None:
    def forbidden(path: Path, module: str) -> bool:
        return path.name != "actor.py" and within(module, "ray")

    assert breaches(sources("actors"), forbidden) == []


def test_serve_and_the_command_line_stay_light() -> None:
    assert breaches(sources("serve", "cluster"), lambda _path, module: within(module, *HEAVY)) == []


def test_serving_loads_no_heavy_package_through_another() -> None:
    """What `serve` and the command line import in turn, measured in a fresh process."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sources("serve")
        if path.name != "__init__.py"
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {[*modules, 'cluster.cli']!r}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_data_train_tune_and_rllib_appear_only_in_tune() -> None:
    others = sources("cluster", "actors", "serve")
    assert breaches(others, lambda _path, module: within(module, *ONLY_IN_TUNE)) == []


def test_ray_init_is_called_in_one_place_only() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(*OURS, "benchmarks")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init"
    ]
    assert found
    assert all(place.startswith("cluster/session.py:") for place in found)


def test_the_names_that_ray_also_has_are_never_bound_plainly() -> None:
    """`import serve.app` beside `from ray import serve` would rebind `serve`."""
    found = []
    for path in sources(*TOP):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                plain = [a.name for a in node.names if a.name.partition(".")[0] in OURS and a.asname is None]
            elif isinstance(node, ast.ImportFrom) and node.module == "ray":
                plain = [a.name for a in node.names if a.name in ("serve", "tune") and a.asname is None]
            else:
                continue
            found += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in plain]
    assert found == []


@pytest.mark.parametrize("package", TOP)
def test_each_package_is_the_one_of_this_repository(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve() == ROOT / package / "__init__.py"
    assert Path(spec.origin).read_text() == ""


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in sources(*OURS, "benchmarks")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_nothing_that_crosses_a_trust_boundary_is_pickled() -> None:
    def forbidden(_path: Path, module: str) -> bool:
        return within(module, "pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal")

    assert breaches(sources(*OURS), forbidden) == []


def test_no_text_names_a_place_outside_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("no git checkout here")
    private = re.compile(r"(?<![\w.~$}])/" + r"(work|root|home/\w+|Users/\w+|mnt/\w+)/")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{i}: {line.strip()[:80]}" for i, line in enumerate(lines, 1) if private.search(line)]
    assert found == []
