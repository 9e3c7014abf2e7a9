"""The demo in a short form: real network code, small weights of no training, few steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_lines import invoke
from untrained_networks import untrained

from openmm_gnn.analysis import demo
from openmm_gnn.networks.weights import save_network
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.runs.directory import RunDirectory


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("STRIDE", 10),
        ("REFERENCE_STEPS", 600),
        ("REFERENCE_EQUILIBRATION_PS", 0.1),
        ("NETWORK_EQUILIBRATION_PS", 0.04),
        ("PROBE_STEPS", 100),
        ("FEWEST_STEPS", 500),
    ):
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(demo, "FRAMES", 5)
    monkeypatch.setattr(demo, "LENGTHS_PS", dict.fromkeys(demo.LENGTHS_PS, 0.2))


def weights(path: Path) -> Path:
    """An untrained network whose forces are far too small to tear argon apart."""
    return save_network(untrained(force_scale=1e-3), path / "untrained.safetensors")


@pytest.mark.slow
def test_demo_writes_figures_and_runs_and_goes_on_where_it_was_interrupted(tmp_path: Path, short: None) -> None:
    out = tmp_path / "demo-output"
    command = ["demo", "--out", str(out), "--minutes", "0", "--model", str(weights(tmp_path))]
    (out / "untouched").mkdir(parents=True)
    reference, kept = RunDirectory(out / "lennard-jones"), []
    for _ in range(2):
        result = invoke(command)
        assert result.exit_code == 0, (result.output, result.exception)
        assert "What you see: 258 argon atoms moved for 1 ps" in " ".join(result.output.split())
        assert (out / "argon.png").stat().st_size > 50_000
        assert RunDirectory(out / "untrained").settings().steps == 500
        assert len(reference.read_log()) == 60
        assert (out / "untouched").is_dir()
        assert (out / "features.png").stat().st_size > 30_000
        for name, num_tokens in (("alanine-dipeptide", 3), ("chignolin", 10)):
            store = EmbeddingStore.open(out / name / "features")
            assert store.embeddings.shape[:3] == (5, num_tokens, 4)
            assert list(store.steps) == [10, 20, 30, 40, 50] and len(store.verify()) == 0
        kept.append((reference.trajectory.stat().st_mtime_ns, reference.trajectory.read_bytes()))
        (out / "argon.png").unlink()
    assert kept[0][1] == kept[1][1]
