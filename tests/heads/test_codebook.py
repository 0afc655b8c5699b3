"""Codebook pooling: its definition, its words, what it learns, and what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.errors import InputError, ModelError
from protalign.core.protein import MODALITIES
from protalign.core.ragged import Ragged
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads import codebook
from protalign.heads.codebook import CodebookHead
from protalign.heads.inputs import PairInputs
from protalign.heads.kernels.packed import PackedBatch
from protalign.heads.losses import ContrastiveLoss
from protalign.heads.model import Model
from protalign.heads.model_files import write_model
from protalign.heads.pairs import Pairs
from protalign.heads.seeded import seeded
from protalign.heads.summaries import Summaries
from protalign.stores import EmbeddingStore

DIM = 24


@pytest.fixture(scope="module")
def head() -> CodebookHead:
    """A head with random parameters, as it is before it is initialised."""
    with seeded(0):
        return CodebookHead(DIM, 16)


@pytest.fixture(scope="module")
def model(store: EmbeddingStore) -> ProtAlignEstimator:
    """A model fitted on every second entry of the sample. Only to be used."""
    return estimator().fit(store[::2])


def estimator(**parameters: object) -> ProtAlignEstimator:
    """An estimator of few epochs."""
    defaults = {"pooling": "codebook", "max_epochs": 3, "random_state": 0, "device": "cpu"}
    return ProtAlignEstimator(**{**defaults, **parameters})


def packed(arrays: list[np.ndarray]) -> PackedBatch:
    """Proteins' rows, packed."""
    return PackedBatch.from_ragged(Ragged.pack(arrays))


def proteins(seed: int, lengths: list[int], dtype: type = np.float32) -> list[np.ndarray]:
    """Random rows."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(length, DIM)).astype(dtype) for length in lengths]


def related(seed: int, lengths: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of both modalities' rows, 8 and 5 wide: two views of the same 4 hidden numbers."""
    rng = np.random.default_rng(seed)
    to_sequence, to_structure = rng.normal(size=(4, 8)), rng.normal(size=(4, 5))
    hidden = [rng.normal(size=(length, 4)) + rng.normal(size=4) for length in lengths]
    return [(each @ to_sequence, each @ to_structure) for each in hidden]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_frequencies_are_their_definition(
    head: CodebookHead, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each residue and its neighbourhood are shared among the words, and a protein is the mean."""
    monkeypatch.setattr(codebook, "_ROWS_AT_ONCE", 7)  # longer proteins are read in parts
    arrays = proteins(1, [1, 3, 20], dtype)
    for frequencies, rows in zip(head.frequencies(packed(arrays)), arrays, strict=True):
        centred = rows.astype(np.float64) - head.mean.double().numpy()
        residues = centred @ head.projection.double().numpy()
        beside = [residues[max(0, i - 3) : i + 4].mean(axis=0) for i in range(len(residues))]
        total = []
        for places, words in ((residues, head.words), (1.75 * np.array(beside), head.around)):
            distances = ((places[:, None] - words.double().numpy()) ** 2).sum(axis=2)
            distances -= distances.min(axis=1, keepdims=True)
            weights = np.exp(-codebook._SHARPNESS / 2 * distances)
            total.append((weights / weights.sum(axis=1, keepdims=True)).mean(axis=0))
        np.testing.assert_allclose(frequencies, np.concatenate(total), atol=2e-6)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 90), min_size=1, max_size=8))
def test_a_protein_s_vector_is_its_own(seed: int, lengths: list[int]) -> None:
    """Frequencies are the same to the last bit in every batch, vectors up to rounding; length 1."""
    with seeded(0):
        head = CodebookHead(DIM, 16)
    arrays = proteins(seed, lengths, np.float16)
    together = packed(arrays)
    with torch.no_grad():
        frequencies, vectors = head.frequencies(together), head(together)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(lengths)))
        for place, rows in enumerate(arrays):
            alone = packed([rows])
            assert torch.equal(head.frequencies(alone)[0], frequencies[place])
            torch.testing.assert_close(head(alone)[0], vectors[place], atol=1e-6, rtol=0)


def test_words_are_counted_wherever_they_occur(head: CodebookHead) -> None:
    """Read backwards a protein is the same; in another order its residues are, and no more."""
    (rows,) = proteins(2, [90])
    torch.testing.assert_close(head(packed([rows])), head(packed([rows[::-1].copy()])))
    [mixed] = head.frequencies(packed([np.random.default_rng(0).permutation(rows)]))
    [given] = head.frequencies(packed([rows]))
    torch.testing.assert_close(mixed[: codebook.WORDS], given[: codebook.WORDS])
    assert (mixed - given)[codebook.WORDS :].abs().max() > 1e-3


def test_summaries_stand_for_rows(head: CodebookHead) -> None:
    """A summary gives the rows' vector; without parts at its ends, that of the rows between.

    Neighbourhoods there still have residues of the parts left out.
    """
    arrays = proteins(3, [80, 8, 163])
    with torch.no_grad():
        summary = head.summary(packed(arrays))
        torch.testing.assert_close(
            head.of_summary(summary), head(packed(arrays)), atol=1e-3, rtol=0
        )
        summary[:, :2], summary[:, -1:] = 0, 0
        frequencies = []
        for rows in packed(arrays).proteins:
            kept = [torch.cat(each.tensor_split(8)[2:-1]) for each in head._places(rows)]
            counts = [codebook._counts(*kind) for kind in zip(kept, head._codes, strict=True)]
            frequencies.append(torch.cat(counts) / len(kept[0]))
        between = head._vectors(torch.stack(frequencies).sqrt())
        torch.testing.assert_close(head.of_summary(summary), between, atol=1e-3, rtol=0)
        nothing = head.of_summary(torch.zeros_like(summary))
        assert nothing.isfinite().all()


def test_training_begins_at_canonical_correlations() -> None:
    """Before training, coordinate i of one modality goes with coordinate i of the other alone."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(30, 6))
    roots = [
        (hidden @ rng.normal(size=(6, codebook.WORDS + codebook.AROUND))).astype(np.float32)
        for _ in range(2)
    ]
    heads = [CodebookHead(DIM, 8), CodebookHead(DIM, 8)]
    codebook._reduce(*heads, *roots)
    x, y = (
        head.reduction((torch.from_numpy(each) - head.root) @ head.whitening).detach().numpy()
        for head, each in zip(heads, roots, strict=True)
    )
    products = x.T @ y / len(x)
    np.testing.assert_allclose(products, np.diag(np.diagonal(products)), atol=1e-4)
    assert (np.diagonal(products)[:6] > 0.1).all()
    assert (np.diff(np.diagonal(products)[:6]) <= 0).all()


def test_whitened_roots_do_not_covary() -> None:
    """With more proteins than words and with fewer; the ridge holds their variances below 1."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(40, 40))
    for count in (30, 400):
        roots = (rng.normal(size=(count, 40)) @ mixed).astype(np.float32)
        components, scale, to_words = codebook._whitened(roots)
        assert components.shape == (count, min(count, 40))
        covariance = components.T @ components / count
        np.testing.assert_allclose(covariance, np.diag(np.diagonal(covariance)), atol=1e-4)
        assert (np.diagonal(covariance) < 1).all()
        assert (np.diff(scale) >= -1e-6).all()
        np.testing.assert_allclose(to_words @ to_words.T, np.eye(len(to_words)), atol=1e-4)


def test_a_finished_head_is_one_matrix() -> None:
    """Its vectors are those of before, and nothing of the whitening is kept."""
    rng = np.random.default_rng(0)
    roots = [
        rng.normal(size=(30, codebook.WORDS + codebook.AROUND)).astype(np.float32) for _ in range(2)
    ]
    heads = [CodebookHead(DIM, 8), CodebookHead(DIM, 8)]
    codebook._reduce(*heads, *roots)
    batch = packed(proteins(4, [40, 60, 9]))
    with torch.no_grad():
        before = heads[0](batch)
        heads[0].finish()
        torch.testing.assert_close(heads[0](batch), before, atol=1e-5, rtol=0)
        heads[0].finish()
        torch.testing.assert_close(heads[0](batch), before, atol=1e-5, rtol=0)
    assert heads[0].whitening is None
    assert set(heads[0].state_dict()) == {
        *("mean", "projection", "words", "around", "root", "reduction.weight", "reduction.bias")
    }


def test_summaries_that_do_not_fit_into_memory_are_taken_anew() -> None:
    """The losses of each batch, and the vectors, are those of summaries that are held."""
    pairs = Pairs.of(PairInputs(related(2, [30, 9, 50, 2, 41, 77])))
    with seeded(0):
        model = Model(pairs.inputs.dims, ContrastiveLoss(), pooling="codebook", embed_dim=16)
    held, not_held = Summaries(model, pairs), Summaries(model, pairs, memory=0)
    assert held.held
    assert not not_held.held
    batches = [np.array([4, 1, 3]), np.array([0, 2, 5])]
    losses = [
        [loss.item() for loss in each.losses(batches, np.random.default_rng(0))]
        for each in (held, not_held)
    ]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 2
    expected = held.retrieval_set()
    found = model.retrieval_set(pairs)
    np.testing.assert_allclose(found.structure, expected.structure, atol=1e-3)


def test_broken_embeddings_are_named() -> None:
    """Infinity among an entry's rows ends in one line that names the entry, before training."""
    arrays = related(7, [40] * 3)
    inputs = PairInputs(arrays)
    inputs._arrays["structure"][1][5, 2] = np.inf
    with pytest.raises(InputError, match="structure embeddings of entry 1 hold NaN"):
        estimator().fit(inputs)


def test_it_comes_back_from_a_file(
    model: ProtAlignEstimator, store: EmbeddingStore, tmp_path: Path
) -> None:
    """Words and layers are saved; vectors of loaded models are the same to the bit."""
    model.save(tmp_path / "model")
    again = ProtAlignEstimator.load(tmp_path / "model")
    assert again.pooling == "codebook"
    for modality in MODALITIES:
        vectors = model.model_.vectors(store, modality)
        np.testing.assert_array_equal(again.model_.vectors(store, modality), vectors)
    with pytest.raises(InputError, match="it has no attention"):
        again.attention(store)


@pytest.mark.parametrize("form", ["no neighbourhoods", "as many as words", "whitening"])
def test_a_codebook_of_an_earlier_version_is_named(
    model: ProtAlignEstimator, tmp_path: Path, form: str
) -> None:
    """It is whole, and not damaged: one line says that it must be fitted again."""
    changed = copy.deepcopy(model.model_)
    tensors = changed.state_dict()
    for modality in MODALITIES:
        words = tensors[f"{modality}.words"]
        if form == "no neighbourhoods":
            del tensors[f"{modality}.around"]
            tensors[f"{modality}.root"] = tensors[f"{modality}.root"][: len(words)]
        elif form == "as many as words":
            tensors[f"{modality}.around"] = words.clone()
            tensors[f"{modality}.root"] = torch.zeros(2 * len(words))
        else:
            tensors[f"{modality}.whitening"] = torch.eye(4)
    folder = tmp_path / "model"
    write_model(folder, changed.description(), tensors, {})
    with pytest.raises(ModelError) as caught:
        Model.load(folder)
    assert str(caught.value) == (
        f"{folder}: its codebook head is of an earlier version of ProtAlign; "
        "fit and save the model again"
    )


def test_a_seed_gives_a_model() -> None:
    """The same seed gives the same parameters, and another seed other words."""
    pairs = related(1, [30] * 12)
    first, same, other = (
        estimator(random_state=seed).fit(pairs).model_.state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["sequence.words"], other["sequence.words"])


def test_words_of_neighbourhoods_are_places_of_some(
    model: ProtAlignEstimator, store: EmbeddingStore
) -> None:
    """Both modalities have the same; they lie nearer to neighbourhoods than to residues."""
    heads = model.model_.sequence, model.model_.structure
    assert torch.equal(heads[0].around, heads[1].around)
    name = next(n for n, e in store.encoders.items() if e.modality == "structure")
    given = store[store.has_structure][::2]
    rows = [torch.from_numpy(each.astype(np.float32)) for each in given.embeddings(name)]
    with torch.no_grad():
        residues, around = (
            torch.cat(each) for each in zip(*map(heads[1]._places, rows), strict=True)
        )
    to_around, to_residues = (
        torch.cdist(heads[1].around, each).min(dim=1).values for each in (around, residues)
    )
    assert (to_around < to_residues).float().mean() > 0.9


def test_a_warm_start_keeps_the_words(model: ProtAlignEstimator, store: EmbeddingStore) -> None:
    """Training continues where it ended: the words stay, and only the last layer moves."""
    again = copy.deepcopy(model).set_params(warm_start=True, max_epochs=5)
    before = copy.deepcopy(again.model_.state_dict())
    again.fit(store[::2])
    after = again.model_.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {f"{m}.reduction.{name}" for m in MODALITIES for name in ("weight", "bias")}
    assert again.loss_curve_[-1] < again.loss_curve_[0]


def test_it_finds_proteins_that_it_was_not_fitted_on(
    model: ProtAlignEstimator, store: EmbeddingStore
) -> None:
    """Fitted on every second entry, it ranks the others' own structures well above chance."""
    ranks = model.retrieval_set(store[1::2]).ranks()
    chance = np.mean(1 / np.arange(1, len(ranks) + 1))
    assert np.mean(1 / ranks) > 1.5 * chance


def test_lists_of_arrays_of_any_width() -> None:
    """Rows 8 and 5 wide, fewer than the coordinates; own structures of new proteins come first."""
    fitted = estimator(embed_dim=16).fit(related(0, [30] * 20))
    assert fitted.score(related(0, [30] * 20)) > 0.9
    assert fitted.transform(related(0, [4, 700])).shape == (2, 16)


@pytest.mark.parametrize("count", [2, 3])
def test_few_proteins(count: int) -> None:
    """Two proteins are enough if they have residues enough; more numbers than pairs are finite."""
    pairs = related(3, [40] * count)
    assert np.isfinite(estimator(output="both").fit(pairs).transform(pairs)).all()


def test_equal_proteins() -> None:
    """Proteins that do not differ at all give finite vectors."""
    pairs = related(4, [40]) * 3
    assert np.isfinite(estimator(output="both").fit(pairs).transform(pairs)).all()


def test_too_few_residues_are_refused() -> None:
    """In one line that says how many there are, how many there must be, and what else to do."""
    with pytest.raises(InputError) as caught:
        estimator().fit(related(5, [12, 13]))
    message = str(caught.value)
    assert "25 residues with both embeddings are too few" in message
    assert "26 together" in message
    assert "attention" in message
    assert "\n" not in message


def test_proteins_of_unknown_pairs_of_residues_are_left_out_of_the_words() -> None:
    """A protein whose modalities differ in length is trained on; alone, such are refused."""
    pairs = related(6, [40] * 4)
    shorter = [(sequence, structure[1:]) for sequence, structure in pairs]
    assert estimator().fit([*pairs, *shorter]).n_pairs_ == 8
    with pytest.raises(InputError, match="0 residues with both embeddings"):
        estimator().fit(shorter)
