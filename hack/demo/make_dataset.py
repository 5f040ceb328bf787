#!/usr/bin/env python3
"""Writes the demo's data: questions about capitals as prompt/completion rows.

    make_dataset.py OUT        writes OUT/train.jsonl (400 rows) and OUT/eval.jsonl (40 rows)

Needs nothing but Python. The evaluation rows ask about the same countries in a wording that
training never shows in that combination, so the evaluation loss falls only when the answers
are learned.
"""

import argparse
import json
import pathlib
import random

CAPITALS = {
    "Austria": "Vienna",
    "Belgium": "Brussels",
    "Bulgaria": "Sofia",
    "Croatia": "Zagreb",
    "Denmark": "Copenhagen",
    "Estonia": "Tallinn",
    "Finland": "Helsinki",
    "France": "Paris",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "Ireland": "Dublin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Latvia": "Riga",
    "Norway": "Oslo",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Spain": "Madrid",
    "Sweden": "Stockholm",
}
QUESTIONS = (
    "What is the capital of {}?",
    "Which city is the capital of {}?",
    "Name the capital of {}.",
    "Tell me the capital of {}.",
)
ANSWER = " The capital of {} is {}."
TRAIN_ROWS, EVAL_ROWS = 400, 40


def rows():
    """Every country with every wording: 80 pairs, one of each country's four held out."""
    for index, (country, city) in enumerate(CAPITALS.items()):
        for wording, question in enumerate(QUESTIONS):
            # The first wording always trains: it is the one the demo asks afterwards.
            held_out = wording == 1 + index % 3
            yield held_out, {"prompt": question.format(country), "completion": ANSWER.format(country, city)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()

    draw = random.Random(args.seed)
    train = [row for held_out, row in rows() if not held_out]
    held_out = [row for held_out, row in rows() if held_out]
    train = (train * -(-TRAIN_ROWS // len(train)))[:TRAIN_ROWS]
    evaluation = (held_out * -(-EVAL_ROWS // len(held_out)))[:EVAL_ROWS]
    draw.shuffle(train)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", train), ("eval", evaluation)):
        (args.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    print(f"{args.out}: {len(train)} training rows, {len(evaluation)} evaluation rows")


if __name__ == "__main__":
    main()
