"""Holds the code to docs/architecture.md: who may import whom, who may write, who may draw lots."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "fieldmark"
FILES = sorted(SOURCE.rglob("*.py"))

# Rooms from the ground up. In a tuple each file may import those before it in the same tuple.
L0 = ("errors", "disk_room", "processes", "durable", "machine")
RECIPE = (
    "checked_yaml",
    "duration",
    "schedule",
    "source",
    "augmentation",
    "network",
    "expectation",
    "recipe",
)
METRICS = ("metrics",)
SHARDS = ("cache_room", "scratch", "shards")
LAYERS = tuple(
    f"layers.{name}"
    for name in (
        *(
            "hub",
            "weights",
            "cut",
            "backbone",
            "typed",
            "activation",
            "hashing",
            "operators",
            "spectrum",
        ),
        "dropout",
        *("bilinear", "maclaurin", "gram", "cross_gram", "positions", "sketch", "pooling", "model"),
        *("together", "depthwise"),
    )
)
DATA = tuple(
    f"data.{name}"
    for name in (
        *("dataset", "misspelt", "tree", "cub", "lists", "corrections", "sources"),
        *("portion", "split_files", "split", "chance", "policy", "augment", "mixing", "decoding"),
        *("colour", "twins", "strip", "transform", "loader", "cache", "audit"),
        *("toy_form", "toy_bird", "toy_scene", "toy_draw", "toy_plate", "toy"),
    )
)
TRAINING = tuple(
    f"training.{name}"
    for name in (
        *("world", "optim", "loss", "nonfinite", "memory", "stage", "features"),
        *("heads", "dual_heads", "many_heads", "exact", "checkpoint", "average", "observe"),
        *("lr_range", "lr_ladder"),
    )
)
STUDIES = tuple(
    f"studies.{name}"
    for name in (
        *(
            "folders",
            "run",
            "onlooker",
            "trial",
            "answers",
            "spread",
            "verdict",
            "compare",
            "effects",
        ),
        "selection",
        "learning_curve",
        *("space", "sampler", "pruner", "design", "power", "lease", "results", "study", "control"),
        "executor",
        *("table", "answered", "judged", "mislabelled", "ray_executor", "progress", "catalog"),
    )
)
L3 = (
    "build",
    "predict",
    "looked",
    "frozen_rows",
    "inputs",
    "ledger",
    "steps",
    "exact_stage",
    "forecast",
    "rehearsed",
    "train",
    "resume",
    "dashboards",
    "evaluate",
    "contact_sheet",
    "head_run",
    "head_order",
    "head_trials",
    "trials",
    "head_looks",
    "probe",
    "cost",
    "head_cost",
    "study_cost",
    "throwaway",
    "rates_tried",
    "rehearse",
)
DIAGNOSIS = tuple(
    f"diagnosis.{name}"
    for name in (
        *("finding", "curve", "evidence", "before_training", "divergence", "stability", "fit"),
        *("confidence", "budget", "schedule", "stages", "data", "study_evidence", "search"),
        *("comparisons", "labels", "gathered", "diagnose", "advice", "study_advice"),
    )
)
CHARTS = tuple(
    f"charts.{name}"
    for name in (
        *("look", "picture", "curves", "curves_drawing", "grid", "forest", "confusion"),
        *("calibration", "rates", "cost", "draw"),
    )
)
REPORT = tuple(
    f"report.{name}"
    for name in (
        *("page", "sentences", "thumbnails", "looks", "evidence", "diagnosed", "cells"),
        *("runs", "rehearsed", "content", "assets", "render", "pictures"),
    )
)
L4 = ("language", *DIAGNOSIS, *CHARTS, *REPORT)
L5 = (
    *("shipped", "terminal", "diagnosis_report", "study_axes", "study_report", "study_plan"),
    *(
        "study_looks",
        "questions",
        "demo",
        "keys",
        "cli_keys",
        "cli_shipped",
        "cli_study",
        "cli_train",
        "cli_cache",
        "cli_look",
        "cli_diagnose",
        "rehearsal_report",
        "cli_rehearse",
    ),
    "cli_report",
    *("server.access", "server.feed", "server.sections", "server.look", "server.comparison"),
    *("server.contents", "server.pages", "server.desk", "server.app", "server.serve"),
    *("watch", "cli_serve"),
    *("__init__", "cli", "__main__"),
)

BELOW = {  # what a room may import besides the files before it in the room
    L0: (),
    RECIPE: L0,
    METRICS: L0,
    SHARDS: L0,
    LAYERS: L0,
    DATA: (*L0, *SHARDS),
    TRAINING: (*L0, *RECIPE, *LAYERS, *METRICS, *SHARDS),
    STUDIES: (*L0, *RECIPE),
    L3: (*L0, *RECIPE, *METRICS, *SHARDS, *LAYERS, *DATA, *TRAINING, *STUDIES),
    L4: (*L0, *RECIPE, *METRICS, *STUDIES),
    L5: (*L0, *RECIPE, *METRICS, *SHARDS, *LAYERS, *DATA, *TRAINING, *STUDIES, *L3, *L4),
}
WITHOUT_TORCH = (*L0, *RECIPE, *METRICS, *STUDIES, *L4, *L5)
# Their __init__ holds a docstring, no code; but one, which exports what researchers take alone.
FOLDERS = {"layers", "data", "training", "studies", "charts", "diagnosis", "report", "server"}
EXPORTING = "layers"

BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}
LONGEST_FILE, LONGEST_FUNCTION = 350, 60

CHANGES_THE_DISK = {
    *("write_text", "write_bytes", "mkdir", "makedirs", "touch", "unlink", "rmdir", "rename"),
    *("symlink_to", "hardlink_to", "truncate", "chmod", "rmtree", "copyfile", "copytree", "copy2"),
}
SAVES = {"save", "save_file", "savez", "savetxt", "write_parquet", "write_csv", "write_json"}
IN_MEMORY = {"buffer", "text", "temporary"}  # what a library may save to: ours to put on the disk
CLOCKS = {("time", "time"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}

TORCH_DRAWS = {
    *("rand", "randn", "randint", "randperm", "bernoulli", "normal", "multinomial", "poisson"),
}
TENSOR_DRAWS = {
    *("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "trunc_normal_"),
    *("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_", "orthogonal_"),
}
NUMPY_RANDOM = {"Generator", "Philox", "PCG64", "SeedSequence", "BitGenerator", "default_rng"}

trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def module(path: Path) -> str:
    """`layers.sketch` for src/fieldmark/layers/sketch.py, `layers` for its __init__."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module(path) for path in FILES}


def imports(tree: ast.AST, *, typing: bool = True) -> Iterator[str]:
    """Every module of the package that is imported anywhere in the tree."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typing:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fieldmark":
            home = node.module.removeprefix("fieldmark").removeprefix(".")
            for alias in node.names:
                name = f"{home}.{alias.name}".lstrip(".")
                yield name if name in MODULES else home or "__init__"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "fieldmark":
                    yield alias.name.removeprefix("fieldmark").removeprefix(".") or "__init__"
        yield from imports(node, typing=typing)


def calls(tree: ast.AST, inside: str = "") -> Iterator[tuple[ast.Call, str, str]]:
    """Each call with its dotted name, and the `with` headers around it."""
    for node in ast.iter_child_nodes(tree):
        around = inside
        if isinstance(node, ast.With):
            around += " ".join(ast.unparse(item.context_expr) for item in node.items)
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func), around
        yield from calls(node, around)


def each(paths=FILES):
    return pytest.mark.parametrize("path", paths, ids=module)


@each()
def test_every_file_has_a_place_in_the_table(path):
    name = module(path)
    if name in FOLDERS:
        code = len(trees[path].body) > 1
        assert code == (name == EXPORTING), "a folder's __init__ is its docstring and nothing more"
        assert not set(imports(trees[path], typing=False)), "and loads nothing before it is asked"
        return
    rooms = [room for room in BELOW if name in room]
    assert len(rooms) == 1, f"give `{name}` one place in this file and in docs/architecture.md"


def test_the_plan_of_the_house_shows_every_room():
    plan = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = re.search(r"## Rooms\n+```(.*?)```", plan, re.DOTALL)[1]
    for path in (*SOURCE.glob("[!_]*.py"), *(SOURCE / name for name in FOLDERS)):
        name = path.name if path.suffix else f"{path.name}/"
        assert re.search(rf"^  {re.escape(name)} ", rooms, re.MULTILINE), f"{name} is not shown"


@each()
def test_imports_keep_to_the_table(path):
    name = module(path)
    if name in FOLDERS:
        return
    room = next(room for room in BELOW if name in room)
    allowed = {*BELOW[room], *room[: room.index(name)]}
    if name == "__init__":
        allowed.add(EXPORTING)
    if room == L0:
        allowed &= {"errors", "disk_room", "processes"} if name == "durable" else {"errors"}
    assert set(imports(trees[path])) <= allowed


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from fieldmark import durable, errors", ["durable", "errors"]),
        ("from fieldmark.studies.run import Run", ["studies.run"]),
        ("from fieldmark.studies import run", ["studies.run"]),
        ("from fieldmark import Run", ["__init__"]),
        ("def f():\n    import fieldmark.charts.look as look", ["charts.look"]),
        ("if TYPE_CHECKING:\n    from fieldmark.train import train", ["train"]),
        ("from fieldmarks import train", []),
    ],
)
def test_the_check_of_imports_sees(line, found):
    assert list(imports(ast.parse(line))) == found


def test_there_is_no_import_cycle():
    graph = {module(path): set(imports(trees[path], typing=False)) for path in FILES}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the cycle
    assert order.index("errors") < order.index("durable") < order.index("cli")


@each()
def test_imports_are_absolute(path):
    relative = [
        node.lineno
        for node in ast.walk(trees[path])
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


@each()
def test_names_say_what_is_inside(path):
    assert not BANNED_NAMES & {part.strip("_") for part in module(path).split(".")}


@each()
def test_files_and_functions_are_short_and_described(path):
    assert ast.get_docstring(trees[path]), "a module begins with what it is"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{lines} lines: split it where its subject splits"
    for node in ast.walk(trees[path]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def writes(call: ast.Call, name: str) -> bool:
    """Whether the call changes the disk, as far as its text tells."""
    last = name.rpartition(".")[2]
    if last in {"open", "fdopen"}:
        if name == "os.open":
            return True
        arguments = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
        modes = [str(a.value) for a in arguments if isinstance(a, ast.Constant)]
        return any(re.fullmatch(r"[rwaxbt+]*[wax+][rwaxbt+]*", mode) for mode in modes)
    if last in SAVES:
        return not any(isinstance(a, ast.Name) and a.id in IN_MEMORY for a in call.args)
    return last in CHANGES_THE_DISK or name in {"os.remove", "os.replace", "shutil.move"}


@each([path for path in FILES if module(path) != "durable"])
def test_only_durable_writes_and_tells_the_time(path):
    for call, name, _ in calls(trees[path]):
        where = f"line {call.lineno}: {ast.unparse(call)}"
        assert not writes(call, name), f"{where} goes past fieldmark.durable"
        assert tuple(name.split(".")[-2:]) not in CLOCKS, f"{where}: use durable.now()"


def draws_from_the_global_generator(call: ast.Call, name: str, around: str) -> bool:
    """Whether the call uses or seeds a generator that others use too."""
    owner, _, last = name.rpartition(".")
    given = {word.arg for word in call.keywords}
    if owner in {"np.random", "numpy.random"}:
        return last not in NUMPY_RANDOM or not (call.args or call.keywords)
    if last in TENSOR_DRAWS or (owner == "torch" and last in TORCH_DRAWS):
        return "generator" not in given and "fork_rng" not in around
    if name in {"torch.manual_seed", "torch.seed", "torch.default_generator.manual_seed"}:
        return "fork_rng" not in around
    return owner == "random" or name in {"torch.cuda.manual_seed", "torch.cuda.manual_seed_all"}


@each()
def test_lots_are_drawn_from_private_generators(path):
    for call, name, around in calls(trees[path]):
        shared = draws_from_the_global_generator(call, name, around)
        assert not shared, f"line {call.lineno}: {ast.unparse(call)} uses a shared generator"


@pytest.mark.parametrize(
    "line",
    [
        "open(path, 'w')",
        "path.open('ab')",
        "open(path, mode='r+')",
        "os.open(path, os.O_WRONLY)",
        "path.write_text('x')",
        "image.save(path)",
        "np.save('x.npy', array)",
        "torch.save(state, path)",
        "save_file(tensors, path)",
        "frame.write_parquet(path)",
    ],
)
def test_the_check_of_writes_sees(line):
    ((call, name, _),) = calls(ast.parse(line))
    assert writes(call, name)


@pytest.mark.parametrize(
    "line", ["open(path)", "path.open('rb')", "image.save(buffer, 'JPEG')", "'a'.replace('b', 'c')"]
)
def test_the_check_of_writes_lets_pass(line):
    assert not any(writes(call, name) for call, name, _ in calls(ast.parse(line)))


@pytest.mark.parametrize(
    ("line", "shared"),
    [
        ("random.random()", True),
        ("np.random.rand(3)", True),
        ("np.random.default_rng()", True),
        ("np.random.default_rng(3)", False),
        ("torch.randn(3)", True),
        ("torch.randn(3, generator=g)", False),
        ("tensor.normal_()", True),
        ("torch.manual_seed(0)", True),
        ("with torch.random.fork_rng():\n    torch.manual_seed(0)", False),
        ("torch.Generator().manual_seed(0)", False),
    ],
)
def test_the_check_of_generators_sees(line, shared):
    found = [draws_from_the_global_generator(*call) for call in calls(ast.parse(line))]
    assert any(found) == shared


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_reading_results_loads_no_torch():
    names = [name for name in WITHOUT_TORCH if name in MODULES and name != "__main__"]
    full = ["fieldmark" if name == "__init__" else f"fieldmark.{name}" for name in names]
    done = run_python(
        f"import importlib, sys\n"
        f"for name in {full}:\n"
        f"    importlib.import_module(name)\n"
        f"    if 'torch' in sys.modules: sys.exit(f'{{name}} loads torch')\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("cli" not in MODULES, reason="no command line yet")
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_loads_neither_torch_nor_tables(arguments):
    done = run_python(
        f"import sys\n"
        f"sys.argv = ['fieldmark', *{arguments}]\n"
        f"from fieldmark.cli import main\n"
        f"try: main()\n"
        f"except SystemExit as end: assert end.code in (0, None), end.code\n"
        f"heavy = {{'torch', 'polars', 'altair', 'timm'}} & sys.modules.keys()\n"
        f"assert not heavy, heavy\n"
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
