"""Connections that the store borrows: of Django, of a SQLAlchemy engine, and of the caller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django
import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from claude_batch_tasks.errors import BatchTasksError, InvalidSettings, StoreNotMigrated, StoreUnavailable
from claude_batch_tasks.store import Store
from claude_batch_tasks.store.postgres import open_store_at
from tests.transactions.rig import Project
from tests.unit.store.contract.samples import create_staged_job

#: Engines that dotted paths name.
engine: Any = None
asynchronous: Any = create_async_engine("postgresql+psycopg://nobody@localhost/none")
other_driver: Any = sqlalchemy.create_engine("sqlite://")


def with_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


class TestDjango:
    def test_connections_are_django_s_own_in_and_outside_of_blocks(self, project: Project) -> None:
        found = project.run(
            """
            before = connection.connection
            with transaction.atomic():
                connection.cursor().execute("SELECT 1")
                inside = store.transactions.current() is not None
                pid = connection.connection.info.backend_pid
                name = store.transactions.current()
                with transaction.atomic():
                    same = store.transactions.current() == name
            outside = store.transactions.current()
            store.now(), list(store.jobs.job_ids())
            print(json.dumps([inside, same, outside, pid == connection.connection.info.backend_pid,
                              connection.get_autocommit(), connection.needs_rollback]))
            """
        )
        assert found == [True, True, None, True, True, False]

    def test_a_block_that_only_the_store_uses_is_rolled_back(self, project: Project) -> None:
        found = project.run(
            """
            from tests.unit.store.contract.samples import create_staged_job
            try:
                with transaction.atomic():
                    job_id = create_staged_job(store)
                    assert store.jobs.read_job(job_id) is not None
                    raise KeyError
            except KeyError:
                print(json.dumps(store.jobs.read_job(job_id)))
            """
        )
        assert found is None
        assert project.count_rows() == {}

    def test_an_error_of_the_store_leaves_the_block_usable(self, project: Project) -> None:
        found = project.run(
            """
            from psycopg.errors import DataError, Error
            with transaction.atomic():
                try:
                    store.jobs.read_job("a" + chr(0))
                except Exception as exc:
                    failed = type(exc).__name__
                Order.objects.create(job_id="x")
            print(json.dumps([failed, Order.objects.count()]))
            """
        )
        assert found[1] == 1
        assert found[0]

    def test_a_block_that_has_failed_is_not_used(self, project: Project) -> None:
        found = project.run(
            """
            from django.db import DatabaseError
            from django.db.transaction import TransactionManagementError
            said = []
            with transaction.atomic():
                try:
                    connection.cursor().execute("SELECT nothing")
                except DatabaseError:
                    try:
                        run_batch.delay(REQUESTS)
                    except errors.BatchTasksError as exc:
                        said.append(str(exc))
                    connection.set_rollback(True)
                try:
                    run_batch.delay(REQUESTS)
                except TransactionManagementError as exc:
                    said.append(str(exc))
            print(json.dumps(said))
            """
        )
        assert "roll it back" in found[0]
        assert "until the end of the 'atomic' block" in found[1]
        assert project.count_rows() == {}

    def test_a_broken_connection_is_made_again(self, project: Project) -> None:
        found = project.run(
            """
            import psycopg
            def kill():
                pid = connection.connection.info.backend_pid
                with psycopg.connect(os.environ["DATABASE"], autocommit=True) as other:
                    other.execute("SELECT pg_terminate_backend(%s)", [pid])
            seen = []
            def look():
                try:
                    return store.jobs.read_job("x")
                except errors.StoreUnavailable:
                    return "unavailable"
            look(); kill()
            seen += [look(), look()]
            try:
                with transaction.atomic():
                    look(); kill()
                    seen.append(look())
                    Order.objects.create(job_id="x")
            except Exception as exc:
                seen.append(type(exc).__name__)
            seen += [look(), Order.objects.count()]
            print(json.dumps(seen))
            """
        )
        assert found == ["unavailable", None, "unavailable", "OperationalError", None, 0]

    def test_a_connection_that_may_only_read_is_made_again(self, project: Project) -> None:
        found = project.run(
            """
            import psycopg
            server, _, name = os.environ["DATABASE"].rpartition("/")
            def switch(value):
                with psycopg.connect(f"{server}/postgres", autocommit=True) as other:
                    other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")
            def pause():
                try:
                    return store.in_flight.pause_calls("a", 1.0)
                except errors.StoreUnavailable:
                    return "unavailable"
            switch("on")
            seen = [pause()]
            switch("off")
            print(json.dumps([*seen, pause()]))
            """
        )
        assert found == ["unavailable", None]

    @pytest.mark.skipif(django.VERSION < (5, 1), reason="this Django has no pool")
    def test_a_thread_gives_its_connection_back_when_it_ends(self, project: Project) -> None:
        project.env["OPTIONS_OF_DATABASE"] = '{"OPTIONS": {"pool": {"min_size": 1, "max_size": 2, "timeout": 5}}}'
        found = project.run(
            """
            import threading
            answers = []
            def ask_store():
                answers.append(store.jobs.read_job("x"))
            for _ in range(8):
                thread = threading.Thread(target=ask_store)
                thread.start()
                thread.join()
            connection.close_pool()
            print(json.dumps(answers))
            """
        )
        assert found == [None] * 8

    def test_a_child_process_makes_its_own_and_leaves_that_of_its_parent(self, project: Project) -> None:
        found = project.run(
            """
            store.jobs.read_job("x")
            parent = connection.connection.info.backend_pid
            reading, writing = os.pipe()
            if (child := os.fork()) == 0:
                ours = open_store(Settings.of(app))
                ours.jobs.read_job("x")
                os.write(writing, str(connection.connection.info.backend_pid).encode())
                os._exit(0)
            os.waitpid(child, 0)
            other = int(os.read(reading, 20))
            store.jobs.read_job("x")
            print(json.dumps([other != parent, connection.connection.info.backend_pid == parent]))
            """
        )
        assert found == [True, True]

    def test_another_connection_listens(self, project: Project) -> None:
        found = project.run(
            """
            with store._connection.source.listen() as listening:
                listening.execute("LISTEN there")
                with transaction.atomic():
                    connection.cursor().execute("NOTIFY there, 'committed'")
                    early = [each.payload for each in listening.notifies(timeout=0.2)]
                late = [each.payload for each in listening.notifies(timeout=5, stop_after=1)]
            print(json.dumps([early, late]))
            """
        )
        assert found == [[], ["committed"]]

    @pytest.mark.parametrize(
        ("store", "says"),
        [("django://other", "DATABASES has no 'other'"), ("django://files", "needs PostgreSQL with psycopg 3")],
    )
    def test_another_alias_is_refused(self, empty_project: Project, store: str, says: str) -> None:
        empty_project.env["STORE_URL"] = store
        process = empty_project.start("")
        assert says in process.communicate(timeout=60)[1].splitlines()[-1]

    def test_code_of_workers_stays_out_of_a_block(self, project: Project) -> None:
        found = project.run(
            """
            from claude_batch_tasks.store import stay_apart
            from tests.unit.store.contract.samples import create_staged_job
            try:
                with transaction.atomic():
                    Order.objects.create(job_id="x")
                    with stay_apart():
                        assert store.transactions.current() is None
                        job_id = create_staged_job(store)
                    raise KeyError
            except KeyError:
                print(json.dumps([store.jobs.read_job(job_id) is not None, Order.objects.count()]))
            """
        )
        assert found == [True, 0]


@pytest.fixture
def made(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An engine to an empty database, where the store's dotted path finds it."""
    made = sqlalchemy.create_engine(with_driver(postgres_url), pool_size=2)
    monkeypatch.setitem(globals(), "engine", made)
    yield made
    made.dispose()


@pytest.fixture
def store(made: Any, postgres_url: str) -> Store:
    """A store on the engine, with its tables."""
    store = open_store_at(f"{__name__}:engine", (), f"p{abs(hash(postgres_url))}_")
    store.schema.migrate()
    return store


class TestAnEngine:
    def test_lends_its_connections_and_gets_them_back(self, store: Store, made: Any) -> None:
        for _ in range(5):
            assert store.jobs.read_job("x") is None
        assert made.pool.checkedout() == 0
        with made.connect() as connection:  # as it was
            assert not connection.connection.driver_connection.autocommit

    def test_makes_a_broken_connection_again(self, store: Store, made: Any) -> None:
        with (
            made.connect() as connection,
            psycopg.connect(made.url.set(drivername="postgresql").render_as_string(False), autocommit=True) as other,
        ):
            pid = connection.connection.driver_connection.info.backend_pid
            connection.close()
            other.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(StoreUnavailable):
            store.jobs.read_job("x")
        assert store.jobs.read_job("x") is None

    def test_that_cannot_connect_is_an_outage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        closed = sqlalchemy.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", poolclass=NullPool)
        monkeypatch.setitem(globals(), "engine", closed)
        with pytest.raises(StoreUnavailable, match="did not answer"):
            open_store_at(f"{__name__}:engine", (), "unreachable_").jobs.read_job("x")

    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("asynchronous", "asynchronous engine"),
            ("other_driver", "an engine of sqlite"),
            ("with_driver", "is a function, and not a SQLAlchemy engine"),
            ("nothing", "cannot be imported"),
        ],
    )
    def test_of_another_kind_is_refused(self, path: str, says: str) -> None:
        with pytest.raises(InvalidSettings, match=says):
            open_store_at(f"{__name__}.{path}")

    def test_without_tables_says_what_to_run(self, made: Any) -> None:
        with pytest.raises(StoreNotMigrated, match="claude-batch migrate"):
            open_store_at(f"{__name__}:engine", (), "unmigrated_").jobs.read_job("x")


class TestAConnectionOfTheCaller:
    def test_of_sqlalchemy_takes_the_store_along(self, store: Store, made: Any) -> None:
        for end, there in (("rollback", False), ("commit", True)):
            with made.connect() as connection:
                with store.transactions.join(connection):
                    assert store.transactions.current() is not None
                    job_id = create_staged_job(store)
                assert store.transactions.current() is None
                assert store.jobs.read_job(job_id) is None
                getattr(connection, end)()
            assert (store.jobs.read_job(job_id) is not None) is there

    def test_may_be_a_session(self, store: Store, made: Any) -> None:
        with Session(made) as session, store.transactions.join(session):
            job_id = create_staged_job(store)
            session.commit()
        assert store.jobs.read_job(job_id) is not None

    def test_may_have_rows_and_types_of_its_own(self, store: Store, postgres_url: str) -> None:
        with psycopg.connect(postgres_url, row_factory=dict_row) as connection:  # type: ignore[call-overload]
            notices: list[object] = []
            connection.add_notice_handler(notices.append)
            with store.transactions.join(connection):
                job_id = create_staged_job(store)
                assert store.jobs.read_job(job_id) is not None
            connection.execute("DO $$BEGIN RAISE NOTICE 'hello'; END$$")
            assert len(notices) == 1
            assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
        assert store.jobs.read_job(job_id) is not None

    def test_keeps_its_isolation_level(self, store: Store, postgres_url: str) -> None:
        with psycopg.connect(postgres_url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with store.transactions.join(connection):
                store.jobs.read_job("x")
            assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)

    def test_must_be_in_a_transaction_of_the_store_s_database(self, store: Store, postgres_url: str) -> None:
        elsewhere = postgres_url.rpartition("/")[0] + "/postgres"
        for connection, says in (
            (psycopg.connect(elsewhere), "not to that of the store"),
            (psycopg.connect(postgres_url, autocommit=True), "autocommit"),
        ):
            with connection, pytest.raises(InvalidSettings, match=says), store.transactions.join(connection):
                raise AssertionError
        with pytest.raises(InvalidSettings, match="closed"), store.transactions.join(connection):
            raise AssertionError

    def test_must_not_have_failed(self, store: Store, postgres_url: str) -> None:
        with psycopg.connect(postgres_url) as connection:
            with pytest.raises(psycopg.errors.UndefinedColumn):
                connection.execute("SELECT nothing")
            with pytest.raises(BatchTasksError, match="roll it back"), store.transactions.join(connection):
                raise AssertionError
            connection.rollback()
