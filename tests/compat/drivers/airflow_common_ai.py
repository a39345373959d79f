"""The deferrable operator and its trigger, called as Airflow's parts call them, without a scheduler."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from report import BASE_URL, MODEL, QUESTIONS, Report, run

os.environ["AIRFLOW_CONN_LLM"] = json.dumps({"conn_type": "pydanticai", "password": "any", "host": BASE_URL})

from airflow.exceptions import TaskDeferred
from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator


async def first_event(trigger: Any) -> Any:
    return (await anext(trigger.run())).payload


def main(report: Report) -> None:
    instance = SimpleNamespace(
        xcom_push=lambda **_: None, dag_id="questions", task_id="ask", run_id="run", map_index=-1, try_number=1
    )
    context: Any = {"ti": instance, "task_instance": instance}
    operator = LLMBatchOperator(
        task_id="ask",
        requests=list(QUESTIONS.values()),
        result_path=Path("results").absolute().as_uri(),
        llm_conn_id="llm",
        model_id=f"anthropic:{MODEL}",
        max_tokens=100,
        poll_interval=30,
        deferrable=True,
    )
    try:
        manifest = operator.execute(context)
    except TaskDeferred as deferred:
        event = asyncio.run(first_event(deferred.trigger))
        manifest = getattr(operator, deferred.method_name)(context, event=event)
    print(manifest)
    names = list(QUESTIONS)
    for path in Path("results").rglob("*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            print(row)
            if row.get("status") in ("succeeded", "success"):
                report.answers[names[row["index"]]] = row["output"]


run(main)
