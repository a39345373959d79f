"""Lines in the log that nobody's set-up of logging silences, hides the text of, or lays a prompt open with."""

from __future__ import annotations

import ast
import json
import logging
import logging.config
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest

import claude_batch_tasks
from claude_batch_tasks import logs
from claude_batch_tasks.checks import problems
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import history
from claude_batch_tasks.worker import log_lines

NAME = "claude_batch_tasks.tests_of_logs"

_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": True,
    "handlers": {"null": {"class": "logging.NullHandler"}},
}


@cache
def sources() -> list[tuple[Path, ast.AST]]:
    """What of this package logs in its users' processes; the simulator is a program of its own."""
    folder = Path(claude_batch_tasks.__file__).parent
    return [(path, ast.parse(path.read_text())) for path in folder.rglob("*.py") if "simulator" not in path.parts]


@pytest.fixture
def _put_back() -> Iterator[None]:
    """What a test configures is undone."""
    root, ours = logging.getLogger(), logging.getLogger("claude_batch_tasks")
    loggers = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    before = [(one, one.disabled) for one in loggers]
    kept, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers = kept
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    for logger, disabled in before:
        logger.disabled = disabled


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)


def _dict_config() -> None:
    logging.config.dictConfig(_CONFIG)


def _dict_config_of_one() -> None:
    logging.config.dictConfig({**_CONFIG, "loggers": {"claude_batch_tasks": {"level": "INFO"}}})


def _file_config(tmp_path: Path) -> None:
    path = tmp_path / "logging.ini"
    path.write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=null\n[formatters]\nkeys=\n"
        "[logger_root]\nhandlers=null\n[handler_null]\nclass=NullHandler\nargs=()\n"
    )
    logging.config.fileConfig(path)


@pytest.mark.usefixtures("_put_back")
@pytest.mark.parametrize("configure", [_dict_config, _dict_config_of_one, _file_config])
def test_a_logger_goes_on_whatever_is_configured_after_it_was_made(
    configure: Callable[..., None], tmp_path: Path
) -> None:
    log, plain, heard = logs.get_logger(NAME), logging.getLogger("somebody.elses"), Records()
    for _ in range(2):  # a project may do it at the start of the worker and of each process
        configure(*([tmp_path] if configure is _file_config else []))
        assert plain.disabled
        logging.getLogger().addHandler(heard)
        log.warning("still %s", "here")
    assert [line.getMessage() for line in heard.records] == ["still here"] * 2


def test_a_level_silences_it(caplog: pytest.LogCaptureFixture) -> None:
    log = logs.get_logger(NAME)
    with caplog.at_level(logging.ERROR, NAME):
        log.warning("unheard")
        log.error("heard")
    assert caplog.messages == ["heard"]


def test_a_traceback_is_text_and_shows_no_variables(caplog: pytest.LogCaptureFixture) -> None:
    prompt = "prompt-never-to-be-seen"
    try:
        if prompt:
            raise ValueError("what went wrong")
    except ValueError:
        logs.get_logger(NAME).exception("%s failed", "it", extra=logs.fields("failed"))
    (line,) = caplog.records
    assert (line.msg, line.exc_info, line.levelno) == ("%s failed\n%s", None, logging.ERROR)
    assert "what went wrong" in line.getMessage()
    assert sys.version_info < (3, 11) or line.funcName == "test_a_traceback_is_text_and_shows_no_variables"
    assert prompt not in line.getMessage()


def test_nothing_here_logs_past_these_loggers() -> None:
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "getLogger":
                assert path.name in ("logs.py", "log_lines.py", "logged_warnings.py"), f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                names = {keyword.arg for keyword in node.keywords}
                assert "exc_info" not in names, f"{path}:{node.lineno}"
                if getattr(node.func.value, "id", None) == "log" and "extra" in names:
                    extra = next(keyword.value for keyword in node.keywords if keyword.arg == "extra")
                    assert isinstance(extra, ast.Name) or ast.unparse(extra).partition("(")[0].endswith("fields")


#: Calls with a template that is no literal, each of a table that a test below is about.
FROM_TABLES = {
    ("store/history.py", "template"),
    ("checks/configuration.py", "finding.template"),
    ("worker/start_checks.py", "found.template"),
}


def templates() -> Iterator[tuple[str, str, ast.expr]]:
    """Where each line is logged, by which method, and its template."""
    for path, tree in sources():
        file = path.relative_to(Path(claude_batch_tasks.__file__).parent).as_posix()
        names: dict[str, list[ast.expr]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                names.setdefault(node.targets[0].id, []).append(node.value)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(getattr(node.func, "value", None), "id", None) == "log":
                assert isinstance(node.func, ast.Attribute)
                text = node.args[node.func.attr == "log"]
                if (file, ast.unparse(text)) in FROM_TABLES:
                    continue
                if isinstance(text, ast.Name) and node.func.attr == "warning":
                    text = names.get(text.id, [text])[-1]
                yield f"{file}:{node.lineno}", node.func.attr, text


def test_each_kind_of_line_has_a_text_of_its_own() -> None:
    """Trackers group by it: a text of arguments alone would make one group of everything."""
    for where, _, text in templates():
        assert isinstance(text, ast.Constant), where
        words = str(text.value).replace("claude_batch_tasks", "").replace("%s", "").strip(" :\n")
        assert words or text.value == "job %s: %s", where


def test_each_error_has_a_template_of_its_own_that_begins_with_a_word() -> None:
    found: dict[str, str] = {}
    for where, method, text in templates():
        if method in ("error", "exception", "critical", "log"):
            assert isinstance(text, ast.Constant), where
            assert str(text.value)[0].isalpha(), where
            assert text.value not in found, (where, found[str(text.value)])
            found[str(text.value)] = where
    assert len(found) > 5


def test_each_event_and_each_problem_has_a_template_of_its_own() -> None:
    kinds = [problems.Finding(f"claude_batch.{number}", logging.ERROR, "text").template for number in ("E001", "E002")]
    texts = [*history._TEMPLATES.values(), *kinds]
    assert len(set(texts)) == len(get_args(history.Event)) + 2
    assert all(text[0].isalpha() for text in texts)


class TestWhatOthersLogOfOurTasksAndCalls:
    """In a worker, Celery's and httpx's INFO lines about our tasks and calls are not shown."""

    STRATEGY, TRACE, HTTP = "celery.worker.strategy", "celery.app.trace", "httpx2"

    @pytest.fixture(autouse=True)
    def _filters(self) -> Iterator[None]:
        loggers = [logging.getLogger(name) for name in log_lines._REPEATED]
        before = [(logger, logger.filters, logger.level) for logger in loggers]
        for logger in loggers:
            logger.filters = []  # a worker that ran in this process has its own
        log_lines.leave_out_repeated()
        log_lines.leave_out_repeated()
        assert [len(logger.filters) for logger in loggers] == [1] * len(loggers)
        yield
        for logger, filters, level in before:
            logger.filters = filters
            logger.setLevel(level)

    def said(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        """Log what they log; return what is shown."""
        caplog.clear()
        for name in ("claude_batch_tasks.poll_batch", "claude_batch_tasks.recover_jobs", "shop.tasks.send"):
            for logger in (self.STRATEGY, self.TRACE):
                context = {"name": name, "id": "id"}
                logging.getLogger(logger).info("Task %(name)s[%(id)s]", context, extra={"data": context})
        logging.getLogger(self.TRACE).error("Task %(name)s raised", {"name": "claude_batch_tasks.run_batch"})
        logging.getLogger(self.HTTP).info("HTTP Request: %s", "theirs")
        with logs.making_call():
            logging.getLogger(self.HTTP).info("HTTP Request: %s", "ours")
        return caplog.messages

    #: What is shown in any case.
    OTHERS: ClassVar = [
        *["Task claude_batch_tasks.recover_jobs[id]"] * 2,
        *["Task shop.tasks.send[id]"] * 2,
        "Task claude_batch_tasks.run_batch raised",
        "HTTP Request: theirs",
    ]

    def test_is_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            assert self.said(caplog) == self.OTHERS

    def test_is_shown_at_debug(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            assert len(self.said(caplog)) == len(self.OTHERS) + 3

    def test_is_shown_where_somebody_set_the_level_of_that_logger(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            logging.getLogger(self.TRACE).setLevel(logging.INFO)
            assert "Task claude_batch_tasks.poll_batch[id]" in self.said(caplog)
            assert "HTTP Request: ours" not in self.said(caplog)
            logging.getLogger(self.HTTP).setLevel(logging.INFO)
            assert "HTTP Request: ours" in self.said(caplog)


def test_fields_have_names_that_nothing_else_has() -> None:
    named = history.fields(Unit("job", 1, 2), "retry", batch_id="msgbatch_1", status=500, endpoint=None)
    assert all(name.startswith("claude_batch_") for name in named)
    assert len(named) == 6


def test_processors_of_others_leave_the_text_alone() -> None:
    record = logging.makeLogRecord({"msg": "%s: created", "args": ("job 1",), "name": NAME})
    vars(record).update(history.fields(Unit("job"), "created", seconds=0.5))
    structlog = pytest.importorskip("structlog")
    jsonlogger = pytest.importorskip("pythonjsonlogger.json")
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
    assert json.loads(formatter.format(record))["event"] == "job 1: created"
    made = json.loads(jsonlogger.JsonFormatter("%(message)s %(levelname)s").format(record))
    assert made["message"] == "job 1: created"
    assert made["claude_batch_event"] == "created"
