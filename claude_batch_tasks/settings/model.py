"""Every ``claude_batch_*`` setting: name, default, unit, meaning.

A setting is read from the app's configuration, whatever that is made of, under one of these names:
``claude_batch_poll_min``, ``CLAUDE_BATCH_POLL_MIN`` (Django, Flask), ``CELERY_CLAUDE_BATCH_POLL_MIN`` (with Django's
namespace, and without a namespace). The ready-made app reads the environment (``CLAUDE_BATCH_POLL_MIN``).
Most settings can be overridden for one job by a keyword of ``run_batch``: ``run_batch.delay(requests, poll_max=30)``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from celery import Celery

from claude_batch_tasks import rules
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.pricing.prices import Prices, check_overrides
from claude_batch_tasks.records import JobRecord
from claude_batch_tasks.settings import encryption_keys, spelling, store_urls
from claude_batch_tasks.settings.payload_urls import check_payload_url
from claude_batch_tasks.settings.spelling import CELERY, PREFIX

_DEFAULT_FACTORY = "claude_batch_tasks.api.default_client"
_MOST = 1_000_000_000
_Field: TypeAlias = dataclasses.Field[Any]
#: Prefixes that are refused: those that access rules cannot name, and those that make the hash tag of the keys after
#: them ineffective.
_NO_PREFIX = re.compile(r"[^{]*\{\}|.*\s", re.DOTALL)
#: The broker and the result back end of the ready-made app, if the environment names none.
DEFAULT_URL = "redis://localhost:6379/0"
#: Texts that may be sent in a header unchanged.
_HEADER = re.compile(r"[\w.:-]{1,200}", re.ASCII)


def _setting(
    default: Any,
    meaning: str,
    *,
    least: float = 0,
    per_job: bool = True,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Return a dataclass field with the metadata that ``_check_value`` and the documentation need."""
    return field(
        **({"default_factory": default} if callable(default) else {"default": default}),
        repr=not secret,
        metadata={"meaning": meaning, "least": least, "per_job": per_job, "choices": choices},
    )


@dataclass(frozen=True)
class Settings:
    """The settings of an app, each under its name without the prefix. Durations are seconds, with fractions allowed."""

    store_url: str | None = _setting(
        None,
        "address of the store of jobs, prompts and results: the URL of a Redis or of a PostgreSQL, `django://<alias>` "
        "for a PostgreSQL of Django's, or the dotted path of a SQLAlchemy engine; default: the result back end, else "
        "the broker, if it is a Redis",
        per_job=False,
        secret=True,
    )
    store_prefix: str | None = _setting(
        None,
        "prefix of all keys in Redis, or of the schema's name in PostgreSQL (it stands directly before "
        "`claude_batch`), for projects that share a database; default: in Redis the `global_keyprefix` of the result "
        "back end's or the broker's transport options, else none",
        per_job=False,
    )
    encryption_key: tuple[str, ...] | None = _setting(
        None,
        "key that encrypts prompts, answers and custom_ids in the store: 32 bytes in base64 (`openssl rand -base64 32` "
        "makes one); of several keys (a list, or text with commas) the first encrypts and all decrypt",
        per_job=False,
        secret=True,
    )
    payload_url: str | None = _setting(
        None,
        "where requests and results are stored, in place of the store: `s3://bucket/prefix`, `gs://bucket/prefix`, "
        "`az://container/prefix` or `file:///folder`; see docs/howto/payloads_elsewhere.md",
        per_job=False,
    )
    poll_min: float = _setting(5.0, "shortest time between two polls of a batch, seconds", least=0.01)
    poll_max: float = _setting(120.0, "longest time between two polls of a batch, seconds", least=0.01)
    retry_min: float = _setting(2.0, "longest countdown after the first failure, seconds", least=0.01)
    retry_max: float = _setting(300.0, "longest countdown after any failure, seconds", least=0.01)
    not_found_grace: float = _setting(
        900.0, "seconds after a batch was last seen in which a 404 counts as propagation delay"
    )
    listings: int = _setting(
        3, "complete list calls that must not show a batch before it counts as lost or as never created", least=1
    )
    create_not_found_limit: int = _setting(5, "404s in a row on create before the batch falls back or fails", least=1)
    create_settle: float = _setting(
        120.0, "seconds for which the batch of an unanswered create is searched for before it counts as never created"
    )
    on_unresolved_create: Literal["resubmit", "fail"] = _setting(
        "resubmit",
        "what follows if that search finds nothing: `resubmit` creates the batch again, `fail` ends the job, so that a "
        "person decides",
        choices=("resubmit", "fail"),
    )
    """A batch that was created shows in the account's list calls. After ``create_settle`` seconds and ``listings``
    complete list calls without it, the batch was almost certainly never created: sending it again pays nothing twice,
    and no person has to act at night. The remaining risk is a list call that lags by more than ``create_settle``. To
    exclude that risk, set a longer ``create_settle``, or ``fail``."""
    proxy_error_grace: float = _setting(
        21_600.0,
        "seconds for which a call is tried again after a refusal that is not in the API's own form (a challenge "
        "page, a proxy's 401); then the job fails, and can be resumed",
    )
    clock_skew: float = _setting(
        300.0,
        "seconds by which Anthropic's clock may differ from the store's, beyond what its answers show, when the "
        "batch of an unanswered create is searched for",
    )
    results_limit: int = _setting(10, "downloads of a result file that is not complete before the batch fails", least=1)
    fallback: Literal["messages", "off"] = _setting(
        "messages",
        "`messages`: what still failed with a temporary error goes through the Messages API at full price; `off`: it "
        "does not",
        choices=("messages", "off"),
    )
    max_fallback_requests: int = _setting(
        1000, "requests of one job that may go through the Messages API; the outcome of the rest stays unchanged"
    )
    messages_limit: int = _setting(
        8,
        "refusals (429, overloaded, 404) of one request by the Messages API before its outcome stays unchanged",
        least=1,
    )
    retries: int = _setting(
        2,
        "smaller batches, one after the other, in which requests that failed with a temporary error are sent again "
        "at half price",
    )
    refusal_model: tuple[str, ...] | None = _setting(
        None,
        "model to which a refused request is sent again, in a batch; of several (a list, or text with commas), each "
        "gets what the one before refused; none: refused requests are not sent again",
    )
    max_tokens_limit: int | None = _setting(
        None,
        "most `max_tokens` with which a request is sent again whose answer was cut at `max_tokens`: it doubles each "
        "time, up to this and the model's limit; none: such requests are not sent again",
        least=1,
    )
    continue_paused: int = _setting(
        5, "times that an answer is continued, in a batch, that paused in the middle of a server tool"
    )
    reask: int = _setting(
        0, "times that a request whose answer is invalid is sent again, with this answer and what is wrong with it"
    )
    deadline: float | None = _setting(
        None,
        "seconds after the submission (for one job also a datetime) by which answers are wanted: requests for which a "
        "smaller batch would be too late go through the Messages API at once",
    )
    max_fallback_cost: float | None = _setting(
        5.0,
        "US dollars that the requests of one job may cost at the Messages API; the outcome of the rest stays "
        "unchanged; none: no limit",
    )
    max_cost: float | None = _setting(
        None,
        "US dollars that one job may cost, batches and Messages API together; nothing more is sent when they are spent",
    )
    max_messages_in_flight: int = _setting(
        64, "calls of the Messages API that all workers together make at a time, for one account and model", least=1
    )
    prices: Mapping[str, Mapping[str, float]] = _setting(
        dict,
        "model -> US dollars per million tokens at the Messages API, in place of those of genai-prices: input_mtok, "
        "output_mtok, and if they differ from Anthropic's usual multiples cache_read_mtok, cache_write_mtok, "
        "cache_write_1h_mtok",
        per_job=False,
    )
    max_wait: float | None = _setting(
        None,
        "seconds after which a job stops waiting and fails, without canceling its batches; none: never",
        least=0.01,
    )
    max_requests_per_batch: int = _setting(100_000, "most requests in one batch (Anthropic's limit: 100,000)", least=1)
    max_bytes_per_batch: int = _setting(
        256_000_000, "most bytes in the body of one create (Anthropic's limit: 256 MB)", least=1000
    )
    max_batches_in_flight: int = _setting(
        5,
        "batches of one job that are at Anthropic at a time; an account's queue takes 200,000 to 500,000 requests, "
        "by tier",
        least=1,
    )
    ask_max_requests: int = _setting(
        1000, "asks in a pool that make it a job at once, without waiting for more", least=1, per_job=False
    )
    ask_max_bytes: int = _setting(
        32_000_000, "bytes of the requests in a pool that make it a job, likewise", least=1000, per_job=False
    )
    ask_max_wait: float = _setting(
        60.0, "longest time for which a pool waits for more asks before it becomes a job, seconds", per_job=False
    )
    ask_max_cost: float | None = _setting(
        None,
        "US dollars that all asks of one pool name may cost in a window of `ask_cost_window` seconds; an ask over it "
        "is refused at the caller; none: no limit",
        per_job=False,
    )
    ask_cost_window: float = _setting(
        86_400.0, "length of the windows of `ask_max_cost`, seconds; they begin at midnight UTC", least=1, per_job=False
    )
    ask_mode: Literal["batch", "messages", "eager-simulator"] = _setting(
        "batch",
        "how an ask is answered: `batch` at half price; `messages` at once, through the Messages API, at full price; "
        "`eager-simulator` in the calling process, by the simulator, for tests",
        choices=("batch", "messages", "eager-simulator"),
        per_job=False,
    )
    result_ttl: float = _setting(
        604_800.0, "seconds for which requests, results and record of a job are stored after its end", least=1
    )
    timeout: float = _setting(
        60.0, "seconds without a byte after which a call or a download counts as failed", least=0.01
    )
    lease: float = _setting(
        20.0,
        "seconds after which another worker may take over a step whose worker died (a living worker renews its lease)",
        least=0.5,
    )
    max_step_failures: int = _setting(
        10,
        "times in a row that a step may be interrupted (by an unknown exception, a time limit, a killed worker) before "
        "its batch fails with that reason; what was paid for stays stored, and the job can be resumed",
        least=1,
    )
    recover_every: float = _setting(
        15.0, "seconds between two searches of a worker for messages that the broker lost", least=0.1, per_job=False
    )
    recover_after: float = _setting(
        30.0,
        "seconds by which a message must be overdue before it counts as lost and is sent again",
        least=0.1,
        per_job=False,
    )
    spool_dir: str | None = _setting(
        None,
        "directory for answers of the Messages API while the store does not accept them, on a disk that outlives the "
        "worker; any worker with that directory moves them into the store. none: they stay in the worker's memory "
        "until the store accepts them",
        per_job=False,
    )
    client_factories: Mapping[str, str] = _setting(
        lambda: {"default": _DEFAULT_FACTORY},
        "alias -> dotted path of a callable that returns an anthropic.Anthropic",
        per_job=False,
    )
    workspace_id: str | None = _setting(
        None, "workspace that a job's calls name (`wrkspc_...`), for a credential that may use several"
    )
    user_profile_id: str | None = _setting(
        None, "user profile to which a job's requests are attributed, on create and at the Messages API"
    )
    betas: tuple[str, ...] = _setting(
        (), "beta versions that all calls of a job name, such as `output-300k-2026-03-24`"
    )
    instruments: tuple[str, ...] = _setting(
        (),
        "where a worker's metrics go: `prometheus`, `opentelemetry`, dotted paths of your own classes (see "
        "docs/howto/monitoring.md)",
        per_job=False,
    )
    metrics_port: int | None = _setting(
        None, "port on which a worker serves its metrics to Prometheus; none: it does not", least=1, per_job=False
    )
    metrics_job_label: bool = _setting(
        False,
        "whether the metrics of requests, answers, repairs, costs and ended jobs carry each job's `label`; set it only "
        "if there are few different labels, since each becomes time series of its own",
        per_job=False,
    )

    _chosen: ClassVar[frozenset[str]] = frozenset()
    """The settings that the app sets; of an instance, if it is an app's."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _check_value(f, getattr(self, f.name)))
        if self.store_url is not None:
            object.__setattr__(self, "store_url", store_urls.store_url(self.store_url))
            store_urls.check_prefix(self.store_url, self.store_prefix or "")
        if self.payload_url is not None:
            object.__setattr__(self, "payload_url", check_payload_url(self.payload_url))
        for low, high in (("poll_min", "poll_max"), ("retry_min", "retry_max")):
            if getattr(self, low) > getattr(self, high):
                raise InvalidSettings(f"{PREFIX}{low} is greater than {PREFIX}{high}")
        for name, limit in (("max_requests_per_batch", 100_000), ("max_bytes_per_batch", 256_000_000)):
            if getattr(self, name) > limit:
                raise InvalidSettings(f"{PREFIX}{name} is over Anthropic's limit of {limit:,}")

    @classmethod
    def of(cls, app: Celery) -> Settings:
        """Return the settings of a Celery app.

        Raises:
            InvalidSettings: a ``claude_batch_*`` name is unknown, or a value is not valid.
        """
        given = spelling.read_configured(app)
        for name, (key, _) in given.items():
            _require_known(name, NAMES, PREFIX, key=key)
        try:
            values = {name: each.value for name, each in given.items()}
            if isinstance(values.get("store_url"), str):
                values["store_url"] = store_urls.complete_url(app, values["store_url"])
            settings = cls(**values)
            url = settings.store_url or store_urls.default_store_url(app)
            own: dict[str, Any] = {} if settings.store_url else {"store_url": url}
            if settings.store_prefix is None:
                own["store_prefix"] = store_urls.default_prefix(app, url)
            if own:
                settings = dataclasses.replace(settings, **own)
        except InvalidSettings as exc:
            raise InvalidSettings(spelling.in_its_words(app, str(exc), NAMES, given)) from None
        object.__setattr__(settings, "_chosen", frozenset(values))
        return settings

    def check_key(self, name: str | None) -> None:
        """Check that we have the encryption key of that name.

        Raises:
            KeyMissing: we do not have it; what is encrypted with it stays in the store.
        """
        encryption_keys.check_key_name(encryption_keys.decode_keys(self.encryption_key or ()), name)

    @property
    def price_list(self) -> Prices:
        """The prices of models: the operator's own, else the listed ones."""
        return _price_list(json.dumps(self.prices))

    def find_refusal_model(self, model: str) -> str | None:
        """Return the name under which ``refusal_model`` has a model; None: it does not have it."""
        return next((each for each in self.refusal_model or () if rules.is_same_model(each, model)), None)

    def override(self, options: Mapping[str, Any]) -> Settings:
        """Return these settings with a job's own options in place of theirs.

        Raises:
            InvalidSettings: an option is unknown or cannot be set per job, or a value is not valid.
        """
        if not options:
            return self
        per_job = {f.name for f in dataclasses.fields(self) if f.metadata["per_job"]}
        kind = "run_batch option"
        return dataclasses.replace(
            self, **{_require_known(name, per_job, "", kind=kind): value for name, value in options.items()}
        )

    def of_job(self, job: JobRecord) -> Settings:
        """Return these settings with a job's own options in place of theirs.

        A default of a later release does not hold for a job that an earlier one submitted: what that began must not be
        cut off by an upgrade.

        Raises:
            InvalidSettings: as for ``override``.
        """
        options = dict(job.options)
        for release, name, value in _EARLIER_DEFAULTS:
            if job.defaults < release and name not in self._chosen:
                options.setdefault(name, value)
        return self.override(options)

    def check_client(self, alias: str) -> None:
        """Check that a client factory has this alias.

        Raises:
            InvalidSettings: no client factory has it.
        """
        if alias not in self.client_factories:
            known = ", ".join(sorted(self.client_factories))
            raise InvalidSettings(f"client {alias!r} is not in claude_batch_client_factories; known: {known}")


#: What held before the defaults of a release (``JobRecord.defaults``) did.
_EARLIER_DEFAULTS: tuple[tuple[int, str, Any], ...] = ((1, "max_fallback_cost", None), (2, "continue_paused", 0))

#: The settings by name.
FIELDS = {f.name: f for f in dataclasses.fields(Settings)}
NAMES = frozenset(FIELDS)


@functools.lru_cache(maxsize=32)
def _price_list(overrides: str) -> Prices:
    return Prices(json.loads(overrides))


def from_environment(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the ``claude_batch_*`` settings found in the environment as ``CLAUDE_BATCH_*``, checked.

    Raises:
        InvalidSettings: a name is unknown, or a value is not valid; the text has the name as the environment has it.
    """
    given = spelling.find_unique(((key, value) for key, value in environ.items() if value != ""), ("", CELERY))
    found = {}
    for name, (key, value) in given.items():
        try:
            found[PREFIX + name] = _check_value(FIELDS[_require_known(name, NAMES, PREFIX)], value)
        except InvalidSettings as exc:
            raise InvalidSettings(f"{key} in the environment: {exc}") from None
    return found


def configuration(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return all settings of the ready-made app from an environment; a ``celeryconfig.py`` may begin with the same.

    Raises:
        InvalidSettings: a ``CLAUDE_BATCH_*`` variable is unknown or is not valid.
    """
    broker = environ.get("CELERY_BROKER_URL") or DEFAULT_URL
    backend = environ.get("CELERY_RESULT_BACKEND") or (
        broker if broker.startswith(("redis", "valkey")) else DEFAULT_URL
    )
    return {
        "broker_url": broker,
        "result_backend": backend,
        "broker_connection_retry_on_startup": True,
        # By default, Celery ends the worker after a hundred tries.
        "broker_connection_max_retries": None,
        # For a result back end that is a Redis: by default, Celery waits for two minutes.
        "redis_socket_timeout": 10.0,
        "redis_socket_connect_timeout": 5.0,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": 10,
        "broker_transport_options": {
            # Four times our longest countdown; messages that a killed worker held are handed out again after so many
            # seconds.
            "visibility_timeout": 2400,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
        },
        "enable_utc": True,
        "timezone": "UTC",
        # A batch may run for 24 hours, and its result must still be there when somebody asks.
        "result_expires": 7 * 86_400,
        "result_extended": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_send_sent_event": True,
        "task_track_started": True,
        # True would kill the steps that run when the broker connection is lost. If one of them is a create, its batch
        # would have to be searched for; and if the result back end is unreachable as well, Celery 5.7 stores a job as
        # REVOKED.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": True,
        "worker_soft_shutdown_timeout": 30,
        **from_environment(environ),
    }


def prices_of(app: Celery) -> Any:
    """Return the app's own prices; no other setting needs to be set for that."""
    given = spelling.read_configured(app).get("prices")
    return (given and given.value) or {}


def visibility_timeout(app: Celery) -> float:
    """Return the seconds after which the app's broker delivers an unacknowledged message again."""
    options = app.conf.broker_transport_options or {}
    return float(options.get("visibility_timeout", rules.DEFAULT_VISIBILITY_TIMEOUT))


def _require_known(name: str, names: Collection[str], prefix: str, *, key: str = "", kind: str = "setting") -> str:
    """Return a name if it is one of ``names``.

    Args:
        key: the name as it is spelled where it was found, if that has to be said.
        kind: what the names are.

    Raises:
        InvalidSettings: it is none of them.
    """
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(names))}"
    if close and key not in ("", PREFIX + name):
        hint += f" Write {spelling.respell_setting(key, name, close[0])} in place of {key}"
    raise InvalidSettings(f"unknown {kind} {prefix}{name}{hint}")


def _check_value(f: _Field, value: Any) -> Any:
    """Return a setting's value in the setting's type, converted if it is text, as from the environment."""
    kind = str(f.type)
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        if "None" in kind:
            return None
        raise _make_error(f, value, "set")
    if read := _READERS.get(f.name) or _READERS_OF_KINDS.get(kind[:3]):
        return read(f, value)
    return _read_number(f, value)


def _make_error(f: _Field, value: Any, expected: str) -> InvalidSettings:
    given = repr(value) if f.repr else f"of type {type(value).__name__}"  # the value may hold a password
    return InvalidSettings(f"{PREFIX}{f.name} must be {expected}, not {given} ({f.metadata['meaning']})")


#: How an environment spells True and False.
_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _read_choice(f: _Field, value: Any) -> Any:
    if value not in f.metadata["choices"]:
        raise _make_error(f, value, " or ".join(map(repr, f.metadata["choices"])))
    return value


def _read_prices(f: _Field, value: Any) -> Mapping[str, Mapping[str, float]]:
    try:
        return check_overrides(value)
    except ValueError as exc:
        raise InvalidSettings(f"{PREFIX}{f.name}: {exc}") from None


def _read_text(f: _Field, value: Any) -> str:
    if not isinstance(value, str):
        raise _make_error(f, value, "a text")
    if f.name in ("workspace_id", "user_profile_id") and not _HEADER.fullmatch(value):
        raise _make_error(f, value, "an id as the Console shows it")
    if f.name == "store_prefix" and _NO_PREFIX.match(value):
        raise _make_error(f, value, "without spaces and without {}")
    return value


def _read_switch(f: _Field, value: Any) -> bool:
    word = str(value).lower()
    if word not in _SWITCH:
        raise _make_error(f, value, "True or False")
    return _SWITCH[word]


def _read_number(f: _Field, value: Any) -> float:
    whole = str(f.type).startswith("int")
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if whole:
            if number != int(number):
                raise ValueError
            number = int(number)
    except (TypeError, ValueError, OverflowError):
        raise _make_error(f, value, "a whole number" if whole else "a number") from None
    if not f.metadata["least"] <= number <= _MOST:  # not for NaN
        raise _make_error(f, value, f"from {f.metadata['least']} to {_MOST:,}")
    return number


def _read_names(f: _Field, value: Any) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise _make_error(f, value, "a list of names")
    if f.name == "betas" and not all(map(_HEADER.fullmatch, names)):
        raise _make_error(f, value, "a list of names of beta versions")
    return tuple(dict.fromkeys(names))


def _read_keys(f: _Field, value: Any) -> tuple[str, ...]:
    """Return the keys in a text or a list. The error for a wrong key does not show the key."""
    texts = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
    try:
        texts = tuple(texts)
        encryption_keys.decode_keys(texts)
    except (TypeError, ValueError, AttributeError):
        raise InvalidSettings(
            f"{encryption_keys.SETTING} must be 32 bytes in base64, or several of them; "
            "make one with: openssl rand -base64 32"
        ) from None
    return texts


def _read_factories(f: _Field, value: Any) -> Mapping[str, str]:
    try:
        paths = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise _make_error(f, value, "a JSON object of alias: dotted path") from None
    if not isinstance(paths, Mapping) or not all("." in str(path) for path in paths.values()):
        raise _make_error(f, value, "a mapping of alias to dotted path")
    return {"default": _DEFAULT_FACTORY, **{str(alias): str(path) for alias, path in paths.items()}}


#: How the values of a setting are read, by its name; else by the beginning of its type; else as a number.
_READERS: dict[str, Callable[[_Field, Any], Any]] = {"encryption_key": _read_keys, "prices": _read_prices}
_READERS_OF_KINDS: dict[str, Callable[[_Field, Any], Any]] = {
    "Lit": _read_choice,
    "Map": _read_factories,
    "tup": _read_names,
    "str": _read_text,
    "boo": _read_switch,
}
