"""What `fieldmark diagnose` is worth, on real trainings: healthy, and with planted faults.

The bank is made by Fieldmark's own training of toy drawings, in some 20 minutes on one core, and
kept; an interrupted build goes on where it was. Healthy is decided by script before any check looks
(`curves.bank`); what names which fault is fixed in `curves.faults`. Checks are tuned on one half.
The other half, of other drawings and seeds, is opened once, at the end: each opening is to be
logged in docs/LOG.md.

    python bench/diagnosis.py
    python bench/diagnosis.py --show
    python bench/diagnosis.py --split held-back --json
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from curves.bank import LABELS, SETTINGS, build_bank
from curves.page import fill
from curves.score import LEAST_NAMED, MOST_FALSE, Judged, Score
from curves.settings import SPLITS, Setting, Split
from fieldmark.training.features import cache_folder

# Those of rehearsals and of labels are measured by `rehearsal.py` and `labels.py`.
ELSEWHERE = {
    *("cannot_overfit_few", "blank_photos_do_as_well", "photos_off_scale"),
    *("rate_far_above_range", "no_band_of_rates"),
    "wrong_labels",
}


def bank_folder() -> Path:
    """$FIELDMARK_BANK, or beside the cache of features."""
    return Path(os.environ.get("FIELDMARK_BANK") or cache_folder().parent / "bank")


def judge(bank: Path, split: Split, settings: int, *, built: bool) -> Score:
    started = time.perf_counter()
    judged = []
    wanted = [Setting(split, number, bank) for number in range(settings)]
    if built:
        wanted = [setting for setting in wanted if (setting.folder / LABELS).is_file()]
    for setting, labelled in build_bank(wanted):
        judged += [Judged.of(one, bank) for one in labelled]
        seconds = time.perf_counter() - started
        print(f"{setting.name}: {len(judged)} so far, {seconds:.0f} s", file=sys.stderr)
    return Score(judged)


def show(score: Score, bank: Path) -> None:
    """Each false alarm and each miss, with its folder."""
    for one in score.judged:
        folder = bank / one.known.folder
        if one.known.fault and not one.is_named:
            print(f"missed: {one.known.fault}: {folder}: {one.found}")
        if one.known.kind == "healthy" and one.problems:
            print(f"false: {', '.join(one.problems)}: {folder} val {one.known.top1}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, default=bank_folder(), help="where runs are kept")
    parser.add_argument("--split", choices=SPLITS, default="tune")
    parser.add_argument("--settings", type=int, default=SETTINGS, help="how many of the split")
    parser.add_argument("--built", action="store_true", help="build no more, judge what is there")
    parser.add_argument("--show", action="store_true", help="name each miss and each false alarm")
    parser.add_argument("--rates", type=Path, help="write the checks' rates into this file")
    parser.add_argument("--page", type=Path, help="put them into docs/diagnosis.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    score = judge(options.bank, options.split, options.settings, built=options.built)
    runs = sum(not one.known.is_study for one in score.judged)
    print(f"{options.split}: {runs} runs and {len(score.judged) - runs} studies\n")
    print("\n".join([*score.by_fault(), "", *score.of_healthy(), ""]))
    print(f"{'check':26} rule severity  own faults    healthy")
    rates = score.by_check()
    for name, of in rates.items():
        print(
            f"{name:26} {of['rule']:4} {of['severity']:8} {of['named']:>5}/{of['faults']:<5} "
            f"{of['alarms']:>5}/{of['healthy']}"
        )
    if options.show:
        show(score, options.bank)
    print("\ntargets:", "missed: " + " · ".join(score.missed) if score.missed else "met")
    if options.rates:
        options.rates.write_text(json.dumps(rates, indent=1) + "\n", encoding="utf-8")
    if options.page:
        fill(options.page, {name: of for name, of in rates.items() if name not in ELSEWHERE})
    if options.json:
        targets = {"named, at least": LEAST_NAMED, "false, at most": MOST_FALSE}
        found = {"named": score.named.share, "false": score.false.share, "checks": rates}
        print(json.dumps(found | {"targets": targets, "missed": score.missed}))
    return 1 if score.missed else 0


if __name__ == "__main__":
    sys.exit(main())
