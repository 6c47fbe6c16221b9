"""Measures of answers: accuracy, calibration, agreement; plain numpy, checked against a library."""

import numpy as np

from fedkd.knowledge.digests import Array

# N examples, C classes, Q queries, P participants.


def accuracy(probs: Array, labels: Array, weights: Array | None = None) -> float:
    """Share of `labels` [N] that the argmax of `probs` [N, C] meets, weighted where asked."""
    return float(np.average(probs.argmax(axis=1) == labels, weights=weights))


def balanced_accuracy(probs: Array, labels: Array) -> float:
    """Mean recall over the classes that occur in `labels`."""
    hit = probs.argmax(axis=1) == labels
    return float(np.mean([hit[labels == label].mean() for label in np.unique(labels)]))


def macro_f1(probs: Array, labels: Array) -> float:
    """F1 averaged over the classes that occur in `labels` or are predicted."""
    said = probs.argmax(axis=1)
    scores = []
    for label in np.union1d(labels, said):
        both = np.sum((said == label) & (labels == label))
        scores.append(2 * both / (np.sum(said == label) + np.sum(labels == label)))
    return float(np.mean(scores))


def auroc(probs: Array, labels: Array) -> float | None:
    """Area under the ROC curve; above two classes one-vs-rest, macro; None if a class is absent.

    By the Mann-Whitney statistic with mid-ranks for ties (Hanley and McNeil, 1982).
    """
    classes = probs.shape[1]
    if len(np.unique(labels)) < classes:
        return None
    scored = [1] if classes == 2 else range(classes)
    return float(np.mean([_one_vs_rest(probs[:, c], labels == c) for c in scored]))


def _one_vs_rest(scores: Array, positive: Array) -> float:
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(counts) - (counts - 1) / 2
    n = int(positive.sum())
    ranks = mid_rank[inverse][positive].sum()
    return float((ranks - n * (n + 1) / 2) / (n * (len(positive) - n)))


def expected_calibration_error(probs: Array, labels: Array, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over `bins` equal bins of confidence, weighted.

    Guo, Pleiss, Sun and Weinberger, 2017, On calibration of modern neural networks, equation 5.
    """
    confidence = probs.max(axis=1)
    hit = probs.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(hit[place == b].mean() - confidence[place == b].mean()) * np.mean(place == b)
        for b in np.unique(place)
    ]
    return float(np.sum(gaps))


def agreement(probs: Array) -> float:
    """Mean share of pairs of sites whose argmax over `probs` [P, Q, C] agrees; 1 for one site."""
    participants = probs.shape[0]
    if participants < 2:
        return 1.0
    said = probs.argmax(axis=2)
    votes = np.stack([(said == c).sum(axis=0) for c in range(probs.shape[2])])  # [C, Q]
    same = (votes * (votes - 1)).sum(axis=0) / (participants * (participants - 1))
    return float(same.mean())


def effective_classes(probs: Array) -> float:
    """exp(entropy) of the argmax histogram of `probs` [Q, C]: how many classes the queries show."""
    share = np.bincount(probs.argmax(axis=1), minlength=probs.shape[1]) / len(probs)
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def mean_entropy(probs: Array) -> float:
    """Mean entropy of the rows of `probs` [Q, C], in nats."""
    safe = np.maximum(probs, np.finfo(np.float64).tiny)
    return float(-(probs * np.log(safe)).sum(axis=1).mean())
