"""What a user may get wrong on the command line: one readable message, the right exit code, nothing lost."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from warm_python import run_python

from openmm_gnn import cli
from openmm_gnn.base.errors import DataError
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.topologies import read_topology
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.reporters.trajectory_features import featurize_trajectory

SHORT = "--steps 10 --stride 5 --equilibration 0 --threads 1 --quiet"
READ = "--topology ala.pdb --encoder biomolecule-et-small --quiet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a peptide in several files, a run of argon, and features without times."""
    folder = tmp_path_factory.mktemp("user")
    system = load_system("alanine-dipeptide")
    start = system.start(1)
    with open(folder / "ala.pdb", "w") as file:
        app.PDBFile.writeFile(system.topology, start * unit.nanometer, file)
    heavy = [line for line in (folder / "ala.pdb").read_text().splitlines() if not line.rstrip().endswith(" H")]
    (folder / "heavy.pdb").write_text("\n".join(heavy))
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system.system))
    (folder / "broken.xml").write_text((folder / "system.xml").read_text()[:300])
    noise = np.random.default_rng(0).normal(0, 0.005, (30, *start.shape))
    frames = mdtraj.Trajectory(start + noise, mdtraj.Topology.from_openmm(system.topology))
    frames.save_xtc(str(folder / "t.xtc"))
    frames.save_dcd(str(folder / "t.dcd"))
    frames.atom_slice(range(10)).save_xtc(str(folder / "few.xtc"))
    (folder / "other").mkdir()
    shutil.copy(folder / "t.xtc", folder / "other" / "t.xtc")
    shutil.copytree(folder / "other", folder / "again" / "other")
    (folder / "empty.xtc").write_bytes(b"")
    (folder / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (folder / "notes.txt").write_text("a file")
    (folder / "labels.xyz").write_text("1\nenergy=1.0\nAr 0 0 0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(f"simulate argon --out run {SHORT}".split()) == 0
        assert cli.main(f"featurize t.dcd {READ} --out features".split()) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size
    }


MISTAKES: list[tuple[str, int, str]] = [
    # command, exit code, what is said
    ("optimise", 2, "there is no command optimise: give one of doctor, demo, "),
    ("simulate", 2, "Missing"),
    ("simulate argon", 2, "--out"),
    ("simulate argon --out new --step 100", 2, "Unrecognized options: --step"),
    ("simulate argon --out new --steps ten", 2, "invalid literal"),
    ("simulate argon --out new --steps 0", 2, "--steps 0: give a whole number, 1 or more"),
    ("simulate argon --out new --steps 100 --stride 30", 2, "--steps 100: give a multiple of stride, 30 steps"),
    ("simulate argon --out new --time-step 0.002", 2, "--time-step 0.002: it is in fs: give 0.05 to 50"),
    ("simulate argon --out new --time-step 10000", 2, "--time-step 10000.0: it is in fs"),
    ("simulate argon --out new --time-step 2fs", 2, "could not convert string to float: '2fs'"),
    ("simulate argon --out new --temperature -5", 2, "--temperature -5.0: give a finite number above 0"),
    ("simulate argon --out new --temperature nan", 2, "--temperature nan: give a finite number above 0"),
    ("simulate argon --out new --thermostat berendsen", 2, "invalid choice 'berendsen'"),
    ("simulate argon --out new --accelerate", 2, "--model: give the network that accelerates"),
    (f"simulate argon --out new --model gamd-argon --pressure 1 {SHORT}", 1, "MonteCarloBarostat needs energies"),
    (
        f"simulate tip3p --out new --model gamd-tip3p --pressure 1 {SHORT}",
        1,
        "the network's pressure, give --network",
    ),
    (f"simulate argonn --out new {SHORT}", 1, "there is no system called 'argonn': give one of"),
    (f"simulate ala.pdb --out new {SHORT}", 1, "name force-field files too (--force-field amber14-all.xml)"),
    (f"simulate ala.pdb --force-field amber.xml --out new {SHORT}", 1, "there is no force-field file amber.xml"),
    (f"simulate none.pdb --force-field amber14-all.xml --out new {SHORT}", 1, "there is no file none.pdb"),
    (f"simulate heavy.pdb --force-field amber14-all.xml --out new {SHORT}", 1, "cannot make a System of heavy.pdb"),
    (f"simulate argon --force-field amber14-all.xml --out new {SHORT}", 1, "make a System of a structure"),
    (f"simulate argon --topology ala.pdb --out new {SHORT}", 1, "is a named system and brings its topology"),
    (f"simulate alanine-dipeptide --molecules 5 --out new {SHORT}", 1, "there is no system 'alanine-dipeptide' that"),
    (f"simulate alanine-dipeptide --pressure 1 --out new {SHORT}", 1, "no periodic box, whose pressure"),
    (f"simulate argon --platform GPU --out new {SHORT}", 1, "GPU"),
    (f"simulate argon --out run {SHORT} --temperature 50", 1, "give the same ones to resume, or another directory"),
    (
        "simulate argon --out run --steps 5 --stride 5 --equilibration 0 --quiet",
        1,
        "has reached step 10",
    ),
    (f"simulate argon --model none --out new {SHORT}", 1, "none"),
    (f"simulate alanine-dipeptide --model gamd-argon --out new {SHORT}", 1, "the model knows the atomic numbers [18]"),
    (f"simulate argon --out notes.txt {SHORT}", 1, "notes.txt"),
    (f"simulate argon --start nowhere --out new {SHORT}", 1, "nowhere"),
    (f"simulate argon --features none --out new {SHORT}", 1, "no encoder 'none': give one of the shipped names"),
    (f"simulate argon --features biomolecule-et-small --out new {SHORT}", 1, "Ar"),
    (f"simulate argon --bias none --out new {SHORT}", 1, "none"),
    (f"simulate argon --bias alanine-dipeptide --out new {SHORT}", 1, "topology"),
    (f"simulate system.xml --out new {SHORT}", 1, "give its topology too (--topology, .pdb or .cif)"),
    (f"simulate broken.xml --topology ala.pdb --out new {SHORT}", 1, "broken.xml cannot be read as OpenMM XML"),
    (f"featurize none.xtc {READ} --out new", 1, "none.xtc: check the path of the trajectory"),
    ("featurize t.xtc --topology none.pdb --encoder biomolecule-et-small --out new", 1, "none.pdb: check the path"),
    ("featurize t.xtc --topology ala.pdb --encoder none --out new", 1, "no encoder 'none': give one of the shipped"),
    ("featurize ala.pdb --topology t.xtc --encoder biomolecule-et-small --out new", 1, "cannot be read as a topology"),
    (f"featurize few.xtc {READ} --out new", 1, "does not fit the topology of 22 atoms"),
    (f"featurize empty.xtc {READ} --out new", 1, "empty.xtc is empty: was it written to the end"),
    (f"featurize notes.txt {READ} --out new", 1, "notes.txt cannot be read"),
    (f"featurize other/t.xtc again/other/t.xtc {READ} --out new", 1, "would both be stored as other-t"),
    (f"featurize t.xtc {READ} --out new --selection protein", 1, "select without it (not element H)"),
    (f"featurize t.xtc {READ} --out new --selection water", 1, "matches none of the 22 atoms"),
    (f"featurize t.xtc {READ} --out new --selection ((", 1, "(("),
    (f"featurize t.dcd {READ} --out features --selection name=='CA'", 1, "holds other features"),
    (f"featurize t.dcd {READ} --out features --frame-stride 2", 1, "stride: 1 stored, 2 given"),
    (f"featurize t.xtc {READ} --out new --frame-stride 0", 2, "--frame-stride 0: give a whole number, 1 or more"),
    ("analyze nowhere --lag 1 --out new", 1, "nowhere holds no features"),
    ("analyze features --out new", 2, "--lag"),
    ("analyze features --lag 1 --out new", 1, "give --temperature, in K"),
    (
        "analyze features --lag 1 --temperature 300 --out new --quiet",
        1,
        "--frame-time PS, which keeps the features",
    ),
    ("analyze features --lag 1 --method pca --out new", 2, "invalid choice 'pca'"),
    ("tail nowhere", 1, "nowhere holds no embedding store"),
    ("export-features nowhere --out new", 1, "nowhere"),
    ("export-features features --out new --format csv", 2, "invalid choice 'csv'"),
    ("compare nowhere run", 1, "nowhere is no run and holds none"),
    ("train nowhere --out new", 1, "nowhere"),
    ("train notes.txt --out new", 1, "make a directory of it with `openmm-gnn import-labels notes.txt"),
    ("train run --out new --train-seeds 1-3 --validation-seeds 3", 2, "a trajectory is for one of them"),
    ("train run --out new --network encoder", 2, "--encoder: --network encoder and --encoder NAME go together"),
    ("evaluate none run", 1, "none"),
    ("evaluate gamd-argon run --seeds 1-x", 2, "'1-x' is no list: give whole numbers such as 1-4,9"),
    ("import-labels labels.csv --out new", 1, "labels.csv"),
    ("import-labels labels.xyz --out new", 1, "labels.xyz"),
    ("label argon --seeds 1 --frames 0 --out new", 2, "--frames 0: give a whole number, 1 or more"),
    ("pretrain nowhere --out new", 1, "nowhere"),
    ("regress none.xyz --encoder biomolecule-et-small --property gap --out new", 1, "there is no file none.xyz"),
    ("predict none.safetensors ala.pdb --out new.csv", 1, "none.safetensors"),
    ("conformers --kind sugars --out new", 2, "invalid choice 'sugars'"),
    ("conformers --kind proteins --out new", 1, "structure"),
    ("export gamd-argon alanine-dipeptide --out new.pt", 1, "the model knows the atomic numbers [18]"),
    ("validate gamd-argon --system tip3p --out new", 1, "the model knows the atomic numbers [18]"),
    ("scan-steps argon --model none --out new", 1, "none"),
]


@pytest.mark.parametrize(("command", "code", "says"), MISTAKES, ids=[command for command, _, _ in MISTAKES])
def test_a_mistake_is_said_in_words_and_nothing_is_lost(
    command: str, code: int, says: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    before = contents(folder)
    try:
        given = cli.main(command.split())
    except SystemExit as stop:
        given = int(stop.code or 0)
    said = " ".join(capfd.readouterr().err.replace("│", " ").split())
    assert given == code, said
    assert says in said and "Traceback" not in said
    after = contents(folder)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert cli.main(f"featurize t.xtc {READ} --out new --device cuda".split()) == 1
    assert "device is 'cuda', but torch sees no CUDA device: give 'cpu'" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("tables") is not None, reason="PyTables is installed")
def test_a_reader_that_is_not_installed_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once and in one sentence, for trajectories and topologies, also in Python."""
    monkeypatch.chdir(folder)
    says = "reading x.h5 needs tables, which is not installed: `pip install tables`, or the extra `formats`"
    topology = READ.replace("ala.pdb", "x.h5")
    for command in (f"featurize x.h5 {READ} --out new", f"featurize t.xtc {topology} --out new"):
        assert cli.main(command.split()) == 1
        assert capsys.readouterr().err.replace(f"{folder}/", "") == f"Error: {says}\n"
    featurizer = Featurizer("biomolecule-et-small", read_topology(Path("ala.pdb")))
    with pytest.raises(DataError, match=re.escape(says)):
        featurize_trajectory(Path("x.h5"), folder / "python", featurizer)
    with pytest.raises(DataError, match=re.escape(says)):
        read_topology(Path("x.h5"))
    assert not (folder / "python").exists()


def test_a_warning_comes_once(folder: Path) -> None:
    """A ligand whose reader took the first letters of names for elements is seen by the reader and the featurizer."""
    carbon = "HETATM{:5d} {:<4} LIG A   1    {:8.3f}   0.000   0.000  1.00  0.00           C"
    lines = [carbon.format(1, "CL1", 0.0), carbon.format(2, "C1", 1.7), "CONECT    1    2", "END"]
    (folder / "ligand.pdb").write_text("\n".join(lines))
    command = "featurize ligand.pdb --topology ligand.pdb --encoder biomolecule-et-small --out ligand --quiet"
    done = run_python("-m", "openmm_gnn", *command.split(), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning: ") == 1 and "1 atoms have the first letter of their names" in done.stderr


DAMAGES = {
    "half": lambda data: data[: len(data) // 2],
    "garbage": lambda data: bytes(range(128, 256)),
    "empty": lambda _: b"",
}
RESUME = "simulate argon --out broken --steps 20 --stride 5 --equilibration 0 --threads 1 --quiet"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("run/run.json", RESUME),
        ("run/log.csv", "compare broken run"),
        ("run/trajectory.dcd", RESUME),
        ("run/checkpoint", RESUME),
        ("run/topology.pdb", "compare broken run"),
        ("features/t/meta.json", "tail broken"),
        ("features/t/frames.npy", "export-features broken --out new"),
    ],
)
def test_a_damaged_file_is_named(
    file: str,
    command: str,
    damage: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    kind, name = file.split("/", 1)
    shutil.copytree(kind, "broken")
    try:
        broken = Path("broken", name)
        broken.write_bytes(DAMAGES[damage](broken.read_bytes()))
        code = cli.main(command.split())
        said = capsys.readouterr().err
        if code == 0:  # half a log has whole rows, which are compared
            assert (file, damage) == ("run/log.csv", "half")
        else:
            assert code == 1 and said.startswith("Error: broken"), said
    finally:
        shutil.rmtree("broken")
