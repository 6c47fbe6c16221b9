"""Small models that know their own records by heart, and what they are trained on."""

import numpy as np


def blobs(records, classes=3, features=40, seed=0, spread=3.0):
    """Overlapping clouds: inputs [N, F], labels [N]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=records)
    centres = np.random.default_rng(99).normal(size=(classes, features))
    return centres[labels] + spread * rng.normal(size=(records, features)), labels


def nearest(inputs, labels, classes=3, width=8.0):
    """`fit` of a kernel vote among the records learnt from: near a record it is all one hears."""

    def fit(member, seed):
        own, codes = inputs[member], np.eye(classes)[labels[member]]

        def answers(asked):
            squares = ((asked[:, None, :] - own[None]) ** 2).sum(axis=2)
            weight = np.exp(-squares / width**2)
            return (weight @ codes + 1e-3) / (weight.sum(axis=1, keepdims=True) + 1e-3 * classes)

        return answers

    return fit


def logistic(inputs, labels, strength=1e3):
    """`fit` of scikit-learn's logistic regression with as many features as it can overfit by."""
    from sklearn.linear_model import LogisticRegression

    def fit(member, seed):
        model = LogisticRegression(C=strength, max_iter=300)
        return model.fit(inputs[member], labels[member]).predict_proba

    return fit
