"""Operating points: exact intervals, rules, and what a number of images can promise."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import beta, binomtest, norm

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.operating_points import (
    Costs,
    OperatingPoint,
    Scores,
    clopper_pearson,
    error_counts,
    errors_allowed,
    evaluate,
    images_needed,
    limit_false_alarms,
    limit_misses,
    minimize_cost,
    normal_tolerance_limit,
    upper_limit,
    widened,
)

DRAWS = 1000

Rule = Callable[[Scores, Scores], OperatingPoint]

RULES: dict[str, Rule] = {
    "misses": lambda good, bad: limit_misses(good, bad, 0.05),
    "false alarms": lambda good, bad: limit_false_alarms(good, bad, 0.05),
    "cost": lambda good, bad: minimize_cost(good, bad, Costs(20, 1, 0.05)),
}


@pytest.mark.parametrize(("count", "total"), [(0, 27), (3, 40), (40, 40), (17, 1000)])
def test_the_interval_is_that_of_scipy(count: int, total: int) -> None:
    rate = clopper_pearson(count, total)
    expected = binomtest(count, total).proportion_ci(0.95, "exact")
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert rate.value == count / total


def test_27_images_promise_10_percent_and_299_would_promise_1() -> None:
    assert upper_limit(0, 27) == pytest.approx(1 - 0.05 ** (1 / 27)) == pytest.approx(0.105, abs=1e-4)
    assert images_needed(0.01) == 299
    assert [errors_allowed(total, 0.01) for total in (298, 299, 472, 473)] == [None, 0, 0, 1]


def test_more_errors_are_allowed_only_if_the_upper_limit_permits() -> None:
    for total in (60, 93, 500):
        allowed = errors_allowed(total, 0.05)
        assert allowed is not None
        assert upper_limit(allowed, total) <= 0.05 < upper_limit(allowed + 1, total)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("goods", "bads"), [(110, 17), (60, 60)])
def test_intervals_cover_the_true_rates_of_95_percent_of_simulated_draws(rule: str, goods: int, bads: int) -> None:
    rng = np.random.default_rng(5)
    covered = np.zeros(2)
    for _ in range(DRAWS):
        good, bad = rng.normal(0, 1, goods).astype(np.float32), rng.normal(2, 1, bads).astype(np.float32)
        point = RULES[rule](good, bad)
        truth = norm.cdf(point.threshold, 2), norm.sf(point.threshold)
        for index, (rate, true_rate) in enumerate(zip((point.misses, point.false_alarms), truth, strict=True)):
            assert rate is not None
            covered[index] += rate.low <= true_rate <= rate.high
    assert covered.min() >= 0.95 * DRAWS


@pytest.mark.parametrize("rule", ["misses", "false alarms"])
def test_the_promised_limit_is_kept_in_95_percent_of_simulated_draws(rule: str) -> None:
    rng = np.random.default_rng(6)
    kept = 0
    for _ in range(DRAWS):
        good, bad = rng.exponential(1, 130).astype(np.float32), (rng.exponential(2, 100) + 1).astype(np.float32)
        point = RULES[rule](good, bad)
        assert point.promise is not None
        assert point.promise <= 0.05
        true_rate = 1 - np.exp(-max(0, point.threshold - 1) / 2) if rule == "misses" else np.exp(-point.threshold)
        kept += true_rate <= 0.05
    assert kept >= 0.94 * DRAWS  # 95 % exactly for a continuous distribution: a draw of 1,000 varies by 0.7 %


def test_a_threshold_has_exactly_the_errors_that_are_stated() -> None:
    good, bad = np.float32([0.1, 0.2, 0.3, 0.4]), np.float32([0.35, 0.5, 0.6])
    point = limit_misses(good, bad, 0.05)  # too few to promise anything: just below the lowest
    assert 0.3 < point.threshold <= 0.35
    assert (point.misses.count, point.misses.total, point.false_alarms.count, point.false_alarms.total) == (0, 3, 1, 4)
    assert point.promise == pytest.approx(1 - 0.05 ** (1 / 3))
    point = limit_false_alarms(good, bad, 0.05)
    assert 0.4 < point.threshold < 0.5
    assert (point.misses.count, point.false_alarms.count) == (1, 0)


def test_scores_that_are_neighbouring_numbers_are_separated() -> None:
    low = np.float32(0.7)
    high = np.nextafter(low, np.float32(1))
    point = limit_misses(np.array([low]), np.array([high]), 0.05)
    assert (point.misses.count, point.false_alarms.count) == (0, 0)
    point = limit_false_alarms(np.array([low, low]), np.array([high]), 0.05)
    assert (point.misses.count, point.false_alarms.count) == (0, 0)


def test_equal_scores_of_good_and_bad_images_are_on_the_same_side() -> None:
    scores = np.full(3, 0.5, np.float32)
    assert limit_misses(scores, scores, 0.05).false_alarms.count == 3
    assert limit_false_alarms(scores, scores, 0.05).misses.count == 3


def test_the_cheapest_threshold_follows_the_costs() -> None:
    good, bad = np.float32([1, 2, 3, 4, 5]), np.float32([4.5, 6, 7, 8])
    # A miss of one in four costs 0.1 * 100 / 4 = 2.5 a part, a false alarm of one in five 0.9 * 1 / 5 = 0.18.
    assert 4 < minimize_cost(good, bad, Costs(100, 1, 0.1)).threshold < 4.5
    # 0.1 * 1 / 4 = 0.025 against 0.18.
    assert 5 < minimize_cost(good, bad, Costs(1, 1, 0.1)).threshold < 6
    assert Costs(100, 1, 0.1).per_part(0.25, 0.2) == pytest.approx(2.5 + 0.18)


def test_error_counts_of_all_thresholds_by_hand() -> None:
    thresholds, misses, false_alarms = error_counts(np.float32([1, 3]), np.float32([2, 3]))
    assert thresholds[:3].tolist() == [1, 1.5, 2.5]
    assert thresholds[3] > 3
    assert misses.tolist() == [0, 0, 1, 2]
    assert false_alarms.tolist() == [2, 1, 1, 0]


def test_a_given_threshold_has_exact_intervals_and_a_chosen_one_wider_ones() -> None:
    good, bad = np.arange(100, dtype=np.float32), np.arange(80, 180, dtype=np.float32)
    given, chosen = (evaluate(90, good, bad, chosen_here=chosen) for chosen in (False, True))
    assert given.false_alarms == clopper_pearson(10, 100)
    assert chosen.false_alarms.low < given.false_alarms.low < given.false_alarms.high < chosen.false_alarms.high


@pytest.mark.parametrize("total", [5, 40, 3000])
def test_the_band_contains_all_order_statistics_of_95_percent_of_samples(total: int) -> None:
    ordered = np.sort(np.random.default_rng(7).random((400, total)), axis=1)
    inside = np.ones(400, bool)
    for count in {0, 1, 2, total // 10, total // 3, total - 1}:
        rate = widened(clopper_pearson(count, total))
        inside &= ordered[:, count] >= rate.low  # at the threshold just above it, the rate is higher
        inside &= (ordered[:, count - 1] if count else np.zeros(400)) <= rate.high
    assert inside.mean() >= 0.95


@pytest.mark.parametrize(("size", "factor"), [(3, 7.656), (10, 2.911), (20, 2.396)])
def test_tolerance_factors_are_those_of_the_published_table(size: int, factor: float) -> None:
    values = np.arange(size, dtype=float)  # ISO 16269-6, Table D.4, share 0.95, confidence 0.95
    limit = normal_tolerance_limit(values, 0.05)
    assert (limit - values.mean()) / values.std(ddof=1) == pytest.approx(factor, abs=1e-3)


def test_the_order_statistics_of_a_threshold_are_beta_distributed() -> None:
    assert upper_limit(2, 50) == pytest.approx(beta.ppf(0.95, 3, 48))


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda one: limit_misses(one, one, 0), "the maximum rate of misses is 0; it must be above 0 and below 1"),
        (lambda one: limit_false_alarms(one, one, 2), "the maximum rate of false alarms is 2"),
        (lambda _: Costs(0, 1, 0.1), "the cost of a miss is 0; it must be above 0"),
        (lambda _: Costs(1, 1, 1), "the defect rate is 1; it must be above 0 and below 1"),
    ],
)
def test_shares_and_costs_are_checked(call: Callable[[Scores], object], line: str) -> None:
    with pytest.raises(InvalidInputError, match=line):
        call(np.ones(1, np.float32))
