"""Turns runs into medians, ratios and verdicts, and prints them."""

import statistics
import sys

from cases import CPU, LOOKUPS, METRIC_NAMES, PEER, SRSD, Case, Target

NOISY_PERCENT = 10.0
METRICS = (
    LOOKUPS,
    CPU,
    "p50_us",
    "p99_us",
    "client_cpu_us",
    "resident_mb",
    "others_percent",
    "stolen_percent",
)


def spread(values: list[float]) -> dict | None:
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": values}


def good(result: dict) -> bool:
    return not result["errors"]


def summarise(case: Case, results: dict[str, list[dict]]) -> dict:
    summary = {"name": case.name, "servers": {}, "ratios": {}, "targets": []}
    for name, rounds in results.items():
        fine = [result for result in rounds if good(result)]
        summary["servers"][name] = {
            "failed_runs": len(rounds) - len(fine),
            "first_error": next((result["first_error"] for result in rounds if not good(result)), ""),
        } | {metric: spread([result[metric] for result in fine]) for metric in METRICS}
    if PEER in results:
        # Round by round, so that what the machine does meanwhile cancels out.
        pairs = [(a, b) for a, b in zip(results[SRSD], results[PEER], strict=True) if good(a) and good(b)]
        summary["ratios"] = {
            metric: spread([a[metric] / b[metric] for a, b in pairs]) for metric in (LOOKUPS, CPU)
        }
    for target in case.targets:
        ratio = summary["ratios"].get(target.metric)
        # An error of ours is no small matter: no target is reached with one.
        clean = not summary["servers"][SRSD]["failed_runs"]
        reached = clean and target.reached(ratio["median"]) if ratio else None
        summary["targets"].append({"metric": target.metric, "target": str(target), "reached": reached})
    return summary


def own_figure(target: Target, figure: dict) -> dict:
    return {
        "metric": target.metric,
        "target": str(target),
        "reached": target.reached(figure["median"]),
    } | figure


def worst_median(cases: list[dict], metric: str) -> float:
    """The largest median of a metric over all servers of all cases."""
    figures = [server[metric] for case in cases for server in case["servers"].values()]
    return max((figure["median"] for figure in figures if figure), default=0.0)


# ---- what is printed ----


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 10 else f"{value:.1f}"


def with_spread(figure: dict | None) -> str:
    if not figure:
        return "-"
    return f"{number(figure['median'])} ({number(figure['min'])}..{number(figure['max'])})"


def verdict(target: dict) -> str:
    if target["reached"] is None:
        return f"target {target['target']}: not compared"
    return f"target {target['target']}: {'reached' if target['reached'] else 'NOT REACHED'}"


def print_case(title: str, summary: dict) -> None:
    print(f"\n{title}")
    print(f"  {'':20} {'lookups/s':>26} {'CPU us/lookup':>20} {'p50 us':>8} {'p99 us':>8}")
    for name, figures in summary["servers"].items():
        if figures["failed_runs"]:
            print(f"  {name}: {figures['failed_runs']} FAILED runs: {figures['first_error']}")
        if figures[LOOKUPS]:
            p50, p99 = (number(figures[metric]["median"]) for metric in ("p50_us", "p99_us"))
            rate, cpu = with_spread(figures[LOOKUPS]), with_spread(figures[CPU])
            print(f"  {name:20} {rate:>26} {cpu:>20} {p50:>8} {p99:>8}")
    targets = {target["metric"]: verdict(target) for target in summary["targets"]}
    for metric, words in METRIC_NAMES.items():
        ratio = summary["ratios"].get(metric)
        if ratio or metric in targets:
            print(f"  srsd / PostSRSd, {words:15} {with_spread(ratio):24} {targets.get(metric, '')}")
    others = worst_median([summary], "others_percent")
    if others > NOISY_PERCENT:
        print(f"  noisy: other programs took {others:.0f} % of the cores")
    sys.stdout.flush()
