"""Options in a file, results for programs, silence, and completion: the same in every command."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import invoke

from openmm_gnn import cli
from openmm_gnn.cli.options import Command, UsageError, options_of, parse
from openmm_gnn.cli.settings_file import FILE, keep_settings, read_settings, texts_of, with_file


def read(line: str) -> Command:
    """The command of a line, as `cli.run` reads it."""
    name, *arguments = shlex.split(line)
    settings = read_settings(arguments)
    kind = cli.command_of(name, [*texts_of(settings), *arguments])
    return parse(name, kind, with_file(kind, settings, arguments))


def values(command: Command) -> dict[str, Any]:
    """What a command was given, but for the file of settings."""
    return {one.name: one.value(command) for one in options_of(type(command)) if one.name != "config"}


LINES = [
    "train argon neon --out {out} --network vector --no-bonds --conservative --train-seeds 1-3,7 --cutoff 0.6",
    "analyze runs --out {out} --lag 20 --lags 2,5.5 --validation a --validation b --method spib --quick",
    "simulate x.pdb --out {out} --force-field a.xml b.xml --accelerate --model net --expensive 1 --bias-outputs 0,1",
    "label argon --out {out} --temperatures 90,100 --seeds 1-4 --geometries a.dcd --minimize --processes 2",
    "conformers --kind molecules --out {out} --smiles a.smi --time-step 0.5 --skip-bad",
    "pretrain peptides --out {out} --noise 0.2,0.1 --cutoff 0.5 --precision bf16-mixed --no-smooth --threads 2",
    "scan-steps water --model net --out {out} --outer 4,6 --neighbors=-3,3 --no-reference",
    "validate net --out {out} --sizes none",
]


@pytest.mark.parametrize("line", LINES)
def test_the_settings_that_a_command_leaves_repeat_it(line: str, tmp_path: Path) -> None:
    command = read(line.format(out=tmp_path))
    name = line.split()[0]
    keep_settings(name, command)
    assert (tmp_path / FILE).read_text().startswith(f"# openmm-gnn {name} --config {tmp_path / FILE}\n")
    assert values(read(f"{name} --config {tmp_path / FILE}")) == values(command)


def test_a_file_is_written_as_a_user_would(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(
        "data: [argon, neon]\nout: net\nnetwork: vector\nbonds: no\ntrain_seeds: 1-3,7\ncutoff: 6e-1\nlearning-rate:\n"
    )
    line = "train argon neon --out net --network vector --no-bonds --train-seeds 1-3,7 --cutoff 0.6"
    assert values(read(f"train --config {tmp_path / 'my.yaml'}")) == values(read(line))


def test_the_command_line_takes_precedence_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("runs: [a, b]\nout: slow\nlag: 20\nvalidation: [c, d]\nquick: true\nmethod: tica\n")
    given = read(f"analyze e --config {file} --validation f --lag=5")
    assert values(given) == values(read("analyze e --out slow --validation f --lag 5 --quick --method tica"))
    file.write_text("model: net\ndata: argon\nseeds: 3\n")
    assert values(read(f"evaluate --config {file} other")) == values(read("evaluate other argon --seeds 3"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strides: 5", "has strides, which is no option: the nearest name is stride"),
        ("Cutoff: 5", "the nearest name is nonbonded-cutoff"),
        ("- 5", "holds no options: give lines such as `steps: 1000`"),
        ("steps: [5", "is no YAML"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read(f"simulate argon --config {tmp_path / 'my.yaml'}")


def test_a_value_in_a_file_is_checked_as_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("system: argon\nout: run\ntime-step: 0.002\n")
    with pytest.raises(UsageError, match=r"--time-step 0.002: it is in fs: give 0.05 to 50"):
        read(f"simulate --config {tmp_path / 'my.yaml'}")


def test_a_pattern_of_folders_is_replaced_where_no_shell_does_it(tmp_path: Path) -> None:
    for number in (2, 1):
        (tmp_path / f"seed-{number}").mkdir()
    (tmp_path / "my.yaml").write_text(f"runs: {tmp_path}/seed-*\nlag: 2\nout: slow\n")
    assert values(read(f"analyze --config {tmp_path / 'my.yaml'}"))["runs"] == (
        tmp_path / "seed-1",
        tmp_path / "seed-2",
    )
    with pytest.raises(UsageError, match=r"no file matches .*none-\*: mend the pattern"):
        read(f"analyze '{tmp_path}/none-*' --lag 2 --out slow")


def test_json_and_quiet_and_the_file_of_a_real_run(tmp_path: Path) -> None:
    out, file = tmp_path / "run", tmp_path / "run" / FILE
    line = f"simulate argon --out {out} --steps 4 --stride 2 --equilibration 0 --platform Reference"
    told = invoke([*line.split(), "--json"])
    assert json.loads(told.stdout)["frames"] == 2 and json.loads(told.stdout)["trajectory"] == str(
        out / "trajectory.dcd"
    )
    assert yaml.safe_load(file.read_text())["steps"] == 4
    file.rename(tmp_path / "my.yaml")
    again = f"simulate --config {tmp_path / 'my.yaml'} --out {tmp_path / 'again'} --steps 6 --quiet"
    quiet = invoke(again.split())
    assert quiet.stdout.startswith(f"3 frames in {tmp_path}/again/trajectory.dcd") and quiet.stdout.count("\n") == 1
    assert quiet.stderr == ""
    said = invoke([*again.replace("again", "third").split()[:-1]])
    assert said.stdout.endswith(f"Next: `openmm-gnn compare {tmp_path / 'third'} REFERENCE`\n")


def test_what_fails_leaves_no_settings(tmp_path: Path) -> None:
    failed = invoke(["simulate", "argon", "--out", str(tmp_path), "--model", "none", "--quiet"])
    assert failed.exit_code == 1 and not (tmp_path / FILE).exists()


def test_a_shell_completes_options_and_nothing_heavy_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom openmm_gnn import cli\n"
        "try:\n    cli.run(['--tyro-write-completion', 'bash', sys.argv[1]])\nfinally:\n"
        "    assert not {'torch', 'openmm', 'mdtraj'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "made"], check=True)
    ask = "COMP_WORDS=(openmm-gnn {}); COMP_CWORD={}; _tyro_openmm_gnn; echo ${{COMPREPLY[@]}}; "
    asked = ask.format("analyze --merged", 2) + ask.format("dist", 1) + ask.format("train --network v", 3)
    answer = subprocess.run(
        ["bash", "-c", f"source {tmp_path / 'made'}; {asked}"], capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines() == ["--merged-residues", "distill", "vector"]
