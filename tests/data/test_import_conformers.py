"""OrbNet Denali and PCQM4Mv2, in small files of their layout: streamed, resumed, bad molecules named."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from command_lines import invoke
from rdkit import Chem
from rdkit.Chem import AllChem

from openmm_gnn.base.errors import DataError
from openmm_gnn.data.conformers import published_sets as importing
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.data.conformers.published_sets import PublishedSet, import_conformers, records_of

DENALI, PCQM = PublishedSet.ORBNET_DENALI, PublishedSet.PCQM4MV2
SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CN", "O=C=O"]


def xyz(symbols: str, positions: np.ndarray, comment: str = "0 1") -> str:
    rows = [f"{symbol} {x:.6f} {y:.6f} {z:.6f}" for symbol, (x, y, z) in zip(symbols, positions, strict=True)]
    return "\n".join([str(len(rows)), comment, *rows]) + "\n"


def water(number: int) -> np.ndarray:
    return np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]) + 0.01 * number


@pytest.fixture
def denali(tmp_path: Path) -> Path:
    """xyz_files/<mol_id>/<sample_id>.xyz."""
    root = tmp_path / "denali"
    for k, compound in enumerate(("CHEMBL10_0", "CHEMBL10_1", "CHEMBL7_0")):
        folder = root / "xyz_files" / compound
        folder.mkdir(parents=True)
        for sample in range(k + 1):
            (folder / f"{compound}_s{sample}.xyz").write_text(xyz("OHH", water(10 * k + sample)))
    return root


def packed(folder: Path, out: Path) -> Path:
    with tarfile.open(out, "w:gz") as archive:
        for entry in sorted(folder.iterdir()):
            archive.add(entry, entry.name)
    return out


def sdf(path: Path, *more: str) -> Path:
    with open(path, "w") as file:
        for smiles in SMILES:
            molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
            AllChem.EmbedMolecule(molecule, randomSeed=1)
            file.write(Chem.MolToMolBlock(molecule) + "$$$$\n")
        file.writelines(text + "$$$$\n" for text in more)
    return path


@pytest.mark.parametrize("as_archive", [False, True])
def test_denali_is_read_from_its_folder_and_its_archive(denali: Path, tmp_path: Path, as_archive: bool) -> None:
    source = packed(denali, tmp_path / "orbnet_denali.tar.gz") if as_archive else denali
    result = invoke(["import-conformers", "orbnet-denali", str(source), "--out", str(tmp_path / "out"), "--quiet"])
    assert result.exit_code == 0, result.output
    assert "6 frames of 3 molecules" in result.output
    data = Conformations.open(tmp_path / "out").verify()
    assert [(m.name, m.num_frames) for m in data.molecules] == [("CHEMBL10_0", 1), ("CHEMBL10_1", 2), ("CHEMBL7_0", 3)]
    assert [m.sequence for m in data.molecules] == ["CHEMBL10", "CHEMBL10", "CHEMBL7"]
    assert data.molecules[2].atomic_numbers.tolist() == [8, 1, 1]
    expected = np.stack([water(20 + sample) for sample in range(3)]) / 10
    np.testing.assert_allclose(data.molecules[2].positions, expected, atol=1e-6)
    assert data.meta["left_out"] == {}


@pytest.mark.parametrize("as_archive", [False, True])
def test_pcqm_is_read_from_the_sdf_and_its_archive(tmp_path: Path, as_archive: bool) -> None:
    source = sdf(tmp_path / "pcqm4m-v2-train.sdf")
    if as_archive:
        with tarfile.open(tmp_path / "pcqm4m-v2-train.sdf.tar.gz", "w:gz") as archive:
            archive.add(source, source.name)
        source = tmp_path / "pcqm4m-v2-train.sdf.tar.gz"
    data = import_conformers(PCQM, source, tmp_path / "out", progress=False, molecules_per_shard=2).verify()
    assert [molecule.sequence for molecule in data.molecules] == SMILES
    assert len(data.molecules.shards) == 3
    supplier = Chem.SDMolSupplier(str(tmp_path / "pcqm4m-v2-train.sdf"), removeHs=False)
    for read, molecule in zip(data.molecules, supplier, strict=True):
        assert read.atomic_numbers.tolist() == [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
        np.testing.assert_allclose(read.positions[0], molecule.GetConformer().GetPositions() / 10, atol=1e-6)
        assert np.isnan(read.temperatures).all()
    few = import_conformers(PCQM, source, tmp_path / "few", limit=3, progress=False)
    assert [molecule.sequence for molecule in few.molecules] == SMILES[:3]


def test_an_import_that_was_ended_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = "\n  broken\n\n  garbage\n"
    source = sdf(tmp_path / "train.sdf", bad)
    whole = import_conformers(PCQM, source, tmp_path / "whole", skip_bad=True, progress=False, molecules_per_shard=2)
    read = []

    def stop(kind: PublishedSet, record: object) -> object:
        read.append(record)
        if len(read) > 3:
            raise KeyboardInterrupt
        return original(kind, record)  # type: ignore[arg-type]

    original = importing.conformers_of
    monkeypatch.setattr(importing, "conformers_of", stop)
    again = {"skip_bad": True, "progress": False, "molecules_per_shard": 2}
    with pytest.raises(KeyboardInterrupt):
        import_conformers(PCQM, source, tmp_path / "out", **again)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="give the same `openmm-gnn import-conformers` command again"):
        Conformations.open(tmp_path / "out")
    monkeypatch.undo()
    data = import_conformers(PCQM, source, tmp_path / "out", **again)  # type: ignore[arg-type]
    assert data.sha256 == whole.sha256 and data.meta["skipped"] == whole.meta["skipped"]
    assert data.meta["skipped"]["count"] == 1 and "record 5 cannot be read" in data.meta["skipped"]["examples"][0]
    # A shard that is deleted comes back.
    shutil.rmtree(data.molecules[2].shard.path)
    assert import_conformers(PCQM, source, tmp_path / "out", **again).sha256 == whole.sha256  # type: ignore[arg-type]
    with pytest.raises(DataError, match="was made with limit = None, now it is 2"):
        import_conformers(PCQM, source, tmp_path / "out", limit=2, **again)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            xyz("OHQ", water(0)),
            r"CHEMBL7_0_s1.xyz cannot be read: 'Q' is no element; mend it, or leave",
        ),
        (
            xyz("OHH", water(0) * np.nan),
            "CHEMBL7_0_s0.xyz: CHEMBL7_0 has positions that are not finite: nan for x",
        ),
        ("3\n0 1\nO 0 0 0\n", "CHEMBL7_0_s1.xyz cannot be read: 3 atoms are announced, 1 are there"),
        ("", "CHEMBL7_0_s1.xyz has other atoms than .*CHEMBL7_0_s0.xyz"),
        ("O 0 0 0\n", "CHEMBL7_0_s1.xyz cannot be read: invalid literal"),
        (xyz("OHF", water(0)), "CHEMBL7_0_s1.xyz has other atoms than .*CHEMBL7_0_s0.xyz"),
    ],
)
def test_bad_molecules_are_named_and_skipped_when_asked(denali: Path, tmp_path: Path, text: str, message: str) -> None:
    (denali / "xyz_files" / "CHEMBL7_0" / "CHEMBL7_0_s1.xyz").write_text(text)
    with pytest.raises(DataError, match=message):
        import_conformers(DENALI, denali, tmp_path / "strict", progress=False)
    data = import_conformers(DENALI, denali, tmp_path / "out", skip_bad=True, progress=False)
    assert [molecule.name for molecule in data.molecules] == ["CHEMBL10_0", "CHEMBL10_1"]
    assert data.meta["skipped"]["count"] == 1


def test_an_empty_molecule_is_named(denali: Path, tmp_path: Path) -> None:
    (denali / "xyz_files" / "CHEMBL10_0" / "CHEMBL10_0_s0.xyz").write_text("0\n\n")
    with pytest.raises(DataError, match="CHEMBL10_0_s0.xyz: CHEMBL10_0 is empty: it has 0 atoms and 1 frames; mend it"):
        import_conformers(DENALI, denali, tmp_path / "out", progress=False)


def test_files_of_another_layout_are_said(denali: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        list(records_of(PCQM, tmp_path / "nowhere.sdf"))
    with pytest.raises(DataError, match=r"holds no xyz_files/<mol_id>/<sample_id>.xyz"):
        list(records_of(DENALI, tmp_path / "denali" / "xyz_files"))
    archive = packed(denali, tmp_path / "d.tar.gz")
    with pytest.raises(DataError, match=r"holds no .sdf"):
        list(records_of(PCQM, archive))
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match="cut.tar.gz cannot be read on .*: download it again"):
        list(records_of(DENALI, cut))
    (tmp_path / "text.tar.gz").write_text("no archive")
    with pytest.raises(DataError, match="cannot be read on"):
        list(records_of(DENALI, tmp_path / "text.tar.gz"))


def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    """Records come out before the end of an archive is reached: it breaks off behind the first of them."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for k in range(400):
            data = xyz("OHH", water(k)).encode()
            member = tarfile.TarInfo(f"xyz_files/CHEMBL{k}/s.xyz")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    path = tmp_path / "part.tar.gz"
    path.write_bytes(content.getvalue()[: len(content.getvalue()) // 2])
    records = records_of(DENALI, path)
    assert [next(records).name for _ in range(100)] == [f"CHEMBL{k}" for k in range(100)]
    with pytest.raises(DataError, match="cannot be read on"):
        list(records)
