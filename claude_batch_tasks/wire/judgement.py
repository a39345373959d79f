"""What became of the requests of a batch, by the rows that are stored, and which of them are sent again."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import compress

from claude_batch_tasks import rules
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import Again, RepairOptions
from claude_batch_tasks.wire import answers, stored_rows
from claude_batch_tasks.wire.failure_types import FailureCounter
from claude_batch_tasks.wire.result_rows import Row, any_row, find_odd

#: Returns what is wrong with an answer, given the content of its message as JSON; None: nothing is.
FindProblem = Callable[[bytes], "str | None"]


class Judgement:
    """The counts of rows as they are stored, and the positions of requests that may be sent again.

    Args:
        options: what the job allows to be sent again in batches; None: nothing, since its requests are not known.
        find_problem: says what of an answer does not fit the job's ``output``.
        round_: the round of the rows.
        cut_short: we canceled the batch: what was canceled in it may go to the Messages API.
        sendings: how the requests of a later round were sent, by position; None: as they were submitted.
        origin: the batch that the rows come from.
    """

    def __init__(
        self,
        options: RepairOptions | None = None,
        find_problem: FindProblem | None = None,
        *,
        round_: int = 0,
        cut_short: bool = False,
        sendings: Callable[[int], stored_rows.Sending] | None = None,
        origin: stored_rows.Origin = stored_rows.Origin(None, Prices()),  # noqa: B008 - it does not change
    ) -> None:
        self._options, self._find_problem, self._sendings = options, find_problem, sendings
        self._round, self._cut_short, self._origin = round_, cut_short, origin
        #: Why answers are not checked by the type of the job's ``output``; None: they are, or it has none.
        self.notice: str | None = None
        self.outcomes: Counter[str] = Counter()
        #: Answers that are not complete, by reason, and those with a stop reason that is not known, under its name.
        self.incomplete: Counter[str] = Counter()
        #: The position of one answer that is not complete, for each reason.
        self.incomplete_examples: dict[str, int] = {}
        #: What did not succeed, by type.
        self.failed = FailureCounter()
        #: Positions of the requests that may go to the Messages API, and how many ended with which outcome.
        self.eligible = array("I")
        self.open: Counter[str] = Counter()
        #: Positions of the requests that are in the next smaller batch, if there is one, and by how many bytes each
        #: grows at most: 0, if it is sent as it was submitted.
        self.again, self.growths = array("I"), array("Q")
        #: Outcome so far, reason why the answer is not complete, and kind of each, as an index of the different ones.
        self._causes, self._known = array("H"), list[tuple[str, str | None, rules.SentAs]]()
        #: Positions of those for which it has no room.
        self._left = array("I")
        #: Positions of cut answers, how often their ``max_tokens`` were doubled, to which refusal model they moved,
        #: from 1 (0: to none), and by how many bytes they grow at most.
        self.cut, self._doubled, self._moved, self._grown = array("I"), array("B"), array("H"), array("Q")

    def judge_rows(self, places: Sequence[int], rows: Sequence[Row], lines: list[bytes]) -> list[bytes]:
        """Count rows; return the lines to store."""
        if self._sendings is not None or self._find_problem is not None:
            return list(map(self.judge_row, places, rows, lines))
        odd = find_odd(rows)
        if len(rows) > len(odd):
            self.outcomes["succeeded"] += len(rows) - len(odd)
        for at in odd:
            lines[at] = self.judge_row(places[at], rows[at], lines[at])
        return lines

    def judge_row(self, place: int, row: Row, line: bytes) -> bytes:
        """Count a row; return the line to store."""
        if row.has_own_members:
            line = stored_rows.drop_members(row, line)
            row = any_row(line)
        if self._sendings is not None:
            line = self._sendings(place).add_row(row, line, self._origin)
            row = any_row(line)
        self.outcomes[row.type] += 1
        if row.result.type != "succeeded":
            self._judge_failure(place, row, line)
            return line
        reason = row.incomplete
        if reason is None and self._find_problem is not None:
            row.invalid = self._find_problem(row.content)
            if row.invalid is not None:
                line, reason = stored_rows.add_members(line, {"invalid": row.invalid}), "invalid"
        if (counted := reason or answers.find_unknown(row.stop_reason)) is not None:
            answers.add_reason(self.incomplete, counted)
        if reason is not None:
            self.incomplete_examples.setdefault(reason, place)
        if reason is not None or row.attempts:
            self._send_again(place, row, line)
        return line

    def _judge_failure(self, place: int, row: Row, line: bytes) -> None:
        is_open = rules.may_fall_back(row.type, row.error_type, cut_short=self._cut_short)
        again = is_open and self._send_again(place, row, line)
        self.failed.add_failure(row.type, row.error_type, place, is_open=is_open, again=again)
        if is_open:
            self.eligible.append(place)
            self.open[row.type] += 1

    def _send_again(self, place: int, row: Row, line: bytes) -> bool:
        """Decide whether a request is in the next batch; return False too if that is not known yet."""
        if self._options is None:
            return False
        stored = stored_rows.StoredRow(row, line, self._round, self._origin)
        sending = stored_rows.Sending(stored, self._options)
        if sending.kind == "max_tokens":
            self.cut.append(place)
            self._doubled.append(min(sending.count_kind("max_tokens") - 1, 255))
            self._moved.append(_find_model(self._options.refusal_models, sending.moved_to))
            self._grown.append(stored.most_growth)
            return False
        if sending.kind is not None:
            self._add_again(place, (row.type, row.incomplete, sending.kind), stored.most_growth)
        return sending.kind is not None

    def _add_again(self, place: int, cause: tuple[str, str | None, rules.SentAs], growth: int) -> None:
        if cause not in self._known:
            self._known.append(cause)
        self.again.append(place)
        self.growths.append(growth)
        self._causes.append(self._known.index(cause))

    def count_cuts(self, number: int) -> tuple[int, int]:
        """Return how often the ``max_tokens`` of one of ``cut`` were doubled, and to which refusal model it moved.

        Whether they can be doubled again depends on its params: see ``resend_cut``.
        """
        return self._doubled[number], self._moved[number]

    def resend_cut(self, number: int) -> None:
        """Have the request of one of ``cut`` sent again with more tokens."""
        self._add_again(self.cut[number], ("succeeded", "max_tokens", "max_tokens"), self._grown[number])

    def leave_out(self, left: bytearray) -> None:
        """Leave requests out of the next batch, which has no room for them: they keep their answers.

        Args:
            left: whether each of ``again`` is left out.
        """
        self._left = array("I", compress(self.again, left))
        for each in (self.again, self.growths, self._causes):
            kept = array(each.typecode, (value for value, is_left in zip(each, left, strict=True) if not is_left))
            del each[:]
            each.extend(kept)

    @property
    def again_places(self) -> bytes:
        """Positions of the requests that are in the next smaller batch, then of those for which it has no room."""
        return (self.again + self._left).tobytes()

    @property
    def sent_again(self) -> Again | None:
        """What is in the next smaller batch; None: the requests are not known."""
        if self._options is None:
            return None
        found = Again(count=len(self.again), left=len(self._left), options=self._options)
        for index, count in Counter(self._causes).items():
            outcome, incomplete, kind = self._known[index]
            _add(found.outcomes, outcome, count)
            _add(found.kinds, kind, count)
            if outcome == "succeeded" and incomplete is not None:
                _add(found.incomplete, incomplete, count)
        return found


def _find_model(models: Sequence[str], moved_to: str | None) -> int:
    """Return the number of a refusal model, from 1; 0: it is none."""
    return models.index(moved_to) + 1 if moved_to in models else 0


def _add(counts: dict[str, int], name: str, count: int) -> None:
    counts[name] = counts.get(name, 0) + count
