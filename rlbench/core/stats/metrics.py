"""Metrics as pure functions: margins, intervals of accuracies, paired tests, corruption errors, recall."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """z_y - max_{j != y} z_j; (B, C), (B,) -> (B,). An example is correct iff it is > 0; ties and NaN are errors."""
    others = logits.scatter(1, y[:, None], float("-inf"))
    return logits.gather(1, y[:, None])[:, 0] - others.amax(1)


def wilson(n_correct: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The Wilson score interval of a proportion, in [0, 1]; 95% by default.

    Wilson, 1927, https://doi.org/10.1080/01621459.1927.10502953.
    """
    if n <= 0:
        return 0.0, 1.0
    share, w = n_correct / n, z * z / n
    centre = (share + w / 2) / (1 + w)
    half = z / (1 + w) * (share * (1 - share) / n + w / (4 * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(b: int, c: int) -> float:
    """The two-sided p-value of McNemar's exact test.

    McNemar, 1947, https://doi.org/10.1007/BF02295996.

    Args:
        b: examples that only the first model gets right.
        c: examples that only the second one gets right.
    """
    import numpy as np

    return float(mcnemars(np.array([b]), np.array([c]))[0])


def mcnemars(b: NDArray[Any], c: NDArray[Any]) -> NDArray[Any]:
    """(P,) counts of P pairs -> (P,) p-values of `mcnemar`: twice a tail of Binomial(b + c, 1/2)."""
    import numpy as np
    from scipy.special import bdtr

    fewer, flips = np.minimum(b, c).astype(np.int64), np.asarray(b + c, dtype=np.int64)
    span = int(flips.max(initial=0)) + 1
    different, back = np.unique(fewer * span + flips, return_inverse=True)
    p: NDArray[Any] = np.minimum(1.0, 2 * bdtr((different // span).astype(float), different % span, 0.5))
    return p[back]


def holm(ps: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the given order (Holm, 1979, https://www.jstor.org/stable/4615733)."""
    import numpy as np

    raw = np.asarray(ps, dtype=float)
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty(len(raw))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(raw), 0, -1) * raw[order]))
    return list(adjusted.tolist())


def cluster_interval(correct: Sequence[bool], clusters: Sequence[str], *, draws: int = 2000) -> tuple[float, float]:
    """The 95% percentile interval of an accuracy, in [0, 1], by a deterministic bootstrap over clusters.

    Examples of one recording or speaker are correlated, so it resamples whole clusters (Field and Welsh, 2007,
    https://doi.org/10.1111/j.1467-9868.2007.00593.x). Where all samples agree, as with one cluster or without an error,
    it is Wilson's interval of one example per cluster.

    Args:
        correct: (n,).
        clusters: (n,) the cluster of each example.
        draws: bootstrap samples.
    """
    import numpy as np

    names, at = np.unique(np.asarray(clusters), return_inverse=True)
    right = np.bincount(at, weights=np.asarray(correct, dtype=float), minlength=len(names))
    size = np.bincount(at, minlength=len(names))
    rows = np.random.default_rng(0).integers(len(names), size=(draws, len(names)))
    shares = right[rows].sum(1) / size[rows].sum(1)
    low, high = (float(end) for end in np.quantile(shares, [0.025, 0.975]))
    return (low, high) if low < high else wilson(low * len(names), len(names))


def sign_flip(differences: Sequence[int]) -> float:
    """The two-sided p-value of the exact paired randomisation test: P(|sum| is as large under random signs).

    Fisher, 1935, The Design of Experiments, section 21. For differences of -1, 0 and 1 it is McNemar's exact test.

    Args:
        differences: one integer per pair, such as the difference of how many of k attacks each model withstands.

    Returns:
        p; values below 1e-12 are returned as 1e-12, unless all nonzero differences have one size.
    """
    import numpy as np

    data = np.asarray(differences, dtype=np.int64)
    most = max(1, int(np.abs(data).max(initial=0)))
    return float(sign_flips(np.bincount(data + most, minlength=2 * most + 1)[None])[0])


def sign_flips(counts: NDArray[Any]) -> NDArray[Any]:
    """Many tests of `sign_flip` at once.

    Args:
        counts: (P, 2k + 1) how many differences of each test are -k, ..., k.

    Returns:
        (P,) p-values.

    With c_s differences of size s, half their randomly signed sum has the real characteristic function prod_s
    cos(s w / 2)^c_s; the tail is its inverse discrete Fourier transform at more points than there are sums. By
    Hoeffding's inequality (1963, https://doi.org/10.1080/01621459.1963.10500830) most small p-values need no transform.
    """
    import numpy as np

    counts = np.asarray(counts, dtype=np.int64)
    k = counts.shape[1] // 2
    sizes = np.arange(1, k + 1)
    total = np.abs(counts @ np.arange(-k, k + 1))
    folded = counts[:, k + 1 :] + counts[:, :k][:, ::-1]
    p = np.ones(len(counts))
    single = (folded > 0).sum(1) < 2
    flips = folded[single].sum(1)
    more = (flips + total[single] // sizes[folded[single].argmax(1)]) // 2
    p[single] = mcnemars(more, flips - more)
    spread = 2 * np.maximum(1, folded @ sizes**2)
    clear = ~single & (total**2 / spread > log(2e12))  # the bound is below 1e-12
    p[clear] = 1e-12
    rest, most = np.flatnonzero(~single & ~clear), folded @ sizes
    rest = rest[np.argsort(most[rest], kind="stable")]
    while len(rest):
        few = max(1, int(_POINTS // (most[rest[-1]] + 1)))  # a batch of the longest ones
        now, rest = rest[-few:], rest[:-few]
        p[now] = np.clip(2 * _tail(folded[now], total[now]), 1e-12, 1.0)
    return p


_POINTS = 4_000_000  # the most numbers of an array


def _tail(folded: NDArray[Any], total: NDArray[Any]) -> NDArray[Any]:
    """P(the randomly signed sum of folded[:, s - 1] numbers s <= -total), (P,)."""
    import numpy as np

    sizes = np.arange(1, folded.shape[1] + 1)
    most = folded @ sizes
    points = 2 * (int(most.max()) // 2) + 1  # odd, so that no cosine below is 0
    points += 2 * (points <= most.max())
    m, turn = np.arange(1, points // 2 + 1), np.pi * np.arange(2 * points) / points
    sine, cosine = np.sin(turn), np.cos(turn)  # at all multiples of half the lowest frequency
    waves = cosine[np.outer(sizes, m) % (2 * points)]
    odd = (folded % 2).astype(float) @ (waves < 0) % 2
    transform = np.exp(folded.astype(float) @ np.log(np.abs(waves))) * (1 - 2 * odd)
    last = ((most - total) // 2)[:, None]  # the sum is 2 y - most, for y from 0 to this
    kernel = sine[m * (last + 1) % (2 * points)] / sine[m] * cosine[m * (last - most[:, None]) % (2 * points)]
    tail: NDArray[Any] = ((last[:, 0] + 1) + 2 * (transform * kernel).sum(1)) / points
    return tail


def bootstrap_means(
    values: Sequence[float], clusters: Sequence[str] | None = None, *, draws: int = 2000, seed: int = 0
) -> NDArray[Any]:
    """(draws,) means of deterministic bootstrap samples of one stratum: of its examples, or of whole clusters.

    Efron, 1979, https://doi.org/10.1214/aos/1176344552; for clusters see `cluster_interval`.
    """
    import numpy as np

    data = np.asarray(values, dtype=float)
    names, at = np.unique(np.asarray(data if clusters is None else clusters), return_inverse=True)
    rng = np.random.default_rng(seed)
    if clusters is None:  # only the number of draws of each value matters
        drawn = rng.multinomial(len(data), np.bincount(at) / len(data), size=draws)
        return np.asarray(drawn @ names / len(data))
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return np.asarray((drawn @ np.bincount(at, weights=data)) / (drawn @ np.bincount(at)))


def relative_accuracy(corrupted: Sequence[float], clean: float) -> float:
    """The mean accuracy under corruption divided by the clean accuracy; NaN if that is 0."""
    return sum(corrupted) / len(corrupted) / clean if clean else float("nan")


def mean_corruption_error(errors: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]) -> float:
    """mCE: the mean over corruptions of sum_s E_s / sum_s E_s of the baseline, which itself has 1.

    Hendrycks and Dietterich, 2019, https://arxiv.org/abs/1903.12261, section 4 (there in %).

    Args:
        errors: one row per corruption, one error rate in [0, 1] per severity.
        baseline: the same of the baseline.

    Returns:
        mCE; NaN if the baseline makes no error under some corruption.
    """
    pairs = [(sum(own), sum(other)) for own, other in zip(errors, baseline, strict=True)]
    return sum(own / other if other else float("nan") for own, other in pairs) / len(pairs)


def ranks(scores: NDArray[Any], own: NDArray[Any]) -> NDArray[Any]:
    """(Q,) the rank, from 1 on, of each query's best matching candidate; ties count against the query.

    Args:
        scores: (Q, N) of the candidates; NaN counts against the query.
        own: (Q, N) bool, the matching candidates; at least one per query.
    """
    import numpy as np

    first = np.where(own & ~np.isnan(scores), scores, -np.inf).max(1)
    return 1 + np.asarray((~(scores < first[:, None]) & ~own).sum(1))


def recall_at(places: NDArray[Any], k: int) -> float:
    """R@k in [0, 1]: the share of queries with a matching candidate among the first k; places: (Q,) `ranks`."""
    return float((places <= k).mean())


def format_p(p: float, *, equation: bool = False) -> str:
    """A p-value as text: `.014` or `<.001` in tables; `p = 0.014` or `p < 0.0001` in sentences.

    Args:
        p: in [0, 1].
        equation: whether it is for a sentence.
    """
    if equation:
        return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"
