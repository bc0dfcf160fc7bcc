"""The first pipeline: words in, counts per first letter out.

    python first_pipeline.py

    Iterable ──> 2 processors ──> batcher "count" ──> batch processor
    lines        split, clean     groups of 3 or        adds up
                                  50 ms

A line without words fails, on purpose: its neighbours go on without it.
"""

from collections import Counter

import tailrace as tr

LINES = [
    "the quick brown fox",
    "jumps over",
    "",
    "the lazy dog",
    "and goes on",
]


class Letters(tr.Pipeline):
    """Counts the first letters of words."""

    producer = tr.producers.Iterable(LINES)
    processors = tr.Processors(concurrency=2)
    batchers = {"count": tr.Batcher(batch_size=3, batch_timeout=0.05)}

    def handle_message(self, message: tr.Message) -> tr.Message:
        """Split a line into words."""
        message.data = message.data.split()
        if not message.data:
            return message.fail("no words")
        return message.to("count")

    def handle_batch(
        self, batcher: str, messages: list[tr.Message], info: tr.BatchInfo
    ) -> list[tr.Message]:
        """Add a group of lines up."""
        for message in messages:
            self.context.update(word[0] for word in message.data)
        return messages

    def handle_failed(self, messages: list[tr.Message]) -> list[tr.Message]:
        """Say what was left out."""
        for message in messages:
            print(f"left out: {message.reason}")
        return messages


def main() -> None:
    """Run it and print what it counted."""
    counts: Counter[str] = Counter()
    summary = Letters.run(context=counts)
    print(", ".join(f"{letter}: {count}" for letter, count in sorted(counts.items())))
    print(f"{summary.successful} lines counted, {summary.failed} left out")


if __name__ == "__main__":
    main()
