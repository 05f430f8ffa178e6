"""The comparison with other libraries: what is stored is whole, and what can be imported agrees now."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of benchmarks/, which imports its neighbors; the others' packages are in .bench, if anywhere."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks"), str(ROOT / ".bench")])
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def peers(monkeypatch):
    return load("peers", monkeypatch)


def rows_of(device: str) -> list[dict]:
    return json.loads((ROOT / "data" / "peers.json").read_text(encoding="utf-8"))[device]["rows"]


def test_every_row_was_measured_at_every_size(peers):
    wanted = [(row.name, row.package, row.ours, row.peer, size) for row in peers.ROWS for size in row.sizes]
    found = [tuple(row[key] for key in ("name", "package", "ours", "peer", "size")) for row in rows_of("cpu")]
    assert found == wanted, "run: make bench"


def test_both_sides_and_the_check_are_stored(peers):
    for device, result in json.loads(peers.RESULTS.read_text(encoding="utf-8")).items():
        assert {"processor", "threads", "python", "torch", *(row.package for row in peers.ROWS)} <= result[
            "machine"
        ].keys()
        for row in rows_of(device):
            for unit in ("milliseconds", "peak_mib"):
                assert row[unit].keys() == {"ours", "peer"} and min(row[unit].values()) > 0
            assert row["deviation"].keys() == row["tolerance"].keys() == {"value", "gradient"}
            assert all(row["deviation"][kind] <= row["tolerance"][kind] <= 1e-3 for kind in row["tolerance"])


def test_versions_are_those_that_are_installed(peers):
    pins = dict(
        line.split("==") for line in (ROOT / "benchmarks" / "peers.txt").read_text().splitlines() if "==" in line
    )
    machine = json.loads(peers.RESULTS.read_text(encoding="utf-8"))["cpu"]["machine"]
    assert all(machine[row.package] == pins[row.package] for row in peers.ROWS), "run: make bench"


def test_the_section_shows_every_measurement(peers, monkeypatch):
    page, result = load("peers_page", monkeypatch), json.loads(peers.RESULTS.read_text(encoding="utf-8"))["cpu"]
    lines = page.section(result)
    for row in result["rows"]:
        assert sum(line.startswith(f"| {row['name']}, {row['package']} | {row['size']} |") for line in lines) == 1
    for row in peers.ROWS:
        assert sum(f"| `{row.ours}` | `{row.peer}` |" in line for line in lines) == 1
    tables = [line.count(" | ") for line in lines if line.startswith("|")]
    assert set(tables) == {5, 7}


def test_a_wrong_side_is_found(peers):
    z = peers.draw(4, 3)
    doubled = peers.Contest(lambda: (2 * z).sum(), lambda: z.sum(), (z,))
    assert peers.check(doubled) == {"value": 1.0, "gradient": 1.0}
    row = peers.ROWS[0]._replace(sizes={"any": ()}, make=lambda: doubled)
    with pytest.raises(SystemExit, match="differ by"):
        list(peers.measure(row))


def test_stand_ins_are_gone_afterward(monkeypatch):
    stand_ins = load("stand_ins", monkeypatch)
    monkeypatch.setattr(stand_ins, "ABSENT", {"nobody_has_this"})
    with stand_ins.stand_ins():
        from nobody_has_this.inner import Base, flag

        class Derived(Base):
            kept = 3

        assert Derived(1).kept == 3 and not flag()
    with pytest.raises(ModuleNotFoundError):
        import nobody_has_this  # noqa: F401


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", dict.fromkeys(row["name"] for row in rows_of("cpu")))
def test_the_sides_agree_where_the_peer_is_installed(peers, name):
    row = next(row for row in peers.ROWS if row.name == name)
    arguments = next(iter(row.sizes.values()))
    try:
        contest = row.make(*arguments)
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    apart = peers.check(contest)
    assert apart["value"] <= row.value and apart["gradient"] <= row.gradient
