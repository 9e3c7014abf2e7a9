"""The JSON form of every specification: its kind, the version of the layout, and its fields.

The form is written with the weights into bundles, and into exported modules and stores: it stays as it is.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any, TypeVar

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec, PropertySpec
from openmm_gnn.base.specs.force import FORCE_SPECS
from openmm_gnn.base.specs.tokens import CVNetworkSpec

Spec = TypeVar("Spec")
SPEC_VERSION = 1
SPECS: dict[str, type[Any]] = {made.kind: made for made in (*FORCE_SPECS, EncoderSpec, CVNetworkSpec, PropertySpec)}
"""The class of each kind of specification."""
OWNERS = {
    **{made.kind: "a force model's: load it with load_model" for made in FORCE_SPECS},
    "encoder": "an encoder's, which has no forces: load it with load_encoder",
    "cv-network": "a CV network's: load it with load_cv_network",
    "property": "a property model's: load it with load_property_model",
    "learned-cv": "a learned CV's: load it with load_learned_cv",
}
"""Whose specification each kind is, for errors."""


def spec_to_json(spec: Any) -> str:
    """The JSON form of a specification."""
    return json.dumps({"kind": spec.kind, "version": SPEC_VERSION, "spec": dataclasses.asdict(spec)}, sort_keys=True)


def spec_from_json(text: str, *expected: type[Spec]) -> Spec:
    """The specification written by `spec_to_json`.

    Args:
        text: JSON.
        expected: classes, one of which it must be; none: any.
    Raises:
        SpecError: if the text is no JSON, of another kind or version, or has unknown or missing fields.
    """
    kinds = [kind for kind, made in SPECS.items() if made in expected or not expected]
    document = read_document(text, kinds)
    try:
        return _made(SPECS[document["kind"]], document["spec"])
    except (TypeError, KeyError, AttributeError) as error:
        raise SpecError(f"the specification has unknown or missing fields: {error}") from error


def read_document(text: str, kinds: list[str]) -> dict[str, Any]:
    """A JSON object of one of these kinds and of this version.

    Raises:
        SpecError: if the text is anything else.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"the specification is not JSON ({error}): the file is damaged or not ours") from error
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind not in kinds:
        wanted = f"expected the kind {kinds[0]!r}" if len(kinds) == 1 else f"expected a kind among {sorted(kinds)}"
        found = f"is {OWNERS[kind]}" if kind in OWNERS else f"starts with {text[:60]!r}"
        raise SpecError(f"the specification {found}; {wanted}")
    if document.get("version") != SPEC_VERSION:
        raise SpecError(
            f"the specification has version {document.get('version')}, this package reads {SPEC_VERSION}: "
            "install the release of openmm_gnn that wrote it"
        )
    return document


def _made(kind: type[Any], fields: dict[str, Any]) -> Any:
    """A specification from its fields, some of which are specifications themselves."""
    types = typing.get_type_hints(kind)
    nested = {name: _made(types[name], x) for name, x in fields.items() if dataclasses.is_dataclass(types.get(name))}
    return kind(**{**getattr(kind, "unwritten", {}), **fields, **nested})
