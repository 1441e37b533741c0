"""Which items (images or texts) of a labelled set support generation, and which score it."""

import hashlib
import math
from collections.abc import Iterator

import numpy as np

from d2nwg.data.labelled import LabelledSet
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import number, shown


def split_support_query(
    data: LabelledSet, shots: int, *, seed: int, readable: np.ndarray | None = None, max_query: int | None = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the support items, which generation may see, and the query items, which score it.

    The support is drawn from the training split where there is a test split. The query is the test split, or else
    all remaining items. The draw depends only on the seed and on the names of classes and files.

    Args:
        shots: support items a class.
        readable: (n,) bool mask over all items, False for those that are unreadable or were not opened; an
            unreadable item is replaced by the next one of its class.
        max_query: upper bound on the query items, shared among the classes in proportion to their sizes, at least
            one a class.
    Returns:
        Indices: support (classes × shots,), ordered by class, and query (m,).
    Raises:
        UserError: naming the class that has too few items.
    """
    support, query = [], []
    for label, (train, test, quota) in enumerate(_orders(data, shots, seed, max_query)):
        if readable is not None:
            train = train[readable[train]]
            test = test if test is None else test[readable[test]]
        needed = shots + (test is None)
        if len(train) < needed:
            kind = "" if readable is None else "readable "
            raise UserError(_too_few(data, label, len(train), shots, test is None, kind))
        support.append(train[:shots])
        query.append((train[shots:] if test is None else test)[:quota])
    query = np.concatenate(query)
    if not len(query):
        raise UserError(f"{data.name} has no readable test {data.noun} to measure on; check its test {data.noun}s.")
    return np.concatenate(support), query


def candidates(
    data: LabelledSet, shots: int, *, seed: int, max_query: int | None = 1000, unreadable: np.ndarray | None = None
) -> np.ndarray:
    """The items to encode before `split_support_query` of the same arguments: sorted indices, with two spare ones a
    class in case some cannot be read.

    When more than those cannot be read, call it again with `unreadable`, an (n,) bool mask of the failures so far,
    until it returns no new index: the split then gives `shots` items a class wherever a class has that many readable
    ones.

    Raises:
        UserError: naming the class that has too few items.
    """
    wanted = []
    for train, test, quota in _orders(data, shots, seed, max_query):
        if unreadable is not None:
            train = train[~unreadable[train]]
            test = test if test is None else test[~unreadable[test]]
        if test is None:
            wanted.append(train[: shots + quota + 2])
        else:
            wanted += [train[: shots + 2], test[:quota]]
    return np.sort(np.concatenate(wanted))


def _too_few(data: LabelledSet, label: int, found: int, shots: int, shared: bool, kind: str) -> str:
    has = number(found, f"{kind}{'' if shared else 'training '}{data.noun}")
    needed = f"{shots + 1} are needed ({shots} shots and one to measure on)" if shared else f"{shots} are needed"
    name = shown(data.classes[label])
    return f"The class {name} has {has} but {needed}; add {data.noun}s to it or choose fewer shots."


def _orders(
    data: LabelledSet, shots: int, seed: int, max_query: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None, int]]:
    """For each class: its training indices and its test indices (None without a test split) in random order, and its
    number of query items. None of them depends on which items are readable, so that `candidates` and
    `split_support_query` agree."""
    if shots < 1:
        raise UserError("The number of shots must be at least 1.")
    if max_query is not None and max_query < 1:
        raise UserError("The largest number of query images must be at least 1.")
    split = bool(data.is_test.any())
    count = len(data.classes)
    train_sizes = np.bincount(data.labels[~data.is_test], minlength=count)
    pools = np.bincount(data.labels[data.is_test], minlength=count) if split else train_sizes - shots
    for label in range(count):
        if train_sizes[label] < shots + (not split):
            raise UserError(_too_few(data, label, int(train_sizes[label]), shots, not split, ""))
    quotas = shared_out(pools, max_query)
    order = np.argsort(data.labels, kind="stable")
    for label, indices in enumerate(np.split(order, np.cumsum(np.bincount(data.labels, minlength=count))[:-1])):
        key = hashlib.sha256(data.classes[label].encode()).digest()
        rng = np.random.default_rng([seed % 2**64, int.from_bytes(key[:8], "little")])
        testing = data.is_test[indices]
        train, test = rng.permutation(indices[~testing]), rng.permutation(indices[testing])
        yield train, test if split else None, int(quotas[label])


def shared_out(pools: np.ndarray, most: int | None) -> np.ndarray:
    """(classes,) numbers of query items: `most` shared in proportion to `pools`, at least one a class (largest
    remainder method)."""
    if most is None or pools.sum() <= most:
        return pools
    exact = pools * (most / pools.sum())
    quotas = np.maximum(np.floor(exact).astype(np.int64), pools > 0)
    spare = max(0, most - int(quotas.sum()))
    room = np.where(quotas < pools, exact - quotas, -math.inf)
    quotas[np.argsort(-room, kind="stable")[:spare]] += 1
    return quotas
