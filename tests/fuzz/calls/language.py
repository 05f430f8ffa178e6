"""Valid calls of Part 6, and of the models and data sets that came with it."""

from __future__ import annotations

from pathlib import Path

import torch
from fuzzing import generator, normal, uniform, whole
from torch import nn

from cl_teach.core import surface, voting
from cl_teach.datasets import rationales as worked
from cl_teach.datasets import reviews, sentences, soft_changes, texts
from cl_teach.datasets.library_text import LibraryText, library_text
from cl_teach.language import cocosoda, contrastive_search, cvib, debcse, qcrd, whitenedcse
from cl_teach.models import bag_of_words, language_model, pooling, reading, token_classifier
from cl_teach.models import rationales as readers

SENTENCES = [[1, 2, 3], [1, 2, 4], [5, 2, 3], [6, 7], [1]]
MASK = torch.tensor([[True, True, False], [True, True, True]])
FOLDER = str(Path(torch.__file__).parent / "optim")
SPECIAL = {"mask_id": 4, "special_ids": [0, 1, 4]}


def table(n: int = 5) -> torch.Tensor:
    """Similarities of n sentences in [0, 1]."""
    x = uniform(n, n)
    return (x + x.mT) / 2


def refreshed() -> debcse.DebCSE:
    """A corpus with tables to draw from."""
    made = debcse.DebCSE(SENTENCES)
    made.refresh(normal(5, 4))
    return made


def questions() -> qcrd.Questions:
    """Four questions with three samples each."""
    data = worked.arithmetic_rationales(4, samples=3)
    return qcrd.Questions(data.question, data.label, data.rationales, voting.majority_mask(data.answers))


def student() -> readers.Student:
    """Reads and writes arithmetic."""
    return readers.Student(15, 10, 4)


def method() -> qcrd.QCRD:
    """With a snapshot."""
    made = qcrd.QCRD(student(), readers.Discriminator(15, 4))
    made.step(questions(), generator=generator())
    return made


def networks() -> tuple[token_classifier.TokenClassifier, token_classifier.TokenClassifier]:
    """Without masks, with masks."""
    return token_classifier.TokenClassifier([4, 3], 2), token_classifier.TokenClassifier([4, 3], 2, mask=cvib.VIBMask)


def draws() -> soft_changes.SoftDraws:
    """For three sentences of six tokens."""
    return soft_changes.draw_soft(whole(9, 3, 6), whole(9, 4), generator=generator())


def queues(rows: int = 5) -> cocosoda.Queues:
    """Of width four."""
    return cocosoda.Queues(*(normal(rows, 4, seed=i) for i in range(4)))


def search() -> dict[str, object]:
    """A small reader and two prefixes."""
    torch.manual_seed(0)
    read = reading.reader(language_model.LanguageModel(9, 4))
    return dict(read=read, prefix=whole(9, 2, 3), steps=2, k=2, alpha=0.6, end=3)


def streams(*names: str) -> dict[str, torch.Tensor]:
    """Embeddings of width four under these names."""
    return {name: normal(3, 4, seed=i) for i, name in enumerate(names)}


CODE = ("code", "query", "code_key", "query_key")
BATCH = ("code", "query", "augmented_code", "augmented_query")
CALLS = {
    # debcse
    surface.edit_distance: lambda: dict(a=[1, 2, 3], b=[1, 3]),
    surface.surface_similarity: lambda: dict(sentences=SENTENCES),
    surface.first_occurrences: lambda: dict(sentences=SENTENCES),
    debcse.nearest: lambda: dict(similarity=table(), count=2),
    debcse.pair_probabilities: lambda: dict(
        surface=table(),
        semantic=2 * table() - 1,
        sharpness=2.0,
        power=1.0,
        smallest_propensity=1e-3,
        largest_weight=10.0,
        positive_candidates=torch.ones(5, 5, dtype=torch.bool),
        negative_candidates=torch.ones(5, 5, dtype=torch.bool),
    ),
    debcse.effective_choices: lambda: dict(probabilities=normal(3, 5).softmax(1)),
    debcse.draw_pairs: lambda: dict(probabilities=normal(3, 5).softmax(1), count=2, generator=generator()),
    debcse.debcse_loss: [
        lambda: dict(**streams("anchor", "positive"), negatives=None, temperature=0.05),
        lambda: dict(
            **streams("anchor", "positive"),
            negatives=normal(3, 2, 4),
            temperature=0.05,
            index=(whole(9, 3), whole(9, 3, seed=1), whole(9, 3, 2, seed=2)),
        ),
    ],
    debcse.DebCSE: lambda: dict(sentences=SENTENCES, count=2, candidates=3, temperature=0.05, sharpness=2.0, power=1.0),
    debcse.DebCSE.refresh: lambda: (debcse.DebCSE(SENTENCES), dict(embeddings=normal(5, 4))),
    debcse.DebCSE.loss: lambda: (
        refreshed(),
        dict(encoder=nn.Embedding(5, 4), index=torch.arange(3), generator=generator()),
    ),
    debcse.DebCSE.forward: lambda: (
        refreshed(),
        dict(encoder=nn.Embedding(5, 4), index=torch.arange(3), generator=generator()),
    ),
    # whitenedcse
    whitenedcse.dropout_views: lambda: dict(encoder=nn.Identity(), inputs=normal(4, 3), views=3),
    whitenedcse.draw_shuffles: lambda: dict(views=2, dim=4, generator=generator()),
    whitenedcse.inverse_square_root: lambda: dict(matrix=torch.eye(3)[None] + 0.1),
    whitenedcse.group_whiten: [
        lambda: dict(features=normal(9, 4), groups=2, shuffle=torch.arange(4), ridge=0.1, detach=True),
        lambda: dict(features=normal(9, 4), groups=2, shuffle=None, ridge=0.0, detach=False),
    ],
    whitenedcse.one_to_many_contrast: lambda: dict(embeddings=[normal(5, 4), normal(5, 4, seed=1)], temperature=0.05),
    whitenedcse.WhitenedCSE: lambda: dict(dim=4, groups=2, temperature=0.05, ridge=0.1, detach=True),
    whitenedcse.WhitenedCSE.terms: lambda: (
        whitenedcse.WhitenedCSE(4, 2),
        dict(views=[normal(9, 4), normal(9, 4, seed=1)], shuffles=torch.arange(4).repeat(2, 1)),
    ),
    whitenedcse.WhitenedCSE.loss: lambda: (
        whitenedcse.WhitenedCSE(4, 2),
        dict(views=[normal(9, 4), normal(9, 4, seed=1)], generator=generator()),
    ),
    whitenedcse.WhitenedCSE.forward: lambda: (
        whitenedcse.WhitenedCSE(4, 2),
        dict(views=[normal(9, 4), normal(9, 4, seed=1)], generator=generator()),
    ),
    # sentences and reviews
    sentences.template_sentences: lambda: dict(meanings=3, forms=2, habits=1.0, seed=0),
    sentences.template_pairs: lambda: dict(
        shared_concepts=torch.tensor([4, 2, 0]), shared_words=torch.tensor([1, 2, 0]), habits=1.0, seed=0
    ),
    sentences.sentence_text: lambda: dict(tokens=whole(9, 3, 4)),
    reviews.cued_reviews: lambda: dict(n=4, agreement=0.9, clarity=0.8, seed=0),
    reviews.review_text: lambda: dict(tokens=whole(9, 3, 4)),
    bag_of_words.word_counts: lambda: dict(tokens=whole(9, 3, 4), words=9),
    bag_of_words.word_overlap: lambda: dict(first=whole(9, 3, 4), second=whole(9, 3, 5)),
    bag_of_words.context_vectors: lambda: dict(tokens=whole(9, 3, 4), words=9, dim=3),
    bag_of_words.BagOfWords: [
        lambda: dict(words=9, dim=3, dropout=0.1, vectors=normal(9, 3)),
        lambda: dict(words=9, dim=3),
    ],
    bag_of_words.BagOfWords.forward: lambda: (bag_of_words.BagOfWords(9, 3), dict(tokens=1 + whole(8, 3, 4))),
    # cvib
    cvib.noisy_mask: lambda: dict(x=normal(2, 3, 4), mean=normal(4), log_variance=normal(4), noise=normal(2, 4)),
    cvib.mask_divergence: lambda: dict(mean=normal(4), log_variance=normal(4), tokens=3, multiplier=1.0, tiny=1e-8),
    cvib.noise_ratio: lambda: dict(mean=normal(4), log_variance=normal(4), tiny=1e-8),
    cvib.kept_channels: lambda: dict(mean=normal(4), log_variance=normal(4), threshold=0.5, tiny=1e-8),
    cvib.self_pruning_contrast: lambda: dict(**streams("pruned", "original"), temperature=0.1),
    cvib.cvib_objectives: lambda: dict(
        logits_original=normal(3, 2),
        logits_pruned=normal(3, 2, seed=1),
        labels=torch.tensor([0, 1, 1]),
        **streams("original", "pruned"),
        divergence=2.0,
        temperature=0.1,
        contrast_weight=0.5,
        divergence_weight=0.1,
    ),
    cvib.VIBMask: lambda: dict(dim=4, threshold=0.5),
    cvib.VIBMask.forward: lambda: (cvib.VIBMask(4), dict(x=normal(2, 3, 4), noise=normal(2, 4))),
    cvib.VIBMask.divergence: lambda: (cvib.VIBMask(4), dict(tokens=3)),
    cvib.draw_noises: lambda: dict(network=networks()[1], n=3, generator=generator()),
    cvib.CVIB: lambda: dict(
        original=networks()[0],
        pruned=networks()[1],
        temperature=0.1,
        contrast_weight=0.5,
        divergence_weight=0.1,
        learning_rate=0.01,
        mask_learning_rate=0.01,
    ),
    cvib.CVIB.forward: lambda: (cvib.CVIB(*networks()), dict(x=normal(3, 2, 4))),
    cvib.CVIB.loss: lambda: (
        cvib.CVIB(*networks()),
        dict(x=normal(3, 2, 4), labels=torch.tensor([0, 1, 1]), generator=generator()),
    ),
    cvib.CVIB.step: lambda: (
        cvib.CVIB(*networks()),
        dict(batch=(normal(3, 4), torch.tensor([0, 1, 1])), generator=generator()),
    ),
    token_classifier.TokenClassifier: lambda: dict(
        sizes=[4, 3], classes=2, mask=cvib.VIBMask, mask_input=True, dropout=0.1
    ),
    token_classifier.TokenClassifier.forward: lambda: (
        networks()[1],
        dict(x=normal(3, 2, 4), noises=[normal(3, 3)]),
    ),
    # cocosoda
    soft_changes.draw_soft: lambda: dict(ids=whole(9, 3, 6), vocabulary=whole(9, 4), generator=generator()),
    soft_changes.augment_tokens: lambda: dict(
        ids=whole(9, 3, 6),
        types=whole(9, 3, 6, seed=1),
        draws=draws(),
        kind="mask_type",
        rate=0.5,
        **SPECIAL,
        target_type=3,
        protect_first=1,
        match_ids=False,
    ),
    soft_changes.soft_pair: lambda: dict(
        code=whole(9, 3, 6),
        types=whole(9, 3, 6, seed=1),
        query=whole(9, 3, 4, seed=2),
        step=2,
        vocabulary=whole(9, 4),
        **SPECIAL,
        rate=0.5,
        protect_first=1,
        generator=generator(),
    ),
    cocosoda.language_probabilities: [
        lambda: dict(counts=torch.tensor([5.0, 2.0]), power=0.7),
        lambda: dict(counts=torch.tensor([5, 2]), power=0.7),
    ],
    cocosoda.queued_contrast: lambda: dict(**streams("anchor", "key"), queue=normal(5, 4), temperature=0.07),
    cocosoda.cocosoda_terms: lambda: dict(
        **streams(*CODE), queues=queues(), temperature=0.07, scale=2.0, intra_modal=True
    ),
    cocosoda.fine_tuning_loss: lambda: dict(**streams("query", "code"), scale=20.0),
    cocosoda.CoCoSoDa: lambda: dict(
        encoder=nn.Linear(4, 4),
        dim=4,
        queue_size=6,
        temperature=0.07,
        momentum=0.9,
        scale=2.0,
        intra_modal=True,
    ),
    cocosoda.CoCoSoDa.push: lambda: (cocosoda.CoCoSoDa(nn.Linear(4, 4), 4, queue_size=6), streams(*CODE)),
    cocosoda.CoCoSoDa.loss: lambda: (
        cocosoda.CoCoSoDa(nn.Linear(4, 4), 4, queue_size=6),
        dict(encoder=nn.Linear(4, 4), **streams(*BATCH)),
    ),
    cocosoda.CoCoSoDa.forward: lambda: (
        cocosoda.CoCoSoDa(nn.Linear(4, 4), 4, queue_size=6),
        dict(encoder=nn.Linear(4, 4), **streams(*BATCH)),
    ),
    cocosoda.CoCoSoDa.after_step: lambda: (cocosoda.CoCoSoDa(nn.Linear(4, 4), 4, queue_size=6), {}),
    pooling.masked_mean: lambda: dict(states=normal(2, 3, 4), valid=MASK),
    # contrastive search
    contrastive_search.contrastive_choice: lambda: dict(
        context=normal(2, 3, 4), candidates=normal(2, 5, 4), probabilities=uniform(2, 5), alpha=0.6
    ),
    contrastive_search.contrastive_search: search,
    reading.select_rows: [
        lambda: dict(cache=normal(3, 2), rows=torch.tensor([0, 2])),
        lambda: dict(cache={"a": [normal(3, 2)]}, rows=torch.tensor([0, 2])),
    ],
    reading.reader: lambda: dict(model=language_model.LanguageModel(9, 4)),
    reading.transformer_reader: lambda: dict(model=language_model.LanguageModel(9, 4), cache_name="cache"),
    contrastive_search.valid_tokens: lambda: dict(ids=torch.tensor([[1, 2, 0], [3, 4, 5]]), pad=0),
    contrastive_search.simctg_contrast: lambda: dict(states=normal(2, 3, 4), valid=MASK, margin=0.5),
    contrastive_search.isotropy: lambda: dict(states=normal(2, 3, 4), valid=MASK, skip_first=True),
    contrastive_search.simctg_terms: lambda: dict(
        model=language_model.LanguageModel(9, 4), tokens=torch.tensor([[1, 2, 0], [3, 4, 5]]), margin=0.5, pad=0
    ),
    contrastive_search.repetition: lambda: dict(texts=[[1, 2, 1, 2], [3, 4]], n=2, released=False),
    contrastive_search.diversity: lambda: dict(texts=[[1, 2, 1, 2, 3], [3, 4]], released=False),
    contrastive_search.coherence: lambda: dict(
        judge=language_model.LanguageModel(9, 4), ids=whole(9, 2, 5), prefix_length=2
    ),
    language_model.LanguageModel: lambda: dict(vocabulary=9, width=4),
    language_model.LanguageModel.forward: lambda: (language_model.LanguageModel(9, 4), dict(tokens=whole(9, 2, 3))),
    language_model.LanguageModel.read: lambda: (
        language_model.LanguageModel(9, 4),
        dict(tokens=whole(9, 2, 3), memory=normal(2, 4)),
    ),
    texts.toy_text: lambda: dict(n=2, length=4, vocabulary=6, successors=3, language=0, generator=generator()),
    # qcrd
    voting.self_consistency_split: lambda: dict(answers=["A", "B", "A"]),
    voting.majority_mask: lambda: dict(answers=whole(3, 2, 5)),
    qcrd.rationale_loss: lambda: dict(logits=normal(2, 3, 5), tokens=whole(5, 2, 3), valid=MASK),
    qcrd.rationale_scores: lambda: dict(logits=normal(2, 3)),
    qcrd.discriminator_loss: [
        lambda: dict(positive=uniform(2, 3), negative=uniform(2, 3, seed=1), positive_mask=MASK, negative_mask=~MASK),
        lambda: dict(positive=uniform(2, 3), negative=uniform(2, 4), positive_mask=None, negative_mask=None),
    ],
    qcrd.qcrd_terms: lambda: dict(
        label_logits=normal(2, 4),
        label=torch.tensor([0, 3]),
        positive=uniform(2, 3),
        negative=uniform(2, 3, seed=1),
        positive_logits=normal(2, 3),
        negative_logits=normal(2, 3, seed=1),
        positive_mask=MASK,
        negative_mask=~MASK,
        beta=0.2,
        margin=3.0,
        label_weight=0.5,
        contrast_weight=0.5,
        discriminator_weight=0.5,
    ),
    qcrd.QCRD: lambda: dict(
        student=student(),
        discriminator=readers.Discriminator(15, 4),
        age=2,
        steps_per_iteration=2,
        hot=1.5,
        decay=0.9,
        learning_rate=0.01,
        beta=0.2,
        margin=3.0,
        label_weight=0.5,
        contrast_weight=0.5,
        discriminator_weight=0.5,
    ),
    qcrd.QCRD.forward: lambda: (method(), dict(question=questions().question)),
    qcrd.QCRD.negatives: lambda: (
        method(),
        dict(
            question=questions().question,
            rationales=questions().rationales,
            positive=questions().positive,
            generator=generator(),
        ),
    ),
    qcrd.QCRD.loss: lambda: (method(), dict(**questions()._asdict(), generator=generator())),
    qcrd.QCRD.step: lambda: (method(), dict(batch=questions(), generator=generator())),
    qcrd.QCRD.pretrain: lambda: (method(), dict(batch=questions(), rate=0.5, generator=generator())),
    readers.Student: lambda: dict(vocabulary=15, classes=10, dim=4),
    readers.Student.label: lambda: (student(), dict(question=questions().question)),
    readers.Student.forward: lambda: (
        student(),
        dict(question=questions().question, rationales=questions().rationales),
    ),
    readers.Student.write: lambda: (
        student(),
        dict(question=questions().question, length=3, temperature=1.5, generator=generator()),
    ),
    readers.Discriminator: lambda: dict(vocabulary=15, dim=4),
    readers.Discriminator.forward: lambda: (
        readers.Discriminator(15, 4),
        dict(question=questions().question, rationales=questions().rationales),
    ),
    library_text: lambda: dict(vocabulary=30, seed=0, folder=FOLDER),
    LibraryText.prompts: lambda: (
        library_text(30, folder=FOLDER),
        dict(first=1, prompt=1, length=5),
    ),
    worked.arithmetic_rationales: lambda: dict(n=3, samples=2, error=0.5, seed=0),
    worked.rationale_text: lambda: dict(tokens=whole(15, 2, 3)),
    worked.spoil_rationales: lambda: dict(
        rationales=questions().rationales, vocabulary=15, rate=0.5, generator=generator()
    ),
}

EXEMPT = {
    surface.check_sentences: "a check is what everything else is tested with",
    readers.check_texts: "a check is what everything else is tested with",
}

UNCHECKED = {
    (library_text, "folder"): "a folder that is not there is a FileNotFoundError that names it",
    (reading.select_rows, "cache"): "holds whatever a model keeps, NaN included",
    (cocosoda.CoCoSoDa.loss, "encoder"): "any module may come; what it does to tokens is its own",
    (cocosoda.CoCoSoDa.forward, "encoder"): "any module may come; what it does to tokens is its own",
}
for name in BATCH:
    for of in (cocosoda.CoCoSoDa.loss, cocosoda.CoCoSoDa.forward):
        UNCHECKED[of, name] = "goes to the caller's encoder, whatever that takes"
