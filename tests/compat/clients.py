"""The clients that run against the simulator: the one list of names, versions and drivers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Client:
    """A client as its users install it, and the driver that runs its main path.

    Args:
        name: of its environment, and on the command line.
        title: what the documentation calls it.
        packages: what is installed, with versions; the first one is the client, and all are shown.
        driver: a file in `drivers`; `.mjs` runs on Node, the others on Python.
        path: what it does, in a few words.
        python: the version of Python.
        fixed_host: it has no setting for the API's address, so it reaches the simulator through a proxy.
        works: whether it can work at all, at the real API too; where not, the page says why.
        answers: `echo`: each answer is compared with the prompt; `any`: it must not be empty.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    driver: str
    path: str
    python: str = "3.12"
    fixed_host: bool = False
    works: bool = True
    answers: str = "echo"

    @property
    def in_node(self) -> bool:
        return self.driver.endswith(".mjs")


#: The SDK that is installed beside clients that take any version of it.
SDK = "anthropic==2.14.0"
AIRFLOW = "apache-airflow==3.3.2"
SDK_PATH = "a message, whole and streamed; its tokens counted; its model; a batch and its results; list, delete, cancel"

CLIENTS = (
    Client("anthropic-0.96", "anthropic 0.96", ("anthropic==0.96.0",), "anthropic_sync.py", SDK_PATH),
    Client("anthropic-0.96-async", "anthropic 0.96, async", ("anthropic==0.96.0",), "anthropic_async.py", SDK_PATH),
    Client("anthropic", "anthropic", (SDK,), "anthropic_sync.py", SDK_PATH),
    Client("anthropic-async", "anthropic, async", (SDK,), "anthropic_async.py", SDK_PATH),
    Client("anthropic-typescript", "anthropic, TypeScript", ("@anthropic-ai/sdk==1.14.0",), "anthropic.mjs", SDK_PATH),
    Client(
        "vercel-ai",
        "Vercel AI SDK",
        ("ai==7.0.173", "@ai-sdk/anthropic==4.0.105", "node==22.23.3"),
        "vercel_ai.mjs",
        "`generateText` and `streamText`, one by one: it has no batches",
    ),
    Client(
        "pydantic-ai",
        "pydantic-ai, agents",
        ("pydantic-ai-slim[anthropic]==2.68.0", SDK),
        "pydantic_ai_agents.py",
        "an agent's runs, whole and streamed: no batches",
    ),
    Client(
        "pydantic-ai-batch",
        "pydantic-ai, batches",
        ("pydantic-ai-slim[anthropic]==2.68.0", SDK),
        "pydantic_ai_batch.py",
        "`model_request_batch`",
    ),
    Client(
        "inspect-ai",
        "inspect-ai, batch mode",
        ("inspect-ai==0.3.285", SDK),
        "inspect_ai_batch.py",
        "`eval` with `batch=`",
    ),
    Client(
        "airflow-anthropic",
        "Airflow, anthropic provider",
        ("apache-airflow-providers-anthropic==1.2.0", AIRFLOW, SDK),
        "airflow_anthropic.py",
        "`AnthropicBatchOperator`, deferred, and its trigger; the hook reads the results",
    ),
    Client(
        "airflow-common-ai",
        "Airflow, common.ai provider",
        ("apache-airflow-providers-common-ai[anthropic]==1.0.0", AIRFLOW, SDK),
        "airflow_common_ai.py",
        "`LLMBatchOperator`, deferred, and its trigger",
    ),
    Client("batchwizard", "batchwizard", ("batchwizard==0.5.0",), "batchwizard_process.py", "`batchwizard process`"),
    Client(
        "llm-batch-py",
        "llm-batch-py",
        ("llm-batch-py==0.1.8", SDK),
        "llm_batch_py_runs.py",
        "`Runner.run`, repeated as by a scheduler, with a model of the answer",
        answers="any",
    ),
    Client(
        "promptbatch",
        "promptbatch",
        ("promptbatch==0.2.0", SDK),
        "promptbatch_batch.py",
        "`batch submit`, `status` until it has ended, `collect`",
    ),
    Client(
        "steadybatch",
        "steadybatch",
        ("steadybatch[anthropic]==0.2.1", SDK),
        "steadybatch_run.py",
        "`Runner.run` with a schema",
        answers="any",
    ),
    Client("batchlane", "batchlane", ("batchlane==0.2.0",), "batchlane_run.py", "`run`", fixed_host=True),
    Client("langasync", "langasync", ("langasync==0.2.3",), "langasync_chain.py", "`batch_chain` and `BatchPoller`"),
    Client("batchata", "batchata", ("batchata==0.4.7", SDK), "batchata_run.py", "`Batch.run`", works=False),
)
