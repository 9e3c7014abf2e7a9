"""Property heads: against linear problems with an exact answer, amber14's charges, and their own symmetries."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_peptides import write_labelled_peptides
from small_encoders import small_encoder

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.codec import spec_from_json, spec_to_json
from openmm_gnn.base.specs.encoder import PropertySpec, Readout, Target
from openmm_gnn.learning.properties.properties import train_property
from openmm_gnn.learning.properties.property_labels import MoleculeFrame, read_labels
from openmm_gnn.learning.properties.property_sets import (
    PropertyFrames,
    fit_elements,
    hold_out,
    predict,
    property_spec,
    seen,
)
from openmm_gnn.learning.settings import LearnedProperty, PropertySettings
from openmm_gnn.learning.training.frames import random_rotation
from openmm_gnn.networks.encoders.property_model import PropertyModel
from openmm_gnn.networks.weights import ENCODERS, load_encoder, load_property_model, path_of, save_network

PER_ELEMENT = {6: -1000.5, 7: -1400.25, 8: -2000.125}
"""kJ/mol: what the elements of a linear problem are worth."""
SEQUENCES = ("A", "G", "S", "T", "N", "V")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def frames_of_elements(count: int = 12, seed: int = 0) -> list[MoleculeFrame]:
    """Molecules of 3 to 8 atoms, at random places and of random elements, without labels."""
    generator = np.random.default_rng(seed)
    frames = []
    for number in range(count):
        numbers = generator.choice(list(PER_ELEMENT), size=generator.integers(3, 9)).astype(np.int64)
        grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)[: len(numbers)] * 0.15
        positions = grid + generator.normal(scale=0.02, size=(len(numbers), 3))
        frames.append(MoleculeFrame(f"frame {number}", f"molecule {number}", numbers, positions))
    return frames


def labelled(frames: list[MoleculeFrame], target: Target, readout: Readout) -> list[MoleculeFrame]:
    """With labels that the elements alone decide."""
    made = []
    for frame in frames:
        values = np.array([PER_ELEMENT[int(number)] for number in frame.atomic_numbers])
        label = values if target is Target.ATOM else values.sum() if readout is Readout.SUM else values.mean()
        made.append(dataclasses.replace(frame, label=np.asarray(label)))
    return made


def model_of(frames: list[MoleculeFrame], target: Target, readout: Readout = Readout.SUM) -> PropertyModel:
    """Its elements fitted, its head as random as a trained one's."""
    torch.manual_seed(1)
    spec = property_spec(small_encoder().spec, frames, LearnedProperty("something", target, readout))
    model = PropertyModel(spec)
    model.encoder.load_state_dict({k: v for k, v in small_encoder().state_dict().items() if "noise_head" not in k})
    fit_elements(model, PropertyFrames(frames, spec))
    return model.requires_grad_(False).eval()


def randomised(model: PropertyModel) -> PropertyModel:
    for weight in model.head.parameters():
        torch.nn.init.normal_(weight, 0.0, 0.5)
    return model


@pytest.mark.parametrize(
    ("target", "readout"),
    [(Target.MOLECULE, Readout.SUM), (Target.MOLECULE, Readout.MEAN), (Target.ATOM, Readout.SUM)],
)
def test_a_linear_problem_is_solved_exactly_before_any_training(target: Target, readout: Readout) -> None:
    model = model_of(labelled(frames_of_elements(), target, readout), target, readout)
    for number, worth in PER_ELEMENT.items():
        assert float(model.offsets[number]) == pytest.approx(worth, rel=1e-10)
    unseen = labelled(frames_of_elements(5, seed=9), target, readout)
    for found, frame in zip(predict(model, unseen, batch_size=2), unseen, strict=True):
        np.testing.assert_allclose(found, frame.label, rtol=1e-9)


@pytest.mark.parametrize("target", list(Target))
def test_predictions_know_neither_place_nor_company_and_vectors_turn(target: Target) -> None:
    frames = frames_of_elements(4)
    generator = np.random.default_rng(2)
    labels = {Target.MOLECULE: lambda n: generator.normal(), Target.VECTOR: lambda n: generator.normal(size=3),
              Target.ATOM: lambda n: generator.normal(size=n)}  # fmt: skip
    frames = [dataclasses.replace(f, label=np.asarray(labels[target](len(f.atomic_numbers)))) for f in frames]
    model = randomised(model_of(frames, target))
    rotation = random_rotation(generator)
    turned = [dataclasses.replace(frame, positions=frame.positions @ rotation.T + 30.0) for frame in frames]
    together, alone = predict(model, frames), [predict(model, [frame])[0] for frame in turned]
    size = max(np.abs(values).max() for values in together)
    for found, expected in zip(alone, together, strict=True):
        wanted = expected @ rotation.T if target is Target.VECTOR else expected
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * size)
    assert np.std(np.concatenate([np.atleast_1d(values) for values in together])) > 1e-3


def test_a_mean_does_not_grow_with_copies_of_a_molecule_and_a_sum_does() -> None:
    frames = labelled(frames_of_elements(6), Target.MOLECULE, Readout.SUM)
    for readout, factor in ((Readout.SUM, 2.0), (Readout.MEAN, 1.0)):
        model = randomised(model_of(frames, Target.MOLECULE, readout))
        model.scale.fill_(3.0)
        one = frames[0]
        two = dataclasses.replace(
            one,
            atomic_numbers=np.tile(one.atomic_numbers, 2),
            positions=np.concatenate([one.positions, one.positions + 5.0]),
        )
        single, double = predict(model, [one, two])
        assert float(double) == pytest.approx(factor * float(single), rel=1e-5)


@pytest.fixture(scope="module")
def peptides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_peptides(tmp_path_factory.mktemp("labels") / "peptides.xyz", SEQUENCES, 3)


def test_charges_of_amber14_are_learned_by_the_shipped_encoder_and_predicted_for_peptides_held_out(
    peptides: Path, tmp_path: Path
) -> None:
    encoder = load_encoder("peptide-et")
    wanted = LearnedProperty("bonded_charges", Target.ATOM, unit="e", group_key="sequence")
    frames = read_labels(peptides, wanted)
    sets = hold_out(frames, 3)
    assert {frame.group for frame in sets.validation} == {"S", "V"}
    spec = property_spec(encoder.spec, frames, wanted)
    assert spec.elements == (6, 7, 8) and not spec.hydrogens
    settings = PropertySettings(
        num_steps=60, batch_size=4, learning_rate=1e-2, warmup_steps=5, freeze_encoder=True, validate_every=30
    )
    bundle = train_property(spec, sets, settings, tmp_path, encoder, progress=False)
    model = load_property_model(bundle)
    labels = np.concatenate([seen(frame, False, Target.ATOM).label for frame in sets.validation])  # type: ignore[misc]
    found = np.concatenate(predict(model, sets.validation))
    error = float(np.abs(found - labels).mean())
    assert error == pytest.approx(model.spec.metadata["validation"]["validation_mae"], rel=1e-4)
    assert error < 0.4 * model.spec.metadata["validation"]["elements_mae"]
    for name, weight in encoder.state_dict().items():
        if not name.startswith("noise_head"):
            assert torch.equal(model.encoder.state_dict()[name], weight), name


def test_fine_tuning_changes_the_encoder_and_a_killed_run_goes_on(peptides: Path, tmp_path: Path) -> None:
    encoder = small_encoder()
    wanted = LearnedProperty("solvation", group_key="sequence", hydrogens=True, new_elements=True)
    frames = read_labels(peptides, wanted)
    spec = property_spec(encoder.spec, frames, wanted)
    assert spec.elements == (1, 6, 7, 8) and spec.encoder.elements == (1, 6, 7, 8)
    sets = hold_out(frames, 3)
    for steps in (2, 4):
        settings = PropertySettings(
            freeze_encoder=False, num_steps=steps, batch_size=4, warmup_steps=1, validate_every=2
        )
        bundle = train_property(spec, sets, settings, tmp_path, encoder, progress=False)
    assert [row.split(",")[0] for row in (tmp_path / "log.csv").read_text().splitlines()] == ["step", "2", "4"]
    tuned = load_property_model(bundle).encoder.state_dict()
    assert not torch.equal(tuned["network.norm.weight"], encoder.state_dict()["network.norm.weight"])
    other = dataclasses.replace(spec, head_width=4)
    with pytest.raises(DataError, match="another property model"):
        train_property(other, sets, PropertySettings(num_steps=6, validate_every=2), tmp_path, encoder, progress=False)


def test_an_element_that_was_not_among_the_labels_is_named() -> None:
    model = model_of(labelled(frames_of_elements(), Target.MOLECULE, Readout.SUM), Target.MOLECULE)
    stranger = dataclasses.replace(frames_of_elements(1)[0], name="chloride", atomic_numbers=np.array([6, 6, 17]))
    stranger = dataclasses.replace(stranger, positions=stranger.positions[:3])
    with pytest.raises(DataError, match="chloride has 1 atoms of unknown elements, the first is atom 2"):
        predict(model, [stranger])
    with pytest.raises(DataError, match="the encoder knows.*--new-elements"):
        property_spec(small_encoder().spec, [stranger], LearnedProperty("something"))


def test_a_molecule_is_on_one_side_of_the_split_alone() -> None:
    frames = [dataclasses.replace(frame, group=f"{k % 5}") for k, frame in enumerate(frames_of_elements(20))]
    sets = hold_out(frames, 5)
    assert {frame.group for frame in sets.validation} == {"4"}
    assert len(sets.training) == 16 and len(sets.validation) == 4
    with pytest.raises(DataError, match="--by-frame"):
        hold_out([dataclasses.replace(frame, group="one") for frame in frames], 5)
    assert len(hold_out([dataclasses.replace(f, group="one") for f in frames], 5, by_frame=True).validation) == 4


def test_a_bundle_holds_encoder_head_and_what_the_elements_say(tmp_path: Path) -> None:
    frames = labelled(frames_of_elements(), Target.MOLECULE, Readout.SUM)
    model = randomised(model_of(frames, Target.MOLECULE))
    loaded = load_property_model(save_network(model, tmp_path / "model.safetensors", {"from": "a test"}))
    assert loaded.spec == model.spec == spec_from_json(spec_to_json(model.spec), PropertySpec)
    assert loaded.spec.metadata == {"from": "a test"}
    np.testing.assert_array_equal(predict(loaded, frames), predict(model, frames))
    with pytest.raises(DataError, match="holds no property model"):
        load_property_model(path_of(ENCODERS, "peptide-et"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elements": ()}, "at least one"),
        ({"elements": (6, 99)}, "max_atomic_number"),
        ({"elements": (1, 6)}, "hydrogens is False"),
        ({"name": ""}, "name is empty"),
        ({"head_layers": 0}, "head_layers is 0"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    spec = property_spec(small_encoder().spec, frames_of_elements(), LearnedProperty("something"))
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(spec, **changes)  # type: ignore[arg-type]
