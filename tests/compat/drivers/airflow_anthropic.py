"""The deferrable operator, its trigger and the hook, called as Airflow's parts call them, without a scheduler."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

from report import BASE_URL, REQUESTS, Report, run

os.environ["AIRFLOW_CONN_ANTHROPIC_DEFAULT"] = f'{{"conn_type": "anthropic", "password": "any", "host": "{BASE_URL}"}}'

from airflow.exceptions import TaskDeferred
from airflow.providers.anthropic.hooks.anthropic import AnthropicHook
from airflow.providers.anthropic.operators.batch import AnthropicBatchOperator


async def first_event(trigger: Any) -> Any:
    return (await anext(trigger.run())).payload


def main(report: Report) -> None:
    context: Any = {"ti": SimpleNamespace(xcom_push=lambda **_: None)}
    operator = AnthropicBatchOperator(
        task_id="questions", requests=REQUESTS, deferrable=True, poll_interval=1, timeout=60, retries=0
    )
    try:
        batch_id = operator.execute(context)
    except TaskDeferred as deferred:
        event = asyncio.run(first_event(deferred.trigger))
        batch_id = getattr(operator, deferred.method_name)(context, event=event)
    for row in AnthropicHook().stream_batch_results(batch_id):
        if row.result.type == "succeeded":
            report.answers[row.custom_id] = row.result.message.content[0].text


run(main)
