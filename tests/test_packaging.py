"""What is installed: every package, the configs, the backbone; and that a wheel runs where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from fedlit.cli.app import with_packaged_configs

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_is_listed():
    there = {str(path.parent.relative_to(ROOT)).replace(os.sep, ".") for path in (ROOT / "fedlit").rglob("*.py")}
    assert set(SETTINGS["packages"]) == there | {"fedlit.configs"}


def test_every_config_matches_a_pattern():
    matched = {
        path for pattern in SETTINGS["package-data"]["fedlit.configs"] for path in (ROOT / "configs").glob(pattern)
    }
    assert matched == {path for path in (ROOT / "configs").rglob("*") if path.is_file()}


def test_a_config_that_is_not_here_is_taken_from_the_package(tmp_path, monkeypatch, capsys):
    packaged = tmp_path / "package" / "configs"
    packaged.mkdir(parents=True)
    (packaged / "a.yaml").touch()
    monkeypatch.chdir(tmp_path)
    given = ["fit", "--config", "configs/a.yaml", "--config=configs/a.yaml", "-c", "configs/a.yaml"]
    assert with_packaged_configs(given, packaged) == [
        "fit", "--config", f"{packaged}/a.yaml", f"--config={packaged}/a.yaml", "-c", f"{packaged}/a.yaml"
    ]  # fmt: skip
    assert capsys.readouterr().err.count("there is no configs/a.yaml here") == 3


def test_other_arguments_stay_as_they_are(tmp_path, monkeypatch, capsys):
    packaged = tmp_path / "package" / "configs"
    packaged.mkdir(parents=True)
    (packaged / "a.yaml").touch()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").touch()
    monkeypatch.chdir(tmp_path)
    given = ["fit", "--config", "configs/a.yaml", "--config=configs/b.yaml", "--data.table", "configs/a.yaml", "a.yaml"]
    assert with_packaged_configs(given, packaged) == given
    assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder is left in the checkout and none of an older build is taken in."""
    pytest.importorskip("setuptools", minversion="80", reason="building a wheel offline needs setuptools 80 here")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("fedlit", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = f"import setuptools.build_meta as backend; backend.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (path,) = out.glob("fedlit-*-py3-none-any.whl")
    return path


def test_wheel_holds_code_configs_backbone_and_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(path.relative_to(ROOT)) for path in (ROOT / "fedlit").rglob("*.py")}
    wanted |= {f"fedlit/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    wanted |= {f"fedlit/backbones/builtin/{name}" for name in ("config.json", "model.safetensors", "README.md")}
    wanted |= {"fedlit/py.typed"}
    assert wanted <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if not name.startswith(("fedlit/", "fedlit-"))]


@pytest.mark.slow
def test_wheel_runs_elsewhere(wheel, tmp_path):
    site, here = tmp_path / "site", tmp_path / "here"
    zipfile.ZipFile(wheel).extractall(site)
    here.mkdir()
    command = [sys.executable, "-m", "fedlit.cli", "fit", "--config", "configs/ecg_fedprox.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--trainer.fast_dev_run", "true"],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"taking the one of the package, {site / 'fedlit' / 'configs' / 'ecg_fedprox.yaml'}" in done.stderr
    assert (here / "runs" / "ecg_fedprox" / "version_0" / "summary.json").exists()
