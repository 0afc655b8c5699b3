"""The model card: the README.md in a saved model's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protalign.residues.context import REACH

#: Residues of a protein of usual size: for figures that depend on the length.
_USUAL_LENGTH = 150
#: The part of the sequences that was cut in the training of residue heads that do not record it.
_CUT_BEFORE = 0.5


def model_card(config: Mapping[str, Any]) -> str:
    """Return the README.md of a saved model, in Markdown."""
    parameters, training = config["parameters"], config["training"]
    encoders = "\n".join(_encoder_line(*item) for item in config["encoders"].items())
    return f"""# A ProtAlign model

Two pooling heads turn per-residue embeddings of a protein's sequence and of its structure into
unit-length vectors of one {parameters["embed_dim"]}-dimensional space. A sequence lies near its
own structure.
Method: "ProtAlign: contrastive learning paradigm for sequence and structure alignment".

    from protalign import Model
    model = Model.load("this folder")
    vectors = model.vectors(store, "sequence")    # a store of the same two encoders

## Inputs

{encoders}

It reads embeddings of exactly these encoders and refuses others.

## Training

- pairs of sequence and structure: {training["n_pairs"]:,}, \
and {training["n_validation_pairs"]:,} more that chose the best epoch
- source: {training["source"] or "arrays in memory"}
- pooling: {parameters["pooling"]}
- loss: {parameters["loss"]}, temperature {training["temperature"]:.4g}{_optimiser(parameters)}
- epochs: {training["n_iter"]}, best {training["best_epoch"]}; \
last training loss {training["loss_curve"][-1]:.4f}
- {_validation_line(training)}
{_residue_section(config.get("residues"))}
## Limits

- Similar vectors mean that two proteins look alike to the encoders, not that they do the same.
  Members of one family, and mutants above all, are hardly separated.
- Figures on proteins that resemble the training proteins say little about others. Measure on a
  split by sequence identity; `protalign score` prints chance beside each figure.
- The pattern of residues missing from a structure can give its sequence away.

## Licence

The heads hold no protein. A calibrated residue stage keeps what its scores know of the residues of
up to 200 training proteins, the background that E-values are measured against. Before you pass the
model on, read the terms of the proteins that it was trained on and of the encoders' weights.

Written by ProtAlign {config["protalign_version"]}; weights SHA-256 in config.json.
"""


def _optimiser(parameters: Mapping[str, Any]) -> str:
    if "batch_size" not in parameters:  # not trained by the estimator
        return ""
    return f"; batch {parameters['batch_size']}, Adam, learning rate {parameters['learning_rate']}"


def _encoder_line(modality: str, encoder: Mapping[str, Any]) -> str:
    if "model" not in encoder:
        return f"- {modality}: (L, {encoder['dim']}) embeddings; their encoder is not recorded"
    settings = ", ".join(f"{key} {value}" for key, value in encoder["settings"].items())
    return (
        f"- {modality}: (L, {encoder['dim']}) embeddings of {encoder['model']} ({settings}), "
        f"weights SHA-256 {encoder['weights_sha256']}"
    )


def _nats(calibration: Mapping[str, float]) -> float:
    """Return the scale of chance's scores for two proteins of the usual length."""
    spread: float = _USUAL_LENGTH ** (2 * calibration.get("length_power", 0))
    return calibration["scale"] * spread


def _residue_section(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return """
## Residue stage

None: the residues of the training proteins were unpaired or too few.
"""
    calibration = facts["calibration"]
    chance = (
        "not calibrated, so alignments have no E-value"
        if calibration is None
        else f"calibrated on {calibration['n_pairs']:,} pairs of different training proteins; "
        f"chance falls by a factor of e in {_nats(calibration):.3g} nats of a local score of two "
        f"proteins of {_USUAL_LENGTH} residues"
    )
    return f"""
## Residue stage

Log-likelihood ratios of a sequence's residue and a structure's residue, to align the two and to
order hits (`protalign align`, `protalign search --rerank`).

- canonical correlation analysis, {facts["components"]} components, of \
{facts["n_residues"]:,} paired residues of the training proteins{_limit(facts.get("largest"))}
- {chance}
- {_context_line(facts.get("context"))}
- {_head_line(facts.get("head"))}
"""


def _limit(largest: float | None) -> str:
    if largest is None:
        return ""
    return f"; a residue's coordinates have a root mean square of at most {largest:g}"


def _context_line(context: Mapping[str, Any] | None) -> str:
    if context is None:
        return "no context: in the local mode each residue counts by itself"
    return (
        "a context, which makes the rows of the local mode: a network that reads "
        f"{REACH} residues of a sequence on each side, trained on {context['residues']:,} residues "
        f"of {context['pairs']:,} pairs; {context['error']:.0%} of the structures' coordinates are "
        f"unexplained for held-out sequences, {context['without']:.0%} by the correlations alone"
    )


def _head_line(head: Mapping[str, Any] | None) -> str:
    if head is None:
        return "no head trained on hard negatives: the global mode uses the correlations' rows"
    line = (
        f"a head trained on hard negatives ({head['pairs']:,} pairs and their look-alikes, "
        f"{head.get('cut', _CUT_BEFORE):.0%} of the sequences cut at the ends, "
        f"epoch {head['epochs']} kept) makes the rows of the "
        "global mode"
    )
    if head["best"] is None:
        return line
    return (
        f"{line}; a sequence's own structure among its look-alikes of the validation pairs: mean "
        f"reciprocal rank {head['best']:.4f}, without the head {head['without']:.4f}"
    )


def _validation_line(training: Mapping[str, Any]) -> str:
    if not training["validation_curve"]:
        return "no validation pairs: no figure says how well it does on other proteins"
    best = max(training["validation_curve"])
    return (
        f"validation: mean reciprocal rank {best:.4f}, sequence -> structure, among "
        f"{training['n_validation_pairs']:,} pairs ({training['validation']})"
    )
