"""Generator of the support tickets, for any day and any number of rows.

Each ticket is determined by the day and its number: a day can be regenerated, and a shorter table is the beginning of a
longer one. Customers write English or German, misspell, mix two concerns or say nothing of use, and the agent who
labelled the ticket is sometimes wrong: no model gets all of them right. From `RECALL_FROM` on, some write about the
recall of a product, a topic that did not exist when the model was trained.

Scoring does not need this module; the pipeline reads the files that land.

    python -m batch_scoring.pipelines.support_tickets.data --day 2025-03-03
"""

import argparse
import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from random import Random
from typing import get_args

import pyarrow as pa

from batch_scoring.pipelines.support_tickets import phrases
from batch_scoring.pipelines.support_tickets.phrases import Language, Topic

LANDING = Path("data/support_tickets/landing")
FILE = "tickets.jsonl"

TOPICS: tuple[Topic, ...] = get_args(Topic)
"""What a ticket is about; the last one is new."""

RECALL_FROM = date(2025, 3, 10)
RECALL_SHARE = 0.2

SCHEMA = pa.schema(
    [
        pa.field("ticket_id", pa.string(), nullable=False),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("tier", pa.string(), nullable=False),
        pa.field("earlier_tickets", pa.int64(), nullable=False),
        pa.field("days_since_order", pa.float64()),
        pa.field("subject", pa.string()),
        pa.field("body", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
    ]
)
"""A day's tickets, with the topic that the agent chose when it was closed: it is the label, and does not land."""

_ROWS = (300, 285, 270, 265, 255, 215, 205)
"""Tickets of an ordinary day, from Monday to Sunday."""
_TOPIC_WEIGHTS = (27, 17, 15, 16, 11, 14)
_GERMAN = 0.35
_CHANNELS = {"email": 50, "app": 28, "chat": 22}
_TIERS = {"basic": 66, "plus": 25, "gold": 9}
_DAYS_SINCE_ORDER: dict[Topic, float] = {
    "delivery": 5,
    "returns": 14,
    "payment": 9,
    "defect": 120,
    "account": 60,
    "advice": 90,
    "recall": 400,
}
"""Median for each topic."""
_NEVER_ORDERED: dict[Topic, float] = {"account": 0.25, "advice": 0.55, "recall": 0.1}
_VAGUE = 0.12
"""Share of tickets that say nothing about their topic."""
_TWO_CONCERNS = 0.2
_WRONG_LABEL = 0.03
_CLOCK_AHEAD = 0.004
"""Share of orders that a clock dates after the ticket: the contract rejects them."""
_MISSPELT = {"email": 0.025, "app": 0.05, "chat": 0.07}
"""Share of words, by channel."""

_EITHER = re.compile(r"\(([^()]*\|[^()]*)\)")
_WORD = re.compile(r"[^\W\d_]{4,}")
_WITHOUT_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})


def tickets(day: date, rows: int | None = None) -> pa.Table:
    """Return a day's tickets.

    Args:
        day: seeds the values.
        rows: number of tickets; as many as usual on such a day if None.

    Returns:
        A table of `SCHEMA`, in the order of the ids.
    """
    count = usual_rows(day) if rows is None else rows
    return pa.Table.from_pylist([_ticket(day, number) for number in range(count)], SCHEMA)


def usual_rows(day: date) -> int:
    """Return how many tickets come in on a day: fewer at weekends, more while the recall lasts."""
    ordinary = _ROWS[day.weekday()] * Random(day.toordinal()).uniform(0.93, 1.07)
    return round(ordinary / (1 - RECALL_SHARE) if day >= RECALL_FROM else ordinary)


def write_day(day: date, landing: Path, rows: int | None = None) -> Path:
    """Write a day's file into the landing folder, `<landing>/dt=<day>/tickets.jsonl`, without the topics.

    A field without a value is left out.
    """
    target = landing / f"dt={day}" / FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    growing = target.with_name(f".{target.name}.growing")  # names that begin with a dot are not data
    with growing.open("w", encoding="utf-8", newline="\n") as file:
        for row in tickets(day, rows).drop_columns("topic").to_pylist():
            given = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps(given, ensure_ascii=False) + "\n")
    growing.replace(target)
    return target


def _ticket(day: date, number: int) -> dict[str, object]:
    """Return one row of `SCHEMA`."""
    random = Random(day.toordinal() * 10_000_000 + number)
    topic = _topic(random, day)
    language: Language = "de" if random.random() < _GERMAN else "en"
    channel = _weighted(random, _CHANNELS)
    subject, body = _Writer(random, language, channel, topic).texts()
    return {
        "ticket_id": f"{day:%y%m%d}-{number:05d}",
        "channel": channel,
        "tier": _weighted(random, _TIERS),
        "earlier_tickets": int(random.expovariate(1 / 1.4)),
        "days_since_order": _days_since_order(random, topic),
        "subject": subject,
        "body": body,
        "topic": random.choice(TOPICS[:-1]) if random.random() < _WRONG_LABEL else topic,
    }


def _topic(random: Random, day: date) -> Topic:
    if day >= RECALL_FROM and random.random() < RECALL_SHARE:
        return "recall"
    return random.choices(TOPICS[:-1], _TOPIC_WEIGHTS)[0]


def _weighted(random: Random, weights: dict[str, int]) -> str:
    return random.choices([*weights], [*weights.values()])[0]


def _days_since_order(random: Random, topic: Topic) -> float | None:
    if random.random() < _NEVER_ORDERED.get(topic, 0.02):
        return None
    if random.random() < _CLOCK_AHEAD:
        return -round(random.uniform(0.1, 1), 1)
    return round(_DAYS_SINCE_ORDER[topic] * random.lognormvariate(0, 0.7), 1)


def _product(random: Random, language: Language) -> dict[str, str]:
    """Return a product, as the sentences of the language name it."""
    product = random.choice(phrases.PRODUCTS[language])
    if language == "en":
        return {"product": product}
    article, name = product.split(" ", 1)
    return {
        "product": name[0].upper() + name[1:],
        "der_product": product,
        "Der_product": f"{article.title()} {name}",
        "den_product": f"{article.replace('der', 'den')} {name}",
    }


class _Writer:
    """A customer who writes a ticket."""

    def __init__(self, random: Random, language: Language, channel: str, topic: Topic) -> None:
        self._random, self._language, self._channel, self._topic = random, language, channel, topic
        self._is_vague = random.random() < _VAGUE
        self._without_umlauts = random.random() < 0.15
        self._words = {
            **_product(random, language),
            "recalled": phrases.RECALLED[language],
            "colour": random.choice(phrases.COLOURS[language]),
            "city": random.choice(phrases.CITIES),
            "name": random.choice(phrases.NAMES),
            "order": str(random.randrange(400_000, 990_000)),
            "number": str(random.randrange(2, 40)),
            "amount": f"{random.randrange(9, 400)}{phrases.DECIMAL[language]}{random.choice(('00', '50', '95'))}",
            "weekday": random.choice(phrases.WEEKDAYS[language]),
            "voltage": random.choice(("110", "230")),
        }

    def texts(self) -> tuple[str | None, str]:
        """Return subject and body."""
        return self._subject(), self._body()

    def _subject(self) -> str | None:
        if self._channel == "chat":
            return None
        vague = self._is_vague or self._random.random() < 0.3
        known = phrases.VAGUE_SUBJECTS[self._language] if vague else phrases.SUBJECTS[self._language][self._topic]
        subject = self._spelt(self._random.choice(known))
        return subject[0].upper() + subject[1:]

    def _body(self) -> str:
        sentences = self._concerns() + self._some(phrases.FILLERS[self._language], self._random.choice((0, 1, 1, 2)))
        if self._channel != "email":
            return self._spelt(" ".join(sentences))
        greeting = self._random.choice(phrases.GREETINGS[self._language])
        closing = self._random.choice(phrases.CLOSINGS[self._language])
        return self._spelt(f"{greeting}\n{' '.join(sentences)}\n{closing}")

    def _concerns(self) -> list[str]:
        """Return what the ticket is about; a second topic may come first."""
        if self._is_vague:
            return self._some(phrases.VAGUE[self._language], 2)
        of_topic = phrases.SENTENCES[self._language]
        found = self._some(of_topic[self._topic], self._random.choice((1, 1, 2)))
        if self._random.random() < _TWO_CONCERNS:
            other = self._random.choice([topic for topic in TOPICS[:-1] if topic != self._topic])
            found += self._some(of_topic[other], self._random.choice((1, 2)))
            self._random.shuffle(found)
        return found

    def _some(self, sentences: Sequence[str], count: int) -> list[str]:
        return self._random.sample(sentences, count)

    def _spelt(self, text: str) -> str:
        """Fill in the words, and misspell some."""
        chosen = _EITHER.sub(lambda found: self._random.choice(found[1].split("|")), text).format(**self._words)
        written = _WORD.sub(lambda found: self._misspelt(found[0]), chosen)
        if self._channel == "chat" and self._random.random() < 0.6:
            written = written.lower()
        return written.translate(_WITHOUT_UMLAUTS) if self._without_umlauts else written

    def _misspelt(self, word: str) -> str:
        """Return the word, or with some probability one with a letter lost, doubled or swapped."""
        if self._random.random() >= _MISSPELT[self._channel]:
            return word
        at = self._random.randrange(1, len(word) - 1)
        change = self._random.choice(("", word[at] * 2, word[at + 1] + word[at]))
        return word[:at] + change + word[at + (2 if len(change) == 2 and change != word[at] * 2 else 1) :]


def main() -> None:
    """Run the command: write one day."""
    parser = argparse.ArgumentParser(description="Write one day of the support tickets.")
    parser.add_argument("--day", type=date.fromisoformat, required=True, help="YYYY-MM-DD")
    parser.add_argument("--rows", type=int, help="as many as usual on such a day if not given")
    parser.add_argument("--out", type=Path, default=LANDING, help="folder that contains dt=YYYY-MM-DD")
    arguments = parser.parse_args()
    file = write_day(arguments.day, arguments.out, arguments.rows)
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
